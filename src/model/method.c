#include "model/method.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "model/layout.h"

void method_release(struct method *method) {
    mem_free(method->parts);
    mem_free(method->weights);
    memset(method, 0, sizeof *method);
}

bool method_copy(struct method *out, const struct method *method, struct error *err) {
    *out = *method;
    out->parts = NULL;
    out->weights = NULL;
    if (method->parts) out->parts = mem_array(method->count, sizeof *out->parts);
    if (method->weights) out->weights = mem_array(method->weight_count, sizeof *out->weights);
    if ((method->parts && !out->parts) || (method->weights && !out->weights)) {
        method_release(out);
        return error_no_memory(err, "method", method->count * sizeof *out->parts + method->weight_count);
    }
    if (method->parts) memcpy(out->parts, method->parts, method->count * sizeof *out->parts);
    if (method->weights) memcpy(out->weights, method->weights, method->weight_count);
    return true;
}

static bool same(double a, double b) { return !(a < b) && !(a > b); }

bool method_same_parts(const struct method *a, const struct method *b) {
    if (a->count != b->count || a->rslora != b->rslora || a->dora != b->dora) return false;
    for (size_t i = 0; i < a->weight_count || i < b->weight_count; i++)
        if ((a->weights && a->weights[i]) != (b->weights && b->weights[i])) return false;
    for (size_t i = 0; i < a->count; i++)
        if (a->parts[i].rank != b->parts[i].rank ||
            (a->parts[i].rank && !same(a->parts[i].alpha, b->parts[i].alpha)))
            return false;
    return true;
}

bool method_is_subtracted(const struct method *method) {
    return method->init == METHOD_INIT_PISSA || method->init == METHOD_INIT_OLORA;
}

bool method_written(struct method *out, const struct method *method, struct error *err) {
    if (!method_copy(out, method, err)) return false;
    for (size_t i = 0; method_is_subtracted(method) && out->parts && i < out->count; i++) {
        out->parts[i].rank *= 2;
        out->parts[i].alpha *= method->rslora ? sqrt(2) : 2;
    }
    if (method->init > METHOD_INIT_GAUSSIAN) out->init = METHOD_INIT_DEFAULT;
    return true;
}

double method_scale(const struct method *method, size_t part) {
    double rank = (double)method->parts[part].rank;
    return method->parts[part].alpha / (method->rslora ? sqrt(rank) : rank);
}

void module_shape(const struct model_config *c, int module, int64_t *out, int64_t *in) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shapes[module_kinds][2] = {{q, c->hidden},
                                             {kv, c->hidden},
                                             {kv, c->hidden},
                                             {c->hidden, q},
                                             {c->ffn, c->hidden},
                                             {c->ffn, c->hidden},
                                             {c->hidden, c->ffn},
                                             {c->hidden, c->vocabulary},
                                             {c->vocabulary, c->hidden}};
    *out = shapes[module][0];
    *in = shapes[module][1];
}

void module_path(int64_t layer, int module, char out[96]) {
    const char *pattern = modules[module].path, *mark = strstr(pattern, "%d");
    if (!mark) {
        snprintf(out, 96, "%s", pattern);
        return;
    }
    snprintf(out, 96, "%.*s%lld%s", (int)(mark - pattern), pattern, (long long)layer, mark + 2);
}

uint64_t method_parameters(const struct method *method, const struct model_config *config) {
    uint64_t total = 0;
    for (size_t i = 0; i < method->count; i++) {
        int64_t out, in;
        module_shape(config, part_module(config, i), &out, &in);
        total += (uint64_t)(method->parts[i].rank * (out + in));
        if (method->dora && method->parts[i].rank) total += (uint64_t)out;
    }
    for (size_t i = 0; i < method->weight_count; i++) {
        int64_t dim[2];
        if (!method->weights[i]) continue;
        layout_shape(config, layout_role(config, i), dim);
        total += (uint64_t)(dim[0] * (dim[1] ? dim[1] : 1));
    }
    return total;
}

/* One number from the words of its counter; `i` says which of the four it is. */
static double kaiming(const uint32_t words[4], int64_t i, int64_t in, int64_t rank) {
    (void)rank;
    return (2 * uniform_of(words[i % 4]) - 1) / sqrt((double)in);
}

static double gaussian(const uint32_t words[4], int64_t i, int64_t in, int64_t rank) {
    double pair[2];
    (void)in;
    normal_pair(words + i % 4 / 2 * 2, pair);
    return pair[i % 2] / (double)rank;
}

void method_init_a(const struct method *method, const struct model_config *config, uint64_t seed,
                   int64_t layer, int module, float *a) {
    static double (*const draw[])(const uint32_t words[4], int64_t i, int64_t in, int64_t rank) = {
        [METHOD_INIT_DEFAULT] = kaiming, [METHOD_INIT_GAUSSIAN] = gaussian};
    int64_t out, in, rank = method->parts[part_index(config, layer, module)].rank;
    bool embedding = module == MODULE_EMBEDDING;
    module_shape(config, module, &out, &in);
    if (embedding) in = out; /* B */
    for (int64_t i = 0; i < rank * in; i++) {
        uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)module_number(layer, module), 0, 0xfffffffdu},
                 words[4];
        philox(seed, counter, words);
        a[i] = (float)(embedding ? gaussian(words, i, in, 1) : draw[method->init](words, i, in, rank));
    }
}
