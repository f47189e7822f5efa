/* The settings table: text to values and back, bounds, names of other tools. */
#include "support/test.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/settings.h"

struct values {
    char *name;
    int64_t count;
    double rate;
    bool shuffle;
    int kind;
    uint64_t memory;
    struct text_list files, targets;
    struct setting_state states[16];
};

#define AT(field) offsetof(struct values, field)
static const struct setting rows[] = {
    {.name = "name", .type = SETTING_TEXT, .uses = 1, .help = "h", .group = "g", .offset = AT(name)},
    {.name = "batch-size",
     .type = SETTING_INT,
     .uses = 1,
     .least = 1,
     .most = 64,
     .preset = "16",
     .help = "h",
     .group = "g",
     .offset = AT(count)},
    {.name = "learning-rate",
     .type = SETTING_FLOAT,
     .uses = 1,
     .least = 0,
     .most = 1,
     .automatic = "by rule",
     .help = "h",
     .group = "g",
     .offset = AT(rate)},
    {.name = "shuffle",
     .type = SETTING_BOOL,
     .uses = 1,
     .preset = "true",
     .help = "h",
     .group = "g",
     .offset = AT(shuffle)},
    {.name = "schedule",
     .type = SETTING_CHOICE,
     .uses = 1,
     .choices = "constant|linear|cosine",
     .preset = "cosine",
     .help = "h",
     .group = "g",
     .offset = AT(kind)},
    {.name = "memory",
     .type = SETTING_BYTES,
     .uses = 1,
     .preset = "0",
     .help = "h",
     .group = "g",
     .offset = AT(memory)},
    {.name = "data", .type = SETTING_LIST, .uses = 1, .help = "h", .group = "g", .offset = AT(files)},
    {.name = "lora-targets",
     .nest = "lora",
     .type = SETTING_NAMES,
     .uses = 1,
     .preset = "all-linear",
     .help = "h",
     .group = "g",
     .offset = AT(targets)},
    {.name = "other",
     .type = SETTING_BOOL,
     .uses = 2,
     .preset = "false",
     .help = "h",
     .group = "g",
     .offset = AT(shuffle)},
};

static struct settings open_settings(struct values *values) {
    struct settings settings = {rows, sizeof rows / sizeof *rows - 1, values, values->states};
    struct error err;
    memset(values, 0, sizeof *values);
    assert_ok(settings_init(&settings, &err), &err);
    return settings;
}

static bool assign(struct settings *settings, const char *name, const char *value, struct error *err) {
    struct settings *sets[] = {settings};
    return settings_assign(sets, 1, 1, name, value, "--", err);
}

static void defaults_come_from_the_rows(void **state) {
    (void)state;
    struct values v;
    struct settings s = open_settings(&v);
    assert_null(v.name);
    assert_int_equal(v.count, 16);
    assert_true(v.shuffle);
    assert_int_equal(v.kind, 2);
    assert_int_equal(v.targets.count, 1);
    assert_string_equal(v.targets.items[0], "all-linear");
    assert_int_equal(v.states[2].origin, ORIGIN_AUTO);
    assert_int_equal(v.states[1].origin, ORIGIN_DEFAULT);
    settings_release(&s);
}

static void values_are_written_as_they_are_read(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *written;
    } cases[] = {
        {"name", "a b", "a b"},
        {"batch_size", "8", "8"},
        {"learning-rate", "3e-4", "0.0003"},
        {"shuffle", "false", "false"},
        {"schedule", "linear", "linear"},
        {"memory", "600MiB", "629145600"},
        {"data", "x,y.jsonl", "x,y.jsonl"},
        {"lora-targets", "q_proj,v_proj", "q_proj,v_proj"},
        {"learning_rate", "0.1", "0.1"},
        {"learning-rate", "0.30000000000000004", "0.30000000000000004"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct values v;
        struct settings s = open_settings(&v);
        struct error err;
        struct buf out = {0};
        assert_ok(assign(&s, cases[i].name, cases[i].value, &err), &err);
        size_t row = settings_find(&s, cases[i].name, 1);
        assert_int_equal(v.states[row].origin, ORIGIN_GIVEN);
        assert_true(setting_write(&rows[row], &v, &out));
        assert_string_equal(out.data, cases[i].written);
        buf_release(&out);
        settings_release(&s);
    }
}

static void wrong_values_are_refused_with_a_remedy(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *text;
    } cases[] = {
        {"batch-size", "0", "settings: batch-size: 0 is out of range. It must lie between 1 and 64."},
        {"batch-size", "8.5", "settings: batch-size: \"8.5\" is not a whole number. It takes N: h."},
        {"batch-size", " 8", "settings: batch-size: \" 8\" is not a whole number. It takes N: h."},
        {"batch-size", "99999999999999999999",
         "settings: batch-size: 99999999999999999999 is out of range. It must lie between 1 and 64."},
        {"learning-rate", "nan",
         "settings: learning-rate: \"nan\" is not a number or \"auto\". It takes X: h."},
        {"learning-rate", "1e999",
         "settings: learning-rate: 1e999 is out of range. It must lie between 0 and 1."},
        {"learning-rate", "-1e400",
         "settings: learning-rate: -1e400 is out of range. It must lie between 0 and 1."},
        {"learning-rate", "1e400x",
         "settings: learning-rate: \"1e400x\" is not a number or \"auto\". It takes X: h."},
        {"learning-rate", "inf",
         "settings: learning-rate: \"inf\" is not a number or \"auto\". It takes X: h."},
        {"memory", "1e400", "settings: memory: \"1e400\" is not a size below 7.8 EiB. It takes SIZE: h."},
        {"memory", "9e9GiB", "settings: memory: \"9e9GiB\" is not a size below 7.8 EiB. It takes SIZE: h."},
        {"learning-rate", "-1", "settings: learning-rate: -1 is out of range. It must lie between 0 and 1."},
        {"shuffle", "maybe", "settings: shuffle: \"maybe\" is not true or false. It takes true or false: h."},
        {"schedule", "cos",
         "settings: schedule: \"cos\" is not one of its choices. Choose one of: constant|linear|cosine."},
        {"memory", "lots",
         "settings: memory: \"lots\" is not a size. Write it as 600MiB, 4GiB or a number of bytes."},
        {"lora-targets", "q,,v",
         "settings: lora-targets: \"q,,v\" is not a list of names separated by commas. It takes A,B: h."},
        {"name", NULL, "settings: name needs a value. It takes TEXT: h."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct values v;
        struct settings s = open_settings(&v);
        struct error err;
        char text[2048];
        assert_false(assign(&s, cases[i].name, cases[i].value, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        error_format(&err, text, sizeof text);
        assert_string_equal(text, cases[i].text);
        settings_release(&s);
    }
}

static void unknown_names_are_refused_with_the_right_one(void **state) {
    (void)state;
    static const struct {
        const char *name, *value, *text;
    } cases[] = {
        {"batchsize", "8", "settings: unknown setting --batchsize. Did you mean --batch-size?"},
        {"size", "8", "settings: unknown setting --size. Did you mean --batch-size?"},
        {"per_device_train_batch_size", "8",
         "settings: unknown setting --per_device_train_batch_size: another tool's name. Here it is "
         "--batch-size 8. It counts the "
         "examples of one optimizer step: multiply the per-device batch by the accumulation steps."},
        {"lr-scheduler-type", "constant_with_warmup",
         "settings: unknown setting --lr-scheduler-type: another tool's name. Here it is --schedule "
         "constant."},
        {"lr", "1e-4",
         "settings: unknown setting --lr: another tool's name. Here it is --learning-rate 1e-4."},
        {"logging_steps", "10",
         "settings: unknown setting --logging_steps: another tool's name. Every step is written to "
         "events.jsonl: leave it "
         "out."},
        {"other", "1", "settings: unknown setting --other. `hone settings` lists them all."},
        {"zzzzzzzz", NULL, "settings: unknown setting --zzzzzzzz. `hone settings` lists them all."},
        {"\033[31m", NULL, "settings: unknown setting --\\x1b[31m. `hone settings` lists them all."},
    };
    struct values v;
    struct settings s = open_settings(&v);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err;
        char text[2048];
        assert_false(assign(&s, cases[i].name, cases[i].value, &err));
        assert_int_equal(err.code, ERROR_USAGE);
        error_format(&err, text, sizeof text);
        assert_string_equal(text, cases[i].text);
    }
    settings_release(&s);
}

static void lists_grow_and_replace_the_default(void **state) {
    (void)state;
    struct values v;
    struct settings s = open_settings(&v);
    struct error err;
    assert_ok(assign(&s, "data", "a", &err) && assign(&s, "data", "b", &err), &err);
    assert_ok(assign(&s, "lora-targets", "q_proj", &err), &err);
    assert_int_equal(v.files.count, 2);
    assert_string_equal(v.files.items[1], "b");
    assert_int_equal(v.targets.count, 1);
    assert_string_equal(v.targets.items[0], "q_proj");
    settings_release(&s);
}

static void auto_gives_the_value_back_to_the_rule(void **state) {
    (void)state;
    struct values v;
    struct settings s = open_settings(&v);
    struct error err;
    assert_ok(assign(&s, "learning-rate", "0.5", &err) && assign(&s, "learning-rate", "auto", &err), &err);
    assert_int_equal(v.states[2].origin, ORIGIN_AUTO);
    assert_ok(settings_resolve(&s, 2, "0.25", "hidden size 576", &err), &err);
    assert_int_equal(v.states[2].origin, ORIGIN_RESOLVED);
    assert_string_equal(v.states[2].reason, "hidden size 576");
    assert_true(v.rate == 0.25);
    settings_release(&s);
}

static void only_values_of_the_other_side_are_inherited(void **state) {
    (void)state;
    struct values a, b;
    struct settings x = open_settings(&a), y = open_settings(&b);
    struct error err;
    assert_ok(assign(&x, "batch-size", "4", &err), &err);
    assert_ok(assign(&y, "batch-size", "8", &err) && assign(&y, "name", "n", &err) &&
                  assign(&y, "data", "f", &err),
              &err);
    assert_ok(settings_inherit(&x, &y, ORIGIN_STORED, &err), &err);
    assert_int_equal(a.count, 4);
    assert_string_equal(a.name, "n");
    assert_int_equal(a.states[0].origin, ORIGIN_STORED);
    assert_int_equal(a.files.count, 1);
    settings_release(&x);
    settings_release(&y);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_come_from_the_rows),
        cmocka_unit_test(values_are_written_as_they_are_read),
        cmocka_unit_test(wrong_values_are_refused_with_a_remedy),
        cmocka_unit_test(unknown_names_are_refused_with_the_right_one),
        cmocka_unit_test(lists_grow_and_replace_the_default),
        cmocka_unit_test(auto_gives_the_value_back_to_the_rule),
        cmocka_unit_test(only_values_of_the_other_side_are_inherited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
