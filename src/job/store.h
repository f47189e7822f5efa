/* The store: names for models that lie elsewhere. A name is a symbolic link beside a small record:
 *
 *   $HONE_HOME/models/NAME         → the model's file or directory (linked, never copied)
 *   $HONE_HOME/models/NAME.json    {"name","path","digest","bytes","architecture"…, "files"}
 *
 * $HONE_HOME, else $XDG_DATA_HOME/hone, else ~/.local/share/hone. Names: [a-z0-9._-], not beginning with a
 * dot, at most 100 characters. */
#ifndef HONE_JOB_STORE_H
#define HONE_JOB_STORE_H

#include "base/error.h"
#include "base/json.h"

/* The store's directory, from mem_alloc. It need not exist. */
bool store_directory(char **out, struct error *err);
bool store_name_ok(const char *name);
/* A legal name made from a file's name: "SmolLM2 (135M).gguf" → "smollm2-135m-". From mem_alloc. */
bool store_name_from(const char *path, char **out, struct error *err);
/* Names a model. Replaces an earlier entry of that name. `record` is written as it is. */
bool store_put(const char *name, const char *absolute_path, const json_t *record, struct error *err);
/* A store name, or a path, to a path that exists; from mem_alloc. A name in the store wins over a file of
 * that name in the working directory, unless the text holds a slash. Errors: ERROR_INPUT, saying what the
 * store holds. */
bool store_resolve(const char *name_or_path, char **out, struct error *err);
/* Whether the files that a name stands for may be others than those that were given it: their names, sizes or
 * times of change differ. *record: what was told of them then, a new reference; NULL where nothing differs,
 * or the text is no name of a model whose digest is known. */
bool store_differs(const char *name_or_path, json_t **record, struct error *err);
/* All records, a JSON array; without "files", which is the store's own, and with "there": whether the model's
 * path still leads to something. */
bool store_list(json_t **out, struct error *err);

#endif
