#include "infer/sampler.h"

#include <math.h>
#include <stdlib.h>

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

static int likelier_first(const void *a, const void *b) {
    const struct candidate *p = a, *q = b;
    if (p->logit != q->logit) return p->logit < q->logit ? 1 : -1;
    return p->id < q->id ? -1 : p->id > q->id;
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
    qsort(candidates, (size_t)count, sizeof *candidates, likelier_first);
    if (s->top_k > 0 && s->top_k < count) count = s->top_k;
    double total = 0, best = (double)candidates[0].logit;
    for (int64_t i = 0; i < count; i++) {
        double weight = exp(((double)candidates[i].logit - best) / s->temperature);
        if (i && weight < s->min_p) {
            count = i;
            break;
        }
        candidates[i].logit = (float)weight;
        total += weight;
    }
    double within = 0;
    for (int64_t i = 0; i < count; i++) {
        within += (double)candidates[i].logit;
        if (within >= s->top_p * total) count = i + 1;
    }
    uint32_t counter[4] = {position, 0, 0, 0xfffffffcu}, words[4];
    philox(s->seed, counter, words);
    double draw = ((double)words[0] + 0.5) / 4294967296.0 * within;
    for (int64_t i = 0; i < count; i++) {
        draw -= (double)candidates[i].logit;
        if (draw <= 0) return candidates[i].id;
    }
    return candidates[count - 1].id;
}
