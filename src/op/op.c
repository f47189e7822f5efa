#include "op/op.h"

#include <string.h>

/* The list of operations. The order is that of enum op_code. */
static const struct op_row *const rows[OP_COUNT] = {
    [OP_EMBEDDING] = &op_embedding_row,
    [OP_EMBEDDING_GRAD] = &op_embedding_grad_row,
    [OP_LINEAR] = &op_linear_row,
    [OP_LINEAR_GRAD_X] = &op_linear_grad_x_row,
    [OP_LINEAR_GRAD_W] = &op_linear_grad_w_row,
    [OP_BIAS_GRAD] = &op_bias_grad_row,
    [OP_NORM] = &op_norm_row,
    [OP_NORM_GRAD] = &op_norm_grad_row,
    [OP_NORM_GRAD_W] = &op_norm_grad_w_row,
    [OP_ROPE_TABLE] = &op_rope_table_row,
    [OP_ROPE] = &op_rope_row,
    [OP_ATTENTION] = &op_attention_row,
    [OP_ATTENTION_GRAD] = &op_attention_grad_row,
    [OP_CACHE_ATTENTION] = &op_cache_attention_row,
    [OP_RESCALE] = &op_rescale_row,
    [OP_RESCALE_GRAD] = &op_rescale_grad_row,
    [OP_ROW_NORMS] = &op_row_norms_row,
    [OP_GLU] = &op_glu_row,
    [OP_GLU_GRAD] = &op_glu_grad_row,
    [OP_ADD] = &op_add_row,
    [OP_COPY] = &op_copy_row,
    [OP_DROPOUT] = &op_dropout_row,
    [OP_NOISE] = &op_noise_row,
    [OP_GATHER] = &op_gather_row,
    [OP_SCATTER] = &op_scatter_row,
    [OP_LIKELIEST] = &op_likeliest_row,
    [OP_HEAD] = &op_head_row,
    [OP_HEAD_GRAD] = &op_head_grad_row,
    [OP_LOSS] = &op_loss_row,
    [OP_GRADIENT_NORM] = &op_gradient_norm_row,
    [OP_ADAMW] = &op_adamw_row,
    [OP_SGD] = &op_sgd_row,
    [OP_LION] = &op_lion_row,
    [OP_ADAFACTOR] = &op_adafactor_row,
    [OP_ADAMW8BIT] = &op_adamw8bit_row,
    [OP_MUON] = &op_muon_row,
    [OP_AVERAGE] = &op_average_row,
    [OP_ZERO] = &op_zero_row,
    [OP_SCALE] = &op_scale_row,
    [OP_UNSCALE] = &op_unscale_row,
    [OP_SCALE_UPDATE] = &op_scale_update_row,
};

const struct op_row *op_row(enum op_code op) { return rows[op]; }

int64_t op_count(const struct value *value, const int64_t counts[COUNT_KINDS]) {
    return counts && value->count != COUNT_FIXED ? counts[value->count] : value->dim[0];
}

int64_t graph_room(const struct graph *graph, const struct value *value) {
    return value->loop && graph->piece_rows < value->dim[0] ? graph->piece_rows : value->dim[0];
}

const struct value *op_input(const struct graph *graph, const struct node *node, int index) {
    return node->input[index] < 0 ? NULL : &graph->values[node->input[index]];
}

void op_shape_like(struct value *out, const struct value *like) {
    out->count = like->count;
    out->rank = like->rank;
    memcpy(out->dim, like->dim, sizeof out->dim);
}

void op_shape_flat(struct value *out, const struct value *rows_of, int64_t width) {
    out->count = rows_of->count;
    out->rank = 2;
    out->dim[0] = rows_of->dim[0];
    out->dim[1] = width;
}

void backward_bias(struct backward *b, int index) {
    if (!b->needed[index]) return;
    int inputs[2] = {b->output_gradient[0],
                     b->state_gradient(b->user, b->graph->nodes[b->node].input[index])};
    graph_emit(b->graph, OP_BIAS_GRAD, inputs, NULL, DTYPE_F32, "dbias");
}

void backward_give(struct backward *b, int index, int gradient) {
    if (!b->needed[index] || gradient < 0) return;
    int *gathered = b->input_gradient[index];
    if (*gathered < 0) {
        *gathered = gradient;
        return;
    }
    int inputs[2] = {*gathered, gradient};
    enum dtype dtype = b->graph->values[*gathered].dtype;
    *gathered = graph_output(b->graph, graph_emit(b->graph, OP_ADD, inputs, NULL, dtype, "gradient"), 0);
}
