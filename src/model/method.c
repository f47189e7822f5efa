#include "model/method.h"

#include <math.h>
#include <string.h>

#include "base/rng.h"

bool method_targets(const char *list, bool targets[module_count], struct error *err) {
    memset(targets, 0, module_count * sizeof *targets);
    if (!strcmp(list, "all") || !strcmp(list, "all-linear")) {
        for (int i = 0; i < module_count; i++) targets[i] = true;
        return true;
    }
    while (*list) {
        size_t length = strcspn(list, ", ");
        bool known = length == 0;
        for (int i = 0; i < module_count; i++)
            if (strlen(modules[i].target) == length && !strncmp(modules[i].target, list, length))
                known = targets[i] = true;
        if (!known) {
            error_set(err, ERROR_USAGE, "train", "--lora-targets: there is no linear module \"%.*s\"",
                      (int)(length < 60 ? length : 60), list);
            return error_fix(err, "Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
                                  "down_proj, or all-linear alone.");
        }
        list += length;
        list += strspn(list, ", ");
    }
    for (int i = 0; i < module_count; i++)
        if (targets[i]) return true;
    return error_set(err, ERROR_USAGE, "method", "no target module is named");
}

void module_shape(const struct model_config *c, int module, int64_t *out, int64_t *in) {
    int64_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    const int64_t shapes[module_count][2] = {{q, c->hidden},     {kv, c->hidden},     {kv, c->hidden},
                                             {c->hidden, q},     {c->ffn, c->hidden}, {c->ffn, c->hidden},
                                             {c->hidden, c->ffn}};
    *out = shapes[module][0];
    *in = shapes[module][1];
}

uint64_t method_parameters(const struct method *method, const struct model_config *config) {
    uint64_t total = 0;
    for (int m = 0; m < module_count; m++) {
        int64_t out, in;
        module_shape(config, m, &out, &in);
        if (method->targets[m]) total += (uint64_t)(method->rank * (out + in) * config->layers);
    }
    return total;
}

void method_init_a(const struct method *method, const struct model_config *config, uint64_t seed,
                   int64_t layer, int module, float *a) {
    int64_t out, in;
    module_shape(config, module, &out, &in);
    double bound = 1 / sqrt((double)in);
    for (int64_t i = 0; i < method->rank * in; i++) {
        uint32_t counter[4] = {(uint32_t)(i / 4), (uint32_t)module_number(layer, module), 0, 0xfffffffdu},
                 words[4];
        philox(seed, counter, words);
        a[i] = (float)(bound * (2 * ((double)words[i % 4] + 0.5) / 4294967296.0 - 1));
    }
}
