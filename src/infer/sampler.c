#include "infer/sampler.h"

#include <math.h>
#include <stdbool.h>

#include "base/largest.h"
#include "base/rng.h"

/* A token that was seen twice is penalised once: its logit is marked by the order of visits, so each distinct
 * id is found first by a scan of what came before it. Sequences are short against the vocabulary. */
static void penalise(float *logits, int64_t vocabulary, const int32_t *seen, size_t count, double penalty,
                     struct candidate *scratch) {
    for (size_t i = 0; i < count; i++) scratch[seen[i]].id = -1;
    for (size_t i = 0; i < count; i++) {
        int32_t id = seen[i];
        if (id < 0 || id >= vocabulary || scratch[id].id == id) continue;
        scratch[id].id = id;
        logits[id] = (float)(logits[id] > 0 ? (double)logits[id] / penalty : (double)logits[id] * penalty);
    }
}

/* Candidates in a heap whose front is the likeliest; those that left it stand behind it, the first one last.
 * So only as many are put in order as are looked at, of a vocabulary that is mostly not. */
struct order {
    struct candidate *heap;
    int64_t count, left; /* all; still in the heap */
    double best, temperature;
};

static bool likelier(const struct candidate *a, const struct candidate *b) {
    return a->logit > b->logit || (a->logit == b->logit && a->id < b->id);
}

static void sift(struct candidate *heap, int64_t count, int64_t at) {
    struct candidate moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && likelier(&heap[child + 1], &heap[child])) child++;
        if (likelier(&moved, &heap[child])) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void order_init(struct order *o, struct candidate *candidates, int64_t count, double temperature) {
    for (int64_t at = count / 2 - 1; at >= 0; at--) sift(candidates, count, at);
    *o = (struct order){candidates, count, count, (double)candidates[0].logit, temperature};
}

/* The likeliest is n = 0. */
static const struct candidate *nth(struct order *o, int64_t n) {
    while (o->count - o->left <= n) {
        struct candidate first = o->heap[0];
        o->heap[0] = o->heap[--o->left];
        o->heap[o->left] = first;
        if (o->left) sift(o->heap, o->left, 0);
    }
    return &o->heap[o->count - 1 - n];
}

/* In units of the likeliest one's probability. */
static double weight(const struct order *o, const struct candidate *c) {
    return exp(((double)c->logit - o->best) / o->temperature);
}

/* Top-k, then top-p of what that leaves, then min-p, in the order of transformers. */
static int32_t draw(const struct sampling *s, struct order *o, uint32_t position) {
    int64_t most = s->top_k > 0 && s->top_k < o->count ? s->top_k : o->count, kept = most;
    double total = 0;
    for (int64_t i = 0; i < most; i++) total += weight(o, most < o->count ? nth(o, i) : &o->heap[i]);
    double within = total;
    if (s->top_p < 1 || s->min_p > 0) {
        within = 0;
        for (kept = 0; kept < most && (!kept || within < s->top_p * total); kept++) {
            double w = weight(o, nth(o, kept));
            if (kept && w < s->min_p) break;
            within += w;
        }
    }
    uint32_t counter[4] = {position, 0, 0, 0xfffffffcu}, words[4];
    philox(s->seed, counter, words);
    double at = ((double)words[0] + 0.5) / 4294967296.0 * within;
    for (int64_t i = 0; i < kept; i++) {
        at -= weight(o, nth(o, i));
        if (at <= 0) return nth(o, i)->id;
    }
    return nth(o, kept - 1)->id;
}

/* Candidates that could be drawn at all: within 30 nats of the best, beyond which a probability is below
 * 1e-13. */
static int64_t gather(const float *logits, int64_t vocabulary, double temperature, struct candidate *out) {
    int64_t largest = floats_largest(logits, vocabulary), count = 0;
    if (largest < 0) return 0;
    float least = (float)((double)logits[largest] - 30 * temperature);
    for (int64_t v = 0; v < vocabulary; v++)
        if (logits[v] >= least) out[count++] = (struct candidate){(int32_t)v, logits[v]};
    return count;
}

int32_t sampler_next(const struct sampling *s, float *logits, int64_t vocabulary, const int32_t *seen,
                     size_t seen_count, uint32_t position, struct candidate *candidates) {
    if (s->repetition_penalty != 1)
        penalise(logits, vocabulary, seen, seen_count, s->repetition_penalty, candidates);
    if (s->temperature <= 0) return (int32_t)floats_largest(logits, vocabulary);
    int64_t count = gather(logits, vocabulary, s->temperature, candidates);
    if (!count) return -1;
    struct order order;
    order_init(&order, candidates, count, s->temperature);
    return draw(s, &order, position);
}
