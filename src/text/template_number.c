/* Numbers as Python has them, but integers of 64 bits: what does not fit is an error. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template_internal.h"

double jinja_number_real(struct jinja_value v) {
    return v.kind == JINJA_FLOAT ? v.real : (double)jinja_number_int(v);
}

/* Exact, where converting the integer to double would round. */
static int compare_int_real(int64_t i, double f) {
    if (isnan(f)) return 2;
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    int64_t whole = (int64_t)f;
    if (i != whole) return i < whole ? -1 : 1;
    double rest = f - (double)whole;
    return rest > 0 ? -1 : rest < 0;
}

int jinja_compare_numbers(struct jinja_value a, struct jinja_value b) {
    if (jinja_is_int(a) && jinja_is_int(b)) {
        int64_t x = jinja_number_int(a), y = jinja_number_int(b);
        return x < y ? -1 : x > y;
    }
    if (jinja_is_int(a)) return compare_int_real(jinja_number_int(a), b.real);
    if (jinja_is_int(b)) {
        int sign = compare_int_real(jinja_number_int(b), a.real);
        return sign == 2 ? 2 : -sign;
    }
    if (isnan(a.real) || isnan(b.real)) return 2;
    return a.real < b.real ? -1 : a.real > b.real;
}

/* The fewest digits that read back to the same value, in Python's layout: exponents below -4 and from
 * 16 on are written with "e". */
bool jinja_write_real(double value, struct buf *out) {
    char text[40], digits[24];
    if (isnan(value)) return buf_text(out, "nan");
    if (isinf(value)) return buf_text(out, value < 0 ? "-inf" : "inf");
    /* Fifteen digits hold any shorter decimal, zeros behind it; only subnormal numbers have fewer to give. */
    for (int precision = fabs(value) < 2.3e-308 ? 0 : 14; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, value);
        if (strtod(text, NULL) == value) break;
    }
    int count = 0, exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    for (const char *c = text; *c != 'e'; c++)
        if (isdigit((unsigned char)*c)) digits[count++] = *c;
    while (count > 1 && digits[count - 1] == '0') count--;
    if (text[0] == '-') buf_byte(out, '-');
    if (exponent < -4 || exponent >= 16) {
        buf_byte(out, digits[0]);
        if (count > 1) buf_byte(out, '.');
        buf_append(out, digits + 1, (size_t)count - 1);
        return buf_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    }
    if (exponent < 0) {
        buf_text(out, "0.");
        for (int i = -1; i > exponent; i--) buf_byte(out, '0');
        return buf_append(out, digits, (size_t)count);
    }
    for (int i = 0; i <= exponent || i < count; i++) {
        if (i == exponent + 1) buf_byte(out, '.');
        buf_byte(out, i < count ? digits[i] : '0');
    }
    return count <= exponent + 1 ? buf_text(out, ".0") : !out->failed;
}

static void trim(const char **bytes, size_t *size) { jinja_strip(bytes, size, NULL, true, true); }

static int digit_value(char c) {
    return isdigit((unsigned char)c) ? c - '0' : isalpha((unsigned char)c) ? (c | 0x20) - 'a' + 10 : 99;
}

bool jinja_parse_int(const char *bytes, size_t size, int base, int64_t *out) {
    uint64_t value = 0;
    bool negative = false, digit = false;
    trim(&bytes, &size);
    if (size && (*bytes == '-' || *bytes == '+')) {
        negative = *bytes == '-';
        bytes++, size--;
    }
    if (size > 2 && bytes[0] == '0') {
        int letter = bytes[1] | 0x20, meant = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
        if (meant && (base == meant || base == 0)) {
            base = meant;
            bytes += 2, size -= 2;
            if (*bytes == '_') bytes++, size--;
        }
    }
    if (base == 0) base = 10;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] == '_' && digit) {
            digit = false;
            continue;
        }
        int d = digit_value(bytes[i]);
        if (d >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)d, &value))
            return false;
        digit = true;
    }
    if (!digit || value > (uint64_t)INT64_MAX + negative) return false;
    *out = negative ? (int64_t)(0 - value) : (int64_t)value;
    return true;
}

bool jinja_parse_real(const char *bytes, size_t size, double *out) {
    char text[512];
    size_t n = 0;
    trim(&bytes, &size);
    if (!size || size >= sizeof text) return false;
    for (size_t i = 0; i < size; i++) {
        bool between =
            i && i + 1 < size && isdigit((unsigned char)bytes[i - 1]) && isdigit((unsigned char)bytes[i + 1]);
        if (bytes[i] == '_' && between) continue;
        text[n++] = bytes[i];
    }
    text[n] = 0;
    const char *plain = text + (*text == '-' || *text == '+');
    bool word =
        strcasecmp(plain, "inf") == 0 || strcasecmp(plain, "infinity") == 0 || strcasecmp(plain, "nan") == 0;
    if (!word && strspn(plain, "0123456789.eE+-") != strlen(plain)) return false;
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end;
}

/* ---- operators --------------------------------------------------------------------------------- */

static bool too_large(struct jinja *j) { return jinja_fail(j, "the integer is too large (64 bits)"); }

static bool power_int(struct jinja *j, int64_t base, int64_t exponent, struct jinja_value *out) {
    int64_t result = 1;
    if (exponent < 0) {
        if (!base) return jinja_fail(j, "0.0 cannot be raised to a negative power");
        *out = jinja_real(pow((double)base, (double)exponent));
        return true;
    }
    while (exponent) {
        if ((exponent & 1) && __builtin_mul_overflow(result, base, &result)) return too_large(j);
        exponent >>= 1;
        if (exponent && __builtin_mul_overflow(base, base, &base)) return too_large(j);
    }
    *out = jinja_int(result);
    return true;
}

static bool int_arithmetic(struct jinja *j, enum jinja_op op, int64_t a, int64_t b, struct jinja_value *out) {
    int64_t r = 0;
    bool over = false;
    if (!b && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return jinja_fail(j, op == OP_DIV ? "division by zero" : "integer division or modulo by zero");
    switch (op) {
    case OP_ADD: over = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: over = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: over = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV: *out = jinja_real((double)a / (double)b); return true;
    case OP_POW: return power_int(j, a, b, out);
    default:
        if (b == -1)
            over = op == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &r);
        else {
            int64_t quotient = a / b, rest = a % b;
            if (rest && (rest < 0) != (b < 0)) {
                quotient--;
                rest += b;
            }
            r = op == OP_FLOORDIV ? quotient : rest;
        }
    }
    *out = jinja_int(r);
    return !over || too_large(j);
}

static bool real_arithmetic(struct jinja *j, enum jinja_op op, double a, double b, struct jinja_value *out) {
    double r = 0;
    if (b == 0 && (op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD))
        return jinja_fail(j, "float division by zero");
    switch (op) {
    case OP_ADD: r = a + b; break;
    case OP_SUB: r = a - b; break;
    case OP_MUL: r = a * b; break;
    case OP_DIV: r = a / b; break;
    case OP_POW:
        if (a == 0 && b < 0) return jinja_fail(j, "0.0 cannot be raised to a negative power");
        if (a < 0 && isfinite(b) && b != floor(b)) return jinja_fail(j, "complex numbers are not supported");
        r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b)) return jinja_fail(j, "the result is too large");
        break;
    default: {
        double rest = fmod(a, b), quotient = (a - rest) / b;
        if (rest != 0 && (rest < 0) != (b < 0)) {
            rest += b;
            quotient -= 1;
        } else if (rest == 0) {
            rest = copysign(0, b);
        }
        if (quotient != 0) {
            double whole = floor(quotient);
            quotient = quotient - whole > 0.5 ? whole + 1 : whole;
        } else {
            quotient = copysign(0, a / b);
        }
        r = op == OP_MOD ? rest : quotient;
    }
    }
    *out = jinja_real(r);
    return true;
}

/* text * n, list * n */
static bool repeat(struct jinja *j, struct jinja_value what, int64_t times, struct jinja_value *out) {
    size_t n = times > 0 ? (size_t)times : 0, total;
    if (what.kind == JINJA_TEXT) {
        if (__builtin_mul_overflow(what.text->size, n, &total) || total > j->limits.memory)
            return jinja_alloc(j, SIZE_MAX / 2) != NULL;
        char *bytes = jinja_alloc(j, total);
        if (!bytes || !jinja_charge(j, total / 64)) return false;
        if (what.text->size == 1)
            memset(bytes, what.text->bytes[0], total);
        else if (what.text->size)
            for (size_t at = 0; at < total; at += what.text->size)
                memcpy(bytes + at, what.text->bytes, what.text->size);
        if (!jinja_text_view(j, bytes, total, out)) return false;
        out->text->markup = what.text->markup;
        return true;
    }
    if (__builtin_mul_overflow(what.list->count, n, &total) || total > j->limits.memory)
        return jinja_alloc(j, SIZE_MAX / 2) != NULL;
    struct jinja_list *list = jinja_list_new(j, total);
    if (!list || !jinja_charge(j, total)) return false;
    for (size_t i = 0; i < total; i++) list->items[i] = what.list->items[i % what.list->count];
    list->count = total;
    *out = jinja_of_list(what.kind, list);
    return true;
}

static bool escaped(struct jinja *j, struct jinja_value value, struct jinja_value *out) {
    struct buf made;
    jinja_buf(j, &made);
    if (value.text->markup) {
        *out = value;
        return true;
    }
    jinja_escape(value.text->bytes, value.text->size, &made);
    return jinja_text_take(j, &made, out);
}

static bool join_lists(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *out) {
    size_t total = a.list->count + b.list->count;
    struct jinja_list *list = jinja_list_new(j, total);
    if (!list || !jinja_charge(j, total / 4)) return false;
    if (a.list->count) memcpy(list->items, a.list->items, a.list->count * sizeof *list->items);
    if (b.list->count)
        memcpy(list->items + a.list->count, b.list->items, b.list->count * sizeof *list->items);
    list->count = total;
    *out = jinja_of_list(a.kind, list);
    return true;
}

static bool is_sequence(struct jinja_value v) {
    return v.kind == JINJA_TEXT || v.kind == JINJA_LIST || v.kind == JINJA_TUPLE;
}

bool jinja_arithmetic(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b,
                      struct jinja_value *out) {
    static const char *const shown[] = {
        [OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*",          [OP_DIV] = "/",
        [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "** or pow()"};
    if (jinja_is_int(a) && jinja_is_int(b))
        return int_arithmetic(j, op, jinja_number_int(a), jinja_number_int(b), out);
    if (jinja_is_number(a) && jinja_is_number(b))
        return real_arithmetic(j, op, jinja_number_real(a), jinja_number_real(b), out);
    if (op == OP_MOD && a.kind == JINJA_TEXT) return jinja_percent(j, a, b, out);
    if (a.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, a);
    if (b.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, b);
    if (op == OP_ADD && a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        if (a.text->markup != b.text->markup && (!escaped(j, a, &a) || !escaped(j, b, &b))) return false;
        return jinja_text_append(j, a, b, out);
    }
    if (op == OP_ADD && a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE))
        return join_lists(j, a, b, out);
    if (op == OP_MUL && is_sequence(a) && jinja_is_int(b)) return repeat(j, a, jinja_number_int(b), out);
    if (op == OP_MUL && is_sequence(b) && jinja_is_int(a)) return repeat(j, b, jinja_number_int(a), out);
    return jinja_fail(j, "unsupported operand type(s) for %s: '%s' and '%s'", shown[op], jinja_type_name(a),
                      jinja_type_name(b));
}

bool jinja_negate(struct jinja *j, struct jinja_value a, bool negative, struct jinja_value *out) {
    if (a.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, a);
    if (a.kind == JINJA_FLOAT) {
        *out = jinja_real(negative ? -a.real : a.real);
        return true;
    }
    if (!jinja_is_int(a))
        return jinja_fail(j, "bad operand type for unary %c: '%s'", negative ? '-' : '+', jinja_type_name(a));
    int64_t i = jinja_number_int(a);
    if (negative && __builtin_sub_overflow((int64_t)0, i, &i)) return too_large(j);
    *out = jinja_int(i);
    return true;
}
