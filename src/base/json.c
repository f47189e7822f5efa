#include "base/json.h"

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"

enum { deepest = 256 };

/* jansson takes no notice of a request for memory that fails while it gathers a token: it reads on with a
 * token that is cut short, past the end of its own buffer where a quote is missing. So its requests pass
 * base/mem, which counts failures; one that fails during json_read is answered from a reserve that was asked
 * for before, the text ends there for jansson, and what it made is dropped. Elsewhere a failure is a failure:
 * jansson looks.
 *
 * The blocks are malloc's as before. A program that has given jansson functions of its own keeps them. */
/* What the bytes that jansson has at hand can ask for, at most `[],` or `{},` again and again; and what
 * tables and tokens that grew with the text may grow once more. */
enum { at_hand = 1024, per_byte_at_hand = 96, per_byte = 16, token_least = 1024 };

static _Thread_local struct {
    unsigned char *bytes; /* NULL: nothing is being read */
    size_t size, used;
} reserve;

static void *request(size_t size) {
    size_t padded;
    void *block = mem_alloc(size);
    if (block || !reserve.bytes || !checked_size_add(size, 15, &padded)) return block;
    padded &= ~(size_t)15;
    if (padded > reserve.size - reserve.used) return NULL;
    block = reserve.bytes + reserve.used;
    reserve.used += padded;
    return block;
}

static void release(void *block) {
    uintptr_t at = (uintptr_t)block, first = (uintptr_t)reserve.bytes;
    if (!reserve.bytes || at < first || at >= first + reserve.size) mem_free(block);
}

static void route_requests(void) {
    json_malloc_t allocate;
    json_free_t give_back;
    json_get_alloc_funcs(&allocate, &give_back);
    if (allocate == malloc && give_back == free) json_set_alloc_funcs(request, release);
}

static bool reserve_open(size_t size) {
    static pthread_once_t routed = PTHREAD_ONCE_INIT;
    size_t total, few = (size < at_hand ? size : at_hand) * per_byte_at_hand + token_least;
    pthread_once(&routed, route_requests);
    if (!checked_size_mul(size, per_byte, &total) || !checked_size_add(total, few, &total)) return false;
    reserve.bytes = mem_alloc(total);
    reserve.size = total;
    reserve.used = 0;
    return reserve.bytes != NULL;
}

static void reserve_close(void) {
    mem_free(reserve.bytes);
    reserve.bytes = NULL;
}

struct source {
    const char *at, *end;
    unsigned long failures; /* before the first byte */
};

/* jansson's reader: the next bytes, and an error once a request has failed. */
static size_t read_source(void *bytes, size_t size, void *user) {
    struct source *source = user;
    size_t left = (size_t)(source->end - source->at);
    if (mem_failures() != source->failures) return (size_t)-1;
    if (size > left) size = left;
    if (size) memcpy(bytes, source->at, size);
    source->at += size;
    return size;
}

static json_t *load_text(const char *text, size_t size, json_error_t *cause) {
    struct source source = {text, text + size, mem_failures()};
    return json_load_callback(read_source, &source, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL,
                              cause);
}

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

static size_t digits_at(const char *text, size_t size) {
    size_t count = 0;
    while (count < size && text[count] >= '0' && text[count] <= '9') count++;
    return count;
}

/* True when the integer of `count` digits at `text` does not fit into 64 bits with a sign. */
static bool is_too_big(const char *text, size_t count, bool negative) {
    const char *most = negative ? "9223372036854775808" : "9223372036854775807";
    size_t digits = strlen(most);
    return count > digits || (count == digits && memcmp(text, most, digits) > 0);
}

/* The end of the next integer that does not fit; 0: there is none. text[from] is outside of a string. */
static size_t wide_integer_end(const char *text, size_t size, size_t from) {
    bool in_string = false;
    for (size_t i = from; i < size; i++) {
        size_t count = in_string ? 0 : digits_at(text + i, size - i);
        if (!count) {
            if (in_string && text[i] == '\\')
                i++;
            else if (text[i] == '"')
                in_string = !in_string;
            continue;
        }
        char behind = i + count < size ? text[i + count] : '\0', before = i ? text[i - 1] : '\0';
        bool whole = !strchr(".eE", behind) || !behind; /* and not the digits of a fraction or an exponent */
        whole = whole && (!before || !strchr(".eE+", before));
        if (whole && is_too_big(text + i, count, before == '-')) return i + count;
        i += count - 1;
    }
    return 0;
}

bool json_has_wide_integer(const char *text, size_t size) { return wide_integer_end(text, size, 0) != 0; }

/* The text again, with `.0` behind each integer that is too big for one. */
static void write_widened(struct buf *out, const char *text, size_t size) {
    size_t at = 0;
    for (size_t end; (end = wide_integer_end(text, size, at)) != 0; at = end) {
        buf_append(out, text + at, end - at);
        buf_text(out, ".0");
    }
    buf_append(out, text + at, size - at);
}

/* transformers writes `"model_max_length": 1000000000000000019884624838656` where a tokenizer has no bound,
 * and data sets have ids of more than 64 bits. jansson refuses such an integer: it is read as a real. */
static json_t *load(const char *text, size_t size, json_error_t *cause) {
    json_t *value = load_text(text, size, cause);
    if (value || json_error_code(cause) != json_error_numeric_overflow) return value;
    struct buf widened = {0};
    write_widened(&widened, text, size);
    if (!widened.failed && widened.size > size) value = load_text(widened.data, widened.size, cause);
    buf_release(&widened);
    return value;
}

static bool refuse_bytes(const char *text, size_t bad, const char *name, size_t line, struct error *err) {
    for (size_t i = 0; i < bad; i++) line += text[i] == '\n';
    return error_set(err, ERROR_INPUT, "json", "%s:%zu: not valid UTF-8", name, line);
}

bool json_read(json_t **out, const char *text, size_t size, const char *name, size_t first_line,
               struct error *err) {
    json_error_t cause;
    *out = NULL;
    if (!nesting_ok(text, size))
        return error_set(err, ERROR_INPUT, "json", "%s:%zu: nested deeper than %d levels", name, first_line,
                         deepest);
    unsigned long failures = mem_failures();
    if (!reserve_open(size)) return error_no_memory(err, "json", size);
    *out = load(text, size, &cause);
    bool failed = mem_failures() != failures;
    if (failed) {
        json_decref(*out);
        *out = NULL;
    }
    reserve_close();
    if (failed) return error_no_memory(err, "json", size);
    if (*out) return true;
    size_t line = first_line + (cause.line > 0 ? (size_t)cause.line - 1 : 0), bad;
    if (!utf8_valid(text, size, &bad)) return refuse_bytes(text, bad, name, first_line, err);
    bool too_large = json_error_code(&cause) == json_error_numeric_overflow;
    error_set(err, ERROR_INPUT, "json", "%s:%zu: %s", name, line,
              too_large ? "a number is out of range" : "broken JSON");
    return error_why(err, "%s (column %d)", cause.text, cause.column);
}

bool json_read_file(json_t **out, const char *path, size_t limit, struct error *err) {
    struct buf text = {0};
    bool ok = fs_read(path, limit, &text, err);
    size_t mark = ok ? utf8_mark(text.data, text.size) : 0;
    const char *begin = mark ? text.data + mark : text.data;
    ok = ok && json_read(out, begin, text.size - mark, path, 1, err);
    buf_release(&text);
    return ok;
}

json_t *json_number(double number) { return isfinite(number) ? json_real(number) : json_null(); }

json_t *json_text(const char *text) {
    struct buf escaped = {0};
    size_t size = strlen(text);
    if (utf8_valid(text, size, NULL)) return json_stringn(text, size);
    text_escape(&escaped, text, size, true);
    json_t *out = escaped.failed ? NULL : json_string(escaped.data);
    buf_release(&escaped);
    return out;
}

/* jansson releases the value when it fails, and also when the container is NULL. */
void json_list_add(json_t **list, json_t *value) {
    if (json_array_append_new(*list, value) == 0) return;
    json_decref(*list);
    *list = NULL;
}

void json_object_put(json_t **object, const char *key, json_t *value) {
    if (json_object_set_new(*object, key, value) == 0) return;
    json_decref(*object);
    *object = NULL;
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
