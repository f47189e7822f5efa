/* The store: names, links, and what a model argument means. */
#include "support/test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "job/store.h"

static void names_are_plain(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool ok;
    } cases[] = {{"smollm2-135m", true}, {"a", true},   {"a.b_c-9", true}, {"", false},
                 {".hidden", false},     {"..", false}, {"Upper", false},  {"a/b", false},
                 {"a b", false},         {"ü", false},  {"a.json", false}, {"a\n", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (store_name_ok(cases[i].name) != cases[i].ok) fail_msg("\"%s\"", cases[i].name);
    char longest[102];
    memset(longest, 'a', sizeof longest);
    longest[101] = '\0';
    assert_false(store_name_ok(longest));
}

static void names_are_made_from_files(void **state) {
    (void)state;
    static const struct {
        const char *path, *name;
    } cases[] = {
        {"/m/SmolLM2 (135M).gguf", "smollm2--135m-"}, {"Qwen2.5-0.5B", "qwen2.5-0.5b"}, {"/a/.x", "-x"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *name;
        struct error err;
        assert_ok(store_name_from(cases[i].path, &name, &err), &err);
        assert_string_equal(name, cases[i].name);
        mem_free(name);
    }
}

static void a_name_leads_to_its_model_and_a_path_to_itself(void **state) {
    char *home = *state, *path, *found, *file = fs_join(home, "model.gguf"),
         *link = fs_join(home, "models/small");
    struct error err;
    json_t *record = json_pack("{s:s}", "name", "small"), *list;
    assert_ok(fs_write_atomic(file, "x", 1, &err), &err);
    assert_ok(fs_absolute(file, &path, &err), &err);
    assert_ok(store_put("small", path, record, &err), &err);
    assert_ok(store_resolve("small", &found, &err), &err);
    assert_string_equal(found, link);
    mem_free(found);
    assert_ok(store_resolve(file, &found, &err), &err);
    assert_string_equal(found, file);
    mem_free(found);
    assert_ok(store_list(&list, &err), &err);
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    /* The model is gone: the message names the remedy. */
    assert_ok(fs_remove(file, &err), &err);
    assert_false(store_resolve("small", &found, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.what, "nothing is any more"));
    json_decref(record);
    mem_free(path);
    mem_free(file);
    mem_free(link);
}

static void an_unknown_name_is_answered_with_what_there_is(void **state) {
    (void)state;
    struct error err;
    char *found;
    json_t *record = json_pack("{s:s}", "name", "small");
    assert_ok(store_put("small", "/nowhere", record, &err), &err);
    assert_false(store_resolve("large", &found, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_non_null(strstr(err.fix, "small"));
    json_decref(record);
}

static void a_damaged_record_hides_only_itself(void **state) {
    struct error err;
    json_t *record = json_pack("{s:s}", "name", "small"), *list;
    char *broken = fs_join(*state, "models/bad.json");
    assert_ok(store_put("small", "/nowhere", record, &err), &err);
    assert_ok(fs_write_atomic(broken, "{", 1, &err), &err);
    assert_ok(store_list(&list, &err), &err);
    assert_int_equal(json_array_size(list), 1);
    json_decref(list);
    json_decref(record);
    mem_free(broken);
}

static void files_that_changed_since_they_got_a_name_are_told(void **state) {
    char *directory = fs_join(*state, "model"), *file = fs_join(directory, "weights"), *path;
    struct error err;
    json_t *record = json_pack("{s:s, s:s}", "name", "small", "digest", "0123"), *told;
    assert_ok(fs_make_directories(directory, &err), &err);
    assert_ok(fs_write_atomic(file, "x", 1, &err), &err);
    assert_ok(fs_absolute(directory, &path, &err), &err);
    assert_ok(store_put("small", path, record, &err), &err);
    assert_ok(store_differs("small", &told, &err), &err);
    assert_null(told);
    assert_ok(fs_write_atomic(file, "xy", 2, &err), &err);
    assert_ok(store_differs(path, &told, &err), &err); /* a path is what it is */
    assert_null(told);
    assert_ok(store_differs("small", &told, &err), &err);
    assert_string_equal(json_string_value(json_object_get(told, "digest")), "0123");
    assert_ok(store_put("small", path, told, &err), &err);
    json_decref(told);
    assert_ok(store_differs("small", &told, &err), &err);
    assert_null(told);
    json_decref(record);
    mem_free(path);
    mem_free(file);
    mem_free(directory);
}

static int open_home(void **state) {
    *state = test_directory();
    return setenv("HONE_HOME", *state, 1);
}

static int close_home(void **state) {
    test_remove_directory(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_plain),
        cmocka_unit_test(names_are_made_from_files),
        cmocka_unit_test_setup_teardown(a_name_leads_to_its_model_and_a_path_to_itself, open_home,
                                        close_home),
        cmocka_unit_test_setup_teardown(an_unknown_name_is_answered_with_what_there_is, open_home,
                                        close_home),
        cmocka_unit_test_setup_teardown(files_that_changed_since_they_got_a_name_are_told, open_home,
                                        close_home),
        cmocka_unit_test_setup_teardown(a_damaged_record_hides_only_itself, open_home, close_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
