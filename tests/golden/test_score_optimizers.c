/* Ten steps of each optimizer against torch and transformers (make_optimizers.py), by the reference and by
 * every kernel that this machine can run; the same bits on 1 to 4 threads.
 *
 * Tolerance: f32 on both sides, ten steps of about ten roundings each on numbers of size 1: 100 · 2⁻²⁴ <
 * 1e-5. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "device/device.h"
#include "model/groups.h"
#include "model/optimizer.h"

enum { most_values = 256, most_groups = 4 };

struct table {
    struct op_part items[8];
    struct op_parts parts;
    int64_t elements; /* of the block */
};

static const struct {
    const char *name;
    enum hyper column;
} columns[] = {{"rate", HYPER_RATE},         {"decay", HYPER_DECAY},
               {"max_norm", HYPER_MAX_NORM}, {"beta1", HYPER_BETA1},
               {"beta2", HYPER_BETA2},       {"epsilon", HYPER_EPSILON},
               {"momentum", HYPER_MOMENTUM}, {"dampening", HYPER_DAMPENING},
               {"nesterov", HYPER_NESTEROV}, {"decay_rate", HYPER_DECAY_RATE},
               {"clip", HYPER_CLIP},         {"scale", HYPER_SCALE},
               {"average", HYPER_AVERAGE}};

static void read_parts(struct table *t, const json_t *shapes) {
    const json_t *shape;
    size_t i;
    memset(t, 0, sizeof *t);
    t->parts = (struct op_parts){.items = t->items, .groups = 1};
    json_array_foreach(shapes, i, shape) {
        struct op_part *part = &t->items[t->parts.count++];
        part->offset = t->elements;
        part->rows = json_integer_value(json_array_get(shape, 0));
        part->columns = json_integer_value(json_array_get(shape, 1));
        t->elements += (part->rows * part->columns + 15) / 16 * 16;
    }
}

/* The parts stand side by side in the file, at their offsets in the block. */
static void spread(const struct table *t, const json_t *flat, float *out) {
    size_t from = 0;
    memset(out, 0, most_values * sizeof *out);
    for (int p = 0; p < t->parts.count; p++)
        for (int64_t i = 0; i < t->items[p].rows * t->items[p].columns; i++)
            out[t->items[p].offset + i] = (float)json_number_value(json_array_get(flat, from++));
}

static enum optimizer_kind kind_of(const json_t *one) {
    const char *name = json_string_value(json_object_get(one, "optimizer"));
    for (int k = 0; k < OPTIMIZER_KINDS; k++)
        if (!strcmp(optimizer_rows[k].name, name)) return (enum optimizer_kind)k;
    fail_msg("there is no optimizer %s", name);
    return OPTIMIZER_ADAMW;
}

/* norm and update of a block, as model/build.c emits them. */
static void build(struct graph *graph, struct state_table *state, struct table *t,
                  const struct optimizer_row *row, bool momentum) {
    int64_t one = 1;
    struct attributes attributes = {.parts = &t->parts};
    graph_init(graph);
    state_table_init(state);
    state_add(state, STATE_OPTIMIZER, DTYPE_I32, 1, &one, "step");
    state_add(state, STATE_TRAINED, DTYPE_F32, 1, &t->elements, "parameters");
    state_add(state, STATE_GRADIENT, DTYPE_F32, 1, &t->elements, "gradients");
    int gradients = graph_state(graph, 2, DTYPE_F32, 1, &t->elements, "gradients");
    int norm =
        graph_output(graph, graph_emit(graph, OP_GRADIENT_NORM, &gradients, NULL, DTYPE_F32, "norm"), 0);
    int inputs[op_max_inputs] = {
        norm,
        graph_input(graph, INPUT_HYPER, DTYPE_F32, COUNT_FIXED, (int64_t)t->parts.groups * HYPER_COLUMNS),
        graph_state(graph, 0, DTYPE_I32, 1, &one, "step"),
        graph_state(graph, 1, DTYPE_F32, 1, &t->elements, "parameters"), gradients};
    for (int s = 0; s < optimizer_most_states; s++) {
        int64_t size = row->states[s].elements ? 0 : t->elements;
        inputs[5 + s] = -1;
        if (!row->states[s].name || (row->states[s].momentum && !momentum)) continue;
        for (int p = 0; row->states[s].elements && p < t->parts.count; p++) {
            t->items[p].slot = size;
            size += row->states[s].elements(&t->items[p]);
        }
        int at = state_add(state, STATE_OPTIMIZER, DTYPE_F32, 1, &size, row->states[s].name);
        inputs[5 + s] = graph_state(graph, at, DTYPE_F32, 1, &size, row->states[s].name);
    }
    assert_true(graph_emit(graph, row->op, inputs, &attributes, DTYPE_F32, "update") >= 0);
    int average = state_add(state, STATE_OPTIMIZER, DTYPE_F32, 1, &t->elements, "average");
    inputs[4] = graph_state(graph, average, DTYPE_F32, 1, &t->elements, "average");
    assert_true(graph_emit(graph, OP_AVERAGE, inputs, NULL, DTYPE_F32, "average") >= 0);
}

/* INPUT_HYPER: the case's numbers, and of its groups where its parts have names. */
static void read_hyper(const json_t *one, struct table *t, float hyper[most_groups][HYPER_COLUMNS]) {
    const json_t *numbers = json_object_get(one, "hyper"), *name;
    struct group *groups;
    struct group_rules rules = {.decay = json_number_value(json_object_get(one, "decay")),
                                .b_ratio = json_number_value(json_object_get(one, "b_ratio"))};
    struct error err;
    size_t i;
    memset(hyper, 0, sizeof *hyper * most_groups);
    for (int g = 0; g < most_groups; g++)
        for (i = 0; i < sizeof columns / sizeof *columns; i++)
            hyper[g][columns[i].column] = (float)json_number_value(json_object_get(numbers, columns[i].name));
    if (!json_object_get(one, "names")) return;
    json_array_foreach(json_object_get(one, "names"), i, name)
        snprintf(t->items[i].name, sizeof t->items[i].name, "%s", json_string_value(name));
    assert_ok(groups_assign(&t->parts, &rules, &groups, &err), &err);
    assert_in_range(t->parts.groups, 2, most_groups);
    for (int g = 0; g < t->parts.groups; g++) {
        hyper[g][HYPER_RATE] *= (float)groups[g].rate;
        hyper[g][HYPER_DECAY] = (float)groups[g].decay;
    }
    mem_free(groups);
}

static const struct device_ops *ops;

static size_t ask_workspace(const void *device, const struct graph *graph, const struct node *node) {
    return ops->workspace(device, graph, node);
}

/* The block after all steps. */
static void take_steps(const json_t *golden, const json_t *one, const char *device_name,
                       const struct device_options *options, float out[most_values],
                       float average[most_values]) {
    struct error err;
    struct table t;
    struct graph graph;
    struct state_table state;
    struct plan plan;
    struct device *device;
    struct store *store;
    struct program *program;
    float hyper[most_groups][HYPER_COLUMNS], values[most_values];
    const json_t *gradient;
    size_t i;
    read_parts(&t, json_object_get(golden, "shapes"));
    read_hyper(one, &t, hyper);
    build(&graph, &state, &t, &optimizer_rows[kind_of(one)], hyper[0][HYPER_MOMENTUM] > 0);
    ops = device_find(device_name, &err);
    assert_ok(ops && ops->open(&device, options, &err), &err);
    assert_ok(plan_build(&plan, &graph, ask_workspace, device, &err), &err);
    assert_ok(ops->store_open(device, &state, &store, &err), &err);
    assert_ok(ops->reserve(store, plan.arena_bytes + plan.workspace_bytes, &err), &err);
    assert_ok(ops->compile(device, &plan, store, &program, &err), &err);
    size_t bytes = (size_t)t.elements * sizeof(float);
    spread(&t, json_object_get(golden, "start"), values);
    assert_ok(ops->upload(store, 1, values, bytes, &err), &err);
    json_array_foreach(json_object_get(golden, "gradients"), i, gradient) {
        struct binding binding = {.inputs = {[INPUT_HYPER] = hyper}};
        spread(&t, gradient, values);
        assert_ok(ops->upload(store, 2, values, bytes, &err) && ops->run(program, &binding, &err), &err);
    }
    memset(out, 0, most_values * sizeof *out);
    memset(average, 0, most_values * sizeof *average);
    assert_ok(ops->download(store, 1, out, bytes, &err) &&
                  ops->download(store, state.count - 1, average, bytes, &err),
              &err);
    ops->program_close(&program);
    ops->store_close(&store);
    ops->close(&device);
    plan_release(&plan);
    graph_release(&graph);
    state_table_release(&state);
}

static void check_equal(const struct table *t, const json_t *flat, const float *got, const char *what) {
    float want[most_values];
    spread(t, flat, want);
    for (int64_t i = 0; i < t->elements; i++)
        if (!(fabsf(got[i] - want[i]) <= 1e-5f))
            fail_msg("%s: value %lld is %.9g, torch's %.9g", what, (long long)i, (double)got[i],
                     (double)want[i]);
}

static void ten_steps_equal_torch(void **unused) {
    (void)unused;
    static const struct {
        const char *device;
        struct device_options options;
    } variants[] = {{"ref", {.threads = 1}},
                    {"cpu", {.threads = 2}},
                    {"cpu", {.threads = 2, .mask = "avx512"}},
                    {"cpu", {.threads = 2, .mask = "avx2"}}};
    struct error err;
    json_t *golden, *one;
    size_t c;
    assert_ok(json_read_file(&golden, TEST_DATA "/golden/optimizers.json", 0, &err), &err);
    json_array_foreach(json_object_get(golden, "cases"), c, one) {
        struct table t;
        float got[most_values], average[most_values], first[2][most_values];
        read_parts(&t, json_object_get(golden, "shapes"));
        for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
            char what[128];
            snprintf(what, sizeof what, "case %zu (%s) on %s (%s masked)", c,
                     json_string_value(json_object_get(one, "optimizer")), variants[v].device,
                     variants[v].options.mask ? variants[v].options.mask : "nothing");
            take_steps(golden, one, variants[v].device, &variants[v].options, got, average);
            check_equal(&t, json_object_get(one, "after"), got, what);
            if (json_object_get(one, "average_after"))
                check_equal(&t, json_object_get(one, "average_after"), average, what);
        }
        for (int threads = 1; threads <= 4; threads++) {
            struct device_options options = {.threads = threads};
            take_steps(golden, one, "cpu", &options, threads > 1 ? got : first[0],
                       threads > 1 ? average : first[1]);
            if (threads == 1) continue;
            assert_memory_equal(first[0], got, sizeof got);
            assert_memory_equal(first[1], average, sizeof average);
        }
    }
    assert_true(c >= OPTIMIZER_KINDS);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ten_steps_equal_torch)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
