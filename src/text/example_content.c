#include "text/example_content.h"

#include <string.h>

#include "text/example_internal.h"

/* ---- the two forms ---- */

json_t *content_text(const json_t *content) {
    struct buf joined = {0};
    size_t i;
    json_t *part;
    if (json_is_string(content)) return json_incref((json_t *)(uintptr_t)content);
    json_array_foreach(content, i, part) {
        const json_t *text = json_object_get(part, "text");
        if (json_is_string(text)) buf_append(&joined, json_string_value(text), json_string_length(text));
    }
    json_t *out = joined.failed ? NULL : json_stringn_nocheck(joined.data ? joined.data : "", joined.size);
    buf_release(&joined);
    return out;
}

bool content_is_blank(const json_t *content) {
    size_t i;
    json_t *part;
    const char *text = json_string_value(content);
    if (text) return !text[strspn(text, " \t\r\n")];
    json_array_foreach(content, i, part) if (!content_is_blank(json_object_get(part, "text"))) return false;
    return true;
}

json_t *content_parts(const json_t *text) {
    return json_pack("[{s:s, s:O}]", "type", "text", "text", (json_t *)(uintptr_t)text);
}

/* ---- what a template reads ---- */

#define TURN(role) "{\"role\":\"" role "\",\"content\":\".\"}"
#define CALL                                                                                                 \
    "{\"role\":\"assistant\",\"content\":\".\",\"tool_calls\":[{\"id\":\"call00000\",\"type\":\"function\"," \
    "\"function\":{\"name\":\"f\",\"arguments\":{}}}]}"
#define ANSWER "{\"role\":\"tool\",\"name\":\"f\",\"tool_call_id\":\"call00000\",\"content\":\".\"}"

/* A conversation for each role; `turn` is the one whose content is looked for. */
static const struct {
    const char *role, *messages;
    size_t turn;
} samples[] = {
    {"user", "[" TURN("user") "]", 0},
    {"assistant", "[" TURN("user") "," TURN("assistant") "]", 1},
    {"system", "[" TURN("system") "," TURN("user") "]", 0},
    {"developer", "[" TURN("developer") "," TURN("user") "]", 0},
    {"tool", "[" TURN("user") "," CALL "," ANSWER "]", 2},
};
enum { sample_count = sizeof samples / sizeof *samples };

/* Other spellings of a tool's answer are read as `tool` is. */
static unsigned role_bit(const char *role) {
    size_t i = 0;
    while (i + 1 < sample_count && strcmp(samples[i].role, role) != 0) i++;
    return 1u << i;
}

json_t *content_shown(const struct content_forms *forms, const char *role, const json_t *content) {
    unsigned bit = role_bit(role);
    if (json_is_array(content) && !(forms->parts & bit)) return content_text(content);
    if (json_is_string(content) && (forms->parts_only & bit)) return content_parts(content);
    return json_incref((json_t *)(uintptr_t)content);
}

/* Words that no template has, and how a list that is printed as it stands begins the first. */
#define FIRST "Zq1"
#define SECOND "Zq2"
static const char *const printed[] = {"'" FIRST, "\"" FIRST};

/* What the template makes of the sample with this content; *failed where it does not take it. */
static bool render_sample(const struct renderer *renderer, size_t sample, const json_t *content,
                          struct buf *out, bool *failed, struct error *err) {
    json_t *messages = NULL, *variables = variables_make(renderer, NULL);
    const char *text = samples[sample].messages;
    buf_clear(out);
    *failed = false;
    bool ok = json_read(&messages, text, strlen(text), "sample", 1, err);
    json_t *turn = json_array_get(messages, samples[sample].turn);
    ok = ok && ((variables && json_object_set(turn, "content", (json_t *)(uintptr_t)content) == 0 &&
                 json_object_set(variables, "messages", messages) == 0 &&
                 json_object_set_new(variables, "add_generation_prompt", json_false()) == 0) ||
                error_no_memory(err, "template", 0));
    if (ok && !template_render(renderer->template, variables, renderer->now, NULL, out, NULL, NULL, err)) {
        ok = err->code != ERROR_MEMORY;
        *failed = true;
    }
    json_decref(variables);
    json_decref(messages);
    return ok && (buf_byte(out, '\0') || error_no_memory(err, "template", out->size));
}

static bool shows(const struct buf *rendered, const char *word) {
    return strstr(rendered->data, word) != NULL;
}

static bool find_form(struct renderer *renderer, size_t sample, const json_t *text, const json_t *parts,
                      struct error *err) {
    struct buf rendered = {0};
    bool failed, ok = render_sample(renderer, sample, parts, &rendered, &failed, err);
    if (ok && !failed && shows(&rendered, FIRST) && shows(&rendered, SECOND) &&
        !shows(&rendered, printed[0]) && !shows(&rendered, printed[1])) {
        renderer->content.parts |= 1u << sample;
        ok = render_sample(renderer, sample, text, &rendered, &failed, err);
        if (ok && (failed || !shows(&rendered, FIRST))) renderer->content.parts_only |= 1u << sample;
    }
    buf_release(&rendered);
    return ok;
}

bool renderer_find_content_forms(struct renderer *renderer, struct error *err) {
    struct error ignored;
    json_t *text = json_string(FIRST SECOND),
           *parts = json_pack("[{s:s, s:s}, {s:s, s:s}]", "type", "text", "text", FIRST, "type", "text",
                              "text", SECOND);
    bool ok = text && parts;
    renderer->content = (struct content_forms){0};
    for (size_t i = 0; ok && i < sample_count; i++) ok = find_form(renderer, i, text, parts, &ignored);
    json_decref(text);
    json_decref(parts);
    return ok || error_no_memory(err, "template", 0);
}
