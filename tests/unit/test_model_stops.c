/* The tokens that end an answer: read from configurations, written beside an adapter. */
#include "support/test.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/stops.h"

static bool read(struct stops *stops, const char *text, struct error *err) {
    json_t *config = NULL;
    assert_ok(json_read(&config, text, strlen(text), "config.json", 1, err), err);
    bool ok = stops_add_config(stops, config, "config.json", 100, err);
    json_decref(config);
    return ok;
}

static void a_number_and_a_list_are_read_once_each(void **state) {
    (void)state;
    struct stops stops = {0};
    struct error err;
    static const char *const texts[] = {"{}",
                                        "{\"eos_token_id\": null}",
                                        "{\"eos_token_id\": -1}",
                                        "{\"eos_token_id\": []}",
                                        "{\"eos_token_id\": 7}",
                                        "{\"eos_token_id\": [99, 7, 0]}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) assert_ok(read(&stops, texts[i], &err), &err);
    assert_int_equal(stops.count, 3);
    assert_true(stops_hold(&stops, 7) && stops_hold(&stops, 99) && stops_hold(&stops, 0));
    assert_false(stops_hold(&stops, 1));
    stops_release(&stops);
}

static void what_is_no_token_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *mention;
    } rows[] = {{"{\"eos_token_id\": 100}", "has 100, which is outside of the vocabulary of 100"},
                {"{\"eos_token_id\": [1, -7]}", "-7"},
                {"{\"eos_token_id\": 4294967297}", "4294967297"},
                {"{\"eos_token_id\": \"2\"}", "neither a token nor a list"},
                {"{\"eos_token_id\": [[2]]}", "neither a token nor a list"},
                {"{\"eos_token_id\": 2.5}", "neither a token nor a list"},
                {"{\"eos_token_id\": true}", "neither a token nor a list"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct stops stops = {0};
        struct error err;
        assert_false(read(&stops, rows[i].text, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        if (!strstr(err.what, rows[i].mention)) fail_msg("%s: %s", rows[i].text, err.what);
        stops_release(&stops);
    }
}

static void what_is_written_is_read_again(void **state) {
    (void)state;
    struct stops stops = {0}, again = {0};
    struct buf text = {0};
    struct error err;
    char *directory = test_directory(), *path = fs_join(directory, "generation_config.json");
    assert_ok(stops_add_directory(&again, directory, 100, &err), &err); /* there is none yet */
    assert_int_equal(again.count, 0);
    assert_true(stops_add(&stops, 5, &err) && stops_add(&stops, 9, &err));
    assert_ok(stops_write(&stops, 5, &text, &err), &err);
    assert_string_equal(text.data, "{\"eos_token_id\":[5,9]}");
    assert_ok(fs_write_atomic(path, text.data, text.size, &err), &err);
    assert_ok(stops_add_directory(&again, directory, 100, &err), &err);
    assert_true(again.count == 2 && stops_hold(&again, 5) && stops_hold(&again, 9));
    assert_false(stops_add_directory(&again, directory, 9, &err));
    assert_non_null(strstr(err.what, "generation_config.json"));
    stops_release(&stops);
    stops_release(&again);
    buf_release(&text);
    mem_free(path);
    test_remove_directory(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_number_and_a_list_are_read_once_each),
        cmocka_unit_test(what_is_no_token_is_refused),
        cmocka_unit_test(what_is_written_is_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
