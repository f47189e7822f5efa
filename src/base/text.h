/* Small helpers on text that several folders need. */
#ifndef HONE_BASE_TEXT_H
#define HONE_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

/* True when the bytes are valid UTF-8 (no surrogates, no overlong forms). *bad: offset of the first
 * byte that is not; may be NULL. */
bool utf8_valid(const char *text, size_t size, size_t *bad);
/* How many bytes at the beginning are the byte order mark that some editors write: 3, or none. */
size_t utf8_mark(const char *text, size_t size);
/* Decodes one code point; returns its length in bytes, or 0 when the bytes are not valid. */
int utf8_decode(const char *text, size_t size, uint32_t *code);
int utf8_encode(uint32_t code, char out[4]);
/* At a place where no whole character stands: how many bytes are the longest beginning of one (Unicode, 3.9:
 * maximal subparts), 0 where none begins. All of `size`: more text may complete it. */
size_t utf8_begun(const char *text, size_t size);
/* How many bytes there are before a character that the end of the text has torn; all where none is. */
size_t utf8_whole(const char *text, size_t size);

/* Appends text so that a terminal cannot be tricked by it: control characters, bidirectional
 * overrides and invalid bytes become \xNN or \u{N}. Newline and tab are kept when `keep_lines`. */
bool text_escape(struct buf *out, const char *text, size_t size, bool keep_lines);
/* The same in place, for a text that must not grow: each such character becomes "?", newline and tab are
 * kept, and a character that was cut at the end goes. */
void text_clean(char *text);

/* Ends a text that was cut to fill `capacity` bytes with a whole word and an ellipsis; a word longer than 40
 * bytes is cut between characters. Room for the ellipsis alone is the least. */
void text_ellipsis(char *text, size_t capacity);

/* The form that goes with a count: `one` with 1, `many` with every other. */
const char *text_plural(uint64_t count, const char *one, const char *many);

/* "1.5 GiB", "600 MiB", "12 KiB", "7 B" into out[32]; returns out. */
const char *text_bytes(uint64_t bytes, char out[32]);
/* "4GiB", "600MiB", "1.5G", "100000" → bytes. K, M, G, T are powers of 1024. False when it is none, with 0,
 * or more than any disk holds (9e18), with UINT64_MAX. */
bool text_parse_bytes(const char *text, uint64_t *bytes);

/* The edit distance of two short words, for "did you mean"; at most 63 bytes of each count. */
int text_distance(const char *a, const char *b);

#endif
