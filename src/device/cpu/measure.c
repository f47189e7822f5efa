#include "device/cpu/measure.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"

static const enum cpu_feature features[] = {CPU_AVX2, CPU_AVX512, CPU_AVX512BF16, CPU_AMX, CPU_NEON};
static const enum dtype compute_types[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};

static void append_names(struct buf *out, unsigned bits) {
    for (size_t i = 0; i < sizeof features / sizeof *features; i++)
        if (bits & features[i]) buf_printf(out, "%s%s", out->size ? ", " : "", cpu_feature_name(features[i]));
    if (!out->size) buf_text(out, "none");
}

/* Why a row with these needs is not taken; "" when it could be. */
static void append_reason(const struct device *device, unsigned needs, struct buf *out) {
    unsigned absent = needs & ~device->detected, masked = needs & device->detected & ~device->features;
    if (absent) {
        struct buf names = {0};
        append_names(&names, absent);
        buf_printf(out, "this processor lacks %s", names.data ? names.data : "?");
        out->failed |= names.failed;
        buf_release(&names);
    } else if (masked) {
        buf_text(out, "masked");
    }
}

static json_t *choice(const struct device *device, const char *name, unsigned needs, bool taken,
                      bool passed) {
    struct buf why = {0};
    append_reason(device, needs, &why);
    const char *reason = why.failed ? NULL
                         : taken    ? "selected"
                         : why.size ? why.data
                         : passed   ? "a better one stands before it"
                                    : "";
    json_t *row = json_pack("{s:s, s:b, s:s}", "name", name, "selected", taken, "why", reason);
    buf_release(&why);
    return row;
}

/* What one might look for among the products. */
static json_t *absent_product(void) {
    return json_pack("{s:s, s:b, s:s, s:s}", "name", "onednn", "selected", 0, "why",
                     "not linked: own products are as fast and decode stored weights while packing",
                     "compute", "any");
}

static json_t *describe_products(const struct device *device) {
    json_t *list = json_array();
    for (size_t c = 0; c < sizeof compute_types / sizeof *compute_types; c++) {
        const struct cpu_gemm *selected = cpu_gemm_select(compute_types[c], device->features);
        bool passed = false;
        for (int i = 0; i < cpu_gemm_count; i++) {
            if (cpu_gemms[i].compute != compute_types[c]) continue;
            json_t *row =
                choice(device, cpu_gemms[i].name, cpu_gemms[i].needs, &cpu_gemms[i] == selected, passed);
            json_object_put(&row, "compute", json_string(dtype_row(compute_types[c])->name));
            json_list_add(&list, row);
            if (&cpu_gemms[i] == selected) passed = true;
        }
    }
    json_array_append_new(list, absent_product());
    return list;
}

static json_t *describe_kernels(const struct device *device) {
    json_t *list = json_array();
    size_t count;
    const struct cpu_kernel *const *tables = cpu_kernel_tables(&count);
    for (size_t t = 0; t < count; t++)
        for (const struct cpu_kernel *row = tables[t]; row->run; row++) {
            const struct cpu_kernel *selected = cpu_kernel_select(row->op, device->features);
            json_t *item = choice(device, row->name, row->needs, row == selected, selected && selected < row);
            json_object_put(&item, "operation", json_string(op_row(row->op)->name));
            json_list_add(&list, item);
        }
    return list;
}

bool cpu_describe(const struct device *device, json_t **out, struct error *err) {
    struct buf found = {0}, used = {0};
    append_names(&found, device->detected);
    append_names(&used, device->features);
    json_t *products = describe_products(device), *kernels = describe_kernels(device);
    *out = json_pack("{s:s, s:i, s:s, s:s, s:b, s:o, s:o}", "name", "cpu", "threads",
                     pool_threads(device->pool), "features", found.data, "used", used.data, "prefers_bf16",
                     cpu_prefers_bf16(device->features), "products", products, "kernels", kernels);
    buf_release(&found);
    buf_release(&used);
    return *out || error_no_memory(err, "cpu", 0);
}

/* A thread that has slept takes milliseconds to find a core of its own: repeats go on for a while. */
enum { least_repeats = 5, bandwidth_bytes = 128 << 20, least_bandwidth_bytes = 32 << 20 };
static const double least_seconds = 0.06;

/* Seconds of the fastest of many calls, the first not counted. */
static double fastest(void (*call)(void *), void *user) {
    double best = 1e30, begin = clock_seconds(), now = begin;
    for (int i = 0; i < least_repeats || now - begin < least_seconds; i++) {
        double start = now;
        call(user);
        now = clock_seconds();
        if (i && now - start < best) best = now - start;
    }
    return best;
}

struct product {
    struct gemm gemm;
    const struct cpu_gemm *row;
    struct device *device;
    void *workspace;
};

static void run_product(void *user) {
    struct product *p = user;
    p->row->run(&p->gemm, 1, p->device->pool, p->workspace, p->device->features);
}

static size_t product_bytes(const struct device *device, const struct cpu_gemm *gemm, int64_t m, int64_t n,
                            int64_t k) {
    size_t scratch = gemm->workspace(GEMM_NT, m, n, k, DTYPE_F32, pool_threads(device->pool));
    return (size_t)(m * k + n * k + m * n) * sizeof(float) + scratch + 256;
}

/* Halves the larger of rows of x and rows of w until the product fits: a large one's rate depends little on
 * either. */
static void cut_shape(int64_t shape[3], const struct device *device, const struct cpu_gemm *gemm,
                      uint64_t memory) {
    while (memory && product_bytes(device, gemm, shape[0], shape[1], shape[2]) > memory &&
           (shape[0] > 64 || shape[1] > 64))
        shape[shape[1] >= shape[0]] /= 2;
}

/* Flops per second of y = x wᵀ at one shape; 0 when memory is short. */
static double product_rate(struct device *device, const struct cpu_gemm *gemm, const int64_t shape[3],
                           uint64_t memory) {
    const int64_t m = shape[0], n = shape[1], k = shape[2];
    size_t x_size = (size_t)(m * k), w_size = (size_t)(n * k), y_size = (size_t)(m * n);
    size_t total = product_bytes(device, gemm, m, n, k);
    unsigned char *block = memory && total > memory ? NULL : mem_map(total, 1);
    if (!block) return 0;
    float *x = (float *)block, *w = x + ((x_size + 15) & ~(size_t)15), *y = w + ((w_size + 15) & ~(size_t)15);
    for (size_t i = 0; i < x_size; i++) x[i] = (float)(i % 17) * 0.01f;
    for (size_t i = 0; i < w_size; i++) w[i] = (float)(i % 13) * 0.01f;
    struct product product = {.gemm = {.form = GEMM_NT,
                                       .m = m,
                                       .n = n,
                                       .k = k,
                                       .x = x,
                                       .x_type = DTYPE_F32,
                                       .ldx = k,
                                       .w = w,
                                       .w_type = DTYPE_F32,
                                       .ldw = k,
                                       .y = y,
                                       .y_type = DTYPE_F32,
                                       .ldy = n,
                                       .alpha = 1},
                              .row = gemm,
                              .device = device,
                              .workspace = (void *)(((uintptr_t)(y + y_size) + 63) & ~(uintptr_t)63)};
    double best = fastest(run_product, &product);
    mem_unmap(block, total);
    return 2.0 * (double)m * (double)n * (double)k / best;
}

struct sweep {
    struct device *device;
    const float *data;
    size_t piece;
    double sums[64];
};

static void sum_piece(void *user, int task, int worker) {
    struct sweep *sweep = user;
    const float *at = sweep->data + (size_t)task * sweep->piece;
    float lanes[64] = {0}; /* independent sums, so that the compiler can use vectors */
    for (size_t i = 0; i < sweep->piece; i += 64)
        for (int l = 0; l < 64; l++) lanes[l] += at[i + (size_t)l];
    double sum = 0;
    for (int l = 0; l < 64; l++) sum += (double)lanes[l];
    sweep->sums[worker % 64] += sum;
}

static void run_sweep(void *user) {
    struct sweep *sweep = user;
    pool_run(sweep->device->pool, 64, sum_piece, sweep);
}

static double read_rate(struct device *device, uint64_t memory) {
    size_t bytes = bandwidth_bytes;
    while (memory && bytes > memory) bytes /= 2;
    float *block = bytes < least_bandwidth_bytes ? NULL : mem_map(bytes, 1); /* less lies in the caches */
    if (!block) return 0;
    struct sweep sweep = {.device = device, .data = block, .piece = bytes / sizeof(float) / 64};
    double best = fastest(run_sweep, &sweep);
    mem_unmap(block, bytes);
    return (double)bytes / best;
}

static json_t *measure_product(struct device *device, const struct cpu_gemm *gemm, enum dtype compute,
                               const int64_t wanted[3], uint64_t memory) {
    int64_t shape[3] = {wanted[0], wanted[1], wanted[2]};
    cut_shape(shape, device, gemm, memory);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:f}", "compute", dtype_row(compute)->name, "product",
                     gemm->name, "m", (json_int_t)shape[0], "n", (json_int_t)shape[1], "k",
                     (json_int_t)shape[2], "flops_per_second", product_rate(device, gemm, shape, memory));
}

bool cpu_measure(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3], int count,
                 uint64_t memory, json_t **out, struct error *err) {
    json_t *products = json_array();
    for (int s = 0; s < count; s++)
        for (size_t c = 0; c < sizeof compute_types / sizeof *compute_types; c++) {
            const struct cpu_gemm *gemm = cpu_gemm_select(compute_types[c], device->features);
            if (!gemm || (compute && *compute != compute_types[c])) continue;
            json_list_add(&products, measure_product(device, gemm, compute_types[c], shapes[s], memory));
        }
    *out = json_pack("{s:o, s:f}", "products", products, "read_bytes_per_second", read_rate(device, memory));
    return *out || error_no_memory(err, "cpu", 0);
}
