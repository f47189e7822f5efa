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

/* What is trained is found by where a token begins in the text as it was given. */
static void tokens_of_composed_text_begin_where_the_text_does(void **state) {
    (void)state;
    static const char json[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"<s>\",\"special\":true}],"
                               "\"normalizer\":{\"type\":\"NFC\"},"
                               "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                               "\"decoder\":{\"type\":\"ByteLevel\"},"
                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"\u00c3\":0,\"\u00a9\":1,\"x\":2,"
                               "\"\u0127\":3},\"merges\":[]}}";
    static const char text[] = "<s>e\u0301x<s>A\u030a"; /* composed: e9 and c5, of two bytes each */
    static const int32_t ids[] = {4, 0, 1, 2, 4, 0, 3};
    static const uint32_t starts[] = {0, 3, 3, 6, 7, 10, 10};
    struct tokenizer *tokenizer;
    struct tokens tokens = {0};
    struct error err;
    assert_ok(tokenizer_open_json(&tokenizer, json, strlen(json), NULL, 0, &err), &err);
    assert_ok(tokenizer_encode(tokenizer, text, strlen(text), true, &tokens, &err), &err);
    assert_int_equal(tokens.count, sizeof ids / sizeof *ids);
    assert_memory_equal(tokens.ids, ids, sizeof ids);
    assert_memory_equal(tokens.starts, starts, sizeof starts);
    tokens_release(&tokens);
    tokenizer_close(&tokenizer);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(marks_are_ordered_and_composed),
                                       cmocka_unit_test(tokens_of_composed_text_begin_where_the_text_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
