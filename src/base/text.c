#include "base/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int utf8_decode(const char *text, size_t size, uint32_t *code) {
    const unsigned char *b = (const unsigned char *)text;
    if (!size) return 0;
    if (b[0] < 0x80) {
        *code = b[0];
        return 1;
    }
    int length = b[0] >= 0xF0 && b[0] <= 0xF4 ? 4 : b[0] >= 0xE0 ? 3 : b[0] >= 0xC2 ? 2 : 0;
    if (!length || b[0] > 0xF4 || size < (size_t)length) return 0;
    uint32_t c = b[0] & (0xFFu >> (length + 1));
    for (int i = 1; i < length; i++) {
        if ((b[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (b[i] & 0x3Fu);
    }
    if ((length == 3 && c < 0x800) || (length == 4 && (c < 0x10000 || c > 0x10FFFF)) ||
        (c >= 0xD800 && c <= 0xDFFF))
        return 0;
    *code = c;
    return length;
}

size_t utf8_begun(const char *text, size_t size) {
    char whole[5];
    uint32_t code;
    unsigned char lead = size ? (unsigned char)text[0] : 0;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    for (size_t taken = size < 3 ? size : 3; taken > 1; taken--) /* only the second byte has other bounds */
        for (size_t length = taken + 1; length <= 4; length++) {
            memcpy(whole, text, taken);
            memset(whole + taken, 0x80, length - taken);
            if (utf8_decode(whole, length, &code) == (int)length) return taken;
        }
    return 1;
}

size_t utf8_whole(const char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++)
        if (utf8_begun(text + size - back, back) == back) return size - back;
    return size;
}

int utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

bool utf8_valid(const char *text, size_t size, size_t *bad) {
    for (size_t i = 0; i < size;) {
        uint32_t code;
        int length = utf8_decode(text + i, size - i, &code);
        if (!length) {
            if (bad) *bad = i;
            return false;
        }
        i += (size_t)length;
    }
    return true;
}

size_t utf8_mark(const char *text, size_t size) {
    return size >= 3 && !memcmp(text, "\xef\xbb\xbf", 3) ? 3 : 0;
}

/* Marks that reorder or hide text: bidirectional controls, zero-width characters, the BOM. */
static bool is_deceptive(uint32_t c) {
    return (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) || (c >= 0x2060 && c <= 0x2069) ||
           c == 0x061C || c == 0xFEFF || (c >= 0x80 && c < 0xA0) || c == 0x2028 || c == 0x2029;
}

bool text_escape(struct buf *out, const char *text, size_t size, bool keep_lines) {
    for (size_t i = 0; i < size;) {
        uint32_t code;
        int length = utf8_decode(text + i, size - i, &code);
        if (!length) {
            buf_printf(out, "\\x%02x", (unsigned char)text[i++]);
            continue;
        }
        if (keep_lines && (code == '\n' || code == '\t'))
            buf_byte(out, (char)code);
        else if (code == '\n')
            buf_text(out, "\\n");
        else if (code == '\t')
            buf_text(out, "\\t");
        else if (code < 0x20 || code == 0x7F)
            buf_printf(out, "\\x%02x", (unsigned)code);
        else if (is_deceptive(code))
            buf_printf(out, "\\u{%x}", (unsigned)code);
        else
            buf_append(out, text + i, (size_t)length);
        i += (size_t)length;
    }
    return !out->failed;
}

void text_clean(char *text) {
    char *to = text;
    for (size_t left = strlen(text); left > 0 && utf8_begun(text, left) != left;) {
        uint32_t code = 0;
        int length = utf8_decode(text, left, &code);
        bool control = (code < 0x20 && code != '\n' && code != '\t') || code == 0x7F;
        bool kept = length && !control && !is_deceptive(code);
        size_t read = length ? (size_t)length : 1;
        if (kept)
            memmove(to, text, read);
        else
            *to = '?';
        to += kept ? read : 1;
        text += read;
        left -= read;
    }
    *to = '\0';
}

void text_ellipsis(char *text, size_t capacity) {
    static const char mark[] = "\u2026";
    enum { longest_word = 40 };
    if (capacity < sizeof mark) return;
    size_t end = capacity - sizeof mark, word;
    for (int i = 0; i < 3 && end && ((unsigned char)text[end] & 0xC0) == 0x80; i++) end--;
    for (word = end; word && word + longest_word > end && text[word] != ' ';) word--;
    if (word && text[word] == ' ') end = word;
    while (end && text[end - 1] == ' ') end--;
    memcpy(text + end, mark, sizeof mark);
}

const char *text_plural(uint64_t count, const char *one, const char *many) { return count == 1 ? one : many; }

const char *text_bytes(uint64_t bytes, char out[32]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    snprintf(out, 32, unit == 0 ? "%.0f %s" : value < 100 ? "%.2f %s" : "%.0f %s", value, units[unit]);
    return out;
}

bool text_parse_bytes(const char *text, uint64_t *bytes) {
    static const char letters[] = "KMGT";
    char *end;
    *bytes = 0;
    if (*text < '0' || *text > '9' || strpbrk(text, "xX")) return false;
    double value = strtod(text, &end); /* infinity when it is too large */
    double factor = 1;
    int upper = *end & ~0x20; /* 0 at the end, and of a space: strchr would find the letters' own end */
    const char *letter = upper ? strchr(letters, upper) : NULL;
    if (letter) {
        for (long i = letter - letters; i >= 0; i--) factor *= 1024;
        end++;
        if (*end == 'i') end++;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end) return false;
    bool fits = value * factor < 9e18;
    *bytes = fits ? (uint64_t)(value * factor) : UINT64_MAX;
    return fits;
}

int text_distance(const char *a, const char *b) {
    int row[64];
    int n = (int)strnlen(a, 63), m = (int)strnlen(b, 63);
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int replaced = diagonal + (a[i - 1] != b[j - 1]);
            int best = row[j] + 1 < row[j - 1] + 1 ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = replaced < best ? replaced : best;
        }
    }
    return row[m];
}
