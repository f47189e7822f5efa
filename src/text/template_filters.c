/* The filters on texts and numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_internal.h"

#define FILTER(name) static bool name(struct jinja *j, const struct jinja_call *c, struct jinja_value *out)

/* Ends the making of a text in `made`. */
static bool finish(struct jinja *j, bool ok, struct buf *made, bool markup, struct jinja_value *out) {
    if (!ok) {
        buf_release(made);
        return false;
    }
    if (!jinja_text_take(j, made, out)) return false;
    out->text->markup = markup;
    return true;
}

/* A method of str, on the value as a text. */
static bool as_method(struct jinja *j, const struct jinja_call *c, const char *name,
                      struct jinja_value *out) {
    const struct jinja_method *method = jinja_method_find(JINJA_TEXT, name, strlen(name));
    struct jinja_call call = *c;
    call.name = name;
    return jinja_str(j, c->self, &call.self) && method->run(j, &call, out);
}

FILTER(run_upper) { return as_method(j, c, "upper", out); }
FILTER(run_lower) { return as_method(j, c, "lower", out); }
FILTER(run_capitalize) { return as_method(j, c, "capitalize", out); }
FILTER(run_trim) { return as_method(j, c, "strip", out); }
FILTER(run_string) { return jinja_str(j, c->self, out); }

static bool begins_word(uint32_t code) {
    return jinja_is_space(code) || code == '-' || code == '(' || code == '{' || code == '[' || code == '<';
}

/* A capital after white space and opening brackets, small letters elsewhere. */
FILTER(run_title) {
    struct jinja_value text;
    struct buf made;
    if (!jinja_str(j, c->self, &text) || !jinja_charge(j, text.text->size * 2)) return false;
    jinja_buf(j, &made);
    bool ok = true;
    const char *b = text.text->bytes;
    for (size_t i = 0, n, size = text.text->size; i < size && ok;) {
        uint32_t code = 0;
        size_t head = (size_t)utf8_decode(b + i, size - i, &code);
        struct jinja_text word = {.bytes = b + i, .size = head};
        bool capital = !begins_word(code);
        while (capital && i + word.size < size &&
               (n = (size_t)utf8_decode(b + i + word.size, size - i - word.size, &code)) &&
               !begins_word(code))
            word.size += n;
        ok = jinja_case_map(j, &word, 0, head, JINJA_UPPER, &made);
        if (ok && word.size > head) { /* the rest is a text of its own to lower() */
            struct jinja_text rest = {.bytes = word.bytes + head, .size = word.size - head};
            ok = jinja_case_map(j, &rest, 0, rest.size, JINJA_LOWER, &made);
        }
        i += word.size;
    }
    return finish(j, ok, &made, false, out);
}

FILTER(run_replace) { /* old, new, count */
    struct jinja_value text, old, with;
    int64_t count = -1;
    if (!jinja_str(j, c->self, &text) || !jinja_str(j, c->a[0], &old) || !jinja_str(j, c->a[1], &with))
        return false;
    if (c->a[2].kind != JINJA_NONE && !jinja_arg_int(j, c, 2, -1, &count)) return false;
    if (!jinja_replace(j, text.text, old.text, with.text, count, out)) return false;
    out->text->markup = false;
    return true;
}

FILTER(run_default) { /* default_value, boolean */
    bool missing = c->self.kind == JINJA_UNDEFINED || (jinja_arg_flag(c, 1, false) && !jinja_truth(c->self));
    *out = missing ? c->a[0] : c->self;
    return out->kind != JINJA_ABSENT || jinja_text_view(j, "", 0, out);
}

static bool marked(struct jinja *j, struct jinja_value text, bool escapes, struct jinja_value *out) {
    struct buf made;
    if (text.text->markup) {
        *out = text;
        return true;
    }
    jinja_buf(j, &made);
    if (escapes)
        jinja_escape(text.text->bytes, text.text->size, &made);
    else
        buf_append(&made, text.text->bytes, text.text->size);
    if (jinja_charge(j, text.text->size)) return finish(j, true, &made, true, out);
    buf_release(&made);
    return false;
}

FILTER(run_safe) {
    struct jinja_value text;
    return jinja_str(j, c->self, &text) && marked(j, text, false, out);
}
FILTER(run_escape) {
    struct jinja_value text;
    return jinja_str(j, c->self, &text) && marked(j, text, true, out);
}
FILTER(run_forceescape) {
    struct jinja_value text;
    if (!jinja_str(j, c->self, &text) || !jinja_text(j, text.text->bytes, text.text->size, &text))
        return false;
    return marked(j, text, true, out);
}

FILTER(run_indent) { /* width, first, blank */
    struct jinja_value with = c->a[0];
    struct jinja_list *lines;
    struct buf made;
    bool blank = jinja_arg_flag(c, 2, false);
    if (c->self.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, c->self);
    if (c->self.kind != JINJA_TEXT)
        return jinja_fail(j, "indent: expected a str, not %s", jinja_type_name(c->self));
    if (with.kind != JINJA_TEXT) {
        int64_t width;
        if (!jinja_arg_int(j, c, 0, 4, &width) || !jinja_text(j, " ", 1, &with) ||
            !jinja_arithmetic(j, OP_MUL, with, jinja_int(width), &with))
            return false;
    }
    struct jinja_value newline, text;
    if (!jinja_text(j, "\n", 1, &newline) || !jinja_text_append(j, c->self, newline, &text)) return false;
    if (!jinja_splitlines(j, text.text, false, &lines)) return false;
    jinja_buf(j, &made);
    if (jinja_arg_flag(c, 1, false)) buf_append(&made, with.text->bytes, with.text->size);
    for (size_t i = 0; i < lines->count && !made.failed; i++) {
        const struct jinja_text *line = lines->items[i].text;
        if (i) buf_byte(&made, '\n');
        if (i && (blank || line->size)) buf_append(&made, with.text->bytes, with.text->size);
        buf_append(&made, line->bytes, line->size);
    }
    return finish(j, true, &made, c->self.text->markup, out);
}

FILTER(run_truncate) { /* length, killwords, end, leeway */
    struct jinja_text *text = c->self.text, dots = {.bytes = "...", .size = 3, .length = 3}, *tail = &dots;
    int64_t length, leeway;
    size_t size, tail_size;
    struct jinja_value head, end;
    if (c->self.kind == JINJA_UNDEFINED) {
        *out = c->self;
        return true;
    }
    if (c->self.kind != JINJA_TEXT)
        return jinja_fail(j, "truncate: expected a str, not %s", jinja_type_name(c->self));
    if (c->a[2].kind != JINJA_ABSENT && !jinja_arg_text(j, c, 2, &tail)) return false;
    if (!jinja_arg_int(j, c, 0, 255, &length)) return false;
    leeway = 5;
    if (c->a[3].kind != JINJA_NONE && !jinja_arg_int(j, c, 3, 5, &leeway)) return false;
    if (!jinja_text_length(j, text, &size) || !jinja_text_length(j, tail, &tail_size)) return false;
    if (length < (int64_t)tail_size) return jinja_fail(j, "truncate: expected length >= %zu", tail_size);
    if (leeway < 0) return jinja_fail(j, "truncate: expected leeway >= 0");
    *out = c->self;
    if ((int64_t)size - length <= leeway) return true;
    if (!jinja_text_slice(j, text, 0, 1, (size_t)length - tail_size, &head)) return false;
    if (!jinja_arg_flag(c, 1, false)) {
        const char *space = memrchr(head.text->bytes, ' ', head.text->size);
        if (space && !jinja_text_view(j, head.text->bytes, (size_t)(space - head.text->bytes), &head))
            return false;
    }
    return jinja_text_view(j, tail->bytes, tail->size, &end) && jinja_text_append(j, head, end, out);
}

FILTER(run_wordcount) {
    struct jinja_value text;
    int64_t words = 0;
    bool inside = false;
    if (!jinja_str(j, c->self, &text) || !jinja_charge(j, text.text->size * 2)) return false;
    struct jinja_call one = {.raw = c->raw, .name = "isalnum"};
    const struct jinja_method *alnum = jinja_method_find(JINJA_TEXT, "isalnum", 7);
    for (size_t i = 0; i < text.text->size;) {
        uint32_t code = 0;
        struct jinja_text letter = {.bytes = text.text->bytes + i};
        struct jinja_value yes;
        letter.size = (size_t)utf8_decode(letter.bytes, text.text->size - i, &code);
        one.self = (struct jinja_value){.kind = JINJA_TEXT, .text = &letter};
        if (!alnum->run(j, &one, &yes)) return false;
        bool word = code == '_' || yes.boolean;
        words += word && !inside;
        inside = word;
        i += letter.size;
    }
    *out = jinja_int(words);
    return true;
}

/* Tags and comments out, white space to single blanks, the five escapes back. */
FILTER(run_striptags) {
    static const struct entity {
        const char *text;
        char meant;
    } entities[] = {{"&amp;", '&'}, {"&lt;", '<'},   {"&gt;", '>'},
                    {"&#34;", '"'}, {"&#39;", '\''}, {"&quot;", '"'}};
    struct jinja_value text;
    struct buf bare, made;
    if (!jinja_str(j, c->self, &text) || !jinja_charge(j, text.text->size * 2)) return false;
    jinja_buf(j, &bare);
    jinja_buf(j, &made);
    const char *b = text.text->bytes;
    size_t size = text.text->size, no_comment = 0;
    for (size_t i = 0; i < size; i++) {
        size_t skip = 0, found;
        if (b[i] == '<' && size - i >= 4 && memcmp(b + i, "<!--", 4) == 0 && !no_comment) {
            found = jinja_text_find(b + i, size - i, "-->", 3);
            if (found == SIZE_MAX)
                no_comment = 1;
            else
                skip = found + 3;
        } else if (b[i] == '<') {
            const char *close = memchr(b + i, '>', size - i);
            if (!close) {
                buf_append(&bare, b + i, size - i);
                break;
            }
            skip = (size_t)(close - b) + 1 - i;
        }
        if (skip)
            i += skip - 1;
        else
            buf_byte(&bare, b[i]);
    }
    const char *words = bare.data ? bare.data : "";
    size_t left = bare.size;
    jinja_strip(&words, &left, NULL, true, true);
    for (size_t i = 0; i < left;) {
        uint32_t code = 0;
        size_t n = (size_t)utf8_decode(words + i, left - i, &code), e = 0;
        if (jinja_is_space(code)) {
            if (made.size && made.data[made.size - 1] != ' ') buf_byte(&made, ' ');
            i += n;
            continue;
        }
        for (; e < sizeof entities / sizeof *entities; e++)
            if (left - i >= strlen(entities[e].text) &&
                memcmp(words + i, entities[e].text, strlen(entities[e].text)) == 0)
                break;
        if (e < sizeof entities / sizeof *entities) {
            buf_byte(&made, entities[e].meant);
            i += strlen(entities[e].text);
        } else {
            buf_append(&made, words + i, n);
            i += n;
        }
    }
    buf_release(&bare);
    return finish(j, true, &made, false, out);
}

/* ---- numbers ----------------------------------------------------------------------------------- */

FILTER(run_int) { /* default, base */
    int64_t base = 10, value;
    double real;
    *out = c->a[0].kind == JINJA_ABSENT ? jinja_int(0) : c->a[0];
    if (c->a[1].kind != JINJA_ABSENT)
        base = jinja_is_int(c->a[1]) ? jinja_number_int(c->a[1]) : -1; /* -1: no base */
    if (c->self.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, c->self);
    if (jinja_is_int(c->self)) {
        *out = jinja_int(jinja_number_int(c->self));
        return true;
    }
    if (c->self.kind == JINJA_TEXT && base >= 0 && base <= 36 && base != 1 &&
        jinja_parse_int(c->self.text->bytes, c->self.text->size, (int)base, &value)) {
        *out = jinja_int(value);
        return true;
    }
    if (c->self.kind == JINJA_FLOAT)
        real = c->self.real;
    else if (c->self.kind != JINJA_TEXT || !jinja_parse_real(c->self.text->bytes, c->self.text->size, &real))
        return true;
    if (isinf(real) && c->self.kind == JINJA_FLOAT)
        return jinja_fail(j, "cannot convert float infinity to integer");
    if (!isfinite(real)) return true;
    if (real >= 9223372036854775808.0 || real < -9223372036854775808.0)
        return jinja_fail(j, "the integer is too large (64 bits)");
    *out = jinja_int((int64_t)real);
    return true;
}

FILTER(run_float) { /* default */
    double real;
    *out = c->a[0].kind == JINJA_ABSENT ? jinja_real(0) : c->a[0];
    if (c->self.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, c->self);
    if (jinja_is_number(c->self))
        *out = jinja_real(jinja_number_real(c->self));
    else if (c->self.kind == JINJA_TEXT && jinja_parse_real(c->self.text->bytes, c->self.text->size, &real))
        *out = jinja_real(real);
    return true;
}

FILTER(run_abs) {
    struct jinja_value v = c->self;
    if (v.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, v);
    if (!jinja_is_number(v)) return jinja_fail(j, "bad operand type for abs(): '%s'", jinja_type_name(v));
    if (v.kind == JINJA_FLOAT) {
        *out = jinja_real(fabs(v.real));
        return true;
    }
    return jinja_negate(j, v, jinja_number_int(v) < 0, out);
}

/* Python's round(): to the nearest decimal, halves (of what the binary value really is) to even. */
static double round_common(double value, int64_t digits) {
    char text[400];
    if (!isfinite(value) || digits > 323) return value;
    if (digits >= 0) {
        snprintf(text, sizeof text, "%.*f", (int)(digits < 60 ? digits : 60), value);
        return strtod(text, NULL);
    }
    if (digits < -400) return copysign(0, value);
    /* By its decimal digits: powers of ten above 10^22 are no doubles. */
    snprintf(text, sizeof text, "%.17e", value);
    int64_t exponent = strtol(strchr(text, 'e') + 1, NULL, 10), kept = exponent + digits;
    if (kept >= 0)
        snprintf(text, sizeof text, "%.*e", (int)kept, value);
    else
        snprintf(text, sizeof text, "5e%d", (int)exponent);
    double found = strtod(text, NULL);
    if (kept >= 0) return found;
    if (kept < -1 || !(fabs(value) > found)) return copysign(0, value);
    snprintf(text, sizeof text, "1e%d", (int)exponent + 1);
    return copysign(strtod(text, NULL), value);
}

/* An integer to `places` >= 1 zeros at its end, halves to even. */
static bool round_int(struct jinja *j, int64_t value, int64_t places, struct jinja_value *out) {
    bool negative = value < 0;
    uint64_t size = negative ? 0 - (uint64_t)value : (uint64_t)value, unit = 1;
    *out = jinja_int(0);
    if (places > 19) return true; /* more than twice as large as any of 64 bits */
    for (int64_t i = 0; i < places; i++) unit *= 10;
    uint64_t rest = size % unit, up = unit - rest;
    size -= rest;
    if (rest > up || (rest == up && size / unit % 2)) size += unit;
    if (size > (uint64_t)INT64_MAX + negative) return jinja_fail(j, "the integer is too large (64 bits)");
    *out = jinja_int(negative ? (int64_t)(0 - size) : (int64_t)size);
    return true;
}

FILTER(run_round) { /* precision, method */
    int64_t precision;
    struct jinja_value v = c->self, method = c->a[1];
    bool common = method.kind == JINJA_ABSENT || jinja_text_is(method, "common"),
         up = jinja_text_is(method, "ceil");
    if (!common && !up && !jinja_text_is(method, "floor"))
        return jinja_fail(j, "round: method must be common, ceil or floor");
    if (!jinja_arg_int(j, c, 0, 0, &precision)) return false;
    if (v.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, v);
    if (!jinja_is_number(v)) return jinja_fail(j, "round: '%s' is no number", jinja_type_name(v));
    if (common && jinja_is_int(v) && precision >= 0) {
        *out = jinja_int(jinja_number_int(v));
        return true;
    }
    if (common && jinja_is_int(v))
        return round_int(j, jinja_number_int(v), precision < -20 ? 20 : -precision, out);
    double value = jinja_number_real(v), scale = pow(10, (double)precision);
    if (common)
        *out = jinja_real(round_common(value, precision));
    else
        *out = jinja_real((up ? ceil(value * scale) : floor(value * scale)) / scale);
    return true;
}

/* ---- the rest ---------------------------------------------------------------------------------- */

FILTER(run_format) {
    struct jinja_value text, given;
    if (c->raw->count && c->raw->named_count)
        return jinja_fail(j, "format: can't handle positional and keyword arguments at the same time");
    if (!jinja_str(j, c->self, &text)) return false;
    if (c->raw->named_count) {
        struct jinja_dict *dict = jinja_dict_new(j);
        for (size_t i = 0; dict && i < c->raw->named_count; i++)
            if (!jinja_dict_set(j, dict, c->raw->named[i].name, c->raw->named[i].value)) return false;
        if (!dict) return false;
        given = jinja_of_dict(dict);
    } else {
        struct jinja_list *list = jinja_list_new(j, c->raw->count);
        if (!list) return false;
        for (size_t i = 0; i < c->raw->count; i++) list->items[list->count++] = c->raw->values[i];
        given = jinja_of_list(JINJA_TUPLE, list);
    }
    return jinja_percent(j, text, given, out);
}

static bool quote(struct jinja *j, struct jinja_value value, bool query, struct buf *out) {
    struct jinja_value text;
    if (!jinja_str(j, value, &text) || !jinja_charge(j, text.text->size * 12)) return false;
    for (size_t i = 0; i < text.text->size; i++) {
        unsigned char b = (unsigned char)text.text->bytes[i];
        bool plain = (b >= 'a' && b <= 'z') || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') ||
                     (b && strchr("_.-~", b)) || (b == '/' && !query);
        if (plain)
            buf_byte(out, (char)b);
        else if (b == ' ' && query)
            buf_byte(out, '+');
        else
            buf_printf(out, "%%%02X", b);
    }
    return true;
}

FILTER(run_urlencode) {
    struct buf made;
    struct jinja_list *pairs, *pair;
    struct jinja_view view = {c->self.dict, JINJA_ITEMS};
    struct jinja_value over = c->self;
    bool ok = true;
    if (c->self.kind == JINJA_TEXT || !jinja_is_iterable(c->self)) {
        jinja_buf(j, &made);
        ok = quote(j, c->self, false, &made);
        return finish(j, ok, &made, false, out);
    }
    if (over.kind == JINJA_DICT) over = (struct jinja_value){.kind = JINJA_VIEW, .view = &view};
    if (!jinja_list_of(j, over, &pairs)) return false;
    jinja_buf(j, &made);
    for (size_t i = 0; i < pairs->count && ok; i++) {
        ok = jinja_list_of(j, pairs->items[i], &pair) &&
             (pair->count == 2 || jinja_fail(j, "urlencode: expected pairs of name and value"));
        if (!ok) break;
        if (i) buf_byte(&made, '&');
        ok = quote(j, pair->items[0], true, &made) && buf_byte(&made, '=') &&
             quote(j, pair->items[1], true, &made);
    }
    return finish(j, ok, &made, false, out);
}

FILTER(run_attr) {
    struct jinja_value found;
    if (c->self.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, c->self);
    if (c->a[0].kind != JINJA_TEXT) return jinja_fail(j, "attribute name must be string");
    /* attributes only, no items: those of a dict are its methods */
    if (c->self.kind != JINJA_DICT || jinja_method_find(JINJA_DICT, c->a[0].text->bytes, c->a[0].text->size))
        return jinja_attribute(j, c->self, c->a[0], out);
    return jinja_undefined(j, NULL, c->self, c->a[0], &found) && (*out = found, true);
}

FILTER(run_center) { return as_method(j, c, "center", out); }

static const struct jinja_filter filters[] = {
    {"upper", run_upper, ""},
    {"lower", run_lower, ""},
    {"capitalize", run_capitalize, ""},
    {"title", run_title, ""},
    {"trim", run_trim, "chars"},
    {"string", run_string, ""},
    {"replace", run_replace, "!old,!new,count"},
    {"default", run_default, "default_value,boolean"},
    {"d", run_default, "default_value,boolean"},
    {"safe", run_safe, ""},
    {"escape", run_escape, "/"},
    {"e", run_escape, "/"},
    {"forceescape", run_forceescape, ""},
    {"indent", run_indent, "width,first,blank"},
    {"truncate", run_truncate, "length,killwords,end,leeway"},
    {"wordcount", run_wordcount, ""},
    {"striptags", run_striptags, ""},
    {"center", run_center, "width"},
    {"int", run_int, "default,base"},
    {"float", run_float, "default"},
    {"abs", run_abs, "/"},
    {"round", run_round, "precision,method"},
    {"format", run_format, "*"},
    {"urlencode", run_urlencode, ""},
    {"attr", run_attr, "!name"},
    {"tojson", jinja_to_json, "ensure_ascii,indent,separators,sort_keys"},
};

const struct jinja_filter *jinja_filter_find(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (strlen(filters[i].name) == size && memcmp(filters[i].name, name, size) == 0) return &filters[i];
    for (const struct jinja_filter *f = jinja_sequence_filters; f->name; f++)
        if (strlen(f->name) == size && memcmp(f->name, name, size) == 0) return f;
    return NULL;
}

void jinja_filter_missing(const struct jinja_text *name, char out[jinja_missing_size]) {
    static const char *const absent[] = {"filesizeformat", "pprint",   "random",
                                         "urlize",         "wordwrap", "xmlattr"};
    struct jinja_value value = {.kind = JINJA_TEXT, .text = (struct jinja_text *)(uintptr_t)name};
    bool known = false;
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) known |= jinja_text_is(value, absent[i]);
    int size = (int)(name->size < 64 ? name->size : 64);
    if (!known)
        snprintf(out, jinja_missing_size, "no filter named '%.*s'", size, name->bytes);
    else
        snprintf(out, jinja_missing_size, "Jinja2's filter '%.*s' is not available in chat templates here",
                 size, name->bytes);
}
