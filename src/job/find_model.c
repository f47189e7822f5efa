/* A name that `hone pull` gave stands for the model that was there then. Whether it still is costs a look at
 * the sizes and times of its files; only where these differ is the model's digest computed again. A model
 * that was exchanged on purpose goes on being used, as a path would be, but not in silence: the same command
 * measures, trains or answers something else than before. */
#include "job/find_model.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "job/store.h"
#include "model/model.h"

/* What the record says of the model that lies there now. */
enum found { FOUND_SAME, FOUND_OTHER, FOUND_NONE }; /* none: whoever reads it refuses it with a reason */

static bool compare(const char *path, const json_t *record, enum found *out, struct error *err) {
    struct model *model = NULL;
    struct digest digest;
    *out = FOUND_NONE;
    if (!model_open(&model, path, err)) return err->code != ERROR_MEMORY;
    bool ok = model_digest(model, &digest, err);
    bool same = ok && !strcmp(digest.hex, json_string_value(json_object_get(record, "digest")));
    if (ok) *out = same ? FOUND_SAME : FOUND_OTHER;
    model_close(&model);
    return ok;
}

/* Its files have another date or lie in another order, no more: the next look need not read them again. */
static void note_files(const char *name, const json_t *record) {
    const char *path = json_string_value(json_object_get(record, "path"));
    struct error ignored; /* the store may be another user's */
    if (path) store_put(name, path, record, &ignored);
}

static void say_other(const char *name, const json_t *record, char out[find_model_sentence]) {
    const char *path = json_string_value(json_object_get(record, "path"));
    snprintf(
        out, find_model_sentence,
        "the files of %s have changed since hone pull, and it is another model now; hone pull %.400s --name "
        "%s records it",
        name, path ? path : "PATH", name);
}

bool job_find_model(struct job *job, const char *name, char **out, char note[find_model_sentence],
                    struct error *err) {
    json_t *record = NULL;
    char text[find_model_sentence] = "";
    enum found found = FOUND_NONE;
    bool ok = store_resolve(name, out, err);
    /* Of the processes that share a run, the first tells. */
    if (ok && !job->recipe.rank) ok = store_differs(name, &record, err);
    if (ok && record) ok = compare(*out, record, &found, err);
    if (ok && found == FOUND_SAME) note_files(name, record);
    if (ok && found == FOUND_OTHER) {
        say_other(name, record, text);
        ok = job_warn(job, text, err);
    }
    if (note) memcpy(note, text, sizeof text);
    json_decref(record);
    if (ok) return true;
    mem_free(*out);
    *out = NULL;
    return false;
}
