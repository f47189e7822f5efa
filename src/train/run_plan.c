#include "train/run_plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/text.h"
#include "base/thread.h"
#include "model/method_init.h"
#include "model/save.h"
#include "score/batch.h"
#include "train/recipe_groups.h"
#include "train/run_choice.h"
#include "train/run_counts.h"
#include "train/run_profile.h"
#include "train/run_refuse.h"

/* As the setting --recompute says them. */
static const char *const keep_names[] = {[GRAPH_KEEP_ALL] = "none",
                                         [GRAPH_KEEP_COSTLY] = "selective",
                                         [GRAPH_KEEP_EDGES] = "block",
                                         [GRAPH_KEEP_OFFLOADED] = "offload"};

int64_t run_plan_longest(const struct inputs *inputs) {
    int64_t longest = 2;
    const struct examples *sets[] = {&inputs->train, &inputs->held_out};
    for (size_t s = 0; s < 2; s++)
        for (size_t i = 0; i < sets[s]->count; i++)
            if (sets[s]->items[i].count > longest) longest = sets[s]->items[i].count;
    return longest;
}

static struct graph_sizes sizes_of(const struct run_choice *choice, const struct recipe *recipe) {
    int64_t segments = recipe->batch_size > 64 ? recipe->batch_size : 64, tokens = choice->tokens;
    return (struct graph_sizes){.tokens = tokens,
                                .targets = tokens,
                                .segments = segments < tokens ? segments : tokens,
                                .keep = choice->keep,
                                .layers = choice->layers,
                                .span = choice->span,
                                .piece_rows = choice->piece_rows};
}

static bool plan_programs(struct run_programs *out, const struct run_choice *choice,
                          const struct recipe *recipe, const struct inputs *inputs, enum dtype compute,
                          const struct device_ops *ops, struct device *device, struct error *err) {
    struct arena arena = {0};
    struct group_rules groups;
    struct state_options options = {
        .compute = compute,
        .decoded = choice->decoded,
        .fp8 = recipe->compute == COMPUTE_FP8,
        .train = true,
        .base = inputs->base,
        .offload_optimizer = recipe->offload_optimizer,
        .optimizer = {(enum optimizer_kind)recipe->optimizer, recipe->momentum > 0},
        .groups = &groups,
        .average = recipe->ema_decay > 0};
    struct graph_sizes sizes = sizes_of(choice, recipe);
    memset(out, 0, sizeof *out);
    bool ok = recipe_groups(&groups, recipe, &arena, err) &&
              engine_open(&out->engine, ops, device, inputs->model, &inputs->method, &options, err) &&
              program_plan(&out->train, &out->engine, GRAPH_TRAIN, &sizes, err) &&
              program_plan(&out->update, &out->engine, GRAPH_UPDATE, &sizes, err) &&
              program_plan(&out->score, &out->engine, GRAPH_SCORE, &sizes, err);
    arena_release(&arena);
    if (!ok) run_programs_release(out);
    return ok;
}

void run_programs_release(struct run_programs *programs) {
    program_release(&programs->train, &programs->engine);
    program_release(&programs->update, &programs->engine);
    program_release(&programs->score, &programs->engine);
    engine_close(&programs->engine);
    memset(programs, 0, sizeof *programs);
}

/* Beside the writer's buffer: the directory of an adapter's file, the order of rows, MANIFEST and their
 * texts. */
enum { save_texts = 512 << 10 };

/* What the process itself takes: all that it holds now, the programs' graphs with it, and what is still to
 * come: a micro-batch's arrays and what saving takes. A device that the host cannot look into has its blocks
 * copied for that. */
static uint64_t process_bytes(const struct run_plan *plan, const struct run_programs *programs,
                              int64_t tokens) {
    const struct engine *engine = &programs->engine;
    struct process_memory held;
    mem_trim();
    process_memory(&held);
    bool whole = !engine->state.method.parts;
    uint64_t saving = whole ? model_save_memory(engine->model, thread_cores())
                            : fs_writer_memory + save_texts + engine_save_copies(engine);
    if (whole && !engine->ops->row) saving += plan->adapter;
    /* The start is made before anything is saved. */
    return held.anonymous + batch_bytes(tokens) + (saving > plan->start ? saving : plan->start);
}

static uint64_t sum_of(const struct run_plan *plan) {
    return plan->weights + plan->adapter + plan->gradient + plan->optimizer + plan->activation +
           plan->workspace + plan->process + plan->context;
}

const struct engine_program *run_programs_largest(const struct run_programs *programs) {
    const struct engine_program *all[] = {&programs->train, &programs->update, &programs->score};
    const struct engine_program *largest = all[0];
    for (int i = 1; i < 3; i++)
        if (program_bytes(all[i]) > program_bytes(largest)) largest = all[i];
    return largest;
}

/* The driver's with its libraries, and what the devices of a shared run take to come together. */
static uint64_t context_of(uint64_t own, const struct run_programs *programs, const struct recipe *recipe) {
    const struct engine *engine = &programs->engine;
    bool joins = recipe_ranks(recipe) > 1 && engine->ops->join_bytes;
    return own + (joins ? engine->ops->join_bytes(engine->device) : 0);
}

/* What else there is to place: on a device with memory of its own nothing of the process lies there, but the
 * weights do that are otherwise read where their file is mapped. */
static bool set_bytes(struct run_plan *plan, const struct run_programs *programs, const struct recipe *recipe,
                      int64_t tokens, struct error *err) {
    const struct state_table *table = &programs->engine.state.table;
    const struct engine_program *largest = run_programs_largest(programs);
    const struct device_ops *ops = programs->engine.ops;
    struct device_memory own = {0};
    if (ops->memory && !ops->memory(programs->engine.device, &own, err)) return false;
    plan->start = method_init_bytes(&programs->engine.state);
    plan->weights = state_class_bytes(table, STATE_WEIGHT);
    plan->adapter = state_class_bytes(table, STATE_TRAINED);
    plan->gradient = state_class_bytes(table, STATE_GRADIENT);
    plan->optimizer = state_class_bytes(table, STATE_OPTIMIZER);
    plan->activation = largest->plan.arena_bytes;
    plan->workspace = largest->plan.workspace_bytes;
    plan->process = process_bytes(plan, programs, tokens);
    if (ops->memory) {
        plan->weights +=
            state_class_bytes(table, STATE_MAPPED) + (ops->store_extra ? ops->store_extra(table) : 0);
        plan->host = plan->process;
        plan->process = 0;
        plan->context = context_of(own.context, programs, recipe);
    }
    plan->peak = sum_of(plan);
    plan->mapped = ops->memory ? 0 : programs->engine.model->mapped_bytes;
    uint64_t offloaded = programs->train.plan.offloaded_bytes + state_offloaded_bytes(table);
    plan->offloaded = ops->memory ? 0 : offloaded;
    plan->host += ops->memory ? offloaded : 0;
    plan->parameters = 0;
    const struct op_parts *parts = &programs->engine.state.parts;
    for (int i = 0; i < parts->count; i++) plan->parameters += parts->items[i].rows * parts->items[i].columns;
    return true;
}

/* Bytes that operations without products move, each operand once. */
static double program_moved(const struct engine_program *program, const int64_t counts[COUNT_KINDS]) {
    const struct graph *graph = &program->built.graph;
    double bytes = 0;
    for (int n = 0; n < graph->node_count; n++) {
        const struct node *node = &graph->nodes[n];
        const int *lists[] = {node->input, node->output};
        const int sizes[] = {node->inputs, node->outputs};
        for (int l = 0; l < 2; l++)
            for (int i = 0; i < sizes[l]; i++) {
                if (lists[l][i] < 0 || graph->values[lists[l][i]].kind != VALUE_TRANSIENT) continue;
                const struct value *value = &graph->values[lists[l][i]];
                double rows = (double)op_count(value, counts), planned = (double)value->dim[0];
                bytes += (double)program->plan.bytes[lists[l][i]] * (planned > 0 ? rows / planned : 0);
            }
    }
    return bytes;
}

/* Measured rates of this device, at the model's shapes. */
struct rates {
    double flops, bytes;
};

static struct rates measure(const struct inputs *inputs, const struct run_plan *plan,
                            const struct device_ops *ops, struct device *device) {
    const struct model_config *c = &inputs->model->config;
    const int64_t tokens = plan->micro_batch_tokens,
                  shapes[2][3] = {{tokens, c->ffn, c->hidden}, {tokens, c->hidden, c->hidden}};
    struct rates rates = {.flops = 1e8,
                          .bytes = 1e9}; /* the reference device: no more than an order of magnitude */
    struct error ignored;
    json_t *measured = NULL, *row;
    size_t index;
    /* Within what the run will take. */
    if (!ops->measure(device, &plan->compute, shapes, 2, plan->peak - plan->process, &measured, &ignored))
        return rates;
    double seconds = 0, flops = 0;
    json_array_foreach(json_object_get(measured, "products"), index, row) {
        double rate = json_number_value(json_object_get(row, "flops_per_second"));
        double work = (double)json_integer_value(json_object_get(row, "n")) *
                      (double)json_integer_value(json_object_get(row, "k"));
        if (rate <= 0) continue;
        flops += work;
        seconds += work / rate;
    }
    if (seconds > 0) rates.flops = flops / seconds;
    double bytes = json_number_value(json_object_get(measured, "read_bytes_per_second"));
    if (bytes > 0) rates.bytes = bytes;
    json_decref(measured);
    return rates;
}

int64_t run_plan_interval(int64_t steps) { return (steps + 9) / 10; }

/* Decompositions run in f64 on one thread, and half of their work is no product of matrices. */
static double start_seconds(const struct engine *engine) {
    static const double flops_per_second = 10e9; /* measured with AVX-512: 8 to 14 */
    return method_init_bytes(&engine->state) ? method_init_flops(&engine->state) / flops_per_second : 0;
}

void run_plan_counts(const struct examples *examples, int64_t counts[COUNT_KINDS]) {
    const int64_t all[COUNT_KINDS] = {0, (int64_t)examples->counts.tokens,
                                      (int64_t)examples->counts.supervised, (int64_t)examples->count,
                                      (int64_t)examples->count + 1};
    memcpy(counts, all, sizeof all);
}

/* Steps, tokens and work of the whole run, evaluations included, from the mean micro-batch. */
static void set_work(struct run_plan *plan, const struct run_programs *programs, const struct recipe *recipe,
                     const struct inputs *inputs, struct rates rates) {
    const struct examples *train = &inputs->train, *held = &inputs->held_out;
    int64_t per_epoch = ((int64_t)train->count + recipe->batch_size - 1) / recipe->batch_size;
    plan->steps = per_epoch * recipe->epochs;
    if (recipe->max_steps && recipe->max_steps < plan->steps) plan->steps = recipe->max_steps;
    plan->passes = (double)plan->steps / (double)per_epoch;
    plan->tokens = (int64_t)(plan->passes * (double)train->counts.tokens);
    plan->supervised = (int64_t)(plan->passes * (double)train->counts.supervised);
    int64_t every = recipe->eval_every ? recipe->eval_every : run_plan_interval(plan->steps);
    plan->evaluations = held->count ? ceil((double)plan->steps / (double)every) : 0;
    const struct examples *sets[] = {train, held};
    const struct engine_program *program_of[] = {&programs->train, &programs->score};
    double times[] = {plan->passes, plan->evaluations}, work = 0, moved = 0;
    plan->flops = 0;
    for (int s = 0; s < 2; s++) {
        if (!sets[s]->count) continue;
        int64_t counts[COUNT_KINDS];
        run_plan_counts(sets[s], counts);
        plan->flops += times[s] * program_flops(program_of[s], counts);
        work += times[s] * program_work(program_of[s], programs->engine.ops, counts);
        moved += times[s] * program_moved(program_of[s], counts);
    }
    /* Activations mostly come from the caches: three times the memory's rate. The optimizer reads and writes
     * the blocks of adapter, gradient and moments about twice. */
    double blocks = 2.0 * (double)plan->steps * (double)(plan->adapter + plan->gradient + plan->optimizer);
    plan->update_seconds =
        blocks / rates.bytes + (double)plan->steps * program_flops(&programs->update, NULL) / rates.flops;
    plan->start_seconds = start_seconds(&programs->engine);
    plan->seconds = (work / rates.flops + moved / (3 * rates.bytes)) / recipe_ranks(recipe) +
                    plan->update_seconds + plan->start_seconds;
}

static bool choose_compute(const struct recipe *recipe, const struct device_ops *ops, struct device *device,
                           enum dtype *out, struct error *err) {
    *out = recipe_compute(recipe);
    return recipe->compute != COMPUTE_AUTO || engine_auto_compute(ops, device, out, err);
}

static bool resolve(struct recipe *recipe, const struct run_plan *plan, const char *reason,
                    struct error *err) {
    if (recipe->compute == COMPUTE_AUTO &&
        !recipe_resolve(recipe, "compute", dtype_row(plan->compute)->name,
                        plan->compute == DTYPE_BF16 ? "this processor multiplies bf16 faster"
                                                    : "this processor does not multiply bf16 faster",
                        err))
        return false;
    if (!recipe->micro_batch_tokens &&
        !recipe_resolve_int(recipe, "micro-batch-tokens", plan->micro_batch_tokens, reason, err))
        return false;
    if (recipe->recompute == RECOMPUTE_AUTO &&
        (!recipe_resolve(recipe, "recompute", keep_names[plan->keep], reason, err) ||
         (plan->layers && !recipe->recompute_layers &&
          !recipe_resolve_int(recipe, "recompute-layers", plan->layers, reason, err))))
        return false;
    if (!recipe->recompute_span && !recipe_resolve_int(recipe, "recompute-span", plan->span, reason, err))
        return false;
    if (recipe_origin(recipe, "piece-rows") == ORIGIN_AUTO &&
        !recipe_resolve_int(recipe, "piece-rows", plan->piece_rows, reason, err))
        return false;
    return recipe->frozen_weights != FROZEN_AUTO ||
           recipe_resolve(recipe, "frozen-weights", plan->decoded ? "decoded" : "stored", reason, err);
}

/* Bytes that the run may take, and who says so. Without --memory: what is free or held by this process, less
 * a margin: a tenth for what else the machine does, on a GPU 256 MiB. */
static bool memory_budget(const struct recipe *recipe, const struct device_ops *ops, struct device *device,
                          uint64_t held, uint64_t *budget, const char **source, struct error *err) {
    struct device_memory own = {0};
    if (ops->memory && !ops->memory(device, &own, err)) return false;
    uint64_t available = ops->memory ? own.available + own.held : process_memory_available() + held;
    uint64_t margin = ops->memory ? (uint64_t)256 << 20 : available / 10;
    /* The processes of a run share the machine's memory, and what --memory says of it. */
    uint64_t sharing = ops->memory ? 1 : (uint64_t)recipe_ranks(recipe);
    *budget = recipe->memory       ? recipe->memory
              : !available         ? UINT64_MAX
              : available > margin ? available - margin
                                   : 0;
    if (*budget != UINT64_MAX) *budget /= sharing;
    *source = recipe->memory ? "--memory" : ops->memory ? "the GPU's free memory" : "the free memory";
    return true;
}

static bool name_method(struct run_plan *plan, struct recipe *recipe, struct error *err) {
    struct settings settings = recipe_settings(recipe);
    struct buf text = {0};
    bool ok = setting_write(&recipe_rows[settings_find(&settings, "method", USE_PLAN)], recipe, &text);
    if (ok) snprintf(plan->method, sizeof plan->method, "%s", text.data);
    buf_release(&text);
    return ok || error_no_memory(err, "plan", 0);
}

/* What a run takes in all, its files too, where nobody gave it --memory and it shares the machine's with
 * other programs, unless more makes it much faster (run_choice.h). `process` stands for what is measured
 * anew. */
enum { modest_bytes = 1 << 30, modest_process = 48 << 20 };

/* What choices are weighed with. */
struct scales {
    const struct recipe *recipe;
    const struct inputs *inputs;
    const struct device_ops *ops;
    struct device *device;
    enum dtype compute;
    uint64_t budget, host;    /* bytes; host: what the machine has available */
    struct run_plan smallest; /* of the plans that were made, the one that takes the fewest bytes */
};

/* Plans a choice: its cost, its bytes, whether it fits. */
static bool weigh(struct scales *scales, struct run_choice *choice, struct error *err) {
    const struct recipe *recipe = scales->recipe;
    struct run_programs programs;
    struct run_plan plan = {0};
    if (!plan_programs(&programs, choice, recipe, scales->inputs, scales->compute, scales->ops,
                       scales->device, err))
        return false;
    bool ok = set_bytes(&plan, &programs, recipe, choice->tokens, err) &&
              run_choice_cost(choice, &programs.engine, &programs.train, scales->compute,
                              &scales->inputs->train, recipe_own_batch(recipe), err);
    run_programs_release(&programs);
    if (!ok) return false;
    /* What the process holds is measured and differs by some pages from look to look: it decides nothing
     * between plans that fit, or one command would have two. */
    choice->bytes = plan.peak - plan.process;
    /* The host's memory is looked at where it was not asked for, or another plan needs less of it. */
    bool asked = recipe->recompute != RECOMPUTE_AUTO &&
                 (recipe->recompute_span || choice->span == run_choice_most_span(scales->inputs));
    bool room = asked || choice->keep != GRAPH_KEEP_OFFLOADED || !scales->host || plan.host <= scales->host;
    choice->fits = plan.peak <= scales->budget && room;
    choice->modest = !recipe->memory && !scales->ops->memory &&
                     choice->bytes + plan.mapped <= modest_bytes - modest_process;
    if (!scales->smallest.peak || plan.peak < scales->smallest.peak) scales->smallest = plan;
    return true;
}

/* Where whole layers are computed again: not the last one, whose backward pass is next, and of the others no
 * more than the memory asks for. What halves of them that fit is found is added to the choices. */
static bool add_fewer_layers(struct scales *scales, struct run_choices *choices, struct error *err) {
    const struct run_choice *best = run_choices_best(choices);
    if (!best || best->keep < GRAPH_KEEP_EDGES || scales->recipe->recompute != RECOMPUTE_AUTO ||
        scales->recipe->recompute_layers)
        return true;
    struct run_choice fewer = *best;
    int fits = (int)scales->inputs->model->config.layers, too_few = 0;
    for (fewer.layers = fits - 1; fewer.layers > too_few; fewer.layers = (fits + too_few) / 2) {
        if (!weigh(scales, &fewer, err)) return false;
        if (fewer.fits)
            fits = fewer.layers;
        else
            too_few = fewer.layers;
        if (fewer.fits) choices->items[choices->count++] = fewer;
    }
    return true;
}

static bool weigh_choices(struct scales *scales, struct run_choices *choices, struct error *err) {
    scales->host = process_memory_available();
    for (int i = 0; i < choices->count; i++)
        if (!weigh(scales, &choices->items[i], err)) return false;
    return add_fewer_layers(scales, choices, err);
}

uint64_t run_plan_peak(const struct run_choice *choice, const struct recipe *recipe,
                       const struct inputs *inputs, enum dtype compute, const struct device_ops *ops,
                       struct device *device) {
    struct run_programs programs;
    struct run_plan plan = {0};
    struct error ignored; /* it is only no way then */
    if (!plan_programs(&programs, choice, recipe, inputs, compute, ops, device, &ignored)) return 0;
    if (!set_bytes(&plan, &programs, recipe, choice->tokens, &ignored)) plan.peak = 0;
    run_programs_release(&programs);
    return plan.peak;
}

/* A device records no more than there is room for. */
static bool add_recorded(struct run_plan *plan, const struct run_programs *programs,
                         const struct recipe *recipe, const struct inputs *inputs, uint64_t budget,
                         struct error *err) {
    if (!run_counts_recorded(&plan->recorded, plan, programs, recipe, inputs, err)) return false;
    if (plan->recorded > budget - plan->peak) plan->recorded = budget - plan->peak;
    plan->context += plan->recorded;
    plan->peak += plan->recorded;
    return true;
}

bool run_plan_build(struct run_plan *out, struct run_programs *programs, struct recipe *recipe,
                    const struct inputs *inputs, const struct device_ops *ops, struct device *device,
                    struct error *err) {
    struct run_choices choices;
    struct process_memory held;
    struct scales scales = {.recipe = recipe, .inputs = inputs, .ops = ops, .device = device};
    char reason[96], amount[32];
    const char *source;
    process_memory(&held);
    memset(out, 0, sizeof *out);
    run_choices_list(&choices, recipe, inputs, run_plan_longest(inputs), ops);
    if (!memory_budget(recipe, ops, device, held.anonymous, &scales.budget, &source, err) ||
        !name_method(out, recipe, err) || !choose_compute(recipe, ops, device, &scales.compute, err) ||
        !weigh_choices(&scales, &choices, err))
        return false;
    const struct run_choice *best = run_choices_best(&choices);
    if (!best)
        return run_refuse(&scales.smallest, &choices.items[choices.count - 1], scales.budget, source, recipe,
                          inputs, scales.compute, ops, device, err);
    if (!plan_programs(programs, best, recipe, inputs, scales.compute, ops, device, err)) return false;
    if (!set_bytes(out, programs, recipe, best->tokens, err)) {
        run_programs_release(programs);
        return false;
    }
    out->compute = scales.compute;
    out->decoded = best->decoded;
    out->keep = best->keep;
    out->layers = best->layers;
    out->span = best->span;
    out->piece_rows = best->piece_rows;
    out->micro_batch_tokens = best->tokens;
    out->segments = sizes_of(best, recipe).segments;
    set_work(out, programs, recipe, inputs, measure(inputs, out, ops, device));
    if (best->modest)
        snprintf(reason, sizeof reason, "at most a tenth slower than the fastest plan, within 1 GiB");
    else
        snprintf(reason, sizeof reason, "fastest plan within %s", text_bytes(scales.budget, amount));
    if (resolve(recipe, out, reason, err) && add_recorded(out, programs, recipe, inputs, scales.budget, err))
        return true;
    run_programs_release(programs);
    return false;
}

bool run_plan_joined(struct run_plan *plan, const struct run_programs *programs, const struct recipe *recipe,
                     struct error *err) {
    const struct device_ops *ops = programs->engine.ops;
    struct device_memory own = {0};
    char need[32], have[32];
    if (!ops->memory || recipe_ranks(recipe) == 1) return true;
    if (!ops->memory(programs->engine.device, &own, err)) return false;
    plan->context = context_of(own.context, programs, recipe) + plan->recorded;
    plan->peak = sum_of(plan);
    if (!recipe->memory || plan->peak <= recipe->memory) return true;
    error_set(err, ERROR_MEMORY, "train",
              "the run needs %s since the GPUs have come together, --memory is %s",
              text_bytes(plan->peak, need), text_bytes(recipe->memory, have));
    return error_fix(err, "Give at least --memory %lluMiB.", (unsigned long long)((plan->peak >> 20) + 1));
}

bool run_plan_resize(struct run_plan *plan, struct run_programs *programs, const struct recipe *recipe,
                     int64_t tokens, struct error *err) {
    const struct run_choice choice = {.keep = plan->keep,
                                      .layers = plan->layers,
                                      .span = plan->span,
                                      .tokens = tokens,
                                      .piece_rows = plan->piece_rows};
    struct graph_sizes sizes = sizes_of(&choice, recipe);
    struct engine *engine = &programs->engine;
    program_release(&programs->train, engine);
    program_release(&programs->score, engine);
    if (!program_plan(&programs->train, engine, GRAPH_TRAIN, &sizes, err) ||
        !program_plan(&programs->score, engine, GRAPH_SCORE, &sizes, err) ||
        !program_compile(&programs->train, engine, err) || !program_compile(&programs->score, engine, err))
        return false;
    const struct engine_program *largest = run_programs_largest(programs);
    plan->activation = largest->plan.arena_bytes;
    plan->workspace = largest->plan.workspace_bytes;
    plan->micro_batch_tokens = tokens;
    plan->segments = sizes.segments;
    plan->peak = sum_of(plan);
    return true;
}

bool run_plan_json(const struct run_plan *plan, const struct run_programs *programs, bool every, json_t **out,
                   struct error *err) {
    const struct {
        const char *name;
        uint64_t bytes;
    } rows[] = {{"weights_bytes", plan->weights},
                {"adapter_bytes", plan->adapter},
                {"gradient_bytes", plan->gradient},
                {"optimizer_bytes", plan->optimizer},
                {"activation_bytes", plan->activation},
                {"workspace_bytes", plan->workspace},
                {"process_bytes", plan->process},
                {"context_bytes", plan->context},
                {"start_bytes", plan->start},
                {"peak_bytes", plan->peak},
                {"mapped_bytes", plan->mapped},
                {"offloaded_bytes", plan->offloaded},
                {"host_bytes", plan->host},
                {"micro_batch_tokens", (uint64_t)plan->micro_batch_tokens},
                {"piece_rows", (uint64_t)plan->piece_rows},
                {"recompute_span", (uint64_t)plan->span},
                {"trainable_parameters", (uint64_t)plan->parameters},
                {"steps", (uint64_t)plan->steps},
                {"tokens", (uint64_t)plan->tokens},
                {"supervised_tokens", (uint64_t)plan->supervised}};
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        json_object_put(&object, rows[i].name, json_integer((json_int_t)rows[i].bytes));
    enum dtype base = programs->engine.state.base;
    json_object_put(&object, "method", json_string(plan->method));
    json_object_put(&object, "base_type",
                    json_string(base == DTYPE_F32 ? "as-stored" : dtype_row(base)->name));
    json_object_put(&object, "compute", json_string(dtype_row(plan->compute)->name));
    json_object_put(&object, "recompute", json_string(keep_names[plan->keep]));
    if (plan->layers) json_object_put(&object, "recompute_layers", json_integer(plan->layers));
    json_object_put(&object, "frozen_weights", json_string(plan->decoded ? "decoded" : "stored"));
    json_object_put(&object, "flops", json_real(plan->flops));
    json_object_put(&object, "seconds", json_real(plan->seconds));
    json_object_put(&object, "start_seconds", json_real(plan->start_seconds));
    json_object_put(&object, "profile", run_profile(programs, every));
    *out = object;
    return object || error_no_memory(err, "plan", 0);
}
