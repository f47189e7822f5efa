/* Reading, resolving and writing a recipe when the k-th request for memory fails, for every k: an error of
 * memory, never a crash or a half-read recipe. Leaks are found by the sanitizer build. */
#include "support/test.h"

#include <string.h>

#include "base/mem.h"
#include "train/recipe.h"

static const char yaml[] =
    "model: m\ndata: [a.jsonl, b.jsonl]\nlora: {rank: 8, targets: [q_proj, v_proj]}\nsystem: hello\n";

struct countdown {
    long left;
    bool hit;
};

static int fail_at(void *user, size_t size) {
    struct countdown *count = user;
    (void)size;
    if (count->left-- > 0) return 0;
    count->hit = true;
    return 1;
}

static bool work(struct error *err) {
    struct recipe recipe, stored;
    struct buf text = {0};
    json_t *changed = json_array();
    bool ok = recipe_init(&recipe, err);
    if (ok && !recipe_init(&stored, err)) {
        recipe_release(&recipe);
        ok = false;
    } else if (ok) {
        ok = recipe_read_text(&stored, yaml, sizeof yaml - 1, "r.yaml", err) &&
             recipe_set(&recipe, USE_TRAIN, "threads", "3", err) &&
             recipe_continue(&recipe, &stored, changed, err) &&
             recipe_resolve(&recipe, "learning-rate", "0.001", "hidden size", err) &&
             recipe_write_text(&recipe, &text, err);
        recipe_release(&recipe);
        recipe_release(&stored);
    }
    buf_release(&text);
    json_decref(changed);
    return ok;
}

static void every_request_may_fail(void **state) {
    (void)state;
    for (long k = 0; k < 100000; k++) {
        struct countdown count = {k, false};
        struct error err;
        error_clear(&err);
        mem_set_fault(fail_at, &count);
        bool ok = work(&err);
        mem_set_fault(NULL, NULL);
        if (!count.hit) {
            assert_ok(ok, &err);
            assert_true(k > 20); /* the hook was really asked */
            return;
        }
        if (ok) continue; /* a buffer may come by with less */
        if (err.code != ERROR_MEMORY) fail_msg("request %ld: %s: %s", k, err.where, err.what);
    }
    fail();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_request_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
