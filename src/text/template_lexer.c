/* Source to tokens, by the rules of Jinja2's lexer with trim_blocks and lstrip_blocks set: a newline
 * behind a block is dropped, blanks before a block that begins its line too; "-" inside a tag strips all
 * white space on that side, "+" keeps it. One trailing newline of the source is dropped before. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "text/template_internal.h"

struct lexer {
    struct jinja_source *source;
    struct jinja_tokens *tokens;
    const char *text;
    size_t size, at;
    int line;
    bool line_starting;           /* the last match ended with a newline, or nothing was matched yet */
    char open[jinja_parse_depth]; /* the brackets that are open, as the byte that closes each */
    int open_count;
};

/* Real templates have some ten thousand bytes. */
enum { most_source = 512 << 10 };

static bool token_add(struct lexer *l, enum jinja_token_type type, enum jinja_op op, const char *bytes,
                      size_t size) {
    struct jinja_tokens *t = l->tokens;
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 256;
        struct jinja_token *items = arena_array(l->source->arena, capacity, sizeof *items);
        if (!items) return error_no_memory(l->source->err, "template", capacity * sizeof *items);
        if (t->count) memcpy(items, t->items, t->count * sizeof *items);
        t->items = items;
        t->capacity = capacity;
    }
    t->items[t->count++] =
        (struct jinja_token){.type = type, .op = op, .line = l->line, .bytes = bytes, .size = size};
    return true;
}

static void count_lines(struct lexer *l, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) l->line += l->text[i] == '\n';
}

/* Moves to `to`, keeping the line number and whether a line starts there. */
static void advance(struct lexer *l, size_t to) {
    count_lines(l, l->at, to);
    if (to > l->at) l->line_starting = l->text[to - 1] == '\n';
    l->at = to;
}

static bool starts(const struct lexer *l, size_t at, const char *with) {
    size_t n = strlen(with);
    return l->size - at >= n && memcmp(l->text + at, with, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at) {
    uint32_t code;
    for (int n; at < l->size && (n = utf8_decode(l->text + at, l->size - at, &code)) && jinja_is_space(code);)
        at += (size_t)n;
    return at;
}

/* The end of a closing tag at `at` ("+%}", "-%}" and the space behind, "%}" and one newline), or 0. */
static size_t tag_end(const struct lexer *l, size_t at, const char *close, bool trim) {
    if (starts(l, at, close)) {
        at += 2;
        return trim && at < l->size && l->text[at] == '\n' ? at + 1 : at;
    }
    if (at + 1 >= l->size || !starts(l, at + 1, close)) return 0;
    if (l->text[at] == '-') return skip_space(l, at + 3);
    return l->text[at] == '+' && trim ? at + 3 : 0;
}

/* Text before a tag whose sign is `sign`; `variable`: the tag is {{. */
static bool data_add(struct lexer *l, size_t from, size_t to, char sign, bool variable) {
    const char *bytes = l->text + from;
    size_t size = to - from;
    if (sign == '-') {
        jinja_strip(&bytes, &size, NULL, false, true);
    } else if (sign != '+' && !variable) {
        size_t start = size;
        while (start && bytes[start - 1] != '\n') start--;
        if (start || l->line_starting) {
            const char *rest = bytes + start;
            size_t left = size - start;
            jinja_strip(&rest, &left, NULL, true, false);
            if (!left) size = start;
        }
    }
    bool ok = !size || token_add(l, TOKEN_DATA, OP_NONE, bytes, size);
    count_lines(l, from, to);
    return ok;
}

static char sign_at(const struct lexer *l, size_t at) {
    return at < l->size && (l->text[at] == '-' || l->text[at] == '+') ? l->text[at] : 0;
}

/* The end of the word `word` behind optional space at `at`, or 0. */
static size_t word_end(const struct lexer *l, size_t at, const char *word) {
    at = skip_space(l, at);
    return starts(l, at, word) ? skip_space(l, at + strlen(word)) : 0;
}

/* {% raw %} at `at`: the end of that tag, or 0 when it is another tag. */
static size_t raw_begin(const struct lexer *l, size_t at) {
    at += 2;
    if (sign_at(l, at)) at++;
    at = word_end(l, at, "raw");
    if (!at) return 0;
    if (starts(l, at, "-%}")) return skip_space(l, at + 3);
    return starts(l, at, "%}") ? at + 2 : 0;
}

static bool lex_raw(struct lexer *l, size_t tag, size_t body) {
    count_lines(l, tag, body);
    l->line_starting = l->text[body - 1] == '\n';
    if (body == l->size) { /* Jinja2 misses no end where nothing stands behind the beginning */
        l->at = body;
        return true;
    }
    for (size_t i = body; i + 1 < l->size; i++) {
        if (l->text[i] != '{' || l->text[i + 1] != '%') continue;
        char sign = sign_at(l, i + 2);
        size_t word = word_end(l, i + 2 + (sign != 0), "endraw");
        size_t end = word ? tag_end(l, word, "%}", true) : 0;
        if (!end) continue;
        if (!data_add(l, body, i, sign, false)) return false;
        l->at = i;
        advance(l, end);
        return true;
    }
    return jinja_source_fail(l->source, l->line, "missing end of raw directive");
}

static bool lex_comment(struct lexer *l) {
    if (l->at == l->size) return true; /* as in lex_raw */
    for (size_t i = l->at; i < l->size; i++) {
        size_t end = tag_end(l, i, "#}", true);
        if (!end) continue;
        advance(l, end);
        return true;
    }
    return jinja_source_fail(l->source, l->line, "missing end of comment tag");
}

static bool is_word(uint32_t code) {
    if (code < 0x80) return isalnum((int)code) || code == '_';
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)code);
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NO) || c == UTF8PROC_CATEGORY_PC;
}

static size_t lex_digits(const struct lexer *l, size_t at) {
    if (at >= l->size || !isdigit((unsigned char)l->text[at])) return 0;
    while (at < l->size && (isdigit((unsigned char)l->text[at]) || (l->text[at] == '_' && at + 1 < l->size &&
                                                                    isdigit((unsigned char)l->text[at + 1]))))
        at++;
    return at;
}

static size_t real_end(const struct lexer *l) {
    if (l->at && l->text[l->at - 1] == '.') return 0;
    size_t at = lex_digits(l, l->at), end = 0, part;
    if (!at) return 0;
    if (at < l->size && l->text[at] == '.' && (part = lex_digits(l, at + 1))) end = at = part;
    if (at < l->size && (l->text[at] | 0x20) == 'e') {
        size_t exponent = at + 1;
        if (exponent < l->size && (l->text[exponent] == '+' || l->text[exponent] == '-')) exponent++;
        if ((part = lex_digits(l, exponent))) end = part;
    }
    return end;
}

static size_t integer_end(const struct lexer *l, int *base) {
    size_t at = l->at;
    *base = 10;
    if (l->text[at] == '0' && at + 2 < l->size) {
        static const char letters[] = "box";
        static const int bases[] = {2, 8, 16};
        const char *letter = strchr(letters, l->text[at + 1] | 0x20);
        if (letter && *letter) {
            size_t i = at + 2, end = 0;
            for (; i < l->size; i++) {
                int c = (unsigned char)l->text[i] | 0x20;
                if (l->text[i] == '_') continue;
                int digit = isdigit((unsigned char)l->text[i]) ? l->text[i] - '0'
                            : c >= 'a' && c <= 'f'             ? c - 'a' + 10
                                                               : 99;
                if (digit >= bases[letter - letters]) break;
                end = i + 1;
            }
            if (end) *base = bases[letter - letters];
            if (end) return end;
        }
    }
    if (l->text[at] != '0') return lex_digits(l, at);
    while (at < l->size &&
           (l->text[at] == '0' || (l->text[at] == '_' && at + 1 < l->size && l->text[at + 1] == '0')))
        at++;
    return at;
}

static bool lex_number(struct lexer *l) {
    size_t end = real_end(l);
    bool real = end != 0;
    int base = 10;
    if (!real) end = integer_end(l, &base);
    size_t from = base == 10 ? l->at : l->at + 2;
    if (!token_add(l, real ? TOKEN_FLOAT : TOKEN_INTEGER, OP_NONE, l->text + l->at, end - l->at))
        return false;
    struct jinja_token *token = &l->tokens->items[l->tokens->count - 1];
    bool leading = base != 10 && l->text[from] == '_';
    bool ok = real ? jinja_parse_real(token->bytes, token->size, &token->real)
                   : jinja_parse_int(l->text + from + leading, end - from - leading, base, &token->integer);
    advance(l, end);
    return ok || jinja_source_fail(l->source, l->line, "the number %.*s is too large",
                                   (int)(token->size & 63), token->bytes);
}

/* One escape behind a backslash at `*at`, by the rules of Python's unicode-escape. */
static bool unescape_one(struct lexer *l, size_t *at, size_t end, char *out, size_t *size) {
    static const char plain[] = "\\'\"abfnrtv", meant[] = "\\'\"\a\b\f\n\r\t\v";
    char c = l->text[(*at)++];
    const char *found = strchr(plain, c);
    uint32_t code = 0;
    if (c == '\n') return true;
    if (found && c) {
        out[(*size)++] = meant[found - plain];
        return true;
    }
    if (c >= '0' && c <= '7') {
        code = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && *at < end && l->text[*at] >= '0' && l->text[*at] <= '7'; i++)
            code = code * 8 + (uint32_t)(l->text[(*at)++] - '0');
    } else if (c == 'x' || c == 'u' || c == 'U') {
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        for (int i = 0; i < digits; i++, (*at)++) {
            int d = *at < end ? (unsigned char)l->text[*at] : 0;
            if (!isxdigit(d))
                return jinja_source_fail(l->source, l->line, "truncated \\%c escape in a string", c);
            code = code * 16 + (uint32_t)(isdigit(d) ? d - '0' : (d | 0x20) - 'a' + 10);
        }
        if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
            return jinja_source_fail(l->source, l->line, "the \\%c escape in a string is no character", c);
    } else if (c == 'N') {
        return jinja_source_fail(l->source, l->line, "\\N escapes are not supported");
    } else {
        out[(*size)++] = '\\';
        (*at)--;
        code = 0;
        return true;
    }
    *size += (size_t)utf8_encode(code, out + *size);
    return true;
}

static bool lex_string(struct lexer *l) {
    char quote = l->text[l->at];
    size_t end = l->at + 1;
    while (end < l->size && l->text[end] != quote) end += l->text[end] == '\\' ? 2 : 1;
    if (end >= l->size)
        return jinja_source_fail(l->source, l->line, "unexpected char %c (a string without end)", quote);
    char *out = arena_alloc(l->source->arena, end - l->at);
    if (!out) return error_no_memory(l->source->err, "template", end - l->at);
    size_t size = 0;
    for (size_t i = l->at + 1; i < end;) {
        if (l->text[i] != '\\') {
            out[size++] = l->text[i++];
            continue;
        }
        size_t before = ++i;
        if (!unescape_one(l, &i, end, out, &size)) return false;
        if (i == before) { /* an escape that Python does not know stays as it is */
            out[size++] = l->text[i++];
        }
    }
    bool ok = token_add(l, TOKEN_STRING, OP_NONE, out, size);
    advance(l, end + 1);
    return ok;
}

static const struct operator_row {
    const char *text;
    enum jinja_op op;
} operators[] = {
    {"//", OP_FLOORDIV}, {"**", OP_POW},   {"==", OP_EQ},      {"!=", OP_NE},      {">=", OP_GE},
    {"<=", OP_LE},       {"+", OP_ADD},    {"-", OP_SUB},      {"/", OP_DIV},      {"*", OP_MUL},
    {"%", OP_MOD},       {"~", OP_TILDE},  {"[", OP_LBRACKET}, {"]", OP_RBRACKET}, {"(", OP_LPAREN},
    {")", OP_RPAREN},    {"{", OP_LBRACE}, {"}", OP_RBRACE},   {">", OP_GT},       {"<", OP_LT},
    {"=", OP_ASSIGN},    {".", OP_DOT},    {":", OP_COLON},    {"|", OP_PIPE},     {",", OP_COMMA},
    {";", OP_SEMICOLON},
};

static bool balance(struct lexer *l, char c) {
    if (c == '(' || c == '[' || c == '{') {
        if (l->open_count == jinja_parse_depth)
            return jinja_source_fail(l->source, l->line, "brackets nested deeper than %d", jinja_parse_depth);
        l->open[l->open_count++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (!l->open_count) return jinja_source_fail(l->source, l->line, "unexpected '%c'", c);
        char expected = l->open[--l->open_count];
        if (expected != c)
            return jinja_source_fail(l->source, l->line, "unexpected '%c', expected '%c'", c, expected);
    }
    return true;
}

static bool lex_operator(struct lexer *l) {
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!starts(l, l->at, operators[i].text)) continue;
        if (!balance(l, operators[i].text[0])) return false;
        if (!token_add(l, TOKEN_OPERATOR, operators[i].op, l->text + l->at, strlen(operators[i].text)))
            return false;
        advance(l, l->at + strlen(operators[i].text));
        return true;
    }
    struct buf shown = {0};
    uint32_t code;
    int n = utf8_decode(l->text + l->at, l->size - l->at, &code);
    text_escape(&shown, l->text + l->at, (size_t)n, false);
    jinja_source_fail(l->source, l->line, "unexpected char '%s'", shown.data ? shown.data : "?");
    buf_release(&shown);
    return false;
}

static bool lex_name(struct lexer *l) {
    size_t end = l->at;
    uint32_t code;
    for (int n; end < l->size && (n = utf8_decode(l->text + end, l->size - end, &code)) && is_word(code);)
        end += (size_t)n;
    bool ok = token_add(l, TOKEN_NAME, OP_NONE, l->text + l->at, end - l->at);
    advance(l, end);
    return ok;
}

/* The inside of {{ }} (`variable`) or {% %}, up to and with its end. */
static bool lex_tag(struct lexer *l, bool variable) {
    l->open_count = 0;
    while (l->at < l->size) {
        size_t end = l->open_count ? 0 : tag_end(l, l->at, variable ? "}}" : "%}", !variable);
        if (end) {
            bool ok =
                token_add(l, variable ? TOKEN_VARIABLE_END : TOKEN_BLOCK_END, OP_NONE, l->text + l->at, 2);
            advance(l, end);
            return ok;
        }
        size_t behind = skip_space(l, l->at);
        uint32_t code = 0;
        if (behind > l->at) {
            advance(l, behind);
            continue;
        }
        utf8_decode(l->text + l->at, l->size - l->at, &code);
        bool ok = code < 0x80 && isdigit((int)code) ? lex_number(l)
                  : code == '\'' || code == '"'     ? lex_string(l)
                  : is_word(code)                   ? lex_name(l)
                                                    : lex_operator(l);
        if (!ok) return false;
    }
    return token_add(l, TOKEN_END, OP_NONE, "", 0);
}

static size_t next_tag(const struct lexer *l) {
    for (size_t i = l->at; i + 1 < l->size; i++) {
        const char *found = memchr(l->text + i, '{', l->size - 1 - i);
        if (!found) break;
        i = (size_t)(found - l->text);
        if (strchr("{%#", found[1]) && found[1]) return i;
    }
    return l->size;
}

static bool lex_next(struct lexer *l) {
    size_t tag = next_tag(l), data = l->at;
    if (tag == l->size) {
        bool ok = token_add(l, TOKEN_DATA, OP_NONE, l->text + data, l->size - data);
        advance(l, l->size);
        return ok;
    }
    char kind = l->text[tag + 1], sign = sign_at(l, tag + 2);
    size_t raw = kind == '%' ? raw_begin(l, tag) : 0;
    if (!data_add(l, data, tag, sign, kind == '{')) return false;
    l->at = tag;
    if (raw) return lex_raw(l, tag, raw);
    advance(l, tag + 2 + (sign != 0));
    if (kind == '#') return lex_comment(l);
    enum jinja_token_type begin = kind == '{' ? TOKEN_VARIABLE_BEGIN : TOKEN_BLOCK_BEGIN;
    return token_add(l, begin, OP_NONE, l->text + tag, 2) && lex_tag(l, kind == '{');
}

/* Newlines become \n, and one at the end is dropped. */
static bool normalise(struct jinja_source *source) {
    size_t bad, size = 0;
    if (source->size > most_source)
        return jinja_source_fail(source, 1, "the template is larger than %d KiB", most_source >> 10);
    char *copy = arena_alloc(source->arena, source->size + 1);
    if (!copy) return error_no_memory(source->err, "template", source->size);
    for (size_t i = 0; i < source->size; i++) {
        char c = source->text[i];
        if (c == '\r') {
            if (i + 1 < source->size && source->text[i + 1] == '\n') i++;
            c = '\n';
        }
        copy[size++] = c;
    }
    if (size && copy[size - 1] == '\n') size--;
    source->text = copy;
    source->size = size;
    if (utf8_valid(copy, size, &bad)) return true;
    int line = 1;
    for (size_t i = 0; i < bad; i++) line += copy[i] == '\n';
    return jinja_source_fail(source, line, "the template is not UTF-8");
}

bool jinja_lex(struct jinja_source *source, struct jinja_tokens *tokens) {
    if (!normalise(source)) return false;
    struct lexer l = {.source = source,
                      .tokens = tokens,
                      .text = source->text,
                      .size = source->size,
                      .line = 1,
                      .line_starting = true};
    while (l.at < l.size)
        if (!lex_next(&l)) return false;
    return token_add(&l, TOKEN_END, OP_NONE, "", 0);
}
