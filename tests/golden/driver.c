/* golden_driver MODEL ADAPTER REQUEST.json ANSWER.safetensors
 *
 * Answers {"mode":"logits","sequences":[[id …] …]} with logits.<i> and base_logits.<i>, and
 * {"mode":"gradients","examples":[{"ids","trained"} …]} with gradient.<name> of every adapter tensor, so that
 * run_smollm2.py can compare a real model with transformers and PEFT. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "golden/probe.h"

enum { most_tensors = 8192 };

struct answer {
    struct tensor tensors[most_tensors];
    char *names[most_tensors];
    size_t count;
};

static struct tensor *add(struct answer *answer, const char *prefix, const char *name, const float *data,
                          int64_t rows, int64_t columns) {
    struct buf text = {0};
    buf_printf(&text, "%s%s", prefix, name);
    size_t bytes = (size_t)(rows * columns) * sizeof(float);
    float *copy = mem_alloc(bytes);
    if (!copy || text.failed || answer->count == most_tensors) abort();
    memcpy(copy, data, bytes);
    struct tensor *out = &answer->tensors[answer->count];
    answer->names[answer->count++] = text.data;
    *out = (struct tensor){.name = text.data,
                           .dtype = DTYPE_F32,
                           .rank = columns > 1 ? 2 : 1,
                           .dim = {rows, columns},
                           .data = copy,
                           .bytes = bytes};
    return out;
}

static bool answer_logits(struct answer *answer, const char *model, const char *adapter,
                          const json_t *request, struct error *err) {
    for (int base = 0; base < 2; base++) {
        struct probe probe;
        struct probe_options options = {.device = "cpu", .tokens = 512, .with_logits = true};
        if (!probe_open(&probe, model, base ? NULL : adapter, &options, err)) return false;
        json_t *sequence;
        size_t i;
        json_array_foreach(json_object_get(request, "sequences"), i, sequence) {
            int32_t ids[512];
            char name[32];
            size_t n = json_array_size(sequence);
            for (size_t t = 0; t < n && t < 512; t++)
                ids[t] = (int32_t)json_integer_value(json_array_get(sequence, t));
            if (!probe_logits(&probe, ids, (int64_t)n, 0, err)) return false;
            snprintf(name, sizeof name, "%zu", i);
            add(answer, base ? "base_logits." : "logits.", name, probe.logits, (int64_t)n,
                probe.model->config.vocabulary);
        }
        probe_close(&probe);
    }
    return true;
}

static bool answer_gradients(struct answer *answer, const char *model, const char *adapter,
                             const json_t *request, struct error *err) {
    struct probe probe;
    struct probe_options options = {.device = "cpu", .tokens = 2048};
    struct example examples[64];
    json_t *list = json_object_get(request, "examples"), *item;
    size_t count = 0, i;
    double loss;
    if (!probe_open(&probe, model, adapter, &options, err)) return false;
    json_array_foreach(list, i, item) {
        json_t *ids = json_object_get(item, "ids"), *trained = json_object_get(item, "trained");
        size_t n = json_array_size(ids);
        int32_t *numbers = mem_array(n, sizeof *numbers);
        uint8_t *flags = mem_array(n, 1);
        if (!numbers || !flags || count == 64) abort();
        examples[count] =
            (struct example){.row = (uint32_t)i, .count = (uint32_t)n, .ids = numbers, .trained = flags};
        for (size_t t = 0; t < n; t++) {
            numbers[t] = (int32_t)json_integer_value(json_array_get(ids, t));
            json_t *flag = json_array_get(trained, t);
            flags[t] = json_is_integer(flag) ? json_integer_value(flag) != 0 : json_is_true(flag);
            if (t && flags[t]) examples[count].supervised++;
        }
        count++;
    }
    if (!probe_gradients(&probe, examples, count, 64, &loss, err)) return false;
    float single = (float)loss;
    add(answer, "loss", "", &single, 1, 1);
    for (size_t p = 0; p < peft_pair_count(probe.adapter); p++) {
        const struct peft_pair *pair = peft_pair(probe.adapter, p);
        for (int part = 0; part < 2; part++) {
            const struct tensor *like = part ? &pair->b : &pair->a;
            char name[256];
            float *gradient;
            size_t n;
            snprintf(name, sizeof name, "base_model.model.%s.lora_%c.weight", pair->module, part ? 'B' : 'A');
            if (!probe_gradient(&probe, name, &gradient, &n, err)) return false;
            add(answer, "gradient.", name, gradient, like->dim[0], like->dim[1]);
            mem_free(gradient);
        }
    }
    return true;
}

int main(int count, char **arguments) {
    static struct answer answer;
    struct error err;
    char text[2048];
    json_t *request;
    if (count != 5) {
        fprintf(stderr, "usage: golden_driver MODEL ADAPTER REQUEST.json ANSWER.safetensors\n");
        return 2;
    }
    bool ok = json_read_file(&request, arguments[3], 0, &err);
    const char *mode = ok ? json_string_value(json_object_get(request, "mode")) : NULL;
    ok = ok && mode &&
         (!strcmp(mode, "logits") ? answer_logits : answer_gradients)(&answer, arguments[1], arguments[2],
                                                                      request, &err) &&
         safetensors_write(arguments[4], answer.tensors, answer.count, NULL, &err);
    if (ok) return 0;
    error_format(&err, text, sizeof text);
    fprintf(stderr, "%s\n", text);
    return 1;
}
