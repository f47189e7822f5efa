/* Text helpers: where a character is torn, and where a text is cut. */
#include "support/test.h"

#include <inttypes.h>
#include <string.h>

#include "base/text.h"

static void the_beginning_of_a_character_is_told(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t begun;
    } rows[] = {
        {"\xc3", 1},         {"\xe4\xb8", 2}, {"\xf0\x9f\x91", 3}, {"\xf0\x9f", 2}, {"\xe4q", 1},
        {"\xe4\xb8q", 2},    {"\xe0\x80", 1}, /* overlong: only the lead could begin one */
        {"\xed\xa0\x80", 1},                  /* a surrogate */
        {"\xf4\x90", 1},                      /* behind the last code point */
        {"\xc0\xaf", 0},     {"\xff", 0},     {"\x80", 0},         {"a", 0},        {"", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(utf8_begun(rows[i].text, strlen(rows[i].text)), rows[i].begun);
}

static void what_the_end_of_a_text_has_torn_waits(void **state) {
    (void)state;
    static const char text[] = "a\xc3\xa9\xe4\xb8\xad\xf0\x9f\x91\x8d";
    static const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10};
    for (size_t size = 0; size < sizeof text; size++) assert_int_equal(utf8_whole(text, size), whole[size]);
    assert_int_equal(utf8_whole("a\xff", 2), 2); /* nothing can complete it */
}

static void a_cut_text_ends_with_a_whole_word_and_an_ellipsis(void **state) {
    (void)state;
    static const struct {
        size_t capacity;
        const char *shown;
    } rows[] = {{40, "roles must alternate, user after…"},
                {30, "roles must alternate, user…"},
                {24, "roles must…"},
                {13, "roles…"},
                {8, "role…"},
                {4, "…"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64] = "roles must alternate, user after assistant, not twice";
        text[rows[i].capacity - 1] = '\0';
        text_ellipsis(text, rows[i].capacity);
        assert_string_equal(text, rows[i].shown);
    }
    for (size_t capacity = 4; capacity < 60; capacity++) { /* a word without an end, of long characters */
        char text[64] = "\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D"
                        "\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D\U0001F44D";
        text[capacity - 1] = '\0';
        text_ellipsis(text, capacity);
        assert_true(utf8_valid(text, strlen(text), NULL));
        assert_true(strlen(text) < capacity && strlen(text) + 4 >= capacity);
    }
}

static void a_size_is_a_number_and_its_unit_and_nothing_else(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},
                 {"512", 512},
                 {"512B", 512},
                 {"1k", 1024},
                 {"2KiB", 2048},
                 {"1.5m", 1572864},
                 {"4G", UINT64_C(4) << 30},
                 {"4GiB", UINT64_C(4) << 30},
                 {"4gb", UINT64_C(4) << 30},
                 {"1TiB", UINT64_C(1) << 40},
                 {"1e3", 1000}};
    static const char *const none[] = {"",   "B",  "-1",  "+1",  " 1",  "1 ",    "4 GiB", "512 B", "0x10",
                                       "0x", "4P", "4KK", "4iB", "4Bi", "4GiBs", "nan",   "inf",   "1e400x"},
                             *const too_large[] = {"1e300", "9e18", "9e6TiB", "1e400", "1e400KiB"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t bytes = 1;
        assert_true(text_parse_bytes(sizes[i].text, &bytes));
        assert_int_equal(bytes, sizes[i].bytes);
    }
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        uint64_t bytes = 1;
        if (text_parse_bytes(none[i], &bytes)) fail_msg("\"%s\" is read as %" PRIu64, none[i], bytes);
        assert_int_equal(bytes, 0);
    }
    for (size_t i = 0; i < sizeof too_large / sizeof *too_large; i++) {
        uint64_t bytes = 1;
        assert_false(text_parse_bytes(too_large[i], &bytes));
        assert_true(bytes == UINT64_MAX);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_beginning_of_a_character_is_told),
        cmocka_unit_test(what_the_end_of_a_text_has_torn_waits),
        cmocka_unit_test(a_cut_text_ends_with_a_whole_word_and_an_ellipsis),
        cmocka_unit_test(a_size_is_a_number_and_its_unit_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
