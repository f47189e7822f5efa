/* What a template sees: the variables that transformers' apply_chat_template passes, and messages as it
 * passes them. */
#include <string.h>

#include "text/example_content.h"
#include "text/example_internal.h"

static bool set_token(json_t *variables, const char *name, const struct tokenizer *tokenizer, int32_t id) {
    size_t size = 0;
    const char *text = id >= 0 ? tokenizer_token(tokenizer, id, &size) : NULL;
    if (!text) return true; /* transformers passes only the tokens that there are */
    return json_object_set_new(variables, name, json_stringn(text, size)) == 0;
}

static bool set_tokens(json_t *variables, const struct tokenizer *tokenizer) {
    return !tokenizer || (set_token(variables, "bos_token", tokenizer, tokenizer_bos(tokenizer)) &&
                          set_token(variables, "eos_token", tokenizer, tokenizer_eos(tokenizer)) &&
                          set_token(variables, "unk_token", tokenizer, tokenizer_unknown(tokenizer)) &&
                          set_token(variables, "pad_token", tokenizer, tokenizer_pad(tokenizer)));
}

/* A given argument counts before a token of the tokenizer, as there. */
json_t *variables_make(const struct renderer *renderer, const json_t *tools) {
    json_t *variables = json_object(), *arguments = (json_t *)(uintptr_t)renderer->arguments;
    if (!variables) return NULL;
    if (set_tokens(variables, renderer->tokenizer) &&
        (!arguments || json_object_update(variables, arguments) == 0) &&
        json_object_set_new(variables, "tools", tools ? json_incref((json_t *)tools) : json_null()) == 0 &&
        json_object_set_new(variables, "documents", json_null()) == 0)
        return variables;
    json_decref(variables);
    return NULL;
}

/* The thoughts of a turn: data sets and templates call them by three names, so transformers fills in two of
 * them (chat_template_utils.py, _alias_reasoning_fields). NULL: there are none. */
static json_t *reasoning_of(const json_t *message) {
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *value = json_object_get(message, names[i]);
        if (value && !json_is_null(value)) return value;
    }
    return NULL;
}

/* Members that are null are left out, as there: many a data set has every member in every message, and a
 * template that asks whether `tool_calls` is defined, or prints `content`, means one that says something. */
json_t *message_shown(const struct renderer *renderer, const json_t *message) {
    json_t *reasoning = reasoning_of(message), *value;
    json_t *copy = reasoning ? json_pack("{s:O}", "thinking", reasoning) : json_object();
    const char *name, *role = json_string_value(json_object_get(message, "role"));
    bool ok = copy != NULL;
    json_object_foreach((json_t *)(uintptr_t)message, name, value) {
        bool content = role && !strcmp(name, "content");
        if (!ok || json_is_null(value) || !strcmp(name, "weight")) continue;
        json_t *shown = content ? content_shown(&renderer->content, role, value) : json_incref(value);
        ok = json_object_set_new(copy, name, shown) == 0;
    }
    if (ok && (!reasoning || json_object_set(copy, "reasoning_content", reasoning) == 0)) return copy;
    json_decref(copy);
    return NULL;
}

/* As deep as json_read lets a value be. */
size_t texts_size(const json_t *value) {
    size_t size = json_string_length(value), i;
    const char *key;
    json_t *inner;
    json_array_foreach(value, i, inner) size += texts_size(inner);
    json_object_foreach((json_t *)value, key, inner) size += texts_size(inner);
    return size;
}
