/* Adapters in and out of an engine: what a PEFT directory asks for, its numbers into the store, and the
 * store's into a directory. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "base/text.h"
#include "model/base_type.h"
#include "model/layout.h"
#include "score/engine_internal.h"
#include "tensor/rowcodec.h"

/* Splits "model.layers.12.mlp.up_proj" into layer and module; false when it is none of this model's. */
static bool parse_module(const struct model *model, const char *path, int64_t *layer, int *module) {
    for (int m = 0; m < module_kinds; m++) {
        const char *pattern = modules[m].path, *mark = strstr(pattern, "%d");
        size_t head = mark ? (size_t)(mark - pattern) : strlen(pattern);
        if (strncmp(path, pattern, head)) continue;
        int64_t number = 0;
        const char *at = path + head, *digits = at;
        while (mark && *at >= '0' && *at <= '9' && at - digits < 6) number = number * 10 + (*at++ - '0');
        if (strcmp(at, mark ? mark + 2 : "") || (mark && at == digits) || number >= model->config.layers)
            continue;
        *layer = number;
        *module = m;
        return true;
    }
    return false;
}

static bool unlike(const struct peft_pair *pair, int64_t rows, int64_t in, struct error *err) {
    error_set(err, ERROR_INPUT, "adapter",
              "the module %s is made for a linear of [%lld, %lld], this model's is [%lld, %lld]",
              pair->module, (long long)pair->b.dim[0], (long long)pair->a.dim[1], (long long)rows,
              (long long)in);
    return error_fix(err, "Name the model that the adapter was trained on.");
}

/* The rank that the configuration gives a module must be its tensors': they are damaged otherwise, or
 * another's. */
static bool read_part(const struct peft *peft, const struct peft_pair *pair, struct method_matcher *ranks,
                      struct method_matcher *alphas, struct method_part *out, struct error *err) {
    const struct peft_config *config = peft_config(peft);
    double rank, alpha;
    if (!method_match(ranks, pair->module, (double)config->rank, &rank, NULL, err) ||
        !method_match(alphas, pair->module, config->alpha, &alpha, NULL, err))
        return false;
    if ((int64_t)rank != pair->a.dim[0])
        return error_set(err, ERROR_INPUT, "adapter",
                         "the module %s has rank %lld, by rank_pattern of adapter_config.json it is %lld",
                         pair->module, (long long)pair->a.dim[0], (long long)rank);
    *out = (struct method_part){.rank = pair->a.dim[0], .alpha = alpha};
    return true;
}

static bool read_parts(const struct peft *peft, const struct model *model, struct method_matcher *ranks,
                       struct method_matcher *alphas, struct method *out, struct error *err) {
    int64_t layer, in, rows;
    int m;
    bool kinds[module_kinds] = {false};
    for (size_t i = 0; i < peft_pair_count(peft); i++) {
        const struct peft_pair *pair = peft_pair(peft, i);
        if (!parse_module(model, pair->module, &layer, &m))
            return error_set(err, ERROR_INPUT, "adapter", "the module %s is not in this model (%lld %s, %s)",
                             pair->module, (long long)model->config.layers,
                             text_plural((uint64_t)model->config.layers, "layer", "layers"),
                             model->config.architecture);
        module_shape(&model->config, m, &rows, &in);
        if (pair->a.dim[1] != in || pair->b.dim[0] != rows) return unlike(pair, rows, in, err);
        if (pair->embedding != (m == MODULE_EMBEDDING))
            return error_set(err, ERROR_INPUT, "adapter",
                             "the tensors of the module %s are named as those of %s", pair->module,
                             pair->embedding ? "an embedding" : "a linear");
        if (out->dora && m >= module_count) {
            error_set(err, ERROR_INPUT, "adapter", "DoRA of %s is not supported", pair->module);
            return error_fix(err,
                             "DoRA of the layers' linears is read. In PEFT, merge the adapter into its base "
                             "(merge_and_unload), save that, and name it as --model.");
        }
        if (!read_part(peft, pair, ranks, alphas, &out->parts[part_index(&model->config, layer, m)], err))
            return false;
        kinds[m] = true;
    }
    /* A layer without a module that the configuration wants everywhere would be left at zero: refuse. */
    for (size_t i = 0; peft_config(peft)->everywhere && i < out->count; i++) {
        char path[96];
        if (!kinds[part_module(&model->config, i)] || out->parts[i].rank) continue;
        module_path(part_layer(&model->config, i), part_module(&model->config, i), path);
        return error_set(err, ERROR_INPUT, "adapter",
                         "the module %s has no adapter while others of its kind do", path);
    }
    return true;
}

static bool read_weights(const struct peft *peft, const struct model *model, struct method *out,
                         struct error *err) {
    for (size_t i = 0; i < peft_weight_count(peft); i++) {
        const struct peft_weight *weight = peft_weight(peft, i);
        size_t index;
        int64_t dim[2];
        if (!method_save_weight(out, model, weight->name, &index))
            return error_set(err, ERROR_INPUT, "adapter", "the weight %s is not in this model", weight->name);
        int rank = layout_shape(&model->config, layout_role(&model->config, index), dim);
        if (weight->tensor.rank == rank && weight->tensor.dim[0] == dim[0] &&
            (rank == 1 || weight->tensor.dim[1] == dim[1]))
            continue;
        error_set(err, ERROR_INPUT, "adapter", "the weight %s is of another shape than this model's",
                  weight->name);
        return error_fix(err, "Name the model that the adapter was trained on.");
    }
    return true;
}

/* PEFT's patterns and ours are the same; only the name of the text differs. */
static struct method_pattern *patterns_of(const struct peft_pattern *patterns, size_t count) {
    struct method_pattern *copy = mem_array(count + 1, sizeof *copy);
    for (size_t i = 0; copy && i < count; i++)
        copy[i] = (struct method_pattern){patterns[i].key, patterns[i].value};
    return copy;
}

bool engine_method_of(const struct peft *peft, const struct model *model, struct method *out,
                      struct error *err) {
    const struct peft_config *config = peft_config(peft);
    *out = (struct method){.count = method_part_count(&model->config),
                           .rslora = config->rslora,
                           .dora = config->dora,
                           .init = config->gaussian ? METHOD_INIT_GAUSSIAN : METHOD_INIT_DEFAULT};
    struct method_pattern *ranks = patterns_of(config->ranks, config->rank_count),
                          *alphas = patterns_of(config->alphas, config->alpha_count);
    struct method_matcher *rank_of = NULL, *alpha_of = NULL;
    out->parts = mem_calloc(out->count, sizeof *out->parts);
    bool ok = (out->parts && ranks && alphas) || error_no_memory(err, "adapter", out->count);
    ok = ok && method_matcher_open(&rank_of, ranks, config->rank_count, METHOD_MODULES, err) &&
         method_matcher_open(&alpha_of, alphas, config->alpha_count, METHOD_MODULES, err) &&
         read_parts(peft, model, rank_of, alpha_of, out, err) && read_weights(peft, model, out, err);
    method_matcher_close(&rank_of);
    method_matcher_close(&alpha_of);
    mem_free(ranks);
    mem_free(alphas);
    if (!ok) method_release(out);
    return ok;
}

bool engine_base_of(const struct peft *adapter, const char *name, const struct model *model, enum dtype *out,
                    struct error *err) {
    struct base_wish wish = {.name = name, .adapter = adapter ? peft_config(adapter)->base_type : NULL};
    struct base_choice choice;
    if (!base_type_choose(&choice, model, &wish, err)) return false;
    *out = choice.dtype;
    return true;
}

bool engine_other_base(const struct peft *adapter, const struct model *model, char out[engine_sentence]) {
    const char *trained_on = adapter ? peft_config(adapter)->base_weights : NULL;
    const char *name = adapter ? peft_config(adapter)->base_model : NULL;
    struct digest own;
    struct error ignored;
    if (!trained_on || !model_fingerprint(model, &own, &ignored) || !strcmp(own.hex, trained_on))
        return false;
    snprintf(out, engine_sentence, "the adapter was trained on other weights than this model's%s%.100s",
             name ? "; its base is " : "", name ? name : "");
    return true;
}

static void turn(const float *from, size_t rows, size_t columns, float *to) {
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < columns; c++) to[c * rows + r] = from[r * columns + c];
}

/* Columns [from, from + row's columns) of `count` lines of a pair's tensor, times `sign`, into a row of the
 * state. */
static bool upload_part(struct engine *engine, int row, const struct tensor *tensor, int64_t first,
                        int64_t from, float sign, struct error *err) {
    const struct state_row *to = &engine->state.table.rows[row];
    int64_t lines = to->rank == 2 ? to->dim[0] : 1, columns = to->dim[to->rank - 1],
            width = tensor->dim[tensor->rank - 1];
    uint64_t elements;
    if (!tensor_elements(tensor, &elements))
        return error_set(err, ERROR_INTERNAL, "adapter", "size overflow");
    float *numbers = mem_array((size_t)elements, sizeof *numbers);
    if (!numbers) return error_no_memory(err, "adapter", elements * sizeof *numbers);
    rowcodec(tensor->dtype)->decode(tensor->data, numbers, (int64_t)elements);
    for (int64_t l = 0; l < lines; l++) /* to the front, never beyond what is still to be read */
        for (int64_t c = 0; c < columns; c++)
            numbers[l * columns + c] = sign * numbers[(first + l) * width + from + c];
    bool ok = engine->ops->upload(engine->store, row, numbers, (size_t)to->bytes, err);
    mem_free(numbers);
    return ok;
}

/* [rank, tokens] of a file, [tokens, rank] here. */
static bool upload_turned(struct engine *engine, int row, const struct tensor *tensor, struct error *err) {
    size_t rank = (size_t)tensor->dim[0], tokens = (size_t)tensor->dim[1],
           bytes = rank * tokens * sizeof(float);
    float *numbers = mem_alloc(bytes), *turned = mem_alloc(bytes);
    bool ok = (numbers && turned) || error_no_memory(err, "adapter", bytes);
    if (ok) {
        rowcodec(tensor->dtype)->decode(tensor->data, numbers, (int64_t)(rank * tokens));
        turn(numbers, rank, tokens, turned);
        ok = engine->ops->upload(engine->store, row, turned, bytes, err);
    }
    mem_free(numbers);
    mem_free(turned);
    return ok;
}

/* The second half of a pair that was written with its start: [A; A0] and [B, -B0]. */
static bool load_start(struct engine *engine, const struct start_pair *start, const struct peft_pair *pair,
                       struct error *err) {
    if (start->a < 0) return true;
    int64_t rank = engine->state.table.rows[start->a].dim[0];
    return upload_part(engine, start->a, &pair->a, rank, 0, 1, err) &&
           upload_part(engine, start->b, &pair->b, 0, rank, -1, err);
}

static bool derive(struct engine *engine, enum graph_kind kind, struct error *err) {
    const struct graph_sizes none = {0};
    struct engine_program program;
    if (!engine->state.method.dora) return true;
    if (!program_plan(&program, engine, kind, &none, err)) return false;
    const struct binding nothing = {0};
    bool ok = program_compile(&program, engine, err) && engine->ops->run(program.program, &nothing, err);
    program_release(&program, engine);
    return ok;
}

bool engine_derive(struct engine *engine, struct error *err) { return derive(engine, GRAPH_DERIVE, err); }

bool engine_derive_average(struct engine *engine, struct error *err) {
    return engine->state.average < 0 || derive(engine, GRAPH_DERIVE_AVERAGE, err);
}

static bool load_weights(struct engine *engine, const struct peft *peft, struct error *err) {
    const struct model_state *state = &engine->state;
    for (size_t i = 0; i < peft_weight_count(peft); i++)
        for (int p = 0; p < state->parts.count; p++)
            if (state->list[p].kind == PART_WEIGHT &&
                !strcmp(state->parts.items[p].name, peft_weight(peft, i)->name) &&
                !upload_part(engine, state->list[p].row, &peft_weight(peft, i)->tensor, 0, 0, 1, err))
                return false;
    return true;
}

bool engine_load_adapter(struct engine *engine, const struct peft *peft, struct error *err) {
    for (size_t i = 0; i < peft_pair_count(peft); i++) {
        const struct peft_pair *pair = peft_pair(peft, i);
        int64_t layer;
        int m;
        if (!parse_module(engine->model, pair->module, &layer, &m))
            return error_set(err, ERROR_INTERNAL, "adapter", "unchecked module");
        size_t index = part_index(&engine->model->config, layer, m);
        const struct tensor *tensors[] = {
            [PART_LORA_A] = &pair->a, [PART_LORA_B] = &pair->b, [PART_MAGNITUDE] = &pair->magnitude};
        for (int kind = PART_LORA_A; kind <= PART_MAGNITUDE; kind++) {
            const struct trained_part *part = model_state_part(&engine->state, index, (enum part_kind)kind);
            bool turned = kind == PART_LORA_A && m == MODULE_EMBEDDING;
            if (part && !(turned ? upload_turned(engine, part->row, tensors[kind], err)
                                 : upload_part(engine, part->row, tensors[kind], 0, 0, 1, err)))
                return false;
        }
        if (!load_start(engine, &engine->state.starts[index], pair, err)) return false;
    }
    return load_weights(engine, peft, err) && engine_derive(engine, err);
}

/* What adapter_config.json says of the method; everything lives in `arena`. */
static bool config_of(const struct engine *engine, const struct method *method, const char *base_model,
                      struct peft_config *out, struct arena *arena, struct error *err) {
    struct method_rules rules;
    bool names;
    const char **saved;
    size_t saved_count;
    struct digest weights;
    if (!model_fingerprint(engine->model, &weights, err) ||
        !method_describe(method, &engine->model->config, &rules, &names, arena, err) ||
        !method_saved_names(method, engine->model, &saved, &saved_count, arena, err))
        return false;
    int64_t layers = engine->model->config.layers;
    const struct dtype_row *base = dtype_row(engine->state.base);
    *out = (struct peft_config){.rank = rules.rank,
                                .alpha = rules.alpha,
                                .dropout = method->dropout,
                                .rslora = method->rslora,
                                .dora = method->dora,
                                .gaussian = method->init == METHOD_INIT_GAUSSIAN,
                                .targets = rules.targets,
                                .target_count = rules.target_count,
                                .target_patterns = !names,
                                .rank_count = rules.rank_count,
                                .alpha_count = rules.alpha_count,
                                .from_layer = rules.layers ? layers - rules.layers : 0,
                                .layers = layers,
                                .saved = saved,
                                .saved_count = saved_count,
                                .base_type = base->quantised ? base->name : NULL,
                                .base_weights = arena_strdup(arena, weights.hex),
                                .base_model = (char *)(uintptr_t)base_model};
    out->ranks = arena_array(arena, rules.rank_count + 1, sizeof *out->ranks);
    out->alphas = arena_array(arena, rules.alpha_count + 1, sizeof *out->alphas);
    if (!out->ranks || !out->alphas || !out->base_weights) return error_no_memory(err, "adapter", 0);
    for (size_t i = 0; i < rules.rank_count; i++)
        out->ranks[i] = (struct peft_pattern){rules.ranks[i].pattern, rules.ranks[i].value};
    for (size_t i = 0; i < rules.alpha_count; i++)
        out->alphas[i] = (struct peft_pattern){rules.alphas[i].pattern, rules.alphas[i].value};
    return true;
}

/* An adapter on its way out: the pairs as they are written, their numbers in one block. */
struct saving {
    struct engine *engine;
    bool average;
    float *at; /* free from here on */
    struct method written;
};

static bool download(struct saving *saving, int row, float **at, struct error *err) {
    struct engine *engine = saving->engine;
    size_t bytes = (size_t)engine->state.table.rows[row].bytes;
    *at = saving->at;
    saving->at += bytes / sizeof **at;
    return engine->ops->download(engine->store, row, *at, bytes, err);
}

/* `change`: its numbers are to be moved; else they are read where they lie, if the host can. */
static bool save_part(struct saving *saving, const struct trained_part *part, bool change, struct tensor *out,
                      struct error *err) {
    const struct engine *engine = saving->engine;
    const struct model_state *state = &engine->state;
    float *numbers;
    if (!part) return true;
    const struct state_row *row = &state->table.rows[part->row];
    int from = saving->average ? model_state_average(state, part->row) : part->row;
    if (engine->ops->row && !change)
        numbers = engine->ops->row(engine->store, from);
    else if (!download(saving, from, &numbers, err))
        return false;
    *out = (struct tensor){.name = "part",
                           .dtype = DTYPE_F32,
                           .rank = row->rank,
                           .dim = {row->dim[0], row->dim[1]},
                           .data = numbers,
                           .bytes = row->bytes};
    return true;
}

/* [A; A0]: A0 lies behind A already. */
static bool join_a(struct saving *saving, int start, struct tensor *a, struct error *err) {
    float *behind;
    a->dim[0] *= 2;
    a->bytes *= 2;
    return download(saving, start, &behind, err);
}

/* [B, -B0], which takes the place of both. */
static bool join_b(struct saving *saving, int start, struct tensor *b, struct error *err) {
    float *first = (float *)(uintptr_t)b->data, *second;
    size_t rows = (size_t)b->dim[0], rank = (size_t)b->dim[1];
    if (!download(saving, start, &second, err)) return false;
    float *copy = mem_array(2 * rows * rank, sizeof *copy);
    if (!copy) return error_no_memory(err, "adapter", 2 * rows * rank * sizeof *copy);
    memcpy(copy, first, 2 * rows * rank * sizeof *copy);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < rank; c++) {
            first[r * 2 * rank + c] = copy[r * rank + c];
            first[(r * 2 + 1) * rank + c] = -copy[(rows + r) * rank + c];
        }
    mem_free(copy);
    b->dim[1] *= 2;
    b->bytes *= 2;
    return true;
}

/* The embedding's A, in place: [tokens, rank] here, [rank, tokens] in a file. */
static bool turn_a(struct tensor *a, struct error *err) {
    float *numbers = (float *)(uintptr_t)a->data, *copy = mem_alloc((size_t)a->bytes);
    size_t tokens = (size_t)a->dim[0], rank = (size_t)a->dim[1];
    if (!copy) return error_no_memory(err, "adapter", a->bytes);
    memcpy(copy, numbers, (size_t)a->bytes);
    turn(copy, tokens, rank, numbers);
    mem_free(copy);
    a->dim[0] = (int64_t)rank;
    a->dim[1] = (int64_t)tokens;
    return true;
}

static bool save_pair(struct saving *saving, size_t module, struct peft_pair *pair, struct error *err) {
    const struct model_state *state = &saving->engine->state;
    const struct start_pair *start = &state->starts[module];
    pair->embedding = part_module(&state->model->config, module) == MODULE_EMBEDDING;
    return save_part(saving, model_state_part(state, module, PART_LORA_A), pair->embedding || start->a >= 0,
                     &pair->a, err) &&
           (!pair->embedding || turn_a(&pair->a, err)) &&
           (start->a < 0 || join_a(saving, start->a, &pair->a, err)) &&
           save_part(saving, model_state_part(state, module, PART_LORA_B), start->b >= 0, &pair->b, err) &&
           (start->b < 0 || join_b(saving, start->b, &pair->b, err)) &&
           save_part(saving, model_state_part(state, module, PART_MAGNITUDE), false, &pair->magnitude, err);
}

static bool save_weights(struct saving *saving, struct peft_weight *weights, size_t *count,
                         struct error *err) {
    const struct model_state *state = &saving->engine->state;
    for (int i = 0; i < state->parts.count; i++) {
        if (state->list[i].kind != PART_WEIGHT) continue;
        weights[*count] = (struct peft_weight){.name = state->parts.items[i].name};
        if (!save_part(saving, &state->list[i], false, &weights[(*count)++].tensor, err)) return false;
    }
    return true;
}

uint64_t engine_save_copies(const struct engine *engine) {
    const struct model_state *state = &engine->state;
    uint64_t bytes = 0;
    if (!engine->ops->row) return state_class_bytes(&state->table, STATE_TRAINED);
    for (size_t i = 0; i < method_part_count(&engine->model->config); i++) {
        const struct trained_part *a = model_state_part(state, i, PART_LORA_A);
        bool starts = state->starts[i].a >= 0;
        if (!a || (!starts && part_module(&engine->model->config, i) != MODULE_EMBEDDING)) continue;
        const struct trained_part *b = model_state_part(state, i, PART_LORA_B);
        bytes += state->table.rows[a->row].bytes * (starts ? 2 : 1);
        if (starts && b) bytes += state->table.rows[b->row].bytes * 2;
    }
    return bytes;
}

bool engine_save_adapter(struct engine *engine, const char *directory, bool average, const char *base_model,
                         const json_t *card, struct error *err) {
    const struct model_state *state = &engine->state;
    const struct model_config *c = &engine->model->config;
    size_t parts = method_part_count(c), count = 0;
    struct arena arena = {0};
    struct peft_pair *pairs = arena_array(&arena, parts + 1, sizeof *pairs);
    char(*paths)[96] = arena_array(&arena, parts + 1, sizeof *paths);
    struct peft_weight *weights = arena_array(&arena, (size_t)state->parts.count + 1, sizeof *weights);
    size_t weight_count = 0;
    size_t bytes = (size_t)state_class_bytes(&state->table, STATE_TRAINED);
    float *numbers = mem_map(bytes, 0); /* pages that are given back */
    struct saving saving = {.engine = engine, .average = average, .at = numbers};
    struct peft_config config;
    bool ok = pairs && paths && weights && numbers;
    if (!ok) error_no_memory(err, "adapter", bytes);
    ok = ok && method_written(&saving.written, &state->method, err) &&
         config_of(engine, &saving.written, base_model, &config, &arena, err);
    for (size_t i = 0; ok && i < parts; i++) {
        if (!model_state_part(state, i, PART_LORA_A)) continue;
        module_path(part_layer(c, i), part_module(c, i), paths[count]);
        pairs[count] = (struct peft_pair){.module = paths[count]};
        ok = save_pair(&saving, i, &pairs[count++], err);
    }
    ok = ok && save_weights(&saving, weights, &weight_count, err);
    const struct peft_content content = {pairs, count, weights, weight_count};
    ok = ok && peft_write(directory, &config, &content, card, err);
    if (engine->held) engine->held(engine->held_user);
    method_release(&saving.written);
    arena_release(&arena);
    mem_unmap(numbers, bytes);
    return ok;
}
