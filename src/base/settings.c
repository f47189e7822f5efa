#include "base/settings.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

static const char *const type_names[] = {"text",   "path",  "int",  "float", "bool",
                                         "choice", "bytes", "list", "names"};

const char *setting_type_name(enum setting_type type) { return type_names[type]; }

const char *setting_origin_name(enum setting_origin origin) {
    static const char *const names[] = {"default", "auto", "resolved", "given", "stored"};
    return names[origin];
}

static void *slot_of(const struct setting *row, void *values) { return (char *)values + row->offset; }

static const void *slot_in(const struct setting *row, const void *values) {
    return (const char *)values + row->offset;
}

void text_list_release(struct text_list *list) {
    for (size_t i = 0; i < list->count; i++) mem_free(list->items[i]);
    mem_free(list->items);
    memset(list, 0, sizeof *list);
}

bool text_list_add(struct text_list *list, const char *item, struct error *err) {
    char **items = mem_realloc(list->items, (list->count + 1) * sizeof *items);
    if (!items) return error_no_memory(err, "settings", (list->count + 1) * sizeof *items);
    list->items = items;
    items[list->count] = mem_strdup(item);
    if (!items[list->count]) return error_no_memory(err, "settings", strlen(item));
    list->count++;
    return true;
}

static void slot_release(const struct setting *row, void *values) {
    void *slot = slot_of(row, values);
    if (row->type == SETTING_TEXT || row->type == SETTING_PATH) {
        mem_free(*(char **)slot);
        *(char **)slot = NULL;
    } else if (row->type == SETTING_LIST || row->type == SETTING_NAMES) {
        text_list_release(slot);
    }
}

/* ---- text to value ---- */

/* What the value means is what a person who gave a wrong one wants to know. */
static bool explain(const struct setting *row, struct error *err) {
    const char *argument = setting_argument(row);
    return error_fix(err, "It takes %s: %s.", *argument ? argument : "true or false", row->help);
}

static bool refuse_value(const struct setting *row, const char *value, const char *want, struct error *err) {
    struct buf shown = {0};
    text_escape(&shown, value, strnlen(value, 80), false);
    error_set(err, ERROR_USAGE, "settings", "%s: \"%s\" is not %s", row->name, shown.data ? shown.data : "",
              want);
    buf_release(&shown);
    return explain(row, err);
}

static bool check_bounds(const struct setting *row, double number, const char *value, struct error *err) {
    if (row->least == row->most || (number >= row->least && number <= row->most)) return true;
    error_set(err, ERROR_USAGE, "settings", "%s: %s is out of range", row->name, value);
    if (isinf(row->most)) return error_fix(err, "It must be at least %.10g.", row->least);
    return error_fix(err, "It must lie between %.10g and %.10g.", row->least, row->most);
}

static bool parse_int(const struct setting *row, const char *value, int64_t *out, struct error *err) {
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    bool too_large = end != value && !*end && errno == ERANGE;
    if (too_large && !check_bounds(row, number < 0 ? -INFINITY : INFINITY, value, err)) return false;
    if (too_large) return refuse_value(row, value, "a whole number below 2^63", err);
    if (end == value || *end || errno || isspace((unsigned char)*value))
        return refuse_value(row, value, row->automatic ? "a whole number or \"auto\"" : "a whole number",
                            err);
    if (!check_bounds(row, (double)number, value, err)) return false;
    *out = number;
    return true;
}

static bool parse_float(const struct setting *row, const char *value, double *out, struct error *err) {
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    bool too_large = end != value && !*end && errno == ERANGE && isinf(number);
    if (too_large && !check_bounds(row, number, value, err)) return false;
    if (too_large) return refuse_value(row, value, "a number up to 1.7e308", err);
    if (end == value || *end || !isfinite(number) || isspace((unsigned char)*value) || strpbrk(value, "xX"))
        return refuse_value(row, value, row->automatic ? "a number or \"auto\"" : "a number", err);
    if (!check_bounds(row, number, value, err)) return false;
    *out = number;
    return true;
}

static bool parse_bool(const struct setting *row, const char *value, bool *out, struct error *err) {
    static const struct {
        const char *word;
        bool value;
    } words[] = {{"true", true},   {"yes", true}, {"on", true},   {"1", true},
                 {"false", false}, {"no", false}, {"off", false}, {"0", false}};
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++) {
        if (strcmp(words[i].word, value) != 0) continue;
        *out = words[i].value;
        return true;
    }
    if (!value) return *out = true;
    return refuse_value(row, value, "true or false", err);
}

static bool parse_choice(const struct setting *row, const char *value, int *out, struct error *err) {
    size_t length = strlen(value);
    int index = 0;
    for (const char *at = row->choices; *at; index++) {
        size_t size = strcspn(at, "|");
        if (size == length && memcmp(at, value, size) == 0) {
            *out = index;
            return true;
        }
        at += size + (at[size] == '|');
    }
    refuse_value(row, value, "one of its choices", err);
    return error_fix(err, "Choose one of: %s.", row->choices);
}

static bool parse_bytes(const struct setting *row, const char *value, uint64_t *out, struct error *err) {
    uint64_t bytes;
    bool known = text_parse_bytes(value, &bytes);
    if (!known && bytes) {
        if (!check_bounds(row, INFINITY, value, err)) return false;
        return refuse_value(row, value, "a size below 7.8 EiB", err);
    }
    if (!known) {
        refuse_value(row, value, "a size", err);
        return error_fix(err, "Write it as 600MiB, 4GiB or a number of bytes.");
    }
    if (!check_bounds(row, (double)bytes, value, err)) return false;
    *out = bytes;
    return true;
}

static bool parse_text(const struct setting *row, const char *value, char **out, struct error *err) {
    if (row->type == SETTING_PATH && !*value) return refuse_value(row, value, "a path", err);
    char *copy = mem_strdup(value);
    if (!copy) return error_no_memory(err, "settings", strlen(value));
    mem_free(*out);
    *out = copy;
    return true;
}

static bool parse_names(const struct setting *row, const char *value, struct text_list *out,
                        struct error *err) {
    for (const char *at = value;;) {
        size_t size = strcspn(at, ",");
        if (!size) return refuse_value(row, value, "a list of names separated by commas", err);
        char *name = mem_strndup(at, size);
        bool ok = name ? text_list_add(out, name, err) : error_no_memory(err, "settings", size);
        mem_free(name);
        if (!ok) return false;
        if (!at[size]) return true;
        at += size + 1;
    }
}

static bool parse_list(const struct setting *row, const char *value, struct text_list *out,
                       struct error *err) {
    if (!*value) return refuse_value(row, value, "a value", err);
    return row->type == SETTING_NAMES ? parse_names(row, value, out, err) : text_list_add(out, value, err);
}

static bool slot_parse(const struct setting *row, const char *value, void *slot, struct error *err) {
    if (!value && row->type != SETTING_BOOL) {
        error_set(err, ERROR_USAGE, "settings", "%s needs a value", row->name);
        return explain(row, err);
    }
    /* recipe.yaml and events are UTF-8: a path that is not could not be found again on resume. */
    if (value && !utf8_valid(value, strlen(value), NULL)) {
        refuse_value(row, value, "valid UTF-8", err);
        return error_fix(err, "Give it in UTF-8; a file can be renamed, or named through a link.");
    }
    switch (row->type) {
    case SETTING_TEXT:
    case SETTING_PATH: return parse_text(row, value, slot, err);
    case SETTING_INT: return parse_int(row, value, slot, err);
    case SETTING_FLOAT: return parse_float(row, value, slot, err);
    case SETTING_BOOL: return parse_bool(row, value, slot, err);
    case SETTING_CHOICE: return parse_choice(row, value, slot, err);
    case SETTING_BYTES: return parse_bytes(row, value, slot, err);
    case SETTING_LIST:
    case SETTING_NAMES: return parse_list(row, value, slot, err);
    }
    return error_set(err, ERROR_INTERNAL, "settings", "%s has no type", row->name);
}

/* ---- sets ---- */

static void set_origin(struct setting_state *state, enum setting_origin origin, char *reason) {
    mem_free(state->reason);
    state->origin = origin;
    state->reason = reason;
}

static void slot_zero(const struct setting *row, void *values) {
    static const size_t sizes[] = {
        sizeof(char *), sizeof(char *),   sizeof(int64_t),          sizeof(double),          sizeof(bool),
        sizeof(int),    sizeof(uint64_t), sizeof(struct text_list), sizeof(struct text_list)};
    slot_release(row, values);
    memset(slot_of(row, values), 0, sizes[row->type]);
}

static bool slot_default(const struct setting *row, void *values, struct setting_state *state,
                         struct error *err) {
    slot_zero(row, values);
    set_origin(state, row->preset || !row->automatic ? ORIGIN_DEFAULT : ORIGIN_AUTO, NULL);
    return !row->preset || slot_parse(row, row->preset, slot_of(row, values), err);
}

bool settings_init(struct settings *settings, struct error *err) {
    for (size_t i = 0; i < settings->count; i++)
        if (!slot_default(&settings->rows[i], settings->values, &settings->states[i], err)) return false;
    return true;
}

void settings_release(struct settings *settings) {
    for (size_t i = 0; i < settings->count; i++) {
        slot_zero(&settings->rows[i], settings->values);
        set_origin(&settings->states[i], ORIGIN_DEFAULT, NULL);
    }
}

static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '_' || *a == '-' || *a == '.') && (*b == '_' || *b == '-'))) return false;
    return *a == *b;
}

size_t settings_find(const struct settings *settings, const char *name, unsigned uses) {
    for (size_t i = 0; i < settings->count; i++)
        if (settings->rows[i].uses & uses && same_name(name, settings->rows[i].name)) return i;
    return SIZE_MAX;
}

static bool is_list(const struct setting *row) {
    return row->type == SETTING_LIST || row->type == SETTING_NAMES;
}

bool settings_set(struct settings *settings, size_t index, const char *value, struct error *err) {
    const struct setting *row = &settings->rows[index];
    struct setting_state *state = &settings->states[index];
    if (value && row->automatic && row->type != SETTING_CHOICE && strcmp(value, "auto") == 0)
        return slot_default(row, settings->values, state, err);
    if (is_list(row) && state->origin != ORIGIN_GIVEN) slot_zero(row, settings->values);
    if (!slot_parse(row, value, slot_of(row, settings->values), err)) return false;
    set_origin(state, ORIGIN_GIVEN, NULL);
    return true;
}

bool settings_resolve(struct settings *settings, size_t index, const char *value, const char *reason,
                      struct error *err) {
    const struct setting *row = &settings->rows[index];
    char *copy = mem_strdup(reason);
    if (!copy) return error_no_memory(err, "settings", strlen(reason));
    if (is_list(row)) slot_zero(row, settings->values);
    if (!slot_parse(row, value, slot_of(row, settings->values), err)) {
        mem_free(copy);
        return false;
    }
    set_origin(&settings->states[index], ORIGIN_RESOLVED, copy);
    return true;
}

static bool slot_copy(const struct setting *row, void *to, const void *from, struct error *err) {
    const void *source = slot_in(row, from);
    void *slot = slot_of(row, to);
    slot_zero(row, to);
    switch (row->type) {
    case SETTING_TEXT:
    case SETTING_PATH: {
        const char *text = *(char *const *)source;
        *(char **)slot = text ? mem_strdup(text) : NULL;
        return !text || *(char **)slot || error_no_memory(err, "settings", strlen(text));
    }
    case SETTING_INT: *(int64_t *)slot = *(const int64_t *)source; return true;
    case SETTING_FLOAT: *(double *)slot = *(const double *)source; return true;
    case SETTING_BOOL: *(bool *)slot = *(const bool *)source; return true;
    case SETTING_CHOICE: *(int *)slot = *(const int *)source; return true;
    case SETTING_BYTES: *(uint64_t *)slot = *(const uint64_t *)source; return true;
    case SETTING_LIST:
    case SETTING_NAMES: {
        const struct text_list *list = source;
        for (size_t i = 0; i < list->count; i++)
            if (!text_list_add(slot, list->items[i], err)) return false;
        return true;
    }
    }
    return error_set(err, ERROR_INTERNAL, "settings", "%s has no type", row->name);
}

bool settings_inherit(struct settings *to, const struct settings *from, enum setting_origin origin,
                      struct error *err) {
    for (size_t i = 0; i < to->count; i++) {
        enum setting_origin have = from->states[i].origin;
        if (to->states[i].origin == ORIGIN_GIVEN || have == ORIGIN_DEFAULT || have == ORIGIN_AUTO) continue;
        if (!slot_copy(&to->rows[i], to->values, from->values, err)) return false;
        set_origin(&to->states[i], origin, NULL);
    }
    return true;
}

/* ---- value to text ---- */

bool setting_is_set(const struct setting *row, const void *values) {
    const void *slot = slot_in(row, values);
    if (row->type == SETTING_TEXT || row->type == SETTING_PATH) return *(char *const *)slot != NULL;
    return !is_list(row) || ((const struct text_list *)slot)->count != 0;
}

bool setting_write_choice(const struct setting *row, int index, struct buf *out) {
    const char *at = row->choices;
    for (; index > 0 && *at; index--) at += strcspn(at, "|") + 1;
    return buf_append(out, at, strcspn(at, "|"));
}

/* The shortest of the decimal forms that reads back to the same bits. */
static bool write_float(double number, struct buf *out) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number) break;
    }
    return buf_text(out, text);
}

bool setting_write(const struct setting *row, const void *values, struct buf *out) {
    const void *slot = slot_in(row, values);
    switch (row->type) {
    case SETTING_TEXT:
    case SETTING_PATH: return !setting_is_set(row, values) || buf_text(out, *(char *const *)slot);
    case SETTING_INT: return buf_printf(out, "%lld", (long long)*(const int64_t *)slot);
    case SETTING_FLOAT: return write_float(*(const double *)slot, out);
    case SETTING_BOOL: return buf_text(out, *(const bool *)slot ? "true" : "false");
    case SETTING_CHOICE: return setting_write_choice(row, *(const int *)slot, out);
    case SETTING_BYTES: return buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)slot);
    case SETTING_LIST:
    case SETTING_NAMES: break;
    }
    const struct text_list *list = slot;
    for (size_t i = 0; i < list->count; i++) {
        if (i) buf_byte(out, ',');
        buf_text(out, list->items[i]);
    }
    return !out->failed;
}

bool setting_equal(const struct setting *row, const void *a, const void *b) {
    const void *x = slot_in(row, a), *y = slot_in(row, b);
    switch (row->type) {
    case SETTING_TEXT:
    case SETTING_PATH: {
        const char *s = *(char *const *)x, *t = *(char *const *)y;
        return s && t ? strcmp(s, t) == 0 : s == t;
    }
    case SETTING_INT: return *(const int64_t *)x == *(const int64_t *)y;
    case SETTING_FLOAT: return memcmp(x, y, sizeof(double)) == 0;
    case SETTING_BOOL: return *(const bool *)x == *(const bool *)y;
    case SETTING_CHOICE: return *(const int *)x == *(const int *)y;
    case SETTING_BYTES: return *(const uint64_t *)x == *(const uint64_t *)y;
    case SETTING_LIST:
    case SETTING_NAMES: break;
    }
    const struct text_list *s = x, *t = y;
    if (s->count != t->count) return false;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->items[i], t->items[i]) != 0) return false;
    return true;
}

const char *setting_argument(const struct setting *row) {
    static const char *const words[] = {"TEXT", "PATH", "N", "X", "", "", "SIZE", "TEXT", "A,B"};
    if (row->argument) return row->argument;
    return row->type == SETTING_CHOICE ? row->choices : words[row->type];
}

void setting_key(const struct setting *row, char out[64]) {
    size_t nest = row->nest ? strlen(row->nest) : 0;
    snprintf(out, 64, "%s", row->name);
    for (char *at = out; *at; at++)
        if (*at == '-') *at = '_';
    if (nest && strncmp(row->name, row->nest, nest) == 0 && out[nest] == '_') out[nest] = '.';
}

static json_t *describe_choices(const struct setting *row) {
    json_t *list = json_array();
    for (const char *at = row->choices; list && *at;) {
        size_t size = strcspn(at, "|");
        json_list_add(&list, json_stringn(at, size));
        at += size + (at[size] == '|');
    }
    return list;
}

json_t *setting_describe(const struct setting *row) {
    static const char *const effects[] = {"result", "rounding", "harmless"};
    const struct {
        const char *key, *value;
    } texts[] = {{"argument", setting_argument(row)},
                 {"default", row->preset},
                 {"automatic", row->automatic},
                 {"unit", row->unit},
                 {"help", row->help},
                 {"group", row->group},
                 {"search", row->search}};
    char key[64];
    setting_key(row, key);
    json_t *out = json_pack("{s:s, s:s, s:s, s:s}", "name", row->name, "key", key, "type",
                            setting_type_name(row->type), "effect", effects[row->effect]);
    bool ok = out != NULL;
    for (size_t i = 0; ok && i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value && *texts[i].value)
            ok = json_object_set_new(out, texts[i].key, json_string(texts[i].value)) == 0;
    if (ok && row->choices) ok = json_object_set_new(out, "choices", describe_choices(row)) == 0;
    if (ok && row->least != row->most) {
        ok = json_object_set_new(out, "least", json_real(row->least)) == 0;
        if (ok && isfinite(row->most)) ok = json_object_set_new(out, "most", json_real(row->most)) == 0;
    }
    if (ok) return out;
    json_decref(out);
    return NULL;
}
