/* Texts: UTF-8 that is indexed by code points, as Python's str is. */
#include <string.h>

#include <utf8proc.h>

#include "text/template_internal.h"

bool jinja_text_view(struct jinja *j, const char *bytes, size_t size, struct jinja_value *out) {
    struct jinja_text *text = jinja_alloc(j, sizeof *text);
    if (!text) return false;
    *text = (struct jinja_text){.bytes = bytes, .size = size, .length = SIZE_MAX};
    *out = (struct jinja_value){.kind = JINJA_TEXT, .text = text};
    return true;
}

bool jinja_text(struct jinja *j, const char *bytes, size_t size, struct jinja_value *out) {
    char *copy = jinja_alloc(j, size);
    if (!copy || !jinja_charge(j, size / 64)) return false;
    if (size) memcpy(copy, bytes, size);
    return jinja_text_view(j, copy, size, out);
}

void jinja_buf(const struct jinja *j, struct buf *buf) {
    size_t used = j->values.used < j->limits.memory ? j->values.used : j->limits.memory;
    buf_init(buf, j->limits.memory - used + 1);
}

/* Steps for asking the system for a buffer and giving it back. */
enum { buffer_cost = 8 };

bool jinja_text_take(struct jinja *j, struct buf *buf, struct jinja_value *out) {
    bool ok = !buf->failed || jinja_refuse_values(j, buf->full);
    ok = ok && jinja_charge(j, buffer_cost) && jinja_text(j, buf->data ? buf->data : "", buf->size, out);
    buf_release(buf);
    return ok;
}

bool jinja_text_append(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *out) {
    struct jinja_text *x = a.text, *y = b.text;
    struct jinja_tail *tail = x->tail;
    if (x->size > SIZE_MAX / 4 || y->size > SIZE_MAX / 4 || !jinja_charge(j, y->size / 64)) return false;
    if (!tail || x->bytes + x->size != tail->bytes + tail->used || tail->capacity - tail->used < y->size) {
        size_t total = x->size + y->size;
        tail = jinja_alloc(j, sizeof *tail);
        if (!tail || !jinja_charge(j, x->size / 64)) return false;
        tail->capacity = total < 256 ? total : total + total / 2;
        if (tail->capacity > j->limits.memory) tail->capacity = total;
        if (!(tail->bytes = jinja_alloc(j, tail->capacity))) return false;
        if (x->size) memcpy(tail->bytes, x->bytes, x->size);
        tail->used = x->size;
    }
    if (y->size) memcpy(tail->bytes + tail->used, y->bytes, y->size);
    tail->used += y->size;
    if (!jinja_text_view(j, tail->bytes, x->size + y->size, out)) return false;
    out->text->tail = tail;
    out->text->markup = x->markup || y->markup;
    return true;
}

/* Values are not shared between renders, but constants of the template are: those are counted when
 * parsed, so that this writes only to what the render made. */
bool jinja_text_length(struct jinja *j, struct jinja_text *text, size_t *out) {
    if (text->length == SIZE_MAX) {
        size_t n = 0;
        for (size_t i = 0; i < text->size; i++) n += (text->bytes[i] & 0xC0) != 0x80;
        text->length = n;
        if (!jinja_charge(j, text->size / 64)) return false;
    }
    *out = text->length;
    return true;
}

static size_t char_size(const char *bytes) {
    unsigned char c = (unsigned char)*bytes;
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

/* The byte offset of code point `index`, which is at most the length. */
static bool offset_of(struct jinja *j, struct jinja_text *text, size_t index, size_t *out) {
    size_t length, at = 0;
    if (!jinja_text_length(j, text, &length)) return false;
    if (length == text->size)
        at = index;
    else {
        if (!jinja_charge(j, index / 3)) return false;
        for (size_t i = 0; i < index; i++) at += char_size(text->bytes + at);
    }
    *out = at;
    return true;
}

static bool piece(struct jinja *j, const struct jinja_text *text, size_t at, size_t size,
                  struct jinja_value *out) {
    if (!jinja_text_view(j, text->bytes + at, size, out)) return false;
    out->text->markup = text->markup;
    return true;
}

bool jinja_text_at(struct jinja *j, struct jinja_text *text, size_t index, struct jinja_value *out) {
    size_t at;
    return offset_of(j, text, index, &at) && piece(j, text, at, char_size(text->bytes + at), out);
}

bool jinja_text_slice(struct jinja *j, struct jinja_text *text, int64_t start, int64_t step, size_t count,
                      struct jinja_value *out) {
    size_t from, to, length;
    if (!count) return piece(j, text, 0, 0, out);
    if (step == 1)
        return offset_of(j, text, (size_t)start, &from) && offset_of(j, text, (size_t)start + count, &to) &&
               piece(j, text, from, to - from, out);
    if (!jinja_text_length(j, text, &length) || !jinja_charge(j, length / 4)) return false;
    size_t *offsets = jinja_alloc_array(j, length, sizeof *offsets);
    struct buf made;
    jinja_buf(j, &made);
    if (!offsets) return false;
    for (size_t i = 0, at = 0; i < length; at += char_size(text->bytes + at), i++) offsets[i] = at;
    for (size_t i = 0; i < count; i++, start += step) {
        const char *c = text->bytes + offsets[start];
        buf_append(&made, c, char_size(c));
    }
    if (!jinja_text_take(j, &made, out)) return false;
    out->text->markup = text->markup;
    return true;
}

bool jinja_text_chars(struct jinja *j, struct jinja_text *text, struct jinja_list **out) {
    size_t length;
    if (!jinja_text_length(j, text, &length) || !jinja_charge(j, length)) return false;
    struct jinja_list *list = *out = jinja_list_new(j, length);
    if (!list) return false;
    for (size_t at = 0; at < text->size; at += char_size(text->bytes + at)) {
        struct jinja_value item;
        if (!jinja_text_view(j, text->bytes + at, char_size(text->bytes + at), &item)) return false;
        if (!jinja_list_add(j, list, item)) return false;
    }
    return true;
}

/* str.isspace() of one code point. */
bool jinja_is_space(uint32_t c) {
    if (c <= 0x20) return c == 0x20 || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
    return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
           c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool strips(const char *at, size_t size, const struct jinja_text *chars) {
    uint32_t code;
    if (!chars && !(*at & 0x80)) return jinja_is_space((unsigned char)*at);
    if (!chars) return utf8_decode(at, size, &code) && jinja_is_space(code);
    for (size_t i = 0; i < chars->size; i += char_size(chars->bytes + i))
        if (char_size(chars->bytes + i) == size && memcmp(chars->bytes + i, at, size) == 0) return true;
    return false;
}

void jinja_strip(const char **bytes, size_t *size, const struct jinja_text *chars, bool left, bool right) {
    const char *b = *bytes, *end = b + *size;
    while (left && b < end && strips(b, char_size(b), chars)) b += char_size(b);
    while (right && end > b) {
        const char *last = end - 1;
        while (last > b && (*last & 0xC0) == 0x80) last--;
        if (!strips(last, (size_t)(end - last), chars)) break;
        end = last;
    }
    *bytes = b;
    *size = (size_t)(end - b);
}

static bool is_cased(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

/* A sigma at the end of a word becomes ς: a letter stands before it and none behind. */
static bool is_final_sigma(const char *bytes, size_t size, size_t at) {
    uint32_t code;
    size_t i = at;
    bool before = false;
    while (i && !before) {
        do i--;
        while (i && (bytes[i] & 0xC0) == 0x80);
        utf8_decode(bytes + i, size - i, &code);
        before = is_cased(code);
        if (!before && code != '\'' && code != 0xAD &&
            utf8proc_category((utf8proc_int32_t)code) != UTF8PROC_CATEGORY_MN)
            break;
    }
    if (!before) return false;
    for (i = at + 2; i < size; i += char_size(bytes + i)) {
        utf8_decode(bytes + i, size - i, &code);
        if (is_cased(code)) return false;
        if (code != '\'' && code != 0xAD && utf8proc_category((utf8proc_int32_t)code) != UTF8PROC_CATEGORY_MN)
            break;
    }
    return true;
}

static void put(struct buf *out, uint32_t code) {
    char bytes[4];
    buf_append(out, bytes, (size_t)utf8_encode(code, bytes));
}

bool jinja_case_map(struct jinja *j, const struct jinja_text *text, size_t from, size_t to,
                    enum jinja_case how, struct buf *out) {
    const char *bytes = text->bytes;
    size_t size = text->size;
    if (!jinja_charge(j, to - from)) return false;
    for (size_t i = from; i < to;) {
        uint32_t code = 0;
        int n = utf8_decode(bytes + i, size - i, &code);
        const char *special =
            how != JINJA_LOWER && code >= 0x80 ? jinja_special_case(code, how == JINJA_TITLE) : NULL;
        if (special)
            buf_text(out, special);
        else if (how == JINJA_LOWER && code == 0x130)
            buf_text(out, "i\xCC\x87");
        else if (how == JINJA_LOWER && code == 0x3A3)
            put(out, is_final_sigma(bytes, size, i) ? 0x3C2 : 0x3C3);
        else if (code < 0x80) {
            bool change = how == JINJA_LOWER ? code >= 'A' && code <= 'Z' : code >= 'a' && code <= 'z';
            buf_byte(out, (char)(change ? code ^ 0x20 : code));
        } else {
            utf8proc_int32_t c = (utf8proc_int32_t)code;
            put(out, (uint32_t)(how == JINJA_LOWER   ? utf8proc_tolower(c)
                                : how == JINJA_UPPER ? utf8proc_toupper(c)
                                                     : utf8proc_totitle(c)));
        }
        i += (size_t)n;
    }
    return true;
}

bool jinja_escape(const char *bytes, size_t size, struct buf *out) {
    for (size_t i = 0; i < size; i++) {
        switch (bytes[i]) {
        case '&': buf_text(out, "&amp;"); break;
        case '<': buf_text(out, "&lt;"); break;
        case '>': buf_text(out, "&gt;"); break;
        case '"': buf_text(out, "&#34;"); break;
        case '\'': buf_text(out, "&#39;"); break;
        default: buf_byte(out, bytes[i]);
        }
    }
    return !out->failed;
}

bool jinja_text_is(struct jinja_value value, const char *literal) {
    return value.kind == JINJA_TEXT && value.text->size == strlen(literal) &&
           memcmp(value.text->bytes, literal, value.text->size) == 0;
}

size_t jinja_text_find(const char *text, size_t size, const char *part, size_t part_size) {
    if (!part_size) return 0;
    const char *found = memmem(text, size, part, part_size);
    return found ? (size_t)(found - text) : SIZE_MAX;
}

bool jinja_replace(struct jinja *j, const struct jinja_text *text, const struct jinja_text *old,
                   const struct jinja_text *with, int64_t count, struct jinja_value *out) {
    struct buf made;
    size_t at = 0;
    bool ok = true;
    jinja_buf(j, &made);
    if (!jinja_charge(j, text->size / 16)) return false;
    for (int64_t n = 0; (count < 0 || n < count) && !made.failed && ok; n++) {
        ok = jinja_charge(j, 4);
        size_t found = jinja_text_find(text->bytes + at, text->size - at, old->bytes, old->size);
        if (found == SIZE_MAX) break;
        buf_append(&made, text->bytes + at, found);
        buf_append(&made, with->bytes, with->size);
        at += found + old->size;
        if (!old->size) { /* between all characters, and at the end */
            if (at == text->size) break;
            buf_append(&made, text->bytes + at, char_size(text->bytes + at));
            at += char_size(text->bytes + at);
        }
    }
    buf_append(&made, text->bytes + at, text->size - at);
    if (!ok) buf_release(&made);
    if (!ok || !jinja_text_take(j, &made, out)) return false;
    out->text->markup = text->markup;
    return true;
}

/* Whether a line ends at `at`, and where the next begins. */
static bool line_ends(const struct jinja_text *text, size_t at, size_t *next) {
    uint32_t code = 0;
    *next = at + char_size(text->bytes + at);
    utf8_decode(text->bytes + at, text->size - at, &code);
    if (code == '\r' && *next < text->size && text->bytes[*next] == '\n') ++*next;
    return (code >= 10 && code <= 13) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
           code == 0x2029;
}

bool jinja_splitlines(struct jinja *j, const struct jinja_text *text, bool keep, struct jinja_list **out) {
    struct jinja_list *list = *out = jinja_list_new(j, 4);
    size_t start = 0, next = 0;
    if (!list || !jinja_charge(j, text->size / 8)) return false;
    for (size_t at = 0; at < text->size; at = next) {
        bool ends = line_ends(text, at, &next);
        struct jinja_value line;
        if (!ends && next < text->size) continue;
        if (!piece(j, text, start, (ends && !keep ? at : next) - start, &line) ||
            !jinja_list_add(j, list, line))
            return false;
        start = next;
    }
    return true;
}
