/* What `hone doctor` shows of a GPU, and the rates that estimates use. */
#include <stdio.h>

#include "device/cuda/blas.h"
#include "device/cuda/cuda.h"

bool cuda_describe(const struct device *device, json_t **out, struct error *err) {
    char used[32], what[768];
    snprintf(used, sizeof used, "sm_%d%d", device->major, device->minor);
    snprintf(what, sizeof what, "cuda:%d, %s, %.1f GiB, %d multiprocessors, cuBLASLt %zu from %.100s",
             device->index, device->name, (double)device->total / (1 << 30), device->processors,
             blas_version(device->blas), blas_path(device->blas));
    *out = json_pack("{s:s, s:s, s:s, s:s, s:b, s:I}", "name", "cuda", "what", what, "features", used, "used",
                     used, "prefers_bf16", 1, "memory_bytes", (json_int_t)device->total);
    return *out || error_no_memory(err, "cuda", 0);
}

enum { repeats = 20 };

struct timer {
    cudaEvent_t begin, end;
};

static bool timer_open(struct timer *timer, struct error *err) {
    return cuda_check(cudaEventCreate(&timer->begin), "make an event", err) &&
           cuda_check(cudaEventCreate(&timer->end), "make an event", err);
}

static double timer_seconds(const struct timer *timer) {
    float milliseconds = 0;
    cudaEventSynchronize(timer->end);
    cudaEventElapsedTime(&milliseconds, timer->begin, timer->end);
    return (double)milliseconds / 1e3;
}

/* Flops per second of y = x wᵀ; 0 when memory is short. */
static double product_rate(struct device *device, const struct timer *timer, enum dtype type,
                           const int64_t shape[3], uint64_t memory) {
    int64_t m = shape[0], n = shape[1], k = shape[2];
    size_t size = type == DTYPE_F32 ? 4 : 2, x = cuda_round((size_t)(m * k) * size),
           w = cuda_round((size_t)(n * k) * size), y = cuda_round((size_t)(m * n) * size);
    unsigned char *block;
    struct error ignored;
    if (memory && x + w + y + blas_workspace > memory) return 0;
    if (!cuda_allocate((void **)&block, x + w + y + blas_workspace, "a measurement", &ignored)) return 0;
    cudaMemsetAsync(block, 0x3c, x + w, device->stream); /* numbers of ordinary size */
    struct product product = {.type = type,
                              .x = block,
                              .w = block + x,
                              .y = {block + x + w, type, n},
                              .m = m,
                              .n = n,
                              .k = k,
                              .ldx = k,
                              .ldw = k,
                              .w_transposed = true,
                              .alpha = 1};
    bool ok = blas_product(device->blas, &product, block + x + w + y, device->stream, &ignored);
    cudaEventRecord(timer->begin, device->stream);
    for (int i = 0; ok && i < repeats; i++)
        ok = blas_product(device->blas, &product, block + x + w + y, device->stream, &ignored);
    cudaEventRecord(timer->end, device->stream);
    double seconds = timer_seconds(timer);
    cudaFree(block);
    return ok && seconds > 0 ? 2.0 * (double)m * (double)n * (double)k * repeats / seconds : 0;
}

static double copy_rate(struct device *device, const struct timer *timer, uint64_t memory) {
    const size_t bytes = (size_t)256 << 20;
    unsigned char *block;
    struct error ignored;
    if (memory && 2 * bytes > memory) return 0;
    if (!cuda_allocate((void **)&block, 2 * bytes, "a measurement", &ignored)) return 0;
    cudaMemsetAsync(block, 0, 2 * bytes, device->stream);
    cudaEventRecord(timer->begin, device->stream);
    for (int i = 0; i < repeats; i++)
        cudaMemcpyAsync(block + bytes, block, bytes, cudaMemcpyDeviceToDevice, device->stream);
    cudaEventRecord(timer->end, device->stream);
    double seconds = timer_seconds(timer);
    cudaFree(block);
    return seconds > 0 ? 2.0 * (double)bytes * repeats / seconds : 0; /* read and written */
}

bool cuda_measure(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3], int count,
                  uint64_t memory, json_t **out, struct error *err) {
    static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
    struct timer timer = {0};
    json_t *products = json_array();
    bool ok = timer_open(&timer, err);
    for (int s = 0; ok && s < count; s++)
        for (size_t c = 0; c < sizeof types / sizeof *types; c++) {
            if (compute && *compute != types[c]) continue;
            json_list_add(&products, json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "compute",
                                               dtype_row(types[c])->name, "product", "cublaslt", "m",
                                               (json_int_t)shapes[s][0], "n", (json_int_t)shapes[s][1], "k",
                                               (json_int_t)shapes[s][2], "flops_per_second",
                                               product_rate(device, &timer, types[c], shapes[s], memory)));
        }
    *out = ok ? json_pack("{s:o, s:f}", "products", products, "read_bytes_per_second",
                          copy_rate(device, &timer, memory))
              : NULL;
    if (!ok) json_decref(products);
    if (timer.begin) cudaEventDestroy(timer.begin);
    if (timer.end) cudaEventDestroy(timer.end);
    return ok && (*out || error_no_memory(err, "cuda", 0));
}
