/* Text to token ids and back: byte-level byte-pair encoding.
 *
 * The tokenizer is made from plain tables (a GGUF's metadata, handed over by the model layer) or from
 * a tokenizer.json. It equals Hugging Face `tokenizers` id for id. Time is linear in the input, with
 * no recursion on its length; regexes run in PCRE2 with match limits.
 *
 * Words: token, id, piece (what the pre-tokenizer's regex cuts), merge, special token (matched as a
 * whole before anything else). */
#ifndef HONE_TEXT_TOKENIZER_H
#define HONE_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"

struct tokenizer;

enum token_kind { TOKEN_NORMAL, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_UNKNOWN, TOKEN_BYTE };

struct tokenizer_text {
    const char *data;
    size_t size;
};

/* Plain tables, as GGUF's tokenizer.ggml.* holds them. All pointers must live until tokenizer_open
 * returns; nothing is kept. */
struct tokenizer_tables {
    const struct tokenizer_text *tokens; /* in the byte-to-unicode alphabet of GPT-2 */
    const int32_t *kinds; /* GGUF token types (1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6
                             byte); NULL: all normal */
    size_t token_count;
    const struct tokenizer_text *merges; /* "left right" */
    size_t merge_count;
    const char *pre;                    /* tokenizer.ggml.pre: "gpt-2", "smollm", "llama-bpe", "qwen2" … */
    int32_t bos, eos, unknown, padding; /* -1: none */
    bool add_bos, add_eos;
};

struct tokens {
    int32_t *ids;
    uint32_t *starts; /* byte offset in the text at which each token begins */
    size_t count, capacity;
};
void tokens_release(struct tokens *tokens);

bool tokenizer_open(struct tokenizer **out, const struct tokenizer_tables *tables, struct error *err);
/* `config` is tokenizer_config.json (bos_token, eos_token …) and may be NULL. Whether a text gets them is
 * what the post-processor says. */
bool tokenizer_open_json(struct tokenizer **out, const char *json, size_t size, const char *config,
                         size_t config_size, struct error *err);
void tokenizer_close(struct tokenizer **tokenizer);

/* Appends the ids of the text. `special`: special tokens in the text are recognised (as a rendered
 * template needs); otherwise they are plain text. Adds no BOS or EOS. Text must be valid UTF-8. */
bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, bool special,
                      struct tokens *out, struct error *err);
/* Appends the bytes of the ids; control tokens give nothing unless `special`. Unknown ids are an error. */
bool tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool special,
                      struct buf *out, struct error *err);

size_t tokenizer_size(const struct tokenizer *tokenizer);
int32_t tokenizer_bos(const struct tokenizer *tokenizer); /* -1: none */
int32_t tokenizer_eos(const struct tokenizer *tokenizer);
int32_t tokenizer_unknown(const struct tokenizer *tokenizer);
int32_t tokenizer_pad(const struct tokenizer *tokenizer);
bool tokenizer_adds_bos(const struct tokenizer *tokenizer);
/* The id of a token by its exact text, or -1. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text);
/* The text of one token as it stands in the vocabulary (special tokens verbatim); NULL when out of range. */
const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size);
enum token_kind tokenizer_kind(const struct tokenizer *tokenizer, int32_t id);

/* tokenizer.json and tokenizer_config.json that Hugging Face loads with the same result. The chat
 * template is not in it: it lies beside, in chat_template.jinja. */
bool tokenizer_write_json(const struct tokenizer *tokenizer, struct buf *out, struct error *err);
bool tokenizer_write_config(const struct tokenizer *tokenizer, int64_t model_max_length, struct buf *out,
                            struct error *err);

/* The same as plain tables, for a GGUF: what tokenizer_open makes of them gives the same ids. They point into
 * `arena` and into the tokenizer. Errors: ERROR_INPUT for a pre-tokenizer or a merge that tables cannot name.
 */
bool tokenizer_write_tables(const struct tokenizer *tokenizer, struct arena *arena,
                            struct tokenizer_tables *out, struct error *err);

/* A tokenizer of single bytes: the id of a byte is its value, 256 is the end of text, and ids from there on
 * to `size` are padding. No merges. `size` is at least 257. */
bool tokenizer_open_bytes(struct tokenizer **out, size_t size, struct error *err);
/* The text of a token that only fills up a vocabulary: "[PAD300]". */
enum { tokenizer_padding_size = 32, tokenizer_kind_unused = 5 /* in tables */ };
void tokenizer_padding(int64_t id, char text[tokenizer_padding_size]);

#endif
