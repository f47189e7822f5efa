#include "eval/eval.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "base/thread.h"
#include "score/score.h"
#include "text/report.h"

struct measuring {
    struct model *model;
    struct peft *adapter;
    struct method method;
    struct render render;
    struct dataset data;
    struct examples examples;
    const struct device_ops *ops;
    struct device *device;
    struct engine engine;
    struct engine_program program;
    struct batch batch;
};

static bool read_inputs(struct measuring *m, const struct eval_options *options, struct error *err) {
    struct render_options render = options->render;
    struct dataset_options data = {.columns = options->columns};
    char beyond[context_sentence];
    if (!model_open(&m->model, options->model_path, err)) return false;
    if (options->warn && render_beyond_context("max-length", (int64_t)render.max_length, m->model, beyond))
        options->warn(options->user, beyond);
    int64_t context = m->model->config.context;
    if (!render.max_length) render.max_length = (size_t)(context < 2048 ? context : 2048);
    if (!render_open(&m->render, m->model, &render, err) ||
        !dataset_open(&m->data, options->files, options->file_count, &data, err))
        return false;
    if (!examples_build(&m->examples, NULL, &m->render.renderer, &m->data, NULL, options->skip_bad_rows, err))
        return false;
    if (m->examples.counts.supervised) return true;
    error_set(err, ERROR_INPUT, "eval", "no row has a token to measure");
    return error_fix(err, "Look at the mask with hone data preview.");
}

static bool open_engine(struct measuring *m, const struct eval_options *options, struct error *err) {
    int64_t tokens = options->micro_batch_tokens ? options->micro_batch_tokens : 512;
    for (size_t i = 0; i < m->examples.count; i++)
        if (m->examples.items[i].count > tokens) tokens = m->examples.items[i].count;
    int64_t segments = tokens < 64 ? tokens : 64;
    struct graph_sizes sizes = {.tokens = tokens, .targets = tokens, .segments = segments};
    struct state_options state = {.compute = options->compute, .fp8 = options->fp8};
    struct device_options device = {.name = options->device ? options->device : "auto",
                                    .threads = options->threads,
                                    .mask = options->mask,
                                    .tf32 = options->tf32};
    if (options->adapter && (!peft_open(&m->adapter, options->adapter, err) ||
                             !engine_method_of(m->adapter, m->model, &m->method, err)))
        return false;
    char other[engine_sentence];
    if (options->warn && engine_other_base(m->adapter, m->model, other)) options->warn(options->user, other);
    if (!engine_base_of(m->adapter, options->base_type, m->model, &state.base, err)) return false;
    m->ops = device_find(device.name, err);
    if (!m->ops || !device_open(m->ops, &m->device, &device, err)) return false;
    if (options->compute_auto && !engine_auto_compute(m->ops, m->device, &state.compute, err)) return false;
    if (!engine_open(&m->engine, m->ops, m->device, m->model, &m->method, &state, err) ||
        !program_plan(&m->program, &m->engine, GRAPH_SCORE, &sizes, err))
        return false;
    uint64_t need = program_bytes(&m->program) + state_class_bytes(&m->engine.state.table, STATE_WEIGHT) +
                    state_class_bytes(&m->engine.state.table, STATE_TRAINED);
    if (options->memory && need > options->memory) {
        char want[32], have[32];
        error_set(err, ERROR_MEMORY, "eval", "evaluation needs %s, --memory is %s", text_bytes(need, want),
                  text_bytes(options->memory, have));
        return error_fix(err, "Raise --memory, or lower --max-length.");
    }
    return engine_start(&m->engine, program_bytes(&m->program), err) &&
           program_compile(&m->program, &m->engine, err) && batch_open(&m->batch, tokens, segments, err) &&
           (!m->adapter || engine_load_adapter(&m->engine, m->adapter, err));
}

static void release(struct measuring *m) {
    batch_close(&m->batch);
    if (m->ops) {
        program_release(&m->program, &m->engine);
        engine_close(&m->engine);
        if (m->device) m->ops->close(&m->device);
    }
    examples_release(&m->examples);
    dataset_close(&m->data);
    render_close(&m->render);
    method_release(&m->method);
    peft_close(&m->adapter);
    model_close(&m->model);
}

/* What is measured is the model alone, so the cause is in its weights, the adapter's, or what they overflow.
 */
static bool check_loss(const struct measuring *m, double loss, struct error *err) {
    if (isfinite(loss)) return true;
    enum dtype compute = m->engine.state.compute;
    error_set(err, ERROR_FAILED, "eval", "the loss is not finite");
    if (compute == DTYPE_F16) return error_fix(err, "f16 ends at 65,504: measure with --compute f32.");
    return error_fix(err, "The %s holds numbers that are too large, or none: take an earlier checkpoint.",
                     m->adapter ? "adapter" : "model");
}

bool eval_run(const struct eval_options *options, json_t **result, struct error *err) {
    struct measuring m;
    struct score score;
    memset(&m, 0, sizeof m);
    *result = NULL;
    double start = clock_seconds();
    bool ok = read_inputs(&m, options, err) && open_engine(&m, options, err) &&
              score_examples(&score, &m.engine, &m.program, &m.batch, m.examples.items, m.examples.count,
                             options->stop, options->progress, options->user, err);
    ok = ok && check_loss(&m, score.loss, err);
    if (ok) {
        *result = json_pack("{s:f, s:o, s:I, s:I, s:I, s:I, s:o, s:f}", "loss", score.loss, "perplexity",
                            json_number(exp(score.loss)), "supervised_tokens", (json_int_t)score.supervised,
                            "examples", (json_int_t)score.examples, "tokens", (json_int_t)score.tokens,
                            "bad_rows", (json_int_t)m.data.problem_count, "problems",
                            data_problems_json(&m.data), "seconds", clock_seconds() - start);
        ok = *result || error_no_memory(err, "eval", 0);
    }
    release(&m);
    return ok;
}
