#include "golden/probe.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

bool probe_open(struct probe *p, const char *model, const char *adapter, const struct probe_options *o,
                struct error *err) {
    memset(p, 0, sizeof *p);
    struct device_options device = {.threads = o->threads, .mask = o->mask};
    struct graph_sizes sizes = {
        .tokens = o->tokens, .targets = o->tokens, .segments = 64, .keep = o->keep, .layers = o->layers};
    p->tokens = o->tokens;
    if (!model_open(&p->model, model, err)) return false;
    if (adapter &&
        (!peft_open(&p->adapter, adapter, err) || !engine_method_of(p->adapter, p->model, &p->method, err)))
        return false;
    if (o->full && !method_full(&p->method, p->model, NULL, 0, err)) return false;
    p->method.dropout = o->dropout;
    struct state_options state = {.compute = o->compute,
                                  .decoded = o->decoded,
                                  .train = adapter || o->full,
                                  .slots = o->with_logits,
                                  .cache = o->compute,
                                  .context = o->tokens};
    if (!engine_base_of(p->adapter, o->base_type, p->model, &state.base, err)) return false;
    p->ops = device_find(o->device, err);
    if (!p->ops || !p->ops->open(&p->device, &device, err) ||
        !engine_open(&p->engine, p->ops, p->device, p->model, &p->method, &state, err))
        return false;
    uint64_t arena = 0;
    struct engine_program *programs[3] = {&p->score, state.train ? &p->train : NULL,
                                          o->with_logits ? &p->infer : NULL};
    const enum graph_kind kinds[3] = {GRAPH_SCORE, GRAPH_TRAIN, GRAPH_INFER};
    for (int i = 0; i < 3; i++) {
        if (!programs[i]) continue;
        if (!program_plan(programs[i], &p->engine, kinds[i], &sizes, err)) return false;
        if (program_bytes(programs[i]) > arena) arena = program_bytes(programs[i]);
    }
    if (!engine_start(&p->engine, arena, err)) return false;
    for (int i = 0; i < 3; i++)
        if (programs[i] && !program_compile(programs[i], &p->engine, err)) return false;
    p->logits = mem_array((size_t)(o->tokens * p->model->config.vocabulary), sizeof *p->logits);
    if (!p->logits) return error_no_memory(err, "probe", 0);
    return batch_open(&p->batch, o->tokens, 64, err) && engine_init_trained(&p->engine, 0, err) &&
           (!adapter || engine_load_adapter(&p->engine, p->adapter, err));
}

void probe_close(struct probe *p) {
    batch_close(&p->batch);
    if (p->ops) {
        program_release(&p->train, &p->engine);
        program_release(&p->score, &p->engine);
        program_release(&p->infer, &p->engine);
        engine_close(&p->engine);
        if (p->device) p->ops->close(&p->device);
    }
    method_release(&p->method);
    peft_close(&p->adapter);
    model_close(&p->model);
    mem_free(p->logits);
}

bool probe_logits(struct probe *p, const int32_t *ids, int64_t count, int64_t piece, struct error *err) {
    int64_t vocabulary = p->model->config.vocabulary;
    for (int64_t from = 0; from < count;) {
        int64_t n = piece && piece < count - from ? piece : count - from;
        int32_t slot = 0, past = (int32_t)from;
        struct binding *b = &p->batch.binding;
        batch_clear(&p->batch);
        for (int64_t i = 0; i < n; i++) {
            p->batch.ids[i] = ids[from + i];
            p->batch.positions[i] = (int32_t)(from + i);
            p->batch.rows[i] = (int32_t)i;
        }
        b->tokens = b->targets = b->longest_segment = n;
        b->segments = 1;
        p->batch.segments[1] = (int32_t)n;
        b->inputs[INPUT_SLOTS] = &slot;
        b->inputs[INPUT_PAST] = &past;
        if (!p->ops->run(p->infer.program, b, err) ||
            !p->ops->read(p->infer.program, p->infer.built.logits, p->logits + from * vocabulary,
                          (size_t)(n * vocabulary) * sizeof(float), err))
            return false;
        from += n;
    }
    return true;
}

bool probe_gradients(struct probe *p, const struct example *examples, size_t count, size_t group,
                     double *loss, struct error *err) {
    size_t supervised = 0;
    for (size_t i = 0; i < count; i++) supervised += examples[i].supervised;
    float weight = -1.0f / (float)supervised;
    for (size_t i = 0; i < count;) {
        batch_clear(&p->batch);
        for (size_t n = 0; i < count && n < group && batch_fits(&p->batch, &examples[i]); n++, i++)
            batch_add(&p->batch, &examples[i], weight);
        if (!p->batch.binding.segments)
            return error_set(err, ERROR_INTERNAL, "probe", "an example does not fit");
        p->batch.binding.inputs[INPUT_RANDOM] = p->batch.random;
        if (!p->ops->run(p->train.program, &p->batch.binding, err)) return false;
    }
    return p->ops->download(p->engine.store, p->engine.state.loss, loss, sizeof *loss, err);
}

/* The embedding's A is [rank, tokens] in a file. */
static bool turn(float *numbers, const struct state_row *row, struct error *err) {
    size_t tokens = (size_t)row->dim[0], rank = (size_t)row->dim[1];
    float *copy = mem_alloc((size_t)row->bytes);
    if (!copy) return error_no_memory(err, "probe", row->bytes);
    memcpy(copy, numbers, (size_t)row->bytes);
    for (size_t t = 0; t < tokens; t++)
        for (size_t r = 0; r < rank; r++) numbers[r * tokens + t] = copy[t * rank + r];
    mem_free(copy);
    return true;
}

bool probe_gradient(struct probe *p, const char *name, float **out, size_t *count, struct error *err) {
    const struct model_state *state = &p->engine.state;
    for (int i = 0; i < state->parts.count; i++) {
        char wanted[192];
        int row = state->list[i].gradient;
        bool weight = state->list[i].kind == PART_WEIGHT;
        bool embedding = strstr(state->parts.items[i].name, "lora_embedding_");
        snprintf(wanted, sizeof wanted, "%s%s%s", state->method.parts ? "base_model.model." : "",
                 state->parts.items[i].name, weight || embedding ? "" : ".weight");
        if (strcmp(wanted, name)) continue;
        *count = (size_t)(state->table.rows[row].bytes / sizeof(float));
        *out = mem_alloc(*count * sizeof(float));
        return *out ? p->ops->download(p->engine.store, row, *out, *count * sizeof(float), err) &&
                          (!embedding || state->list[i].kind != PART_LORA_A ||
                           turn(*out, &state->table.rows[row], err))
                    : error_no_memory(err, "probe", 0);
    }
    return error_set(err, ERROR_INTERNAL, "probe", "there is no gradient %s", name);
}
