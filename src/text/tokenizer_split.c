/* The steps, run depth first: no list of pieces is ever held. */
#include "text/tokenizer_split.h"

#include <stdint.h>
#include <string.h>

#include "base/mem.h"

/* Steps that have a pattern of their own. */
#define PATTERN_DIGITS "\\p{N}"
#define PATTERN_PUNCTUATION "[\\p{P}!-/:-@\\[-`{-~]"

const char *split_behavior_name(enum split_behavior behavior) {
    static const char *const names[BEHAVIOR_COUNT] = {"Isolated", "Removed", "MergedWithPrevious",
                                                      "MergedWithNext", "Contiguous"};
    return names[behavior];
}

bool splitter_add(struct splitter *splitter, const struct split_step *step, struct error *err) {
    struct split_step added = *step;
    const char *pattern = step->pattern;
    if (splitter->count == SPLIT_STEPS)
        return error_set(err, ERROR_INPUT, "tokenizer", "the pre_tokenizer has more than %d steps",
                         SPLIT_STEPS);
    added.pattern = NULL;
    added.regex = NULL;
    switch (step->kind) {
    case SPLIT_REGEX:
    case SPLIT_LITERAL: added.pattern_size = pattern ? step->pattern_size : 0; break;
    case SPLIT_DIGITS:
        pattern = PATTERN_DIGITS;
        added.behavior = step->individual ? BEHAVIOR_ISOLATED : BEHAVIOR_CONTIGUOUS;
        break;
    case SPLIT_PUNCTUATION: pattern = PATTERN_PUNCTUATION; break;
    case SPLIT_BYTE_LEVEL:
        pattern = step->plain ? NULL : SPLIT_PATTERN_GPT2;
        added.behavior = BEHAVIOR_ISOLATED;
        break;
    }
    bool own = step->kind == SPLIT_REGEX || step->kind == SPLIT_LITERAL;
    if (own && added.pattern_size == 0)
        return error_set(err, ERROR_INPUT, "tokenizer", "a Split step has an empty pattern");
    if (pattern && !regex_open(&added.regex, pattern, own ? added.pattern_size : strlen(pattern),
                               step->kind == SPLIT_LITERAL, err))
        return false;
    if (own) {
        added.pattern = mem_strndup(pattern, added.pattern_size);
        if (!added.pattern) {
            regex_close(&added.regex);
            return error_no_memory(err, "tokenizer", added.pattern_size);
        }
    }
    splitter->steps[splitter->count++] = added;
    return true;
}

void splitter_release(struct splitter *splitter) {
    for (int i = 0; i < splitter->count; i++) {
        regex_close(&splitter->steps[i].regex);
        mem_free((char *)splitter->steps[i].pattern);
    }
    splitter->count = 0;
}

struct run {
    const struct splitter *splitter;
    struct regex_scratch *scratch;
    const char *text;
    split_piece piece;
    void *user;
};

/* What one step has cut but not yet passed on: the next cut may still join it. */
struct pending {
    size_t first, end;
    bool any, match; /* match: of the last cut in it */
};

static bool run_step(const struct run *run, int step, size_t first, size_t end, struct error *err);

static bool pass_on(const struct run *run, int step, const struct pending *pending, struct error *err) {
    bool removed = run->splitter->steps[step].behavior == BEHAVIOR_REMOVED && pending->match;
    if (!pending->any || removed || pending->first == pending->end) return true;
    return run_step(run, step + 1, pending->first, pending->end, err);
}

/* Whether the cut that follows `pending` becomes part of it. */
static bool joins(enum split_behavior behavior, const struct pending *pending, bool match) {
    switch (behavior) {
    case BEHAVIOR_MERGED_WITH_PREVIOUS: return match && !pending->match;
    case BEHAVIOR_MERGED_WITH_NEXT: return !match && pending->match;
    case BEHAVIOR_CONTIGUOUS: return match == pending->match;
    default: return false;
    }
}

static bool cut(const struct run *run, int step, struct pending *pending, size_t first, size_t end,
                bool match, struct error *err) {
    const struct split_step *row = &run->splitter->steps[step];
    if (row->invert) match = !match;
    if (pending->any && joins(row->behavior, pending, match)) {
        pending->end = end;
        pending->match = match;
        return true;
    }
    if (!pass_on(run, step, pending, err)) return false;
    *pending = (struct pending){.first = first, .end = end, .any = true, .match = match};
    return true;
}

static size_t next_character(const char *text, size_t at, size_t end) {
    at++;
    while (at < end && ((unsigned char)text[at] & 0xC0) == 0x80) at++;
    return at;
}

/* An empty match counts unless it lies at the end of the match before it. */
static bool run_step(const struct run *run, int step, size_t first, size_t end, struct error *err) {
    while (step < run->splitter->count && !run->splitter->steps[step].regex) step++;
    if (step == run->splitter->count) return run->piece(run->user, first, end, err);
    const struct regex *regex = run->splitter->steps[step].regex;
    const char *text = run->text + first;
    size_t size = end - first, done = 0, at = 0, last_end = SIZE_MAX;
    struct pending pending = {.any = false};
    while (at <= size) {
        size_t match_first, match_end;
        bool found;
        if (!regex_find(regex, run->scratch, text, size, at, &match_first, &match_end, &found, err))
            return false;
        if (!found) break;
        if (match_first == match_end && match_end == last_end) {
            at = next_character(text, at, size);
            continue;
        }
        at = last_end = match_end;
        if (done < match_first && !cut(run, step, &pending, first + done, first + match_first, false, err))
            return false;
        if (!cut(run, step, &pending, first + match_first, first + match_end, true, err)) return false;
        done = match_end;
    }
    if (done < size && !cut(run, step, &pending, first + done, end, false, err)) return false;
    return pass_on(run, step, &pending, err);
}

bool splitter_run(const struct splitter *splitter, struct regex_scratch *scratch, const char *text,
                  size_t size, split_piece piece, void *user, struct error *err) {
    struct run run = {.splitter = splitter, .scratch = scratch, .text = text, .piece = piece, .user = user};
    return size == 0 || run_step(&run, 0, 0, size, err);
}
