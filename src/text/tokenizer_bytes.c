/* A tokenizer whose tokens are bytes: for models of random weights, whose lengths in tokens are then known.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

enum { byte_count = 256, longest = tokenizer_padding_size };

static const char end_of_text[] = "<|endoftext|>";

void tokenizer_padding(int64_t id, char text[tokenizer_padding_size]) {
    snprintf(text, tokenizer_padding_size, "[PAD%lld]", (long long)id);
}

static size_t spell(size_t id, char text[longest]) {
    if (id < byte_count) return vocab_spell_byte((int)id, text);
    if (id > byte_count)
        tokenizer_padding((int64_t)id, text);
    else
        memcpy(text, end_of_text, sizeof end_of_text);
    return strlen(text);
}

bool tokenizer_open_bytes(struct tokenizer **out, size_t size, struct error *err) {
    struct tokenizer_text *tokens = mem_array(size, sizeof *tokens);
    int32_t *kinds = mem_array(size, sizeof *kinds);
    char *texts = mem_array(size, longest);
    bool ok = (tokens && kinds && texts) || error_no_memory(err, "tokenizer", size * longest);
    for (size_t id = 0; ok && id < size; id++) {
        char *text = texts + id * longest;
        tokens[id] = (struct tokenizer_text){text, spell(id, text)};
        kinds[id] = id < byte_count ? 1 : id == byte_count ? 3 : tokenizer_kind_unused;
    }
    struct tokenizer_tables tables = {.tokens = tokens,
                                      .kinds = kinds,
                                      .token_count = size,
                                      .pre = "gpt-2",
                                      .bos = byte_count,
                                      .eos = byte_count,
                                      .unknown = -1,
                                      .padding = byte_count};
    ok = ok && tokenizer_open(out, &tables, err);
    mem_free(tokens);
    mem_free(kinds);
    mem_free(texts);
    return ok;
}
