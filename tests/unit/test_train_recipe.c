/* The recipe: YAML, conflicts, what a resumed run may change. */
#include "support/test.h"

#include <string.h>

#include "base/mem.h"
#include "model/optimizer.h"
#include "train/recipe.h"

static void read_ok(struct recipe *recipe, const char *text) {
    struct error err;
    assert_ok(recipe_read_text(recipe, text, strlen(text), "r.yaml", &err), &err);
}

static void open_recipe(struct recipe *recipe) {
    struct error err;
    assert_ok(recipe_init(recipe, &err), &err);
}

static void yaml_takes_flat_and_nested_names(void **state) {
    (void)state;
    struct recipe r;
    open_recipe(&r);
    read_ok(&r, "model: m\ndata: [a.jsonl, \"b c.jsonl\"]\nlora:\n  rank: 8\n  targets: [q_proj, v_proj]\n"
                "lora_alpha: 32\nlearning_rate: auto\nshuffle: false\nmemory: 600MiB\nsystem: null\n");
    assert_int_equal(r.lora_rank, 8);
    assert_true(r.lora_alpha == 32);
    assert_int_equal(r.lora_targets.count, 2);
    assert_int_equal(r.data.count, 2);
    assert_string_equal(r.data.items[1], "b c.jsonl");
    assert_false(r.shuffle);
    assert_int_equal(r.memory, 600u << 20);
    assert_null(r.system);
    assert_int_equal(recipe_origin(&r, "learning-rate"), ORIGIN_AUTO);
    assert_int_equal(recipe_origin(&r, "epochs"), ORIGIN_DEFAULT);
    recipe_release(&r);
}

static void flags_win_over_the_file(void **state) {
    (void)state;
    struct recipe r;
    struct error err;
    open_recipe(&r);
    assert_ok(recipe_set(&r, USE_TRAIN, "epochs", "1", &err), &err);
    read_ok(&r, "epochs: 5\nseed: 7\n");
    assert_int_equal(r.epochs, 1);
    assert_int_equal(r.seed, 7);
    recipe_release(&r);
}

static void what_is_written_reads_back_to_the_same_bits(void **state) {
    (void)state;
    struct recipe a, b;
    struct error err;
    struct buf text = {0};
    open_recipe(&a);
    open_recipe(&b);
    assert_ok(recipe_set(&a, USE_TRAIN, "system", "say \"no\": # ü\n\ttwice", &err), &err);
    assert_ok(recipe_set(&a, USE_TRAIN, "data", "a,b.jsonl", &err) &&
                  recipe_set(&a, USE_TRAIN, "template-arg", "k=v w", &err),
              &err);
    assert_ok(recipe_resolve_float(&a, "learning-rate", 1.0 / 3e3, "hidden size 576", &err), &err);
    assert_ok(recipe_resolve_float(&a, "template-clock", 1700000000.123456789, "now", &err), &err);
    assert_ok(recipe_resolve(&a, "model-digest", "00ff", "read", &err), &err);
    assert_ok(recipe_write_text(&a, &text, &err), &err);
    assert_ok(recipe_read_text(&b, text.data, text.size, "recipe.yaml", &err), &err);
    for (size_t i = 0; i < recipe_row_count; i++)
        if (!setting_equal(&recipe_rows[i], &a, &b))
            fail_msg("%s differs after reading back", recipe_rows[i].name);
    assert_non_null(strstr(text.data, "lora:\n  rank: 16\n  alpha: auto\n"));
    assert_non_null(strstr(text.data, "# hidden size 576\n"));
    buf_release(&text);
    recipe_release(&a);
    recipe_release(&b);
}

static void bad_yaml_is_refused_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"epochs: 1\nepoch: 2\n", "r.yaml:2: unknown setting epoch"},
        {"num_train_epochs: 2\n", "Here it is epochs: 2."},
        {"lora:\n  r: 8\n", "unknown setting lora-r"},
        {"lora_r: 8\n", "Here it is lora_rank: 8."},
        {"epochs: many\n", "r.yaml:1: epochs: \"many\" is not a whole number"},
        {"epochs: [1, 2]\n", "it takes one value, not a list"},
        {"epochs: {a: 1}\n", "it takes one value, not a mapping"},
        {"- a\n", "not a mapping of settings to values"},
        {"epochs: 1\nepochs: 2\n", "duplicate key (line 2, column 1)"},
        {" # none\n\n#", "holds no settings"},
        {"", "holds no settings"},
        {"a: [1, 2\n", "is not valid YAML"},
        {"data: *nothing\n", "r.yaml"},
        {"model: \"a\\0b\"\n", "NUL"},
        {"model: \xff\n", "invalid UTF-8 at byte 7"},
        {"<<: {a: 1}\n", "r.yaml:1"},
        {"epochs: 1\n---\nseed: 3\n", "r.yaml:2: a second document begins here"},
        {"%YAML 1.2\n--- # one\nsystem: \"a\n  b\"\n...\n# two\n---\nseed: 3\n",
         "r.yaml:7: a second document"},
        {"resume: true\n", "r.yaml:1: resume is no setting of a recipe"},
        {"recipe: other.yaml\n", "r.yaml:1: recipe is no setting of a recipe"},
        {"epochs: 2\nworld_size: 2\n", "r.yaml:2: world_size is no setting of a recipe"},
        {"trace: null\n", "r.yaml:1: trace is no setting of a recipe"},
        {"template_clock: 1e300\n", "template-clock: 1e300 is out of range"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct recipe r;
        struct error err;
        char text[2048];
        open_recipe(&r);
        error_clear(&err);
        if (recipe_read_text(&r, cases[i].yaml, strlen(cases[i].yaml), "r.yaml", &err))
            fail_msg("accepted: %s", cases[i].yaml);
        assert_int_equal(err.code, ERROR_USAGE);
        error_format(&err, text, sizeof text);
        if (!strstr(text, cases[i].text)) fail_msg("%s: %s", cases[i].yaml, text);
        assert_int_equal(r.epochs, 3); /* nothing half read stays */
        recipe_release(&r);
    }
}

static void hostile_yaml_is_bounded(void **state) {
    (void)state;
    struct buf text = {0};
    struct recipe r;
    struct error err;
    open_recipe(&r);
    const char *const units[] = {"[", "- ", "{a: ", "? "};
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        buf_clear(&text);
        for (int i = 0; i < 100000; i++) buf_text(&text, units[u]);
        assert_false(recipe_read_text(&r, text.data, text.size, "r.yaml", &err));
    }
    buf_clear(&text);
    buf_text(&text, "data: &a [x, x, x, x, x, x, x, x, x, x]\n");
    buf_text(&text, "valid: [");
    for (int i = 0; i < 1200; i++) buf_text(&text, i ? ", y" : "y");
    buf_text(&text, "]\n");
    assert_false(recipe_read_text(&r, text.data, text.size, "r.yaml", &err));
    assert_non_null(strstr(err.what, "more values"));
    buf_release(&text);
    recipe_release(&r);
}

static void aliases_are_followed(void **state) {
    (void)state;
    struct recipe r;
    open_recipe(&r);
    read_ok(&r, "data: &files [a, b]\nvalid: *files\n");
    assert_int_equal(r.valid.count, 2);
    recipe_release(&r);
}

static void conflicts_are_named(void **state) {
    (void)state;
    static const struct {
        const char *set[8], *text;
    } cases[] = {
        {{"model", "m", "data", "d"}, "--output is missing"},
        {{"output", "o", "data", "d"}, "--model is missing"},
        {{"output", "o", "model", "m"}, "--data is missing"},
        {{"output", "o", "resume", NULL, "adapter", "a"}, "--adapter and --resume exclude each other"},
        {{"output", "o", "valid", "v", "valid-split", "0.1"}, "--valid and --valid-split exclude each other"},
        {{"output", "o", "template-arg", "novalue"}, "is not NAME=VALUE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct recipe r;
        struct error err;
        open_recipe(&r);
        for (int j = 0; j < 8 && cases[i].set[j]; j += 2)
            assert_ok(recipe_set(&r, USE_TRAIN, cases[i].set[j], cases[i].set[j + 1], &err), &err);
        assert_false(recipe_check(&r, USE_TRAIN, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        if (!strstr(err.what, cases[i].text)) fail_msg("%s", err.what);
        recipe_release(&r);
    }
}

static void resume_takes_stored_values_and_refuses_changed_ones(void **state) {
    (void)state;
    struct recipe stored, now;
    struct error err;
    open_recipe(&stored);
    read_ok(&stored, "model: m\ndata: d\nepochs: 2\nthreads: 2\nmicro_batch_tokens: 1024\nlora: {rank: "
                     "8}\ndata_digest: aa\n");
    json_t *changed = json_array();

    open_recipe(&now);
    assert_ok(recipe_set(&now, USE_TRAIN, "epochs", "2", &err) &&
                  recipe_set(&now, USE_TRAIN, "threads", "4", &err) &&
                  recipe_set(&now, USE_TRAIN, "model", "elsewhere", &err) &&
                  recipe_set(&now, USE_TRAIN, "mask", "avx512", &err) &&
                  recipe_set(&now, USE_TRAIN, "micro-batch-tokens", "512", &err),
              &err);
    assert_ok(recipe_continue(&now, &stored, changed, &err), &err);
    assert_int_equal(now.lora_rank, 8);
    assert_int_equal(now.threads, 4);
    assert_string_equal(now.model, "elsewhere");
    assert_string_equal(now.data.items[0], "d");
    assert_int_equal(json_array_size(changed), 2);
    assert_string_equal(json_string_value(json_array_get(changed, 0)), "mask not set → avx512");
    assert_string_equal(json_string_value(json_array_get(changed, 1)), "micro-batch-tokens 1024 → 512");
    assert_ok(recipe_same_facts(&now, &stored, changed, &err), &err);
    assert_ok(recipe_resolve(&now, "data-digest", "bb", "read", &err), &err);
    assert_false(recipe_same_facts(&now, &stored, changed, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.what, "the data files changed"));
    recipe_release(&now);

    open_recipe(&now);
    assert_ok(recipe_set(&now, USE_TRAIN, "lora-rank", "4", &err), &err);
    assert_false(recipe_continue(&now, &stored, changed, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.what, "lora-rank"));
    assert_non_null(strstr(err.why, "it was 8, now it is 4"));
    recipe_release(&now);

    open_recipe(&now);
    assert_ok(recipe_set(&now, USE_TRAIN, "memory", "600MiB", &err) &&
                  recipe_continue(&now, &stored, changed, &err),
              &err);
    assert_int_equal(recipe_origin(&now, "micro-batch-tokens"), ORIGIN_AUTO);
    recipe_release(&now);
    recipe_release(&stored);
    json_decref(changed);
}

static void what_another_tool_calls_a_setting_is_told_in_words_that_are_taken(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *ours, *taken;
    } cases[] = {{"fp16", "true", "compute", "f16"},
                 {"bf16", "false", "compute", "f32"},
                 {"torch_dtype", "float16", "compute", "f16"},
                 {"load_in_4bit", "true", "base-type", "nf4"},
                 {"load_in_8bit", "true", "base-type", "int8"},
                 {"load_in_8bit", "false", "base-type", "as-stored"},
                 {"gradient_checkpointing", "true", "recompute", "block"},
                 {"optim", "paged_adamw_8bit", "optimizer", "adamw8bit"},
                 {"lr_scheduler_type", "cosine_with_restarts", "schedule", "cosine-restarts"},
                 {"excess_length_strategy", "raise", "overlength", "refuse"},
                 {"train_on_inputs", "1", "train-on", "all"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct recipe r;
        struct error err;
        char remedy[128];
        open_recipe(&r);
        assert_false(recipe_set(&r, USE_TRAIN, cases[i].name, cases[i].value, &err));
        snprintf(remedy, sizeof remedy, "Here it is --%s %s.", cases[i].ours, cases[i].taken);
        assert_string_equal(err.fix, remedy);
        assert_ok(recipe_set(&r, USE_TRAIN, cases[i].ours, cases[i].taken, &err), &err);
        recipe_release(&r);
    }
}

static void learning_rate_follows_the_width(void **state) {
    (void)state;
    /* 5e-4 · (2000/hidden)^p by hand: 576 → 2.643…, 4096 llama → 0.5713…, 4096 qwen → 0.9460… */
    static const struct {
        int64_t hidden;
        const char *architecture;
        double rate;
    } cases[] = {{2000, "llama", 5e-4},      {576, "llama", 1.3220e-3}, {4096, "llama", 2.8566e-4},
                 {4096, "qwen2", 4.7298e-4}, {64, "llama", 2e-3},       {1000000, "llama", 2e-5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double rate = recipe_default_learning_rate(cases[i].hidden, cases[i].architecture);
        if (rate < cases[i].rate * 0.999 || rate > cases[i].rate * 1.001)
            fail_msg("%s %lld: %g", cases[i].architecture, (long long)cases[i].hidden, rate);
    }
}

static void every_value_has_its_origin_and_reason(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *origin, *reason;
    } cases[] = {{"epochs", "1", "given", NULL},
                 {"learning-rate", "0.00125", "resolved", "hidden size 576"},
                 {"lora-rank", "16", "default", NULL},
                 {"max-length", "auto", "auto", "the smaller of 2048 and the model's context"}};
    struct recipe r;
    struct error err;
    open_recipe(&r);
    assert_ok(recipe_set(&r, USE_TRAIN, "epochs", "1", &err), &err);
    assert_ok(recipe_resolve_float(&r, "learning-rate", 0.00125, "hidden size 576", &err), &err);
    json_t *all = recipe_describe(&r);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const json_t *one = json_object_get(all, cases[i].name);
        assert_string_equal(json_string_value(json_object_get(one, "value")), cases[i].value);
        assert_string_equal(json_string_value(json_object_get(one, "origin")), cases[i].origin);
        if (cases[i].reason)
            assert_string_equal(json_string_value(json_object_get(one, "reason")), cases[i].reason);
    }
    assert_null(json_object_get(all, "model-digest")); /* a fact, not a setting */
    json_decref(all);
    recipe_release(&r);
}

static void the_setting_names_every_optimizer_of_the_table(void **state) {
    (void)state;
    struct recipe r;
    struct error err;
    open_recipe(&r);
    struct settings settings = recipe_settings(&r);
    struct buf name = {0};
    const struct setting *row = &settings.rows[settings_find(&settings, "optimizer", USE_TRAIN)];
    size_t choices = 1;
    for (const char *at = row->choices; *at; at++) choices += *at == '|';
    assert_int_equal(choices, OPTIMIZER_KINDS);
    for (int k = 0; k < OPTIMIZER_KINDS; k++) {
        buf_clear(&name);
        setting_write_choice(row, k, &name);
        assert_string_equal(name.data, optimizer_rows[k].name);
        assert_ok(recipe_set(&r, USE_TRAIN, "optimizer", optimizer_rows[k].name, &err), &err);
        assert_int_equal(r.optimizer, k);
        assert_true(optimizer_rows[k].rate > 0);
    }
    buf_release(&name);
    recipe_release(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(yaml_takes_flat_and_nested_names),
        cmocka_unit_test(flags_win_over_the_file),
        cmocka_unit_test(what_is_written_reads_back_to_the_same_bits),
        cmocka_unit_test(bad_yaml_is_refused_with_its_line),
        cmocka_unit_test(hostile_yaml_is_bounded),
        cmocka_unit_test(aliases_are_followed),
        cmocka_unit_test(conflicts_are_named),
        cmocka_unit_test(resume_takes_stored_values_and_refuses_changed_ones),
        cmocka_unit_test(the_setting_names_every_optimizer_of_the_table),
        cmocka_unit_test(what_another_tool_calls_a_setting_is_told_in_words_that_are_taken),
        cmocka_unit_test(learning_rate_follows_the_width),
        cmocka_unit_test(every_value_has_its_origin_and_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
