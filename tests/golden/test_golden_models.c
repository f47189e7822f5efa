/* The tiny models of tests/golden/data against what PyTorch, transformers and PEFT computed
 * (tests/golden/README.md), on every device and instruction set that this machine has.
 *
 * Tolerances: a sum of n products in another order differs by about √n · 2⁻²⁴ of its size; through two layers
 * logits of size 1 agree to a few 1e-5, so 1e-4. Losses and gradients: 1e-4 relative is what is asked for;
 * f32 reaches 1e-5. bf16 keeps 8 bits: a rounding of 2⁻⁹ per operand, of which a dozen pass through two
 * layers: 2e-1 is asked of the worst of 20,000 logits (of size 4), 1e-2 of the loss; 3e-1 on a GPU, where an
 * adapter's operands, or its sum with the addend, are rounded once more. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "device/timeline.h"
#include "format/safetensors.h"
#include "golden/probe.h"

static const char *const models[] = {
    "data/llama-tied",      "data/llama-untied",
    "data/llama-scaled",    "data/llama-bias",
    "data/llama-mlp-bias",  "data/qwen2", /* plain LoRA */
    "variants/patterns",    "variants/rslora",
    "variants/some-layers", "variants/some-paths",
    "variants/nf4",         "variants/int8", /* on a quantised base, which the adapter names */
    "data/llama-mxfp4",                      /* on one that MLX quantised */
    "variants/dora",        "variants/dora-patterns",
    "variants/saved",       "variants/saved-embedding",
    "variants/saved-head",                        /* modules trained whole beside it */
    "variants/outer",       "variants/outer-tied" /* pairs beside embedding and head */
};
static const char *const full_models[] = {"full/llama-untied", "full/llama-tied", "full/llama-bias",
                                          "full/llama-mlp-bias", "full/qwen2"};
enum { model_count = sizeof models / sizeof *models, tokens = 1024 };

static const struct variant {
    const char *name;
    struct probe_options options;
    double logits, loss, gradient;
} variants[] = {
    {"ref", {.device = "ref", .threads = 1, .tokens = tokens}, 1e-4, 1e-5, 1e-4},
    {"cpu plain C",
     {.device = "cpu", .mask = "avx2,avx512,avx512bf16", .threads = 2, .tokens = tokens},
     1e-4,
     1e-5,
     1e-4},
    {"cpu avx2",
     {.device = "cpu", .mask = "avx512,avx512bf16", .threads = 2, .tokens = tokens},
     1e-4,
     1e-5,
     1e-4},
    {"cpu", {.device = "cpu", .threads = 2, .tokens = tokens}, 1e-4, 1e-5, 1e-4},
    {"cpu, selective",
     {.device = "cpu", .threads = 2, .tokens = tokens, .keep = GRAPH_KEEP_COSTLY},
     1e-4,
     1e-5,
     1e-4},
    {"cpu, block recompute",
     {.device = "cpu", .threads = 2, .tokens = tokens, .keep = GRAPH_KEEP_EDGES},
     1e-4,
     1e-5,
     1e-4},
    {"cpu, bf16", {.device = "cpu", .threads = 2, .tokens = tokens, .compute = DTYPE_BF16}, 3e-1, 1e-2, 5e-2},
    {"cpu, bf16 decoded",
     {.device = "cpu", .threads = 2, .tokens = tokens, .compute = DTYPE_BF16, .decoded = true},
     3e-1,
     1e-2,
     5e-2},
    {"cuda", {.device = "cuda", .tokens = tokens}, 1e-4, 1e-5, 1e-4},
    {"cuda, block recompute",
     {.device = "cuda", .tokens = tokens, .keep = GRAPH_KEEP_EDGES},
     1e-4,
     1e-5,
     1e-4},
    {"cuda, bf16", {.device = "cuda", .tokens = tokens, .compute = DTYPE_BF16}, 3e-1, 1e-2, 5e-2},
    {"cuda, bf16 decoded",
     {.device = "cuda", .tokens = tokens, .compute = DTYPE_BF16, .decoded = true},
     3e-1,
     1e-2,
     5e-2},
};
enum { variant_count = sizeof variants / sizeof *variants };

/* Binaries that were carried to a machine with a GPU find the models beside them. */
static const char *data_folder(void) {
    const char *moved = getenv("HONE_TEST_DATA");
    return moved ? moved : TEST_DATA;
}

/* Whether this machine has the device; HONE_TEST_DEVICE asks for one alone. */
static bool is_wanted(const struct variant *v) {
    const char *only = getenv("HONE_TEST_DEVICE");
    struct device_options options = {.threads = 1};
    struct device *device = NULL;
    struct error err;
    if (only && strcmp(only, v->options.device)) return false;
    const struct device_ops *ops = device_find(v->options.device, &err);
    if (!ops || !ops->open(&device, &options, &err)) return false;
    ops->close(&device);
    return true;
}

struct golden {
    char path[400], adapter[420];
    json_t *json;
    struct safetensors *tensors;
    struct example examples[32];
    size_t count;
    int32_t *ids[32];
    uint8_t *trained[32];
};

static void golden_open(struct golden *g, const char *name) {
    struct error err;
    char path[512];
    memset(g, 0, sizeof *g);
    snprintf(g->adapter, sizeof g->adapter, "%s/golden/%s/adapter", data_folder(), name);
    snprintf(path, sizeof path, "%s/golden/%s/golden.json", data_folder(), name);
    assert_ok(json_read_file(&g->json, path, 0, &err), &err);
    snprintf(g->path, sizeof g->path, "%s/golden/data/%s", data_folder(),
             json_string_value(json_object_get(g->json, "model")));
    snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", data_folder(), name);
    assert_ok(safetensors_open(&g->tensors, path, &err), &err);
    json_t *examples = json_object_get(g->json, "examples"), *example;
    size_t i, t;
    json_array_foreach(examples, i, example) {
        json_t *ids = json_object_get(example, "ids"), *trained = json_object_get(example, "trained");
        size_t n = json_array_size(ids);
        g->ids[i] = mem_array(n, sizeof(int32_t));
        g->trained[i] = mem_array(n, 1);
        g->examples[i] = (struct example){
            .row = (uint32_t)i, .count = (uint32_t)n, .ids = g->ids[i], .trained = g->trained[i]};
        for (t = 0; t < n; t++) {
            g->ids[i][t] = (int32_t)json_integer_value(json_array_get(ids, t));
            json_t *flag = json_array_get(trained, t);
            g->trained[i][t] = json_is_integer(flag) ? json_integer_value(flag) != 0 : json_is_true(flag);
            if (t && g->trained[i][t]) g->examples[i].supervised++;
        }
        g->count++;
    }
}

static void golden_close(struct golden *g) {
    for (size_t i = 0; i < g->count; i++) {
        mem_free(g->ids[i]);
        mem_free(g->trained[i]);
    }
    json_decref(g->json);
    safetensors_close(&g->tensors);
}

static double worst_difference(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d; /* NaN counts as the worst */
    }
    return worst;
}

/* ‖a - b‖ / ‖b‖ */
static double relative_error(const float *a, const float *b, size_t n) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / size);
}

static void check_logits(const struct golden *g, const struct variant *v, bool adapter) {
    struct probe probe;
    struct error err;
    struct probe_options options = v->options;
    options.with_logits = true;
    options.tokens = 128;
    if (!adapter) options.base_type = json_string_value(json_object_get(g->json, "base_type"));
    assert_ok(probe_open(&probe, g->path, adapter ? g->adapter : NULL, &options, &err), &err);
    json_t *sequences = json_object_get(g->json, "sequences"), *sequence;
    size_t i;
    json_array_foreach(sequences, i, sequence) {
        char name[64];
        int32_t ids[128];
        size_t n = json_array_size(sequence);
        snprintf(name, sizeof name, "%slogits.%zu", adapter ? "" : "base_", i);
        const struct tensor *want = safetensors_find(g->tensors, name);
        if (!want) continue;
        for (size_t t = 0; t < n; t++) ids[t] = (int32_t)json_integer_value(json_array_get(sequence, t));
        for (int64_t piece = 0; piece <= 10; piece += 10) { /* at once, and through the cache in pieces */
            assert_ok(probe_logits(&probe, ids, (int64_t)n, piece, &err), &err);
            double worst = worst_difference(probe.logits, want->data, want->bytes / sizeof(float));
            if (!(worst <= v->logits))
                fail_msg("%s, %s, %s in pieces of %lld: worst difference %g, allowed %g", g->path, v->name,
                         name, (long long)piece, worst, v->logits);
        }
    }
    probe_close(&probe);
}

enum trained { TRAINED_ADAPTER, TRAINED_DROPPED, TRAINED_FULL };

/* With dropout, what is stored of it, which golden.json says how much of there is. */
static void check_gradients(const struct golden *g, const struct variant *v, size_t group,
                            enum trained trained) {
    struct probe probe;
    struct error err;
    struct probe_options options = v->options;
    const json_t *facts = trained == TRAINED_DROPPED ? json_object_get(g->json, "dropout") : g->json;
    const char *prefix = trained == TRAINED_DROPPED ? "dropped_gradient." : "gradient.";
    double loss, want = json_number_value(json_object_get(facts, "loss")), worst = 0;
    options.dropout = json_number_value(json_object_get(facts, "probability"));
    options.full = trained == TRAINED_FULL;
    assert_ok(probe_open(&probe, g->path, options.full ? NULL : g->adapter, &options, &err), &err);
    assert_ok(probe_gradients(&probe, g->examples, g->count, group, &loss, &err), &err);
    if (!(fabs(loss - want) <= v->loss * want))
        fail_msg("%s, %s: loss %.9g, PyTorch %.9g", g->path, v->name, loss, want);
    for (size_t i = 0; i < safetensors_count(g->tensors); i++) {
        const struct tensor *tensor = safetensors_tensor(g->tensors, i);
        float *got;
        size_t count;
        if (strncmp(tensor->name, prefix, strlen(prefix))) continue;
        assert_ok(probe_gradient(&probe, tensor->name + strlen(prefix), &got, &count, &err), &err);
        assert_int_equal(count, tensor->bytes / sizeof(float));
        double error = relative_error(got, tensor->data, count);
        if (!(error <= v->gradient))
            fail_msg("%s, %s: %s has a relative error of %g", g->path, v->name, tensor->name, error);
        if (error > worst) worst = error;
        mem_free(got);
    }
    print_message("  %-22s groups of %2zu: loss off by %.1e, worst gradient %.1e\n", v->name, group,
                  fabs(loss - want) / want, worst);
    probe_close(&probe);
}

static void logits_equal_transformers(void **state) {
    (void)state;
    for (int m = 0; m < model_count; m++) {
        struct golden g;
        golden_open(&g, models[m]);
        for (int v = 0; v < variant_count; v++)
            if (!variants[v].options.keep && is_wanted(&variants[v]))
                for (int adapter = 0; adapter < 2; adapter++) check_logits(&g, &variants[v], adapter);
        golden_close(&g);
    }
}

/* One micro-batch of all examples, several, and one example each: packing must not change the result. */
static void losses_and_gradients_equal_peft(void **state) {
    (void)state;
    for (int m = 0; m < model_count; m++) {
        struct golden g;
        golden_open(&g, models[m]);
        print_message("%s\n", models[m]);
        for (int v = 0; v < variant_count; v++)
            for (size_t group = 1; group <= 16 && is_wanted(&variants[v]);
                 group += variants[v].options.device[0] == 'r' ? 15 : 5)
                check_gradients(&g, &variants[v], group, TRAINED_ADAPTER);
        golden_close(&g);
    }
}

static void gradients_of_every_weight_equal_transformers(void **state) {
    (void)state;
    for (size_t m = 0; m < sizeof full_models / sizeof *full_models; m++) {
        struct golden g;
        golden_open(&g, full_models[m]);
        print_message("%s\n", full_models[m]);
        for (int v = 0; v < variant_count; v++)
            if (is_wanted(&variants[v])) check_gradients(&g, &variants[v], 5, TRAINED_FULL);
        golden_close(&g);
    }
}

/* PEFT with the masks that we draw: dropout stands where it stands there. */
static void gradients_with_dropout_equal_peft(void **state) {
    (void)state;
    int found = 0;
    for (int m = 0; m < model_count; m++) {
        struct golden g;
        golden_open(&g, models[m]);
        for (int v = 0; json_object_get(g.json, "dropout") && v < variant_count; v++, found++)
            if (is_wanted(&variants[v])) check_gradients(&g, &variants[v], 5, TRAINED_DROPPED);
        golden_close(&g);
    }
    assert_true(found > 0);
}

/* Same bits on 1 to 4 threads, with and without recomputation, of all layers or the first one or two. */
static void gradients_have_the_same_bits_on_any_thread_count(void **state) {
    (void)state;
    struct golden g;
    struct error err;
    golden_open(&g, "data/llama-tied");
    for (int way = 0; way < 4; way++) {
        bool bf16 = way % 2, full = way / 2;
        float *first = NULL;
        for (int threads = 1; threads <= 4; threads++)
            for (int keep = GRAPH_KEEP_ALL; keep <= GRAPH_KEEP_EDGES; keep++) {
                struct probe probe;
                struct probe_options options = {.device = "cpu",
                                                .threads = threads,
                                                .tokens = tokens,
                                                .keep = (enum graph_keep)keep,
                                                .layers = threads % 3,
                                                .compute = bf16 ? DTYPE_BF16 : DTYPE_F32,
                                                .full = full};
                double loss;
                assert_ok(probe_open(&probe, g.path, full ? NULL : g.adapter, &options, &err), &err);
                assert_ok(probe_gradients(&probe, g.examples, g.count, 5, &loss, &err), &err);
                size_t bytes = (size_t)probe.engine.state.table.rows[probe.engine.state.gradient].bytes;
                float *all = mem_alloc(bytes);
                assert_ok(
                    probe.ops->download(probe.engine.store, probe.engine.state.gradient, all, bytes, &err),
                    &err);
                if (first) assert_memory_equal(first, all, bytes);
                if (first)
                    mem_free(all);
                else
                    first = all;
                probe_close(&probe);
            }
        mem_free(first);
    }
    golden_close(&g);
}

/* Loss and gradients of one micro-batch, after each other; from mem_alloc. */
static float *gradients_of(struct probe *p, const struct golden *g, size_t first, size_t end,
                           struct timeline *timeline, size_t *bytes) {
    const struct model_state *state = &p->engine.state;
    struct error err;
    *bytes = (size_t)state->table.rows[state->gradient].bytes;
    float *out = mem_alloc(sizeof(double) + *bytes);
    assert_non_null(out);
    assert_ok(engine_clear(&p->engine, state->gradient, &err) && engine_clear(&p->engine, state->loss, &err),
              &err);
    batch_clear(&p->batch);
    for (size_t i = first; i < end; i++) batch_add(&p->batch, &g->examples[i], -0.01f);
    p->batch.binding.inputs[INPUT_RANDOM] = p->batch.random;
    p->batch.binding.timeline = timeline;
    assert_ok(p->ops->run(p->train.program, &p->batch.binding, &err) &&
                  p->ops->download(p->engine.store, state->loss, out, sizeof(double), &err) &&
                  p->ops->download(p->engine.store, state->gradient, out + 2, *bytes, &err),
              &err);
    *bytes += sizeof(double);
    return out;
}

/* A device may record what it launches and replay it when runs with like counts come again; it does not while
 * a timeline is asked for. Neither that nor which micro-batches came before may change a bit. */
static void replayed_runs_have_the_same_bits(void **state) {
    (void)state;
    enum { kinds = 5, rounds = 4 };
    static const size_t range[kinds][2] = {{0, 3}, {2, 3}, {1, 8}, {0, 12}, {0, 4}};
    struct golden g;
    golden_open(&g, "data/llama-tied");
    for (int v = 0; v < variant_count; v++) {
        struct probe probe;
        struct error err;
        struct timeline timeline = {0};
        float *want[kinds];
        size_t bytes;
        if (!is_wanted(&variants[v]) || variants[v].options.mask) continue;
        assert_ok(probe_open(&probe, g.path, g.adapter, &variants[v].options, &err), &err);
        for (int k = 0; k < kinds; k++)
            want[k] = gradients_of(&probe, &g, range[k][0], range[k][1], &timeline, &bytes);
        for (int i = 0; i < rounds * kinds; i++) {
            int k = i * 3 % kinds;
            float *got = gradients_of(&probe, &g, range[k][0], range[k][1], NULL, &bytes);
            if (memcmp(got, want[k], bytes))
                fail_msg("%s: other bits of micro-batch %d in run %d", variants[v].name, k, i);
            mem_free(got);
        }
        for (int k = 0; k < kinds; k++) mem_free(want[k]);
        timeline_release(&timeline);
        probe_close(&probe);
    }
    golden_close(&g);
}

int main(void) {
    const char *only = getenv("HONE_TEST_DEVICE");
    bool any = false;
    for (int v = 0; v < variant_count; v++) any = any || is_wanted(&variants[v]);
    if (only && !any) return 77; /* that device is not here */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_and_gradients_equal_peft),
        cmocka_unit_test(gradients_of_every_weight_equal_transformers),
        cmocka_unit_test(gradients_with_dropout_equal_peft),
        cmocka_unit_test(logits_equal_transformers),
        cmocka_unit_test(gradients_have_the_same_bits_on_any_thread_count),
        cmocka_unit_test(replayed_runs_have_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
