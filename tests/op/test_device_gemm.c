/* Every product implementation that this processor can run, in all forms and types, at random and edge
 * shapes, against an f64 sum over the decoded weights; and the same bits on one to four threads.
 *
 * Tolerance of an element: f32 sums of k terms in order err by at most k ε Σ|x w| (ε = 2^-24), and rarely by
 * more than a small part of it; bf16 operands err by 2^-9 each, so 2^-8 Σ|x w|; a bf16 result by 2^-9 of
 * itself. Few rows against a type of small integers have x (at most 1 here) rounded to 2^-16: Σ|w| of that.
 */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/cpu/gemm.h"
#include "device/cpu/kernel.h"
#include "tensor/rowcodec.h"
#include "tensor/stored.h"

enum { guard = 64, most_threads = 4 };

static struct pool *pools[most_threads];
/* Scratch of every run, grown as needed: fresh pages for each would take most of this test's time under
 * AddressSanitizer. */
static unsigned char *scratch_place;
static size_t scratch_bytes;

/* What an element must be, and the sums that bound its error. */
struct expected {
    double value, weight, few; /* Σ|x w|, Σ|w| */
};

struct trial {
    struct gemm gemm;
    bool with_addend, with_bias, y_is_addend;
    unsigned char *x, *w, *addend, *low, *up; /* as stored */
    struct stored w_view;
    float *bias;
    double *x_value, *w_value, *addend_value, *low_value, *up_value;
    struct expected *expected; /* [m, n] */
    size_t y_bytes;
};

static uint64_t state_of_random = 1;
static float random_value(void) {
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (float)((double)(state_of_random >> 33) / 2147483648.0 * 2 - 1);
}

/* A stored matrix and what its elements are. The codes begin the bytes that are returned. */
static unsigned char *random_matrix(enum dtype dtype, int64_t rows, int64_t columns, struct stored *view,
                                    double **values) {
    struct stored_layout layout;
    struct stored_encoder encoder;
    struct error err;
    size_t count = (size_t)(rows * columns);
    assert_true(stored_layout(&layout, dtype, rows, columns, DTYPE_BF16));
    unsigned char *bytes = mem_alloc((size_t)layout.bytes + 1);
    float *numbers = mem_array(count + 1, sizeof *numbers);
    *values = mem_array(count + 1, sizeof **values);
    assert_true(bytes && numbers && *values);
    for (size_t i = 0; i < count; i++) numbers[i] = random_value();
    if (count) {
        assert_ok(stored_encoder_open(&encoder, &layout, bytes, &err), &err);
        stored_encode(&encoder, 0, rows, numbers);
        stored_encoder_finish(&encoder, NULL);
    }
    *view = stored_in(&layout, bytes);
    for (int64_t r = 0; r < rows && columns; r++) stored_decode(view, r, 0, columns, numbers + r * columns);
    for (size_t i = 0; i < count; i++) (*values)[i] = (double)numbers[i];
    mem_free(numbers);
    return bytes;
}

static unsigned char *random_block(enum dtype dtype, int64_t rows, int64_t columns, double **values) {
    struct stored view;
    return random_matrix(dtype, rows, columns, &view, values);
}

static void trial_open(struct trial *t) {
    struct gemm *g = &t->gemm;
    bool turned = g->form == GEMM_TN;
    g->ldx = turned ? g->m : g->k;
    g->ldw = g->form == GEMM_NT ? g->k : g->n;
    g->ldy = g->n + 3;
    g->alpha = 0.75f;
    t->x = random_block(g->x_type, turned ? g->k : g->m, g->ldx, &t->x_value);
    t->w = random_matrix(g->w_type, g->form == GEMM_NT ? g->n : g->k, g->ldw, &t->w_view, &t->w_value);
    t->addend = random_block(g->addend_type, g->m, g->ldy, &t->addend_value);
    t->bias = mem_array((size_t)g->n + 1, sizeof *t->bias);
    for (int64_t j = 0; j < g->n; j++) t->bias[j] = random_value();
    g->beta = -0.5f;
    t->low = random_block(g->low_type, g->m, g->rank, &t->low_value);
    t->up = random_block(DTYPE_F32, g->form == GEMM_NT ? g->n : g->rank, g->form == GEMM_NT ? g->rank : g->n,
                         &t->up_value);
    g->low = t->low;
    g->up = t->up;
    g->x = t->x;
    g->w = t->w;
    g->w_parts = t->w_view.part;
    g->bias = t->with_bias ? t->bias : NULL;
    t->y_bytes = (size_t)(g->m * g->ldy) * dtype_row(g->y_type)->bytes;
}

static void trial_close(struct trial *t) {
    mem_free(t->expected);
    mem_free(t->x);
    mem_free(t->w);
    mem_free(t->addend);
    mem_free(t->low);
    mem_free(t->up);
    mem_free(t->low_value);
    mem_free(t->up_value);
    mem_free(t->bias);
    mem_free(t->x_value);
    mem_free(t->w_value);
    mem_free(t->addend_value);
}

/* size bytes, aligned to 64, that end (but for the alignment) where the allocation does. */
static unsigned char *scratch_of(size_t size) {
    if (size + 64 > scratch_bytes) {
        mem_free(scratch_place);
        scratch_bytes = size + 64;
        scratch_place = mem_alloc(scratch_bytes);
        assert_non_null(scratch_place);
    }
    return (unsigned char *)((uintptr_t)(scratch_place + scratch_bytes - size) & ~(uintptr_t)63);
}

static unsigned char *trial_run(const struct trial *t, const struct cpu_gemm *row, int threads) {
    struct gemm g = t->gemm;
    size_t scratch = row->workspace(g.form, g.m, g.n, g.k, g.w_type, threads);
    unsigned char *y = mem_alloc(t->y_bytes + 2 * guard), *workspace = scratch_of(scratch + guard);
    assert_non_null(y);
    memset(y, 0xa5, t->y_bytes + 2 * guard);
    memset(workspace, 0xa5, scratch + guard);
    g.y = y + guard;
    g.addend = t->with_addend ? t->addend : NULL;
    if (t->y_is_addend) {
        memcpy(g.y, t->addend, t->y_bytes);
        g.addend = g.y;
    }
    row->run(&g, 1, pools[threads - 1], workspace, row->needs);
    for (int i = 0; i < guard; i++) {
        if (y[i] != 0xa5 || y[guard + t->y_bytes + (size_t)i] != 0xa5)
            fail_msg("%s wrote around y", row->name);
        if (workspace[scratch + (size_t)i] != 0xa5) fail_msg("%s wrote behind its workspace", row->name);
    }
    return y;
}

/* Element i, j, summed once for all implementations: most of this test's time. */
static struct expected expected_element(const struct trial *t, int64_t i, int64_t j) {
    const struct gemm *g = &t->gemm;
    const bool turned = g->form == GEMM_TN, by_row = g->form == GEMM_NT;
    const double *x = t->x_value + (turned ? i : i * g->ldx), *w = t->w_value + (by_row ? j * g->ldw : j);
    const int64_t x_step = turned ? g->ldx : 1, w_step = by_row ? 1 : g->ldw;
    struct expected e = {0};
    double sum = 0, low_sum = 0;
    for (int64_t k = 0; k < g->k; k++) {
        double product = x[k * x_step] * w[k * w_step];
        sum += product;
        e.weight += fabs(product);
        e.few += fabs(w[k * w_step]);
    }
    for (int64_t r = 0; r < g->rank; r++) {
        double part = t->low_value[i * g->rank + r] * t->up_value[by_row ? j * g->rank + r : r * g->n + j];
        low_sum += part;
        e.weight += fabs(part);
    }
    e.value = (double)g->alpha * sum + (double)g->beta * low_sum + (t->with_bias ? (double)t->bias[j] : 0);
    if (t->with_addend || t->y_is_addend) e.value += t->addend_value[i * g->ldy + j];
    return e;
}

static void trial_expect(struct trial *t) {
    const struct gemm *g = &t->gemm;
    t->expected = mem_array((size_t)(g->m * g->n) + 1, sizeof *t->expected);
    assert_true(t->expected);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) t->expected[i * g->n + j] = expected_element(t, i, j);
}

/* Whether x may be rounded to 16-bit integers. */
static bool may_round(const struct gemm *g, const struct cpu_gemm *row) {
    return strcmp(row->name, "c") && g->form == GEMM_NT && g->m <= 8 && dtype_row(g->w_type)->quantised;
}

static void trial_check(const struct trial *t, const struct cpu_gemm *row, const unsigned char *y) {
    const struct gemm *g = &t->gemm;
    const size_t size = dtype_row(g->y_type)->bytes;
    const double epsilon =
        ldexp((double)(g->k < 64 ? g->k : 64) + 4, -24) + (row->compute == DTYPE_BF16  ? ldexp(1, -8)
                                                           : row->compute == DTYPE_F16 ? ldexp(1, -11)
                                                                                       : 0);
    const bool rounded = may_round(g, row) && !g->exact;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            const struct expected *e = &t->expected[i * g->n + j];
            float got;
            rowcodec(g->y_type)->decode(y + guard + (size_t)(i * g->ldy + j) * size, &got, 1);
            double most =
                epsilon * (e->weight + 3) + (rounded ? ldexp(e->few, -16) : 0) +
                (g->y_type == DTYPE_F32 ? 0 : ldexp(fabs(e->value), g->y_type == DTYPE_BF16 ? -8 : -11));
            if (!(fabs((double)got - e->value) <= most))
                fail_msg("%s/%s form %d [%lld,%lld,%lld] x %s w %s y %s at %lld,%lld: %g, expected %g ± %g",
                         row->name, dtype_row(row->compute)->name, (int)g->form, (long long)g->m,
                         (long long)g->n, (long long)g->k, dtype_row(g->x_type)->name,
                         dtype_row(g->w_type)->name, dtype_row(g->y_type)->name, (long long)i, (long long)j,
                         (double)got, e->value, most);
        }
    for (int64_t i = 0; !t->y_is_addend && i < g->m; i++)
        for (int64_t b = g->n * (int64_t)size; b < g->ldy * (int64_t)size; b++)
            if (y[guard + (size_t)(i * g->ldy) * size + (size_t)b] != 0xa5)
                fail_msg("%s wrote between rows of y", row->name);
}

/* On one thread, and on two, three or four by turns. */
static void trial_do(struct trial *t) {
    static int turn;
    /* Trials come in threes, of one type of x each: each type meets each count. */
    const int threads = 2 + (turn + turn / 3) % (most_threads - 1);
    turn++;
    unsigned features = cpu_features();
    trial_open(t);
    trial_expect(t);
    for (int r = 0; r < cpu_gemm_count; r++) {
        const struct cpu_gemm *row = &cpu_gemms[r];
        if ((row->needs & features) != row->needs) continue;
        unsigned char *first = trial_run(t, row, 1);
        trial_check(t, row, first);
        unsigned char *shared = trial_run(t, row, threads);
        if (memcmp(first, shared, t->y_bytes + 2 * guard))
            fail_msg("%s: other bits on %d threads", row->name, threads);
        mem_free(shared);
        mem_free(first);
        if (!may_round(&t->gemm, row)) continue;
        t->gemm.exact = true;
        unsigned char *exact = trial_run(t, row, 2);
        trial_check(t, row, exact);
        mem_free(exact);
        t->gemm.exact = false;
    }
    trial_close(t);
}

static const enum dtype stored[] = {
    DTYPE_F32,      DTYPE_F16,      DTYPE_BF16,      DTYPE_Q4_0,     DTYPE_Q4_1,
    DTYPE_Q5_0,     DTYPE_Q5_1,     DTYPE_Q8_0,      DTYPE_Q2_K,     DTYPE_Q3_K,
    DTYPE_Q4_K,     DTYPE_Q5_K,     DTYPE_Q6_K,      DTYPE_IQ4_NL,   DTYPE_IQ4_XS,
    DTYPE_MXFP4,    DTYPE_NF4,      DTYPE_INT8,      DTYPE_MLX2_G64, DTYPE_MLX3_G32,
    DTYPE_MLX4_G64, DTYPE_MLX5_G32, DTYPE_MLX6_G128, DTYPE_MLX8_G32, DTYPE_MLX_MXFP4};
/* The last two: groups of k that cut the rows of x into other blocks, with AVX-512 and with AVX2. */
static const int64_t shapes[][3] = {
    {0, 5, 7},       {5, 0, 7},      {3, 4, 0},      {20, 40, 0},    {1, 1, 1},     {1, 37, 65},
    {2, 16, 32},     {3, 33, 96},    {7, 70, 31},    {8, 130, 64},   {9, 31, 33},   {13, 64, 16},
    {14, 32, 2},     {15, 16, 576},  {16, 96, 130},  {29, 192, 64},  {64, 48, 16},  {70, 16, 97},
    {113, 65, 3},    {300, 40, 9},   {16, 200, 300}, {200, 16, 129}, {65, 80, 300}, {17, 35, 2100},
    {130, 17, 2056}, {36, 17, 4000},
};

static const enum dtype activations[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F16};
static const int64_t ranks[] = {0, 5, 16, 128};

static void every_form_type_and_shape(enum gemm_form form) {
    int count = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t w = 0; w < sizeof stored / sizeof *stored; w++)
            for (int kind = 0; kind < 3; kind++, count++) {
                if (form == GEMM_TN && w != 0 && w != 2) continue;
                if (dtype_row(stored[w])->block > 32 && s % 3 != w % 3)
                    continue; /* long rows: slow to check */
                struct trial t = {
                    .gemm = {.form = form, .m = shapes[s][0], .n = shapes[s][1], .k = shapes[s][2]}};
                t.gemm.w_type = stored[w];
                int64_t *along = form == GEMM_NT ? &t.gemm.k : &t.gemm.n, block = dtype_row(stored[w])->block;
                *along = (*along + block - 1) / block * block;
                t.gemm.x_type = activations[kind];
                t.gemm.y_type = activations[(count / 3 + kind) % 3];
                t.gemm.addend_type = t.gemm.y_type;
                t.with_addend = count % 3 == 1;
                t.y_is_addend = count % 3 == 2;
                t.with_bias = count % 5 < 2;
                if (form != GEMM_TN) t.gemm.rank = ranks[count % 7 % 4];
                t.gemm.low_type = activations[count % 3];
                trial_do(&t);
            }
}

static void forward_products_agree_with_f64(void **state) {
    (void)state;
    every_form_type_and_shape(GEMM_NT);
}
static void input_gradients_agree_with_f64(void **state) {
    (void)state;
    every_form_type_and_shape(GEMM_NN);
}
static void weight_gradients_agree_with_f64(void **state) {
    (void)state;
    every_form_type_and_shape(GEMM_TN);
}

/* Rows [0, 20) of a product of 300 rows are those of a product of 20. */
static void bits_of_a_row_do_not_depend_on_the_rows_beside_it(void **state) {
    (void)state;
    struct trial t = {.gemm = {.form = GEMM_NT, .m = 300, .n = 100, .k = 160, .w_type = DTYPE_Q4_1}};
    trial_open(&t);
    for (int r = 0; r < cpu_gemm_count; r++) {
        if ((cpu_gemms[r].needs & cpu_features()) != cpu_gemms[r].needs) continue;
        struct trial part = t;
        unsigned char *all = trial_run(&t, &cpu_gemms[r], 1);
        part.gemm.m = 20;
        part.y_bytes = (size_t)(20 * t.gemm.ldy) * sizeof(float);
        unsigned char *few = trial_run(&part, &cpu_gemms[r], 1);
        assert_memory_equal(all + guard, few + guard, part.y_bytes);
        mem_free(all);
        mem_free(few);
    }
    trial_close(&t);
}

/* Products of bf16 pairs take subnormals for zeros, and so does the instruction that rounds for them. */
static uint16_t half_expected(float value, unsigned features) {
    uint16_t half = f32_to_bf16(value);
    return features & CPU_AVX512BF16 && !(half & 0x7f80) ? half & 0x8000 : half;
}

static void rows_of_stored_types_decode_to_the_same_bits(void **state) {
    (void)state;
    static const unsigned sets[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512,
                                    CPU_AVX2 | CPU_AVX512 | CPU_AVX512BF16};
    for (size_t w = 0; w < sizeof stored / sizeof *stored; w++)
        for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
            if ((sets[s] & cpu_features()) != sets[s]) continue;
            int64_t block_elements = dtype_row(stored[w])->block, rows = 3,
                    count = block_elements > 2 ? 3 * block_elements : 78;
            double *values;
            struct stored view;
            unsigned char *block = random_matrix(stored[w], rows, count, &view, &values);
            float out[3 * 256 + 1];
            uint16_t half[3 * 256 + 1];
            int64_t sixteens = count / 16 * 16;
            out[count] = 42;
            for (int64_t r = 0; r < rows; r++) {
                cpu_stored_load(out, &view, r, 0, count, sets[s]);
                for (int64_t i = 0; i < count; i++)
                    if ((double)out[i] != values[r * count + i])
                        fail_msg("%s row %d element %d", dtype_row(stored[w])->name, (int)r, (int)i);
                half[sixteens] = 42;
                cpu_stored_halves(half, &view, r, 0, sixteens, sets[s]);
                for (int64_t i = 0; i < sixteens; i++)
                    if (half[i] != half_expected((float)values[r * count + i], sets[s]))
                        fail_msg("%s as bf16: row %d element %d", dtype_row(stored[w])->name, (int)r, (int)i);
                assert_int_equal(half[sixteens], 42);
            }
            assert_true(out[count] == 42);
            mem_free(block);
            mem_free(values);
        }
}

static void half_rows_are_stored_with_the_same_bits(void **state) {
    (void)state;
    static const unsigned sets[] = {0, CPU_AVX2, CPU_AVX2 | CPU_AVX512};
    for (size_t s = 0; s < sizeof sets / sizeof *sets; s++) {
        if ((sets[s] & cpu_features()) != sets[s]) continue;
        float in[77];
        uint16_t out[78];
        for (int i = 0; i < 77; i++) {
            uint32_t bits = (uint32_t)i * 0x3571357u + (i % 3 ? 0x7f7f8000u : 0x8000u);
            memcpy(&in[i], &bits, 4);
        }
        out[77] = 42;
        cpu_row_store(out, in, DTYPE_BF16, 77, sets[s]);
        for (int i = 0; i < 77; i++) assert_int_equal(out[i], f32_to_bf16(in[i]));
        for (int i = 0; i < 77; i++) /* subnormals of f16, its largest, ties and what overflows */
            in[i] = ldexpf((float)(2 * i + 1) * (i % 2 ? 1.0f : 1.0009765625f), i % 48 - 30);
        in[3] = INFINITY;
        in[4] = -NAN;
        cpu_row_store(out, in, DTYPE_F16, 77, sets[s]);
        for (int i = 0; i < 77; i++) assert_int_equal(out[i], f32_to_f16(in[i]));
        assert_int_equal(out[77], 42);
    }
}

static int open_pools(void **state) {
    (void)state;
    struct error err;
    int skipped = 0;
    for (int i = 0; i < most_threads; i++) assert_ok(pool_open(&pools[i], i + 1, &err), &err);
    for (int r = 0; r < cpu_gemm_count; r++)
        if ((cpu_gemms[r].needs & cpu_features()) != cpu_gemms[r].needs && ++skipped)
            print_message("skipped: %s for %s, which this processor cannot run\n", cpu_gemms[r].name,
                          dtype_row(cpu_gemms[r].compute)->name);
    print_message("%d of %d implementations skipped\n", skipped, cpu_gemm_count);
    return 0;
}

static int close_pools(void **state) {
    (void)state;
    for (int i = 0; i < most_threads; i++) pool_close(&pools[i]);
    mem_free(scratch_place);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_stored_types_decode_to_the_same_bits),
        cmocka_unit_test(half_rows_are_stored_with_the_same_bits),
        cmocka_unit_test(forward_products_agree_with_f64),
        cmocka_unit_test(input_gradients_agree_with_f64),
        cmocka_unit_test(weight_gradients_agree_with_f64),
        cmocka_unit_test(bits_of_a_row_do_not_depend_on_the_rows_beside_it),
    };
    return cmocka_run_group_tests(tests, open_pools, close_pools);
}
