#include "score/render.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "text/template_names.h"

enum { template_limit = 4 << 20 };

static bool read_source(struct render *out, const char *path, struct error *err) {
    struct buf text = {0};
    bool ok = fs_read(path, template_limit, &text, err);
    if (ok) out->source = buf_detach(&text, &out->source_size);
    buf_release(&text);
    return ok && (out->source || error_no_memory(err, "template", 0));
}

/* The name is neither a file nor one of ours. */
static bool refuse_name(const char *given, struct error *err) {
    struct buf names = {0};
    for (size_t i = 0; template_name_at(i); i++)
        buf_printf(&names, "%s%s", i ? ", " : "", template_name_at(i));
    error_set(err, ERROR_USAGE, "template",
              "--chat-template %s is neither a file nor a template that hone knows by name", given);
    error_fix(err, "Name a file with a Jinja template, or one of %s.", names.data ? names.data : "chatml");
    buf_release(&names);
    return false;
}

static bool copy_source(struct render *out, const char *text, size_t size, struct error *err) {
    out->source = mem_strndup(text, size);
    out->source_size = size;
    return out->source || error_no_memory(err, "template", size);
}

/* An editor's byte order mark in a file of the user's would stand before every row. */
static void drop_mark(struct render *out) {
    size_t mark = utf8_mark(out->source, out->source_size);
    if (!mark) return;
    out->source_size -= mark;
    memmove(out->source, out->source + mark, out->source_size);
    out->source[out->source_size] = '\0';
}

static bool adapter_source(struct render *out, const char *directory, struct error *err) {
    char *path = fs_join(directory, "chat_template.jinja");
    if (!path) return error_no_memory(err, "template", 0);
    bool ok = fs_kind_of(path) == FS_NOTHING || read_source(out, path, err);
    mem_free(path);
    return ok;
}

/* "K=V": V is JSON where it reads as JSON (true, 3, "x"), else text. */
static bool read_arguments(struct render *out, char *const *arguments, size_t count, struct error *err) {
    out->arguments = json_object();
    if (!out->arguments) return error_no_memory(err, "template", 0);
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(arguments[i], '=');
        if (!equals || equals == arguments[i]) {
            error_set(err, ERROR_USAGE, "template", "--template-arg %s has no name and value", arguments[i]);
            return error_fix(err, "Write it as NAME=VALUE.");
        }
        if (json_has_wide_integer(equals + 1, strlen(equals + 1))) {
            error_set(err, ERROR_USAGE, "template", "--template-arg %s has an integer of more than 64 bits",
                      arguments[i]);
            return error_fix(err, "It would be rounded; write it in quotes: NAME='\"DIGITS\"'.");
        }
        char *name = mem_strndup(arguments[i], (size_t)(equals - arguments[i]));
        struct error cause = {0};
        json_t *value;
        if (!json_read(&value, equals + 1, strlen(equals + 1), "argument", 1, &cause) &&
            cause.code != ERROR_MEMORY)
            value = json_string(equals + 1);
        bool ok = name && value && json_object_set_new(out->arguments, name, value) == 0;
        mem_free(name);
        if (!ok && utf8_valid(arguments[i], strlen(arguments[i]), NULL))
            return error_no_memory(err, "template", strlen(arguments[i]));
        if (!ok)
            return error_set(err, ERROR_USAGE, "template", "--template-arg %s is not valid UTF-8",
                             arguments[i]);
    }
    return true;
}

bool render_open(struct render *out, const struct model *model, const struct render_options *options,
                 struct error *err) {
    memset(out, 0, sizeof *out);
    const char *given = options->chat_template, *builtin = given ? template_by_name(given) : NULL;
    bool ok = true;
    if (builtin)
        ok = copy_source(out, builtin, strlen(builtin), err);
    else if (given && fs_kind_of(given) == FS_NOTHING)
        ok = refuse_name(given, err);
    else if (given)
        ok = read_source(out, given, err);
    else if (options->adapter)
        ok = adapter_source(out, options->adapter, err);
    if (ok && given && !builtin) drop_mark(out);
    if (ok && !out->source && model->chat_template)
        ok = copy_source(out, model->chat_template, model->chat_template_size, err);
    const char *name = given ? given : "chat_template";
    ok = ok && (!out->source || template_open(&out->template, out->source, out->source_size, name, err));
    ok = ok && read_arguments(out, options->arguments, options->argument_count, err);
    out->renderer = (struct renderer){
        .tokenizer = model->tokenizer,
        .template = out->template,
        .arguments = out->arguments,
        .system = options->system,
        .now = options->now,
        .train_on = options->train_on,
        .overlength = options->overlength,
        .max_length = options->max_length,
    };
    ok = ok && (!out->template || renderer_find_content_forms(&out->renderer, err));
    if (!ok) render_close(out);
    return ok;
}

void render_close(struct render *render) {
    template_close(&render->template);
    json_decref(render->arguments);
    mem_free(render->source);
    memset(render, 0, sizeof *render);
}

bool render_beyond_context(const char *setting, int64_t tokens, const struct model *model,
                           char out[context_sentence]) {
    if (tokens <= model->config.context) return false;
    snprintf(out, context_sentence, "--%s %lld is more than the model's context of %lld tokens", setting,
             (long long)tokens, (long long)model->config.context);
    return true;
}
