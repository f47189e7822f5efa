/* Writes a model: another container, another stored type, other numbers; streaming.
 *
 * Rows go from where they lie to the file one slab at a time, so that memory does not grow with the model.
 * Every number is looked at on the way: NaN and infinities are refused by the name of their tensor.
 *
 * Words: container (GGUF file, or a directory as Hugging Face or MLX lay it out), stored type, slab (rows
 * that are made and written together). */
#ifndef HONE_MODEL_SAVE_H
#define HONE_MODEL_SAVE_H

#include "model/model.h"

enum container { CONTAINER_GGUF, CONTAINER_SAFETENSORS, CONTAINER_MLX, CONTAINER_COUNT };

/* Types that can be written, a row each. */
struct save_type {
    enum dtype dtype;
    unsigned containers; /* bits 1 << enum container */
    uint32_t file_type;  /* GGUF's general.file_type (llama.h, enum llama_ftype) */
    /* In place of this type where a row is no whole number of its blocks, as in llama.cpp's
     * tensor_type_fallback; and where a row is no whole number of that one's: f16. */
    enum dtype fallback;
    enum dtype head; /* of the head, or of an embedding that serves as one: every logit depends on it */
    bool linears;    /* the type is of linear layers alone: an embedding beside a head is as the head */
};
extern const struct save_type save_types[];
extern const size_t save_type_count;
/* Errors: ERROR_USAGE for a name that is none of them, or not one of the container's. */
bool save_type_find(const char *name, enum container to, const struct save_type **out, struct error *err);
const char *container_name(enum container container); /* "gguf", "safetensors", "mlx" */

/* Where numbers come from, when not from the model's own files: row `row` (in Hugging Face's order) of the
 * weight `index` (model/layout.h) as f32. Called from several threads. False: as the files have it. Not asked
 * of a weight that the files hold in the very type that is written, where its scales lie apart. */
typedef bool save_row(void *user, size_t index, int64_t row, float *out);

struct save {
    const struct model *model;
    enum container to;
    const struct save_type *type; /* NULL: each weight as stored, and bf16 where `to` cannot hold that */
    const enum dtype
        *types;           /* [weights of model/layout.h] what each is stored as, instead; NULL: by `type` */
    const char *path;     /* a file for GGUF, else a directory; must not exist */
    uint64_t shard_bytes; /* largest file of weights in a directory; 0: 5 GB, as Hugging Face's */
    int threads;
    save_row *row; /* NULL: the model's files */
    /* Called between slabs with the bytes written so far and in all; false ends the writing. */
    bool (*progress)(void *user, uint64_t done, uint64_t total, struct error *err);
    void *user; /* of both */
};

/* The file or directory appears under its name whole or not at all. *report: what was written,
 *   {"bytes", "parameters", "bits_per_weight", "relative_error", "types": {TYPE: tensors},
 *    "fallbacks": [{"type", "in_place_of", "row", "tensors": […]}], "left_out": [tensors of no use here]}
 * relative_error: root of the squared change of all numbers over their sum of squares. */
bool model_save(const struct save *save, json_t **report, struct error *err);

/* The most that model_save takes of the memory, beyond what it is given. */
uint64_t model_save_memory(const struct model *model, int threads);

/* tokenizer.json, tokenizer_config.json, generation_config.json where there are more ends than the
 * tokenizer's, and chat_template.jinja of `source` unless that is NULL. */
bool model_write_text(const struct model *model, const char *source, size_t source_size,
                      const char *directory, struct error *err);

#endif
