/* Building and asking the vocabulary. */
#include "text/tokenizer_vocab.h"

#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/text.h"

enum {
    TOKENS_LIMIT = 1 << 23,      /* the largest vocabularies have some 2^18 */
    TOKEN_SIZE_LIMIT = 64 << 10, /* bytes of one token */
    TEXT_LIMIT = 1 << 30,        /* bytes of all */
};

/* The byte that a character of the alphabet stands for, or -1. */
static int alphabet_byte(uint32_t code) {
    if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172) || (code >= 174 && code <= 255))
        return (int)code;
    if (code < 256 || code > 256 + 67) return -1;
    uint32_t nth = code - 256; /* among the bytes 0…32, 127…160, 173 */
    return (int)(nth < 33 ? nth : nth < 67 ? nth - 33 + 127 : 173);
}

size_t vocab_spell_byte(int byte, char out[2]) {
    int code = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174 ? byte
               : byte < 33                                                                ? 256 + byte
               : byte < 161 ? 256 + 33 + byte - 127
                            : 256 + 67;
    if (code < 128) return out[0] = (char)code, 1;
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

static const char *string_of(const struct vocab_strings *strings, size_t id, size_t *size) {
    *size = strings->starts[id + 1] - strings->starts[id] - 1;
    return strings->data + strings->starts[id];
}

/* Writes what a token spells in the alphabet. False: it holds a character outside of it. */
static bool decode_token(const struct tokenizer_text *text, char *out, size_t *written) {
    size_t at = 0;
    for (*written = 0; at < text->size;) {
        uint32_t code;
        int length = utf8_decode(text->data + at, text->size - at, &code);
        int byte = alphabet_byte(code);
        if (byte < 0) return false;
        out[(*written)++] = (char)byte;
        at += (size_t)length;
    }
    return true;
}

static bool check_entries(const struct vocab_entry *entries, size_t count, size_t *total, struct error *err) {
    *total = 0;
    if (count == 0) return error_set(err, ERROR_INPUT, "tokenizer", "the vocabulary is empty");
    if (count > TOKENS_LIMIT)
        return error_set(err, ERROR_INPUT, "tokenizer", "%zu tokens are more than %d", count, TOKENS_LIMIT);
    for (size_t id = 0; id < count; id++) {
        const struct tokenizer_text *text = &entries[id].text;
        if (!text->data) return error_set(err, ERROR_INPUT, "tokenizer", "no token has the id %zu", id);
        if (text->size == 0) return error_set(err, ERROR_INPUT, "tokenizer", "token %zu is empty", id);
        if (text->size > TOKEN_SIZE_LIMIT)
            return error_set(err, ERROR_INPUT, "tokenizer", "token %zu has %zu bytes, more than %d", id,
                             text->size, TOKEN_SIZE_LIMIT);
        if (!utf8_valid(text->data, text->size, NULL))
            return error_set(err, ERROR_INPUT, "tokenizer", "token %zu is not valid UTF-8", id);
        if (memchr(text->data, '\0', text->size)) /* nor could it be written to a tokenizer.json again */
            return error_set(err, ERROR_INPUT, "tokenizer", "token %zu has a NUL in it", id);
        *total += text->size + 1;
        if (*total > TEXT_LIMIT)
            return error_set(err, ERROR_INPUT, "tokenizer", "the tokens have more than %d bytes in all",
                             TEXT_LIMIT);
    }
    return true;
}

/* The slot that holds `bytes`, or the empty one where it belongs. */
static size_t find_slot(const uint32_t *slots, size_t mask, const struct vocab_strings *strings,
                        const char *bytes, size_t size) {
    size_t at = (size_t)XXH3_64bits(bytes, size) & mask;
    for (; slots[at]; at = (at + 1) & mask) {
        size_t other;
        const char *held = string_of(strings, slots[at] - 1, &other);
        if (other == size && memcmp(held, bytes, size) == 0) break;
    }
    return at;
}

static bool index_texts(struct vocab *vocab, struct error *err) {
    for (size_t id = 0; id < vocab->count; id++) {
        size_t size;
        const char *text = string_of(&vocab->text, id, &size);
        size_t at = find_slot(vocab->by_text, vocab->mask, &vocab->text, text, size);
        if (vocab->by_text[at]) {
            struct buf shown;
            buf_init(&shown, 0);
            text_escape(&shown, text, size < 80 ? size : 80, false);
            error_set(err, ERROR_INPUT, "tokenizer", "tokens %u and %zu are the same: \"%s\"",
                      vocab->by_text[at] - 1, id, shown.data ? shown.data : "");
            buf_release(&shown);
            return false;
        }
        vocab->by_text[at] = (uint32_t)id + 1;
    }
    return true;
}

static void index_model(struct vocab *vocab) {
    memset(vocab->byte_ids, 0xff, sizeof vocab->byte_ids);
    for (size_t id = 0; id < vocab->count; id++) {
        size_t size;
        if (!(vocab->flags[id] & VOCAB_MODEL)) continue;
        const char *bytes = string_of(&vocab->bytes, id, &size);
        if (!(vocab->flags[id] & VOCAB_SPELLED)) continue; /* cannot be met in a piece */
        if (size == 1) vocab->byte_ids[(unsigned char)*bytes] = (int32_t)id;
        if (!vocab->by_bytes) continue;
        size_t at = find_slot(vocab->by_bytes, vocab->mask, &vocab->bytes, bytes, size);
        vocab->by_bytes[at] = (uint32_t)id + 1;
    }
}

bool vocab_init(struct vocab *vocab, const struct vocab_entry *entries, size_t count, bool index_bytes,
                struct error *err) {
    size_t total, slots = 16;
    memset(vocab, 0, sizeof *vocab);
    if (!check_entries(entries, count, &total, err)) return false;
    while (slots < 2 * count) slots *= 2;
    vocab->count = count;
    vocab->mask = slots - 1;
    vocab->text.data = mem_alloc(total);
    vocab->bytes.data = mem_alloc(total);
    vocab->text.starts = mem_array(count + 1, sizeof(uint32_t));
    vocab->bytes.starts = mem_array(count + 1, sizeof(uint32_t));
    vocab->kinds = mem_alloc(count);
    vocab->flags = mem_alloc(count);
    vocab->by_text = mem_calloc(slots, sizeof(uint32_t));
    if (index_bytes) vocab->by_bytes = mem_calloc(slots, sizeof(uint32_t));
    if (!vocab->text.data || !vocab->bytes.data || !vocab->text.starts || !vocab->bytes.starts ||
        !vocab->kinds || !vocab->flags || !vocab->by_text || (index_bytes && !vocab->by_bytes)) {
        vocab_release(vocab);
        return error_no_memory(err, "tokenizer", 2 * total + slots * sizeof(uint32_t));
    }
    uint32_t text_at = 0, bytes_at = 0;
    for (size_t id = 0; id < count; id++) {
        const struct vocab_entry *entry = &entries[id];
        vocab->kinds[id] = entry->kind;
        vocab->flags[id] = entry->flags;
        vocab->text.starts[id] = text_at;
        vocab->bytes.starts[id] = bytes_at;
        memcpy(vocab->text.data + text_at, entry->text.data, entry->text.size);
        vocab->text.data[text_at + entry->text.size] = '\0';
        text_at += (uint32_t)entry->text.size + 1;
        char *bytes = vocab->bytes.data + bytes_at;
        size_t size;
        bool spelled = decode_token(&entry->text, bytes, &size);
        if (spelled) vocab->flags[id] |= VOCAB_SPELLED;
        if (!spelled || (entry->flags & VOCAB_ADDED)) {
            size = entry->text.size;
            memcpy(bytes, entry->text.data, size);
        }
        bytes[size] = '\0';
        bytes_at += (uint32_t)size + 1;
    }
    vocab->text.starts[count] = text_at;
    vocab->bytes.starts[count] = bytes_at;
    if (!index_texts(vocab, err)) {
        vocab_release(vocab);
        return false;
    }
    index_model(vocab);
    return true;
}

void vocab_release(struct vocab *vocab) {
    mem_free(vocab->text.data);
    mem_free(vocab->text.starts);
    mem_free(vocab->bytes.data);
    mem_free(vocab->bytes.starts);
    mem_free(vocab->kinds);
    mem_free(vocab->flags);
    mem_free(vocab->by_text);
    mem_free(vocab->by_bytes);
    memset(vocab, 0, sizeof *vocab);
}

const char *vocab_text(const struct vocab *vocab, int32_t id, size_t *size) {
    return string_of(&vocab->text, (size_t)id, size);
}

const char *vocab_bytes(const struct vocab *vocab, int32_t id, size_t *size) {
    return string_of(&vocab->bytes, (size_t)id, size);
}

int32_t vocab_find(const struct vocab *vocab, const char *text, size_t size) {
    return (int32_t)vocab->by_text[find_slot(vocab->by_text, vocab->mask, &vocab->text, text, size)] - 1;
}

int32_t vocab_find_bytes(const struct vocab *vocab, const char *bytes, size_t size) {
    return (int32_t)vocab->by_bytes[find_slot(vocab->by_bytes, vocab->mask, &vocab->bytes, bytes, size)] - 1;
}
