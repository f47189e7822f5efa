/* A tokenizer from Hugging Face's tokenizer.json and tokenizer_config.json.
 *
 * What is understood is understood as their library does; a part of another kind is refused by its
 * name. Reference: the `tokenizers` library's serialization; `transformers`' PreTrainedTokenizerFast. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "text/tokenizer_parts.h"

enum { ID_LIMIT = 1 << 23, NESTING_LIMIT = 8 };

static bool refuse(struct error *err, const char *part, const char *type) {
    return error_set(err, ERROR_INPUT, "tokenizer", "tokenizer.json: %s \"%.60s\" is not supported", part,
                     type);
}

/* An object's "type"; "" when it has none. */
static const char *type_of(const json_t *value) {
    const char *type = json_string_value(json_object_get(value, "type"));
    return type ? type : "";
}

static bool absent(const json_t *value) { return !value || json_is_null(value); }
static bool flag(const json_t *object, const char *name, bool otherwise) {
    const json_t *value = json_object_get(object, name);
    return json_is_boolean(value) ? json_is_true(value) : otherwise;
}
static struct tokenizer_text text_of(const json_t *string) {
    return (struct tokenizer_text){.data = json_string_value(string), .size = json_string_length(string)};
}

static bool read_id(const json_t *value, const char *what, int32_t *id, struct error *err) {
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number >= ID_LIMIT)
        return error_set(err, ERROR_INPUT, "tokenizer", "tokenizer.json: the id of \"%.80s\" is not in 0…%d",
                         what, ID_LIMIT - 1);
    *id = (int32_t)number;
    return true;
}

/* The model's part that may only be absent or empty. */
static bool check_model(const json_t *model, struct error *err) {
    static const char *const empty[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    const char *type = type_of(model);
    bool bare = type[0] == '\0' && json_is_object(json_object_get(model, "vocab")) &&
                json_is_array(json_object_get(model, "merges")); /* files of before the types */
    if (!bare && strcmp(type, "BPE") != 0) return refuse(err, "the model", type);
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
        if (json_string_length(json_object_get(model, empty[i]))) return refuse(err, "the model's", empty[i]);
    const json_t *dropout = json_object_get(model, "dropout");
    if (!absent(dropout) && (!json_is_number(dropout) || fabs(json_number_value(dropout)) > 0))
        return refuse(err, "the model's", "dropout");
    if (flag(model, "byte_fallback", false)) return refuse(err, "the model's", "byte_fallback");
    if (!json_is_object(json_object_get(model, "vocab")) || !json_is_array(json_object_get(model, "merges")))
        return error_set(err, ERROR_INPUT, "tokenizer",
                         "tokenizer.json: the model has no vocab or no merges");
    return true;
}

static bool read_split(const json_t *step, struct split_step *out, struct error *err) {
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex"), *string = json_object_get(pattern, "String");
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    struct tokenizer_text text = text_of(regex ? regex : string);
    if (!text.data) return refuse(err, "a Split step", "without a Regex or String pattern");
    out->kind = regex ? SPLIT_REGEX : SPLIT_LITERAL;
    out->pattern = text.data;
    out->pattern_size = text.size;
    out->invert = flag(step, "invert", false);
    for (int i = 0; behavior && i < BEHAVIOR_COUNT; i++) {
        if (strcmp(behavior, split_behavior_name((enum split_behavior)i)) != 0) continue;
        out->behavior = (enum split_behavior)i;
        return true;
    }
    return refuse(err, "a Split step's behavior", behavior ? behavior : "");
}

static bool read_punctuation(const json_t *step, struct split_step *out, struct error *err) {
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    out->kind = SPLIT_PUNCTUATION;
    for (int i = 0; behavior && i < BEHAVIOR_COUNT; i++)
        if (strcmp(behavior, split_behavior_name((enum split_behavior)i)) == 0)
            out->behavior = (enum split_behavior)i;
    return !behavior || strcmp(behavior, split_behavior_name(out->behavior)) == 0 ||
           refuse(err, "a Punctuation step's behavior", behavior);
}

/* *spelled: a ByteLevel step was read; what follows would cut its spelling, not the text. */
static bool read_step(struct tokenizer *tokenizer, const json_t *step, bool *spelled, struct error *err) {
    const char *type = type_of(step);
    struct split_step row = {.kind = SPLIT_DIGITS};
    if (*spelled) return refuse(err, "a pre_tokenizer after ByteLevel:", type);
    if (strcmp(type, "Split") == 0) {
        if (!read_split(step, &row, err)) return false;
    } else if (strcmp(type, "Punctuation") == 0) {
        if (!read_punctuation(step, &row, err)) return false;
    } else if (strcmp(type, "Digits") == 0) {
        row.individual = flag(step, "individual_digits", false);
    } else if (strcmp(type, "ByteLevel") == 0) {
        row.kind = SPLIT_BYTE_LEVEL;
        row.plain = !flag(step, "use_regex", true);
        row.prefix_space = flag(step, "add_prefix_space", true);
        *spelled = true;
        if (row.prefix_space && tokenizer->splitter.count)
            return refuse(err, "after another pre_tokenizer,", "add_prefix_space");
    } else {
        return refuse(err, "the pre_tokenizer", type);
    }
    return splitter_add(&tokenizer->splitter, &row, err);
}

/* Bounded by NESTING_LIMIT. */
static bool read_steps(struct tokenizer *tokenizer, const json_t *step, bool *spelled, int nesting,
                       struct error *err) {
    if (strcmp(type_of(step), "Sequence") != 0) return read_step(tokenizer, step, spelled, err);
    const json_t *list = json_object_get(step, "pretokenizers");
    if (nesting == NESTING_LIMIT) return refuse(err, "so deep a nesting of", "Sequence");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!read_steps(tokenizer, json_array_get(list, i), spelled, nesting + 1, err)) return false;
    return true;
}

static bool read_normalizer(struct tokenizer *tokenizer, const json_t *normalizer, int nesting,
                            struct error *err) {
    const char *type = type_of(normalizer);
    if (absent(normalizer)) return true;
    if (strcmp(type, "NFC") == 0) return tokenizer->nfc = true;
    if (strcmp(type, "Sequence") != 0 || nesting == NESTING_LIMIT) return refuse(err, "the normalizer", type);
    const json_t *list = json_object_get(normalizer, "normalizers");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!read_normalizer(tokenizer, json_array_get(list, i), nesting + 1, err)) return false;
    return true;
}

static bool read_decoder(const json_t *decoder, struct error *err) {
    if (strcmp(type_of(decoder), "ByteLevel") == 0) return true;
    return refuse(err, "the decoder", absent(decoder) ? "null" : type_of(decoder));
}

/* The template's tokens before the text are BOS, those after it EOS. */
static void read_template(const json_t *processor, const char **bos, const char **eos) {
    const json_t *single = json_object_get(processor, "single");
    bool after = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const char *id = json_string_value(json_object_get(json_object_get(piece, "SpecialToken"), "id"));
        if (json_object_get(piece, "Sequence")) after = true;
        if (id) *(after ? eos : bos) = id;
    }
}

static void read_post_processor(const json_t *processor, const char **bos, const char **eos) {
    const json_t *list = json_object_get(processor, "processors");
    if (strcmp(type_of(processor), "TemplateProcessing") == 0) read_template(processor, bos, eos);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *inner = json_array_get(list, i);
        if (strcmp(type_of(inner), "TemplateProcessing") == 0) read_template(inner, bos, eos);
    }
}

static int compare_added(const void *a, const void *b) {
    int32_t x = ((const struct added_token *)a)->id, y = ((const struct added_token *)b)->id;
    return (x > y) - (x < y);
}

static bool set_entry(struct tokenizer_parts *parts, int32_t id, struct tokenizer_text text,
                      enum token_kind kind, uint8_t flags, struct error *err) {
    struct vocab_entry *entry = &parts->entries[id];
    bool same = entry->text.data && entry->text.size == text.size &&
                memcmp(entry->text.data, text.data, text.size) == 0;
    if (entry->text.data && !same)
        return error_set(err, ERROR_INPUT, "tokenizer",
                         "tokenizer.json: the id %d has two tokens, \"%.60s\" and \"%.60s\"", id,
                         entry->text.data, text.data);
    if (same && (entry->flags & flags))
        return error_set(err, ERROR_INPUT, "tokenizer", "tokenizer.json: the added token %d stands twice",
                         id);
    entry->text = text;
    entry->kind = (uint8_t)kind;
    entry->flags = (uint8_t)(entry->flags | flags);
    return true;
}

static bool read_added(const json_t *list, struct tokenizer_parts *parts, int32_t *last, struct error *err) {
    parts->added_count = json_array_size(list);
    parts->added = mem_array(parts->added_count, sizeof *parts->added);
    if (!parts->added) return error_no_memory(err, "tokenizer", parts->added_count * sizeof *parts->added);
    for (size_t i = 0; i < parts->added_count; i++) {
        const json_t *item = json_array_get(list, i);
        struct added_token *token = &parts->added[i];
        *token = (struct added_token){.content = text_of(json_object_get(item, "content"))};
        if (!token->content.data)
            return error_set(err, ERROR_INPUT, "tokenizer", "tokenizer.json: added token %zu has no content",
                             i);
        if (!read_id(json_object_get(item, "id"), token->content.data, &token->id, err)) return false;
        token->special = flag(item, "special", false);
        token->single_word = flag(item, "single_word", false);
        token->lstrip = flag(item, "lstrip", false);
        token->rstrip = flag(item, "rstrip", false);
        token->normalized = flag(item, "normalized", !token->special);
        if (token->id > *last) *last = token->id;
    }
    if (parts->added_count) qsort(parts->added, parts->added_count, sizeof *parts->added, compare_added);
    return true;
}

static bool read_tokens(const json_t *root, struct tokenizer_parts *parts, struct error *err) {
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *value;
    const char *key;
    size_t size;
    int32_t id = -1, last = -1;
    json_object_keylen_foreach(vocab, key, size, value) {
        if (!read_id(value, key, &id, err)) return false;
        if (id > last) last = id;
    }
    if (!read_added(json_object_get(root, "added_tokens"), parts, &last, err)) return false;
    parts->entry_count = (size_t)(last + 1);
    parts->entries = mem_calloc(parts->entry_count, sizeof *parts->entries);
    if (!parts->entries)
        return error_no_memory(err, "tokenizer", parts->entry_count * sizeof *parts->entries);
    json_object_keylen_foreach(vocab, key, size, value) {
        id = (int32_t)json_integer_value(value);
        struct tokenizer_text text = {.data = key, .size = size};
        if (!set_entry(parts, id, text, TOKEN_NORMAL, VOCAB_MODEL, err)) return false;
    }
    for (size_t i = 0; i < parts->added_count; i++) {
        const struct added_token *token = &parts->added[i];
        if (!set_entry(parts, token->id, token->content, token->special ? TOKEN_CONTROL : TOKEN_USER,
                       VOCAB_ADDED, err))
            return false;
    }
    return true;
}

static bool read_merges(struct tokenizer *tokenizer, const json_t *model, struct error *err) {
    const json_t *list = json_object_get(model, "merges");
    size_t count = json_array_size(list);
    struct merge *merges = mem_array(count, sizeof *merges);
    bool ok = merges || error_no_memory(err, "tokenizer", count * sizeof *merges);
    for (size_t rank = 0; ok && rank < count; rank++) {
        const json_t *item = json_array_get(list, rank);
        struct tokenizer_text left = text_of(json_array_get(item, 0)),
                              right = text_of(json_array_get(item, 1));
        struct tokenizer_text both = text_of(item);
        if (json_array_size(item) == 2 && left.data && right.data)
            ok = merge_make(&merges[rank], &tokenizer->vocab, &left, &right, rank, err);
        else
            ok = merge_parse(&merges[rank], &tokenizer->vocab, &both, rank, err);
    }
    if (!ok) {
        mem_free(merges);
        return false;
    }
    return bpe_init(&tokenizer->bpe, merges, count, err);
}

static int32_t find_text(const struct tokenizer *tokenizer, const char *text) {
    return text ? tokenizer_find(tokenizer, text) : -1;
}

/* A special token of the config: a string, or an object with "content". */
static int32_t config_token(const struct tokenizer *tokenizer, const json_t *config, const char *name,
                            int32_t otherwise) {
    const json_t *value = json_object_get(config, name);
    if (json_is_object(value)) value = json_object_get(value, "content");
    int32_t id = find_text(tokenizer, json_string_value(value));
    return id >= 0 ? id : otherwise;
}

static bool read_root(struct tokenizer *tokenizer, const json_t *root, const json_t *config,
                      struct error *err) {
    struct tokenizer_parts parts = {0};
    const json_t *model = json_object_get(root, "model"), *pre = json_object_get(root, "pre_tokenizer");
    const char *bos = NULL, *eos = NULL;
    bool spelled = false;
    bool ok =
        check_model(model, err) && read_normalizer(tokenizer, json_object_get(root, "normalizer"), 0, err);
    if (ok && absent(pre)) ok = refuse(err, "the pre_tokenizer", "null");
    ok = ok && read_steps(tokenizer, pre, &spelled, 0, err);
    if (ok && !spelled) ok = refuse(err, "a pre_tokenizer", "without ByteLevel");
    ok = ok && read_decoder(json_object_get(root, "decoder"), err);
    tokenizer->ignore_merges = flag(model, "ignore_merges", false);
    ok = ok && read_tokens(root, &parts, err) && tokenizer_fill(tokenizer, &parts, err) &&
         read_merges(tokenizer, model, err);
    mem_free(parts.entries);
    mem_free(parts.added);
    if (!ok) return false;
    tokenizer->bpe.unknown = find_text(tokenizer, json_string_value(json_object_get(model, "unk_token")));
    tokenizer->bpe.fuse_unknown = flag(model, "fuse_unk", false);
    read_post_processor(json_object_get(root, "post_processor"), &bos, &eos);
    tokenizer->bos = config_token(tokenizer, config, "bos_token", find_text(tokenizer, bos));
    tokenizer->eos = config_token(tokenizer, config, "eos_token", find_text(tokenizer, eos));
    tokenizer->unknown = config_token(tokenizer, config, "unk_token", tokenizer->bpe.unknown);
    tokenizer->padding = config_token(tokenizer, config, "pad_token", -1);
    /* transformers too leaves add_bos_token and add_eos_token unread where there is a tokenizer.json. */
    tokenizer->add_bos = bos != NULL;
    tokenizer->add_eos = eos != NULL;
    return true;
}

static bool read_object(json_t **out, const char *json, size_t size, const char *name, struct error *err) {
    if (!json_read(out, json, size, name, 1, err)) return false;
    return json_is_object(*out) || error_set(err, ERROR_INPUT, "tokenizer", "%s: not a JSON object", name);
}

bool tokenizer_open_json(struct tokenizer **out, const char *json, size_t size, const char *config,
                         size_t config_size, struct error *err) {
    json_t *root = NULL, *settings = NULL;
    *out = NULL;
    bool ok = read_object(&root, json, size, "tokenizer.json", err) &&
              (!config || read_object(&settings, config, config_size, "tokenizer_config.json", err)) &&
              tokenizer_make(out, err) && read_root(*out, root, settings, err);
    if (!ok) tokenizer_close(out);
    json_decref(root);
    json_decref(settings);
    return ok;
}
