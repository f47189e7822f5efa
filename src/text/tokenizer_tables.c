/* A tokenizer from plain tables, as GGUF holds them. */
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

enum { TABLE_LIMIT = 1 << 23 };

/* GGUF's tokenizer.ggml.token_type. */
static const struct kind {
    int32_t number;
    enum token_kind kind;
    bool added, special;
} kinds[] = {
    {0, TOKEN_NORMAL, false, false}, {1, TOKEN_NORMAL, false, false}, {2, TOKEN_UNKNOWN, true, true},
    {3, TOKEN_CONTROL, true, true},  {4, TOKEN_USER, true, false},    {5, TOKEN_UNUSED, false, false},
    {6, TOKEN_BYTE, false, false},
};

static bool read_tokens(const struct tokenizer_tables *tables, struct tokenizer_parts *parts,
                        struct error *err) {
    bool trailing = true;
    for (size_t id = tables->token_count; id-- > 0;) {
        int32_t number = tables->kinds ? tables->kinds[id] : 1;
        struct vocab_entry *entry = &parts->entries[id];
        if (number < 0 || (size_t)number >= sizeof kinds / sizeof *kinds)
            return error_set(err, ERROR_INPUT, "tokenizer", "token %zu has the unknown type %d", id, number);
        const struct kind *kind = &kinds[number];
        entry->text = tables->tokens[id];
        entry->kind = (uint8_t)kind->kind;
        /* Added tokens behind the model's own vocabulary are not part of it, as in tokenizer.json. */
        trailing = trailing && kind->added;
        entry->flags = (uint8_t)((trailing ? 0 : VOCAB_MODEL) | (kind->added ? VOCAB_ADDED : 0));
        if (kind->added) parts->added_count++;
    }
    parts->added = mem_array(parts->added_count, sizeof *parts->added);
    if (!parts->added) return error_no_memory(err, "tokenizer", parts->added_count * sizeof *parts->added);
    size_t count = 0;
    for (size_t id = 0; id < tables->token_count; id++) {
        if (!(parts->entries[id].flags & VOCAB_ADDED)) continue;
        parts->added[count++] = (struct added_token){
            .id = (int32_t)id, .content = tables->tokens[id], .special = kinds[tables->kinds[id]].special};
    }
    return true;
}

static bool read_merges(struct tokenizer *tokenizer, const struct tokenizer_tables *tables,
                        struct error *err) {
    if (tables->merge_count > TABLE_LIMIT)
        return error_set(err, ERROR_INPUT, "tokenizer", "%zu merges are more than %d", tables->merge_count,
                         TABLE_LIMIT);
    struct merge *merges = mem_array(tables->merge_count, sizeof *merges);
    bool ok = merges || error_no_memory(err, "tokenizer", tables->merge_count * sizeof *merges);
    for (size_t rank = 0; ok && rank < tables->merge_count; rank++)
        ok = merge_parse(&merges[rank], &tokenizer->vocab, &tables->merges[rank], rank, err);
    if (ok) return bpe_init(&tokenizer->bpe, merges, tables->merge_count, err);
    mem_free(merges);
    return false;
}

bool tokenizer_open(struct tokenizer **out, const struct tokenizer_tables *tables, struct error *err) {
    struct tokenizer_parts parts = {.entry_count = tables->token_count};
    bool ok = tokenizer_make(out, err);
    if (!ok) return false;
    if (tables->token_count > TABLE_LIMIT) {
        ok = error_set(err, ERROR_INPUT, "tokenizer", "%zu tokens are more than %d", tables->token_count,
                       TABLE_LIMIT);
        goto done;
    }
    parts.entries = mem_array(tables->token_count, sizeof *parts.entries);
    ok = parts.entries || error_no_memory(err, "tokenizer", tables->token_count * sizeof *parts.entries);
    (*out)->bos = tables->bos;
    (*out)->eos = tables->eos;
    (*out)->unknown = tables->unknown;
    (*out)->padding = tables->padding;
    (*out)->add_bos = tables->add_bos;
    (*out)->add_eos = tables->add_eos;
    ok = ok && tokenizer_set_pre(*out, tables->pre ? tables->pre : "default", err) &&
         read_tokens(tables, &parts, err) && tokenizer_fill(*out, &parts, err) &&
         read_merges(*out, tables, err);
done:
    mem_free(parts.entries);
    mem_free(parts.added);
    if (!ok) tokenizer_close(out);
    return ok;
}

static int32_t kind_number(enum token_kind kind) {
    int32_t number = 1;
    while (kinds[number].kind != kind) number++; /* every kind has a row after the first */
    return number;
}

/* "left right" of one merge; a token with a space in it would make that ambiguous. */
static bool merge_text(const struct tokenizer *tokenizer, const struct merge *merge, struct arena *arena,
                       struct tokenizer_text *out, struct error *err) {
    size_t left_size, right_size;
    const char *left = vocab_text(&tokenizer->vocab, merge->left, &left_size);
    const char *right = vocab_text(&tokenizer->vocab, merge->right, &right_size);
    if (memchr(left, ' ', left_size) || memchr(right, ' ', right_size))
        return error_set(err, ERROR_INPUT, "tokenizer", "a merge joins a token that holds a space");
    char *text = arena_alloc(arena, left_size + right_size + 1);
    if (!text) return error_no_memory(err, "tokenizer", left_size + right_size);
    memcpy(text, left, left_size);
    text[left_size] = ' ';
    memcpy(text + left_size + 1, right, right_size);
    *out = (struct tokenizer_text){text, left_size + 1 + right_size};
    return true;
}

bool tokenizer_write_tables(const struct tokenizer *tokenizer, struct arena *arena,
                            struct tokenizer_tables *out, struct error *err) {
    size_t count = tokenizer->vocab.count, merge_count = tokenizer->bpe.merge_count;
    struct tokenizer_text *tokens = arena_array(arena, count, sizeof *tokens);
    struct tokenizer_text *merges = arena_array(arena, merge_count + 1, sizeof *merges);
    int32_t *numbers = arena_array(arena, count, sizeof *numbers);
    char *pre = arena_alloc(arena, 64);
    if (!tokens || !merges || !numbers || !pre)
        return error_no_memory(err, "tokenizer", (count + merge_count) * sizeof *tokens);
    if (!tokenizer_pre_name(tokenizer, pre)) {
        error_set(err, ERROR_INPUT, "tokenizer",
                  "a GGUF cannot hold this tokenizer: it has no name for the way it cuts text");
        return error_fix(err, "Write the model as safetensors, which keeps tokenizer.json.");
    }
    for (size_t id = 0; id < count; id++) {
        tokens[id].data = vocab_text(&tokenizer->vocab, (int32_t)id, &tokens[id].size);
        numbers[id] = kind_number((enum token_kind)tokenizer->vocab.kinds[id]);
    }
    for (size_t rank = 0; rank < merge_count; rank++)
        if (!merge_text(tokenizer, &tokenizer->bpe.merges[rank], arena, &merges[rank], err)) return false;
    *out = (struct tokenizer_tables){.tokens = tokens,
                                     .kinds = numbers,
                                     .token_count = count,
                                     .merges = merges,
                                     .merge_count = merge_count,
                                     .pre = pre,
                                     .bos = tokenizer->bos,
                                     .eos = tokenizer->eos,
                                     .unknown = tokenizer->unknown,
                                     .padding = tokenizer->padding,
                                     .add_bos = tokenizer->add_bos,
                                     .add_eos = tokenizer->add_eos};
    return true;
}
