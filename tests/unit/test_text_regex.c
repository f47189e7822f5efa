/* Expressions of tokenizer files: what is read as Oniguruma reads it, what is refused, and the bounds. */
#include "support/test.h"

#include <string.h>

#include "base/mem.h"
#include "text/regex.h"

/* All matches of a pattern in a text as "[first,end)" one after the other; empty ones step on. */
static struct buf matches(const char *pattern, const char *text) {
    struct regex *regex = NULL;
    struct regex_scratch *scratch = NULL;
    struct buf out = {0};
    struct error err;
    size_t size = strlen(text), at = 0, first, end;
    bool found = true;
    assert_ok(regex_open(&regex, pattern, strlen(pattern), false, &err), &err);
    assert_ok(regex_scratch_open(&scratch, &err), &err);
    regex_scratch_begin(scratch, size);
    while (at <= size) {
        assert_ok(regex_find(regex, scratch, text, size, at, &first, &end, &found, &err), &err);
        if (!found) break;
        buf_printf(&out, "%.*s|", (int)(end - first), text + first);
        at = end + (first == end);
    }
    regex_scratch_close(&scratch);
    regex_close(&regex);
    return out;
}

static void patterns_match_as_oniguruma_reads_them(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *text, *matches;
    } rows[] = {
        {"\\s+",
         "a \xc2\xa0\xe3\x80\x80"
         "b\xe1\xa0\x8e"
         "c\xc2\x85",
         " \xc2\xa0\xe3\x80\x80|\xc2\x85|"}, /* not U+180E */
        {"\\S+", "a\xe1\xa0\x8e b", "a\xe1\xa0\x8e|b|"},
        {"\\w+",
         "aé_\xcc\x81"
         "1 \xe2\x80\xbf-",
         "aé_\xcc\x81"
         "1|\xe2\x80\xbf|"},
        {"\\h+", "fg0AxF", "f|0A|F|"},
        {"\\u0041+", "AAa", "AA|"},
        {"(?m).+", "a\nb", "a\nb|"},
        {".+", "a\nb\r", "a|b\r|"},
        {"^.", "ab\ncd", "a|c|"},
        {"a{,2}b", "aaab", "aab|"},
        {"a{b", "a{b", "a{b|"},
        {"[]a]+", "]a[", "]a|"},
        {"(?i:AB)c", "abc ABC", "abc|"},
        {"\\p{L}+|\\p{N}{1,3}", "ab12345é", "ab|123|45|é|"},
        {"\\s+(?!\\S)|\\s+", "a   b ", "  | | |"},
        {"\\s+$", "a  \n b  ", "  |  |"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf got = matches(rows[i].pattern, rows[i].text);
        if (strcmp(got.data ? got.data : "", rows[i].matches) != 0)
            print_message("%s: %s, not %s\n", rows[i].pattern, got.data, rows[i].matches);
        assert_string_equal(got.data ? got.data : "", rows[i].matches);
        buf_release(&got);
    }
}

static void what_is_not_read_alike_is_refused(void **state) {
    (void)state;
    static const char *const patterns[] = {"[a[b]]",  "[a&&b]", "[\\W]", "a{1,2}+", "(?<n>a)", "(a",   "\\K",
                                           "(*FAIL)", "\\C",    "\\",    "[a",      "\xff",    "a**b)"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct regex *regex = NULL;
        struct error err = {0};
        bool opened = regex_open(&regex, patterns[i], strlen(patterns[i]), false, &err);
        if (opened) print_message("%s is not refused\n", patterns[i]);
        assert_false(opened);
        assert_null(regex);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_true(err.what[0]);
    }
}

/* Each match looks at the whole rest of the text before it takes one letter. Alone it is within its
 * bounds; a hundred thousand of them would take 10^10 steps. */
static void the_steps_of_all_matches_in_a_text_are_bounded(void **state) {
    (void)state;
    enum { SIZE = 100000 };
    static const char pattern[] = "(?:a|c)*?b|a";
    struct regex *regex = NULL;
    struct regex_scratch *scratch = NULL;
    struct error err;
    char *text = mem_alloc(SIZE);
    size_t at = 0, first, end;
    bool found = true;
    memset(text, 'a', SIZE);
    assert_ok(regex_open(&regex, pattern, strlen(pattern), false, &err), &err);
    assert_ok(regex_scratch_open(&scratch, &err), &err);
    for (int text_number = 0; text_number < 2; text_number++) { /* a text begins anew */
        regex_scratch_begin(scratch, SIZE);
        for (at = 0; regex_find(regex, scratch, text, SIZE, at, &first, &end, &found, &err); at = end)
            assert_true(found && end == at + 1);
        assert_int_equal(err.code, ERROR_INPUT);
        assert_true(at > 10 && at < 1000);
    }
    regex_scratch_close(&scratch);
    regex_close(&regex);
    mem_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_match_as_oniguruma_reads_them),
        cmocka_unit_test(what_is_not_read_alike_is_refused),
        cmocka_unit_test(the_steps_of_all_matches_in_a_text_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
