/* A model as it lies on disk: configuration, weights by role, tokenizer and template.
 *
 * Opened from a GGUF file or a Hugging Face directory; everything is mapped, nothing is copied, and every
 * shape is checked against the configuration here, so that what comes later can rely on it. */
#ifndef HONE_MODEL_MODEL_H
#define HONE_MODEL_MODEL_H

#include "base/digest.h"
#include "model/family.h"
#include "model/stops.h"
#include "tensor/tensor.h"
#include "text/tokenizer.h"

struct model {
    struct model_config config;
    const struct family *family;
    struct tensor *weights; /* [layout_count] (model/layout.h); rank 0: absent */
    bool permuted;          /* q and k rows are interleaved in the file */
    struct tokenizer *tokenizer;
    struct stops stops;  /* what ends an answer, beside the tokenizer's end of text */
    char *chat_template; /* NULL: the model has none */
    size_t chat_template_size;
    uint64_t mapped_bytes; /* of the weight files */
    char *path;            /* as given */
    struct gguf *gguf;     /* one of these three */
    struct hub *hub;
    json_t *sketched; /* the config.json that it is a sketch of (model/sketch.h) */
};

bool model_open(struct model **out, const char *path, struct error *err);
void model_close(struct model **model);

/* NULL where the model has no such weight. `layer` is ignored for roles that stand once. The head of a
 * tied model is the embedding. */
const struct tensor *model_weight(const struct model *model, enum weight_role role, int64_t layer);

/* The config.json that it was opened from, or NULL. */
const json_t *model_hub_config(const struct model *model);

/* Digest over the weight files' bytes (seconds for large models), for recipes and the store. */
bool model_digest(const struct model *model, struct digest *out, struct error *err);

/* Tells models of equal shapes apart, in milliseconds: a digest over the shape, the type and the beginning of
 * the first row of every matrix, which are the same in GGUF and in a directory. Errors: ERROR_MEMORY. */
bool model_fingerprint(const struct model *model, struct digest *out, struct error *err);

/* Rotation per position of each channel pair: out[head_dim / 2]. */
void model_rope_frequencies(const struct model *model, float *out);

/* Refuses a model that cannot become a complete one: a weight holds NaN or infinity, which is named. Reads
 * every weight once. Errors: ERROR_INPUT, ERROR_MEMORY. */
bool model_check_finite(const struct model *model, struct error *err);
/* The same of a row [count] of one of its weights, and the error. */
bool model_row_is_finite(const float *row, int64_t count);
bool model_refuse_not_finite(const struct model *model, const char *name, struct error *err);

/* Number of weights in all (elements). */
uint64_t model_parameters(const struct model *model);

/* Bytes of stored weights that computing one token reads: every weight once, of the embedding one row; all of
 * it where it is the head too. */
uint64_t model_token_bytes(const struct model *model);

#endif
