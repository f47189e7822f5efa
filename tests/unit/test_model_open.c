/* What an opened model tells of itself, on the small models of tests/golden. */
#include "support/test.h"

#include <string.h>

#include "format/hub.h"
#include "model/model.h"

static uint64_t stored_bytes(const char *path) {
    struct hub *hub;
    struct error err;
    uint64_t bytes = 0;
    assert_ok(hub_open(&hub, path, &err), &err);
    for (size_t i = 0; i < hub_tensor_count(hub); i++) bytes += (uint64_t)hub_tensor(hub, i)->bytes;
    hub_close(&hub);
    return bytes;
}

/* Of an embedding that is not the head, a token reads one row. */
static void a_token_reads_one_row_of_an_untied_embedding(void **state) {
    (void)state;
    static const struct {
        const char *path;
        bool tied;
    } rows[] = {{TEST_DATA "/golden/data/llama-tied", true}, {TEST_DATA "/golden/data/llama-untied", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model *model;
        struct error err;
        assert_ok(model_open(&model, rows[i].path, &err), &err);
        assert_int_equal(model->config.tied, rows[i].tied);
        const struct tensor *embedding = model_weight(model, WEIGHT_EMBEDDING, 0);
        uint64_t row = (uint64_t)embedding->bytes / (uint64_t)model->config.vocabulary;
        uint64_t want = stored_bytes(rows[i].path);
        if (!rows[i].tied) want = want - (uint64_t)embedding->bytes + row;
        assert_int_equal(model_token_bytes(model), want);
        assert_true(model_token_bytes(model) < model->mapped_bytes);
        model_close(&model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_reads_one_row_of_an_untied_embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
