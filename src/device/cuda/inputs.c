#include "device/cuda/inputs.h"

#include <string.h>

/* Steps of 128 tokens, the rows of a product's tile; from 8,192 tokens on of a 64th to a 32nd. */
int64_t cuda_rung(int64_t tokens, int64_t most) {
    int64_t step = 128;
    while (step * 64 <= tokens) step *= 2;
    int64_t rung = (tokens + step - 1) / step * step;
    return rung < most ? rung : most;
}

/* Tokens of the cache are there to stay, and rows of state (tests) are as many as they are. */
static bool can_round(const struct graph *graph) {
    for (int n = 0; n < graph->node_count; n++)
        if (graph->nodes[n].op == OP_CACHE_ATTENTION) return false;
    for (int v = 0; v < graph->value_count; v++)
        if (graph->values[v].kind == VALUE_STATE && graph->values[v].count != COUNT_FIXED) return false;
    return true;
}

/* Values of a graph may be state in all but their count (tests): the most tokens of any. */
static int64_t planned_tokens(const struct graph *graph) {
    int64_t tokens = 0;
    for (int v = 0; v < graph->value_count; v++) {
        const struct value *value = &graph->values[v];
        if (value->count == COUNT_TOKENS && value->dim[0] > tokens) tokens = value->dim[0];
    }
    return tokens;
}

int64_t cuda_rounded_tokens(const struct graph *graph) {
    return can_round(graph) ? planned_tokens(graph) : 0;
}

/* A place for each input that the graph reads. */
static void place(struct inputs *inputs, const struct graph *graph) {
    for (int v = 0; v < graph->value_count; v++) {
        const struct value *value = &graph->values[v];
        if (value->kind != VALUE_INPUT) continue;
        inputs->bytes[value->which] = (size_t)value->dim[0] * 4;
        inputs->values[value->which] = value;
    }
    if (inputs->bytes[INPUT_SEGMENTS])
        for (int r = 0; r < RANGE_COUNT; r++) inputs->bytes[INPUT_COUNT + r] = (size_t)inputs->tokens * 4;
    for (int i = 0; i < INPUT_COUNT + RANGE_COUNT; i++) {
        inputs->offset[i] = inputs->total;
        inputs->total += cuda_round(inputs->bytes[i]);
    }
}

static bool open_slot(struct input_slot *slot, const struct inputs *inputs, struct error *err) {
    return cuda_check(cudaMallocHost((void **)&slot->staging, inputs->total + 1),
                      "allocate page-locked memory", err) &&
           (!inputs->rounds ||
            cuda_allocate((void **)&slot->landing, inputs->total, "the next step's inputs", err)) &&
           cuda_check(cudaEventCreateWithFlags(&slot->sent, cudaEventDisableTiming), "make an event", err) &&
           cuda_check(cudaEventCreateWithFlags(&slot->taken, cudaEventDisableTiming), "make an event", err);
}

bool inputs_open(struct inputs *inputs, struct device *device, const struct graph *graph, struct error *err) {
    *inputs = (struct inputs){.device = device, .tokens = planned_tokens(graph)};
    place(inputs, graph);
    inputs->rounds = cuda_rounded_tokens(graph) > 0;
    bool ok =
        cuda_allocate((void **)&inputs->data, inputs->total, "a step's inputs", err) &&
        (!inputs->rounds ||
         cuda_check(cudaStreamCreateWithFlags(&inputs->stream, cudaStreamNonBlocking), "open a stream", err));
    for (int i = 0; ok && i < input_slots; i++) ok = open_slot(&inputs->slots[i], inputs, err);
    return ok;
}

void inputs_close(struct inputs *inputs) {
    if (inputs->stream) {
        cudaStreamSynchronize(inputs->stream);
        cudaStreamDestroy(inputs->stream);
    }
    for (struct input_slot *slot = inputs->slots; slot < inputs->slots + input_slots; slot++) {
        cudaFreeHost(slot->staging);
        cudaFree(slot->landing);
        if (slot->sent) cudaEventDestroy(slot->sent);
        if (slot->taken) cudaEventDestroy(slot->taken);
    }
    cudaFree(inputs->data);
}

struct binding inputs_rounded(const struct inputs *inputs, const struct binding *binding) {
    struct binding rounded = *binding;
    if (inputs->rounds) rounded.tokens = cuda_rung(binding->tokens, inputs->tokens);
    return rounded;
}

/* Start and end of each token's segment, and which it is. */
static void fill_ranges(const struct inputs *inputs, const struct binding *binding, int64_t tokens,
                        unsigned char *to) {
    const int32_t *begins = binding->inputs[INPUT_SEGMENTS];
    int32_t *range[RANGE_COUNT];
    for (int r = 0; r < RANGE_COUNT; r++)
        range[r] = (int32_t *)(void *)(to + inputs->offset[INPUT_COUNT + r]);
    for (int64_t s = 0; s < binding->segments; s++)
        for (int32_t t = begins[s]; t < begins[s + 1]; t++) {
            range[RANGE_START][t] = begins[s];
            range[RANGE_END][t] = begins[s + 1];
            range[RANGE_SEGMENT][t] = (int32_t)s;
        }
    for (int64_t t = binding->tokens; t < tokens; t++) {
        range[RANGE_START][t] = (int32_t)t;
        range[RANGE_END][t] = (int32_t)t + 1;
        range[RANGE_SEGMENT][t] = 0; /* only the cache has segments */
    }
}

/* Numbers of 4 bytes; of the tokens past the binding's, the first one's. */
static void fill(const struct inputs *inputs, const struct binding *binding, int input, int64_t tokens,
                 unsigned char *to) {
    const struct value *value = inputs->values[input];
    int64_t count = operand_bound(value, binding).dim[0];
    memcpy(to, binding->inputs[input], (size_t)count * 4);
    if (value->count != COUNT_TOKENS || !count) return;
    for (int64_t t = count; t < tokens; t++) memcpy(to + t * 4, to, 4);
}

static bool copy(const struct inputs *inputs, void *to, const void *from, cudaStream_t stream,
                 struct error *err) {
    return cuda_check(cudaMemcpyAsync(to, from, inputs->total, cudaMemcpyDefault, stream),
                      "copy inputs to the GPU", err);
}

static bool send(const struct inputs *inputs, const struct input_slot *slot, struct error *err) {
    cudaStream_t turn = inputs->device->stream, ahead = inputs->stream;
    if (!ahead)
        return copy(inputs, inputs->data, slot->staging, turn, err) &&
               cuda_check(cudaEventRecord(slot->sent, turn), "record an event", err);
    return cuda_check(cudaStreamWaitEvent(ahead, slot->taken, 0), "wait for an event", err) &&
           copy(inputs, slot->landing, slot->staging, ahead, err) &&
           cuda_check(cudaEventRecord(slot->sent, ahead), "record an event", err) &&
           cuda_check(cudaStreamWaitEvent(turn, slot->sent, 0), "wait for an event", err) &&
           copy(inputs, inputs->data, slot->landing, turn, err) &&
           cuda_check(cudaEventRecord(slot->taken, turn), "record an event", err);
}

bool inputs_copy(struct inputs *inputs, const struct binding *binding, int64_t tokens, struct error *err) {
    if (!inputs->total) return true;
    const struct input_slot *slot = &inputs->slots[inputs->runs++ % input_slots];
    if (!cuda_check(cudaEventSynchronize(slot->sent), "run on the GPU", err)) return false;
    for (int i = 0; i < INPUT_COUNT; i++)
        if (inputs->bytes[i]) fill(inputs, binding, i, tokens, slot->staging + inputs->offset[i]);
    if (inputs->bytes[INPUT_SEGMENTS]) fill_ranges(inputs, binding, tokens, slot->staging);
    return send(inputs, slot, err);
}

void *inputs_at(const struct inputs *inputs, int input) { return inputs->data + inputs->offset[input]; }

struct ranges inputs_ranges(const struct inputs *inputs) {
    return (struct ranges){.start = inputs_at(inputs, INPUT_COUNT + RANGE_START),
                           .end = inputs_at(inputs, INPUT_COUNT + RANGE_END),
                           .segment = inputs_at(inputs, INPUT_COUNT + RANGE_SEGMENT)};
}
