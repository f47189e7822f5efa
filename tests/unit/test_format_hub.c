/* Model directories: one file or shards, and nothing that leads out of the directory or runs code. */
#include "support/test.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/hub.h"
#include "format/safetensors.h"

static const float numbers[8] = {1, 2, 3};

static void put(const char *directory, const char *name, const char *text) {
    char *path = fs_join(directory, name);
    struct error err;
    assert_ok(fs_write_atomic(path, text, strlen(text), &err), &err);
    mem_free(path);
}

static void put_weights(const char *directory, const char *name, const char *tensor) {
    char *path = fs_join(directory, name);
    struct tensor one = {
        .name = tensor, .dtype = DTYPE_F32, .rank = 1, .dim = {3}, .data = numbers, .bytes = 12};
    struct error err;
    assert_ok(safetensors_write(path, &one, 1, NULL, &err), &err);
    mem_free(path);
}

static void one_file_and_its_texts(void **state) {
    (void)state;
    char *directory = test_directory();
    struct hub *hub;
    struct error err;
    size_t size;
    put(directory, "config.json", "{\"model_type\":\"llama\"}");
    put_weights(directory, "model.safetensors", "a");
    assert_ok(hub_open(&hub, directory, &err), &err);
    assert_string_equal(json_string_value(json_object_get(hub_config(hub), "model_type")), "llama");
    assert_null(hub_generation_config(hub));
    assert_null(hub_tokenizer_json(hub, &size));
    assert_null(hub_chat_template(hub, &size));
    assert_int_equal(hub_tensor_count(hub), 1);
    assert_ptr_equal(hub_find_tensor(hub, "a"), hub_tensor(hub, 0));
    assert_true(hub_file_bytes(hub) > 12);
    hub_close(&hub);

    put(directory, "tokenizer.json", "{\"x\":1}");
    put(directory, "generation_config.json", "{}");
    put(directory, "tokenizer_config.json",
        "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"T\"},"
        "{\"name\":\"default\",\"template\":\"D\"}]}");
    assert_ok(hub_open(&hub, directory, &err), &err);
    assert_string_equal(hub_chat_template(hub, &size), "D");
    assert_memory_equal(hub_tokenizer_json(hub, &size), "{\"x\":1}", 7);
    assert_non_null(hub_generation_config(hub));
    hub_close(&hub);

    put(directory, "tokenizer_config.json", "{\"chat_template\":\"S\"}");
    assert_ok(hub_open(&hub, directory, &err), &err);
    assert_string_equal(hub_chat_template(hub, &size), "S");
    hub_close(&hub);

    put(directory, "chat_template.jinja", "J");
    assert_ok(hub_open(&hub, directory, &err), &err);
    assert_string_equal(hub_chat_template(hub, &size), "J");
    hub_close(&hub);
    hub_close(&hub);
    test_remove_directory(directory);
}

static const struct {
    const char *index, *says; /* says NULL: opens */
} indexes[] = {
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}", NULL},
    {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\"/etc/one.safetensors\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\"..\\\\one.safetensors\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\".safetensors\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\"config.json\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\"\"}}", "not a plain name"},
    {"{\"weight_map\":{\"a\":\"model.bin\"}}", "can run code"},
    {"{\"weight_map\":{\"a\":7}}", "other than file names"},
    {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", "does not hold this tensor"},
    {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", "cannot open"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"c\":\"one.safetensors\"}}",
     "does not hold"},
    {"{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\",\"d\":\"again.safetensors\"}}",
     "does not hold"},
    {"{\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"both.safetensors\"}}", "does not hold"},
    {"{\"weight_map\":{}}", "weight_map"},
    {"{}", "weight_map"},
    {"[]", "not a JSON object"},
    {"{", "broken JSON"},
};

static void shards_are_plain_files_that_hold_what_the_index_says(void **state) {
    (void)state;
    char *directory = test_directory();
    struct hub *hub;
    struct error err;
    put(directory, "config.json", "{}");
    put_weights(directory, "one.safetensors", "a");
    put_weights(directory, "two.safetensors", "b");
    put_weights(directory, "again.safetensors", "a");
    put_weights(directory, "both.safetensors", "b");
    for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
        put(directory, "model.safetensors.index.json", indexes[i].index);
        bool ok = hub_open(&hub, directory, &err);
        if (ok != !indexes[i].says) fail_msg("%s: opened %d: %s", indexes[i].index, ok, err.what);
        if (!ok && !strstr(err.what, indexes[i].says)) fail_msg("%s: \"%s\"", indexes[i].index, err.what);
        if (ok) assert_true(hub_tensor_count(hub) == 2 && hub_find_tensor(hub, "b"));
        hub_close(&hub);
    }
    test_remove_directory(directory);
}

static void a_directory_that_is_no_model_says_what_is_missing(void **state) {
    (void)state;
    char *directory = test_directory(), *none = fs_join(directory, "none");
    struct hub *hub;
    struct error err;
    assert_false(hub_open(&hub, none, &err));
    assert_non_null(strstr(err.what, "not a directory"));
    assert_false(hub_open(&hub, directory, &err));
    assert_non_null(strstr(err.what, "no config.json"));
    put(directory, "config.json", "[]");
    assert_false(hub_open(&hub, directory, &err));
    assert_non_null(strstr(err.what, "not a JSON object"));
    put(directory, "config.json", "{}");
    assert_false(hub_open(&hub, directory, &err));
    assert_non_null(strstr(err.what, "neither model.safetensors"));
    put(directory, "pytorch_model.bin", "x");
    assert_false(hub_open(&hub, directory, &err));
    assert_non_null(strstr(err.what, "pytorch_model.bin"));
    assert_int_equal(err.code, ERROR_INPUT);
    mem_free(none);
    test_remove_directory(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_file_and_its_texts),
        cmocka_unit_test(shards_are_plain_files_that_hold_what_the_index_says),
        cmocka_unit_test(a_directory_that_is_no_model_says_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
