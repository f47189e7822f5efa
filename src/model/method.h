/* Methods: what is trained. LoRA (Hu et al. 2021) attaches scale · up(down(dropout x)) to chosen linears;
 * DoRA (Liu et al. 2024) gives the rows of the weight that comes of it lengths of their own; full fine-tuning
 * trains the weights themselves.
 *
 * Two forms of the same thing: rules, as people and files say them (one rank, and patterns for the modules
 * that differ), and parts, a rank and an alpha for each module of each layer, which is all that graphs and
 * state look at. method_build goes one way, method_describe the other.
 *
 * A pattern is a regular expression that matches the end of a module's path, from its beginning or after a
 * dot: `q_proj`, `layers\.[0-3]\..*`. It is what PEFT's rank_pattern and alpha_pattern hold. Weights that are
 * trained whole are matched by their names in Hugging Face's models ("model.norm.weight"), with or without
 * the last part.
 *
 * Module numbers, fixed for ever since random numbers depend on them: layer · 16 + index in
 * family.h's `modules`. */
#ifndef HONE_MODEL_METHOD_H
#define HONE_MODEL_METHOD_H

#include "base/arena.h"
#include "model/model.h"

static inline int module_number(int64_t layer, int module) { return (int)(layer * 16 + module); }
enum { module_embedding = 0xffff }; /* NEFTune's noise; no model has as many layers */

struct method_part {
    int64_t rank; /* 0: nothing is attached here */
    double alpha;
};

/* How A and B begin. With the first two B is zero. Those after them are made of the weight itself
 * (method_init.h); after PiSSA's and OLoRA's start the base counts without it, so that training begins at the
 * model as it is: y = W x + s B A x - s B0 A0 x, where A0 and B0 are where A and B began. */
enum method_init {
    METHOD_INIT_DEFAULT,  /* A uniform in ±1/√in: Kaiming's with a = √5 */
    METHOD_INIT_GAUSSIAN, /* A normal with deviation 1/rank */
    METHOD_INIT_PISSA,    /* the largest singular triplets of W (Meng et al. 2024) */
    METHOD_INIT_OLORA,    /* the first columns of W = Q R (Büyükakyüz 2024) */
    METHOD_INIT_LOFTQ,    /* those of what quantising took from W (Li et al. 2023), one alternation */
    METHOD_INITS
};

/* All zero: the plain model. */
struct method {
    struct method_part *parts; /* [method_part_count], from mem_alloc; NULL: nothing is attached */
    size_t count;
    double dropout;
    double
        noise; /* NEFTune's α: uniform noise of ± α / √(tokens · hidden) on the embeddings of training rows */
    bool rslora; /* scale = alpha / √rank (Kalajdzievski 2023), else alpha / rank */
    bool dora;   /* each adapted module has a magnitude [out] too */
    enum method_init init;
    int init_steps; /* of PiSSA's: struct low_rank's */
    bool *weights;  /* [weight_count] as model->weights: trained whole; from mem_alloc; NULL: none is */
    size_t weight_count;
};

struct method_pattern {
    const char *pattern;
    double value;
};

struct method_rules {
    const char **targets; /* patterns; "all-linear" or "all": each module */
    size_t target_count;
    int64_t layers; /* only the last so many; 0: all */
    int64_t rank;
    double alpha;
    struct method_pattern *ranks, *alphas; /* the first that matches counts */
    size_t rank_count, alpha_count;
};

/* Parts from rules. Errors: ERROR_USAGE naming the flag whose pattern matches no module. */
bool method_build(struct method *out, const struct model_config *config, const struct method_rules *rules,
                  struct error *err);
/* Every weight but those that a pattern of `freeze` matches. A head that is the embedding is trained once.
 * Errors: ERROR_USAGE naming a pattern that matches no weight. */
bool method_full(struct method *out, const struct model *model, const char *const *freeze, size_t count,
                 struct error *err);
/* A weight's name in Hugging Face's models; false where the model has none of its own at this index. */
bool weight_name_hub(const struct model *model, size_t index, char name[tensor_max_name]);
/* Weights beside an adapter that are trained whole (PEFT's modules_to_save): all of each module that a
 * pattern matches, which gets no pair then. A head that is the embedding may be one by itself, "lm_head": as
 * in PEFT, the copy that is trained is tied to nothing. Errors: ERROR_USAGE naming a pattern that matches
 * nothing. */
bool method_save_modules(struct method *method, const struct model *model, const char *const *patterns,
                         size_t count, struct error *err);
/* Marks one such weight by its name in Hugging Face's models; false: there is none. */
bool method_save_weight(struct method *method, const struct model *model, const char *name, size_t *index);
/* Names of modules for them that PEFT, which compares ends of paths, and method_save_modules understand
 * alike; the texts live in `arena`. */
bool method_saved_names(const struct method *method, const struct model *model, const char ***names,
                        size_t *count, struct arena *arena, struct error *err);
/* A weight's name when it is trained; the head of a tied model has one too. */
bool weight_name_trained(const struct model *model, size_t index, char name[tensor_max_name]);
/* Refuses a target all of whose modules are trained whole (method_save_modules), and so are not adapted. */
bool method_check_targets(const struct method *method, const struct model_config *config,
                          const struct method_rules *rules, struct error *err);
/* Refuses a rank above the smaller side of its matrix, which would train more numbers for nothing. */
bool method_check(const struct method *method, const struct model_config *config, struct error *err);
/* Rules that give these parts, as short as they can be; the texts live in `arena`. `names`: the targets are
 * plain names of modules, not expressions. */
bool method_describe(const struct method *method, const struct model_config *config, struct method_rules *out,
                     bool *names, struct arena *arena, struct error *err);
bool method_copy(struct method *out, const struct method *method, struct error *err);
void method_release(struct method *method);
/* The same rank, alpha and form everywhere. */
bool method_same_parts(const struct method *a, const struct method *b);

/* The value of the first pattern that matches a module's path; `otherwise` when none does. `used`: NULL, or
 * where every pattern that does is noted. */
struct method_matcher;
/* What a path names: a module, or a part of one ("….up_proj.lora_A"), which the module's patterns match too.
 */
enum method_paths { METHOD_MODULES, METHOD_PARTS };
bool method_matcher_open(struct method_matcher **out, const struct method_pattern *patterns, size_t count,
                         enum method_paths paths, struct error *err);
void method_matcher_close(struct method_matcher **matcher);
/* Makes an error of method_matcher_open about a pattern one of the flag that gave it. */
bool method_bad_regex(const char *flag, struct error *err);
bool method_match(struct method_matcher *matcher, const char *path, double otherwise, double *out, bool *used,
                  struct error *err);

/* Whether the start is taken from the base (A0, B0). */
bool method_is_subtracted(const struct method *method);
/* What an adapter of this method is written as. Where the start is taken from the base: a plain one of twice
 * the rank and the same scale, [A; A0] and [B, -B0], as PEFT's path_initial_model_for_weight_conversion; so
 * it fits the base as it is. To be released. */
bool method_written(struct method *out, const struct method *method, struct error *err);

/* Factor of the update of a part. */
double method_scale(const struct method *method, size_t part);
/* Trained values in all. */
uint64_t method_parameters(const struct method *method, const struct model_config *config);
/* Parts stand layer by layer, then the embedding's and the head's. */
static inline size_t method_part_count(const struct model_config *config) {
    return (size_t)config->layers * module_count + module_outer;
}
static inline int part_module(const struct model_config *config, size_t part) {
    size_t inner = (size_t)config->layers * module_count;
    return part < inner ? (int)(part % module_count) : (int)(part - inner) + module_count;
}
static inline int64_t part_layer(const struct model_config *config, size_t part) {
    return part_module(config, part) < module_count ? (int64_t)(part / module_count) : 0;
}
static inline size_t part_index(const struct model_config *config, int64_t layer, int module) {
    return module < module_count ? (size_t)layer * module_count + (size_t)module
                                 : (size_t)config->layers * module_count + (size_t)(module - module_count);
}
/* The linear weight's [out, in] of a module; the embedding is one with a column for each token. */
void module_shape(const struct model_config *config, int module, int64_t *out, int64_t *in);
/* "model.layers.12.mlp.up_proj"; `layer` does not count for what stands outside. */
void module_path(int64_t layer, int module, char out[96]);

/* Initial A [rank, in] of a part where B is zero; of the embedding, whose A is zero, B [out, rank] normal
 * with deviation 1, as PEFT's. Philox counter: (element / 4, module number, 0, 0xfffffffd). */
void method_init_a(const struct method *method, const struct model_config *config, uint64_t seed,
                   int64_t layer, int module, float *a);

#endif
