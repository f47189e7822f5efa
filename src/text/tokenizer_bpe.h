/* Byte-pair encoding of one piece.
 *
 * Among all adjacent pairs of symbols that have a merge, the pair of the lowest rank, leftmost first,
 * becomes one symbol, until none is left (Sennrich et al. 2016, Algorithm 1, with the tie rule of Hugging
 * Face's tokenizers). Symbols begin as single bytes.
 *
 * Words: pair (two neighbours), rank (place in the list of merges; low first), slot (a symbol's place:
 * the offset of its first byte in the piece). */
#ifndef HONE_TEXT_TOKENIZER_BPE_H
#define HONE_TEXT_TOKENIZER_BPE_H

#include "text/tokenizer_vocab.h"

struct merge {
    int32_t left, right, result;
};

/* A merge of two tokens by their texts, or from "left right", where the first space after the first
 * character divides. Errors: ERROR_INPUT when a token or the joined one is not in the vocabulary. */
bool merge_make(struct merge *merge, const struct vocab *vocab, const struct tokenizer_text *left,
                const struct tokenizer_text *right, size_t rank, struct error *err);
bool merge_parse(struct merge *merge, const struct vocab *vocab, const struct tokenizer_text *text,
                 size_t rank, struct error *err);

struct merge_slot {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank; /* NO_RANK: the slot is empty */
};

struct bpe {
    struct merge *merges; /* by rank */
    size_t merge_count;
    struct merge_slot *slots;
    size_t mask;
    int32_t unknown;   /* for a byte without a token; -1: the byte is dropped. Set after bpe_init */
    bool fuse_unknown; /* a run of such bytes is one token */
    size_t window;     /* bytes; a piece longer than two is merged window by window. bpe_init sets it */
};

/* Takes over `merges` (from mem_alloc), also on failure. Of two merges of one pair the later counts. */
bool bpe_init(struct bpe *bpe, struct merge *merges, size_t count, struct error *err);
void bpe_release(struct bpe *bpe);

/* Memory for long pieces, grown as needed. All-zero is empty and valid. */
struct bpe_scratch {
    uint32_t *block; /* all arrays in one */
    size_t capacity; /* words */
    uint64_t merged; /* bytes of all windows and whole pieces so far: what the time goes with */
};
void bpe_scratch_release(struct bpe_scratch *scratch);

/* Appends the piece's ids; starts are offsets in the piece. Time and memory are linear in the piece, but
 * for windows that disagree to the end of their overlap (the whole is then merged at once, in O(n log n)). */
bool bpe_encode(const struct bpe *bpe, const struct vocab *vocab, struct bpe_scratch *scratch,
                const char *piece, size_t size, struct tokens *out, struct error *err);

/* Room for `extra` more tokens. */
bool tokens_reserve(struct tokens *tokens, size_t extra, struct error *err);

#endif
