#include "text/pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

void pack_order(uint32_t *order, size_t count, uint64_t seed, uint32_t epoch, bool shuffle) {
    for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
    for (size_t i = count; shuffle && i-- > 1;) {
        uint32_t words[4], counter[4] = {(uint32_t)i, epoch, 0, 0xfffffffeu};
        philox(seed, counter, words);
        size_t j = (size_t)((uint64_t)words[0] * (i + 1) >> 32);
        uint32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

/* One example to be placed, longest first; ties in the order of the step. */
struct piece {
    size_t length;
    uint32_t example;
    uint32_t place; /* in `chosen` */
    uint32_t bin;   /* the micro-batch that takes it */
};

static int compare_pieces(const void *a, const void *b) {
    const struct piece *x = a, *y = b;
    if (x->length != y->length) return x->length > y->length ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* First fit: each onto the first micro-batch with room. Returns how many it takes. */
static size_t first_fit(struct piece *pieces, size_t count, size_t capacity, size_t *loads) {
    size_t bins = 0;
    for (size_t i = 0; i < count; i++) {
        size_t bin = 0;
        while (bin < bins && loads[bin] + pieces[i].length > capacity) bin++;
        if (bin == bins) loads[bins++] = 0;
        loads[bin] += pieces[i].length;
        pieces[i].bin = (uint32_t)bin;
    }
    return bins;
}

/* A heap of micro-batches with the lightest on top; equal loads by number. */
struct heap {
    uint32_t *bins;
    size_t count;
    const size_t *loads;
};

static bool lighter(const struct heap *heap, size_t a, size_t b) {
    uint32_t x = heap->bins[a], y = heap->bins[b];
    return heap->loads[x] != heap->loads[y] ? heap->loads[x] < heap->loads[y] : x < y;
}

/* Restores the order after the top grew heavier. */
static void sink_top(struct heap *heap) {
    for (size_t at = 0;;) {
        size_t least = at;
        for (size_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap->count; child++)
            if (lighter(heap, child, least)) least = child;
        if (least == at) return;
        uint32_t kept = heap->bins[at];
        heap->bins[at] = heap->bins[least];
        heap->bins[least] = kept;
        at = least;
    }
}

/* Each onto the lightest of `bins`. False when one does not fit there. */
static bool balance(struct piece *pieces, size_t count, size_t bins, size_t capacity, size_t *loads,
                    uint32_t *heap_memory) {
    struct heap heap = {heap_memory, bins, loads};
    for (size_t b = 0; b < bins; b++) {
        loads[b] = 0;
        heap.bins[b] = (uint32_t)b;
    }
    for (size_t i = 0; i < count; i++) {
        uint32_t bin = heap.bins[0];
        if (pieces[i].length > capacity - loads[bin]) return false;
        loads[bin] += pieces[i].length;
        pieces[i].bin = bin;
        sink_top(&heap);
    }
    return true;
}

/* Groups the placed pieces by micro-batch, each in the order of the step. */
static void lay_out(struct pack_layout *out, const struct piece *pieces, size_t count, size_t bins,
                    uint32_t *order) {
    out->micro_batches = bins;
    memset(out->starts, 0, (bins + 1) * sizeof *out->starts);
    for (size_t i = 0; i < count; i++) {
        out->starts[pieces[i].bin + 1]++;
        order[pieces[i].place] = (uint32_t)i;
    }
    for (size_t b = 0; b < bins; b++) out->starts[b + 1] += out->starts[b];
    for (size_t p = 0; p < count; p++) {
        const struct piece *piece = &pieces[order[p]];
        out->items[out->starts[piece->bin]++] = piece->example;
    }
    memmove(out->starts + 1, out->starts, bins * sizeof *out->starts);
    out->starts[0] = 0;
}

bool pack_step(struct pack_layout *out, const struct example *examples, const uint32_t *chosen, size_t count,
               size_t capacity, struct arena *arena, struct error *err) {
    size_t total = 0;
    memset(out, 0, sizeof *out);
    out->items = arena_array(arena, count, sizeof *out->items);
    out->starts = arena_array(arena, count + 1, sizeof *out->starts);
    struct piece *pieces = arena_array(arena, count, sizeof *pieces);
    size_t *loads = arena_array(arena, count, sizeof *loads);
    uint32_t *scratch = arena_array(arena, count, sizeof *scratch);
    if (!out->items || !out->starts || !pieces || !loads || !scratch)
        return error_no_memory(err, "pack", count * sizeof *pieces);
    if (!count) return true;
    for (size_t i = 0; i < count; i++) {
        size_t length = examples[chosen[i]].count;
        if (length > capacity)
            return error_set(err, ERROR_INTERNAL, "pack", "an example of %zu tokens, micro-batches hold %zu",
                             length, capacity);
        total += length;
        pieces[i] = (struct piece){.length = length, .example = chosen[i], .place = (uint32_t)i};
    }
    qsort(pieces, count, sizeof *pieces, compare_pieces);
    size_t most = first_fit(pieces, count, capacity, loads);
    size_t bins = total ? (total - 1) / capacity + 1 : 1;
    while (bins <= most && !balance(pieces, count, bins, capacity, loads, scratch)) bins++;
    if (bins > most) bins = first_fit(pieces, count, capacity, loads);
    lay_out(out, pieces, count, bins, scratch);
    return true;
}

bool pack_share(uint32_t **out, size_t *out_count, const struct example *examples, const uint32_t *chosen,
                size_t count, int rank, int ranks, struct arena *arena, struct error *err) {
    size_t bins = (size_t)ranks;
    struct piece *pieces = arena_array(arena, count, sizeof *pieces);
    size_t *loads = arena_array(arena, bins, sizeof *loads);
    uint32_t *heap = arena_array(arena, bins, sizeof *heap);
    bool *mine = arena_array(arena, count, sizeof *mine);
    *out = arena_array(arena, count, sizeof **out);
    *out_count = 0;
    if (!pieces || !loads || !heap || !mine || !*out)
        return error_no_memory(err, "pack", (count + bins) * sizeof *pieces);
    for (size_t i = 0; i < count; i++)
        pieces[i] =
            (struct piece){.length = examples[chosen[i]].count, .example = chosen[i], .place = (uint32_t)i};
    qsort(pieces, count, sizeof *pieces, compare_pieces);
    balance(pieces, count, bins, SIZE_MAX, loads, heap);
    for (size_t i = 0; i < count; i++) mine[pieces[i].place] = pieces[i].bin == (uint32_t)rank;
    for (size_t i = 0; i < count; i++)
        if (mine[i]) (*out)[(*out_count)++] = chosen[i];
    return true;
}
