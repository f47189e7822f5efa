/* PEFT adapters: what is written reads back, and what this reader would misunderstand is refused by name. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/peft.h"
#include "format/safetensors.h"

static const float numbers[64] = {1, 2, 3, [63] = -4};

static struct peft_pair pair(const char *module, int64_t in, int64_t out, int64_t r) {
    struct peft_pair made = {.module = module,
                             .a = {.dtype = DTYPE_F32,
                                   .rank = 2,
                                   .dim = {r, in},
                                   .data = numbers,
                                   .bytes = (uint64_t)(4 * r * in)},
                             .b = {.dtype = DTYPE_F32,
                                   .rank = 2,
                                   .dim = {out, r},
                                   .data = numbers,
                                   .bytes = (uint64_t)(4 * r * out)}};
    return made;
}

static const char *targets[] = {"q_proj", "up_proj"};

static void write_adapter(const char *directory, const char *base) {
    struct peft_config config = {.rank = 2,
                                 .alpha = 5.0,
                                 .dropout = 0.1,
                                 .targets = targets,
                                 .target_count = 2,
                                 .base_model = (char *)(uintptr_t)base};
    struct peft_pair pairs[] = {pair("model.layers.0.self_attn.q_proj", 4, 6, 2),
                                pair("model.layers.0.mlp.up_proj", 4, 8, 2)};
    json_t *card = json_pack("{s:s, s:i, s:f, s:s}", "data", "/home/someone/train|.jsonl", "steps", 7, "loss",
                             1.5, "note", "<b>\x1b[2J\nx");
    struct error err;
    assert_ok(peft_write(directory, &config, &(struct peft_content){.pairs = pairs, .count = 2}, card, &err),
              &err);
    json_decref(card);
}

static void read_text(const char *directory, const char *name, struct buf *out) {
    char *path = fs_join(directory, name);
    struct error err;
    assert_ok(fs_read(path, 1 << 20, out, &err), &err);
    mem_free(path);
}

static void what_is_written_reads_back(void **state) {
    (void)state;
    char *directory = test_directory();
    struct peft *peft;
    struct error err;
    write_adapter(directory, "org/model");
    assert_ok(peft_open(&peft, directory, &err), &err);
    const struct peft_config *config = peft_config(peft);
    assert_int_equal(config->rank, 2);
    assert_true(config->alpha == 5.0 && config->dropout == 0.1);
    assert_string_equal(config->base_model, "org/model");
    assert_int_equal(config->target_count, 2);
    assert_string_equal(config->targets[0], "q_proj");
    assert_string_equal(config->targets[1], "up_proj");
    assert_int_equal(peft_pair_count(peft), 2);
    const struct peft_pair *up = peft_find(peft, "model.layers.0.mlp.up_proj");
    assert_ptr_equal(up, peft_pair(peft, 1));
    assert_true(up->a.dim[0] == 2 && up->a.dim[1] == 4 && up->b.dim[0] == 8 && up->b.dim[1] == 2);
    assert_memory_equal(up->b.data, numbers, 64);
    assert_null(peft_find(peft, "model.layers.0.mlp.down_proj"));
    peft_close(&peft);
    peft_close(&peft);
    test_remove_directory(directory);
}

static void nothing_published_names_this_machine(void **state) {
    (void)state;
    char *directory = test_directory();
    static const char *const files[] = {"adapter_config.json", "README.md", "adapter_model.safetensors"};
    write_adapter(directory, "/home/someone/models/a \"b\"");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct buf text = {0};
        read_text(directory, files[i], &text);
        assert_null(strstr(text.data, "home"));
        assert_null(strstr(text.data, "someone"));
        if (i == 1) {
            assert_non_null(strstr(text.data, "base_model: \"a \\\"b\\\"\"\nlibrary_name: peft\n"));
            assert_non_null(strstr(text.data, "| data | train\\|.jsonl |"));
            assert_null(strstr(text.data, "\x1b"));
            assert_null(strstr(text.data, "| <b>"));
        }
        buf_release(&text);
    }
    test_remove_directory(directory);
}

static const struct {
    const char *field, *value; /* JSON put in place of what was written */
    const char *says;          /* NULL: accepted */
} changes[] = {
    {"peft_type", "\"LOKR\"", "LOKR"},
    {"peft_type", "7", "peft_type"},
    {"use_dora", "true", "has no lora_magnitude_vector"},
    {"use_dora", "null", NULL},
    {"use_dora", "1", "use_dora"},
    {"bias", "\"all\"", "bias"},
    {"lora_bias", "true", "lora_bias"},
    {"modules_to_save", "[\"lm_head\"]", NULL},
    {"modules_to_save", "[\"\"]", "modules_to_save"},
    {"modules_to_save", "\"lm_head\"", "modules_to_save"},
    {"modules_to_save", "[]", NULL},
    {"rank_pattern", "{\"q_proj\":2}", NULL},
    {"rank_pattern", "{\"q_proj\":2.5}", "rank_pattern"},
    {"rank_pattern", "{\"q_proj\":0}", "rank_pattern"},
    {"rank_pattern", "[2]", "rank_pattern"},
    {"alpha_pattern", "{\"q_proj\":4.5}", NULL},
    {"alpha_pattern", "{\"q_proj\":\"4\"}", "alpha_pattern"},
    {"fan_in_fan_out", "true", "fan_in_fan_out"},
    {"layer_replication", "[[0,2]]", "layer_replication"},
    {"kasa_config", "{\"beta\":1e-4}", "kasa_config"},
    {"trainable_token_indices", "[1]", "trainable_token_indices"},
    {"init_lora_weights", "\"pissa_niter_4\"", "changes the base model"},
    {"init_lora_weights", "\"gaussian\"", NULL},
    {"target_modules", "\"all-linear\"", NULL},
    {"target_modules", "null", NULL},
    {"layers_to_transform", "[0]", NULL},
    {"something_new", "1", NULL},
    {"r", "0", "r:"},
    {"r", "3", "disagrees with the rank"},
    {"r", "2.0", "r:"},
    {"r", "9223372036854775807", "r:"},
    {"lora_alpha", "\"8\"", "lora_alpha"},
    {"lora_dropout", "1.0", "lora_dropout"},
    {"lora_dropout", "-0.1", "lora_dropout"},
    {"use_rslora", "1", "use_rslora"},
};

static bool open_changed(struct peft **peft, const char *directory, const char *field, const char *value,
                         struct error *err) {
    char *path = fs_join(directory, "adapter_config.json");
    json_t *json, *changed;
    write_adapter(directory, "org/model");
    assert_ok(json_read_file(&json, path, 0, err), err);
    assert_ok(json_read(&changed, value, strlen(value), "change", 1, err), err);
    json_object_set_new(json, field, changed);
    assert_ok(json_write_file(json, path, false, err), err);
    json_decref(json);
    mem_free(path);
    error_clear(err);
    return peft_open(peft, directory, err);
}

static void fields_that_change_the_meaning_are_refused(void **state) {
    (void)state;
    char *directory = test_directory();
    struct error err;
    struct peft *peft;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        bool ok = open_changed(&peft, directory, changes[i].field, changes[i].value, &err);
        peft_close(&peft);
        if (ok != !changes[i].says)
            fail_msg("%s %s: opened %d: %s", changes[i].field, changes[i].value, ok, err.what);
        if (!ok && !strstr(err.what, changes[i].says)) fail_msg("%s: \"%s\"", changes[i].field, err.what);
        if (!ok) assert_int_equal(err.code, ERROR_INPUT);
    }
    test_remove_directory(directory);
}

/* DoRA: a magnitude for each pair, and a file in which one is missing, alone, of another size or uncalled-for
 * is refused. */
static void magnitudes_belong_to_their_pairs(void **state) {
    (void)state;
    char *directory = test_directory();
    struct error err;
    struct peft *peft;
    static const struct {
        bool dora, written[2];
        int64_t rows;
        const char *says; /* NULL: it opens */
    } rows[] = {{true, {true, true}, 6, NULL},
                {true, {true, false}, 6, "has no lora_magnitude_vector"},
                {false, {true, true}, 6, "use_dora is not true"},
                {true, {true, true}, 5, "for each row"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct peft_config config = {.rank = 2, .alpha = 5, .dora = rows[i].dora};
        struct peft_pair pairs[] = {pair("model.layers.0.self_attn.q_proj", 4, 6, 2),
                                    pair("model.layers.1.self_attn.q_proj", 4, 6, 2)};
        for (int p = 0; p < 2; p++)
            if (rows[i].written[p])
                pairs[p].magnitude = (struct tensor){.dtype = DTYPE_F32,
                                                     .rank = 1,
                                                     .dim = {rows[i].rows},
                                                     .data = numbers + p,
                                                     .bytes = (uint64_t)(4 * rows[i].rows)};
        assert_ok(
            peft_write(directory, &config, &(struct peft_content){.pairs = pairs, .count = 2}, NULL, &err),
            &err);
        bool ok = peft_open(&peft, directory, &err);
        if (ok != !rows[i].says || (!ok && !strstr(err.what, rows[i].says)))
            fail_msg("row %zu: opened %d: %s", i, ok, err.what);
        if (ok) assert_memory_equal(peft_pair(peft, 1)->magnitude.data, numbers + 1, 24);
        if (ok) assert_true(peft_config(peft)->dora);
        peft_close(&peft);
    }
    test_remove_directory(directory);
}

/* What is not plain LoRA is written as PEFT writes it, and read from there. */
static void variants_read_back(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "adapter_config.json");
    struct error err;
    struct peft *peft;
    json_t *json;
    struct peft_pattern ranks[] = {{"q_proj", 2}, {"layers\\.(0|2)\\.mlp\\.up_proj", 2}},
                        alphas[] = {{"up_proj", 2.5}};
    struct peft_config config = {.rank = 16,
                                 .alpha = 5,
                                 .rslora = true,
                                 .gaussian = true,
                                 .targets = targets,
                                 .target_count = 2,
                                 .target_patterns = true,
                                 .ranks = ranks,
                                 .rank_count = 2,
                                 .alphas = alphas,
                                 .alpha_count = 1,
                                 .from_layer = 1,
                                 .layers = 3};
    struct peft_pair one = pair("model.layers.1.self_attn.q_proj", 4, 6, 2);
    assert_ok(peft_write(directory, &config, &(struct peft_content){.pairs = &one, .count = 1}, NULL, &err),
              &err);
    assert_ok(peft_open(&peft, directory, &err), &err);
    const struct peft_config *read = peft_config(peft);
    assert_true(read->rslora && read->gaussian && !read->everywhere);
    assert_int_equal(read->rank, 16);
    assert_int_equal(read->rank_count, 2);
    assert_string_equal(read->ranks[1].key, ranks[1].key);
    assert_true(read->ranks[1].value == 2 && read->alpha_count == 1 && read->alphas[0].value == 2.5);
    assert_ok(json_read_file(&json, path, 0, &err), &err);
    assert_int_equal(json_array_size(json_object_get(json, "layers_to_transform")), 2);
    assert_string_equal(json_string_value(json_object_get(json, "target_modules")),
                        "(?:.*\\.)?(?:q_proj|up_proj)");
    json_decref(json);
    mem_free(path);
    peft_close(&peft);
    test_remove_directory(directory);
}

static const struct {
    const char *names[2];
    int64_t dims[2][2];
    const char *says;
} bad_tensors[] = {
    {{"base_model.model.m.lora_B.weight", "base_model.model.n.lora_B.weight"},
     {{6, 2}, {6, 2}},
     "without its lora_A"},
    {{"base_model.model.m.lora_A.weight", "base_model.model.m.lora_A.bias"},
     {{2, 4}, {6, 2}},
     "has no lora_B beside it"},
    {{"base_model.model.m.lora_A.weight", "base_model.model.n.lora_B.weight"},
     {{2, 4}, {6, 2}},
     "has no lora_B beside it"},
    {{"base_model.model.m.lora_A.weight", "base_model.model.m.lora_B.weight"},
     {{2, 4}, {2, 6}},
     "disagrees with the rank"},
    {{"base_model.model.m.lora_A.weight", "base_model.model.m.lora_B.weight"},
     {{4, 2}, {6, 2}},
     "disagrees with the rank"},
    {{"base_model.model.m.lora_embedding_A", "base_model.model.m.lora_B.weight"},
     {{2, 4}, {6, 2}},
     "has no lora_B beside it"},
    {{"base_model.model.m.lora_embedding_A", "base_model.model.m.lora_embedding_B"},
     {{2, 4}, {6, 3}},
     "disagrees with the rank"},
    {{"base_model.model.m.lora_A.weight", "base_model.model.n.lora_magnitude_vector"},
     {{2, 4}, {6, 2}},
     "has no lora_B beside it"},
    {{"m.lora_A.weight", "m.lora_B.weight"}, {{2, 4}, {6, 2}}, "is no lora_A or lora_B"},
    {{"base_model.model..lora_A.weight", "base_model.model.lora_B.weight"},
     {{2, 4}, {6, 2}},
     "is no lora_A or lora_B"},
};

static void tensors_that_are_no_pairs_are_refused(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "adapter_model.safetensors");
    struct error err;
    struct peft *peft;
    write_adapter(directory, NULL);
    for (size_t i = 0; i < sizeof bad_tensors / sizeof *bad_tensors; i++) {
        struct tensor tensors[2];
        memset(tensors, 0, sizeof tensors);
        for (int j = 0; j < 2; j++) {
            tensors[j] = (struct tensor){.name = bad_tensors[i].names[j], .rank = 2, .data = numbers};
            tensors[j].dim[0] = bad_tensors[i].dims[j][0];
            tensors[j].dim[1] = bad_tensors[i].dims[j][1];
            assert_true(tensor_set_bytes(&tensors[j]));
        }
        assert_ok(safetensors_write(path, tensors, 2, NULL, &err), &err);
        if (peft_open(&peft, directory, &err)) fail_msg("row %zu was opened", i);
        if (!strstr(err.what, bad_tensors[i].says)) fail_msg("row %zu: \"%s\"", i, err.what);
    }
    assert_ok(fs_remove(path, &err), &err);
    assert_false(peft_open(&peft, directory, &err));
    mem_free(path);
    path = fs_join(directory, "adapter_model.bin");
    assert_ok(fs_write_atomic(path, "x", 1, &err), &err);
    assert_false(peft_open(&peft, directory, &err));
    assert_non_null(strstr(err.what, "adapter_model.bin"));
    mem_free(path);
    test_remove_directory(directory);
}

static int fail_at(void *user, size_t size) {
    int *left = user;
    (void)size;
    return (*left)-- == 0;
}

static void every_failed_request_for_memory_is_an_error(void **state) {
    (void)state;
    char *directory = test_directory();
    struct peft_config config = {.rank = 2, .alpha = 5.0, .targets = targets, .target_count = 2};
    struct peft_pair one = pair("model.layers.0.self_attn.q_proj", 4, 6, 2);
    struct error err;
    bool ok = false;
    int left, i;
    for (i = 0; !ok; i++) {
        left = i;
        mem_set_fault(fail_at, &left);
        ok = peft_write(directory, &config, &(struct peft_content){.pairs = &one, .count = 1}, NULL, &err);
        mem_set_fault(NULL, NULL);
        if (!ok) assert_int_equal(err.code, ERROR_MEMORY);
    }
    assert_true(i > 10);
    for (i = 0, ok = false; !ok; i++) {
        struct peft *peft;
        left = i;
        mem_set_fault(fail_at, &left);
        ok = peft_open(&peft, directory, &err);
        mem_set_fault(NULL, NULL);
        if (!ok) assert_true(err.code == ERROR_MEMORY && !peft);
        peft_close(&peft);
    }
    assert_true(i > 10);
    test_remove_directory(directory);
}

static void adapters_of_peft_itself_open(void **state) {
    (void)state;
    static const char *const adapters[] = {"llama-tied", "llama-untied", "llama-scaled", "qwen2"};
    for (size_t i = 0; i < sizeof adapters / sizeof *adapters; i++) {
        char path[512];
        struct peft *peft;
        struct error err;
        snprintf(path, sizeof path, TEST_DATA "/golden/data/%s/adapter", adapters[i]);
        assert_ok(peft_open(&peft, path, &err), &err);
        assert_true(peft_pair_count(peft) > 0 && peft_config(peft)->rank > 0);
        peft_close(&peft);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(nothing_published_names_this_machine),
        cmocka_unit_test(fields_that_change_the_meaning_are_refused),
        cmocka_unit_test(magnitudes_belong_to_their_pairs),
        cmocka_unit_test(variants_read_back),
        cmocka_unit_test(tensors_that_are_no_pairs_are_refused),
        cmocka_unit_test(every_failed_request_for_memory_is_an_error),
        cmocka_unit_test(adapters_of_peft_itself_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
