/* Regular expressions as tokenizer files write them: Oniguruma's syntax, run by PCRE2.
 *
 * Knows patterns and UTF-8 text, nothing of tokens. A pattern is data from a stranger: its size, its
 * compiled form, its heap and the steps of all matches in a text are bounded, and what Oniguruma and PCRE2
 * read differently is translated, or refused by name. */
#ifndef HONE_TEXT_REGEX_H
#define HONE_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"
#include "base/error.h"

struct regex;
struct regex_scratch;

/* Compiles. `literal`: the pattern is plain text, not an expression. Errors: ERROR_INPUT. */
bool regex_open(struct regex **out, const char *pattern, size_t size, bool literal, struct error *err);
void regex_close(struct regex **regex); /* takes NULL, sets NULL */

/* Working memory of matching; one per thread, for any number of expressions. */
bool regex_scratch_open(struct regex_scratch **out, struct error *err);
void regex_scratch_close(struct regex_scratch **scratch);

/* Before the matches in a text of this size (or in its pieces) begin: together they may take a number of
 * steps that is linear in it, so that no pattern takes quadratic time by steps. */
void regex_scratch_begin(struct regex_scratch *scratch, size_t size);

/* The leftmost match in text[0, size) that begins at or after `at`; nothing before text[0] is seen.
 * The text is valid UTF-8 and `at` the start of a character: the caller has checked it.
 * *found false: no match. Errors: ERROR_INPUT when the limits are passed. */
bool regex_find(const struct regex *regex, struct regex_scratch *scratch, const char *text, size_t size,
                size_t at, size_t *first, size_t *end, bool *found, struct error *err);

/* Oniguruma's syntax to PCRE2's, appended to *out (regex_syntax.c). */
bool regex_translate(const char *pattern, size_t size, struct buf *out, struct error *err);

#endif
