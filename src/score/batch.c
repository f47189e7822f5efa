#include "score/batch.h"

#include <string.h>

#include "base/mem.h"

uint64_t batch_bytes(int64_t tokens) { return 7 * sizeof(int32_t) * (uint64_t)tokens; }

bool batch_open(struct batch *out, int64_t tokens, int64_t segments, struct error *err) {
    memset(out, 0, sizeof *out);
    out->capacity = tokens;
    out->segment_capacity = segments;
    size_t n = (size_t)tokens;
    out->ids = mem_calloc(n, sizeof(int32_t));
    out->positions = mem_calloc(n, sizeof(int32_t));
    out->segments = mem_calloc((size_t)segments + 1, sizeof(int32_t));
    out->rows = mem_calloc(n, sizeof(int32_t));
    out->targets = mem_calloc(n, sizeof(int32_t));
    out->weights = mem_calloc(n, sizeof(float));
    out->examples = mem_calloc(n, sizeof(uint32_t));
    if (!out->ids || !out->positions || !out->segments || !out->rows || !out->targets || !out->weights ||
        !out->examples) {
        batch_close(out);
        return error_no_memory(err, "batch", n * 24);
    }
    const void *inputs[INPUT_COUNT] = {
        [INPUT_IDS] = out->ids,           [INPUT_POSITIONS] = out->positions,
        [INPUT_SEGMENTS] = out->segments, [INPUT_ROWS] = out->rows,
        [INPUT_TARGETS] = out->targets,   [INPUT_WEIGHTS] = out->weights,
        [INPUT_EXAMPLES] = out->examples, [INPUT_RANDOM] = out->random,
    };
    memcpy(out->binding.inputs, inputs, sizeof inputs);
    out->binding.inputs[INPUT_RANDOM] = NULL; /* set by whoever binds: the struct may move */
    return true;
}

void batch_close(struct batch *batch) {
    mem_free(batch->ids);
    mem_free(batch->positions);
    mem_free(batch->segments);
    mem_free(batch->rows);
    mem_free(batch->targets);
    mem_free(batch->weights);
    mem_free(batch->examples);
    memset(batch, 0, sizeof *batch);
}

void batch_clear(struct batch *batch) {
    batch->binding.tokens = batch->binding.targets = batch->binding.segments =
        batch->binding.longest_segment = 0;
    batch->segments[0] = 0;
}

bool batch_fits(const struct batch *batch, const struct example *example) {
    return batch->binding.tokens + example->count <= batch->capacity &&
           batch->binding.segments < batch->segment_capacity;
}

void batch_add(struct batch *batch, const struct example *example, float weight) {
    struct binding *b = &batch->binding;
    for (uint32_t i = 0; i < example->count; i++) {
        int64_t at = b->tokens + i;
        batch->ids[at] = example->ids[i];
        batch->positions[at] = (int32_t)i;
        batch->examples[at] = example->row;
        if (i == 0 || !example->trained[i]) continue;
        batch->rows[b->targets] = (int32_t)(at - 1);
        batch->targets[b->targets] = example->ids[i];
        batch->weights[b->targets++] = weight;
    }
    b->tokens += example->count;
    batch->segments[++b->segments] = (int32_t)b->tokens;
    if (example->count > b->longest_segment) b->longest_segment = example->count;
}
