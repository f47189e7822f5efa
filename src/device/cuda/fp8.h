/* Products with weights that the store keeps in fp8: fp8.c says how. */
#ifndef HONE_DEVICE_CUDA_FP8_H
#define HONE_DEVICE_CUDA_FP8_H

#include "device/cuda/cuda.h"

struct product;

/* Bytes behind each row for the numbers of an adapter of this rank. */
int64_t fp8_pad(int64_t rank);
/* Where the pieces of a weight [rows, columns] lie, codes first; false on overflow. */
struct fp8_layout {
    uint64_t transposed, scales, bytes;
};
bool fp8_layout(struct fp8_layout *out, int64_t rows, int64_t columns, int64_t pad);
struct fp8_weight fp8_weight_at(void *data, int64_t rows, int64_t columns, int64_t pad);
/* False with *err filled on other devices than Hopper. */
bool fp8_serves(const struct device *device, struct error *err);
size_t fp8_workspace(const struct graph *graph, const struct node *node);
/* A product whose m, n, k, y and w_transposed are set (true: with w; false: with its transpose), and what is
 * added to it. */
bool fp8_product(struct call *call, struct product *p, struct thin *thin, struct error *err);

#endif
