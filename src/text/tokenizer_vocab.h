/* The vocabulary: ids, their texts and their bytes, and the byte alphabet of GPT-2.
 *
 * A byte-level vocabulary spells each byte as one printable character: 33…126, 161…172 and 174…255
 * stand for themselves, the other 68 bytes, in order, for U+0100…U+0143 (GPT-2's bytes_to_unicode). */
#ifndef HONE_TEXT_TOKENIZER_VOCAB_H
#define HONE_TEXT_TOKENIZER_VOCAB_H

#include "text/tokenizer.h"

/* Where a token comes from: the BPE model's own table, or the list of added tokens. */
enum vocab_flag { VOCAB_MODEL = 1, VOCAB_ADDED = 2, VOCAB_SPELLED = 4 /* set here: all in the alphabet */ };

struct vocab_entry {
    struct tokenizer_text text; /* data NULL: no token has this id, an error */
    uint8_t kind;               /* enum token_kind */
    uint8_t flags;              /* enum vocab_flag */
};

/* Byte strings by id, laid end to end, each followed by a NUL that does not count. */
struct vocab_strings {
    char *data;
    uint32_t *starts; /* [count + 1]; a string ends one before the next start */
};

struct vocab {
    size_t count;
    struct vocab_strings text;  /* as the table spells it */
    struct vocab_strings bytes; /* what it decodes to; added tokens: their text */
    uint8_t *kinds, *flags;
    uint32_t *by_text;  /* open addressing: id + 1, 0 empty; every token */
    uint32_t *by_bytes; /* the same over the bytes of the model's tokens; NULL unless asked for */
    size_t mask;
    int32_t byte_ids[256]; /* the model's token of a single byte, or -1 */
};

/* Copies all. Errors: ERROR_INPUT for a missing, empty, duplicate or invalid token. */
bool vocab_init(struct vocab *vocab, const struct vocab_entry *entries, size_t count, bool index_bytes,
                struct error *err);
void vocab_release(struct vocab *vocab);

/* The character that stands for a byte, as UTF-8; returns its size. */
size_t vocab_spell_byte(int byte, char out[2]);
const char *vocab_text(const struct vocab *vocab, int32_t id, size_t *size);
const char *vocab_bytes(const struct vocab *vocab, int32_t id, size_t *size);
int32_t vocab_find(const struct vocab *vocab, const char *text, size_t size);        /* -1: none */
int32_t vocab_find_bytes(const struct vocab *vocab, const char *bytes, size_t size); /* -1: none */

#endif
