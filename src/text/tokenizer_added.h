/* Added tokens: matched as a whole, before the text is cut into pieces.
 *
 * At each place, leftmost first, the longest added token wins. Its flags then widen it over the
 * white space beside it (lstrip, rstrip) or drop it inside of a word (single_word). */
#ifndef HONE_TEXT_TOKENIZER_ADDED_H
#define HONE_TEXT_TOKENIZER_ADDED_H

#include "text/tokenizer.h"

struct added_token {
    int32_t id;
    struct tokenizer_text content; /* added_init copies it */
    bool special, single_word, lstrip, rstrip;
    bool normalized; /* looked for in the normalized text */
};

struct added_node;
struct added {
    struct added_token *tokens;
    char *texts;
    size_t count;
    struct added_node *nodes; /* a tree of bytes; node 0 is the root of raw text, node 1 of normalized */
    uint32_t node_count;
    uint32_t first[2][256]; /* children of the roots by byte, for speed; 0: none */
};

bool added_init(struct added *added, const struct added_token *tokens, size_t count, struct error *err);
void added_release(struct added *added);
/* Whether any token is looked for in raw or in normalized text. */
bool added_any(const struct added *added, bool normalized);

/* All 0 before the first. A match may begin before `end` of the one before it, inside of white space that
 * belongs to that one too; the text that follows goes on at its own `end`, as in the `tokenizers` library. */
struct added_match {
    const struct added_token *token;
    size_t first, end;             /* with the white space that belongs to it */
    size_t behind;                 /* where the token itself ends, and the search goes on */
    size_t space_first, space_end; /* white space that is known to be some */
};
/* The next match. False: none. Special tokens are skipped over unless `special`. */
bool added_find(const struct added *added, bool normalized, bool special, const char *text, size_t size,
                struct added_match *match);

#endif
