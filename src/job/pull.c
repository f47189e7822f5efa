/* `hone pull`: checks a model by opening it, records its digest and names it in the store. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "job/job.h"
#include "job/store.h"
#include "model/model.h"

/* What opening it showed. */
static bool describe(const struct model *model, const char *name, const char *path, json_t **out,
                     struct error *err) {
    struct digest digest;
    *out = NULL;
    if (!model_digest(model, &digest, err)) return false;
    const struct model_config *config = &model->config;
    *out = json_pack("{s:s, s:o, s:s, s:I, s:s, s:I, s:I, s:I, s:b, s:b}", "name", name, "path",
                     json_text(path), "digest", digest.hex, "bytes", (json_int_t)model->mapped_bytes,
                     "architecture", config->architecture, "parameters", (json_int_t)model_parameters(model),
                     "layers", (json_int_t)config->layers, "context", (json_int_t)config->context,
                     "tokenizer", model->tokenizer != NULL, "chat_template", model->chat_template != NULL);
    return *out || error_no_memory(err, "pull", 0);
}

static bool choose_name(struct job *job, const char *absolute, char **out, struct error *err) {
    const char *name = job->options.name;
    if (!name) return store_name_from(absolute, out, err);
    if (!store_name_ok(name)) {
        error_set(err, ERROR_USAGE, "pull", "name: \"%.80s\" is not a name for the store", name);
        return error_fix(
            err, "Names are made of a-z, 0-9, dot, underscore and hyphen, and do not begin with a dot.");
    }
    *out = mem_strdup(name);
    return *out || error_no_memory(err, "pull", strlen(name));
}

/* The path that the name stood for until now, from mem_alloc; NULL: none, or this one. */
static bool find_replaced(const char *name, const char *absolute, char **out, struct error *err) {
    json_t *models, *model;
    size_t i;
    *out = NULL;
    if (!store_list(&models, err)) return false;
    bool ok = true;
    json_array_foreach(models, i, model) {
        const char *known = json_string_value(json_object_get(model, "name"));
        const char *path = json_string_value(json_object_get(model, "path"));
        if (!known || !path || strcmp(known, name) != 0 || !strcmp(path, absolute)) continue;
        *out = mem_strdup(path);
        ok = *out || error_no_memory(err, "pull", strlen(path));
        break;
    }
    json_decref(models);
    return ok;
}

static bool pull(struct job *job, struct error *err) {
    char *absolute = NULL, *name = NULL, *replaced = NULL;
    struct model *model = NULL;
    bool ok = fs_absolute(job->options.path, &absolute, err) && model_open(&model, absolute, err) &&
              choose_name(job, absolute, &name, err) && job_going(job, err) &&
              describe(model, name, absolute, &job->result, err) &&
              find_replaced(name, absolute, &replaced, err) && store_put(name, absolute, job->result, err);
    if (ok && replaced) {
        json_object_put(&job->result, "replaced", json_text(replaced));
        ok = job->result || error_no_memory(err, "pull", 0);
    }
    mem_free(replaced);
    model_close(&model);
    mem_free(absolute);
    mem_free(name);
    return ok;
}

bool job_pull(struct job *job, struct error *err) {
    json_t *models = NULL;
    if (job->options.list) {
        if (!store_list(&models, err)) return false;
        job->result = json_pack("{s:o}", "models", models);
        return job->result || error_no_memory(err, "pull", 0);
    }
    if (job->options.path) return pull(job, err);
    error_set(err, ERROR_USAGE, "pull", "the model's path is missing");
    return error_fix(err, "hone pull PATH --name NAME.");
}
