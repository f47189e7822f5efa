/* A record to a row: the turns made uniform, the columns' types checked. */
#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "text/dataset_internal.h"

/* More turns than any conversation has; rendering a row costs a rendering per assistant turn. */
enum { most_turns = 4096 };

/* Who speaks, in the words of each spelling. */
static const struct {
    const char *name, *role;
    bool in_role, in_from; /* OpenAI's `role`, ShareGPT's `from` */
} speakers[] = {
    {"system", "system", true, true},      {"developer", "developer", true, false},
    {"user", "user", true, true},          {"assistant", "assistant", true, true},
    {"tool", "tool", true, true},          {"human", "user", false, true},
    {"gpt", "assistant", false, true},     {"model", "assistant", false, true},
    {"chatgpt", "assistant", false, true}, {"function_call", "assistant", false, true},
    {"observation", "tool", true, true},   {"ipython", "tool", true, false},
    {"function", "tool", true, false},
};

const char *json_kind_name(const json_t *value) {
    if (!value) return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "a list";
    case JSON_STRING: return "text";
    case JSON_INTEGER:
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a truth value";
    default: return "null";
    }
}

static enum row_result bad(bool false_of_cause_set) { return false_of_cause_set ? ROW_GOOD : ROW_BAD; }

static bool has_nul(const json_t *text) {
    return memchr(json_string_value(text), '\0', json_string_length(text)) != NULL;
}

static bool refuse_part(const json_t *part, size_t turn, size_t number, struct dataset_cause *cause) {
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_object_get(part, "text");
    bool other = !json_is_object(part) || (type && strcmp(type, "text") != 0);
    if (!other)
        return dataset_cause_set(cause, "message %zu: the `text` of content part %zu is %s", turn, number,
                                 text ? json_kind_name(text) : "missing");
    return dataset_cause_set(cause, "message %zu: content part %zu is not text but %s", turn, number,
                             type ? type : json_kind_name(part));
}

/* One part of a content, as an object with type and text. New reference. */
static enum row_result part_make(json_t **out, const json_t *part, size_t turn, size_t number,
                                 struct dataset_cause *cause) {
    const char *type = json_string_value(json_object_get(part, "type"));
    const json_t *text = json_is_string(part) ? part : json_object_get(part, "text");
    if (!json_is_string(text) || (type && strcmp(type, "text") != 0))
        return bad(refuse_part(part, turn, number, cause));
    if (has_nul(text))
        return bad(dataset_cause_set(cause, "message %zu: content holds a NUL character", turn));
    *out = type ? json_incref((json_t *)part) : json_pack("{s:s, s:O}", "type", "text", "text", text);
    return *out ? ROW_GOOD : ROW_NO_MEMORY;
}

/* Text, or a list of parts, each {"type":"text","text":…}. New reference. */
static enum row_result content_make(json_t **out, const json_t *content, size_t turn,
                                    struct dataset_cause *cause) {
    size_t i;
    json_t *part;
    if (json_is_string(content)) {
        if (has_nul(content))
            return bad(dataset_cause_set(cause, "message %zu: content holds a NUL character", turn));
        *out = json_incref((json_t *)content);
        return ROW_GOOD;
    }
    if (!json_is_array(content))
        return bad(
            dataset_cause_set(cause, "message %zu: content is %s, not text", turn, json_kind_name(content)));
    json_t *parts = json_array();
    enum row_result result = parts ? ROW_GOOD : ROW_NO_MEMORY;
    json_array_foreach(content, i, part) {
        json_t *made = NULL;
        if (result == ROW_GOOD) result = part_make(&made, part, turn, i + 1, cause);
        if (result == ROW_GOOD && json_array_append(parts, made) != 0) result = ROW_NO_MEMORY;
        json_decref(made);
    }
    if (result == ROW_GOOD)
        *out = parts;
    else
        json_decref(parts);
    return result;
}

/* ShareGPT's function_call: its value is the JSON of one call, {"name":…,"arguments":…}. NULL for anything
 * else.
 */
static enum row_result call_of(json_t **out, const json_t *value) {
    json_t *call = NULL;
    struct error cause = {0};
    *out = NULL;
    if (!json_is_string(value)) return ROW_GOOD;
    json_read(&call, json_string_value(value), json_string_length(value), "", 1, &cause);
    bool named = json_is_string(json_object_get(call, "name"));
    if (named) *out = json_pack("[{s:s, s:O}]", "type", "function", "function", call);
    json_decref(call);
    return cause.code == ERROR_MEMORY || (named && !*out) ? ROW_NO_MEMORY : ROW_GOOD;
}

static bool weight_ok(const json_t *weight) {
    return json_is_number(weight) && (json_number_value(weight) == 0 || json_number_value(weight) == 1);
}

static const char *role_of(const json_t *message, bool from, size_t turn, struct dataset_cause *cause) {
    const json_t *speaker = json_object_get(message, from ? "from" : "role");
    const char *name = json_string_value(speaker);
    if (!name) {
        dataset_cause_set(cause, "message %zu: role is %s", turn,
                          speaker ? json_kind_name(speaker) : "missing");
        return NULL;
    }
    for (size_t i = 0; i < sizeof speakers / sizeof *speakers; i++)
        if ((from ? speakers[i].in_from : speakers[i].in_role) && !strcmp(speakers[i].name, name))
            return speakers[i].role;
    dataset_cause_set(
        cause,
        from ? "message %zu: unknown role `%.40s`; roles are system, human, gpt, function_call, observation"
             : "message %zu: unknown role `%.40s`; roles are system, developer, user, assistant, tool",
        turn, name);
    return NULL;
}

/* {"from","value"} to {"role","content"}. */
static enum row_result turn_of_sharegpt(json_t **out, const json_t *message, const char *role, size_t turn,
                                        struct dataset_cause *cause) {
    const json_t *value = json_object_get(message, "value"), *weight = json_object_get(message, "weight");
    const char *from = json_string_value(json_object_get(message, "from"));
    json_t *content = NULL, *calls = NULL;
    if (!json_is_string(value) && !json_is_array(value))
        return bad(dataset_cause_set(
            cause, value ? "message %zu: value is %s, not text" : "message %zu: value is missing", turn,
            json_kind_name(value)));
    enum row_result result = !strcmp(from, "function_call") ? call_of(&calls, value) : ROW_GOOD;
    if (calls && json_has_wide_integer(json_string_value(value), json_string_length(value)))
        result =
            bad(dataset_cause_set(cause,
                                  "message %zu: the call has an integer of more than 64 bits, which would "
                                  "be rounded; write it in quotes",
                                  turn));
    if (result == ROW_GOOD) result = content_make(&content, value, turn, cause);
    if (result == ROW_GOOD) {
        *out = calls ? json_pack("{s:s, s:s, s:O}", "role", role, "content", "", "tool_calls", calls)
                     : json_pack("{s:s, s:O}", "role", role, "content", content);
        if (!*out || (weight && json_object_set(*out, "weight", (json_t *)weight) != 0))
            result = ROW_NO_MEMORY;
    }
    json_decref(content);
    json_decref(calls);
    return result;
}

/* A message of OpenAI's form, kept whole. */
static enum row_result turn_of_openai(json_t **out, const json_t *message, const char *role, size_t turn,
                                      struct dataset_cause *cause) {
    const json_t *content = json_object_get(message, "content"),
                 *calls = json_object_get(message, "tool_calls");
    if (calls && !json_is_array(calls) && !json_is_null(calls))
        return bad(dataset_cause_set(cause, "message %zu: tool_calls is %s, not a list", turn,
                                     json_kind_name(calls)));
    if (!content || json_is_null(content)) {
        if (!strcmp(role, "assistant") && json_array_size(calls) > 0) {
            *out = json_incref((json_t *)message);
            return ROW_GOOD;
        }
        return bad(
            dataset_cause_set(cause, "message %zu: content is %s", turn, content ? "null" : "missing"));
    }
    json_t *text = NULL;
    enum row_result result = content_make(&text, content, turn, cause);
    if (result == ROW_GOOD && text == content) {
        *out = json_incref((json_t *)message);
    } else if (result == ROW_GOOD) {
        *out = json_copy((json_t *)message);
        if (!*out || json_object_set(*out, "content", text) != 0) result = ROW_NO_MEMORY;
    }
    json_decref(text);
    return result;
}

enum row_result messages_make(json_t **out, const json_t *list, struct dataset_cause *cause) {
    size_t i;
    json_t *message;
    *out = NULL;
    if (json_array_size(list) == 0) return bad(dataset_cause_set(cause, "the list of messages is empty"));
    if (json_array_size(list) > most_turns)
        return bad(dataset_cause_set(cause, "more than %d messages", most_turns));
    json_t *made = json_array();
    enum row_result result = made ? ROW_GOOD : ROW_NO_MEMORY;
    json_array_foreach(list, i, message) {
        json_t *turn = NULL;
        const json_t *weight = json_object_get(message, "weight");
        bool from = json_object_get(message, "from") && !json_object_get(message, "role");
        if (result != ROW_GOOD) break;
        if (!json_is_object(message)) {
            result = bad(
                dataset_cause_set(cause, "message %zu is %s, not an object", i + 1, json_kind_name(message)));
            break;
        }
        const char *role = role_of(message, from, i + 1, cause);
        if (!role)
            result = ROW_BAD;
        else if (weight && !json_is_null(weight) && !weight_ok(weight))
            result = bad(dataset_cause_set(cause, "message %zu: weight is not 0 or 1", i + 1));
        else if (from)
            result = turn_of_sharegpt(&turn, message, role, i + 1, cause);
        else
            result = turn_of_openai(&turn, message, role, i + 1, cause);
        if (result == ROW_GOOD && json_array_append(made, turn) != 0) result = ROW_NO_MEMORY;
        json_decref(turn);
    }
    if (result == ROW_GOOD)
        *out = made;
    else
        json_decref(made);
    return result;
}

/* ---- one row ---- */

struct maker {
    struct dataset_row *row;
    const json_t *record;
    const struct dataset_columns *columns;
    bool cells_are_text;
    const char *record_text; /* as JSON has it */
    size_t record_size;
    struct arena *arena;
    struct dataset_cause *cause;
};

static const char *name_of(const struct maker *maker, enum dataset_column column) {
    return maker->columns->names[column];
}

static const json_t *value_of(const struct maker *maker, enum dataset_column column) {
    return json_object_get(maker->record, name_of(maker, column));
}

/* A column's text; *out stays NULL where an optional one is absent, null or empty. */
static enum row_result text_of(const struct maker *maker, enum dataset_column column, bool needed,
                               const json_t **out) {
    const json_t *value = value_of(maker, column);
    *out = NULL;
    if (!value && needed)
        return bad(dataset_cause_set(maker->cause, "missing column `%s`", name_of(maker, column)));
    if (!needed && (!value || json_is_null(value))) return ROW_GOOD;
    if (!json_is_string(value))
        return bad(dataset_cause_set(maker->cause, "`%s` is %s, not text", name_of(maker, column),
                                     json_kind_name(value)));
    if (has_nul(value))
        return bad(dataset_cause_set(maker->cause, "`%s` holds a NUL character", name_of(maker, column)));
    if (needed || json_string_length(value)) *out = value;
    return ROW_GOOD;
}

/* Whether a value has a real that no integer of 64 bits is as big as. */
static bool has_big_real(const json_t *value) {
    const char *key;
    json_t *inner;
    size_t i;
    json_array_foreach(value, i, inner) if (has_big_real(inner)) return true;
    json_object_foreach((json_t *)value, key, inner) if (has_big_real(inner)) return true;
    return json_is_real(value) && fabs(json_real_value(value)) >= 9223372036854775807.0;
}

/* What a template would write otherwise than the row has it. */
static enum row_result refuse_rounded(const struct maker *maker, enum dataset_column column, json_t **list) {
    json_decref(*list);
    *list = NULL;
    return bad(
        dataset_cause_set(maker->cause,
                          "`%s` has an integer of more than 64 bits, which would be rounded; write it in "
                          "quotes",
                          name_of(maker, column)));
}

/* A column's list, new reference; in CSV, and for `tools` anywhere, a cell may hold the list's JSON. */
static enum row_result list_of(const struct maker *maker, enum dataset_column column, json_t **out) {
    const json_t *value = value_of(maker, column);
    bool as_text = json_is_string(value) && (maker->cells_are_text || column == COLUMN_TOOLS);
    struct error cause = {0};
    *out = NULL;
    if (!as_text) {
        *out = json_incref((json_t *)value);
    } else if (json_string_length(value) &&
               !json_read(out, json_string_value(value), json_string_length(value), "", 1, &cause)) {
        if (cause.code == ERROR_MEMORY) return ROW_NO_MEMORY;
        const char *mistake = json_mistake(json_string_value(value), json_string_length(value));
        return bad(dataset_cause_set(maker->cause, "`%s` holds broken JSON: %s", name_of(maker, column),
                                     mistake ? mistake : cause.why));
    }
    const char *text = as_text ? json_string_value(value) : maker->record_text;
    size_t size = as_text ? json_string_length(value) : maker->record_size;
    if (has_big_real(*out) && json_has_wide_integer(text, size)) return refuse_rounded(maker, column, out);
    return ROW_GOOD;
}

static enum row_result take_tools(const struct maker *maker) {
    json_t *tools = NULL;
    enum row_result result = list_of(maker, COLUMN_TOOLS, &tools);
    if (result == ROW_GOOD && tools && !json_is_null(tools) && !json_is_array(tools))
        result = bad(dataset_cause_set(maker->cause, "`%s` is %s, not a list", name_of(maker, COLUMN_TOOLS),
                                       json_kind_name(tools)));
    /* An empty list means no tools, as in data sets whose rows all carry the column. */
    if (result == ROW_GOOD && json_array_size(tools) > 0)
        maker->row->tools = tools;
    else
        json_decref(tools);
    return result;
}

static bool is_system(const json_t *message) {
    const char *role = json_string_value(json_object_get(message, "role"));
    return role && (!strcmp(role, "system") || !strcmp(role, "developer"));
}

static enum row_result take_messages(const struct maker *maker) {
    json_t *list = NULL;
    const json_t *system = NULL;
    const char *column = name_of(maker, COLUMN_MESSAGES);
    enum row_result result = list_of(maker, COLUMN_MESSAGES, &list);
    if (result == ROW_GOOD && !list)
        result = bad(dataset_cause_set(maker->cause, "missing column `%s`", column));
    if (result == ROW_GOOD && !json_is_array(list))
        result = bad(dataset_cause_set(maker->cause, "`%s` is %s, not a list", column, json_kind_name(list)));
    if (result == ROW_GOOD) result = messages_make(&maker->row->messages, list, maker->cause);
    bool look = maker->columns->layout == LAYOUT_SHAREGPT || maker->columns->given[COLUMN_SYSTEM];
    if (result == ROW_GOOD && look) result = text_of(maker, COLUMN_SYSTEM, false, &system);
    if (result == ROW_GOOD && system && !is_system(json_array_get(maker->row->messages, 0)) &&
        json_array_insert_new(maker->row->messages, 0,
                              json_pack("{s:s, s:O}", "role", "system", "content", system)) != 0)
        result = ROW_NO_MEMORY;
    json_decref(list);
    return result;
}

/* Alpaca's user turn: the instruction, then a newline and the input where there is one. */
static enum row_result join_input(const struct maker *maker, const json_t *instruction, json_t **out) {
    const json_t *input;
    enum row_result result = text_of(maker, COLUMN_INPUT, false, &input);
    if (result != ROW_GOOD) return result;
    if (!input) {
        *out = json_incref((json_t *)instruction);
        return ROW_GOOD;
    }
    struct buf joined = {0};
    buf_append(&joined, json_string_value(instruction), json_string_length(instruction));
    buf_byte(&joined, '\n');
    buf_append(&joined, json_string_value(input), json_string_length(input));
    *out = joined.failed ? NULL : json_stringn_nocheck(joined.data, joined.size);
    buf_release(&joined);
    return *out ? ROW_GOOD : ROW_NO_MEMORY;
}

/* The turns of a prompt and its completion, and both as they stand. `prompt`, `completion` are texts;
 * the turns keep them alive. */
static enum row_result take_pair(const struct maker *maker, const json_t *system, json_t *prompt,
                                 const json_t *completion) {
    struct dataset_row *row = maker->row;
    row->messages = json_pack("[{s:s, s:O}]", "role", "user", "content", prompt);
    if (!row->messages) return ROW_NO_MEMORY;
    if (completion && json_array_append_new(row->messages, json_pack("{s:s, s:O}", "role", "assistant",
                                                                     "content", completion)) != 0)
        return ROW_NO_MEMORY;
    row->completion = completion ? json_string_value(completion) : NULL;
    row->prompt = json_string_value(prompt);
    if (!system) return ROW_GOOD;
    if (json_array_insert_new(row->messages, 0,
                              json_pack("{s:s, s:O}", "role", "system", "content", system)) != 0)
        return ROW_NO_MEMORY;
    size_t a = json_string_length(system), b = json_string_length(prompt);
    char *joined = arena_alloc(maker->arena, a + b + 2);
    if (!joined) return ROW_NO_MEMORY;
    memcpy(joined, json_string_value(system), a);
    joined[a] = '\n';
    memcpy(joined + a + 1, json_string_value(prompt), b);
    row->prompt = joined;
    return ROW_GOOD;
}

/* Turns of the conversational form: the prompt's assistant turns are context, not answers. */
static enum row_result append_turns(const struct maker *maker, enum dataset_column column, bool context) {
    json_t *list = NULL, *turns = NULL, *turn;
    struct dataset_cause inner;
    size_t i;
    const char *side = context ? "user" : "assistant";
    enum row_result result = list_of(maker, column, &list);
    if (result == ROW_GOOD && json_is_string(list)) {
        turns = json_pack("[{s:s, s:O}]", "role", side, "content", list);
        if (!turns)
            result = ROW_NO_MEMORY;
        else if (has_nul(list))
            result =
                bad(dataset_cause_set(maker->cause, "`%s` holds a NUL character", name_of(maker, column)));
    } else if (result == ROW_GOOD && !json_is_array(list)) {
        result = bad(dataset_cause_set(maker->cause, list ? "`%s` is %s, not text" : "missing column `%s`",
                                       name_of(maker, column), json_kind_name(list)));
    } else if (result == ROW_GOOD) {
        result = messages_make(&turns, list, &inner);
        if (result == ROW_BAD)
            dataset_cause_set(maker->cause, "`%s`: %s", name_of(maker, column), inner.text);
    }
    json_array_foreach(turns, i, turn) {
        const char *role = json_string_value(json_object_get(turn, "role"));
        if (result != ROW_GOOD) break;
        bool mute = context && !strcmp(role, "assistant");
        json_t *kept = mute ? json_copy(turn) : json_incref(turn);
        if (!kept || (mute && json_object_set_new(kept, "weight", json_integer(0)) != 0) ||
            json_array_append(maker->row->messages, kept) != 0)
            result = ROW_NO_MEMORY;
        json_decref(kept);
    }
    json_decref(turns);
    json_decref(list);
    return result;
}

static enum row_result take_conversation_pair(const struct maker *maker) {
    maker->row->messages = json_array();
    if (!maker->row->messages) return ROW_NO_MEMORY;
    enum row_result result = append_turns(maker, COLUMN_PROMPT, true);
    bool answer = value_of(maker, COLUMN_COMPLETION) || !maker->columns->answers_optional;
    if (result == ROW_GOOD && answer) result = append_turns(maker, COLUMN_COMPLETION, false);
    return result;
}

static enum row_result take_prompt(const struct maker *maker) {
    const json_t *prompt, *completion, *system = NULL;
    bool lists =
        json_is_array(value_of(maker, COLUMN_PROMPT)) || json_is_array(value_of(maker, COLUMN_COMPLETION));
    if (lists) return take_conversation_pair(maker);
    bool needed = !maker->columns->answers_optional || value_of(maker, COLUMN_COMPLETION);
    enum row_result result = text_of(maker, COLUMN_PROMPT, true, &prompt);
    if (result == ROW_GOOD) result = text_of(maker, COLUMN_COMPLETION, needed, &completion);
    if (result == ROW_GOOD && maker->columns->given[COLUMN_SYSTEM])
        result = text_of(maker, COLUMN_SYSTEM, false, &system);
    return result == ROW_GOOD ? take_pair(maker, system, (json_t *)prompt, completion) : result;
}

static enum row_result take_alpaca(const struct maker *maker) {
    const json_t *instruction, *output, *system;
    json_t *prompt = NULL;
    bool needed = !maker->columns->answers_optional || value_of(maker, COLUMN_OUTPUT);
    enum row_result result = text_of(maker, COLUMN_INSTRUCTION, true, &instruction);
    if (result == ROW_GOOD) result = text_of(maker, COLUMN_OUTPUT, needed, &output);
    if (result == ROW_GOOD) result = text_of(maker, COLUMN_SYSTEM, false, &system);
    if (result == ROW_GOOD) result = join_input(maker, instruction, &prompt);
    if (result == ROW_GOOD) result = take_pair(maker, system, prompt, output);
    json_decref(prompt);
    return result;
}

static enum row_result take_text(const struct maker *maker) {
    const json_t *text;
    enum row_result result = text_of(maker, COLUMN_TEXT, true, &text);
    if (result != ROW_GOOD) return result;
    maker->row->text = arena_strndup(maker->arena, json_string_value(text), json_string_length(text));
    return maker->row->text ? ROW_GOOD : ROW_NO_MEMORY;
}

static bool has_answer(const json_t *messages) {
    size_t i;
    json_t *message;
    json_array_foreach(messages, i, message) {
        const char *role = json_string_value(json_object_get(message, "role"));
        if (!strcmp(role, "assistant")) return true;
    }
    return false;
}

enum row_result row_make(struct dataset_row *row, const json_t *record, const struct dataset_columns *columns,
                         struct arena *arena, struct dataset_reader *reader) {
    static enum row_result (*const take[])(const struct maker *) = {
        [LAYOUT_MESSAGES] = take_messages, [LAYOUT_SHAREGPT] = take_messages, [LAYOUT_PROMPT] = take_prompt,
        [LAYOUT_ALPACA] = take_alpaca,     [LAYOUT_TEXT] = take_text,
    };
    struct dataset_cause *cause = &reader->cause;
    struct maker maker = {.row = row,
                          .record = record,
                          .columns = columns,
                          .cells_are_text = reader->container == CONTAINER_CSV,
                          .record_text = reader->row_text,
                          .record_size = reader->row_size,
                          .arena = arena,
                          .cause = cause};
    memset(row, 0, sizeof *row);
    row->layout = columns->layout;
    enum row_result result = take[columns->layout](&maker);
    if (result == ROW_GOOD && row->messages) result = take_tools(&maker);
    if (result == ROW_GOOD && row->messages && !columns->answers_optional && !has_answer(row->messages))
        result = bad(dataset_cause_set(cause, "no assistant turn"));
    if (result != ROW_GOOD) row_release(row);
    return result;
}

void row_release(struct dataset_row *row) {
    json_decref(row->messages);
    json_decref(row->tools);
    memset(row, 0, sizeof *row);
}
