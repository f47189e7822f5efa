/* tokenizer.json and tokenizer_config.json, as Hugging Face's libraries read them. */
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"

static json_t *text_json(const struct vocab *vocab, int32_t id) {
    size_t size;
    if (id < 0) return json_null();
    const char *text = vocab_text(vocab, id, &size);
    return json_stringn(text, size);
}

static json_t *added_json(const struct tokenizer *tokenizer) {
    json_t *list = json_array();
    for (size_t i = 0; i < tokenizer->added.count; i++) { /* by id, as the reader counts new ones */
        const struct added_token *token = &tokenizer->added.tokens[i];
        json_list_add(&list, json_pack("{s:i,s:o,s:b,s:b,s:b,s:b,s:b}", "id", token->id, "content",
                                       text_json(&tokenizer->vocab, token->id), "single_word",
                                       token->single_word, "lstrip", token->lstrip, "rstrip", token->rstrip,
                                       "normalized", token->normalized, "special", token->special));
    }
    return list;
}

static json_t *step_json(const struct split_step *step) {
    const char *behavior = split_behavior_name(step->behavior);
    switch (step->kind) {
    case SPLIT_REGEX:
    case SPLIT_LITERAL:
        return json_pack("{s:s,s:{s:o},s:s,s:b}", "type", "Split", "pattern",
                         step->kind == SPLIT_REGEX ? "Regex" : "String",
                         json_stringn(step->pattern, step->pattern_size), "behavior", behavior, "invert",
                         step->invert);
    case SPLIT_DIGITS: return json_pack("{s:s,s:b}", "type", "Digits", "individual_digits", step->individual);
    case SPLIT_PUNCTUATION: return json_pack("{s:s,s:s}", "type", "Punctuation", "behavior", behavior);
    case SPLIT_BYTE_LEVEL: break;
    }
    return json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", step->prefix_space,
                     "trim_offsets", 1, "use_regex", !step->plain);
}

/* Bytes are spelled in the alphabet where the last step is done: later steps would see the spelling. A
 * byte-level step that is not last is written as its pattern. */
static json_t *splitter_json(const struct splitter *splitter) {
    json_t *steps = json_array();
    bool spelled = false;
    for (int i = 0; i < splitter->count; i++) {
        const struct split_step *step = &splitter->steps[i];
        bool last = i + 1 == splitter->count, bytes = step->kind == SPLIT_BYTE_LEVEL;
        if (bytes && !last && step->plain) continue;
        if (bytes && !last)
            json_list_add(&steps, json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", "Regex",
                                            SPLIT_PATTERN_GPT2, "behavior", "Isolated", "invert", 0));
        else
            json_list_add(&steps, step_json(step));
        spelled = bytes;
    }
    if (!spelled) {
        struct split_step plain = {.kind = SPLIT_BYTE_LEVEL, .plain = true};
        json_list_add(&steps, step_json(&plain));
    }
    return json_pack("{s:s,s:o}", "type", "Sequence", "pretokenizers", steps);
}

/* BOS before and EOS after a text, where the tokenizer adds them. */
static json_t *post_processor_json(const struct tokenizer *tokenizer) {
    bool bos = tokenizer->add_bos && tokenizer->bos >= 0, eos = tokenizer->add_eos && tokenizer->eos >= 0;
    if (!bos && !eos) return json_null();
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    const int32_t ids[2] = {bos ? tokenizer->bos : -1, eos ? tokenizer->eos : -1};
    for (int sequence = 0; sequence < 2; sequence++) {
        for (int part = 0; part < 3; part++) {
            json_t *piece;
            if (part == 1) {
                piece =
                    json_pack("{s:{s:s,s:i}}", "Sequence", "id", sequence ? "B" : "A", "type_id", sequence);
            } else {
                int32_t id = ids[part / 2];
                if (id < 0) continue;
                piece = json_pack("{s:{s:o,s:i}}", "SpecialToken", "id", text_json(&tokenizer->vocab, id),
                                  "type_id", sequence);
                size_t size;
                const char *text = vocab_text(&tokenizer->vocab, id, &size);
                json_object_put(&specials, text,
                                json_pack("{s:o,s:[i],s:[o]}", "id", text_json(&tokenizer->vocab, id), "ids",
                                          id, "tokens", text_json(&tokenizer->vocab, id)));
            }
            if (sequence == 0) json_list_add(&single, json_incref(piece));
            json_list_add(&pair, piece);
        }
    }
    return json_pack("{s:s,s:o,s:o,s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", specials);
}

static json_t *model_json(const struct tokenizer *tokenizer) {
    const struct vocab *vocab = &tokenizer->vocab;
    json_t *tokens = json_object(), *merges = json_array();
    size_t left_size, right_size;
    bool spaces = false; /* then "left right" would not tell where the left token ends */
    for (size_t id = 0; id < vocab->count; id++) {
        size_t size;
        const char *text = vocab_text(vocab, (int32_t)id, &size);
        if (!(vocab->flags[id] & VOCAB_MODEL)) continue;
        if (json_object_setn_new(tokens, text, size, json_integer((json_int_t)id)) == 0) continue;
        json_decref(tokens);
        tokens = NULL;
    }
    for (size_t rank = 0; rank < tokenizer->bpe.merge_count; rank++) {
        const struct merge *merge = &tokenizer->bpe.merges[rank];
        const char *left = vocab_text(vocab, merge->left, &left_size);
        const char *right = vocab_text(vocab, merge->right, &right_size);
        spaces = spaces || memchr(left, ' ', left_size) || memchr(right, ' ', right_size);
    }
    for (size_t rank = 0; rank < tokenizer->bpe.merge_count; rank++) {
        const struct merge *merge = &tokenizer->bpe.merges[rank];
        const char *left = vocab_text(vocab, merge->left, &left_size);
        const char *right = vocab_text(vocab, merge->right, &right_size);
        json_list_add(&merges, spaces ? json_pack("[s%,s%]", left, left_size, right, right_size)
                                      : json_pack("s%++%", left, left_size, " ", right, right_size));
    }
    return json_pack("{s:s,s:n,s:o,s:n,s:n,s:b,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout", "unk_token",
                     text_json(vocab, tokenizer->bpe.unknown), "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", tokenizer->bpe.fuse_unknown, "byte_fallback", 0,
                     "ignore_merges", tokenizer->ignore_merges, "vocab", tokens, "merges", merges);
}

bool tokenizer_write_json(const struct tokenizer *tokenizer, struct buf *out, struct error *err) {
    json_t *normalizer = tokenizer->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *decoder = json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 1,
                                "trim_offsets", 1, "use_regex", 1);
    json_t *root = json_pack(
        "{s:s,s:n,s:n,s:o,s:o,s:o,s:o,s:o,s:o}", "version", "1.0", "truncation", "padding", "added_tokens",
        added_json(tokenizer), "normalizer", normalizer, "pre_tokenizer", splitter_json(&tokenizer->splitter),
        "post_processor", post_processor_json(tokenizer), "decoder", decoder, "model", model_json(tokenizer));
    if (!root) return error_no_memory(err, "tokenizer", tokenizer->vocab.text.starts[tokenizer->vocab.count]);
    bool ok = json_write(root, out, err);
    json_decref(root);
    return ok;
}

bool tokenizer_write_config(const struct tokenizer *tokenizer, int64_t model_max_length, struct buf *out,
                            struct error *err) {
    const struct {
        const char *name;
        int32_t id;
    } rows[] = {{"bos_token", tokenizer->bos},
                {"eos_token", tokenizer->eos},
                {"unk_token", tokenizer->unknown},
                {"pad_token", tokenizer->padding}};
    json_t *root = json_pack("{s:s,s:b,s:b,s:I}", "tokenizer_class", "PreTrainedTokenizerFast",
                             "add_bos_token", tokenizer_adds_bos(tokenizer), "clean_up_tokenization_spaces",
                             0, "model_max_length", (json_int_t)model_max_length);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].id >= 0) json_object_put(&root, rows[i].name, text_json(&tokenizer->vocab, rows[i].id));
    if (!root) return error_no_memory(err, "tokenizer", sizeof rows);
    bool ok = json_write(root, out, err);
    json_decref(root);
    return ok;
}
