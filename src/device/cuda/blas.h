/* Matrix products by cuBLASLt, which is loaded when the device is opened. An algorithm is chosen once for
 * each shape, by the library's heuristics, among those whose sums do not depend on the order of blocks. */
#ifndef HONE_DEVICE_CUDA_BLAS_H
#define HONE_DEVICE_CUDA_BLAS_H

#include "base/error.h"
#include "device/cuda/kernels.h"

enum { blas_workspace = 32 << 20 }; /* bytes; what the vendor asks for on Hopper */

/* y [m, n] = alpha x w + beta addend (y itself where there is none); rows `ld…` elements apart. */
struct product {
    enum dtype type; /* of x and w: f32, bf16 or f16; sums are f32 */
    const void *x, *w;
    struct array y;
    int64_t m, n, k, ldx, ldw;
    bool fp8; /* x and w are e4m3 instead, the sums multiplied by x_scales [m] and w_scales [n] */
    const float *x_scales, *w_scales;
    bool x_transposed;  /* x lies as [k, m] */
    bool w_transposed;  /* w lies as [n, k] */
    const void *addend; /* as y: type and stride; or NULL */
    float alpha, beta;
};

struct blas;
/* `tf32`: products in f32 round their operands to 11 bits. */
bool blas_open(struct blas **out, bool tf32, struct error *err);
void blas_close(struct blas **blas);
/* `workspace`: blas_workspace bytes on the device. */
bool blas_product(struct blas *blas, const struct product *product, void *workspace, cudaStream_t stream,
                  struct error *err);
const char *blas_path(const struct blas *blas); /* where it was loaded from */
size_t blas_version(const struct blas *blas);

#endif
