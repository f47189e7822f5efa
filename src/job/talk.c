#include "job/talk.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"

bool talk_open(struct session **out, struct job *job, char note[find_model_sentence], struct error *err) {
    struct recipe *recipe = &job->recipe;
    char *path = NULL, *mask = NULL;
    *out = NULL;
    if (!recipe->model) {
        error_set(err, ERROR_USAGE, job->kind->name, "--model is missing");
        return error_fix(err, "Name a model: one that `hone pull` stored, a GGUF file or a directory.");
    }
    bool ok = job_find_model(job, recipe->model, &path, note, err) && recipe_mask(recipe, &mask, err);
    struct session_options options = {
        .adapter = recipe->adapter,
        .base_type = recipe->base_type,
        .device = recipe_device_name(recipe),
        .threads = (int)recipe->threads,
        .mask = mask,
        .compute = recipe_compute(recipe),
        .compute_auto = recipe->compute == COMPUTE_AUTO,
        .fp8 = recipe->compute == COMPUTE_FP8,
        .tf32 = recipe->compute == COMPUTE_TF32,
        .memory = recipe->memory,
        .render = {.chat_template = recipe->chat_template,
                   .adapter = recipe->adapter,
                   .arguments = recipe->template_args.items,
                   .argument_count = recipe->template_args.count,
                   .system = recipe->system,
                   .now = clock_unix()},
    };
    ok = ok && session_open(out, path, &options, err);
    mem_free(path);
    mem_free(mask);
    return ok;
}

bool talk_warning(const struct session *session, const struct job *job, char out[talk_warning_size]) {
    char base[engine_sentence] = "", context[context_sentence] = "";
    session_other_base(session, base);
    render_beyond_context("context", job->options.context, session_model(session), context);
    snprintf(out, talk_warning_size, "%s%s%s", base, *base && *context ? "; " : "", context);
    return *out;
}

bool talk_prompt(struct talk *out, const char *prompt, struct error *err) {
    memset(out, 0, sizeof *out);
    if (!utf8_valid(prompt, strlen(prompt), NULL))
        return error_set(err, ERROR_INPUT, "generate", "the prompt is not valid UTF-8");
    out->messages = json_pack("[{s:s, s:s}]", "role", "user", "content", prompt);
    return out->messages || error_no_memory(err, "generate", strlen(prompt));
}

/* A list, or its JSON as rows of data have it; null, an empty list or an empty text: none. */
static bool take_tools(struct talk *out, const json_t *tools, const char *name, struct error *err) {
    json_t *read = NULL;
    if (json_string_length(tools) &&
        !json_read(&read, json_string_value(tools), json_string_length(tools), name, 1, err))
        return false;
    const json_t *list = read ? read : tools;
    bool none = !list || json_is_null(list) || json_is_string(list), ok = none || json_is_array(list);
    if (!ok) {
        error_set(err, ERROR_INPUT, "generate", "%.200s: \"tools\" is no list", name);
        error_fix(err, "Write a list of {\"type\":\"function\",\"function\":…} objects, or leave it out.");
    } else if (json_array_size(list)) {
        out->tools = json_deep_copy(list);
        ok = out->tools || error_no_memory(err, "generate", 0);
    }
    json_decref(read);
    return ok;
}

static bool read_value(struct talk *out, const json_t *value, const char *name, struct error *err) {
    const json_t *messages = json_is_array(value) ? value : json_object_get(value, "messages");
    const json_t *prompt = messages ? NULL : json_object_get(value, "prompt");
    const char *text = json_string_value(prompt);
    if (text && strlen(text) != json_string_length(prompt))
        return error_set(err, ERROR_INPUT, "generate", "%.200s: \"prompt\" holds a NUL character", name);
    if (text)
        return talk_prompt(out, text, err) && take_tools(out, json_object_get(value, "tools"), name, err);
    if (prompt) {
        error_set(err, ERROR_INPUT, "generate", "%.200s: \"prompt\" is no text", name);
        return error_fix(err, "Write it in quotation marks.");
    }
    if (!json_is_array(messages) || !json_array_size(messages)) {
        error_set(err, ERROR_INPUT, "generate", "%.200s: there are no messages", name);
        return error_fix(
            err,
            "Write a list of {\"role\",\"content\"} objects, or an object with \"messages\" or \"prompt\".");
    }
    if (!dataset_messages(&out->messages, messages, err)) {
        snprintf(err->where, sizeof err->where, "generate");
        return error_about(err, name);
    }
    return take_tools(out, json_object_get(value, "tools"), name, err);
}

bool talk_value(struct talk *out, const json_t *value, const char *name, struct error *err) {
    memset(out, 0, sizeof *out);
    if (read_value(out, value, name, err)) return true;
    talk_release(out);
    return false;
}

void talk_release(struct talk *talk) {
    tokens_release(&talk->tokens);
    json_decref(talk->messages);
    json_decref(talk->tools);
    memset(talk, 0, sizeof *talk);
}

bool talk_request(struct talk *talk, struct session *session, const struct job *job, struct request *out,
                  struct error *err) {
    const struct options *options = &job->options;
    if (!renderer_prompt_tokens(session_renderer(session), talk->messages, talk->tools, &talk->tokens, err))
        return false;
    *out = (struct request){
        .ids = talk->tokens.ids,
        .count = talk->tokens.count,
        .max_tokens = options->max_tokens,
        .sampling = {.temperature = options->temperature,
                     .top_k = options->top_k,
                     .top_p = options->top_p,
                     .min_p = options->min_p,
                     .repetition_penalty = options->repetition_penalty,
                     .seed = (uint64_t)job->recipe.seed},
    };
    return true;
}

/* A model may end in the middle of a character, and JSON holds UTF-8 alone. */
static json_t *answer_text(const struct buf *text) {
    struct buf clean = {0};
    const char *bytes = text->data ? text->data : "";
    if (utf8_valid(bytes, text->size, NULL)) return json_stringn(bytes, text->size);
    for (size_t i = 0; i < text->size;) {
        uint32_t code;
        size_t left = text->size - i, torn = utf8_begun(bytes + i, left);
        int length = utf8_decode(bytes + i, left, &code);
        if (length)
            buf_append(&clean, bytes + i, (size_t)length);
        else
            buf_text(&clean, "\xEF\xBF\xBD");
        i += length ? (size_t)length : torn ? torn : 1;
    }
    json_t *value = clean.failed ? NULL : json_stringn(clean.data ? clean.data : "", clean.size);
    buf_release(&clean);
    return value;
}

json_t *talk_answer(const struct answer *answer) {
    return json_pack("{s:o, s:I, s:I, s:s, s:f}", "text", answer_text(&answer->text), "prompt_tokens",
                     (json_int_t)answer->prompt_tokens, "generated_tokens",
                     (json_int_t)answer->generated_tokens, "finish_reason", answer->finish_reason, "seconds",
                     answer->seconds);
}
