#include "train/inputs.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "train/recipe_method.h"

/* A fixed clock in the recipe, so that a template that shows the date renders the same on resume. */
static bool resolve_clock(struct recipe *recipe, double seconds, struct error *err) {
    return recipe_resolve_float(recipe, "template-clock", seconds, "when the run was made", err);
}

/* Whether the template may ask for the time. */
static bool shows_time(const struct render *render) {
    static const char name[] = "strftime_now";
    const size_t size = sizeof name - 1;
    for (size_t i = 0; render->source && i + size <= render->source_size; i++)
        if (!memcmp(render->source + i, name, size)) return true;
    return false;
}

static bool resolve_text(struct inputs *in, struct recipe *recipe, void (*warn)(void *, const char *),
                         bool (*agree)(void *, double *, struct error *), void *user, struct error *err) {
    int64_t context = in->model->config.context;
    char text[160];
    if (!recipe->max_length) {
        snprintf(text, sizeof text, "the smaller of 2048 and the model's context of %lld",
                 (long long)context);
        if (!recipe_resolve_int(recipe, "max-length", context < 2048 ? context : 2048, text, err))
            return false;
    }
    if (warn && render_beyond_context("max-length", recipe->max_length, in->model, text)) warn(user, text);
    double clock = (double)(int64_t)clock_unix();
    bool own_clock = recipe->template_clock <= 0;
    if (own_clock && !resolve_clock(recipe, clock, err)) return false;
    struct render_options options = {
        .chat_template = recipe->chat_template,
        .adapter = recipe->adapter,
        .arguments = recipe->template_args.items,
        .argument_count = recipe->template_args.count,
        .system = recipe->system,
        .now = recipe->template_clock,
        .train_on = (enum train_on)recipe->train_on,
        .overlength = (enum overlength)recipe->overlength,
        .max_length = (size_t)recipe->max_length,
    };
    if (!render_open(&in->render, in->model, &options, err)) return false;
    if (!own_clock || !agree || !shows_time(&in->render)) return true;
    if (!agree(user, &clock, err)) return false;
    in->render.renderer.now = clock;
    return resolve_clock(recipe, clock, err);
}

static bool open_data(struct dataset *out, const struct text_list *files, struct recipe *recipe,
                      struct error *err) {
    struct dataset_options options = {.columns = recipe->columns};
    return dataset_open(out, (const char *const *)files->items, files->count, &options, err);
}

/* Each bad row that --skip-bad-rows leaves out. */
static bool warn_skipped(const struct dataset *data, void (*warn)(void *, const char *), void *user,
                         struct error *err) {
    struct buf text = {0};
    for (size_t i = 0; warn && i < data->problem_count; i++) {
        const struct dataset_problem *problem = &data->problems[i];
        buf_clear(&text);
        buf_printf(&text, "skipped %s:%zu: %s", data->files[problem->file], problem->line, problem->cause);
        if (text.failed) break;
        warn(user, text.data);
    }
    bool ok = !text.failed || error_no_memory(err, "data", text.size);
    buf_release(&text);
    return ok;
}

static void warn_counts(const struct examples *examples, const struct dataset *data, const char *which,
                        void (*warn)(void *, const char *), void *user) {
    const struct example_counts *c = &examples->counts;
    const struct {
        size_t count;
        const char *what;
    } rows[] = {{c->truncated, "cut to --max-length"},
                {c->dropped, "longer than --max-length and dropped"},
                {c->split, "longer than --max-length and split"},
                {c->skipped_untrained, "skipped, without a trained token"}};
    char text[512];
    for (size_t i = 0; warn && i < sizeof rows / sizeof *rows; i++) {
        if (!rows[i].count) continue;
        snprintf(text, sizeof text, "%zu of %zu %s %s %s %s", rows[i].count, c->rows, which,
                 text_plural(c->rows, "row", "rows"), text_plural(rows[i].count, "was", "were"),
                 rows[i].what);
        warn(user, text);
    }
    if (!warn || !c->calls_ignored) return;
    const struct dataset_row *first = &data->rows[c->first_calls_ignored];
    snprintf(text, sizeof text,
             "%zu of %zu %s %s %s tool calls that the chat template leaves out, so that such a turn trains "
             "its text alone, or a bare end marker; the first is line %zu of %.200s",
             c->calls_ignored, c->rows, which, text_plural(c->rows, "row", "rows"),
             text_plural(c->calls_ignored, "has", "have"), first->line,
             fs_base_name(data->files[first->file]));
    warn(user, text);
}

static bool build_examples(struct inputs *in, struct recipe *recipe, void (*warn)(void *, const char *),
                           void *user, struct error *err) {
    if (recipe->valid_split > 0) {
        in->held = mem_calloc(in->data.row_count + 1, sizeof *in->held);
        if (!in->held) return error_no_memory(err, "data", in->data.row_count);
        if (!dataset_split(&in->data, recipe->valid_split, (uint64_t)recipe->seed, in->held, err))
            return false;
    }
    const struct renderer *renderer = &in->render.renderer;
    bool skip = recipe->skip_bad_rows;
    if (!examples_build(&in->train, in->held ? &in->held_out : NULL, renderer, &in->data, in->held, skip,
                        err) ||
        (recipe->valid.count &&
         !examples_build(&in->held_out, NULL, renderer, &in->valid, NULL, skip, err)) ||
        !warn_skipped(&in->data, warn, user, err) || !warn_skipped(&in->valid, warn, user, err))
        return false;
    warn_counts(&in->train, &in->data, "training", warn, user);
    if (in->held || recipe->valid.count)
        warn_counts(&in->held_out, in->held ? &in->data : &in->valid, "held-out", warn, user);
    if (in->train.counts.supervised) return true;
    error_set(err, ERROR_INPUT, "data", "no row has a trained token");
    return error_fix(err, "Look at the mask with hone data preview; --train-on all trains every token.");
}

static bool resolve_digests(struct inputs *in, struct recipe *recipe, struct error *err) {
    struct digest digest;
    if (!model_digest(in->model, &digest, err) ||
        !recipe_resolve(recipe, "model-digest", digest.hex, "", err) ||
        !recipe_resolve(recipe, "data-digest", in->data.digest.hex, "", err))
        return false;
    if (recipe->valid.count && !recipe_resolve(recipe, "valid-digest", in->valid.digest.hex, "", err))
        return false;
    if (in->render.source) {
        digest_bytes(in->render.source, in->render.source_size, &digest);
        if (!recipe_resolve(recipe, "template-digest", digest.hex, "", err)) return false;
    }
    if (!recipe->adapter) return true;
    char *path = fs_join(recipe->adapter, "adapter_model.safetensors");
    bool ok = path ? digest_file(path, &digest, err) : error_no_memory(err, "adapter", 0);
    mem_free(path);
    return ok && recipe_resolve(recipe, "adapter-digest", digest.hex, "", err);
}

bool inputs_open(struct inputs *out, struct recipe *recipe, const char *model_path,
                 void (*warn)(void *user, const char *message),
                 bool (*agree)(void *user, double *clock, struct error *err), void *user, struct error *err) {
    char other[engine_sentence];
    memset(out, 0, sizeof *out);
    bool ok = model_open(&out->model, model_path, err) &&
              (!recipe->adapter || peft_open(&out->adapter, recipe->adapter, err));
    if (ok && warn && engine_other_base(out->adapter, out->model, other)) warn(user, other);
    ok = ok && inputs_renew_method(out, recipe, err) && resolve_text(out, recipe, warn, agree, user, err) &&
         open_data(&out->data, &recipe->data, recipe, err) &&
         (!recipe->valid.count || open_data(&out->valid, &recipe->valid, recipe, err)) &&
         build_examples(out, recipe, warn, user, err) && resolve_digests(out, recipe, err);
    if (!ok) inputs_close(out);
    return ok;
}

bool inputs_renew_method(struct inputs *inputs, struct recipe *recipe, struct error *err) {
    method_release(&inputs->method);
    return recipe_method(&inputs->method, recipe, inputs->model, inputs->adapter, err) &&
           recipe_base(&inputs->base, recipe, inputs->model, inputs->adapter, err) &&
           recipe_check_start(&inputs->method, inputs->base, inputs->model, err);
}

void inputs_close(struct inputs *inputs) {
    examples_release(&inputs->train);
    examples_release(&inputs->held_out);
    mem_free(inputs->held);
    dataset_close(&inputs->data);
    dataset_close(&inputs->valid);
    render_close(&inputs->render);
    method_release(&inputs->method);
    peft_close(&inputs->adapter);
    model_close(&inputs->model);
    memset(inputs, 0, sizeof *inputs);
}
