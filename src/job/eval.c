/* `hone eval`: loss and perplexity on rows of data. */
#include "eval/eval.h"

#include "base/mem.h"
#include "base/thread.h"
#include "job/find_model.h"

static void warn(void *user, const char *message) {
    struct error ignored;
    job_warn(user, message, &ignored);
}

bool job_eval(struct job *job, struct error *err) {
    struct recipe *recipe = &job->recipe;
    char *path = NULL, *mask = NULL;
    if (!recipe->model || !recipe->data.count) {
        error_set(err, ERROR_USAGE, "eval", "--%s is missing", recipe->model ? "data" : "model");
        return error_fix(err, recipe->model
                                  ? "Name the rows: --data rows.jsonl."
                                  : "Name a model: one that `hone pull` stored, a GGUF file or a directory.");
    }
    bool ok = job_find_model(job, recipe->model, &path, NULL, err) && recipe_mask(recipe, &mask, err);
    struct eval_options options = {
        .model_path = path,
        .adapter = recipe->adapter,
        .base_type = recipe->base_type,
        .device = recipe_device_name(recipe),
        .mask = mask,
        .threads = (int)recipe->threads,
        .compute = recipe_compute(recipe),
        .fp8 = recipe->compute == COMPUTE_FP8,
        .tf32 = recipe->compute == COMPUTE_TF32,
        .compute_auto = recipe->compute == COMPUTE_AUTO,
        .micro_batch_tokens = recipe->micro_batch_tokens,
        .memory = recipe->memory,
        .render = {.chat_template = recipe->chat_template,
                   .adapter = recipe->adapter,
                   .arguments = recipe->template_args.items,
                   .argument_count = recipe->template_args.count,
                   .system = recipe->system,
                   .now = clock_unix(),
                   .train_on = (enum train_on)recipe->train_on,
                   .overlength = (enum overlength)recipe->overlength,
                   .max_length = (size_t)recipe->max_length},
        .files = (const char *const *)recipe->data.items,
        .file_count = recipe->data.count,
        .columns = recipe->columns,
        .skip_bad_rows = recipe->skip_bad_rows,
        .stop = &job->stop,
        .warn = warn,
        .user = job,
    };
    ok = ok && eval_run(&options, &job->result, err);
    mem_free(path);
    mem_free(mask);
    return ok;
}
