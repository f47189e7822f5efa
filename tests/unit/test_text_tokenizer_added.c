/* Added tokens whose white space overlaps. The matches are those of the `tokenizers` library: an overlap
 * gives both tokens, and a token that lies in what another was widened over, and is widened itself, gives
 * none. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_added.h"

static struct added_token token(int32_t id, const char *text, const char *flags) {
    return (struct added_token){.id = id,
                                .content = {text, strlen(text)},
                                .single_word = strchr(flags, 's') != NULL,
                                .lstrip = strchr(flags, 'l') != NULL,
                                .rstrip = strchr(flags, 'r') != NULL};
}

static void matches_overlap_as_in_the_tokenizers_library(void **state) {
    (void)state;
    static const struct {
        const char *first, *first_flags, *second, *second_flags, *text, *matches;
    } cases[] = {
        {"x", "r", " ", "", "x  y", "0[0,3) 1[1,2) 1[2,3) "},
        {"x", "r", " b", "", "x bc", "0[0,2) 1[1,3) "},
        {"x", "r", "\n", "l", "x \nz", "0[0,3) "},
        {"x", "r", "\n", "l", "xy \nz", "0[0,1) 1[2,4) "},
        {"x", "", " ", "lr", "a   bx", "1[1,4) 0[5,6) "},
        {"x", "lr", "y", "l", " x  y ", "0[0,4) 1[4,5) "},
        {"x", "s", "y", "", "x\xe2\x92\xb6yx", "1[4,5) "}, /* a letter in a circle is part of a word */
        {"x", "s", "y", "", "x-y", "0[0,1) 1[2,3) "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct added_token tokens[] = {token(0, cases[i].first, cases[i].first_flags),
                                       token(1, cases[i].second, cases[i].second_flags)};
        struct added added;
        struct added_match match = {0};
        struct error err = {0};
        struct buf shown = {0};
        assert_ok(added_init(&added, tokens, 2, &err), &err);
        while (added_find(&added, false, true, cases[i].text, strlen(cases[i].text), &match))
            buf_printf(&shown, "%d[%zu,%zu) ", (int)match.token->id, match.first, match.end);
        assert_string_equal(shown.data ? shown.data : "", cases[i].matches);
        buf_release(&shown);
        added_release(&added);
    }
}

/* Walked anew for each match, the run would cost half a million million steps. */
static void a_run_of_white_space_is_walked_once(void **state) {
    (void)state;
    enum { size = 1 << 20 };
    struct added_token tokens[] = {token(0, " ", "r")};
    struct added added;
    struct added_match match = {0};
    struct error err = {0};
    size_t count = 0;
    char *text = mem_alloc(size);
    assert_non_null(text);
    memset(text, ' ', size);
    assert_ok(added_init(&added, tokens, 1, &err), &err);
    for (; added_find(&added, false, true, text, size, &match); count++) assert_int_equal(match.end, size);
    assert_int_equal(count, size);
    added_release(&added);
    mem_free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_overlap_as_in_the_tokenizers_library),
        cmocka_unit_test(a_run_of_white_space_is_walked_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
