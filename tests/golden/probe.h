/* A model with an adapter, opened for looking inside: logits of every row, gradients of a step. Shared by the
 * golden test and by the driver that the comparison with the real model calls. */
#ifndef TESTS_GOLDEN_PROBE_H
#define TESTS_GOLDEN_PROBE_H

#include "score/batch.h"
#include "score/engine.h"

struct probe {
    struct model *model;
    struct peft *adapter;
    struct method method;
    const struct device_ops *ops;
    struct device *device;
    struct engine engine;
    struct engine_program train, score, infer;
    struct batch batch;
    int64_t tokens;
    float *logits; /* [tokens, vocabulary] of the last probe_logits */
};

struct probe_options {
    const char *device, *mask;
    int threads;
    enum dtype compute;
    bool decoded;
    enum graph_keep keep;
    int layers; /* that are kept so; 0: all */
    int64_t tokens;
    const char *base_type; /* as --base-type; NULL: the adapter's, else as stored */
    double dropout;
    bool with_logits; /* a cache and a program for logits too */
    bool full;        /* every weight is trained */
};

/* adapter NULL: the plain model, without gradients unless `full`. */
bool probe_open(struct probe *out, const char *model, const char *adapter,
                const struct probe_options *options, struct error *err);
void probe_close(struct probe *probe);
/* Logits of each token of one sequence, through the cache in pieces of `piece` tokens (0: one piece). */
bool probe_logits(struct probe *probe, const int32_t *ids, int64_t count, int64_t piece, struct error *err);
/* Loss and gradients (into the store) of these examples as one effective batch, in micro-batches of at most
 * `group` examples. */
bool probe_gradients(struct probe *probe, const struct example *examples, size_t count, size_t group,
                     double *loss, struct error *err);
/* The gradient of "base_model.model.<module>.lora_A.weight" or, with `full`, of a weight: a copy from
 * mem_alloc with its element count. */
bool probe_gradient(struct probe *probe, const char *name, float **out, size_t *count, struct error *err);

#endif
