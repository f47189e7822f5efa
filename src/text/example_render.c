/* A row to text, with the bytes that are trained.
 *
 * With R(k) the rendering of the first k messages and P(k) the same with the generation prompt, an
 * assistant turn t is trained on [P(t)|, |R(t + 1)|): what the turn adds after the generation prompt.
 * That places the turn in the whole rendering R(n) only when R(t + 1) is a prefix of it.
 *
 *   P(t)      <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n
 *   R(t + 1)  <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n
 *   trained                                                         ^^^^^^^^^^^^^^^^^ */
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "text/example_content.h"
#include "text/example_internal.h"

/* ---- variables of a template ---- */

/* What a template sees, with messages of its own: the system turn put in, the weights taken out. */
struct conversation {
    const struct renderer *renderer;
    json_t *messages;
    json_t *variables;
    uint8_t *wanted; /* [messages] 1: a turn that is trained */
    bool *refused;   /* set where rendering fails; may be NULL */
};

static bool has_role(const json_t *message, const char *role) {
    const char *name = json_string_value(json_object_get(message, "role"));
    return name && !strcmp(name, role);
}

static bool has_system(const json_t *messages) {
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message) {
        if (has_role(message, "system") || has_role(message, "developer")) return true;
    }
    return false;
}

static bool is_trained_turn(const json_t *message) {
    const json_t *weight = json_object_get(message, "weight");
    return has_role(message, "assistant") && !(json_is_number(weight) && json_number_value(weight) == 0);
}

static void conversation_release(struct conversation *conversation) {
    json_decref(conversation->messages);
    json_decref(conversation->variables);
    mem_free(conversation->wanted);
    memset(conversation, 0, sizeof *conversation);
}

static bool conversation_init(struct conversation *out, const struct renderer *renderer,
                              const json_t *messages, const json_t *tools, struct error *err) {
    size_t i, count = json_array_size(messages) + 1;
    json_t *message;
    memset(out, 0, sizeof *out);
    out->renderer = renderer;
    out->messages = json_array();
    out->variables = variables_make(renderer, tools);
    out->wanted = mem_calloc(count, 1);
    bool ok = out->messages && out->variables && out->wanted;
    if (ok && renderer->system && !has_system(messages)) {
        json_t *system = json_pack("{s:s, s:s}", "role", "system", "content", renderer->system);
        ok = system && json_array_append_new(out->messages, message_shown(renderer, system)) == 0;
        json_decref(system);
    }
    json_array_foreach(messages, i, message) {
        if (!ok) break;
        out->wanted[json_array_size(out->messages)] = is_trained_turn(message);
        ok = json_array_append_new(out->messages, message_shown(renderer, message)) == 0;
    }
    if (ok) return true;
    conversation_release(out);
    return error_no_memory(err, "data", count);
}

/* A template that spends its budget on a row of this much text may serve all others. */
enum { long_row = 1 << 20 };

static bool blame_row(const struct conversation *conversation, struct error *err) {
    struct error inner = *err;
    size_t size = texts_size(conversation->messages);
    if (size < long_row) return false;
    error_set(err, ERROR_INPUT, "data", "its %.1f MiB of text are more than a template can render: %s",
              (double)size / (1 << 20), inner.what);
    error_fix(err, "Shorten it, or split it into several rows.");
    return true;
}

/* Renders the first `count` messages, the last of them replaced by `instead` when it is given. */
static bool render(const struct conversation *conversation, size_t count, json_t *instead,
                   bool generation_prompt, struct buf *out, struct error *err) {
    json_t *part = json_array();
    bool ok = part != NULL;
    for (size_t i = 0; ok && i < count; i++) {
        json_t *message = instead && i + 1 == count ? instead : json_array_get(conversation->messages, i);
        ok = json_array_append(part, message) == 0;
    }
    ok = ok && json_object_set(conversation->variables, "messages", part) == 0 &&
         json_object_set_new(conversation->variables, "add_generation_prompt",
                             json_boolean(generation_prompt)) == 0;
    json_decref(part);
    if (!ok) return error_no_memory(err, "data", count);
    const struct renderer *renderer = conversation->renderer;
    bool refused = false;
    ok = template_render(renderer->template, conversation->variables, renderer->now, NULL, out, NULL,
                         &refused, err);
    if (ok) return !out->failed || error_no_memory(err, "data", out->size);
    if (!refused && err->code == ERROR_INPUT) refused = blame_row(conversation, err);
    if (conversation->refused) *conversation->refused = refused;
    return false;
}

/* ---- spans ---- */

static bool is_prefix(const struct buf *prefix, const struct buf *text) {
    return prefix->size <= text->size && (!prefix->size || !memcmp(prefix->data, text->data, prefix->size));
}

/* Content of the same form that begins with another letter, new reference. */
static json_t *other_content(const json_t *content) {
    json_t *text = content_text(content);
    if (!text) return NULL;
    const char *begin = json_string_value(text) + strspn(json_string_value(text), " \t\r\n");
    json_t *letter = json_string(*begin == 'A' ? "B" : "A");
    json_t *out = letter && json_is_array(content) ? content_parts(letter) : json_incref(letter);
    json_decref(letter);
    json_decref(text);
    return out;
}

/* Where the answer of turn `turn` begins in its rendering, found by rendering another answer in its
 * place: for templates whose generation prompt holds what the rendered turn does not (an opened
 * thought), or that cannot render what stands before the turn. */
static bool answer_start(const struct conversation *conversation, size_t turn, const struct buf *whole,
                         size_t *start, struct error *err) {
    struct buf other = {0};
    json_t *message = json_array_get(conversation->messages, turn), *changed = json_copy(message);
    bool ok = (changed && json_object_set_new(changed, "content",
                                              other_content(json_object_get(message, "content"))) == 0) ||
              error_no_memory(err, "data", whole->size);
    ok = ok && render(conversation, turn + 1, changed, false, &other, err);
    size_t same = 0;
    while (ok && same < whole->size && same < other.size && whole->data[same] == other.data[same]) same++;
    *start = same;
    json_decref(changed);
    buf_release(&other);
    return ok;
}

/* Where what is trained of `turn` begins in `upto`, the rendering that ends with that turn. */
static bool turn_start(const struct conversation *conversation, size_t turn, const struct buf *upto,
                       size_t *start, struct error *err) {
    struct buf prompt = {0};
    struct error other;
    bool ok = true, rendered = render(conversation, turn, NULL, true, &prompt, err);
    *start = prompt.size;
    if (!rendered && err->code == ERROR_MEMORY)
        ok = false;
    else if (!rendered)
        ok = answer_start(conversation, turn, upto, start, &other); /* which error is told: the first */
    else if (!is_prefix(&prompt, upto))
        ok = answer_start(conversation, turn, upto, start, err);
    buf_release(&prompt);
    return ok;
}

static bool add_span(struct template_spans *spans, size_t first, size_t end, struct error *err) {
    size_t bytes;
    if (first >= end) return true;
    if (!checked_size_mul(spans->count + 1, sizeof *spans->spans, &bytes))
        return error_no_memory(err, "data", 0);
    struct template_span *grown = mem_realloc(spans->spans, bytes);
    if (!grown) return error_no_memory(err, "data", bytes);
    spans->spans = grown;
    spans->spans[spans->count++] = (struct template_span){first, end};
    return true;
}

static struct rendering *add_rendering(struct renderings *out, struct error *err) {
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 1;
        struct rendering *grown = mem_realloc(out->items, capacity * sizeof *grown);
        if (!grown) {
            error_no_memory(err, "data", capacity * sizeof *grown);
            return NULL;
        }
        out->items = grown;
        out->capacity = capacity;
    }
    struct rendering *rendering = &out->items[out->count++];
    memset(rendering, 0, sizeof *rendering);
    return rendering;
}

/* The whole row as one example. *fits is false when a turn's rendering is no prefix of the whole. */
static bool render_whole(const struct conversation *conversation, struct rendering *out, bool *fits,
                         struct error *err) {
    size_t count = json_array_size(conversation->messages);
    *fits = true;
    if (!render(conversation, count, NULL, false, &out->text, err)) return false;
    if (conversation->renderer->train_on == TRAIN_ON_ALL)
        return add_span(&out->trained, 0, out->text.size, err);
    for (size_t turn = 0; turn < count && *fits; turn++) {
        struct buf upto = {0};
        size_t start = 0;
        if (!conversation->wanted[turn]) continue;
        bool last = turn + 1 == count;
        bool ok = last || render(conversation, turn + 1, NULL, false, &upto, err);
        const struct buf *end = last ? &out->text : &upto;
        if (ok) *fits = is_prefix(end, &out->text);
        if (ok && *fits) {
            ok = turn_start(conversation, turn, end, &start, err) &&
                 add_span(&out->trained, start, end->size, err);
        }
        buf_release(&upto);
        if (!ok) return false;
    }
    return true;
}

static bool render_turns(const struct conversation *conversation, struct renderings *out, struct error *err) {
    size_t count = json_array_size(conversation->messages);
    for (size_t turn = 0; turn < count; turn++) {
        size_t start = 0;
        if (!conversation->wanted[turn]) continue;
        struct rendering *rendering = add_rendering(out, err);
        if (!rendering || !render(conversation, turn + 1, NULL, false, &rendering->text, err) ||
            !turn_start(conversation, turn, &rendering->text, &start, err) ||
            !add_span(&rendering->trained, start, rendering->text.size, err))
            return false;
    }
    return true;
}

/* Whether the template renders a turn as if its tool calls were not there. */
static bool ignores_calls(const struct conversation *conversation, size_t turn, bool *ignored,
                          struct error *err) {
    struct buf with = {0}, without = {0};
    json_t *bare = json_copy(json_array_get(conversation->messages, turn));
    bool ok = (bare && json_object_del(bare, "tool_calls") == 0) || error_no_memory(err, "data", 0);
    ok = ok && render(conversation, turn + 1, NULL, false, &with, err) &&
         render(conversation, turn + 1, bare, false, &without, err);
    *ignored = ok && with.size == without.size && is_prefix(&with, &without);
    json_decref(bare);
    buf_release(&with);
    buf_release(&without);
    return ok || err->code != ERROR_MEMORY; /* a template that needs them does not ignore them */
}

/* Looks at the row's first trained turn with tool calls: a template that shows one shows all. */
static bool check_calls(const struct conversation *conversation, bool *ignored, struct error *err) {
    for (size_t turn = 0; turn < json_array_size(conversation->messages); turn++) {
        const json_t *message = json_array_get(conversation->messages, turn);
        if (conversation->wanted[turn] && json_array_size(json_object_get(message, "tool_calls")) > 0)
            return ignores_calls(conversation, turn, ignored, err);
    }
    return true;
}

/* --train-on last: of all assistant turns only the row's last one is left, if its weight is not 0. */
static void keep_last(struct conversation *conversation) {
    bool later = false;
    for (size_t i = json_array_size(conversation->messages); i-- > 0;) {
        if (later) conversation->wanted[i] = 0;
        later |= has_role(json_array_get(conversation->messages, i), "assistant");
    }
}

static bool render_conversation(struct renderings *out, const struct renderer *renderer,
                                const struct dataset_row *row, bool *refused, struct error *err) {
    struct conversation conversation;
    bool fits = true;
    if (!conversation_init(&conversation, renderer, row->messages, row->tools, err)) return false;
    conversation.refused = refused;
    if (renderer->train_on == TRAIN_ON_LAST) keep_last(&conversation);
    struct rendering *whole = add_rendering(out, err);
    bool ok = whole && render_whole(&conversation, whole, &fits, err);
    if (ok && !fits) {
        renderings_release(out);
        ok = render_turns(&conversation, out, err);
    }
    ok = ok && check_calls(&conversation, &out->calls_ignored, err);
    conversation_release(&conversation);
    return ok;
}

/* ---- rows without a template ---- */

static bool render_bare(struct renderings *out, const struct renderer *renderer,
                        const struct dataset_row *row, struct error *err) {
    if (!row->text && (!row->prompt || !row->completion)) {
        error_set(err, ERROR_INPUT, "data", "a row of messages, and the model has no chat template");
        return error_fix(err, "Give it one: --chat-template chatml, or --chat-template FILE.");
    }
    struct rendering *rendering = add_rendering(out, err);
    if (!rendering) return false;
    struct buf *text = &rendering->text;
    size_t start = 0;
    rendering->bare = true;
    if (row->text) {
        buf_text(text, row->text);
    } else {
        if (renderer->system && !has_system(row->messages)) {
            buf_text(text, renderer->system);
            buf_byte(text, '\n');
        }
        buf_text(text, row->prompt);
        if (renderer->train_on != TRAIN_ON_ALL) start = text->size;
        buf_text(text, row->completion);
    }
    if (text->failed) return error_no_memory(err, "data", text->size);
    return add_span(&rendering->trained, start, text->size, err);
}

bool row_error(struct error *err, const char *data_name, const struct dataset_row *row) {
    struct error inner = *err;
    if (inner.code == ERROR_MEMORY) return false;
    error_set(err, inner.code, "data", "%s:%zu: %s", data_name, row->line, inner.what);
    error_why(err, "%s", inner.why);
    return error_fix(err, "%s", inner.fix);
}

bool row_render(struct renderings *out, const struct renderer *renderer, const char *data_name,
                const struct dataset_row *row, bool *refused, struct error *err) {
    memset(out, 0, sizeof *out);
    *refused = false;
    bool bare = row->text || !renderer->template;
    if (bare ? render_bare(out, renderer, row, err) : render_conversation(out, renderer, row, refused, err)) {
        *refused = false; /* a turn's prompt may have been, and something else have served */
        return true;
    }
    renderings_release(out);
    return *refused ? false : row_error(err, data_name, row);
}

void renderings_release(struct renderings *renderings) {
    for (size_t i = 0; i < renderings->count; i++) {
        buf_release(&renderings->items[i].text);
        mem_free(renderings->items[i].trained.spans);
    }
    mem_free(renderings->items);
    memset(renderings, 0, sizeof *renderings);
}

bool renderer_row(const struct renderer *renderer, const struct dataset *dataset,
                  const struct dataset_row *row, struct buf *text, struct template_spans *trained,
                  struct error *err) {
    struct renderings renderings;
    const char *name = dataset->files[row->file];
    bool ok = true, refused;
    if (!row_render(&renderings, renderer, name, row, &refused, err))
        return refused ? row_error(err, name, row) : false;
    if (renderings.count) {
        const struct rendering *last = &renderings.items[renderings.count - 1];
        size_t before = text->size;
        ok = buf_append(text, last->text.data ? last->text.data : "", last->text.size) ||
             error_no_memory(err, "data", last->text.size);
        for (size_t i = 0; ok && i < last->trained.count; i++)
            ok = add_span(trained, before + last->trained.spans[i].first, before + last->trained.spans[i].end,
                          err);
    }
    renderings_release(&renderings);
    return ok;
}

/* ---- generation ---- */

static bool bare_prompt(const struct renderer *renderer, const json_t *messages, struct buf *out,
                        struct error *err) {
    size_t count = json_array_size(messages);
    const json_t *message = json_array_get(messages, 0);
    const json_t *content = json_object_get(message, "content");
    if (count != 1 || !has_role(message, "user") || !content) {
        error_set(err, ERROR_INPUT, "generate", "a conversation, and the model has no chat template");
        error_why(err, "without one a prompt is a single user turn, taken as it stands");
        return error_fix(err, "Give it one: --chat-template chatml, or --chat-template FILE.");
    }
    if (renderer->system) {
        buf_text(out, renderer->system);
        buf_byte(out, '\n');
    }
    json_t *text = content_text(content);
    bool ok = text && buf_append(out, json_string_value(text), json_string_length(text));
    json_decref(text);
    return ok || error_no_memory(err, "generate", out->size);
}

bool renderer_prompt(const struct renderer *renderer, const json_t *messages, const json_t *tools,
                     struct buf *out, struct error *err) {
    struct conversation conversation;
    if (!renderer->template) return bare_prompt(renderer, messages, out, err);
    if (!conversation_init(&conversation, renderer, messages, tools, err)) return false;
    bool ok = render(&conversation, json_array_size(conversation.messages), NULL, true, out, err);
    conversation_release(&conversation);
    return ok;
}
