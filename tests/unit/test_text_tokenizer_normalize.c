/* Normal form C as Hugging Face's tokenizers make it: marks in canonical order, composed, and those that
 * Unicode has had only since version 10 left where they stand. */
#include "support/test.h"

#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_parts.h"

static void marks_are_ordered_and_composed(void **state) {
    (void)state;
    static const struct {
        const char *text, *composed;
    } cases[] = {
        {"plain", "plain"},
        {"é", "é"},
        {"e\u0301", "é"},
        {"e\u0323\u0302", "\u1EC7"},
        {"e\u0302\u0323", "\u1EC7"},
        {"a\u0345\u0316", "a\u0316\u0345"},
        {"\u1100\u1161\u11A8", "\uAC01"},
        {"\u212B", "\u00C5"},
        {"\u0301", "\u0301"},
        {"\u1A77\u0316", "\u0316\u1A77"},
        {"\u1A77\u1ABF", "\u1A77\u1ABF"},               /* since Unicode 13 */
        {"a\u0345\u0898\u0316", "a\u0345\u0898\u0316"}, /* since 14: it parts what is around it */
        {"a\u0898\u0301", "a\u0898\u0301"},
        {"\U00011935\U00011930", "\U00011935\U00011930"}, /* composes since 13 */
    };
    struct normalized out = {0};
    struct error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool changed;
        const char *text = cases[i].text, *want = cases[i].composed;
        assert_ok(normalize_nfc(text, strlen(text), &out, &changed, &err), &err);
        if (changed != (strcmp(text, want) != 0)) fail_msg("case %zu: changed is %d", i, changed);
        if (changed && (out.size != strlen(want) || memcmp(out.data, want, out.size) != 0))
            fail_msg("case %zu: %s is not %s", i, out.data, want);
    }
    normalized_release(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(marks_are_ordered_and_composed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
