/* Which weights a configuration has, in what order, of what shape, and how containers name them and lay their
 * rows. A weight's index is its place in model->weights: the layers one after the other, each in the order of
 * enum weight_role, then what stands once. */
#ifndef HONE_MODEL_LAYOUT_H
#define HONE_MODEL_LAYOUT_H

#include "model/family.h"
#include "tensor/tensor.h"

size_t layout_count(const struct model_config *config);
size_t layout_index(const struct model_config *config, enum weight_role role, int64_t layer);
enum weight_role layout_role(const struct model_config *config, size_t index);
int64_t layout_layer(const struct model_config *config, size_t index); /* 0 for what stands once */

/* The dimensions that a weight must have, slowest first; returns how many. */
int layout_shape(const struct model_config *config, enum weight_role role, int64_t dim[2]);

/* NULL: the family has no such weight. */
const struct weight_name *layout_row(const struct family *family, enum weight_role role);
/* Whether a model of this configuration may have the weight. */
bool layout_present(const struct model_config *config, const struct weight_name *row);
/* Whether a GGUF file of a permuted family interleaves the rows of this weight. */
bool layout_interleaved(enum weight_role role);
/* The tensor's name in a GGUF file or a Hugging Face directory; false where there is none for it. */
bool layout_name(const struct weight_name *row, bool gguf, int64_t layer, char name[tensor_max_name]);

/* GGUF's llama order of q and k puts the two halves of a head side by side, for another form of rotary
 * embedding: the row there of row `r` in Hugging Face's order, and back. */
int64_t layout_row_to_gguf(int64_t r, int64_t head_dim);
int64_t layout_row_from_gguf(int64_t r, int64_t head_dim);

#endif
