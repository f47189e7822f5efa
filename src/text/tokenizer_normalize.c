/* Unicode's normal form C, in time linear in the text.
 *
 * Text is composed cluster by cluster: a cluster begins at a character that is no mark and no trailing
 * Hangul letter, so that nothing in it can meet what stands before. Its bytes all come from the
 * cluster's first byte. Marks are ordered by a counting sort, because a cluster may be as long as the text.
 * Reference: Unicode Standard Annex 15. */
#include <string.h>
#include <utf8proc.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "text/tokenizer_parts.h"

enum { CLASSES = 256, DECOMPOSED_MAX = 8 /* code points of one, canonically: at most 4 */ };

struct composer {
    utf8proc_int32_t *codes, *ordered; /* [capacity] decomposed code points of a cluster */
    size_t count, capacity;
};

void normalized_release(struct normalized *normalized) {
    mem_free(normalized->data);
    mem_free(normalized->map);
    memset(normalized, 0, sizeof *normalized);
}

bool normalized_append(struct normalized *out, const char *bytes, size_t size, uint32_t from,
                       struct error *err) {
    if (out->capacity - out->size < size + 1) {
        size_t grown = out->capacity + out->capacity / 2 + size + 64;
        char *data = mem_realloc(out->data, grown);
        if (data) out->data = data;
        uint32_t *map = data ? mem_realloc(out->map, grown * sizeof *map) : NULL;
        if (!map) return error_no_memory(err, "tokenizer", grown * (1 + sizeof *map));
        out->map = map;
        out->capacity = grown;
    }
    memcpy(out->data + out->size, bytes, size);
    for (size_t i = 0; i <= size; i++) out->map[out->size + i] = from;
    out->size += size;
    return true;
}

/* Hugging Face's tokenizers, whose ids are wanted, compose by the tables of Unicode 9. What became a mark
 * later, by Unicode's DerivedAge and DerivedCombiningClass, is a character like any other to them: it changes
 * places with none and composes with none. */
static const struct {
    uint32_t first, last;
} later_marks[] = {
    {0x7FD, 0x7FD},     {0x897, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},
    {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1AFF},   {0x1DF6, 0x1DFA},
    {0xA82C, 0xA82C},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50},
    {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0}, {0x11A34, 0x11A34},
    {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45}, {0x11D97, 0x11D97},
    {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

static bool is_later_mark(uint32_t code) {
    for (size_t i = 0; i < sizeof later_marks / sizeof *later_marks && code >= later_marks[i].first; i++)
        if (code <= later_marks[i].last) return true;
    return false;
}

static bool begins_cluster(uint32_t code) {
    if (code < 0x300) return true;
    if ((code >= 0x1160 && code <= 0x11FF)) return false; /* Hangul vowels and trailing consonants */
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    bool mark = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                category == UTF8PROC_CATEGORY_ME;
    return !mark || is_later_mark(code);
}

/* Whether code points below this can neither change nor be changed: no composed form has an exclusion
 * below U+0300, so text without anything above is in NFC. */
static bool surely_composed(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] >= 0xCC) return false; /* the first byte of U+0300 */
    return true;
}

static bool composer_add(struct composer *c, uint32_t code, struct error *err) {
    utf8proc_int32_t parts[DECOMPOSED_MAX];
    int boundary = 0;
    utf8proc_ssize_t count = utf8proc_decompose_char((utf8proc_int32_t)code, parts, DECOMPOSED_MAX,
                                                     UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, &boundary);
    if (count < 0 || count > DECOMPOSED_MAX)
        return error_set(err, ERROR_INTERNAL, "tokenizer", "U+%04X does not decompose", code);
    if (c->count + (size_t)count > c->capacity) {
        size_t grown = c->capacity * 2 + 64;
        utf8proc_int32_t *codes = mem_realloc(c->codes, grown * sizeof *codes);
        if (codes) c->codes = codes;
        utf8proc_int32_t *ordered = codes ? mem_realloc(c->ordered, grown * sizeof *ordered) : NULL;
        if (!ordered) return error_no_memory(err, "tokenizer", 2 * grown * sizeof *codes);
        c->ordered = ordered;
        c->capacity = grown;
    }
    memcpy(c->codes + c->count, parts, (size_t)count * sizeof *parts);
    c->count += (size_t)count;
    return true;
}

static unsigned class_of(utf8proc_int32_t code) {
    unsigned class = (unsigned)utf8proc_get_property(code)->combining_class;
    return class && is_later_mark((uint32_t)code) ? 0 : class;
}

/* Canonical order of codes[first, end), a run of nonzero classes: stable, by class. */
static void order_marks(struct composer *c, size_t first, size_t end) {
    size_t places[CLASSES + 1] = {0};
    if (end - first < 2) return;
    for (size_t i = first; i < end; i++) places[class_of(c->codes[i]) % CLASSES + 1]++;
    for (size_t k = 0; k < CLASSES; k++) places[k + 1] += places[k];
    for (size_t i = first; i < end; i++) c->ordered[places[class_of(c->codes[i]) % CLASSES]++] = c->codes[i];
    memcpy(c->codes + first, c->ordered, (end - first) * sizeof *c->codes);
}

static bool composer_flush(struct composer *c, uint32_t from, struct normalized *out, struct error *err) {
    for (size_t first = 0, end; first < c->count; first = end + 1) {
        end = first;
        while (end < c->count && class_of(c->codes[end])) end++;
        order_marks(c, first, end);
    }
    utf8proc_ssize_t count =
        utf8proc_normalize_utf32(c->codes, (utf8proc_ssize_t)c->count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < count; i++) {
        char bytes[4];
        int length = utf8_encode((uint32_t)c->codes[i], bytes);
        if (!normalized_append(out, bytes, (size_t)length, from, err)) return false;
    }
    c->count = 0;
    return true;
}

bool normalize_nfc(const char *text, size_t size, struct normalized *out, bool *changed, struct error *err) {
    struct composer c = {0};
    bool ok = true;
    uint32_t from = 0;
    *changed = false;
    if (surely_composed(text, size)) return true;
    out->size = 0;
    for (size_t at = 0; ok && at < size;) {
        uint32_t code;
        int length = utf8_decode(text + at, size - at, &code);
        if (begins_cluster(code)) {
            ok = composer_flush(&c, from, out, err);
            from = (uint32_t)at;
        }
        ok = ok && composer_add(&c, code, err);
        at += (size_t)length;
    }
    ok = ok && composer_flush(&c, from, out, err);
    mem_free(c.codes);
    mem_free(c.ordered);
    *changed = ok && (out->size != size || memcmp(out->data, text, size) != 0);
    return ok;
}
