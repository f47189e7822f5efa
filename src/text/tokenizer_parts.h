/* The tokenizer's inside, shared by the files that open, run and write it. */
#ifndef HONE_TEXT_TOKENIZER_PARTS_H
#define HONE_TEXT_TOKENIZER_PARTS_H

#include "text/tokenizer_added.h"
#include "text/tokenizer_bpe.h"
#include "text/tokenizer_split.h"
#include "text/tokenizer_vocab.h"

struct tokenizer_spare; /* working memory that a call leaves to the next (tokenizer.c) */

struct tokenizer {
    struct vocab vocab;
    struct bpe bpe;
    struct added added;
    struct splitter splitter;
    bool nfc;                           /* text is brought to Unicode's NFC first */
    bool ignore_merges;                 /* a piece that is a token as a whole is not merged */
    int32_t bos, eos, unknown, padding; /* -1: none */
    bool add_bos, add_eos;
    struct tokenizer_spare *spare;
};

/* The tokens, gathered by a reader of tables or of JSON. */
struct tokenizer_parts {
    struct vocab_entry *entries; /* [entry_count] */
    size_t entry_count;
    struct added_token *added;
    size_t added_count;
};

/* An empty tokenizer: no vocabulary yet, no special ids. */
bool tokenizer_make(struct tokenizer **out, struct error *err);
/* The vocabulary and the added tokens; merges follow, with bpe_init. ignore_merges must be set before. */
bool tokenizer_fill(struct tokenizer *tokenizer, const struct tokenizer_parts *parts, struct error *err);

/* The pre-tokenizer of a GGUF's tokenizer.ggml.pre (tokenizer_pre.c). Errors: ERROR_INPUT, by name. */
bool tokenizer_set_pre(struct tokenizer *tokenizer, const char *pre, struct error *err);
/* The other way: the first name of the row that cuts, normalizes and merges as this one does, in `out`; false
 * where there is none. */
bool tokenizer_pre_name(const struct tokenizer *tokenizer, char out[64]);

/* Text in NFC, with the offset that each byte comes from (tokenizer_normalize.c). */
struct normalized {
    char *data;
    uint32_t *map; /* [size + 1] */
    size_t size, capacity;
};
/* *changed false: the text is in NFC as it stands, and *out is not used. */
bool normalize_nfc(const char *text, size_t size, struct normalized *out, bool *changed, struct error *err);
bool normalized_append(struct normalized *out, const char *bytes, size_t size, uint32_t from,
                       struct error *err);
void normalized_release(struct normalized *normalized);

#endif
