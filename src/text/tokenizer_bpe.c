/* Merging. A short piece is scanned for its lowest rank again and again, in two small arrays. A long
 * one keeps the rank of each slot's pair at the leaves of a tree of minima, sixteen to a node:
 *
 *   level 2   [ min of 256 ranks ]…
 *   level 1   [ min of 16 ranks ][ … ]…
 *   level 0   rank of slot 0, 1, 2, …        NO_RANK: no merge, or no symbol begins here
 *
 * The next merge is found by walking down along the leftmost minimum; a merge changes at most three
 * leaves, and a node is changed only when its minimum is. Merges of one rank run left to right, so the walk
 * stays in one leaf node for as long as its rank lasts there.
 *
 * A very long one is merged window by window, so that the tree stays in the processor's cache. A window
 * begins where a token of the last one does, some way before its end, where both are cut:
 *
 *   window      [the|re|fore|this|is|th]
 *   the next                  [this|is|the|last|on]
 *   joined       the|re|fore|this|is|the|last|on        at the first token that both have: "this" */
#include "text/tokenizer_bpe.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"

enum {
    SHORT_PIECE = 40,
    MERGE_STACK = 512,
    WINDOW = 16384,
    OVERLAP_SHARE = 32, /* of a window lie in the next one too, and the token across that place */
    FAN = 16,
    LEVELS = 9 /* 16^9 > 2^32 slots */
};
#define NO_RANK UINT32_MAX
#define NO_SLOT UINT32_MAX

static size_t pair_hash(uint64_t pair) {
    pair *= 0x9E3779B97F4A7C15u;
    pair ^= pair >> 32;
    pair *= 0xD6E8FEB86659FD93u;
    return (size_t)(pair ^ (pair >> 29));
}

static struct merge_slot *pair_slot(const struct bpe *bpe, uint64_t pair) {
    size_t at = pair_hash(pair) & bpe->mask;
    while (bpe->slots[at].rank != NO_RANK && bpe->slots[at].pair != pair) at = (at + 1) & bpe->mask;
    return &bpe->slots[at];
}

static uint32_t pair_rank(const struct bpe *bpe, int32_t left, int32_t right) {
    return pair_slot(bpe, (uint64_t)(uint32_t)left << 32 | (uint32_t)right)->rank;
}

bool merge_make(struct merge *merge, const struct vocab *vocab, const struct tokenizer_text *left,
                const struct tokenizer_text *right, size_t rank, struct error *err) {
    struct buf joined;
    buf_init(&joined, 0);
    merge->left = vocab_find(vocab, left->data, left->size);
    merge->right = vocab_find(vocab, right->data, right->size);
    merge->result = -1;
    bool made = merge->left >= 0 && merge->right >= 0; /* so neither is longer than a token may be */
    if (made) {
        char text[MERGE_STACK];
        size_t size = left->size + right->size;
        const char *data = text;
        if (size <= sizeof text) {
            memcpy(text, left->data, left->size);
            memcpy(text + left->size, right->data, right->size);
        } else if (buf_append(&joined, left->data, left->size) &&
                   buf_append(&joined, right->data, right->size)) {
            data = joined.data;
        } else {
            return error_no_memory(err, "tokenizer", size);
        }
        merge->result = vocab_find(vocab, data, size);
    }
    if (merge->result < 0) {
        buf_clear(&joined);
        text_escape(&joined, left->data, left->size < 60 ? left->size : 60, false);
        buf_byte(&joined, ' ');
        text_escape(&joined, right->data, right->size < 60 ? right->size : 60, false);
        error_set(err, ERROR_INPUT, "tokenizer",
                  "merge %zu (\"%s\") %s a token that is not in the vocabulary", rank,
                  joined.data ? joined.data : "", made ? "makes" : "names");
    }
    buf_release(&joined);
    return merge->result >= 0;
}

bool merge_parse(struct merge *merge, const struct vocab *vocab, const struct tokenizer_text *text,
                 size_t rank, struct error *err) {
    const char *space = text->data && text->size > 1 ? memchr(text->data + 1, ' ', text->size - 1) : NULL;
    if (!space)
        return error_set(err, ERROR_INPUT, "tokenizer", "merge %zu is not two tokens with a space between",
                         rank);
    struct tokenizer_text left = {.data = text->data, .size = (size_t)(space - text->data)};
    struct tokenizer_text right = {.data = space + 1, .size = text->size - left.size - 1};
    return merge_make(merge, vocab, &left, &right, rank, err);
}

bool bpe_init(struct bpe *bpe, struct merge *merges, size_t count, struct error *err) {
    size_t slots = 16;
    memset(bpe, 0, sizeof *bpe);
    bpe->unknown = -1;
    bpe->window = WINDOW;
    bpe->merges = merges;
    bpe->merge_count = count;
    while (slots < 2 * count) slots *= 2;
    bpe->mask = slots - 1;
    bpe->slots = mem_array(slots, sizeof *bpe->slots);
    if (!bpe->slots) {
        bpe_release(bpe);
        return error_no_memory(err, "tokenizer", slots * sizeof *bpe->slots);
    }
    for (size_t i = 0; i < slots; i++) bpe->slots[i] = (struct merge_slot){.rank = NO_RANK};
    for (size_t rank = 0; rank < count; rank++) {
        uint64_t pair = (uint64_t)(uint32_t)merges[rank].left << 32 | (uint32_t)merges[rank].right;
        *pair_slot(bpe, pair) = (struct merge_slot){.pair = pair, .rank = (uint32_t)rank};
    }
    return true;
}

void bpe_release(struct bpe *bpe) {
    mem_free(bpe->merges);
    mem_free(bpe->slots);
    memset(bpe, 0, sizeof *bpe);
}

void bpe_scratch_release(struct bpe_scratch *scratch) {
    mem_free(scratch->block);
    memset(scratch, 0, sizeof *scratch);
}

bool tokens_reserve(struct tokens *tokens, size_t extra, struct error *err) {
    size_t need, grown = tokens->capacity > 64 ? tokens->capacity : 64; /* at least 2, or it would not grow */
    if (tokens->capacity - tokens->count >= extra) return true;
    if (!checked_size_add(tokens->count, extra, &need)) return error_no_memory(err, "tokenizer", SIZE_MAX);
    while (grown < need) grown += grown / 2;
    int32_t *ids = mem_realloc(tokens->ids, grown * sizeof *ids);
    if (ids) tokens->ids = ids;
    uint32_t *starts = ids ? mem_realloc(tokens->starts, grown * sizeof *starts) : NULL;
    if (!starts) return error_no_memory(err, "tokenizer", grown * (sizeof *ids + sizeof *starts));
    tokens->starts = starts;
    tokens->capacity = grown;
    return true;
}

/* The first symbols of a piece, one byte at a time. Returns false when the byte gives none. */
static bool first_symbol(const struct bpe *bpe, const struct vocab *vocab, unsigned char byte,
                         bool *after_unknown, int32_t *id) {
    *id = vocab->byte_ids[byte];
    bool unknown = *id < 0, fused = unknown && *after_unknown && bpe->fuse_unknown;
    if (unknown) *id = bpe->unknown;
    *after_unknown = unknown;
    return *id >= 0 && !fused;
}

static void encode_short(const struct bpe *bpe, const struct vocab *vocab, const char *piece, size_t size,
                         struct tokens *out) {
    int32_t ids[SHORT_PIECE];
    uint32_t starts[SHORT_PIECE], ranks[SHORT_PIECE]; /* ranks[i]: of the pair (i, i + 1) */
    size_t count = 0;
    bool after_unknown = false;
    for (size_t i = 0; i < size; i++) {
        if (!first_symbol(bpe, vocab, (unsigned char)piece[i], &after_unknown, &ids[count])) continue;
        starts[count++] = (uint32_t)i;
    }
    if (count == 0) return;
    for (size_t i = 0; i + 1 < count; i++) ranks[i] = pair_rank(bpe, ids[i], ids[i + 1]);
    for (;;) {
        uint32_t lowest = NO_RANK;
        size_t at = 0;
        for (size_t i = 0; i + 1 < count; i++) {
            if (ranks[i] >= lowest) continue;
            lowest = ranks[i];
            at = i;
        }
        if (lowest == NO_RANK) break;
        ids[at] = bpe->merges[lowest].result;
        count--;
        for (size_t i = at + 1; i < count; i++) {
            ids[i] = ids[i + 1];
            starts[i] = starts[i + 1];
            ranks[i - 1] = ranks[i];
        }
        if (at > 0) ranks[at - 1] = pair_rank(bpe, ids[at - 1], ids[at]);
        if (at + 1 < count) ranks[at] = pair_rank(bpe, ids[at], ids[at + 1]);
    }
    memcpy(out->ids + out->count, ids, count * sizeof *ids);
    memcpy(out->starts + out->count, starts, count * sizeof *starts);
    out->count += count;
}

/* A long piece while it is merged. */
struct chain {
    const struct bpe *bpe;
    uint32_t *ids, *previous, *next; /* [slots] the linked list of symbols */
    uint32_t *levels[LEVELS];        /* levels[0][slots]: ranks; all padded to whole nodes */
    int level_count;
};

static size_t pad(size_t count) { return (count + FAN - 1) / FAN * FAN; }

static bool chain_open(struct chain *chain, struct bpe_scratch *scratch, size_t slots, struct error *err) {
    size_t words = 3 * slots, at = 3 * slots;
    size_t sizes[LEVELS];
    chain->level_count = 0;
    for (size_t count = slots;; count = sizes[chain->level_count - 1] / FAN) {
        sizes[chain->level_count++] = pad(count);
        words += pad(count);
        if (count <= FAN) break;
    }
    if (words > scratch->capacity) {
        mem_free(scratch->block);
        scratch->capacity = 0;
        scratch->block = mem_array(words, sizeof(uint32_t));
        if (!scratch->block) return error_no_memory(err, "tokenizer", words * sizeof(uint32_t));
        scratch->capacity = words;
    }
    chain->ids = scratch->block;
    chain->previous = chain->ids + slots;
    chain->next = chain->previous + slots;
    for (int k = 0; k < chain->level_count; k++) {
        chain->levels[k] = scratch->block + at;
        at += sizes[k];
        memset(chain->levels[k], 0xff, sizes[k] * sizeof(uint32_t)); /* NO_RANK */
    }
    return true;
}

static uint32_t node_minimum(const uint32_t *node) {
    uint32_t lowest = node[0];
    for (int i = 1; i < FAN; i++) lowest = node[i] < lowest ? node[i] : lowest;
    return lowest;
}

static size_t node_find(const uint32_t *node, uint32_t rank) {
    size_t i = 0;
    while (node[i] != rank) i++;
    return i;
}

/* Carries a change of a leaf upwards. */
static void chain_update(struct chain *chain, size_t slot) {
    for (int k = 0; k + 1 < chain->level_count; k++) {
        slot /= FAN;
        uint32_t lowest = node_minimum(chain->levels[k] + slot * FAN);
        if (chain->levels[k + 1][slot] == lowest) return;
        chain->levels[k + 1][slot] = lowest;
    }
}

/* The leftmost slot of the lowest rank, or NO_SLOT. */
static size_t chain_lowest(const struct chain *chain) {
    size_t at = 0;
    for (int k = chain->level_count - 1; k >= 0; k--) {
        const uint32_t *node = chain->levels[k] + at * FAN;
        uint32_t lowest = node_minimum(node);
        if (lowest == NO_RANK) return NO_SLOT;
        at = at * FAN + node_find(node, lowest);
    }
    return at;
}

/* The rank of the pair that begins at `slot`, after its symbol or the next has changed. */
static uint32_t chain_rank(struct chain *chain, uint32_t slot) {
    uint32_t next = chain->next[slot];
    uint32_t rank = next == NO_SLOT
                        ? NO_RANK
                        : pair_rank(chain->bpe, (int32_t)chain->ids[slot], (int32_t)chain->ids[next]);
    chain->levels[0][slot] = rank;
    return rank;
}

/* Merges the pair at `slot` and returns the lowest rank that this made. The slot's own node is left for
 * the caller to update. */
static uint32_t chain_merge(struct chain *chain, uint32_t slot) {
    uint32_t *ranks = chain->levels[0], dead = chain->next[slot], before = chain->previous[slot];
    chain->ids[slot] = (uint32_t)chain->bpe->merges[ranks[slot]].result;
    chain->next[slot] = chain->next[dead];
    if (chain->next[dead] != NO_SLOT) chain->previous[chain->next[dead]] = slot;
    ranks[dead] = NO_RANK;
    if (dead / FAN != slot / FAN) chain_update(chain, dead);
    uint32_t made = chain_rank(chain, slot);
    if (before == NO_SLOT) return made;
    uint32_t left = chain_rank(chain, before);
    if (before / FAN != slot / FAN) chain_update(chain, before);
    return left < made ? left : made;
}

static void chain_run(struct chain *chain) {
    const uint32_t *ranks = chain->levels[0];
    for (;;) {
        size_t slot = chain_lowest(chain);
        if (slot == NO_SLOT) return;
        uint32_t rank = ranks[slot], made;
        size_t end = (slot / FAN + 1) * FAN, at = slot;
        do {
            made = chain_merge(chain, (uint32_t)at);
            while (at < end && ranks[at] != rank) at++;
        } while (at < end && made > rank);
        chain_update(chain, slot);
    }
}

/* One piece that is being encoded. */
struct encoder {
    const struct bpe *bpe;
    const struct vocab *vocab;
    struct bpe_scratch *scratch;
    const char *piece;
    size_t size;
};

/* Merges piece[from, end) in a chain and appends its tokens. */
static bool encode_chain(const struct encoder *e, size_t from, size_t end, struct tokens *out,
                         struct error *err) {
    struct chain chain = {.bpe = e->bpe};
    uint32_t first = NO_SLOT, last = NO_SLOT, size = (uint32_t)(end - from);
    bool after_unknown = false;
    if (!chain_open(&chain, e->scratch, size, err)) return false;
    e->scratch->merged += size;
    for (uint32_t slot = 0; slot < size; slot++) {
        int32_t id;
        if (!first_symbol(e->bpe, e->vocab, (unsigned char)e->piece[from + slot], &after_unknown, &id))
            continue;
        chain.ids[slot] = (uint32_t)id;
        chain.previous[slot] = last;
        chain.next[slot] = NO_SLOT;
        if (last == NO_SLOT) {
            first = slot;
        } else {
            chain.next[last] = slot;
            chain_rank(&chain, last);
        }
        last = slot;
    }
    for (int k = 0; k + 1 < chain.level_count; k++)
        for (size_t node = 0; chain.levels[k] + node * FAN < chain.levels[k + 1]; node++)
            chain.levels[k + 1][node] = node_minimum(chain.levels[k] + node * FAN);
    chain_run(&chain);
    size_t count = 0;
    for (uint32_t slot = first; slot != NO_SLOT; slot = chain.next[slot]) count++;
    if (!tokens_reserve(out, count, err)) return false;
    for (uint32_t slot = first; slot != NO_SLOT; slot = chain.next[slot]) {
        out->ids[out->count] = (int32_t)chain.ids[slot];
        out->starts[out->count++] = (uint32_t)from + slot;
    }
    return true;
}

/* Joins the tokens [mark, count) of a window to those before it, [at, mark), at the first that both
 * have. False: there is none. */
static bool join_windows(struct tokens *out, size_t at, size_t mark) {
    size_t later = mark;
    while (at < mark && later < out->count) {
        uint32_t a = out->starts[at], b = out->starts[later];
        if (a == b && out->ids[at] == out->ids[later]) {
            size_t kept = out->count - later;
            memmove(out->ids + at, out->ids + later, kept * sizeof *out->ids);
            memmove(out->starts + at, out->starts + later, kept * sizeof *out->starts);
            out->count = at + kept;
            return true;
        }
        at += a <= b;
        later += b <= a;
    }
    return false;
}

/* Appends the tokens window by window. *agree false: the windows do not, and what was appended counts
 * for nothing.
 *
 * That the joined row is what merging the whole gives rests on this: a row of tokens is the encoding of
 * its text exactly if each two neighbours are the encoding of theirs.
 * - If: run the whole, and look at the first merge across a boundary of the row. Between the two
 *   tokens beside it, every merge so far was the lowest of all, so the lowest between them; merging the
 *   two alone does the same, up to and with the merge across their boundary. But they are the encoding
 *   of theirs. So no merge crosses any boundary, and within each token the two runs are the same.
 * - Only if: merges of the whole that lie in two neighbours are, in the same way, those of the two alone.
 * Neighbours in a window's encoding are such, and the joined row has no others: to the left of the shared
 * token it is one window's, to the right the other's. Nothing is asked of the merges: ties, tokens
 * that cannot be reached, unknown bytes and dropped ones change none of it. (A token's start and id
 * tell its end: what its first symbols spell, one after the other, is its text.) */
static bool encode_windows(const struct encoder *e, struct tokens *out, bool *agree, struct error *err) {
    size_t first = out->count, window = e->bpe->window, end = window;
    if (!encode_chain(e, 0, end, out, err)) return false;
    for (*agree = true; *agree && end < e->size;) {
        size_t mark = out->count, at = mark;
        while (at > first && out->starts[at - 1] > end - window / OVERLAP_SHARE) at--;
        size_t from = at > first ? out->starts[--at] : end;
        size_t next = e->size - from < window ? e->size : from + window;
        bool further = next > end; /* else one token fills the window */
        if (further && !encode_chain(e, from, next, out, err)) return false;
        *agree = further && join_windows(out, at, mark);
        end = next;
    }
    return true;
}

bool bpe_encode(const struct bpe *bpe, const struct vocab *vocab, struct bpe_scratch *scratch,
                const char *piece, size_t size, struct tokens *out, struct error *err) {
    struct encoder e = {.bpe = bpe, .vocab = vocab, .scratch = scratch, .piece = piece, .size = size};
    size_t before = out->count;
    bool agree = false;
    if (size <= SHORT_PIECE) {
        if (!tokens_reserve(out, size, err)) return false;
        encode_short(bpe, vocab, piece, size, out);
        return true;
    }
    if (size > 2 * bpe->window && !encode_windows(&e, out, &agree, err)) return false;
    if (agree) return true;
    out->count = before;
    return encode_chain(&e, 0, size, out, err);
}
