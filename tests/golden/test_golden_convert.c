/* The tiny models of tests/golden/data through model_save: to GGUF, from there to safetensors, and to GGUF
 * again. Logits stay those that transformers computed from the model as it was (tolerance:
 * test_golden_models.c), and the two GGUF files are one another's equal to the last byte: rows, rotary
 * scaling and tokenizer survive. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "golden/probe.h"
#include "model/save.h"

static const char *const models[] = {"llama-tied", "llama-untied",   "llama-scaled",
                                     "llama-bias", "llama-mlp-bias", "qwen2"};
enum { model_count = sizeof models / sizeof *models, tokens = 128 };

static void convert(const char *from, enum container to, const char *type, const char *path) {
    struct model *model;
    struct error err;
    json_t *report;
    struct save save = {.to = to, .path = path, .threads = 2};
    assert_ok(model_open(&model, from, &err), &err);
    save.model = model;
    if (type) assert_ok(save_type_find(type, to, &save.type, &err), &err);
    assert_ok(model_save(&save, &report, &err), &err);
    json_decref(report);
    model_close(&model);
}

static double worst_logit(const char *path, const char *name) {
    char file[512];
    struct probe probe;
    struct error err;
    json_t *golden;
    struct safetensors *stored;
    struct probe_options options = {.device = "cpu", .threads = 2, .tokens = tokens, .with_logits = true};
    double worst = 0;
    snprintf(file, sizeof file, "%s/golden/data/%s/golden.json", TEST_DATA, name);
    assert_ok(json_read_file(&golden, file, 0, &err), &err);
    snprintf(file, sizeof file, "%s/golden/data/%s/golden.safetensors", TEST_DATA, name);
    assert_ok(safetensors_open(&stored, file, &err), &err);
    assert_ok(probe_open(&probe, path, NULL, &options, &err), &err);
    json_t *sequence;
    size_t i, compared = 0;
    json_array_foreach(json_object_get(golden, "sequences"), i, sequence) {
        int32_t ids[tokens];
        size_t n = json_array_size(sequence);
        snprintf(file, sizeof file, "base_logits.%zu", i);
        const struct tensor *want = safetensors_find(stored, file);
        if (!want) continue;
        for (size_t t = 0; t < n; t++) ids[t] = (int32_t)json_integer_value(json_array_get(sequence, t));
        assert_ok(probe_logits(&probe, ids, (int64_t)n, 0, &err), &err);
        for (size_t k = 0; k < want->bytes / sizeof(float); k++, compared++) {
            float logit;
            memcpy(&logit, (const char *)want->data + k * sizeof logit, sizeof logit);
            double off = fabs((double)probe.logits[k] - (double)logit);
            if (!(off <= worst)) worst = off;
        }
    }
    assert_true(compared > 10000);
    probe_close(&probe);
    safetensors_close(&stored);
    json_decref(golden);
    return worst;
}

static void assert_same_file(const char *a, const char *b) {
    struct buf one = {0}, two = {0};
    struct error err;
    assert_ok(fs_read(a, 0, &one, &err) && fs_read(b, 0, &two, &err), &err);
    assert_int_equal(one.size, two.size);
    assert_memory_equal(one.data, two.data, one.size);
    buf_release(&one);
    buf_release(&two);
}

/* With f32, nothing may be lost; with bf16, nothing after the first rounding. */
static void gguf_and_back(const char *type, double most) {
    for (int m = 0; m < model_count; m++) {
        char *directory = test_directory(), from[512];
        char *one = fs_join(directory, "one.gguf"), *back = fs_join(directory, models[m]);
        char *two = fs_join(directory, "two.gguf");
        snprintf(from, sizeof from, "%s/golden/data/%s", TEST_DATA, models[m]);
        convert(from, CONTAINER_GGUF, type, one);
        convert(one, CONTAINER_SAFETENSORS, NULL, back);
        convert(back, CONTAINER_GGUF, type, two);
        double first = worst_logit(one, models[m]), second = worst_logit(back, models[m]);
        if (!(first <= most && second <= most))
            fail_msg("%s, %s: logits off by %g in the GGUF, %g in the directory", models[m], type, first,
                     second);
        assert_same_file(one, two);
        mem_free(one);
        mem_free(two);
        mem_free(back);
        test_remove_directory(directory);
    }
}

static void f32_loses_nothing(void **state) {
    (void)state;
    gguf_and_back("f32", 1e-4);
}

/* 8 bits: 2⁻⁹ a weight, averaged over sums of 48 to 128 of them, of logits of size 4. */
static void bf16_rounds_once(void **state) {
    (void)state;
    gguf_and_back("bf16", 2e-1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_loses_nothing),
        cmocka_unit_test(bf16_rounds_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
