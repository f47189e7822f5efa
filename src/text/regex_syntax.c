/* Oniguruma's syntax, as Hugging Face's tokenizer files are written for, to PCRE2's.
 *
 *   \s \S         Oniguruma: White_Space; PCRE2 adds U+180E. Written out as a class.
 *   \w \W         Oniguruma: Alphabetic, marks, decimal digits, connectors; PCRE2: letters, digits, _.
 *   \h \H         hexadecimal digits, in PCRE2 blanks.
 *   \uHHHH        one code point.
 *   (?m)          the dot matches newlines: PCRE2's (?s).
 *   {,n}          {0,n}.      {n,m}+   a repeat of a repeat, not a possessive one.
 *   [a[b]] [a&&b] nested classes and intersections: PCRE2 10.42 has none; refused.
 *
 * Reference: Oniguruma's doc/RE; pcre2pattern(3). */
#include <stdint.h>
#include <string.h>

#include "base/text.h"
#include "text/regex.h"

/* The contents of a class. A newline stands for U+0085 too: \x{85}. */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX "0-9A-Fa-f"

static const struct shorthand {
    char letter; /* lower case: the class; upper case: all else */
    const char *inside;
} shorthands[] = {{'s', SPACE}, {'w', WORD}, {'h', HEX}};

struct reader {
    const char *at, *end;
    struct buf *out;
    struct error *err;
};

static bool refuse(struct reader *r, const char *what) {
    return error_set(r->err, ERROR_INPUT, "tokenizer", "a pattern uses %s, which is not supported", what);
}

static bool ahead(const struct reader *r, const char *text) {
    size_t size = strlen(text);
    return (size_t)(r->end - r->at) >= size && memcmp(r->at, text, size) == 0;
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* At a backslash. */
static bool translate_escape(struct reader *r, bool in_class) {
    if (r->end - r->at < 2) return refuse(r, "a backslash at its end");
    char letter = r->at[1];
    for (size_t i = 0; i < sizeof shorthands / sizeof *shorthands; i++) {
        const struct shorthand *row = &shorthands[i];
        bool negated = letter == row->letter - 'a' + 'A';
        if (letter != row->letter && !negated) continue;
        r->at += 2;
        if (in_class && negated) {
            /* [^…] cannot stand inside of a class. The only difference left is U+180E in \S. */
            if (row->letter != 's') return refuse(r, "a negated shorthand inside of a class");
            return buf_text(r->out, "\\S");
        }
        return buf_printf(r->out, in_class ? "%s" : negated ? "[^%s]" : "[%s]", row->inside);
    }
    if (letter == 'u') {
        if (r->end - r->at < 6) return refuse(r, "\\u without four digits");
        for (int i = 2; i < 6; i++)
            if (!is_hex(r->at[i])) return refuse(r, "\\u without four digits");
        buf_printf(r->out, "\\x{%.4s}", r->at + 2);
        r->at += 6;
        return true;
    }
    if (strchr("KRXyYONQELlUCgk", letter) || (letter >= '1' && letter <= '9')) {
        char what[3] = {'\\', letter, '\0'};
        return refuse(r, what);
    }
    /* The character after the backslash may be longer than a byte. */
    uint32_t code;
    int length = utf8_decode(r->at + 1, (size_t)(r->end - r->at - 1), &code);
    buf_append(r->out, r->at, (size_t)length + 1);
    r->at += length + 1;
    if (strchr("pPx", letter) && r->at < r->end && *r->at == '{') { /* \p{…}, \x{…}: as it stands */
        while (r->at < r->end && *r->at != '}') buf_byte(r->out, *r->at++);
    }
    return true;
}

/* At "[". */
static bool translate_class(struct reader *r) {
    buf_byte(r->out, *r->at++);
    if (r->at < r->end && *r->at == '^') buf_byte(r->out, *r->at++);
    if (r->at < r->end && *r->at == ']') { /* a first ] is itself */
        buf_text(r->out, "\\]");
        r->at++;
    }
    while (r->at < r->end && *r->at != ']') {
        if (*r->at == '\\') {
            if (!translate_escape(r, true)) return false;
        } else if (ahead(r, "&&")) {
            return refuse(r, "an intersection of classes (&&)");
        } else if (*r->at == '[') {
            return refuse(r, "a class inside of a class");
        } else {
            buf_byte(r->out, *r->at++);
        }
    }
    if (r->at == r->end) return refuse(r, "a class that does not end");
    return buf_byte(r->out, *r->at++);
}

/* At "(": groups of Oniguruma that PCRE2 reads alike, and options. */
static bool translate_group(struct reader *r) {
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    if (ahead(r, "(*")) return refuse(r, "(*…)");
    if (!ahead(r, "(?")) return buf_byte(r->out, *r->at++);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        if (!ahead(r, same[i])) continue;
        r->at += strlen(same[i]);
        return buf_text(r->out, same[i]);
    }
    buf_text(r->out, "(?");
    for (r->at += 2; r->at < r->end && strchr("imx-", *r->at); r->at++)
        buf_byte(r->out, *r->at == 'm' ? 's' : *r->at);
    if (r->at == r->end || (*r->at != ':' && *r->at != ')')) return refuse(r, "an unknown kind of group");
    return buf_byte(r->out, *r->at++);
}

/* At "{": an interval, or the character itself. */
static bool translate_interval(struct reader *r) {
    const char *p = r->at + 1;
    while (p < r->end && is_digit(*p)) p++;
    bool lower = p > r->at + 1;
    bool comma = p < r->end && *p == ',';
    const char *upper = p + 1;
    if (comma)
        for (p++; p < r->end && is_digit(*p);) p++;
    if (p == r->end || *p != '}' || (!lower && (!comma || p == upper))) {
        r->at++;
        return buf_text(r->out, "\\{");
    }
    if (p + 1 < r->end && p[1] == '+') return refuse(r, "a repeat of an interval ({n,m}+)");
    buf_text(r->out, lower ? "{" : "{0");
    buf_append(r->out, r->at + 1, (size_t)(p + 1 - (r->at + 1)));
    r->at = p + 1;
    return true;
}

bool regex_translate(const char *pattern, size_t size, struct buf *out, struct error *err) {
    struct reader r = {.at = pattern, .end = pattern + size, .out = out, .err = err};
    bool ok = true;
    /* Tried at every place of a long run of spaces, \s+$ would be quadratic. Only the run's first place
     * can begin a match, or the end of an earlier one, from where no second follows: the longest end
     * before a line's end was taken. */
    if (size == 4 && memcmp(pattern, "\\s+$", 4) == 0) buf_text(out, "(?<![" SPACE "])");
    while (ok && r.at < r.end) {
        switch (*r.at) {
        case '\\': ok = translate_escape(&r, false); break;
        case '[': ok = translate_class(&r); break;
        case '(': ok = translate_group(&r); break;
        case '{': ok = translate_interval(&r); break;
        default: buf_byte(out, *r.at++);
        }
    }
    /* Whatever stopped it: after a failed append the rest was not looked at. */
    if (out->full) return refuse(&r, "so much that it is too long");
    if (out->failed) return error_no_memory(err, "tokenizer", size);
    return ok;
}
