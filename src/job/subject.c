#include "job/subject.h"

#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "job/find_model.h"

enum { default_max_length = 2048 };

static bool resolve_length(struct job *job, const struct model *model, struct error *err) {
    int64_t context = model->config.context;
    if (job->recipe.max_length) return true;
    bool shorter = context < default_max_length;
    return recipe_resolve_int(&job->recipe, "max-length", shorter ? context : default_max_length,
                              shorter ? "the model's context" : "default", err);
}

bool subject_open(struct subject *out, struct job *job, struct error *err) {
    struct recipe *recipe = &job->recipe;
    memset(out, 0, sizeof *out);
    if (!recipe->model) {
        error_set(err, ERROR_USAGE, job->kind->name, "--model is missing");
        return error_fix(err, "Name a model: one that `hone pull` stored, a GGUF file or a directory.");
    }
    bool ok = job_find_model(job, recipe->model, &out->path, NULL, err) &&
              model_open(&out->model, out->path, err) && resolve_length(job, out->model, err);
    struct render_options options = {.chat_template = recipe->chat_template,
                                     .adapter = recipe->adapter,
                                     .arguments = recipe->template_args.items,
                                     .argument_count = recipe->template_args.count,
                                     .system = recipe->system,
                                     .now = clock_unix(),
                                     .train_on = (enum train_on)recipe->train_on,
                                     .overlength = (enum overlength)recipe->overlength,
                                     .max_length = (size_t)recipe->max_length};
    ok = ok && render_open(&out->render, out->model, &options, err);
    if (!ok) subject_close(out);
    return ok;
}

void subject_close(struct subject *subject) {
    if (subject->model) render_close(&subject->render);
    model_close(&subject->model);
    mem_free(subject->path);
    memset(subject, 0, sizeof *subject);
}
