/* The methods of str, list, tuple, dict, range, loop and cycler that a template may call. Those that
 * would change a value are known, and forbidden, as in Jinja2's immutable sandbox. */
#include <string.h>

#include <utf8proc.h>

#include "text/template_internal.h"

#define METHOD(name) static bool name(struct jinja *j, const struct jinja_call *c, struct jinja_value *out)

static bool finish(struct jinja *j, bool ok, struct buf *made, bool markup, struct jinja_value *out) {
    if (!ok) {
        buf_release(made);
        return false;
    }
    if (!jinja_text_take(j, made, out)) return false;
    out->text->markup = markup;
    return true;
}

/* A part of a text, sharing its bytes. */
static bool part_of(struct jinja *j, const struct jinja_text *text, size_t at, size_t size,
                    struct jinja_value *out) {
    if (!jinja_text_view(j, text->bytes + at, size, out)) return false;
    out->text->markup = text->markup;
    return true;
}

static bool given(const struct jinja_call *c, int index) {
    return c->a[index].kind != JINJA_ABSENT && c->a[index].kind != JINJA_NONE;
}

/* ---- case and stripping ------------------------------------------------------------------------ */

static bool mapped(struct jinja *j, const struct jinja_call *c, enum jinja_case first, enum jinja_case rest,
                   struct jinja_value *out) {
    const struct jinja_text *t = c->self.text;
    struct buf made;
    uint32_t code;
    size_t head = t->size && first != rest ? (size_t)utf8_decode(t->bytes, t->size, &code) : 0;
    jinja_buf(j, &made);
    bool ok = jinja_case_map(j, t, 0, head, first, &made) && jinja_case_map(j, t, head, t->size, rest, &made);
    return finish(j, ok, &made, t->markup, out);
}

METHOD(text_upper) { return mapped(j, c, JINJA_UPPER, JINJA_UPPER, out); }
METHOD(text_lower) { return mapped(j, c, JINJA_LOWER, JINJA_LOWER, out); }
METHOD(text_capitalize) { return mapped(j, c, JINJA_TITLE, JINJA_LOWER, out); }

METHOD(text_casefold) {
    const struct jinja_text *t = c->self.text;
    struct buf made;
    int boundary = 0;
    bool ok = jinja_charge(j, t->size * 2);
    jinja_buf(j, &made);
    for (size_t i = 0; i < t->size && ok;) {
        utf8proc_int32_t folded[4];
        uint32_t code = 0;
        char bytes[4];
        i += (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        utf8proc_ssize_t n =
            utf8proc_decompose_char((utf8proc_int32_t)code, folded, 4, UTF8PROC_CASEFOLD, &boundary);
        for (utf8proc_ssize_t k = 0; k < n && k < 4; k++)
            buf_append(&made, bytes, (size_t)utf8_encode((uint32_t)folded[k], bytes));
    }
    return finish(j, ok, &made, t->markup, out);
}

/* Tabs become spaces up to the next column that is a multiple of `tabsize`. */
METHOD(text_expandtabs) {
    const struct jinja_text *t = c->self.text;
    struct buf made;
    int64_t width, column = 0;
    bool ok = true;
    if (!jinja_arg_int(j, c, 0, 8, &width)) return false;
    jinja_buf(j, &made);
    for (size_t i = 0; i < t->size && ok && !made.failed; i++) {
        char byte = t->bytes[i];
        int64_t spaces = byte == '\t' && width > 0 ? width - column % width : 0;
        ok = jinja_charge(j, 1 + (uint64_t)spaces / 8);
        for (int64_t n = 0; n < spaces && ok && !made.failed; n++) buf_byte(&made, ' ');
        if (byte != '\t') buf_byte(&made, byte);
        column = byte == '\n' || byte == '\r' ? 0 : column + spaces + (byte != '\t' && (byte & 0xC0) != 0x80);
    }
    return finish(j, ok, &made, t->markup, out);
}

static bool is_letter(uint32_t code) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)code);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

/* str.title(): a capital after everything that has no case. */
METHOD(text_title) {
    const struct jinja_text *t = c->self.text;
    struct buf made;
    bool ok = true, inside = false;
    jinja_buf(j, &made);
    for (size_t i = 0; i < t->size && ok;) {
        uint32_t code = 0;
        size_t n = (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        ok = jinja_step(j) && jinja_case_map(j, t, i, i + n, inside ? JINJA_LOWER : JINJA_TITLE, &made);
        inside = is_letter(code);
        i += n;
    }
    return finish(j, ok, &made, t->markup, out);
}

METHOD(text_swapcase) {
    const struct jinja_text *t = c->self.text;
    struct buf made;
    bool ok = true;
    jinja_buf(j, &made);
    for (size_t i = 0; i < t->size && ok;) {
        uint32_t code = 0;
        size_t n = (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        bool upper = utf8proc_category((utf8proc_int32_t)code) == UTF8PROC_CATEGORY_LU;
        ok = jinja_step(j) && jinja_case_map(j, t, i, i + n, upper ? JINJA_LOWER : JINJA_UPPER, &made);
        i += n;
    }
    return finish(j, ok, &made, t->markup, out);
}

static bool stripped(struct jinja *j, const struct jinja_call *c, bool left, bool right,
                     struct jinja_value *out) {
    struct jinja_text *chars = NULL;
    const char *bytes = c->self.text->bytes;
    size_t size = c->self.text->size;
    if (given(c, 0) && !jinja_arg_text(j, c, 0, &chars)) return false;
    if (!jinja_charge(j, size / 64)) return false;
    jinja_strip(&bytes, &size, chars, left, right);
    size_t removed = c->self.text->size - size;
    return jinja_charge(j, removed * (chars ? chars->size / 4 + 1 : 1) / 2) &&
           part_of(j, c->self.text, (size_t)(bytes - c->self.text->bytes), size, out);
}

METHOD(text_strip) { return stripped(j, c, true, true, out); }
METHOD(text_lstrip) { return stripped(j, c, true, false, out); }
METHOD(text_rstrip) { return stripped(j, c, false, true, out); }

METHOD(text_removeprefix) {
    struct jinja_text *t = c->self.text, *prefix;
    if (!jinja_arg_text(j, c, 0, &prefix)) return false;
    bool has = t->size >= prefix->size && memcmp(t->bytes, prefix->bytes, prefix->size) == 0;
    return part_of(j, t, has ? prefix->size : 0, t->size - (has ? prefix->size : 0), out);
}

METHOD(text_removesuffix) {
    struct jinja_text *t = c->self.text, *suffix;
    if (!jinja_arg_text(j, c, 0, &suffix)) return false;
    bool has = t->size >= suffix->size &&
               memcmp(t->bytes + t->size - suffix->size, suffix->bytes, suffix->size) == 0;
    return part_of(j, t, 0, t->size - (has ? suffix->size : 0), out);
}

/* ---- splitting and joining --------------------------------------------------------------------- */

static bool push(struct jinja *j, struct jinja_list *list, const struct jinja_text *t, size_t at,
                 size_t size) {
    struct jinja_value part;
    return part_of(j, t, at, size, &part) && jinja_list_add(j, list, part);
}

static size_t char_before(const char *bytes, size_t at) {
    do at--;
    while (at && (bytes[at] & 0xC0) == 0x80);
    return at;
}

static bool space_at(const struct jinja_text *t, size_t at, size_t *n) {
    uint32_t code = 0;
    *n = (size_t)utf8_decode(t->bytes + at, t->size - at, &code);
    return jinja_is_space(code);
}

/* At runs of white space, from the left or the right; the ends give no empty parts. */
static bool split_space(struct jinja *j, const struct jinja_text *t, int64_t most, struct jinja_list *list) {
    size_t n, at = 0;
    for (;;) {
        while (at < t->size && space_at(t, at, &n)) at += n;
        if (at >= t->size) return true;
        if (most-- == 0) return push(j, list, t, at, t->size - at);
        size_t start = at;
        while (at < t->size && !space_at(t, at, &n)) at += n;
        if (!push(j, list, t, start, at - start)) return false;
    }
}

static bool rsplit_space(struct jinja *j, const struct jinja_text *t, int64_t most, struct jinja_list *list) {
    size_t n, end = t->size;
    for (;;) {
        while (end && space_at(t, char_before(t->bytes, end), &n)) end = char_before(t->bytes, end);
        if (!end) return true;
        if (most-- == 0) return push(j, list, t, 0, end);
        size_t stop = end;
        while (end && !space_at(t, char_before(t->bytes, end), &n)) end = char_before(t->bytes, end);
        if (!push(j, list, t, end, stop - end)) return false;
    }
}

/* The last place of `part` in the first `size` bytes, or SIZE_MAX. */
static size_t find_last(const char *text, size_t size, const char *part, size_t part_size) {
    if (!part_size) return size;
    while (size >= part_size) { /* the last byte of the part, from the right */
        const char *last = memrchr(text + part_size - 1, part[part_size - 1], size - part_size + 1);
        if (!last) break;
        size_t end = (size_t)(last - text) + 1;
        if (memcmp(text + end - part_size, part, part_size) == 0) return end - part_size;
        size = end - 1;
    }
    return SIZE_MAX;
}

/* What find_last may cost on `size` bytes: a comparison at every place. */
static uint64_t find_last_cost(size_t size, size_t part_size) {
    return (uint64_t)size * (1 + part_size / 64) / 2;
}

static bool split_by(struct jinja *j, const struct jinja_text *t, const struct jinja_text *by, int64_t most,
                     bool right, struct jinja_list *list) {
    size_t start = 0, end = t->size;
    while (most-- != 0) {
        size_t at = right ? find_last(t->bytes, end, by->bytes, by->size)
                          : jinja_text_find(t->bytes + start, t->size - start, by->bytes, by->size);
        if (at == SIZE_MAX) break;
        if (!right) at += start;
        if (!(right ? push(j, list, t, at + by->size, end - at - by->size)
                    : push(j, list, t, start, at - start)))
            return false;
        if (right)
            end = at;
        else
            start = at + by->size;
    }
    return push(j, list, t, start, end - start);
}

static bool split(struct jinja *j, const struct jinja_call *c, bool right, struct jinja_value *out) {
    const struct jinja_text *t = c->self.text;
    struct jinja_text *by;
    struct jinja_list *list = jinja_list_new(j, 4);
    int64_t most;
    bool ok;
    if (!list || !jinja_arg_int(j, c, 1, -1, &most) || !jinja_charge(j, t->size / 8)) return false;
    if (!given(c, 0)) {
        ok = right ? rsplit_space(j, t, most, list) : split_space(j, t, most, list);
    } else {
        if (!jinja_arg_text(j, c, 0, &by)) return false;
        if (!by->size) return jinja_fail(j, "empty separator");
        if (right && !jinja_charge(j, find_last_cost(t->size, by->size))) return false;
        ok = split_by(j, t, by, most, right, list);
    }
    for (size_t i = 0; right && i < list->count / 2; i++) {
        struct jinja_value swap = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = swap;
    }
    *out = jinja_of_list(JINJA_LIST, list);
    return ok;
}

METHOD(text_split) { return split(j, c, false, out); }
METHOD(text_rsplit) { return split(j, c, true, out); }

METHOD(text_splitlines) {
    struct jinja_list *list;
    if (!jinja_splitlines(j, c->self.text, jinja_arg_flag(c, 0, false), &list)) return false;
    *out = jinja_of_list(JINJA_LIST, list);
    return true;
}

static bool partition(struct jinja *j, const struct jinja_call *c, bool right, struct jinja_value *out) {
    const struct jinja_text *t = c->self.text;
    struct jinja_text *by;
    struct jinja_list *list = jinja_list_new(j, 3);
    if (!list || !jinja_arg_text(j, c, 0, &by) || !jinja_charge(j, t->size / 8)) return false;
    if (!by->size) return jinja_fail(j, "empty separator");
    if (right && !jinja_charge(j, find_last_cost(t->size, by->size))) return false;
    size_t at = right ? find_last(t->bytes, t->size, by->bytes, by->size)
                      : jinja_text_find(t->bytes, t->size, by->bytes, by->size);
    bool found = at != SIZE_MAX;
    size_t head = found ? at : right ? 0 : t->size, tail = found ? at + by->size : right ? 0 : t->size;
    *out = jinja_of_list(JINJA_TUPLE, list);
    return push(j, list, t, 0, head) && push(j, list, t, head, tail - head) &&
           push(j, list, t, tail, t->size - tail);
}

METHOD(text_partition) { return partition(j, c, false, out); }
METHOD(text_rpartition) { return partition(j, c, true, out); }

METHOD(text_join) {
    struct jinja_seq seq;
    struct buf made;
    if (!jinja_seq_open(j, c->a[0], &seq)) return false;
    jinja_buf(j, &made);
    bool ok = true;
    for (size_t i = 0; i < seq.count && ok && !made.failed; i++) {
        struct jinja_value item = jinja_seq_item(&seq, i);
        if (i) buf_append(&made, c->self.text->bytes, c->self.text->size);
        ok = jinja_step(j) &&
             (item.kind == JINJA_TEXT ||
              jinja_fail(j, "sequence item %zu: expected str instance, %s found", i, jinja_type_name(item)));
        if (ok) buf_append(&made, item.text->bytes, item.text->size);
    }
    return finish(j, ok, &made, false, out);
}

METHOD(text_replace) {
    struct jinja_text *old, *with;
    int64_t count;
    if (!jinja_arg_text(j, c, 0, &old) || !jinja_arg_text(j, c, 1, &with) ||
        !jinja_arg_int(j, c, 2, -1, &count))
        return false;
    return jinja_replace(j, c->self.text, old, with, count, out);
}

METHOD(text_format) { return jinja_format(j, c->self.text, c->raw, out); }

/* ---- searching --------------------------------------------------------------------------------- */

static int64_t bound(int64_t index, int64_t length) {
    if (index < 0) index = index < -length ? 0 : index + length;
    return index > length ? length : index;
}

/* The bytes of text[start:end], from the arguments `first` and `first` + 1. *valid: start <= length,
 * without which not even an empty text is found. */
static bool window(struct jinja *j, const struct jinja_call *c, int first, struct jinja_value *out,
                   int64_t *start, bool *valid) {
    size_t length;
    int64_t from, to;
    if (!jinja_text_length(j, c->self.text, &length)) return false;
    from = 0;
    to = (int64_t)length;
    if (given(c, first) && !jinja_arg_int(j, c, first, 0, &from)) return false;
    if (given(c, first + 1) && !jinja_arg_int(j, c, first + 1, 0, &to)) return false;
    *valid = from <= (int64_t)length;
    from = bound(from, (int64_t)length);
    to = bound(to, (int64_t)length);
    *valid = *valid && from <= to;
    *start = from;
    return jinja_text_slice(j, c->self.text, from, 1, to > from ? (size_t)(to - from) : 0, out) &&
           jinja_charge(j, out->text->size / 8);
}

static bool find(struct jinja *j, const struct jinja_call *c, bool last, bool must, struct jinja_value *out) {
    struct jinja_text *part;
    struct jinja_value text;
    int64_t start;
    bool valid;
    if (!jinja_arg_text(j, c, 0, &part) || !window(j, c, 1, &text, &start, &valid)) return false;
    const struct jinja_text *t = text.text;
    if (last && !jinja_charge(j, find_last_cost(t->size, part->size))) return false;
    size_t at = !valid ? SIZE_MAX
                : last ? find_last(t->bytes, t->size, part->bytes, part->size)
                       : jinja_text_find(t->bytes, t->size, part->bytes, part->size);
    if (at == SIZE_MAX && must) return jinja_fail(j, "substring not found");
    *out = jinja_int(-1);
    if (at == SIZE_MAX) return true;
    for (size_t i = 0; i < at; i++) start += (t->bytes[i] & 0xC0) != 0x80;
    *out = jinja_int(start);
    return true;
}

METHOD(text_find) { return find(j, c, false, false, out); }
METHOD(text_rfind) { return find(j, c, true, false, out); }
METHOD(text_index) { return find(j, c, false, true, out); }
METHOD(text_rindex) { return find(j, c, true, true, out); }

METHOD(text_count) {
    struct jinja_text *part;
    struct jinja_value text;
    int64_t start, count = 0;
    bool valid;
    size_t length;
    if (!jinja_arg_text(j, c, 0, &part) || !window(j, c, 1, &text, &start, &valid)) return false;
    if (!jinja_text_length(j, text.text, &length)) return false;
    if (!part->size) count = valid ? (int64_t)length + 1 : 0;
    for (size_t at = 0, found; part->size; at += found + part->size, count++) {
        found = jinja_text_find(text.text->bytes + at, text.text->size - at, part->bytes, part->size);
        if (found == SIZE_MAX) break;
        if (!jinja_step(j)) return false;
    }
    *out = jinja_int(count);
    return true;
}

static bool has_end(struct jinja_text *t, const struct jinja_text *part, bool front) {
    return t->size >= part->size &&
           memcmp(front ? t->bytes : t->bytes + t->size - part->size, part->bytes, part->size) == 0;
}

static bool ends(struct jinja *j, const struct jinja_call *c, bool front, struct jinja_value *out) {
    struct jinja_value text, what = c->a[0];
    int64_t start;
    bool valid, has = false;
    if (!window(j, c, 1, &text, &start, &valid)) return false;
    if (what.kind == JINJA_TUPLE) {
        for (size_t i = 0; i < what.list->count && !has; i++) {
            if (what.list->items[i].kind != JINJA_TEXT)
                return jinja_fail(j, "%s: the tuple must hold texts", c->name);
            has = jinja_step(j) && valid && has_end(text.text, what.list->items[i].text, front);
        }
    } else if (what.kind == JINJA_TEXT) {
        has = valid && has_end(text.text, what.text, front);
    } else {
        return jinja_fail(j, "%s first arg must be str or a tuple of str, not %s", c->name,
                          jinja_type_name(what));
    }
    *out = jinja_bool(has);
    return true;
}

METHOD(text_startswith) { return ends(j, c, true, out); }
METHOD(text_endswith) { return ends(j, c, false, out); }

/* ---- what a text is made of -------------------------------------------------------------------- */

enum class_of {
    CLASS_DIGIT,
    CLASS_DECIMAL,
    CLASS_NUMERIC,
    CLASS_ALPHA,
    CLASS_ALNUM,
    CLASS_SPACE,
    CLASS_ASCII,
    CLASS_PRINTABLE
};

static bool is_digit(uint32_t c, utf8proc_category_t k) {
    return k == UTF8PROC_CATEGORY_ND || c == 0xB2 || c == 0xB3 || c == 0xB9 ||
           (c >= 0x2070 && c <= 0x2089 && k == UTF8PROC_CATEGORY_NO) || (c >= 0x2460 && c <= 0x2468) ||
           (c >= 0x2474 && c <= 0x247C) || (c >= 0x2488 && c <= 0x2490);
}

static bool in_class(uint32_t c, enum class_of class) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    bool letter = k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
    bool number = k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
    switch (class) {
    case CLASS_DECIMAL: return k == UTF8PROC_CATEGORY_ND;
    case CLASS_DIGIT: return is_digit(c, k);
    case CLASS_NUMERIC: return number;
    case CLASS_ALPHA: return letter;
    case CLASS_ALNUM: return letter || number;
    case CLASS_SPACE: return jinja_is_space(c);
    case CLASS_PRINTABLE: return jinja_is_printable(c);
    default: return c < 0x80;
    }
}

static bool all_in(struct jinja *j, const struct jinja_call *c, enum class_of class,
                   struct jinja_value *out) {
    const struct jinja_text *t = c->self.text;
    bool all = t->size != 0 || class == CLASS_ASCII || class == CLASS_PRINTABLE;
    for (size_t i = 0; i < t->size && all;) {
        uint32_t code = 0;
        i += (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        all = in_class(code, class);
    }
    *out = jinja_bool(all);
    return jinja_charge(j, t->size);
}

METHOD(text_isdigit) { return all_in(j, c, CLASS_DIGIT, out); }
METHOD(text_isdecimal) { return all_in(j, c, CLASS_DECIMAL, out); }
METHOD(text_isnumeric) { return all_in(j, c, CLASS_NUMERIC, out); }
METHOD(text_isalpha) { return all_in(j, c, CLASS_ALPHA, out); }
METHOD(text_isalnum) { return all_in(j, c, CLASS_ALNUM, out); }
METHOD(text_isspace) { return all_in(j, c, CLASS_SPACE, out); }
METHOD(text_isascii) { return all_in(j, c, CLASS_ASCII, out); }
METHOD(text_isprintable) { return all_in(j, c, CLASS_PRINTABLE, out); }

static bool one_case(struct jinja *j, const struct jinja_call *c, bool upper, struct jinja_value *out) {
    const struct jinja_text *t = c->self.text;
    bool cased = false, other = false;
    for (size_t i = 0; i < t->size && !other;) {
        uint32_t code = 0;
        i += (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)code);
        cased |= k == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
        other = k == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) || k == UTF8PROC_CATEGORY_LT;
    }
    *out = jinja_bool(cased && !other);
    return jinja_charge(j, t->size);
}

METHOD(text_isupper) { return one_case(j, c, true, out); }
METHOD(text_islower) { return one_case(j, c, false, out); }

METHOD(text_istitle) {
    const struct jinja_text *t = c->self.text;
    bool cased = false, inside = false, ok = true;
    for (size_t i = 0; i < t->size && ok;) {
        uint32_t code = 0;
        i += (size_t)utf8_decode(t->bytes + i, t->size - i, &code);
        utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)code);
        bool capital = k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LT, letter = is_letter(code);
        ok = !letter || capital != inside;
        cased |= letter;
        inside = letter;
    }
    *out = jinja_bool(ok && cased);
    return jinja_charge(j, t->size);
}

/* ---- padding ----------------------------------------------------------------------------------- */

static bool pad(struct jinja *j, const struct jinja_call *c, int side, struct jinja_value *out) {
    struct jinja_text space = {.bytes = " ", .size = 1, .length = 1}, *fill = &space;
    int64_t width;
    size_t length, fill_length;
    struct jinja_value left, right, all;
    if (!jinja_arg_int(j, c, 0, 80, &width) || !jinja_text_length(j, c->self.text, &length)) return false;
    if (c->a[1].kind != JINJA_ABSENT && !jinja_arg_text(j, c, 1, &fill)) return false;
    if (!jinja_text_length(j, fill, &fill_length)) return false;
    if (fill_length != 1) return jinja_fail(j, "the fill character must be exactly one character long");
    int64_t need = width > (int64_t)length ? width - (int64_t)length : 0;
    int64_t before = side < 0 ? 0 : side > 0 ? need : need / 2 + (need & width & 1);
    struct jinja_value filler = {.kind = JINJA_TEXT, .text = fill};
    return jinja_arithmetic(j, OP_MUL, filler, jinja_int(before), &left) &&
           jinja_arithmetic(j, OP_MUL, filler, jinja_int(need - before), &right) &&
           jinja_text_append(j, left, c->self, &all) && jinja_text_append(j, all, right, out);
}

METHOD(text_ljust) { return pad(j, c, -1, out); }
METHOD(text_rjust) { return pad(j, c, 1, out); }
METHOD(text_center) { return pad(j, c, 0, out); }

METHOD(text_zfill) {
    size_t length,
        sign = c->self.text->size && strchr("+-", c->self.text->bytes[0]) && c->self.text->bytes[0] ? 1 : 0;
    int64_t width;
    struct jinja_value zero, head, zeros, tail;
    if (!jinja_arg_int(j, c, 0, 0, &width) || !jinja_text_length(j, c->self.text, &length)) return false;
    *out = c->self;
    if (width <= (int64_t)length) return true;
    return jinja_text(j, "0", 1, &zero) && part_of(j, c->self.text, 0, sign, &head) &&
           part_of(j, c->self.text, sign, c->self.text->size - sign, &tail) &&
           jinja_arithmetic(j, OP_MUL, zero, jinja_int(width - (int64_t)length), &zeros) &&
           jinja_text_append(j, head, zeros, &head) && jinja_text_append(j, head, tail, out);
}

/* ---- lists, dicts, loops ----------------------------------------------------------------------- */

METHOD(list_index) {
    struct jinja_seq seq;
    int64_t from, to;
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (!jinja_arg_int(j, c, 1, 0, &from) || !jinja_arg_int(j, c, 2, INT64_MAX, &to)) return false;
    from = bound(from, (int64_t)seq.count);
    to = bound(to, (int64_t)seq.count);
    for (int64_t i = from; i < to; i++) {
        bool same;
        if (!jinja_step(j) || !jinja_equal(j, jinja_seq_item(&seq, (size_t)i), c->a[0], &same)) return false;
        if (!same) continue;
        *out = jinja_int(i);
        return true;
    }
    return jinja_fail(j, "the value is not in the list");
}

METHOD(list_count) {
    struct jinja_seq seq;
    int64_t count = 0;
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    for (size_t i = 0; i < seq.count; i++) {
        bool same;
        if (!jinja_step(j) || !jinja_equal(j, jinja_seq_item(&seq, i), c->a[0], &same)) return false;
        count += same;
    }
    *out = jinja_int(count);
    return true;
}

/* Values never change, so a copy is the value; a list must be another object only for `sameas`. */
METHOD(copy_self) {
    (void)j;
    *out = c->self;
    return true;
}

METHOD(dict_get) {
    struct jinja_entry *entry;
    if (!jinja_dict_find(j, c->self.dict, c->a[0], &entry)) return false;
    *out = entry ? entry->value : c->a[1].kind == JINJA_ABSENT ? jinja_none() : c->a[1];
    return true;
}

static bool dict_view(struct jinja *j, const struct jinja_call *c, enum jinja_view_kind kind,
                      struct jinja_value *out) {
    struct jinja_view *view = jinja_alloc(j, sizeof *view);
    if (!view) return false;
    *view = (struct jinja_view){c->self.dict, kind};
    *out = (struct jinja_value){.kind = JINJA_VIEW, .view = view};
    return true;
}

METHOD(dict_keys) { return dict_view(j, c, JINJA_KEYS, out); }
METHOD(dict_values) { return dict_view(j, c, JINJA_VALUES, out); }
METHOD(dict_items) { return dict_view(j, c, JINJA_ITEMS, out); }

METHOD(loop_cycle) {
    if (!c->raw->count) return jinja_fail(j, "no items for cycling given");
    *out = c->raw->values[c->self.loop->index0 % c->raw->count];
    return true;
}

METHOD(loop_changed) {
    struct jinja_list *seen = jinja_list_new(j, c->raw->count);
    bool same = false;
    if (!seen) return false;
    for (size_t i = 0; i < c->raw->count; i++) seen->items[seen->count++] = c->raw->values[i];
    struct jinja_value now = jinja_of_list(JINJA_TUPLE, seen), *before = &c->self.loop->changed;
    if (before->kind != JINJA_ABSENT && !jinja_equal(j, *before, now, &same)) return false;
    *before = now;
    *out = jinja_bool(!same);
    return true;
}

METHOD(cycler_next) {
    struct jinja_list *list = c->self.list;
    (void)j;
    *out = list->items[list->next];
    list->next = (list->next + 1) % list->count;
    return true;
}

METHOD(cycler_reset) {
    (void)j;
    c->self.list->next = 0;
    *out = jinja_none();
    return true;
}

static const struct jinja_method methods[] = {
    {JINJA_DICT, "get", dict_get, "/!key,default"},
    {JINJA_DICT, "items", dict_items, "/"},
    {JINJA_DICT, "keys", dict_keys, "/"},
    {JINJA_DICT, "values", dict_values, "/"},
    {JINJA_DICT, "copy", copy_self, "/"},
    {JINJA_DICT, "clear", NULL, ""},
    {JINJA_DICT, "pop", NULL, ""},
    {JINJA_DICT, "popitem", NULL, ""},
    {JINJA_DICT, "setdefault", NULL, ""},
    {JINJA_DICT, "update", NULL, ""},
    {JINJA_LOOP, "cycle", loop_cycle, "*"},
    {JINJA_LOOP, "changed", loop_changed, "*"},
    {JINJA_LIST, "index", list_index, "/!value,start,stop"},
    {JINJA_LIST, "count", list_count, "/!value"},
    {JINJA_LIST, "copy", copy_self, "/"},
    {JINJA_LIST, "append", NULL, ""},
    {JINJA_LIST, "clear", NULL, ""},
    {JINJA_LIST, "extend", NULL, ""},
    {JINJA_LIST, "insert", NULL, ""},
    {JINJA_LIST, "pop", NULL, ""},
    {JINJA_LIST, "remove", NULL, ""},
    {JINJA_LIST, "reverse", NULL, ""},
    {JINJA_LIST, "sort", NULL, ""},
    {JINJA_TUPLE, "index", list_index, "/!value,start,stop"},
    {JINJA_TUPLE, "count", list_count, "/!value"},
    {JINJA_RANGE, "index", list_index, "/!value"},
    {JINJA_RANGE, "count", list_count, "/!value"},
    {JINJA_CYCLER, "next", cycler_next, "/"},
    {JINJA_CYCLER, "reset", cycler_reset, "/"},
    {JINJA_TEXT, "strip", text_strip, "/chars"},
    {JINJA_TEXT, "lstrip", text_lstrip, "/chars"},
    {JINJA_TEXT, "rstrip", text_rstrip, "/chars"},
    {JINJA_TEXT, "split", text_split, "sep,maxsplit"},
    {JINJA_TEXT, "rsplit", text_rsplit, "sep,maxsplit"},
    {JINJA_TEXT, "splitlines", text_splitlines, "keepends"},
    {JINJA_TEXT, "partition", text_partition, "/!sep"},
    {JINJA_TEXT, "rpartition", text_rpartition, "/!sep"},
    {JINJA_TEXT, "join", text_join, "/!iterable"},
    {JINJA_TEXT, "replace", text_replace, "/!old,!new,count"},
    {JINJA_TEXT, "format", text_format, "*"},
    {JINJA_TEXT, "startswith", text_startswith, "/!prefix,start,end"},
    {JINJA_TEXT, "endswith", text_endswith, "/!suffix,start,end"},
    {JINJA_TEXT, "removeprefix", text_removeprefix, "/!prefix"},
    {JINJA_TEXT, "removesuffix", text_removesuffix, "/!suffix"},
    {JINJA_TEXT, "upper", text_upper, "/"},
    {JINJA_TEXT, "lower", text_lower, "/"},
    {JINJA_TEXT, "casefold", text_casefold, "/"},
    {JINJA_TEXT, "expandtabs", text_expandtabs, "tabsize"},
    {JINJA_TEXT, "title", text_title, "/"},
    {JINJA_TEXT, "capitalize", text_capitalize, "/"},
    {JINJA_TEXT, "swapcase", text_swapcase, "/"},
    {JINJA_TEXT, "find", text_find, "/!sub,start,end"},
    {JINJA_TEXT, "rfind", text_rfind, "/!sub,start,end"},
    {JINJA_TEXT, "index", text_index, "/!sub,start,end"},
    {JINJA_TEXT, "rindex", text_rindex, "/!sub,start,end"},
    {JINJA_TEXT, "count", text_count, "/!sub,start,end"},
    {JINJA_TEXT, "isdigit", text_isdigit, "/"},
    {JINJA_TEXT, "isdecimal", text_isdecimal, "/"},
    {JINJA_TEXT, "isnumeric", text_isnumeric, "/"},
    {JINJA_TEXT, "isalpha", text_isalpha, "/"},
    {JINJA_TEXT, "isalnum", text_isalnum, "/"},
    {JINJA_TEXT, "isspace", text_isspace, "/"},
    {JINJA_TEXT, "isascii", text_isascii, "/"},
    {JINJA_TEXT, "isprintable", text_isprintable, "/"},
    {JINJA_TEXT, "isupper", text_isupper, "/"},
    {JINJA_TEXT, "islower", text_islower, "/"},
    {JINJA_TEXT, "istitle", text_istitle, "/"},
    {JINJA_TEXT, "ljust", text_ljust, "/!width,fillchar"},
    {JINJA_TEXT, "rjust", text_rjust, "/!width,fillchar"},
    {JINJA_TEXT, "center", text_center, "/!width,fillchar"},
    {JINJA_TEXT, "zfill", text_zfill, "/!width"},
};

const struct jinja_method *jinja_method_find(enum jinja_kind kind, const char *name, size_t size) {
    bool seen = false;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        bool same = methods[i].kind == kind;
        if (seen && !same) break; /* the rows of a kind stand together */
        seen = same;
        if (same && methods[i].name[0] == *name && strlen(methods[i].name) == size &&
            memcmp(methods[i].name, name, size) == 0)
            return &methods[i];
    }
    return NULL;
}
