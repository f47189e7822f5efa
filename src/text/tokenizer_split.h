/* Pre-tokenization: cutting text into pieces, as Hugging Face's pre_tokenizers do.
 *
 * A splitter is a row of steps. Each step cuts every piece of the step before it, and sees that piece
 * alone. A step finds matches of its pattern; its behavior says what becomes of them:
 *
 *   text "a--b", pattern "-"     isolated a|-|-|b     removed a|b     contiguous a|--|b
 *                                with the previous a-|-|b             with the next a|-|-b */
#ifndef HONE_TEXT_TOKENIZER_SPLIT_H
#define HONE_TEXT_TOKENIZER_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "text/regex.h"

enum { SPLIT_STEPS = 16 };

/* What the byte-level step cuts by: the pattern of GPT-2's encoder.py. */
#define SPLIT_PATTERN_GPT2 \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

enum split_kind { SPLIT_REGEX, SPLIT_LITERAL, SPLIT_DIGITS, SPLIT_PUNCTUATION, SPLIT_BYTE_LEVEL };
enum split_behavior {
    BEHAVIOR_ISOLATED,
    BEHAVIOR_REMOVED,
    BEHAVIOR_MERGED_WITH_PREVIOUS,
    BEHAVIOR_MERGED_WITH_NEXT,
    BEHAVIOR_CONTIGUOUS,
    BEHAVIOR_COUNT
};
const char *split_behavior_name(enum split_behavior behavior); /* "Isolated" … as in tokenizer.json */

struct split_step {
    enum split_kind kind;
    enum split_behavior behavior;
    bool invert;         /* cut at what does not match */
    bool individual;     /* digits: one by one */
    bool plain;          /* byte level: without its own pattern (use_regex false) */
    bool prefix_space;   /* byte level: a space before text that has none; only as the first step */
    const char *pattern; /* regex and literal; splitter_add copies it */
    size_t pattern_size;
    struct regex *regex; /* set by splitter_add; NULL: nothing is cut */
};

struct splitter {
    struct split_step steps[SPLIT_STEPS];
    int count;
};

/* Compiles and copies one more step. Errors: ERROR_INPUT. */
bool splitter_add(struct splitter *splitter, const struct split_step *step, struct error *err);
void splitter_release(struct splitter *splitter);

/* Calls `piece` for every piece in order; none is empty. */
typedef bool (*split_piece)(void *user, size_t first, size_t end, struct error *err);
bool splitter_run(const struct splitter *splitter, struct regex_scratch *scratch, const char *text,
                  size_t size, split_piece piece, void *user, struct error *err);

#endif
