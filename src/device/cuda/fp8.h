/* Products with weights that the store keeps in fp8: fp8.c says how. */
#ifndef HONE_DEVICE_CUDA_FP8_H
#define HONE_DEVICE_CUDA_FP8_H

#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"

enum {
    fp8_most_rank = 128,                   /* graph_fold folds no larger one */
    fp8_beside_rows = blas_workspace + 256 /* bytes of workspace, the rows' own apart, which lie at its end */
};

/* Bytes of a row for the numbers of an adapter of this rank, and what rows are longer for them. */
int64_t fp8_extra(int64_t rank);
int64_t fp8_pad(int64_t rank);
/* Where the pieces of a weight [rows, columns] lie, codes first; false on overflow. */
struct fp8_layout {
    uint64_t transposed, scales, bytes;
};
bool fp8_layout(struct fp8_layout *out, int64_t rows, int64_t columns, int64_t pad);
struct fp8_weight fp8_weight_at(void *data, int64_t rows, int64_t columns, int64_t pad);
/* False with *err filled on other devices than Hopper. */
bool fp8_serves(const struct device *device, struct error *err);
/* Of rows with their factors. */
size_t fp8_rows_bytes(int64_t rows, int64_t stride);
size_t fp8_workspace(const struct graph *graph, const struct node *node);
/* Where a node is to write an output a second time, in e4m3; data NULL: no product reads it so. */
struct fp8_rows fp8_output(struct call *call, int output);
size_t fp8_output_workspace(const struct graph *graph, const struct node *node);
/* A product whose m, n, k, y and w_transposed are set (true: with w; false: with its transpose), and what is
 * added to it. */
bool fp8_product(struct call *call, struct product *p, struct thin *thin, struct error *err);

/* How many nodes from this one on may be one product (fp8_join.c), where the outputs of all lie in one place;
 * 0: none. */
int fp8_joins(const struct graph *graph, const struct node *node);
size_t fp8_join_workspace(const struct graph *graph, const struct node *node, int count);
/* Does them all. */
bool fp8_join(struct call *calls, int count, struct error *err);

#endif
