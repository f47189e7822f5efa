/* Ten steps of each optimizer against torch and transformers (make_optimizers.py), by the reference and by
 * every kernel that this machine can run; the same bits on 1 to 4 threads.
 *
 * Tolerance: f32 on both sides, ten steps of about ten roundings each on numbers of size 1: 100 · 2⁻²⁴ <
 * 1e-5. Muon's five rounds make rounding up to 3.4445⁵ = 485 times as large, in updates of size 1e-2: 1e-4.
 *
 * Codes of AdamW in 8 bits are equal, or neighbours where a moment lies so near the middle of two levels that
 * its last bits decide: at most one in a thousand, as a level is wider than 2⁻¹² of itself by far and moments
 * differ by some 2⁻²² of themselves. A neighbour moves the moment by at most the gap of two levels, which is
 * 0.0071 of the block's largest; hence parameters whose codes are equal are compared at 1e-5. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "device/device.h"
#include "model/groups.h"
#include "model/optimizer.h"

enum { most_values = 256, most_groups = 4 };
enum { ROW_STEP, ROW_PARAMETERS, ROW_GRADIENTS, ROW_STATES }; /* of the state table, then the average */

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
               {"average", HYPER_AVERAGE},   {"rounds", HYPER_ROUNDS},
               {"adjust", HYPER_ADJUST}};

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
        part->hidden = part->columns > 1;
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
    const int normed[2] = {gradients, -1};
    int norm = graph_output(graph, graph_emit(graph, OP_GRADIENT_NORM, normed, NULL, DTYPE_F32, "norm"), 0);
    int inputs[op_max_inputs] = {
        norm,
        graph_input(graph, INPUT_HYPER, DTYPE_F32, COUNT_FIXED, (int64_t)t->parts.groups * HYPER_COLUMNS),
        graph_state(graph, 0, DTYPE_I32, 1, &one, "step"),
        graph_state(graph, 1, DTYPE_F32, 1, &t->elements, "parameters"), gradients};
    for (int s = 0; s < optimizer_most_states; s++) {
        int64_t size = row->states[s].elements ? 0 : t->elements;
        enum dtype dtype = row->states[s].dtype;
        inputs[5 + s] = -1;
        if (!row->states[s].name || (row->states[s].momentum && !momentum)) continue;
        for (int p = 0; row->states[s].elements && p < t->parts.count; p++) {
            t->items[p].slot[s] = size;
            size += row->states[s].elements(&t->items[p]);
        }
        int at = state_add(state, STATE_OPTIMIZER, dtype, 1, &size, row->states[s].name);
        inputs[5 + s] = graph_state(graph, at, dtype, 1, &size, row->states[s].name);
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

/* An optimizer over a block of parts, on a device. */
struct session {
    struct graph graph;
    struct state_table state;
    struct plan plan;
    struct device *device;
    struct store *store;
    struct program *program;
};

static void session_open(struct session *s, struct table *t, const struct optimizer_row *row, bool momentum,
                         const char *device_name, const struct device_options *options) {
    struct error err;
    build(&s->graph, &s->state, t, row, momentum);
    ops = device_find(device_name, &err);
    assert_ok(ops && ops->open(&s->device, options, &err), &err);
    assert_ok(plan_build(&s->plan, &s->graph, ask_workspace, s->device, &err), &err);
    assert_ok(ops->store_open(s->device, &s->state, &s->store, &err), &err);
    assert_ok(!ops->store_fill || ops->store_fill(s->store, &err), &err);
    assert_ok(ops->reserve(s->store, s->plan.arena_bytes + s->plan.workspace_bytes, &err), &err);
    assert_ok(ops->compile(s->device, &s->plan, s->store, &s->program, &err), &err);
}

static void session_step(struct session *s, const float *gradients, float hyper[][HYPER_COLUMNS]) {
    struct error err;
    struct binding binding = {.inputs = {[INPUT_HYPER] = hyper}};
    assert_ok(ops->upload(s->store, ROW_GRADIENTS, gradients, s->state.rows[ROW_GRADIENTS].bytes, &err) &&
                  ops->run(s->program, &binding, &err),
              &err);
}

static void session_read(struct session *s, int row, void *out) {
    struct error err;
    assert_ok(ops->download(s->store, row, out, s->state.rows[row].bytes, &err), &err);
}

static void session_close(struct session *s) {
    ops->program_close(&s->program);
    ops->store_close(&s->store);
    ops->close(&s->device);
    plan_release(&s->plan);
    graph_release(&s->graph);
    state_table_release(&s->state);
}

/* The block after all steps. */
static void take_steps(const json_t *golden, const json_t *one, const char *device_name,
                       const struct device_options *options, float out[most_values],
                       float average[most_values]) {
    struct error err;
    struct table t;
    struct session s;
    float hyper[most_groups][HYPER_COLUMNS], values[most_values];
    const json_t *gradient;
    size_t i;
    read_parts(&t, json_object_get(golden, "shapes"));
    read_hyper(one, &t, hyper);
    session_open(&s, &t, &optimizer_rows[kind_of(one)], hyper[0][HYPER_MOMENTUM] > 0, device_name, options);
    spread(&t, json_object_get(golden, "start"), values);
    assert_ok(ops->upload(s.store, ROW_PARAMETERS, values, (size_t)t.elements * sizeof(float), &err), &err);
    json_array_foreach(json_object_get(golden, "gradients"), i, gradient) {
        spread(&t, gradient, values);
        session_step(&s, values, hyper);
    }
    memset(out, 0, most_values * sizeof *out);
    memset(average, 0, most_values * sizeof *average);
    session_read(&s, ROW_PARAMETERS, out);
    session_read(&s, s.state.count - 1, average);
    session_close(&s);
}

static void check_equal(const struct table *t, const json_t *flat, const float *got, float allowed,
                        const char *what) {
    float want[most_values];
    spread(t, flat, want);
    for (int64_t i = 0; i < t->elements; i++)
        if (!(fabsf(got[i] - want[i]) <= allowed))
            fail_msg("%s: value %lld is %.9g, torch's %.9g", what, (long long)i, (double)got[i],
                     (double)want[i]);
}

static const struct {
    const char *device;
    struct device_options options;
} variants[] = {{"ref", {.threads = 1}},
                {"cpu", {.threads = 2}},
                {"cpu", {.threads = 2, .mask = "avx512"}},
                {"cpu", {.threads = 2, .mask = "avx2"}}};

static void ten_steps_equal_torch(void **unused) {
    (void)unused;
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
            check_equal(&t, json_object_get(one, "after"), got,
                        kind_of(one) == OPTIMIZER_MUON ? 1e-4f : 1e-5f, what);
            if (json_object_get(one, "average_after"))
                check_equal(&t, json_object_get(one, "average_after"), average, 1e-5f, what);
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
    assert_true(c >= OPTIMIZER_KINDS - 1); /* AdamW in 8 bits has a file of its own */
    json_decref(golden);
}

/* ---- AdamW in 8 bits ---- */

static size_t read_digits(const json_t *digits, void *out, size_t most) {
    const char *at = json_string_value(digits);
    size_t bytes = strlen(at) / 2;
    assert_true(bytes <= most);
    for (size_t i = 0; i < bytes; i++) {
        char pair[3] = {at[2 * i], at[2 * i + 1], 0};
        ((unsigned char *)out)[i] = (unsigned char)strtoul(pair, NULL, 16);
    }
    return bytes;
}

/* make_optimizers.py's formula. */
static void eight_numbers(float *out, int64_t n, int64_t step) {
    static const double size[] = {1, 0.125, 0x1p-6, 0x1p-9, 0x1p-12, 0x1p-15, 0x1p-18};
    for (int64_t i = 0; i < n; i++) {
        double number = (double)((i * 2654435761 + step * 40503 * 65537) % 4294967296) / 0x1p31 - 1;
        out[i] = (float)(i / 256 % 5 == 3 ? 0 : number * size[i % 7]);
    }
}

enum { eight_most = 8320 };

struct eight {
    float parameters[eight_most], scales[eight_most * 2];
    uint8_t codes[eight_most * 2];
};

static void eight_steps(const json_t *golden, struct table *t, const char *device,
                        const struct device_options *options, struct eight *out) {
    struct session s;
    struct error err;
    float hyper[most_groups][HYPER_COLUMNS], values[eight_most];
    read_parts(t, json_object_get(golden, "shapes"));
    assert_true(t->elements <= eight_most);
    read_hyper(golden, t, hyper);
    session_open(&s, t, &optimizer_rows[OPTIMIZER_ADAMW8BIT], false, device, options);
    memset(values, 0, sizeof values);
    for (int p = 0; p < t->parts.count; p++)
        eight_numbers(values + t->items[p].offset, op_part_elements(&t->items[p]), 90 + p);
    assert_ok(ops->upload(s.store, ROW_PARAMETERS, values, (size_t)t->elements * sizeof(float), &err), &err);
    for (int step = 0; step < json_integer_value(json_object_get(golden, "steps")); step++) {
        for (int p = 0; p < t->parts.count; p++)
            eight_numbers(values + t->items[p].offset, op_part_elements(&t->items[p]), step + 3 * p);
        session_step(&s, values, hyper);
    }
    memset(out, 0, sizeof *out);
    session_read(&s, ROW_PARAMETERS, out->parameters);
    session_read(&s, ROW_STATES, out->codes);
    session_read(&s, ROW_STATES + 1, out->scales);
    session_close(&s);
}

/* Of the first part, the one that is quantised. `neighbour` says of each element whether a code differs. */
static void check_eight_state(const json_t *golden, const struct table *t, const struct eight *got,
                              bool *neighbour, const char *what) {
    const struct op_part *part = &t->items[0];
    int64_t n = op_part_elements(part), differ = 0;
    for (int s = 0; s < 2; s++) {
        uint8_t codes[eight_most];
        float largest[eight_most / optimizer_block];
        read_digits(json_array_get(json_object_get(golden, "codes"), (size_t)s), codes, sizeof codes);
        read_digits(json_array_get(json_object_get(golden, "largest"), (size_t)s), largest, sizeof largest);
        for (int64_t i = 0; i < n; i++) {
            int off = abs(got->codes[s * optimizer_code_stride(part) + i] - codes[i]);
            if (off > 1) fail_msg("%s: code %lld of moment %d is %d levels off", what, (long long)i, s, off);
            neighbour[i] |= off != 0;
            differ += off;
        }
        for (int64_t b = 0; b < optimizer_blocks(part); b++)
            if (!(fabsf(got->scales[s * optimizer_scale_stride(part) + b] - largest[b]) <=
                  2e-5f * largest[b]))
                fail_msg("%s: block %lld, moment %d: %.9g, want %.9g", what, (long long)b, s,
                         (double)got->scales[s * optimizer_scale_stride(part) + b], (double)largest[b]);
    }
    if (differ > n / 500) fail_msg("%s: %lld codes differ", what, (long long)differ);
}

static void check_eight(const json_t *golden, const struct table *t, const struct eight *got,
                        const char *what) {
    bool neighbour[eight_most] = {false};
    int64_t seldom = json_integer_value(json_object_get(golden, "seldom"));
    check_eight_state(golden, t, got, neighbour, what);
    for (int p = 0; p < t->parts.count; p++) {
        float want[eight_most];
        read_digits(json_array_get(json_object_get(golden, "after"), (size_t)p), want, sizeof want);
        int64_t each = p ? seldom : 1;
        for (int64_t i = 0; i < op_part_elements(&t->items[p]); i += each) {
            float value = got->parameters[t->items[p].offset + i];
            if (!(fabsf(value - want[i / each]) <= 1e-5f) && (p || !neighbour[i]))
                fail_msg("%s: value %lld of part %d is %.9g, bitsandbytes' %.9g", what, (long long)i, p,
                         (double)value, (double)want[i / each]);
        }
    }
}

static void eight_bits_equal_bitsandbytes(void **unused) {
    (void)unused;
    static struct eight got, first;
    struct error err;
    json_t *golden;
    struct table t;
    assert_ok(json_read_file(&golden, TEST_DATA "/golden/optimizer_8bit.json", 0, &err), &err);
    for (int s = 0; s < 2; s++) {
        float want[optimizer_codes], map[optimizer_codes];
        read_digits(json_array_get(json_object_get(golden, "maps"), (size_t)s), want, sizeof want);
        optimizer_map(!s, map);
        assert_memory_equal(want, map, sizeof map);
    }
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        char what[128];
        snprintf(what, sizeof what, "8 bits on %s (%s masked)", variants[v].device,
                 variants[v].options.mask ? variants[v].options.mask : "nothing");
        eight_steps(golden, &t, variants[v].device, &variants[v].options, &got);
        check_eight(golden, &t, &got, what);
    }
    for (int threads = 1; threads <= 4; threads++) {
        struct device_options options = {.threads = threads};
        eight_steps(golden, &t, "cpu", &options, threads > 1 ? &got : &first);
        if (threads > 1) assert_memory_equal(&first, &got, sizeof got);
    }
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ten_steps_equal_torch),
                                       cmocka_unit_test(eight_bits_equal_bitsandbytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
