/* The gradient of an input that several products in fp8 read (q, k and v of one norm), as one product:
 *
 *   dx = [dy₁ | dy₂ | dy₃ | l…] [w₁ ; w₂ ; w₃ ; d…] + addend          l, d: the adapters' numbers (fp8.c)
 *
 * One after the other, the sums of the narrow ones would cost as much memory traffic as the product itself. A
 * row of all dy has one factor; that of each weight is taken into its dy, relative to the first's. The
 * weights are put side by side in the workspace, which is little beside the product. */
#include "base/checked.h"
#include "device/cuda/blas.h"
#include "device/cuda/fp8.h"

static bool can_be_joined(const struct graph *graph, const struct node *node) {
    if (node->op != OP_LINEAR_GRAD_X || !node->attributes.fp8) return false;
    const struct value *w = &graph->values[node->input[1]];
    return w->dim[0] <= w->dim[1]; /* of wider ones the sums cost nothing beside the product */
}

static bool is_read_besides(const struct graph *graph, int value, const struct node *reader) {
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].inputs; i++)
            if (graph->nodes[n].input[i] == value && &graph->nodes[n] != reader) return true;
    return graph->values[value].keep;
}

int fp8_joins(const struct graph *graph, const struct node *node) {
    const struct node *end = graph->nodes + graph->node_count, *next = node + 1;
    if (!can_be_joined(graph, node)) return 0;
    while (next < end && next - node < fp8_most_joined && can_be_joined(graph, next) &&
           next->input[2] == next[-1].output[0] && !is_read_besides(graph, next[-1].output[0], next) &&
           graph->values[next->output[0]].dtype == graph->values[node->output[0]].dtype)
        next++;
    return next - node > 1 ? (int)(next - node) : 0;
}

size_t fp8_join_workspace(const struct graph *graph, const struct node *node, int count) {
    const struct value *w = &graph->values[node->input[1]];
    int64_t stride = 0;
    for (int i = 0; i < count; i++) stride += graph->values[node[i].input[1]].dim[0] + fp8_pad(fp8_most_rank);
    return fp8_beside_rows + fp8_rows_bytes(graph->values[node->input[0]].dim[0], stride) +
           cuda_round((size_t)(w->dim[1] * stride));
}

static int64_t rank_of(const struct call *call) { return call->in[3].data ? call->in[3].dim[1] : 0; }

/* Where everything lies; the columns of the product. */
static int64_t place_parts(struct call *calls, int count, struct fp8_join *join) {
    struct call *call = &calls[0];
    int64_t width = 0, extra = 0;
    for (int i = 0; i < count; i++) {
        const struct operand *w = &calls[i].in[1];
        struct fp8_weight weight = fp8_weight_at(w->data, w->dim[0], w->dim[1], call->fp8_pad);
        join->part[i] = (struct fp8_part){.x = array_of(&calls[i].in[0]),
                                          .w = weight.transposed,
                                          .w_stride = weight.transposed_stride,
                                          .w_scale = weight.scales,
                                          .factor = calls[i].node->attributes.alpha,
                                          .width = w->dim[0]};
        width += w->dim[0];
        extra += fp8_extra(rank_of(&calls[i]));
    }
    join->count = count;
    join->rows = call->in[0].dim[0];
    join->columns = call->in[1].dim[1];
    int64_t stride = (width + extra + 127) & ~(int64_t)127; /* whole lines, as everywhere */
    unsigned char *at = call_scratch_above(call, fp8_rows_bytes(join->rows, stride));
    join->x =
        (struct fp8_rows){at, stride, (float *)(void *)(at + cuda_round((size_t)(join->rows * stride)))};
    join->w = call_scratch_above(call, (size_t)(join->columns * stride));
    join->w_stride = stride;
    return width;
}

bool fp8_join(struct call *calls, int count, struct error *err) {
    struct call *call = &calls[0];
    struct fp8_join join = {.count = count};
    void *library = call_scratch(call, blas_workspace);
    if (!call->in[0].dim[0]) return true;
    int64_t k = place_parts(calls, count, &join);
    cuda_fp8_join(&join, call->stream);
    unsigned *largest = call_scratch(call, sizeof *largest);
    for (int i = 0; i < count; i++) {
        const struct operand *low = &calls[i].in[3], *down = &calls[i].in[4];
        if (!low->data) continue;
        struct fp8_tails tails = {.x = join.x.data + k,
                                  .w = join.w + k,
                                  .x_stride = join.x.stride,
                                  .w_stride = join.w_stride,
                                  .x_scales = join.x.scales,
                                  .w_scales = join.part[0].w_scale,
                                  .largest = largest,
                                  .low = array_of(low),
                                  .up = array_of(down),
                                  .along = 1,
                                  .across = down->stride,
                                  .factor = calls[i].node->attributes.beta,
                                  .rows = join.rows,
                                  .columns = join.columns,
                                  .rank = (int)rank_of(&calls[i]),
                                  .extra = (int)fp8_extra(rank_of(&calls[i]))};
        cuda_fp8_tails(&tails, call->stream);
        k += tails.extra;
    }
    struct product p = {.fp8 = true,
                        .x = join.x.data,
                        .w = join.w,
                        .x_scales = join.x.scales,
                        .w_scales = join.part[0].w_scale,
                        .y = array_of(&calls[count - 1].out[0]),
                        .m = join.rows,
                        .n = join.columns,
                        .k = k,
                        .ldx = join.x.stride,
                        .ldw = join.w_stride,
                        .w_transposed = true,
                        .alpha = 1};
    struct thin thin = {
        .y = p.y, .addend = array_of(&call->in[2]), .rows = join.rows, .columns = join.columns};
    cuda_lay(call, &thin, &p);
    return blas_product(call->device->blas, &p, library, call->stream, err);
}
