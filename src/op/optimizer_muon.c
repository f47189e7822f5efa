/* Muon (Jordan et al. 2024) as torch.optim.Muon, but that it orthogonalises in f32 where torch rounds to
 * bf16. For a matrix of a hidden layer:
 *
 *   m = m + (1-μ)(g - m);   u = g + μ (m - g) with Nesterov's momentum, or m
 *   X = u / max(‖u‖, ε), turned so that it has no more rows than columns
 *   G = X Xᵀ;  X = a X + (b G + c G²) X,  five times: its singular values come to lie near 1
 *   p = p (1 - lr · decay) - lr · ratio(shape) · X
 *
 * Other parts (embedding, head, norms, biases, vectors) are AdamW's, at the same rate: with the ratio
 * 0.2 √max(rows, columns) (Liu et al. 2025, "Muon is Scalable for LLM Training") an update has the root mean
 * square of AdamW's. */
#include <math.h>

#include "base/mem.h"
#include "op/op.h"

double muon_ratio(enum muon_adjust adjust, int64_t rows, int64_t columns) {
    if (adjust == MUON_ORIGINAL) return sqrt(fmax(1, (double)rows / (double)columns));
    return 0.2 * sqrt((double)(rows > columns ? rows : columns));
}

int64_t optimizer_muon_elements(const struct op_part *part) {
    return (part->hidden ? 1 : 2) * op_padded(op_part_elements(part));
}

/* Products of the part's own size, three a round. */
static double muon_flops(const struct graph *graph, const struct node *node,
                         const int64_t counts[COUNT_KINDS]) {
    enum { usual_rounds = 5 };
    double flops = 0;
    (void)graph, (void)counts;
    for (int i = 0; i < node->attributes.parts->count; i++) {
        const struct op_part *part = &node->attributes.parts->items[i];
        double least = (double)(part->rows < part->columns ? part->rows : part->columns),
               most = (double)(part->rows < part->columns ? part->columns : part->rows);
        if (part->hidden) flops += usual_rounds * 2 * least * least * (2 * most + least);
    }
    return flops;
}

/* X [rows, columns], rows <= columns; scratch as large as X and its Gram matrix twice. */
static void newton_schulz(double *x, double *scratch, int64_t rows, int64_t columns, int rounds) {
    double *gram = scratch, *sum = gram + rows * rows, *next = sum + rows * rows;
    for (int round = 0; round < rounds; round++) {
        for (int64_t i = 0; i < rows * rows; i++) {
            gram[i] = 0;
            for (int64_t c = 0; c < columns; c++)
                gram[i] += x[i / rows * columns + c] * x[i % rows * columns + c];
        }
        for (int64_t i = 0; i < rows * rows; i++) {
            double square = 0;
            for (int64_t k = 0; k < rows; k++)
                square += gram[i / rows * rows + k] * gram[k * rows + i % rows];
            sum[i] = MUON_B * gram[i] + MUON_C * square;
        }
        for (int64_t i = 0; i < rows * columns; i++) {
            next[i] = MUON_A * x[i];
            for (int64_t k = 0; k < rows; k++)
                next[i] += sum[i / columns * rows + k] * x[k * columns + i % columns];
        }
        for (int64_t i = 0; i < rows * columns; i++) x[i] = next[i];
    }
}

static void muon_part(const struct op_part *part, const double *hyper, double clip, double *p,
                      const double *g, double *m, double *x) {
    int64_t n = op_part_elements(part), rows = part->rows, columns = part->columns;
    double momentum = hyper[HYPER_MOMENTUM], squares = 0, rate = hyper[HYPER_RATE];
    bool turned = rows > columns;
    for (int64_t i = 0; i < n; i++) {
        double fresh = g[i] * clip;
        m[i] += (1 - momentum) * (fresh - m[i]);
        double u = hyper[HYPER_NESTEROV] > 0 ? fresh + momentum * (m[i] - fresh) : m[i];
        x[turned ? i % columns * rows + i / columns : i] = u;
        squares += u * u;
    }
    for (int64_t i = 0; i < n; i++) x[i] /= fmax(sqrt(squares), MUON_EPSILON);
    newton_schulz(x, x + n, turned ? columns : rows, turned ? rows : columns, (int)hyper[HYPER_ROUNDS]);
    double ratio = muon_ratio((enum muon_adjust)hyper[HYPER_ADJUST], rows, columns);
    for (int64_t i = 0; i < n; i++)
        p[i] = p[i] * (1 - rate * hyper[HYPER_DECAY]) -
               rate * ratio * x[turned ? i % columns * rows + i / columns : i];
}

static void muon_reference(const struct reference_call *call) {
    const struct op_parts *parts = call->attributes->parts;
    double step;
    if (!update_reference_begin(call, &step)) return;
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        const double *hyper = call->in[1].data + part->group * HYPER_COLUMNS;
        double clip = update_reference_clip(call, hyper), *p = call->in[3].data + part->offset,
               *g = call->in[4].data + part->offset, *m = call->in[5].data + part->slot[0];
        int64_t n = op_part_elements(part), least = part->rows < part->columns ? part->rows : part->columns;
        if (!part->hidden) {
            for (int64_t k = 0; k < n; k++)
                adamw_reference_number(&p[k], g[k] * clip, &m[k], &m[op_padded(n) + k], hyper, step);
            continue;
        }
        double *x = mem_array((size_t)(2 * n + 2 * least * least) + 1, sizeof *x);
        if (x)
            muon_part(part, hyper, clip, p, g, m, x);
        else
            p[0] = NAN; /* a reference cannot fail otherwise: the run's look at its numbers names the part */
        mem_free(x);
    }
}

const struct op_row op_muon_row = {
    .name = "muon",
    .inputs = 6,
    .outputs = 0,
    .state_writes = 1u << 2 | 1u << 3 | 1u << 5,
    .overwrite = {-1, -1, -1, -1},
    .flops = muon_flops,
    .reference = muon_reference,
};
