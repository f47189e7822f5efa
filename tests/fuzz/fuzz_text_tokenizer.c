/* Hostile vocabularies, and hostile text through those that open. The input is divided by lines of "---":
 *
 *   {…tokenizer.json…}            or    PRE BOS EOS UNKNOWN FLAGS       flags: b all bytes are tokens, a
 * add_bos
 *   ---                                 token                           one a line; "3:x" is of GGUF's type 3
 *   {…tokenizer_config.json…}           ---
 *   ---                                 left right                      merges, one a line
 *   text                                ---
 *                                       text
 *
 * A text of at most 200 bytes is encoded again repeated, so that what is not linear takes very long. */
#include "fuzz_text_tokenizer.h"

enum { PARTS = 3, LINES = 2000 };

struct part {
    const char *data;
    size_t size;
};

static void divide(const char *data, size_t size, struct part parts[PARTS]) {
    static const char mark[] = "\n---\n";
    for (int i = 0; i < PARTS; i++) {
        const char *end = i + 1 < PARTS ? memmem(data, size, mark, sizeof mark - 1) : NULL;
        parts[i] = (struct part){data, end ? (size_t)(end - data) : size};
        size_t taken = parts[i].size + (end ? sizeof mark - 1 : 0);
        data += taken;
        size -= taken;
    }
}

static size_t divide_lines(const struct part *part, struct tokenizer_text *lines, size_t count) {
    const char *at = part->data, *last = part->data + part->size;
    while (at < last && count < LINES) {
        const char *end = memchr(at, '\n', (size_t)(last - at));
        if (!end) end = last;
        lines[count++] = (struct tokenizer_text){at, (size_t)(end - at)};
        at = end + 1;
    }
    return count;
}

/* The byte alphabet of GPT-2, a character of two bytes for each of 256. */
static size_t add_bytes(struct tokenizer_text *tokens, char spelled[256][3]) {
    int next = 256;
    for (int byte = 0; byte < 256; byte++) {
        bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        int size = utf8_encode((uint32_t)(itself ? byte : next++), spelled[byte]);
        tokens[byte] = (struct tokenizer_text){spelled[byte], (size_t)size};
    }
    return 256;
}

static bool open_tables(struct tokenizer **out, const struct part parts[PARTS], struct error *err) {
    static struct tokenizer_text tokens[LINES], merges[LINES];
    static int32_t kinds[LINES];
    static char spelled[256][3], pre[64], flags[64], header[200];
    struct tokenizer_tables tables = {.tokens = tokens, .merges = merges, .kinds = kinds, .pre = pre};
    struct part list = parts[0];
    const char *end = memchr(list.data, '\n', list.size);
    size_t size = end ? (size_t)(end - list.data) : list.size;
    snprintf(header, sizeof header, "%.*s", (int)(size < sizeof header ? size : sizeof header - 1),
             list.data);
    pre[0] = flags[0] = '\0';
    sscanf(header, "%63s %d %d %d %63s", pre, &tables.bos, &tables.eos, &tables.unknown, flags);
    tables.padding = -1;
    tables.add_bos = strchr(flags, 'a');
    if (strchr(flags, 'b')) tables.token_count = add_bytes(tokens, spelled);
    list = (struct part){list.data + size + (end != NULL), list.size - size - (end != NULL)};
    tables.token_count = divide_lines(&list, tokens, tables.token_count);
    for (size_t i = 0; i < tables.token_count; i++) {
        struct tokenizer_text *token = &tokens[i];
        bool typed =
            token->size > 2 && token->data[1] == ':' && token->data[0] >= '0' && token->data[0] <= '9';
        kinds[i] = typed ? token->data[0] - '0' : 1;
        if (typed) *token = (struct tokenizer_text){token->data + 2, token->size - 2};
    }
    tables.merge_count = divide_lines(&parts[1], merges, 0);
    return tokenizer_open(out, &tables, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct part parts[PARTS];
    struct error err = {0};
    struct tokenizer *tokenizer = NULL;
    divide((const char *)data, size, parts);
    bool json = parts[0].size && parts[0].data[0] == '{';
    bool ok = json ? tokenizer_open_json(&tokenizer, parts[0].data, parts[0].size,
                                         parts[1].size ? parts[1].data : NULL, parts[1].size, &err)
                   : open_tables(&tokenizer, parts, &err);
    require(ok == (tokenizer != NULL));
    if (ok)
        fuzz_tokenizer(tokenizer, parts[PARTS - 1].data, parts[PARTS - 1].size);
    else
        check_refusal(&err);
    tokenizer_close(&tokenizer);
    return 0;
}
