/* What both targets for tokenizers do with one that has opened: write it and read it back, encode hostile
 * text, decode it, and compare everything that must be equal. */
#ifndef TESTS_FUZZ_TEXT_TOKENIZER_H
#define TESTS_FUZZ_TEXT_TOKENIZER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "text/tokenizer_parts.h"

enum { REPEATED = 1 << 13 };

#define require(ok) require_true((ok), #ok, __LINE__)
static void require_true(bool ok, const char *what, int line) {
    if (ok) return;
    fprintf(stderr, "line %d: not so: %s\n", line, what);
    abort();
}

/* Whether decoding must give the text back: nothing is changed or left out, every byte has a token, and a
 * token met in a piece is not decoded as an added one. */
static bool gives_all_back(const struct tokenizer *t) {
    if (t->nfc) return false;
    for (int i = 0; i < t->splitter.count; i++) {
        const struct split_step *step = &t->splitter.steps[i];
        if (step->prefix_space || step->behavior == BEHAVIOR_REMOVED) return false;
    }
    for (size_t i = 0; i < t->added.count; i++)
        if (t->added.tokens[i].lstrip || t->added.tokens[i].rstrip) return false;
    for (int byte = 0; byte < 256; byte++)
        if (t->vocab.byte_ids[byte] < 0) return false;
    for (size_t id = 0; id < t->vocab.count; id++)
        if ((t->vocab.flags[id] & VOCAB_MODEL) && (t->vocab.flags[id] & VOCAB_ADDED)) return false;
    return true;
}

static void check_tokens(const struct tokenizer *tokenizer, const struct tokens *tokens, const char *text,
                         size_t size) {
    struct error err = {0};
    struct buf back = {0};
    for (size_t i = 0; i < tokens->count; i++) {
        require(tokens->ids[i] >= 0 && (size_t)tokens->ids[i] < tokenizer_size(tokenizer));
        require(tokens->starts[i] < size && (i == 0 || tokens->starts[i] >= tokens->starts[i - 1]));
    }
    require(tokenizer_decode(tokenizer, tokens->ids, tokens->count, true, &back, &err));
    if (gives_all_back(tokenizer))
        require(back.size == size && (size == 0 || memcmp(back.data, text, size) == 0));
    buf_clear(&back);
    require(tokenizer_decode(tokenizer, tokens->ids, tokens->count, false, &back, &err));
    buf_release(&back);
}

static bool same_tokens(const struct tokens *a, const struct tokens *b) {
    if (a->count != b->count || a->count == 0) return a->count == b->count;
    return memcmp(a->ids, b->ids, a->count * sizeof *a->ids) == 0 &&
           memcmp(a->starts, b->starts, a->count * sizeof *a->starts) == 0;
}

/* Encodes, and again with what the first call has left in the cache, and in small windows. */
static void fuzz_text(struct tokenizer *tokenizer, const struct tokenizer *written, const char *text,
                      size_t size, bool special) {
    struct tokens tokens = {0}, again = {0};
    struct error err = {0};
    size_t bad;
    bool ok = tokenizer_encode(tokenizer, text, size, special, &tokens, &err);
    if (!ok) {
        require(err.code == ERROR_INPUT && err.what[0] && tokens.count == 0);
    } else {
        require(utf8_valid(text, size, &bad));
        check_tokens(tokenizer, &tokens, text, size);
        size_t window = tokenizer->bpe.window;
        for (int i = 0; i < 2; i++) {
            again.count = 0;
            require(tokenizer_encode(tokenizer, text, size, special, &again, &err));
            require(same_tokens(&tokens, &again));
            tokenizer->bpe.window = 24;
        }
        tokenizer->bpe.window = window;
        if (written) {
            again.count = 0;
            require(tokenizer_encode(written, text, size, special, &again, &err));
            require(same_tokens(&tokens, &again));
        }
    }
    tokens_release(&tokens);
    tokens_release(&again);
}

static struct tokenizer *write_and_open(const struct tokenizer *tokenizer) {
    struct buf json = {0}, config = {0};
    struct error err = {0};
    struct tokenizer *written = NULL;
    require(tokenizer_write_json(tokenizer, &json, &err) &&
            tokenizer_write_config(tokenizer, 512, &config, &err));
    if (!tokenizer_open_json(&written, json.data, json.size, config.data, config.size, &err)) {
        fprintf(stderr, "what was written is refused: %s: %s\n%.2000s\n", err.what, err.why, json.data);
        abort();
    }
    require(tokenizer_bos(written) == tokenizer_bos(tokenizer));
    require(tokenizer_adds_bos(written) == tokenizer_adds_bos(tokenizer));
    buf_release(&json);
    buf_release(&config);
    return written;
}

/* A text of at most 200 bytes is encoded again repeated, so that what is not linear takes very long. */
static void fuzz_tokenizer(struct tokenizer *tokenizer, const char *text, size_t size) {
    struct tokenizer *written = write_and_open(tokenizer);
    fuzz_text(tokenizer, written, text, size, true);
    fuzz_text(tokenizer, written, text, size, false);
    if (size > 0 && size <= 200) {
        char *many = malloc(REPEATED);
        size_t filled = 0;
        require(many != NULL);
        for (; filled + size <= REPEATED; filled += size) memcpy(many + filled, text, size);
        fuzz_text(tokenizer, NULL, many, filled, true);
        free(many);
    }
    tokenizer_close(&written);
}

/* What a refusal must be. */
static void check_refusal(const struct error *err) {
    require(err->code == ERROR_INPUT && err->what[0] && utf8_valid(err->what, strlen(err->what), NULL));
}

#endif
