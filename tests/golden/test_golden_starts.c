/* Starts that are made of the weights (PiSSA, OLoRA, LoftQ), beside PEFT's of the same models
 * (tests/golden/make_starts.py).
 *
 * Singular vectors have no sign, so products are compared: B A, relative to PEFT's by Frobenius' norm. PEFT
 * decomposes in f32, and knows the last vector that it takes to some 2⁻²⁴ σ₁ over the gap behind it, which is
 * 4e-3 σ₁ in one of these modules: 9e-5 from the exact one. Ours are decomposed in f64 (4e-8). */
#include "support/test.h"

#include <math.h>
#include <stdio.h>

#include "base/json.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "model/method_init.h"
#include "score/engine.h"

static const char *all[] = {"all-linear"}, *three[] = {"q_proj", "o_proj", "down_proj"};
static struct method_pattern seven[] = {{"o_proj", 7}};

static const struct {
    const char *name;
    struct method_rules rules;
    enum method_init init;
    bool rslora;
    enum dtype base;
} cases[] = {
    {"pissa",
     {.targets = all, .target_count = 1, .rank = 4, .alpha = 8},
     METHOD_INIT_PISSA,
     false,
     DTYPE_F32},
    {"pissa-rslora",
     {.targets = three, .target_count = 3, .rank = 4, .alpha = 3, .ranks = seven, .rank_count = 1},
     METHOD_INIT_PISSA,
     true,
     DTYPE_F32},
    {"olora",
     {.targets = all, .target_count = 1, .rank = 4, .alpha = 6},
     METHOD_INIT_OLORA,
     false,
     DTYPE_F32},
    {"loftq",
     {.targets = all, .target_count = 1, .rank = 4, .alpha = 4},
     METHOD_INIT_LOFTQ,
     false,
     DTYPE_NF4},
};

struct opened {
    struct model *model;
    struct safetensors *want;
    struct device *device;
    const struct device_ops *ops;
    struct engine engine;
};

static void open_case(struct opened *o, size_t i, int threads) {
    char path[512];
    json_t *golden;
    struct error err;
    struct method method = {0};
    struct device_options device = {.threads = threads};
    struct state_options options = {.base = cases[i].base};
    snprintf(path, sizeof path, "%s/golden/starts/%s/golden.json", TEST_DATA, cases[i].name);
    assert_ok(json_read_file(&golden, path, 0, &err), &err);
    snprintf(path, sizeof path, "%s/golden/data/%s", TEST_DATA,
             json_string_value(json_object_get(golden, "model")));
    json_decref(golden);
    assert_ok(model_open(&o->model, path, &err), &err);
    snprintf(path, sizeof path, "%s/golden/starts/%s/start.safetensors", TEST_DATA, cases[i].name);
    assert_ok(safetensors_open(&o->want, path, &err), &err);
    assert_ok(method_build(&method, &o->model->config, &cases[i].rules, &err), &err);
    method.rslora = cases[i].rslora;
    method.init = cases[i].init;
    o->ops = device_find("cpu", &err);
    assert_ok(o->ops && o->ops->open(&o->device, &device, &err), &err);
    assert_ok(engine_open(&o->engine, o->ops, o->device, o->model, &method, &options, &err), &err);
    assert_ok(engine_start(&o->engine, 64, &err) && engine_init_trained(&o->engine, 0, &err), &err);
    method_release(&method);
}

static void close_case(struct opened *o) {
    engine_close(&o->engine);
    o->ops->close(&o->device);
    safetensors_close(&o->want);
    model_close(&o->model);
}

static float *download(struct opened *o, int row) {
    struct error err;
    size_t bytes = (size_t)o->engine.state.table.rows[row].bytes;
    float *numbers = mem_alloc(bytes);
    assert_ok(o->ops->download(o->engine.store, row, numbers, bytes, &err), &err);
    return numbers;
}

static double product_at(const float *b, const float *a, int64_t rank, int64_t columns, int64_t r,
                         int64_t c) {
    double sum = 0;
    for (int64_t k = 0; k < rank; k++) sum += (double)b[r * rank + k] * (double)a[k * columns + c];
    return sum;
}

static const float *wanted(struct opened *o, size_t module, const char *side) {
    char path[96], name[200];
    module_path((int64_t)(module / module_count), (int)(module % module_count), path);
    snprintf(name, sizeof name, "base_model.model.%s.lora_%s.weight", path, side);
    const struct tensor *tensor = safetensors_find(o->want, name);
    assert_non_null(tensor);
    return tensor->data;
}

/* ‖B A - PEFT's‖ / ‖PEFT's‖ */
static double difference(struct opened *o, size_t module) {
    const struct model_state *state = &o->engine.state;
    int64_t rows, columns, rank = state->method.parts[module].rank;
    module_shape(&o->model->config, (int)(module % module_count), &rows, &columns);
    float *a = download(o, model_state_part(state, module, PART_LORA_A)->row),
          *b = download(o, model_state_part(state, module, PART_LORA_B)->row);
    const float *want_a = wanted(o, module, "A"), *want_b = wanted(o, module, "B");
    double squares = 0, size = 0;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            double want = product_at(want_b, want_a, rank, columns, r, c),
                   d = product_at(b, a, rank, columns, r, c) - want;
            squares += d * d;
            size += want * want;
        }
    mem_free(a);
    mem_free(b);
    return sqrt(squares / size);
}

static void check_case(size_t i, double allowed) {
    struct opened o;
    size_t seen = 0;
    double worst = 0;
    open_case(&o, i, 2);
    const struct model_state *state = &o.engine.state;
    for (size_t m = 0; m < state->method.count; m++) {
        if (!state->method.parts[m].rank) continue;
        double d = difference(&o, m);
        if (!(d <= worst)) worst = d;
        seen++;
        if (!method_is_subtracted(&state->method)) continue;
        float *a = download(&o, model_state_part(state, m, PART_LORA_A)->row),
              *start = download(&o, state->starts[m].a);
        assert_memory_equal(a, start, (size_t)state->table.rows[state->starts[m].a].bytes);
        mem_free(a);
        mem_free(start);
    }
    assert_int_equal(2 * seen, safetensors_count(o.want));
    print_message("  %-14s %zu modules: worst product off by %.1e\n", cases[i].name, seen, worst);
    assert_true(worst <= allowed);
    close_case(&o);
}

static void products_are_pefts(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_case(i, 1e-4);
}

static void threads_leave_the_bits_alone(void **state) {
    (void)state;
    struct opened one, four;
    open_case(&one, 0, 1);
    open_case(&four, 0, 4);
    float *a = download(&one, one.engine.state.trained), *b = download(&four, four.engine.state.trained);
    assert_memory_equal(a, b, (size_t)one.engine.state.table.rows[one.engine.state.trained].bytes);
    mem_free(a);
    mem_free(b);
    close_case(&one);
    close_case(&four);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_pefts),
        cmocka_unit_test(threads_leave_the_bits_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
