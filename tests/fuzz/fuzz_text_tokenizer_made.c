/* Tokenizers made of the input's choices, so that nearly all of them open: merges of any two tokens, added
 * tokens with every flag, several steps of pre-tokenization. Each byte chooses; the text is the rest, with
 * some bytes standing for words that the vocabulary knows. */
#include "fuzz_text_tokenizer.h"

#include "base/json.h"

enum { TOKENS = 320, TOKEN_SIZE = 64 };

struct choices {
    const uint8_t *at, *end;
};

static unsigned choose(struct choices *choices, unsigned limit) {
    return choices->at < choices->end ? *choices->at++ % limit : 0;
}

static const char *const patterns[] = {
    "'s|'t| ?\\p{L}+| ?\\p{N}+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+",
    "\\s+$",
    "a*",
    "",
    "x|",
    "(?=a)",
    "\\b",
    "[^a]",
    ".",
    "(?m).",
    "$",
    "^",
    "a+?",
    "(?<=a)b",
    "\\s?[!-/]+",
    "(a|aa)+$",
    "(?!t)[a-z]",
    "\\p{M}",
    "[é中]",
    "(?>a+)a",
    "\\w+|\\W",
    "the",
    " ",
};
static const char *const words[] = {"a",      "the", "é",   "e\u0301",      "\u0301", "中",   " ",
                                    "\u3000", "\n",  "<x>", "<|im_end|>",   "ing",    "aaaa", "  ",
                                    "👍",      "1",   "한",  "\u1100\u1161", "'s",     "-"};
enum { PATTERNS = sizeof patterns / sizeof *patterns, WORDS = sizeof words / sizeof *words };

struct texts {
    char data[TOKENS][TOKEN_SIZE];
    size_t count;
};

static size_t texts_add(struct texts *texts, const char *text) {
    size_t i = 0;
    while (i < texts->count && strcmp(texts->data[i], text) != 0) i++;
    if (i == texts->count) snprintf(texts->data[texts->count++], TOKEN_SIZE, "%s", text);
    return i;
}

static void add_alphabet(struct texts *texts) {
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        texts->data[texts->count][utf8_encode(itself ? byte : next++, texts->data[texts->count])] = '\0';
        texts->count++;
    }
}

/* Two tokens to merge: letters and what was made of them, rather than any byte. */
static size_t choose_token(struct choices *choices, const struct texts *texts) {
    static const char likely[] = "atheings '-1"; /* their ids are their bytes, but for the space's */
    unsigned made = (unsigned)texts->count - 256, pick = choose(choices, 2 * 12 + made);
    if (pick >= 2 * 12) return 256 + pick - 2 * 12;
    return pick < 12 ? (unsigned char)likely[pick] : choose(choices, 256);
}

static json_t *make_merges(struct choices *choices, struct texts *texts) {
    json_t *merges = json_array();
    for (unsigned left = choose(choices, 40); left > 0 && texts->count < TOKENS - 10; left--) {
        char joined[2 * TOKEN_SIZE];
        size_t a = choose_token(choices, texts), b = choose_token(choices, texts);
        if (snprintf(joined, sizeof joined, "%s%s", texts->data[a], texts->data[b]) >= TOKEN_SIZE) continue;
        texts_add(texts, joined);
        json_array_append_new(merges, json_pack("[s,s]", texts->data[a], texts->data[b]));
    }
    return merges;
}

static json_t *make_added(struct choices *choices, struct texts *texts) {
    static const char *const flags[] = {"special", "single_word", "lstrip", "rstrip", "normalized"};
    bool taken[TOKENS] = {false};
    json_t *added = json_array();
    for (unsigned left = choose(choices, 8); left > 0; left--) {
        size_t id = texts_add(texts, words[choose(choices, WORDS)]);
        if (taken[id]) continue;
        taken[id] = true;
        json_t *token = json_pack("{s:i,s:s}", "id", (int)id, "content", texts->data[id]);
        unsigned chosen = choose(choices, 32);
        for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++)
            json_object_set_new(token, flags[i], json_boolean(chosen >> i & 1));
        json_array_append_new(added, token);
    }
    return added;
}

static json_t *make_step(struct choices *choices) {
    static const char *const behaviors[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                            "Contiguous"};
    unsigned kind = choose(choices, 4);
    const char *pattern = patterns[choose(choices, PATTERNS)], *behavior = behaviors[choose(choices, 5)];
    int flag = (int)choose(choices, 2);
    if (kind == 2) return json_pack("{s:s,s:b}", "type", "Digits", "individual_digits", flag);
    if (kind == 3) return json_pack("{s:s,s:s}", "type", "Punctuation", "behavior", behavior);
    return json_pack("{s:s,s:{s:s},s:s,s:b}", "type", "Split", "pattern", kind ? "String" : "Regex", pattern,
                     "behavior", behavior, "invert", flag);
}

static json_t *make_steps(struct choices *choices) {
    json_t *steps = json_array();
    for (unsigned left = choose(choices, 4); left > 0; left--)
        json_array_append_new(steps, make_step(choices));
    int prefix = json_array_size(steps) == 0 && choose(choices, 2), regex = (int)choose(choices, 2);
    json_array_append_new(steps, json_pack("{s:s,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", prefix,
                                           "use_regex", regex));
    return steps;
}

static json_t *make_vocab(const struct texts *texts, size_t count, size_t missing) {
    json_t *vocab = json_object();
    for (size_t id = 0; id < count; id++) /* a byte left out keeps its id, in a spelling that is no byte's */
        json_object_set_new(vocab, id == missing ? "中" : texts->data[id], json_integer((json_int_t)id));
    return vocab;
}

static char *make_json(struct choices *choices) {
    struct texts *texts = calloc(1, sizeof *texts);
    require(texts != NULL);
    add_alphabet(texts);
    json_t *merges = make_merges(choices, texts);
    size_t model = texts->count, missing = choose(choices, 3) ? SIZE_MAX : choose(choices, 256);
    json_t *added = make_added(choices, texts), *steps = make_steps(choices);
    unsigned flags = choose(choices, 16);
    json_t *root =
        json_pack("{s:o,s:o,s:{s:s},s:{s:s,s:o},s:{s:s,s:b,s:b,s:o,s:o}}", "normalizer",
                  flags & 1 ? json_pack("{s:s}", "type", "NFC") : json_null(), "added_tokens", added,
                  "decoder", "type", "ByteLevel", "pre_tokenizer", "type", "Sequence", "pretokenizers", steps,
                  "model", "type", "BPE", "ignore_merges", (int)(flags & 2), "fuse_unk", (int)(flags & 4),
                  "merges", merges, "vocab", make_vocab(texts, model, missing));
    require(root != NULL);
    if (flags & 8) json_object_set_new(json_object_get(root, "model"), "unk_token", json_string("a"));
    char *text = json_dumps(root, 0);
    require(text != NULL);
    json_decref(root);
    free(texts);
    return text;
}

static void make_text(struct choices *choices, struct buf *text) {
    for (; choices->at < choices->end; choices->at++) {
        unsigned byte = *choices->at;
        if (byte < 0x80)
            buf_byte(text, (char)byte);
        else
            buf_text(text, words[byte % WORDS]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct choices choices = {.at = data, .end = data + size};
    struct tokenizer *tokenizer = NULL;
    struct buf text = {0};
    struct error err = {0};
    char *json = make_json(&choices);
    make_text(&choices, &text);
    if (tokenizer_open_json(&tokenizer, json, strlen(json), NULL, 0, &err))
        fuzz_tokenizer(tokenizer, text.data ? text.data : "", text.size);
    else
        check_refusal(&err);
    tokenizer_close(&tokenizer);
    buf_release(&text);
    free(json);
    return 0;
}
