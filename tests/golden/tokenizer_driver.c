/* Texts in, ids out, for comparison with other tokenizers.
 *
 *   tokenizer_driver FILE [special|plain]        FILE: a GGUF or a tokenizer.json
 *     stdin:  per text its size in bytes as decimal digits, a newline, the bytes
 *     stdout: per text its ids as decimal digits between spaces, a newline
 *   tokenizer_driver FILE windows                each text as one piece, merged window by window and whole
 *     stdout: per text "same" or "differs", and how often a byte was merged in the smallest windows
 *   tokenizer_driver FILE write DIRECTORY        writes tokenizer.json and tokenizer_config.json
 *   tokenizer_driver FILE time TEXTFILE…         loads, encodes each whole file, prints the time of a byte
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/gguf.h"
#include "text/tokenizer_parts.h"

static int64_t key_int(const struct gguf *gguf, const char *key) {
    int64_t value = -1;
    gguf_get_int(gguf, key, &value);
    return value;
}

static bool open_gguf(struct tokenizer **out, const char *path, struct error *err) {
    struct gguf *gguf;
    const struct gguf_text *tokens = NULL, *merges = NULL;
    struct gguf_text pre = {.data = "default", .size = 7};
    struct tokenizer_tables tables = {0};
    size_t kinds = 0;
    if (!gguf_open(&gguf, path, err)) return false;
    gguf_get_text_array(gguf, "tokenizer.ggml.tokens", &tokens, &tables.token_count);
    gguf_get_text_array(gguf, "tokenizer.ggml.merges", &merges, &tables.merge_count);
    gguf_get_int_array(gguf, "tokenizer.ggml.token_type", &tables.kinds, &kinds);
    gguf_get_text(gguf, "tokenizer.ggml.pre", &pre);
    gguf_get_bool(gguf, "tokenizer.ggml.add_bos_token", &tables.add_bos);
    tables.bos = (int32_t)key_int(gguf, "tokenizer.ggml.bos_token_id");
    tables.eos = (int32_t)key_int(gguf, "tokenizer.ggml.eos_token_id");
    tables.unknown = (int32_t)key_int(gguf, "tokenizer.ggml.unknown_token_id");
    tables.padding = (int32_t)key_int(gguf, "tokenizer.ggml.padding_token_id");
    struct tokenizer_text *token_texts = mem_array(tables.token_count, sizeof *token_texts);
    struct tokenizer_text *merge_texts = mem_array(tables.merge_count, sizeof *merge_texts);
    char *name = mem_strndup(pre.data, pre.size);
    if (!token_texts || !merge_texts || !name || (tables.kinds && kinds != tables.token_count)) abort();
    for (size_t i = 0; i < tables.token_count; i++)
        token_texts[i] = (struct tokenizer_text){tokens[i].data, tokens[i].size};
    for (size_t i = 0; i < tables.merge_count; i++)
        merge_texts[i] = (struct tokenizer_text){merges[i].data, merges[i].size};
    tables.tokens = token_texts;
    tables.merges = merge_texts;
    tables.pre = name;
    bool ok = tokenizer_open(out, &tables, err);
    mem_free(token_texts);
    mem_free(merge_texts);
    mem_free(name);
    gguf_close(&gguf);
    return ok;
}

static bool open_json(struct tokenizer **out, const char *path, struct error *err) {
    struct buf json, config;
    char *beside = mem_strdup(path);
    buf_init(&json, 0);
    buf_init(&config, 0);
    if (!beside) abort();
    char *slash = strrchr(beside, '/');
    char *config_path = slash ? (*slash = '\0', fs_join(beside, "tokenizer_config.json")) : NULL;
    bool has_config = config_path && fs_kind_of(config_path) == FS_FILE;
    bool ok =
        fs_read(path, 0, &json, err) && (!has_config || fs_read(config_path, 0, &config, err)) &&
        tokenizer_open_json(out, json.data, json.size, has_config ? config.data : NULL, config.size, err);
    mem_free(config_path);
    mem_free(beside);
    buf_release(&json);
    buf_release(&config);
    return ok;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool write_files(const struct tokenizer *tokenizer, const char *directory, struct error *err) {
    struct buf json, config;
    char *json_path = fs_join(directory, "tokenizer.json");
    char *config_path = fs_join(directory, "tokenizer_config.json");
    buf_init(&json, 0);
    buf_init(&config, 0);
    bool ok = tokenizer_write_json(tokenizer, &json, err) &&
              tokenizer_write_config(tokenizer, 2048, &config, err) &&
              fs_write_atomic(json_path, json.data, json.size, err) &&
              fs_write_atomic(config_path, config.data, config.size, err);
    mem_free(json_path);
    mem_free(config_path);
    buf_release(&json);
    buf_release(&config);
    return ok;
}

/* The next text of stdin, in memory that is used again. */
static bool next_text(struct buf *text) {
    char size_line[32];
    buf_clear(text);
    if (!fgets(size_line, sizeof size_line, stdin)) return false;
    size_t size = strtoul(size_line, NULL, 10);
    if (!buf_reserve(text, size + 1) || fread(text->data, 1, size, stdin) != size) abort();
    text->size = size;
    return true;
}

static bool run_lines(const struct tokenizer *tokenizer, bool special, struct error *err) {
    struct tokens tokens = {0};
    struct buf text;
    bool ok = true;
    buf_init(&text, 0);
    while (ok && next_text(&text)) {
        tokens.count = 0;
        ok = tokenizer_encode(tokenizer, text.data, text.size, special, &tokens, err);
        for (size_t i = 0; ok && i < tokens.count; i++) printf("%d ", tokens.ids[i]);
        putchar('\n');
    }
    tokens_release(&tokens);
    buf_release(&text);
    return ok;
}

static bool run_windows(const struct tokenizer *tokenizer, struct error *err) {
    static const size_t windows[] = {SIZE_MAX / 2, 16384, 2048, 256};
    struct tokens tokens[2] = {{0}};
    struct bpe_scratch scratch = {0};
    struct bpe bpe = tokenizer->bpe;
    struct buf text;
    bool ok = true;
    buf_init(&text, 0);
    while (ok && next_text(&text)) {
        bool same = true;
        for (size_t i = 0; ok && i < sizeof windows / sizeof *windows; i++) {
            struct tokens *out = &tokens[i > 0];
            bpe.window = windows[i];
            out->count = 0;
            scratch.merged = 0;
            ok = bpe_encode(&bpe, &tokenizer->vocab, &scratch, text.data, text.size, out, err);
            same = same && out->count == tokens[0].count &&
                   memcmp(out->ids, tokens[0].ids, out->count * sizeof *out->ids) == 0 &&
                   memcmp(out->starts, tokens[0].starts, out->count * sizeof *out->starts) == 0;
        }
        printf("%s %.3f\n", same ? "same" : "differs", (double)scratch.merged / (double)text.size);
    }
    for (int i = 0; i < 2; i++) tokens_release(&tokens[i]);
    bpe_scratch_release(&scratch);
    buf_release(&text);
    return ok;
}

/* Processor time of the best of several runs, so that what else runs on the machine matters little. */
static bool run_time(const struct tokenizer *tokenizer, double loaded, char *const *paths,
                     struct error *err) {
    struct tokens tokens = {0};
    struct buf text;
    bool ok = true;
    printf("load %.1f ms\n", 1e3 * loaded);
    buf_init(&text, 0);
    for (; ok && *paths; paths++) {
        double best = 1e9, spent = 0;
        buf_clear(&text);
        ok = fs_read(*paths, 0, &text, err);
        for (int run = 0; ok && (run == 0 || (run < 100 && spent < 0.5)); run++) {
            double start = now();
            tokens.count = 0;
            ok = tokenizer_encode(tokenizer, text.data, text.size, true, &tokens, err);
            double seconds = now() - start;
            spent += seconds;
            if (seconds < best) best = seconds;
        }
        if (ok)
            printf("%s: %zu bytes, %zu tokens, %.1f ns a byte\n", *paths, text.size, tokens.count,
                   1e9 * best / (double)(text.size ? text.size : 1));
    }
    tokens_release(&tokens);
    buf_release(&text);
    return ok;
}

int main(int argc, char **argv) {
    struct error err = {0};
    struct tokenizer *tokenizer = NULL;
    char message[2048];
    if (argc < 2) return 2;
    size_t length = strlen(argv[1]);
    double start = now();
    bool json = length > 5 && strcmp(argv[1] + length - 5, ".json") == 0;
    bool ok = json ? open_json(&tokenizer, argv[1], &err) : open_gguf(&tokenizer, argv[1], &err);
    double loaded = now() - start;
    if (ok && argc > 3 && strcmp(argv[2], "write") == 0)
        ok = write_files(tokenizer, argv[3], &err);
    else if (ok && argc > 3 && strcmp(argv[2], "time") == 0)
        ok = run_time(tokenizer, loaded, argv + 3, &err);
    else if (ok && argc > 2 && strcmp(argv[2], "windows") == 0)
        ok = run_windows(tokenizer, &err);
    else if (ok)
        ok = run_lines(tokenizer, argc < 3 || strcmp(argv[2], "plain") != 0, &err);
    tokenizer_close(&tokenizer);
    if (ok) return 0;
    error_format(&err, message, sizeof message);
    fprintf(stderr, "%s\n", message);
    return 1;
}
