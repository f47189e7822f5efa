/* The tokens that end an answer, beside the tokenizer's end of text: what a model's configuration says of
 * them. */
#ifndef HONE_MODEL_STOPS_H
#define HONE_MODEL_STOPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/json.h"

struct stops {
    int32_t *ids; /* each once */
    size_t count;
};

bool stops_add(struct stops *stops, int32_t id, struct error *err);
/* "eos_token_id" of a config.json or generation_config.json, a number or a list of them; absent, null and -1
 * are none. `file` stands in messages. Errors: ERROR_INPUT for anything else, and for a token outside of the
 * vocabulary. */
bool stops_add_config(struct stops *stops, const json_t *config, const char *file, int64_t vocabulary,
                      struct error *err);
/* The same of DIRECTORY/generation_config.json, where there is one. */
bool stops_add_directory(struct stops *stops, const char *directory, int64_t vocabulary, struct error *err);
bool stops_hold(const struct stops *stops, int32_t id);
/* A generation_config.json with `eos` (-1: none) and these. */
bool stops_write(const struct stops *stops, int32_t eos, struct buf *out, struct error *err);
void stops_release(struct stops *stops);

#endif
