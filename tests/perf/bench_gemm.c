/* Rates of the matrix products at the shapes of a small model: bench_gemm [threads]. All implementations that
 * this processor runs, and oneDNN's sgemm where it is installed (libdnnl-dev; OMP_NUM_THREADS sets its
 * threads), take turns in one run; GFLOP/s of the best of the repeats. Then decoding: bytes of weights per
 * second, beside a plain reading of memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"
#include "tensor/rowcodec.h"
#ifdef HONE_ONEDNN
#include <dnnl.h>
#endif

enum { most_rows = 16, repeats = 9 };

struct contest {
    struct gemm gemm;
    struct pool *pool;
    void *workspace;
    double best[most_rows + 1]; /* by implementation; the last: oneDNN */
};

static float *random_floats(size_t count) {
    float *out = mem_map(count * sizeof(float) + 64, 1);
    if (!out) exit(1);
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++)
        out[i] = (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1;
    return out;
}

static void run_onednn(const struct contest *c, const float *w) {
#ifdef HONE_ONEDNN
    const struct gemm *g = &c->gemm;
    dnnl_sgemm(g->form == GEMM_TN ? 'T' : 'N', g->form == GEMM_NT ? 'T' : 'N', g->m, g->n, g->k, 1, g->x,
               g->ldx, w, g->ldw, 0, g->y, g->ldy);
#else
    (void)c;
    (void)w;
#endif
}

static void take_turns(struct contest *c, const float *w) {
    for (int i = 0; i <= most_rows; i++) c->best[i] = 1e30;
    for (int r = 0; r < repeats; r++)
        for (int i = 0; i <= cpu_gemm_count; i++) {
            bool own = i < cpu_gemm_count;
            if (own && (cpu_gemms[i].needs & cpu_features()) != cpu_gemms[i].needs) continue;
            if (own && !strcmp(cpu_gemms[i].name, "c") && r) continue;
            double start = clock_seconds(), seconds;
            if (own)
                cpu_gemms[i].run(&c->gemm, 1, c->pool, c->workspace, cpu_gemms[i].needs);
            else
                run_onednn(c, w);
            seconds = clock_seconds() - start;
            int slot = own ? i : most_rows;
            if (seconds < c->best[slot]) c->best[slot] = seconds;
        }
}

static void contest_run(struct pool *pool, enum gemm_form form, int64_t m, int64_t n, int64_t k,
                        enum dtype w_type) {
    static const char *const forms[] = {"NT", "NN", "TN"};
    float *x = random_floats((size_t)(m * k)), *w = random_floats((size_t)(n * k)),
          *y = random_floats((size_t)(m * n));
    int64_t lines = form == GEMM_NT ? n : k, width = form == GEMM_NT ? k : n;
    const struct dtype_row *type = dtype_row(w_type);
    unsigned char *stored = (unsigned char *)random_floats((size_t)(n * k));
    size_t bytes = (size_t)(width / type->block * type->bytes), scratch = 0;
    for (int64_t r = 0; r < lines; r++)
        rowcodec(w_type)->encode(w + r * width, stored + (size_t)r * bytes, width);
    for (int i = 0; i < cpu_gemm_count; i++) {
        size_t need = cpu_gemms[i].workspace(form, m, n, k, w_type, pool_threads(pool));
        if (need > scratch) scratch = need;
    }
    struct contest c = {.pool = pool, .workspace = mem_map(scratch, 1)};
    c.gemm = (struct gemm){.form = form,
                           .m = m,
                           .n = n,
                           .k = k,
                           .x = x,
                           .x_type = DTYPE_F32,
                           .ldx = form == GEMM_TN ? m : k,
                           .w = stored,
                           .w_type = w_type,
                           .ldw = width,
                           .y = y,
                           .y_type = DTYPE_F32,
                           .ldy = n,
                           .alpha = 1};
    take_turns(&c, w);
    double flops = 2.0 * (double)m * (double)n * (double)k * 1e-9;
    printf("%s %5d %5d %5d %-5s", forms[form], (int)m, (int)n, (int)k, type->name);
    for (int i = 0; i < cpu_gemm_count; i++)
        if (c.best[i] < 1e29)
            printf("  %s/%s %.1f", cpu_gemms[i].name, dtype_row(cpu_gemms[i].compute)->name,
                   flops / c.best[i]);
    if (c.best[most_rows] < 1e29) printf("  onednn/f32 %.1f", flops / c.best[most_rows]);
    printf("\n");
    fflush(stdout);
    mem_unmap(c.workspace, scratch);
    mem_unmap(x, (size_t)(m * k) * sizeof(float) + 64);
    mem_unmap(w, (size_t)(n * k) * sizeof(float) + 64);
    mem_unmap(stored, (size_t)(n * k) * sizeof(float) + 64);
    mem_unmap(y, (size_t)(m * n) * sizeof(float) + 64);
}

enum { sweep_bytes = 256 << 20, sweep_tasks = 256 };

static void sweep_task(void *user, int task, int worker) {
    const uint64_t *at = (const uint64_t *)user + (size_t)task * (sweep_bytes / sweep_tasks / 8);
    uint64_t lanes[32] = {0};
    (void)worker;
    for (size_t i = 0; i < sweep_bytes / sweep_tasks / 8; i += 32)
        for (size_t l = 0; l < 32; l++) lanes[l] ^= at[i + l];
    for (size_t l = 1; l < 32; l++) lanes[0] ^= lanes[l];
    if (lanes[0] == 42) printf(" ");
}

/* A weight larger than the caches, [rows, 1536], against 1, 2, 4, 8 rows; alternating with the reading. */
static void decode_rates(struct pool *pool, enum dtype type, unsigned features) {
    const int64_t k = 1536;
    size_t row = (size_t)(k / dtype_row(type)->block * dtype_row(type)->bytes);
    int64_t n = (int64_t)(sweep_bytes / row);
    unsigned char *w = (unsigned char *)random_floats(sweep_bytes / 4);
    for (size_t i = 0; type != DTYPE_F32 && i < (size_t)n * row; i++) w[i] = (unsigned char)(i * 7 & 0x3f);
    float *x = random_floats((size_t)(8 * k)), *y = random_floats((size_t)(8 * n));
    const struct cpu_gemm *product = cpu_gemm_select(DTYPE_F32, features);
    size_t scratch = product->workspace(GEMM_NT, 8, n, k, type, pool_threads(pool));
    void *workspace = mem_map(scratch, 1);
    double best[5] = {1e30, 1e30, 1e30, 1e30, 1e30};
    for (int r = 0; r < 5; r++)
        for (int i = 0; i < 5; i++) {
            struct gemm g = {.form = GEMM_NT,
                             .m = 1 << (i & 3),
                             .n = n,
                             .k = k,
                             .x = x,
                             .x_type = DTYPE_F32,
                             .ldx = k,
                             .w = w,
                             .w_type = type,
                             .ldw = k,
                             .y = y,
                             .y_type = DTYPE_F32,
                             .ldy = n,
                             .alpha = 1};
            double start = clock_seconds();
            if (i == 4)
                pool_run(pool, sweep_tasks, sweep_task, w);
            else
                product->run(&g, 1, pool, workspace, features);
            double seconds = clock_seconds() - start;
            if (seconds < best[i]) best[i] = seconds;
        }
    printf("decode %-5s %-7s GB/s:", dtype_row(type)->name, product->name);
    for (int i = 0; i < 4; i++) printf("  m=%d %.1f", 1 << i, (double)n * (double)row * 1e-9 / best[i]);
    printf("  read %.1f;  8 rows together %.1fx one by one\n", sweep_bytes * 1e-9 / best[4],
           8 * best[0] / best[3]);
    mem_unmap(w, sweep_bytes + 64);
    mem_unmap(x, (size_t)(8 * k) * sizeof(float) + 64);
    mem_unmap(y, (size_t)(8 * n) * sizeof(float) + 64);
    mem_unmap(workspace, scratch);
}

int main(int argc, char **argv) {
    struct pool *pool;
    struct error err;
    long threads = argc > 1 ? strtol(argv[1], NULL, 10) : thread_cores();
    if (!pool_open(&pool, (int)threads, &err)) return 1;
    printf("%ld threads, GFLOP/s\n", threads);
    static const int64_t tokens[] = {64, 256, 2048},
                         sizes[][2] = {{576, 576}, {192, 576}, {1536, 576}, {576, 1536}};
    for (size_t t = 0; t < 3; t++) {
        int64_t m = tokens[t];
        for (size_t s = 0; s < 4; s++) {
            contest_run(pool, GEMM_NT, m, sizes[s][0], sizes[s][1], DTYPE_Q4_1);
            contest_run(pool, GEMM_NN, m, sizes[s][1], sizes[s][0], DTYPE_Q4_1);
        }
        contest_run(pool, GEMM_NT, m, 16, 576, DTYPE_F32);
        contest_run(pool, GEMM_NT, m, 1536, 16, DTYPE_F32);
        contest_run(pool, GEMM_NN, m, 576, 16, DTYPE_F32);
        contest_run(pool, GEMM_NN, m, 16, 1536, DTYPE_F32);
        contest_run(pool, GEMM_TN, 16, 576, m, DTYPE_F32);
        contest_run(pool, GEMM_TN, 1536, 16, m, DTYPE_F32);
    }
    contest_run(pool, GEMM_NT, 80, 49152, 576, DTYPE_Q8_0);
    contest_run(pool, GEMM_NN, 80, 576, 49152, DTYPE_Q8_0);
    static const enum dtype stored[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16, DTYPE_Q4_0,
                                        DTYPE_Q4_1, DTYPE_Q5_0, DTYPE_Q5_1, DTYPE_Q8_0};
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++) {
        decode_rates(pool, stored[i], cpu_features());
        if (cpu_features() & CPU_AVX512) decode_rates(pool, stored[i], CPU_AVX2);
    }
    pool_close(&pool);
    return 0;
}
