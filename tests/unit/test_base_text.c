/* Text helpers: where a character is torn, and where a text is cut. */
#include "support/test.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_beginning_of_a_character_is_told),
        cmocka_unit_test(a_cut_text_ends_with_a_whole_word_and_an_ellipsis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
