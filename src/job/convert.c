/* `hone convert`: a model in another container or stored type, or one of random weights in the shape of a
 * config.json. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/thread.h"
#include "job/find_model.h"
#include "job/job.h"
#include "model/save.h"
#include "model/sketch.h"

enum { TO_AUTO, TO_FIRST }; /* of the setting's choices; the containers follow in their order */

/* One conversion as it goes. */
struct conversion {
    struct job *job;
    struct sketch sketch;
    double begun, told;
    uint64_t memory; /* the highest seen */
};

static bool draw(void *user, size_t index, int64_t row, float *out) {
    const struct conversion *conversion = user;
    sketch_row(&conversion->sketch, index, row, out);
    return true;
}

/* An event a second at most, and none of a conversion that is done before. */
static bool progress(void *user, uint64_t done, uint64_t total, struct error *err) {
    struct conversion *conversion = user;
    struct process_memory memory;
    double now = clock_seconds();
    process_memory(&memory);
    if (memory.anonymous > conversion->memory) conversion->memory = memory.anonymous;
    if (!job_going(conversion->job, err)) return false;
    if (now < conversion->told + 1) return true;
    conversion->told = now;
    return job_emit_json(conversion->job,
                         json_pack("{s:s, s:i, s:f, s:I, s:I, s:f, s:I}", "event", "convert", "version", 1,
                                   "time", clock_unix(), "done_bytes", (json_int_t)done, "total_bytes",
                                   (json_int_t)total, "seconds", now - conversion->begun, "memory_bytes",
                                   (json_int_t)memory.anonymous),
                         err);
}

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), tail = strlen(end);
    return size >= tail && !strcmp(text + size - tail, end);
}

static enum container container_of(const struct options *options) {
    if (options->to != TO_AUTO) return (enum container)(options->to - TO_FIRST);
    return ends_with(options->output, ".gguf") ? CONTAINER_GGUF : CONTAINER_SAFETENSORS;
}

static bool usage(struct error *err, const char *what, const char *fix) {
    error_set(err, ERROR_USAGE, "convert", "%s", what);
    return error_fix(err, "%s", fix);
}

static bool check_settings(struct job *job, struct error *err) {
    const struct options *options = &job->options;
    bool model = job->recipe.model != NULL, shape = options->config != NULL;
    if (!model && !shape && options->random_weights)
        return usage(err, "--config is missing", "Name a config.json: the shape of the model that is drawn.");
    if (!model && !shape)
        return usage(err, "--model is missing",
                     "Name a model: one that `hone pull` stored, a GGUF file or a directory.");
    if (model && (shape || options->random_weights))
        return usage(err, "--model has weights of its own",
                     "Leave out --model, or --config and --random-weights.");
    if (shape && !options->random_weights)
        return usage(err, "--config alone has no weights",
                     "Add --random-weights for drawn ones, or name a --model.");
    if (!options->random_weights && recipe_origin(&job->recipe, "seed") == ORIGIN_GIVEN)
        return usage(err, "--seed is read with --random-weights alone", "Leave it out: nothing is drawn.");
    if (!options->output)
        return usage(err, "--output is missing", "Name the file or directory to write: --output m.gguf.");
    return true;
}

/* Without the slashes at its end, beside which nothing could be written. */
static bool output_path(const char *given, char **out, struct error *err) {
    size_t size = strlen(given);
    while (size > 1 && given[size - 1] == '/') size--;
    *out = mem_strndup(given, size);
    return *out || error_no_memory(err, "convert", size);
}

static bool open_source(struct conversion *conversion, struct model **model, struct error *err) {
    struct job *job = conversion->job;
    char *path = NULL;
    bool ok;
    if (job->options.config) {
        ok = sketch_open(model, job->options.config, err);
        if (!ok && err->code == ERROR_INPUT && !*err->fix) error_fix(err, "Correct %s.", job->options.config);
        ok = ok && sketch_init(&conversion->sketch, *model, (uint64_t)job->recipe.seed, err);
    } else {
        ok = job_find_model(job, job->recipe.model, &path, NULL, err) && model_open(model, path, err);
    }
    mem_free(path);
    return ok;
}

/* What model_save reported, and what this job knows besides. */
static bool finish(const struct conversion *conversion, const struct save *save, json_t *report,
                   struct error *err) {
    struct job *job = conversion->job;
    double seconds = clock_seconds() - conversion->begun;
    json_object_put(&report, "output", json_text(save->path));
    json_object_put(&report, "to", json_string(container_name(save->to)));
    json_object_put(&report, "type",
                    json_string(save->type ? dtype_row(save->type->dtype)->name : "as stored"));
    json_object_put(&report, "seconds", json_real(seconds));
    json_object_put(&report, "memory_bytes", json_integer((json_int_t)conversion->memory));
    job->result = report;
    return report || error_no_memory(err, "convert", 0);
}

bool job_convert(struct job *job, struct error *err) {
    struct conversion conversion = {.job = job, .begun = clock_seconds()};
    struct save save = {.progress = progress,
                        .user = &conversion,
                        .threads = (int)job->recipe.threads,
                        .shard_bytes = job->options.shard_size};
    struct model *model = NULL;
    json_t *report = NULL;
    char *output = NULL;
    conversion.told = conversion.begun;
    if (!check_settings(job, err)) return false;
    bool random = job->options.config != NULL;
    const char *type = job->options.type ? job->options.type : random ? "bf16" : NULL;
    save.to = container_of(&job->options);
    bool ok = (!type || save_type_find(type, save.to, &save.type, err)) &&
              output_path(job->options.output, &output, err) && open_source(&conversion, &model, err);
    save.path = output;
    save.model = model;
    save.row = random ? draw : NULL;
    ok = ok && model_save(&save, &report, err) && finish(&conversion, &save, report, err);
    model_close(&model);
    mem_free(output);
    return ok;
}
