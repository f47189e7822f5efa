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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_beginning_of_a_character_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
