/* The path of a text: added tokens out of the raw text; what lies between is normalized; added tokens
 * out of that; what lies between is cut into pieces, and each piece is encoded.
 *
 *   text ──added──► gaps ──normalize──► text ──added──► gaps ──splitter──► pieces ──bpe──► ids */
#include "text/tokenizer_parts.h"

#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#include "base/mem.h"
#include "base/text.h"

enum {
    CACHE_SLOTS = 8192,
    CACHE_KEY = 24,         /* bytes of the longest piece that is kept */
    CACHE_IDS = 6,          /* tokens of the longest result that is kept */
    KEPT_SCRATCH = 1 << 18, /* words of merging memory that outlive a call */
};

/* One cache line. A piece is looked for in one slot only; a newer piece takes it over. */
struct cache_slot {
    char key[CACHE_KEY];
    uint8_t size, count; /* size 0: empty */
    uint8_t starts[CACHE_IDS];
    int32_t ids[CACHE_IDS];
};

/* What a call works with. One set is kept from call to call; calls at the same time make their own. */
struct scratch {
    struct regex_scratch *regex;
    struct bpe_scratch bpe;
    struct normalized normalized, prefixed;
    struct cache_slot cache[CACHE_SLOTS];
};

struct tokenizer_spare {
    _Atomic(struct scratch *) scratch;
};

static void scratch_close(struct scratch *scratch) {
    if (!scratch) return;
    regex_scratch_close(&scratch->regex);
    bpe_scratch_release(&scratch->bpe);
    normalized_release(&scratch->normalized);
    normalized_release(&scratch->prefixed);
    mem_free(scratch);
}

static struct scratch *scratch_take(const struct tokenizer *tokenizer, struct error *err) {
    struct scratch *scratch = atomic_exchange(&tokenizer->spare->scratch, NULL);
    if (scratch) return scratch;
    scratch = mem_calloc(1, sizeof *scratch);
    if (!scratch) error_no_memory(err, "tokenizer", sizeof *scratch);
    if (scratch && !regex_scratch_open(&scratch->regex, err)) {
        scratch_close(scratch);
        scratch = NULL;
    }
    return scratch;
}

static void scratch_return(const struct tokenizer *tokenizer, struct scratch *scratch) {
    if (scratch->bpe.capacity > KEPT_SCRATCH) bpe_scratch_release(&scratch->bpe);
    if (scratch->normalized.capacity > KEPT_SCRATCH) normalized_release(&scratch->normalized);
    if (scratch->prefixed.capacity > KEPT_SCRATCH) normalized_release(&scratch->prefixed);
    scratch_close(atomic_exchange(&tokenizer->spare->scratch, scratch));
}

bool tokenizer_make(struct tokenizer **out, struct error *err) {
    struct tokenizer *tokenizer = *out = mem_calloc(1, sizeof *tokenizer);
    if (tokenizer) tokenizer->spare = mem_calloc(1, sizeof *tokenizer->spare);
    if (!tokenizer || !tokenizer->spare) {
        tokenizer_close(out);
        return error_no_memory(err, "tokenizer", sizeof *tokenizer);
    }
    atomic_init(&tokenizer->spare->scratch, NULL);
    tokenizer->bos = tokenizer->eos = tokenizer->unknown = tokenizer->padding = -1;
    return true;
}

static bool check_special(const struct tokenizer *tokenizer, const char *name, int32_t id,
                          struct error *err) {
    if (id >= -1 && (id < 0 || (size_t)id < tokenizer->vocab.count)) return true;
    return error_set(err, ERROR_INPUT, "tokenizer",
                     "the %s token's id %d is not in the vocabulary of %zu tokens", name, id,
                     tokenizer->vocab.count);
}

bool tokenizer_fill(struct tokenizer *tokenizer, const struct tokenizer_parts *parts, struct error *err) {
    return vocab_init(&tokenizer->vocab, parts->entries, parts->entry_count, tokenizer->ignore_merges, err) &&
           added_init(&tokenizer->added, parts->added, parts->added_count, err) &&
           check_special(tokenizer, "bos", tokenizer->bos, err) &&
           check_special(tokenizer, "eos", tokenizer->eos, err) &&
           check_special(tokenizer, "unknown", tokenizer->unknown, err) &&
           check_special(tokenizer, "padding", tokenizer->padding, err);
}

void tokenizer_close(struct tokenizer **tokenizer) {
    struct tokenizer *t = *tokenizer;
    if (!t) return;
    if (t->spare) scratch_close(atomic_load(&t->spare->scratch));
    mem_free(t->spare);
    vocab_release(&t->vocab);
    bpe_release(&t->bpe);
    added_release(&t->added);
    splitter_release(&t->splitter);
    mem_free(t);
    *tokenizer = NULL;
}

void tokens_release(struct tokens *tokens) {
    mem_free(tokens->ids);
    mem_free(tokens->starts);
    memset(tokens, 0, sizeof *tokens);
}

/* A run of text on its way, with where it comes from: byte i stands at base + i, or at map[i]. */
struct segment {
    const char *data;
    size_t size;
    const uint32_t *map; /* NULL: base + i */
    uint32_t base;
};

static struct segment segment_part(const struct segment *segment, size_t first, size_t end) {
    struct segment part = {.data = segment->data + first, .size = end - first};
    part.map = segment->map ? segment->map + first : NULL;
    part.base = segment->base + (uint32_t)first;
    return part;
}

struct encoding {
    const struct tokenizer *tokenizer;
    struct scratch *scratch;
    struct tokens *out;
    struct segment segment; /* the one that is cut into pieces */
    bool special;
};

static bool push_token(struct tokens *out, int32_t id, const struct segment *at, struct error *err) {
    if (!tokens_reserve(out, 1, err)) return false;
    out->ids[out->count] = id;
    out->starts[out->count++] = at->map ? at->map[0] : at->base;
    return true;
}

static void cache_store(struct cache_slot *slot, const struct segment *piece, const struct tokens *out,
                        size_t before) {
    size_t count = out->count - before;
    if (count > CACHE_IDS) return;
    memcpy(slot->key, piece->data, piece->size);
    slot->size = (uint8_t)piece->size;
    slot->count = (uint8_t)count;
    for (size_t i = 0; i < count; i++) {
        slot->ids[i] = out->ids[before + i];
        slot->starts[i] = (uint8_t)out->starts[before + i];
    }
}

static bool cache_load(const struct cache_slot *slot, struct tokens *out, struct error *err) {
    if (!tokens_reserve(out, slot->count, err)) return false;
    for (size_t i = 0; i < slot->count; i++) {
        out->ids[out->count] = slot->ids[i];
        out->starts[out->count++] = slot->starts[i];
    }
    return true;
}

static bool encode_piece(void *user, size_t first, size_t end, struct error *err) {
    struct encoding *e = user;
    const struct tokenizer *tokenizer = e->tokenizer;
    struct segment piece = segment_part(&e->segment, first, end);
    size_t before = e->out->count;
    int32_t whole =
        tokenizer->ignore_merges ? vocab_find_bytes(&tokenizer->vocab, piece.data, piece.size) : -1;
    if (whole >= 0) return push_token(e->out, whole, &piece, err);
    struct cache_slot *slot = NULL;
    bool hit = false;
    if (piece.size <= CACHE_KEY) {
        slot = &e->scratch->cache[XXH3_64bits(piece.data, piece.size) % CACHE_SLOTS];
        hit = slot->size == piece.size && memcmp(slot->key, piece.data, piece.size) == 0;
    }
    if (hit ? !cache_load(slot, e->out, err)
            : !bpe_encode(&tokenizer->bpe, &tokenizer->vocab, &e->scratch->bpe, piece.data, piece.size,
                          e->out, err))
        return false;
    if (slot && !hit) cache_store(slot, &piece, e->out, before);
    for (size_t i = before; i < e->out->count; i++)
        e->out->starts[i] = piece.map ? piece.map[e->out->starts[i]] : piece.base + e->out->starts[i];
    return true;
}

/* Text without added tokens: a space in front where the pre-tokenizer asks for one, then pieces. */
static bool encode_plain(struct encoding *e, const struct segment *segment, struct error *err) {
    const struct splitter *splitter = &e->tokenizer->splitter;
    e->segment = *segment;
    if (splitter->count && splitter->steps[0].prefix_space && segment->data[0] != ' ') {
        struct normalized *prefixed = &e->scratch->prefixed;
        prefixed->size = 0;
        if (!normalized_append(prefixed, " ", 1, segment->map ? segment->map[0] : segment->base, err))
            return false;
        for (size_t i = 0; i < segment->size; i++)
            if (!normalized_append(prefixed, segment->data + i, 1,
                                   segment->map ? segment->map[i] : segment->base + (uint32_t)i, err))
                return false;
        e->segment = (struct segment){.data = prefixed->data, .size = prefixed->size, .map = prefixed->map};
    }
    return splitter_run(splitter, e->scratch->regex, e->segment.data, e->segment.size, encode_piece, e, err);
}

static bool encode_added(struct encoding *e, const struct segment *segment, bool normalized,
                         struct error *err);

static bool encode_gap(struct encoding *e, const struct segment *gap, bool normalized, struct error *err) {
    if (gap->size == 0) return true;
    if (normalized) return encode_plain(e, gap, err);
    if (!e->tokenizer->nfc) return encode_added(e, gap, true, err);
    bool changed;
    struct normalized *text = &e->scratch->normalized;
    if (!normalize_nfc(gap->data, gap->size, text, &changed, err)) return false;
    if (!changed) return encode_added(e, gap, true, err);
    for (size_t i = 0; i < text->size; i++) text->map[i] += gap->base;
    struct segment composed = {.data = text->data, .size = text->size, .map = text->map};
    return encode_added(e, &composed, true, err);
}

/* Takes added tokens out, of raw text first, then of normalized text. */
static bool encode_added(struct encoding *e, const struct segment *segment, bool normalized,
                         struct error *err) {
    const struct added *added = &e->tokenizer->added;
    struct added_match match = {0};
    size_t from = 0;
    while (added_any(added, normalized) &&
           added_find(added, normalized, e->special, segment->data, segment->size, &match)) {
        struct segment gap = segment_part(segment, from, match.first > from ? match.first : from);
        struct segment token = segment_part(segment, match.first, match.end);
        if (!encode_gap(e, &gap, normalized, err) || !push_token(e->out, match.token->id, &token, err))
            return false;
        from = match.end;
    }
    struct segment rest = segment_part(segment, from, segment->size);
    return encode_gap(e, &rest, normalized, err);
}

bool tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t size, bool special,
                      struct tokens *out, struct error *err) {
    size_t bad, before = out->count;
    if (size >= UINT32_MAX)
        return error_set(err, ERROR_INPUT, "tokenizer", "a text of %zu bytes is longer than 4 GiB", size);
    if (!utf8_valid(text, size, &bad))
        return error_set(err, ERROR_INPUT, "tokenizer", "the text is not valid UTF-8 at byte %zu", bad);
    struct encoding e = {.tokenizer = tokenizer, .out = out, .special = special};
    struct segment whole = {.data = text, .size = size};
    e.scratch = scratch_take(tokenizer, err);
    if (!e.scratch) return false;
    regex_scratch_begin(e.scratch->regex, size);
    bool ok = encode_added(&e, &whole, false, err);
    scratch_return(tokenizer, e.scratch);
    if (!ok) out->count = before;
    return ok;
}

bool tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool special,
                      struct buf *out, struct error *err) {
    for (size_t i = 0; i < count; i++) {
        size_t size;
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer->vocab.count)
            return error_set(err, ERROR_INPUT, "tokenizer",
                             "the id %d is not in the vocabulary of %zu tokens", ids[i],
                             tokenizer->vocab.count);
        enum token_kind kind = tokenizer->vocab.kinds[ids[i]];
        if (!special && (kind == TOKEN_CONTROL || kind == TOKEN_UNKNOWN)) continue;
        const char *bytes = vocab_bytes(&tokenizer->vocab, ids[i], &size);
        buf_append(out, bytes, size);
    }
    return !out->failed || error_no_memory(err, "tokenizer", out->size);
}

size_t tokenizer_size(const struct tokenizer *tokenizer) { return tokenizer->vocab.count; }
int32_t tokenizer_bos(const struct tokenizer *tokenizer) { return tokenizer->bos; }
int32_t tokenizer_eos(const struct tokenizer *tokenizer) { return tokenizer->eos; }
int32_t tokenizer_unknown(const struct tokenizer *tokenizer) { return tokenizer->unknown; }
int32_t tokenizer_pad(const struct tokenizer *tokenizer) { return tokenizer->padding; }
bool tokenizer_adds_bos(const struct tokenizer *tokenizer) {
    return tokenizer->add_bos && tokenizer->bos >= 0;
}

int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text) {
    return vocab_find(&tokenizer->vocab, text, strlen(text));
}

const char *tokenizer_token(const struct tokenizer *tokenizer, int32_t id, size_t *size) {
    size_t ignored;
    if (id < 0 || (size_t)id >= tokenizer->vocab.count) return NULL;
    return vocab_text(&tokenizer->vocab, id, size ? size : &ignored);
}

enum token_kind tokenizer_kind(const struct tokenizer *tokenizer, int32_t id) {
    if (id < 0 || (size_t)id >= tokenizer->vocab.count) return TOKEN_UNKNOWN;
    return tokenizer->vocab.kinds[id];
}
