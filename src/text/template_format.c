/* Formatting of texts: "%s" % values, and "{}".format(values). */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "text/template_internal.h"

/* How one value is to be shown, in both notations. */
struct spec {
    char fill[5]; /* UTF-8 */
    char align;   /* < > ^ = or 0 */
    char sign;    /* + - space */
    bool alternate;
    char group;           /* , _ or 0 */
    int width, precision; /* -1: none */
    char type;            /* 0: by the value */
};

enum { most_width = 100000, most_precision = 400 };

/* Steps for one field: its fill is written byte by byte, its digits are made by the C library. */
static uint64_t format_cost(const struct spec *spec) {
    int precision = spec->precision < 0                ? 0
                    : spec->precision < most_precision ? spec->precision
                                                       : most_precision;
    return 64 + (uint64_t)spec->width + (uint64_t)precision * 4;
}

static size_t count_chars(const char *bytes, size_t size) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) n += (bytes[i] & 0xC0) != 0x80;
    return n;
}

static void put_fill(const struct spec *spec, size_t count, struct buf *out) {
    for (size_t i = 0; i < count && !out->failed; i++) buf_text(out, spec->fill);
}

/* `text` in a field of the width; '=' fills between the sign and the digits. */
static void put_padded(const struct spec *spec, char usual, const char *text, size_t size, struct buf *out) {
    size_t length = count_chars(text, size),
           need = spec->width > 0 && (size_t)spec->width > length ? (size_t)spec->width - length : 0;
    char align = spec->align ? spec->align : usual;
    size_t head = align == '=' && size && strchr("+- ", text[0]) ? 1 : 0;
    if (align == '=' && size >= head + 2 && text[head] == '0' && isalpha((unsigned char)text[head + 1]))
        head += 2;
    size_t before = align == '<' ? 0 : align == '^' ? need / 2 : need;
    buf_append(out, text, head);
    put_fill(spec, before, out);
    buf_append(out, text + head, size - head);
    put_fill(spec, need - before, out);
}

static bool put_text(struct jinja *j, const struct spec *spec, struct jinja_value value, struct buf *out) {
    struct jinja_text *t = value.text;
    size_t size = t->size, length;
    if (!jinja_text_length(j, t, &length) || !jinja_charge(j, t->size / 16)) return false;
    if (spec->precision >= 0 && (size_t)spec->precision < length) {
        size = 0;
        for (int i = 0; i < spec->precision; i++) do
                size++;
            while (size < t->size && (t->bytes[size] & 0xC0) == 0x80);
    }
    put_padded(spec, '<', t->bytes, size, out);
    return true;
}

static void put_grouped(const struct spec *spec, bool negative, const char *prefix, const char *digits,
                        size_t every, struct buf *out) {
    char text[1024];
    size_t at = 0, whole = strspn(digits, "0123456789abcdefABCDEF");
    if (spec->type && strchr("eEfFgG%", spec->type)) whole = strspn(digits, "0123456789");
    if (negative)
        text[at++] = '-';
    else if (spec->sign == '+' || spec->sign == ' ')
        text[at++] = spec->sign;
    for (; *prefix; prefix++) text[at++] = *prefix;
    for (size_t i = 0; digits[i] && at + 4 < sizeof text; i++) {
        if (spec->group && i && i < whole && (whole - i) % every == 0) text[at++] = spec->group;
        text[at++] = digits[i];
    }
    put_padded(spec, '>', text, at, out);
}

static void put_int(const struct spec *spec, int64_t value, struct buf *out) {
    char digits[520];
    size_t at = sizeof digits - 1;
    bool upper = spec->type == 'X', negative = value < 0;
    unsigned base = spec->type == 'b' ? 2 : spec->type == 'o' ? 8 : spec->type == 'x' || upper ? 16 : 10;
    uint64_t left = negative ? 0 - (uint64_t)value : (uint64_t)value;
    digits[at] = 0;
    do digits[--at] = (upper ? "0123456789ABCDEF" : "0123456789abcdef")[left % base];
    while (left /= base);
    int precision = spec->precision < most_precision ? spec->precision : most_precision;
    while ((int)(sizeof digits - 1 - at) < precision) digits[--at] = '0';
    const char *prefix = !spec->alternate ? ""
                         : base == 2      ? "0b"
                         : base == 8      ? "0o"
                         : base == 16     ? (upper ? "0X" : "0x")
                                          : "";
    put_grouped(spec, negative, prefix, digits + at, base == 10 ? 3 : 4, out);
}

/* A real without a type: as repr(), or with a precision as %g that keeps one decimal. */
static void default_real(double value, int precision, char *out, size_t size) {
    struct buf shown = {0};
    if (precision < 0) {
        jinja_write_real(value, &shown);
        snprintf(out, size, "%s", shown.data ? shown.data : "");
    } else {
        snprintf(out, size, "%.*g", precision ? precision : 1, value);
        if (!strpbrk(out, ".en") && strlen(out) + 3 < size) memcpy(out + strlen(out), ".0", 3);
    }
    buf_release(&shown);
}

static void put_real(const struct spec *spec, double value, struct buf *out) {
    char text[800], format[8];
    bool negative = signbit(value) && !isnan(value);
    int precision = spec->precision < 0                ? 6
                    : spec->precision < most_precision ? spec->precision
                                                       : most_precision;
    double size = fabs(value);
    if (!spec->type && isfinite(size))
        default_real(size, spec->precision < 0 ? -1 : precision, text, sizeof text);
    else if (!isfinite(size))
        snprintf(text, sizeof text, "%s", isnan(size) ? "nan" : "inf");
    else {
        char type = spec->type == '%' ? 'f' : spec->type ? spec->type : 'g';
        snprintf(format, sizeof format, "%%%s.*%c", spec->alternate ? "#" : "", type);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(text, sizeof text - 1, format, precision, spec->type == '%' ? size * 100 : size);
#pragma GCC diagnostic pop
        if (spec->type == '%') memcpy(text + strlen(text), "%", 2);
    }
    put_grouped(spec, negative, "", text, 3, out);
}

/* Shows a number by `type`; false when the type is none of a number's. */
static bool put_number(struct jinja *j, const struct spec *spec, struct jinja_value value, struct buf *out) {
    char type = spec->type;
    if (type && strchr("eEfFgG%", type))
        put_real(spec, jinja_number_real(value), out);
    else if (value.kind == JINJA_FLOAT && (!type || type == 'n'))
        put_real(spec, value.real, out);
    else if (value.kind != JINJA_FLOAT && (!type || strchr("dnboxX", type)))
        put_int(spec, jinja_number_int(value), out);
    else
        return jinja_fail(j, "unknown format code '%c' for object of type '%s'", type,
                          jinja_type_name(value));
    return true;
}

/* ---- "%" --------------------------------------------------------------------------------------- */

struct percent {
    struct jinja *j;
    const struct jinja_text *format;
    size_t at;
    struct jinja_value arguments;
    size_t used;
    bool named;
    struct buf *out;
};

static bool next_argument(struct percent *p, struct jinja_value *out) {
    bool tuple = p->arguments.kind == JINJA_TUPLE;
    size_t count = tuple ? p->arguments.list->count : 1;
    if (p->used >= count) return jinja_fail(p->j, "not enough arguments for format string");
    *out = tuple ? p->arguments.list->items[p->used] : p->arguments;
    p->used++;
    return true;
}

static char peek(const struct percent *p) { return p->at < p->format->size ? p->format->bytes[p->at] : 0; }

static bool percent_number(struct percent *p, int most, int *out) {
    struct jinja_value value;
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        if (!next_argument(p, &value)) return false;
        if (!jinja_is_int(value)) return jinja_fail(p->j, "* wants int");
        n = jinja_number_int(value);
    } else {
        for (; isdigit((unsigned char)peek(p)) && n <= most; p->at++) n = n * 10 + (peek(p) - '0');
    }
    if (n > most) return jinja_fail(p->j, "a width of %lld is too large", (long long)n);
    *out = n < -most ? -most : (int)n;
    return true;
}

/* (name), flags, width and precision behind "%". */
static bool percent_spec(struct percent *p, struct spec *spec, struct jinja_value *value, bool *has_value) {
    bool left = false, zero = false;
    *has_value = false;
    if (peek(p) == '(') {
        size_t start = ++p->at;
        struct jinja_value key;
        struct jinja_entry *entry;
        while (p->at < p->format->size && peek(p) != ')') p->at++;
        if (!peek(p)) return jinja_fail(p->j, "incomplete format key");
        if (p->arguments.kind != JINJA_DICT) return jinja_fail(p->j, "format requires a mapping");
        if (!jinja_text(p->j, p->format->bytes + start, p->at - start, &key) ||
            !jinja_dict_find(p->j, p->arguments.dict, key, &entry))
            return false;
        if (!entry) return jinja_fail(p->j, "the format names a key that is missing");
        *value = entry->value;
        *has_value = p->named = true;
        p->at++;
    }
    for (;; p->at++) {
        char c = peek(p);
        if (c == '-')
            left = true;
        else if (c == '0')
            zero = true;
        else if (c == '+' || (c == ' ' && spec->sign != '+'))
            spec->sign = c;
        else if (c == '#')
            spec->alternate = true;
        else if (c != ' ')
            break;
    }
    if (!percent_number(p, most_width, &spec->width)) return false;
    if (spec->width < 0) {
        left = true;
        spec->width = -spec->width;
    }
    if (peek(p) == '.') {
        p->at++;
        if (!percent_number(p, most_width, &spec->precision)) return false;
        if (spec->precision < 0) spec->precision = 0;
    }
    while (peek(p) && strchr("hlL", peek(p))) p->at++;
    spec->type = peek(p);
    if (!jinja_charge(p->j, format_cost(spec))) return false;
    spec->align = left ? '<' : zero ? '=' : '>';
    if (zero && !left && spec->type && strchr("diouxXeEfFgG", spec->type))
        spec->fill[0] = '0';
    else if (!left)
        spec->align = '>';
    return spec->type || jinja_fail(p->j, "incomplete format");
}

static bool percent_integer(struct percent *p, struct spec *spec, struct jinja_value value) {
    char type = spec->type;
    if (value.kind == JINJA_UNDEFINED) return jinja_undefined_fail(p->j, value);
    if (!jinja_is_number(value) || (value.kind == JINJA_FLOAT && strchr("xXo", type)))
        return jinja_fail(p->j, "%%%c format: a number is required, not %s", type, jinja_type_name(value));
    int64_t whole;
    if (value.kind == JINJA_FLOAT) {
        if (!(fabs(value.real) < 9.2e18)) return jinja_fail(p->j, "cannot convert the number to an integer");
        whole = (int64_t)value.real;
    } else
        whole = jinja_number_int(value);
    if (strchr("iu", type)) spec->type = 'd';
    put_int(spec, whole, p->out);
    return true;
}

static bool percent_one(struct percent *p) {
    struct spec spec = {.fill = " ", .width = 0, .precision = -1};
    struct jinja_value value, text;
    bool has;
    if (!percent_spec(p, &spec, &value, &has)) return false;
    char type = spec.type;
    p->at++;
    if (type == '%') return buf_byte(p->out, '%') || true;
    if (!has && !next_argument(p, &value)) return false;
    switch (type) {
    case 's': return jinja_str(p->j, value, &text) && put_text(p->j, &spec, text, p->out);
    case 'r':
    case 'a': return jinja_repr(p->j, value, &text) && put_text(p->j, &spec, text, p->out);
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X': return percent_integer(p, &spec, value);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (value.kind == JINJA_UNDEFINED) return jinja_undefined_fail(p->j, value);
        if (!jinja_is_number(value))
            return jinja_fail(p->j, "must be real number, not %s", jinja_type_name(value));
        put_real(&spec, jinja_number_real(value), p->out);
        return true;
    case 'c': {
        char bytes[4];
        size_t length;
        if (value.kind == JINJA_TEXT)
            return jinja_text_length(p->j, value.text, &length) &&
                   (length == 1 || jinja_fail(p->j, "%%c requires int or char")) &&
                   put_text(p->j, &spec, value, p->out);
        if (!jinja_is_int(value)) return jinja_fail(p->j, "%%c requires int or char");
        int64_t code = jinja_number_int(value);
        if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            return jinja_fail(p->j, "%%c arg not in range");
        return jinja_text(p->j, bytes, (size_t)utf8_encode((uint32_t)code, bytes), &text) &&
               put_text(p->j, &spec, text, p->out);
    }
    default:
        return jinja_fail(p->j, "unsupported format character '%c'",
                          isprint((unsigned char)type) ? type : '?');
    }
}

bool jinja_percent(struct jinja *j, struct jinja_value format, struct jinja_value arguments,
                   struct jinja_value *out) {
    struct buf made;
    struct percent p = {.j = j, .format = format.text, .arguments = arguments, .out = &made};
    bool ok = jinja_charge(j, format.text->size / 2);
    jinja_buf(j, &made);
    while (ok && p.at < p.format->size && !made.failed) {
        char c = p.format->bytes[p.at++];
        if (c != '%')
            buf_byte(&made, c);
        else
            ok = jinja_step(j) && percent_one(&p);
    }
    bool mapping = arguments.kind == JINJA_DICT || arguments.kind == JINJA_LIST;
    size_t count = arguments.kind == JINJA_TUPLE ? arguments.list->count : mapping ? p.used : 1;
    if (ok && p.used < count && !p.named)
        ok = jinja_fail(j, "not all arguments converted during string formatting");
    if (!ok) {
        buf_release(&made);
        return false;
    }
    if (!jinja_text_take(j, &made, out)) return false;
    out->text->markup = format.text->markup;
    return true;
}

/* ---- "{}" -------------------------------------------------------------------------------------- */

struct formatter {
    struct jinja *j;
    const struct jinja_args *args;
    size_t next; /* the next automatic field */
    bool automatic, numbered;
    struct buf *out;
};

static bool parse_spec(struct jinja *j, const char *s, size_t size, struct spec *spec) {
    const char *end = s + size;
    uint32_t code;
    int n = utf8_decode(s, size, &code);
    bool filled = false;
    *spec = (struct spec){.fill = " ", .precision = -1};
    if (n && s + n < end && strchr("<>^=", s[n])) {
        memcpy(spec->fill, s, (size_t)n);
        spec->fill[n] = 0;
        spec->align = s[n];
        s += n + 1;
        filled = true;
    } else if (s < end && strchr("<>^=", *s))
        spec->align = *s++;
    if (s < end && strchr("+- ", *s)) spec->sign = *s++;
    if (s < end && *s == '#') s++, spec->alternate = true;
    if (s < end && *s == '0' && !filled) {
        s++;
        spec->fill[0] = '0';
        if (!spec->align) spec->align = '=';
    }
    for (; s < end && isdigit((unsigned char)*s) && spec->width <= most_width; s++)
        spec->width = spec->width * 10 + (*s - '0');
    if (s < end && (*s == ',' || *s == '_')) spec->group = *s++;
    if (s < end && *s == '.') {
        if (++s >= end || !isdigit((unsigned char)*s))
            return jinja_fail(j, "Format specifier missing precision");
        for (spec->precision = 0; s < end && isdigit((unsigned char)*s) && spec->precision <= most_width; s++)
            spec->precision = spec->precision * 10 + (*s - '0');
    }
    if (spec->width > most_width || spec->precision > most_width)
        return jinja_fail(j, "a width in a format is too large");
    if (!jinja_charge(j, format_cost(spec))) return false;
    if (s < end) spec->type = *s++;
    return s == end || jinja_fail(j, "Invalid format specifier");
}

static bool put_formatted(struct formatter *f, struct jinja_value value, const char *text, size_t size) {
    struct spec spec;
    if (!size) return jinja_write(f->j, value, f->out);
    if (!parse_spec(f->j, text, size, &spec)) return false;
    if (value.kind == JINJA_BOOL && !spec.type) value.kind = JINJA_BOOL;
    if (jinja_is_number(value) && !(value.kind == JINJA_BOOL && spec.type == 's'))
        return put_number(f->j, &spec, value, f->out);
    if (value.kind != JINJA_TEXT && value.kind != JINJA_UNDEFINED)
        return jinja_fail(f->j, "unsupported format string passed to %s.__format__", jinja_type_name(value));
    if (spec.type && spec.type != 's')
        return jinja_fail(f->j, "unknown format code '%c' for object of type 'str'", spec.type);
    if (spec.align == '=' && spec.fill[0] == '0') spec.align = '<';
    return jinja_str(f->j, value, &value) && put_text(f->j, &spec, value, f->out);
}

/* The argument that a field begins with: "", "0" or "name". */
static bool field_base(struct formatter *f, const char *name, size_t size, struct jinja_value *out) {
    int64_t index = 0;
    bool number = size && strspn(name, "0123456789") >= size;
    if (!size || number) {
        f->automatic |= !size;
        f->numbered |= number;
        if (f->automatic && f->numbered)
            return jinja_fail(
                f->j, "cannot switch between automatic field numbering and manual field specification");
        if (number && !jinja_parse_int(name, size, 10, &index))
            return jinja_fail(f->j, "Too many decimal digits in format string");
        size_t at = size ? (size_t)index : f->next++;
        if (at >= f->args->count)
            return jinja_fail(f->j, "Replacement index %zu out of range for positional args tuple", at);
        *out = f->args->values[at];
        return true;
    }
    for (size_t i = 0; i < f->args->named_count; i++) {
        const struct jinja_text *given = f->args->named[i].name.text;
        if (given->size != size || memcmp(given->bytes, name, size) != 0) continue;
        *out = f->args->named[i].value;
        return true;
    }
    return jinja_fail(f->j, "format: no argument named '%.*s'", (int)(size & 63), name);
}

/* "name.attribute[key]", looked up as the sandbox does. */
static bool field_value(struct formatter *f, const char *name, size_t size, struct jinja_value *out) {
    size_t at = 0;
    while (at < size && name[at] != '.' && name[at] != '[') at++;
    char base[64];
    if (at >= sizeof base) return jinja_fail(f->j, "a field name in a format is too long");
    memcpy(base, name, at);
    base[at] = 0;
    if (!field_base(f, base, at, out)) return false;
    while (at < size) {
        bool bracket = name[at++] == '[';
        size_t start = at;
        struct jinja_value key;
        int64_t number;
        while (at < size && (bracket ? name[at] != ']' : name[at] != '.' && name[at] != '[')) at++;
        if (start == at) return jinja_fail(f->j, "Empty attribute in format string");
        if (bracket && at >= size) return jinja_fail(f->j, "expected ']' in a format");
        if (!jinja_step(f->j) || !jinja_text(f->j, name + start, at - start, &key)) return false;
        bool digits = bracket;
        for (size_t i = start; i < at; i++) digits &= isdigit((unsigned char)name[i]) != 0;
        if (digits && jinja_parse_int(name + start, at - start, 10, &number)) key = jinja_int(number);
        if (!(bracket ? jinja_item(f->j, *out, key, out) : jinja_attribute(f->j, *out, key, out)))
            return false;
        if (bracket) at++;
        if (bracket && at < size && name[at] != '.' && name[at] != '[')
            return jinja_fail(f->j, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return true;
}

static bool format_into(struct formatter *f, const char *text, size_t size, int depth);

/* One {field}; `size` bytes between the braces. */
static bool put_field(struct formatter *f, const char *field, size_t size, int depth) {
    size_t name = 0;
    char conversion = 0;
    bool bracket = false;
    struct jinja_value value;
    for (; name < size && (bracket || (field[name] != '!' && field[name] != ':')); name++)
        bracket = field[name] == '[' ? true : field[name] == ']' ? false : bracket;
    size_t spec = name;
    if (spec < size && field[spec] == '!') {
        if (spec + 1 >= size) return jinja_fail(f->j, "end of string while looking for conversion specifier");
        conversion = field[spec + 1];
        spec += 2;
        if (spec < size && field[spec] != ':')
            return jinja_fail(f->j, "expected ':' after conversion specifier");
    }
    if (spec < size) spec++;
    if (!field_value(f, field, name, &value)) return false;
    if (conversion == 's' ? !jinja_str(f->j, value, &value) : conversion && !jinja_repr(f->j, value, &value))
        return false;
    if (conversion && !strchr("sra", conversion)) return jinja_fail(f->j, "Unknown conversion specifier");
    if (!memchr(field + spec, '{', size - spec)) return put_formatted(f, value, field + spec, size - spec);
    struct buf made, *before = f->out;
    jinja_buf(f->j, &made);
    f->out = &made;
    bool ok = format_into(f, field + spec, size - spec, depth + 1);
    f->out = before;
    ok = ok && put_formatted(f, value, made.data ? made.data : "", made.size);
    buf_release(&made);
    return ok;
}

static bool format_into(struct formatter *f, const char *text, size_t size, int depth) {
    if (depth > 1) return jinja_fail(f->j, "Max string recursion exceeded");
    for (size_t i = 0; i < size && !f->out->failed;) {
        char c = text[i++];
        if (c != '{' && c != '}') {
            buf_byte(f->out, c);
        } else if (i < size && text[i] == c) {
            buf_byte(f->out, c);
            i++;
        } else if (c == '}') {
            return jinja_fail(f->j, "Single '}' encountered in format string");
        } else {
            size_t start = i;
            int open = 1;
            for (; i < size && open; i++) open += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
            if (open) return jinja_fail(f->j, "expected '}' before end of string");
            if (!jinja_charge(f->j, 8) || !put_field(f, text + start, i - 1 - start, depth)) return false;
        }
    }
    return true;
}

bool jinja_format(struct jinja *j, const struct jinja_text *format, const struct jinja_args *args,
                  struct jinja_value *out) {
    struct buf made;
    struct formatter f = {.j = j, .args = args, .out = &made};
    jinja_buf(j, &made);
    if (!jinja_charge(j, format->size / 2) || !format_into(&f, format->bytes, format->size, 0)) {
        buf_release(&made);
        return false;
    }
    if (!jinja_text_take(j, &made, out)) return false;
    out->text->markup = format->markup;
    return true;
}
