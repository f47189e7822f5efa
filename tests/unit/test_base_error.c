/* Messages quote files of strangers: they stay valid UTF-8, whole, and harmless to a terminal. */
#include "support/test.h"

#include <errno.h>
#include <string.h>

#include "base/text.h"

static void messages_are_cleaned(void **state) {
    (void)state;
    static const struct {
        const char *given, *shown;
    } rows[] = {
        {"plain — é 中 👍\n\tx", "plain — é 中 👍\n\tx"},
        {"", ""},
        {"\x1b[31mred\x07\x7f", "?[31mred??"},
        {"a\xff\xfe\x62", "a??b"},
        {"\xc0\xaf \xed\xa0\x80", "?? ???"},   /* an overlong form, a surrogate */
        {"a\xe2\x80\xae\x62\xc2\x85", "a?b?"}, /* text that runs backwards, a control character */
        {"cut \xe4\xb8", "cut "},
        {"cut \xf0\x9f\x91", "cut "},
        {"cut \xc3", "cut "},
        {"\xe4\xb8q", "??q"},
        {"\xe4q", "?q"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err;
        assert_false(error_set(&err, ERROR_INPUT, "test", "%s", rows[i].given));
        error_why(&err, "%s", rows[i].given);
        error_fix(&err, "%s", rows[i].given);
        assert_string_equal(err.what, rows[i].shown);
        assert_string_equal(err.why, rows[i].shown);
        assert_string_equal(err.fix, rows[i].shown);
    }
}

/* A character across each possible place of the cut. */
static void long_messages_are_cut_between_characters(void **state) {
    (void)state;
    for (size_t before = 500; before < 512; before++) {
        char text[600], out[540];
        struct error err;
        memset(text, 'x', before);
        memcpy(text + before, "👍👍👍👍", sizeof "👍👍👍👍");
        error_set(&err, ERROR_INPUT, "test", "%s", text);
        assert_true(utf8_valid(err.what, strlen(err.what), NULL));
        assert_true(strlen(err.what) >= sizeof err.what - 4);
        if (before > 505) assert_string_equal(err.what + strlen(err.what) - 3, "…");
        error_format(&err, out, sizeof out - before % 8);
        assert_true(utf8_valid(out, strlen(out), NULL));
    }
}

/* Space helps a full disk alone. */
static void a_failed_write_says_what_helps(void **state) {
    (void)state;
    static const struct {
        int number;
        const char *fix;
    } rows[] = {{ENOSPC, "Free space there, or choose another place."},
                {EDQUOT, "Free space there, or choose another place."},
                {EROFS, "Choose a place that may be written."},
                {EACCES, "Choose a place that may be written."},
                {EIO, ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err;
        errno = rows[i].number;
        assert_false(error_system(&err, ERROR_DISK, "test", "write", "file"));
        assert_int_equal(err.code, ERROR_DISK);
        assert_string_equal(err.fix, rows[i].fix);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_cleaned),
        cmocka_unit_test(long_messages_are_cut_between_characters),
        cmocka_unit_test(a_failed_write_says_what_helps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
