#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/text.h"

enum { deepest = 256 };

/* jansson recurses on nesting, up to 2,048 levels; ours is a tighter, stated bound. */
static bool nesting_ok(const char *text, size_t size) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > deepest) return false;
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return true;
}

bool json_read(json_t **out, const char *text, size_t size, const char *name, size_t first_line,
               struct error *err) {
    json_error_t cause;
    *out = NULL;
    if (!nesting_ok(text, size))
        return error_set(err, ERROR_INPUT, "json", "%s:%zu: nested deeper than %d levels", name, first_line,
                         deepest);
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &cause);
    if (*out) return true;
    size_t line = first_line + (cause.line > 0 ? (size_t)cause.line - 1 : 0);
    error_set(err, ERROR_INPUT, "json", "%s:%zu: broken JSON", name, line);
    return error_why(err, "%s (column %d)", cause.text, cause.column);
}

bool json_read_file(json_t **out, const char *path, size_t limit, struct error *err) {
    struct buf text = {0};
    bool ok = fs_read(path, limit, &text, err) && json_read(out, text.data, text.size, path, 1, err);
    buf_release(&text);
    return ok;
}

json_t *json_text(const char *text) {
    struct buf escaped = {0};
    size_t size = strlen(text);
    if (utf8_valid(text, size, NULL)) return json_stringn(text, size);
    text_escape(&escaped, text, size, true);
    json_t *out = escaped.failed ? NULL : json_string(escaped.data);
    buf_release(&escaped);
    return out;
}

static int append(const char *bytes, size_t size, void *user) {
    return buf_append(user, bytes, size) ? 0 : -1;
}

static bool write_flags(const json_t *value, struct buf *out, size_t flags, struct error *err) {
    if (json_dump_callback(value, append, out, flags | JSON_ENCODE_ANY) == 0) return true;
    return error_no_memory(err, "json", out->size);
}

bool json_write(const json_t *value, struct buf *out, struct error *err) {
    return write_flags(value, out, JSON_COMPACT | JSON_REAL_PRECISION(17), err);
}

bool json_write_file(const json_t *value, const char *path, bool pretty, struct error *err) {
    struct buf text = {0};
    bool ok =
        write_flags(value, &text, (pretty ? JSON_INDENT(2) : JSON_COMPACT) | JSON_REAL_PRECISION(17), err) &&
        (buf_byte(&text, '\n') || error_no_memory(err, "json", text.size)) &&
        fs_write_atomic(path, text.data, text.size, err);
    buf_release(&text);
    return ok;
}
