#include "score/engine.h"

#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/mem.h"
#include "graph/graph.h"
#include "model/base_type.h"
#include "tensor/rowcodec.h"

bool engine_open(struct engine *out, const struct device_ops *ops, struct device *device,
                 const struct model *model, const struct method *method, const struct state_options *options,
                 struct error *err) {
    *out = (struct engine){.ops = ops, .device = device, .model = model};
    return model_state_build(&out->state, model, method, options, err);
}

bool engine_auto_compute(const struct device_ops *ops, struct device *device, enum dtype *out,
                         struct error *err) {
    json_t *described = NULL;
    if (!ops->describe(device, &described, err)) return false;
    *out = json_is_true(json_object_get(described, "prefers_bf16")) ? DTYPE_BF16 : DTYPE_F32;
    json_decref(described);
    return true;
}

void engine_close(struct engine *engine) {
    if (engine->store) engine->ops->store_close(&engine->store);
    model_state_release(&engine->state);
}

static size_t ask_workspace(const void *user, const struct graph *graph, const struct node *node) {
    const struct engine *engine = user;
    return engine->ops->workspace(engine->device, graph, node);
}

static bool check_offload(const struct engine *engine, const struct graph_sizes *sizes, struct error *err) {
    bool values = sizes->keep == GRAPH_KEEP_OFFLOADED, rows = engine->state.offload_optimizer;
    if (engine->ops->reserve_file || (!values && !rows)) return true;
    error_set(err, ERROR_USAGE, engine->ops->name, "this device offloads nothing to files");
    return error_fix(err, values ? "Choose another --recompute." : "Leave --offload-optimizer out.");
}

bool program_plan(struct engine_program *out, const struct engine *engine, enum graph_kind kind,
                  const struct graph_sizes *sizes, struct error *err) {
    struct graph_sizes wanted = *sizes;
    memset(out, 0, sizeof *out);
    wanted.narrow = engine->ops->narrow_gradients;
    bool ok = check_offload(engine, sizes, err) &&
              model_graph_build(&out->built, &engine->state, kind, &wanted, err);
    if (ok && engine->ops->arrange) engine->ops->arrange(engine->device, &out->built.graph);
    for (int n = 0; ok && n < out->built.graph.node_count; n++)
        ok = engine->ops->supports(engine->device, &out->built.graph, &out->built.graph.nodes[n], err);
    ok = ok && plan_build(&out->plan, &out->built.graph, ask_workspace, engine, err);
    if (!ok) program_release(out, engine);
    return ok;
}

uint64_t program_bytes(const struct engine_program *program) {
    return program->plan.arena_bytes + program->plan.workspace_bytes;
}

/* Quantising takes seconds: as many threads as the device has, whose own sleep meanwhile. */
static bool open_pool(const struct engine *engine, struct pool **out, struct error *err) {
    json_t *described = NULL;
    if (!engine->ops->describe(engine->device, &described, err)) return false;
    int threads = (int)json_integer_value(json_object_get(described, "threads"));
    json_decref(described);
    return pool_open(out, threads > 0 ? threads : 1, err);
}

static bool fill_weights(struct engine *engine, struct error *err) {
    const struct state_table *table = &engine->state.table;
    struct pool *pool = NULL;
    bool ok = open_pool(engine, &pool, err);
    for (int i = 0; ok && i < table->count; i++) {
        if (table->rows[i].class != STATE_WEIGHT || table->rows[i].parent >= 0) continue;
        size_t bytes = (size_t)table->rows[i].bytes;
        void *copy = mem_alloc(bytes);
        ok = (copy || error_no_memory(err, "model", bytes)) &&
             model_state_make(&engine->state, i, copy, pool, err) &&
             engine->ops->upload(engine->store, i, copy, bytes, err);
        mem_free(copy);
    }
    pool_close(&pool);
    return ok;
}

bool engine_start(struct engine *engine, uint64_t arena, struct error *err) {
    return engine->ops->store_open(engine->device, &engine->state.table, &engine->store, err) &&
           engine->ops->reserve(engine->store, arena, err) && fill_weights(engine, err);
}

/* Untouched pages are zeros that take no memory. */
bool engine_clear(struct engine *engine, int row, struct error *err) {
    size_t bytes = (size_t)engine->state.table.rows[row].bytes;
    void *zeros = mem_map(bytes, 0);
    if (!zeros) return error_no_memory(err, "engine", bytes);
    bool ok = engine->ops->upload(engine->store, row, zeros, bytes, err);
    mem_unmap(zeros, bytes);
    return ok;
}

bool engine_reset(struct engine *engine, struct error *err) {
    const struct state_table *table = &engine->state.table;
    bool ok = true;
    for (int i = 0; ok && i < table->count; i++) {
        enum state_class class = table->rows[i].class;
        if (table->rows[i].parent < 0 &&
            (class == STATE_TRAINED || class == STATE_GRADIENT || class == STATE_OPTIMIZER))
            ok = engine_clear(engine, i, err);
    }
    return ok;
}

bool engine_init_scaling(struct engine *engine, struct error *err) {
    const float first[SCALING_COLUMNS] = {[SCALING_FACTOR] = SCALING_FIRST};
    return engine->state.scaling < 0 ||
           engine->ops->upload(engine->store, engine->state.scaling, first, sizeof first, err);
}

bool engine_loss_scale(const struct engine *engine, float *out, struct error *err) {
    *out = 1;
    return engine->state.scaling < 0 ||
           engine->ops->download(engine->store, engine->state.scaling, out, sizeof *out, err);
}

bool program_compile(struct engine_program *program, struct engine *engine, struct error *err) {
    return engine->ops->compile(engine->device, &program->plan, engine->store, &program->program, err);
}

void program_release(struct engine_program *program, const struct engine *engine) {
    if (program->program) engine->ops->program_close(&program->program);
    plan_release(&program->plan);
    graph_release(&program->built.graph);
    memset(program, 0, sizeof *program);
}

/* Splits "model.layers.12.mlp.up_proj" into layer and module; false when it is none of this model's. */
static bool parse_module(const struct model *model, const char *path, int64_t *layer, int *module) {
    for (int m = 0; m < module_count; m++) {
        const char *pattern = modules[m].path, *mark = strstr(pattern, "%d");
        size_t head = (size_t)(mark - pattern);
        if (strncmp(path, pattern, head)) continue;
        int64_t number = 0;
        const char *at = path + head, *digits = at;
        while (*at >= '0' && *at <= '9' && at - digits < 6) number = number * 10 + (*at++ - '0');
        if (at == digits || strcmp(at, mark + 2) || number >= model->config.layers) continue;
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
    bool kinds[module_count] = {false};
    for (size_t i = 0; i < peft_pair_count(peft); i++) {
        const struct peft_pair *pair = peft_pair(peft, i);
        if (!parse_module(model, pair->module, &layer, &m))
            return error_set(err, ERROR_INPUT, "adapter",
                             "the module %s is not in this model (%lld layers, %s)", pair->module,
                             (long long)model->config.layers, model->config.architecture);
        module_shape(&model->config, m, &rows, &in);
        if (pair->a.dim[1] != in || pair->b.dim[0] != rows) return unlike(pair, rows, in, err);
        if (!read_part(peft, pair, ranks, alphas, &out->parts[layer * module_count + m], err)) return false;
        kinds[m] = true;
    }
    /* A layer without a module that the configuration wants everywhere would be left at zero: refuse. */
    for (size_t i = 0; peft_config(peft)->everywhere && i < out->count; i++) {
        char path[96];
        if (!kinds[i % module_count] || out->parts[i].rank) continue;
        module_path((int64_t)(i / module_count), (int)(i % module_count), path);
        return error_set(err, ERROR_INPUT, "adapter",
                         "the module %s has no adapter while others of its kind do", path);
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
    *out = (struct method){.count = (size_t)model->config.layers * module_count,
                           .rslora = config->rslora,
                           .dora = config->dora,
                           .init = config->gaussian ? METHOD_INIT_GAUSSIAN : METHOD_INIT_DEFAULT};
    struct method_pattern *ranks = patterns_of(config->ranks, config->rank_count),
                          *alphas = patterns_of(config->alphas, config->alpha_count);
    struct method_matcher *rank_of = NULL, *alpha_of = NULL;
    out->parts = mem_calloc(out->count, sizeof *out->parts);
    bool ok = (out->parts && ranks && alphas) || error_no_memory(err, "adapter", out->count);
    ok = ok && method_matcher_open(&rank_of, ranks, config->rank_count, err) &&
         method_matcher_open(&alpha_of, alphas, config->alpha_count, err) &&
         read_parts(peft, model, rank_of, alpha_of, out, err);
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

static bool upload_f32(struct engine *engine, int row, const struct tensor *tensor, struct error *err) {
    uint64_t elements;
    if (!tensor_elements(tensor, &elements))
        return error_set(err, ERROR_INTERNAL, "adapter", "size overflow");
    float *numbers = mem_array((size_t)elements, sizeof *numbers);
    if (!numbers) return error_no_memory(err, "adapter", elements * sizeof *numbers);
    rowcodec(tensor->dtype)->decode(tensor->data, numbers, (int64_t)elements);
    bool ok = engine->ops->upload(engine->store, row, numbers, (size_t)elements * sizeof *numbers, err);
    mem_free(numbers);
    return ok;
}

/* Runs GRAPH_DERIVE. */
static bool derive(struct engine *engine, struct error *err) {
    const struct graph_sizes none = {0};
    struct engine_program program;
    if (!engine->state.method.dora) return true;
    if (!program_plan(&program, engine, GRAPH_DERIVE, &none, err)) return false;
    const struct binding nothing = {0};
    bool ok = program_compile(&program, engine, err) && engine->ops->run(program.program, &nothing, err);
    program_release(&program, engine);
    return ok;
}

bool engine_load_adapter(struct engine *engine, const struct peft *peft, struct error *err) {
    for (size_t i = 0; i < peft_pair_count(peft); i++) {
        const struct peft_pair *pair = peft_pair(peft, i);
        int64_t layer;
        int m;
        if (!parse_module(engine->model, pair->module, &layer, &m))
            return error_set(err, ERROR_INTERNAL, "adapter", "unchecked module");
        size_t index = (size_t)(layer * module_count + m);
        const struct tensor *tensors[] = {
            [PART_LORA_A] = &pair->a, [PART_LORA_B] = &pair->b, [PART_MAGNITUDE] = &pair->magnitude};
        for (int kind = PART_LORA_A; kind <= PART_MAGNITUDE; kind++) {
            const struct trained_part *part = model_state_part(&engine->state, index, (enum part_kind)kind);
            if (part && !upload_f32(engine, part->row, tensors[kind], err)) return false;
        }
    }
    return derive(engine, err);
}

/* A row begins as long as it is. */
static bool init_magnitudes(struct engine *engine, struct error *err) {
    const struct model_state *state = &engine->state;
    for (int i = 0; i < state->parts.count; i++) {
        const struct trained_part *part = &state->list[i];
        if (part->kind != PART_MAGNITUDE) continue;
        size_t bytes = (size_t)state->table.rows[part->row].bytes;
        float *norms = mem_alloc(bytes);
        if (!norms) return error_no_memory(err, "adapter", bytes);
        bool ok = engine->ops->download(engine->store, state->norms[part->of], norms, bytes, err) &&
                  engine->ops->upload(engine->store, part->row, norms, bytes, err);
        mem_free(norms);
        if (!ok) return false;
    }
    return true;
}

static bool init_part(struct engine *engine, const struct trained_part *part, uint64_t seed, float *out,
                      struct error *err) {
    if (part->kind == PART_WEIGHT) return model_state_make(&engine->state, part->row, out, NULL, err);
    method_init_a(&engine->state.method, &engine->model->config, seed, (int64_t)(part->of / module_count),
                  (int)(part->of % module_count), out);
    return true;
}

bool engine_init_trained(struct engine *engine, uint64_t seed, struct error *err) {
    const struct model_state *state = &engine->state;
    for (int i = 0; i < state->parts.count; i++) {
        const struct trained_part *part = &state->list[i];
        if (part->kind == PART_LORA_B || part->kind == PART_MAGNITUDE) continue; /* zero; the norms */
        size_t bytes = (size_t)state->table.rows[part->row].bytes;
        float *numbers = mem_map(bytes, 0); /* pages that are given back */
        if (!numbers) return error_no_memory(err, "model", bytes);
        bool ok = init_part(engine, part, seed, numbers, err) &&
                  engine->ops->upload(engine->store, part->row, numbers, bytes, err);
        mem_unmap(numbers, bytes);
        if (!ok) return false;
    }
    return derive(engine, err) && init_magnitudes(engine, err);
}

bool engine_init_average(struct engine *engine, struct error *err) {
    const struct model_state *state = &engine->state;
    if (state->average < 0) return true;
    size_t bytes = (size_t)state->table.rows[state->trained].bytes;
    void *numbers = mem_map(bytes, 0); /* pages that are given back */
    bool ok = numbers || error_no_memory(err, "adapter", bytes);
    ok = ok && engine->ops->download(engine->store, state->trained, numbers, bytes, err) &&
         engine->ops->upload(engine->store, state->average, numbers, bytes, err);
    mem_unmap(numbers, bytes);
    return ok;
}

static bool download(struct engine *engine, int row, const char *name, float **at, struct tensor *out,
                     struct error *err) {
    const struct state_row *r = &engine->state.table.rows[row];
    *out = (struct tensor){.name = name,
                           .dtype = DTYPE_F32,
                           .rank = r->rank,
                           .dim = {r->dim[0], r->dim[1]},
                           .data = *at,
                           .bytes = r->bytes};
    bool ok = engine->ops->download(engine->store, row, *at, (size_t)r->bytes, err);
    *at += r->bytes / sizeof(float);
    return ok;
}

/* What adapter_config.json says of the method; everything lives in `arena`. */
static bool config_of(const struct engine *engine, const char *base_model, struct peft_config *out,
                      struct arena *arena, struct error *err) {
    const struct method *method = &engine->state.method;
    struct method_rules rules;
    bool names;
    if (!method_describe(method, &engine->model->config, &rules, &names, arena, err)) return false;
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
                                .base_type = base->quantised ? base->name : NULL,
                                .base_model = (char *)(uintptr_t)base_model};
    out->ranks = arena_array(arena, rules.rank_count + 1, sizeof *out->ranks);
    out->alphas = arena_array(arena, rules.alpha_count + 1, sizeof *out->alphas);
    if (!out->ranks || !out->alphas) return error_no_memory(err, "adapter", 0);
    for (size_t i = 0; i < rules.rank_count; i++)
        out->ranks[i] = (struct peft_pattern){rules.ranks[i].pattern, rules.ranks[i].value};
    for (size_t i = 0; i < rules.alpha_count; i++)
        out->alphas[i] = (struct peft_pattern){rules.alphas[i].pattern, rules.alphas[i].value};
    return true;
}

bool engine_save_adapter(struct engine *engine, const char *directory, bool average, const char *base_model,
                         const json_t *card, struct error *err) {
    const struct model_state *state = &engine->state;
    size_t parts = (size_t)engine->model->config.layers * module_count, count = 0;
    struct arena arena = {0};
    struct peft_pair *pairs = arena_array(&arena, parts + 1, sizeof *pairs);
    char(*paths)[96] = arena_array(&arena, parts + 1, sizeof *paths);
    size_t bytes = (size_t)state->table.rows[state->trained].bytes;
    float *numbers = mem_map(bytes, 0), *at = numbers; /* pages that are given back */
    struct peft_config config;
    bool ok = pairs && paths && numbers;
    if (!ok) error_no_memory(err, "adapter", bytes);
    ok = ok && config_of(engine, base_model, &config, &arena, err);
    for (size_t i = 0; ok && i < parts; i++) {
        if (!model_state_part(state, i, PART_LORA_A)) continue;
        module_path((int64_t)(i / module_count), (int)(i % module_count), paths[count]);
        pairs[count] = (struct peft_pair){.module = paths[count]};
        struct tensor *tensors[] = {&pairs[count].a, &pairs[count].b, &pairs[count].magnitude};
        for (int kind = PART_LORA_A; ok && kind <= PART_MAGNITUDE; kind++) {
            const struct trained_part *part = model_state_part(state, i, (enum part_kind)kind);
            ok = !part || download(engine, average ? model_state_average(state, part->row) : part->row,
                                   "part", &at, tensors[kind], err);
        }
        count++;
    }
    ok = ok && peft_write(directory, &config, pairs, count, card, err);
    arena_release(&arena);
    mem_unmap(numbers, bytes);
    return ok;
}
