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

struct added_match {
    const struct added_token *token;
    size_t first, end;
};
/* The first match at or after `from`, where the last one ended. False: none. Special tokens are skipped
 * over unless `special`. */
bool added_find(const struct added *added, bool normalized, bool special, const char *text, size_t size,
                size_t from, struct added_match *match);

#endif
