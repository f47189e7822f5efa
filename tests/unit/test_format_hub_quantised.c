/* Model directories whose weights are quantised, as bitsandbytes and MLX write them
 * (tests/golden/format/make_hubs.py): read where they lie, equal to what those decode, and refused by the
 * tensor's name when a part is missing or another's. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/hub.h"
#include "format/safetensors.h"
#include "tensor/stored.h"

static const char hubs[] = TEST_DATA "/golden/format/hubs";

static void check_weight(struct hub *hub, const struct tensor *expected) {
    struct tensor weight;
    struct error err;
    bool found;
    assert_ok(hub_find_weight(hub, expected->name, &weight, &found, &err), &err);
    assert_true(found && weight.rank == 2);
    assert_int_equal(weight.dim[0], expected->dim[0]);
    assert_int_equal(weight.dim[1], expected->dim[1]);
    struct stored stored = stored_of(&weight);
    size_t row = (size_t)weight.dim[1] * sizeof(float);
    float *numbers = mem_alloc(row);
    for (int64_t r = 0; r < weight.dim[0]; r++) {
        stored_decode(&stored, r, 0, weight.dim[1], numbers);
        if (memcmp(numbers, (const char *)expected->data + (size_t)r * row, row))
            fail_msg("%s: row %d is another", expected->name, (int)r);
    }
    mem_free(numbers);
}

static void weights_are_read_as_they_lie(void **state) {
    (void)state;
    static const struct {
        const char *kind;
        size_t count;
    } kinds[] = {{"bitsandbytes", 4}, {"mlx", 3}, {"mlx-mxfp4", 3}};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        char path[512];
        struct hub *hub;
        struct safetensors *expected;
        struct error err;
        struct tensor none;
        bool found;
        snprintf(path, sizeof path, "%s/%s", hubs, kinds[k].kind);
        assert_ok(hub_open(&hub, path, &err), &err);
        snprintf(path, sizeof path, "%s/%s/expected.safetensors", hubs, kinds[k].kind);
        assert_ok(safetensors_open(&expected, path, &err), &err);
        assert_int_equal(safetensors_count(expected), kinds[k].count);
        for (size_t i = 0; i < kinds[k].count; i++) check_weight(hub, safetensors_tensor(expected, i));
        assert_ok(hub_find_weight(hub, "z.weight", &none, &found, &err), &err);
        assert_false(found);
        safetensors_close(&expected);
        hub_close(&hub);
    }
}

enum { other_scales = 9 };

/* A directory like `kind` but for one tensor, which is left out or has another name. */
static const struct {
    const char *kind, *from, *to, *weight, *says;
} damages[] = {
    {"bitsandbytes", "a.weight.absmax", NULL, "a.weight", "absmax"},
    {"bitsandbytes", "a.weight.nested_absmax", NULL, "a.weight", "absmax"},
    {"bitsandbytes", "a.weight.nested_quant_map", NULL, "a.weight", "nested_quant_map"},
    {"bitsandbytes", "a.weight.quant_map", NULL, "a.weight", "quant_map"},
    {"bitsandbytes", "a.weight.quant_state.bitsandbytes__nf4", "a.weight.quant_state.bitsandbytes__fp4",
     "a.weight", "fp4"},
    {"bitsandbytes", "a.weight.quant_state.bitsandbytes__nf4", "b.weight.quant_state.bitsandbytes__nf4",
     "b.weight", "another size"},
    {"bitsandbytes", "c.SCB", NULL, "c.weight", "SCB"},
    {"bitsandbytes", "c.SCB", "c.weight_format", "c.weight", "SCB"},
    {"mlx", "a.biases", NULL, "a.weight", "biases"},
    [other_scales] = {"mlx", "a.scales", "b.scales", "b.weight", "disagrees"},
    {"mlx", "a.scales", NULL, "a.weight", "no scales"},
    {"mlx-mxfp4", "a.scales", NULL, "a.weight", "no scales"},
    {"mlx-mxfp4", "b.scales", "a.scales", "a.weight", "mxfp4"},
    {"mlx-mxfp4", "b.biases", "a.biases", "a.weight", "biases"},
    {"mlx-mxfp4", "b.weight", "a.weight", "a.weight", "disagrees"},
    {"mlx-mxfp4", "b.biases", NULL, "b.weight", "biases"},
};

static void write_damaged(const char *directory, size_t d) {
    struct safetensors *file;
    struct error err;
    char path[512];
    struct tensor kept[32];
    size_t count = 0;
    snprintf(path, sizeof path, "%s/%s/model.safetensors", hubs, damages[d].kind);
    assert_ok(safetensors_open(&file, path, &err), &err);
    for (size_t i = 0; i < safetensors_count(file); i++) {
        struct tensor tensor = *safetensors_tensor(file, i);
        if (damages[d].to && !strcmp(tensor.name, damages[d].to)) continue;
        if (!strcmp(tensor.name, damages[d].from)) {
            if (!damages[d].to) continue;
            tensor.name = damages[d].to;
        }
        kept[count++] = tensor;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_ok(safetensors_write(path, kept, count, NULL, &err), &err);
    safetensors_close(&file);
}

static void put_config(const char *directory, const char *text) {
    char path[512];
    struct error err;
    snprintf(path, sizeof path, "%s/config.json", directory);
    assert_ok(fs_write_atomic(path, text, strlen(text), &err), &err);
}

static const char *config_of(const char *kind) {
    if (!strcmp(kind, "mlx"))
        return "{\"quantization\":{\"bits\":4,\"group_size\":64,\"b\":{\"bits\":6,\"group_size\":32}}}";
    if (!strcmp(kind, "mlx-mxfp4"))
        return "{\"quantization\":{\"bits\":4,\"group_size\":32,\"mode\":\"mxfp4\","
               "\"b\":{\"bits\":4,\"group_size\":64}}}";
    return "{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}";
}

static void damaged_weights_are_refused_by_name(void **state) {
    (void)state;
    char *directory = test_directory();
    for (size_t d = 0; d < sizeof damages / sizeof *damages; d++) {
        struct hub *hub;
        struct tensor weight;
        struct error err;
        bool found;
        write_damaged(directory, d);
        put_config(directory, config_of(damages[d].kind));
        assert_ok(hub_open(&hub, directory, &err), &err);
        if (hub_find_weight(hub, damages[d].weight, &weight, &found, &err))
            fail_msg("%s → %s: read", damages[d].from, damages[d].to);
        assert_non_null(strstr(err.what, damages[d].weight));
        if (!strstr(err.what, damages[d].says)) fail_msg("%s: %s", damages[d].from, err.what);
        hub_close(&hub);
    }
    test_remove_directory(directory);
}

static void other_ways_of_quantising_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *says;
        bool opens;
    } configs[] = {
        {"{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", "gptq", false},
        {"{\"quantization_config\":{\"bits\":4}}", "quant_method", false},
        {"{\"quantization\":{\"bits\":4,\"group_size\":64,\"mode\":\"mxfp4\"}}", "groups of 64", true},
        {"{\"quantization\":{\"bits\":8,\"group_size\":32,\"mode\":\"mxfp4\"}}", "mxfp4 with 8 bits", true},
        {"{\"quantization\":{\"bits\":8,\"group_size\":32,\"mode\":\"mxfp8\"}}", "mxfp8", true},
        {"{\"quantization\":{\"bits\":4,\"group_size\":16,\"mode\":\"nvfp4\"}}", "nvfp4", true},
        {"{\"quantization\":{\"bits\":4,\"group_size\":64,\"b\":{\"bits\":4,\"group_size\":16,\"mode\":"
         "\"nvfp4\"}}}",
         "nvfp4", true},
        {"{\"quantization\":{\"bits\":7,\"group_size\":64}}", "7 bits", true},
        {"{\"quantization\":{\"bits\":-4,\"group_size\":100000000000}}", "-4 bits", true},
        {"{\"quantization\":7}", "0 bits", true},
    };
    char *directory = test_directory();
    write_damaged(directory, other_scales);
    for (size_t c = 0; c < sizeof configs / sizeof *configs; c++) {
        struct hub *hub;
        struct tensor weight;
        struct error err;
        bool found;
        put_config(directory, configs[c].config);
        bool opened = hub_open(&hub, directory, &err);
        assert_int_equal(opened, configs[c].opens);
        if (opened) assert_false(hub_find_weight(hub, "b.weight", &weight, &found, &err));
        if (!strstr(err.what, configs[c].says)) fail_msg("%s: %s", configs[c].config, err.what);
        hub_close(&hub);
    }
    test_remove_directory(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_read_as_they_lie),
        cmocka_unit_test(damaged_weights_are_refused_by_name),
        cmocka_unit_test(other_ways_of_quantising_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
