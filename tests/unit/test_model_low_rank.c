/* Low-rank factors of matrices whose singular values are known. */
#include "support/test.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/low_rank.h"

/* One number in ±1, the same for the same place. */
static double drawn(uint32_t matrix, int64_t i) {
    const uint32_t counter[4] = {(uint32_t)i, matrix, 0, 0};
    uint32_t words[4];
    philox(7, counter, words);
    return 2 * uniform_of(words[0]) - 1;
}

/* H = 1 - 2 v vᵀ / ‖v‖² is orthogonal, so Σ σ_k H₁[:, k] H₂[k, :] has the singular values σ. */
static float *matrix_of(int64_t rows, int64_t columns, const double *sigma, int64_t count) {
    double *v[2] = {mem_array((size_t)rows, 8), mem_array((size_t)columns, 8)}, squares[2] = {0, 0};
    const int64_t size[2] = {rows, columns};
    float *w = mem_array((size_t)(rows * columns), sizeof *w);
    for (uint32_t s = 0; s < 2; s++)
        for (int64_t i = 0; i < size[s]; i++) {
            v[s][i] = drawn(s, i);
            squares[s] += v[s][i] * v[s][i];
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double sum = 0;
            for (int64_t k = 0; k < count; k++)
                sum += sigma[k] * ((r == k) - 2 * v[0][r] * v[0][k] / squares[0]) *
                       ((c == k) - 2 * v[1][k] * v[1][c] / squares[1]);
            w[r * columns + c] = (float)sum;
        }
    mem_free(v[0]);
    mem_free(v[1]);
    return w;
}

/* ‖w - scale · b a‖, Frobenius. */
static double distance(const float *w, const struct low_rank *s, double scale, const float *b,
                       const float *a) {
    double squares = 0;
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->columns; c++) {
            double sum = 0;
            for (int64_t k = 0; k < s->rank; k++)
                sum += (double)b[r * s->rank + k] * (double)a[k * s->columns + c];
            double d = (double)w[r * s->columns + c] - scale * sum;
            squares += d * d;
        }
    return sqrt(squares);
}

static const struct {
    struct low_rank shape;
    double excess; /* of the distance over the least that there is (Eckart and Young) */
} cases[] = {
    {{.rows = 40, .columns = 60, .rank = 5}, 1e-6},
    {{.rows = 60, .columns = 40, .rank = 5}, 1e-6},
    {{.rows = 60, .columns = 40, .rank = 40}, 1e-5}, /* all of it: what is left is rounding */
    {{.rows = 300, .columns = 200, .rank = 8, .steps = 4}, 1e-4},
    {{.rows = 1030, .columns = 1100, .rank = 8}, 1e-6}, /* above what is decomposed in full */
    {{.rows = 1100, .columns = 1030, .rank = 8}, 1e-6},
};

static void factors_are_the_nearest_of_their_rank(void **state) {
    (void)state;
    enum { values = 60 };
    double sigma[values];
    struct error err;
    for (int k = 0; k < values; k++) sigma[k] = 10 * pow(0.93, k); /* falls slowly, as a weight's do */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct low_rank *s = &cases[i].shape;
        int64_t side = s->rows < s->columns ? s->rows : s->columns, count = side < values ? side : values;
        float *w = matrix_of(s->rows, s->columns, sigma, count);
        float *b = mem_array((size_t)(s->rows * s->rank), 4),
              *a = mem_array((size_t)(s->columns * s->rank), 4);
        double least = 0, scale = 2;
        for (int64_t k = s->rank; k < count; k++) least += sigma[k] * sigma[k];
        least = sqrt(least);
        assert_ok(low_rank_svd(s, w, scale, b, a, &err), &err);
        double got = distance(w, s, scale, b, a);
        if (!(got <= least + cases[i].excess * sigma[0]))
            fail_msg("[%d, %d] rank %d: distance %.9g, the least is %.9g", (int)s->rows, (int)s->columns,
                     (int)s->rank, got, least);
        for (int64_t k = 0; k < s->rank; k++) { /* √(σ / scale) on either side */
            double squares = 0, largest = 0;
            for (int64_t r = 0; r < s->rows; r++) {
                double number = (double)b[r * s->rank + k];
                squares += number * number;
                if (fabs(number) > fabs(largest)) largest = number;
            }
            assert_true(fabs(squares * scale / sigma[k] - 1) < 1e-3);
            assert_true(largest > 0);
        }
        mem_free(w);
        mem_free(a);
        mem_free(b);
    }
}

/* Where the matrix has no more rank, nothing is made up. */
static void missing_rank_gives_zeros(void **state) {
    (void)state;
    const double sigma[] = {3, 2};
    const struct low_rank s = {.rows = 12, .columns = 9, .rank = 4};
    float *w = matrix_of(12, 9, sigma, 2), b[12 * 4], a[9 * 4];
    struct error err;
    assert_ok(low_rank_svd(&s, w, 1, b, a, &err), &err);
    assert_true(distance(w, &s, 1, b, a) < 1e-5);
    for (int i = 2; i < 4; i++)
        for (int c = 0; c < 9; c++) assert_true(fabs((double)a[i * 9 + c]) < 1e-2);
    memset(w, 0, 12 * 9 * sizeof *w);
    assert_ok(low_rank_svd(&s, w, 1, b, a, &err), &err);
    for (int i = 0; i < 36; i++) assert_true(a[i] == 0);
    mem_free(w);
}

static void qr_gives_the_first_columns(void **state) {
    (void)state;
    const double sigma[] = {5, 4, 3, 2, 1};
    const struct low_rank all = {.rows = 7, .columns = 5, .rank = 5},
                          part = {.rows = 7, .columns = 5, .rank = 2};
    float *w = matrix_of(7, 5, sigma, 5), b[35], a[25], b2[14], a2[10];
    struct error err;
    assert_ok(low_rank_qr(&all, w, b, a, &err), &err);
    assert_true(distance(w, &all, 1, b, a) < 1e-5);
    assert_ok(low_rank_qr(&part, w, b2, a2, &err), &err);
    for (int k = 0; k < 2; k++) {
        for (int r = 0; r < 7; r++) assert_true(fabsf(b2[r * 2 + k] - b[r * 5 + k]) < 1e-6f);
        for (int c = 0; c < 5; c++) assert_true(fabsf(a2[k * 5 + c] - a[k * 5 + c]) < 1e-5f);
        for (int c = 0; c < k; c++) assert_true(a2[k * 5 + c] == 0);
    }
    mem_free(w);
}

static void numbers_that_are_not_finite_are_refused(void **state) {
    (void)state;
    const double sigma[] = {1};
    const struct low_rank s = {.rows = 6, .columns = 8, .rank = 2};
    float *w = matrix_of(6, 8, sigma, 1), b[12], a[16];
    struct error err;
    w[5] = NAN;
    assert_false(low_rank_svd(&s, w, 1, b, a, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    w[0] = NAN;
    assert_false(low_rank_qr(&s, w, b, a, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    mem_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_the_nearest_of_their_rank),
        cmocka_unit_test(missing_rank_gives_zeros),
        cmocka_unit_test(qr_gives_the_first_columns),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
