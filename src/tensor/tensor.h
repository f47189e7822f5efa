/* A block of numbers with a name: what a file holds and what a model is made of. */
#ifndef HONE_TENSOR_TENSOR_H
#define HONE_TENSOR_TENSOR_H

#include "tensor/dtype.h"

enum { tensor_max_rank = 4, tensor_max_name = 256 };

/* What lies apart from the codes of a type that is no row of blocks (stored.h). */
enum tensor_part { PART_SCALES, PART_OFFSETS, PART_LEVELS, PART_FACTORS, tensor_parts };

/* Shapes are written slowest dimension first, as PyTorch prints them: a linear weight is [out, in].
 * (GGUF stores them the other way round; its reader turns them.) */
struct tensor {
    const char *name; /* owned by whoever made the tensor */
    enum dtype dtype;
    int rank; /* 0 to tensor_max_rank */
    int64_t dim[tensor_max_rank];
    const void *data; /* may be unaligned when it lies in a mapped file */
    uint64_t bytes;
    const struct tensor *part[tensor_parts]; /* NULL: there is none */
};

/* Product of the dimensions; false on overflow. */
bool tensor_elements(const struct tensor *tensor, uint64_t *out);
/* Sets `bytes` from dtype and dimensions (rows of the last dimension); false when that is impossible. */
bool tensor_set_bytes(struct tensor *tensor);

#endif
