/* Models of random weights, from the shape in a config.json alone: for tests and measurements. Nothing is
 * stored; each row is drawn when it is asked for. */
#ifndef HONE_MODEL_SKETCH_H
#define HONE_MODEL_SKETCH_H

#include "model/model.h"

/* A model whose weights have names and shapes, but no numbers, and whose tokens are bytes
 * (tokenizer_open_bytes). Only model_save takes it. Errors: as model_open, and ERROR_INPUT for a vocabulary
 * of fewer than 257. */
bool sketch_open(struct model **out, const char *config_path, struct error *err);

/* Numbers as transformers begins with: linear layers and embeddings normal with deviation initializer_range
 * (0.02 where config.json has none), norms 1, biases 0. Philox counter: (column / 4, row, index, 0xfffffff0),
 * so that every container and type is made of the same numbers. */
struct sketch {
    const struct model *model;
    uint64_t seed;
    double deviation;
};
bool sketch_init(struct sketch *out, const struct model *model, uint64_t seed, struct error *err);
void sketch_row(const struct sketch *sketch, size_t index, int64_t row, float *out);

#endif
