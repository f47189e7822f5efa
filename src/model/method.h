/* Methods: what is trained. LoRA (Hu et al. 2021) attaches scale · up(down(dropout x)) to chosen linears.
 *
 * Module numbers, fixed for ever since random numbers depend on them: layer · 16 + index in
 * family.h's `modules`. */
#ifndef HONE_MODEL_METHOD_H
#define HONE_MODEL_METHOD_H

#include "model/model.h"

static inline int module_number(int64_t layer, int module) { return (int)(layer * 16 + module); }

struct method {
    int64_t rank; /* 0: nothing is attached (the plain model) */
    double alpha; /* scale = alpha / rank */
    double dropout;
    bool targets[module_count];
};

/* "all" or a comma-separated list of q_proj, k_proj, … Errors: ERROR_USAGE naming the modules there are. */
bool method_targets(const char *list, bool targets[module_count], struct error *err);
/* Trained values in all. */
uint64_t method_parameters(const struct method *method, const struct model_config *config);
/* The linear weight's [out, in] of a module. */
void module_shape(const struct model_config *config, int module, int64_t *out, int64_t *in);

/* Initial adapter as PEFT makes it: A uniform in ±1/√in (Kaiming with a = √5), B zero. a [rank, in].
 * Philox counter: (element / 4, module number, 0, 0xfffffffd). */
void method_init_a(const struct method *method, const struct model_config *config, uint64_t seed,
                   int64_t layer, int module, float *a);

#endif
