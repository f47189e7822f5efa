/* Writing models: types and fallbacks, what is refused, memory, threads, shards, failing files. */
#include "support/test.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/process.h"
#include "format/gguf.h"
#include "format/hub.h"
#include "model/layout.h"
#include "model/rope.h"
#include "model/save.h"
#include "model/sketch.h"
#include "tensor/rowcodec.h"
#include "tensor/stored.h"

#define TINY TEST_DATA "/golden/data/llama-untied"

/* ---- sketches, and their saving ---- */

struct scene {
    char *directory, *config, *path;
    struct model *model;
    struct sketch sketch;
    struct save save;
    uint64_t most; /* anonymous memory, the highest seen between slabs */
};

static bool draw(void *user, size_t index, int64_t row, float *out) {
    const struct scene *scene = user;
    sketch_row(&scene->sketch, index, row, out);
    return true;
}

static bool watch(void *user, uint64_t done, uint64_t total, struct error *err) {
    struct scene *scene = user;
    struct process_memory memory;
    (void)err;
    assert_true(done < total);
    process_memory(&memory);
    if (memory.anonymous > scene->most) scene->most = memory.anonymous;
    return true;
}

static void scene_open(struct scene *scene, const char *config, const char *name) {
    struct error err;
    memset(scene, 0, sizeof *scene);
    scene->directory = test_directory();
    scene->config = fs_join(scene->directory, "config.json");
    scene->path = fs_join(scene->directory, name);
    assert_ok(fs_write_atomic(scene->config, config, strlen(config), &err), &err);
    assert_ok(sketch_open(&scene->model, scene->config, &err), &err);
    assert_ok(sketch_init(&scene->sketch, scene->model, 5, &err), &err);
    scene->save = (struct save){.model = scene->model,
                                .path = scene->path,
                                .threads = 2,
                                .row = draw,
                                .progress = watch,
                                .user = scene};
}

static void scene_close(struct scene *scene) {
    model_close(&scene->model);
    test_remove_directory(scene->directory);
    mem_free(scene->config);
    mem_free(scene->path);
}

/* Writes the scene's model anew. */
static json_t *save_as(struct scene *scene, enum container to, const char *type) {
    struct error err;
    json_t *report;
    assert_ok(fs_remove_tree(scene->path, &err), &err);
    scene->save.to = to;
    assert_ok(save_type_find(type, to, &scene->save.type, &err), &err);
    assert_ok(model_save(&scene->save, &report, &err), &err);
    return report;
}

#define SHAPE(hidden, ffn, vocabulary, more)                                                  \
    "{\"model_type\": \"llama\", \"hidden_size\": " #hidden ", \"intermediate_size\": " #ffn  \
    ", \"tie_word_embeddings\": true, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, " \
    "\"vocab_size\": " #vocabulary " " more "}"

static enum dtype dtype_in(const char *path, const char *name) {
    struct gguf *gguf;
    struct error err;
    assert_ok(gguf_open(&gguf, path, &err), &err);
    enum dtype dtype = gguf_find_tensor(gguf, name)->dtype;
    gguf_close(&gguf);
    return dtype;
}

/* ---- types ---- */

/* Rows of 256: every type has whole blocks. Bounds: a quantiser of b bits over a normal of deviation 1, whose
 * blocks reach to about 2.5, errs by 5 / 2^b / √12 and is given a third more. */
static void every_type_is_written_and_read(void **state) {
    (void)state;
    struct scene scene;
    scene_open(&scene, SHAPE(256, 512, 300, ""), "m.gguf");
    for (size_t i = 0; i < save_type_count; i++) {
        const struct dtype_row *row = dtype_row(save_types[i].dtype);
        if (!(save_types[i].containers & 1 << CONTAINER_GGUF)) continue;
        json_t *report = save_as(&scene, CONTAINER_GGUF, row->name);
        struct model *model;
        struct error err;
        assert_ok(model_open(&model, scene.path, &err), &err);
        assert_int_equal(model_weight(model, WEIGHT_UP, 0)->dtype, save_types[i].dtype);
        assert_int_equal(model_weight(model, WEIGHT_EMBEDDING, 0)->dtype, save_types[i].head); /* tied */
        assert_int_equal(model_weight(model, WEIGHT_OUTPUT_NORM, 0)->dtype, DTYPE_F32);
        assert_int_equal(json_array_size(json_object_get(report, "fallbacks")), 0);
        int bits = (int)(8 * row->bytes / row->block);
        double error = json_real_value(json_object_get(report, "relative_error"));
        double most = bits > 15 ? 0x1p-8 : 5.0 / pow(2, bits) / sqrt(12) * 1.34;
        if (!(error <= most) || (error == 0) != (save_types[i].dtype == DTYPE_F32))
            fail_msg("%s: relative error %g, at most %g", row->name, error, most);
        model_close(&model);
        json_decref(report);
    }
    scene_close(&scene);
}

/* A view of a weight out of the tensors that it became. */
static struct stored view_of(const struct hub *hub, const char *module, enum dtype dtype, int64_t columns) {
    static const struct {
        enum tensor_part part;
        const char *suffix;
    } rows[] = {{PART_SCALES, "weight.absmax"},
                {PART_LEVELS, "weight.nested_quant_map"},
                {PART_FACTORS, "weight.nested_absmax"},
                {PART_SCALES, "SCB"},
                {PART_SCALES, "scales"},
                {PART_OFFSETS, "biases"}};
    char name[128];
    snprintf(name, sizeof name, "%s.weight", module);
    struct stored out = {.dtype = dtype, .columns = columns, .codes = hub_find_tensor(hub, name)->data};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(name, sizeof name, "%s.%s", module, rows[i].suffix);
        const struct tensor *tensor = hub_find_tensor(hub, name);
        if (tensor) out.part[rows[i].part] = (struct stored_part){tensor->data, tensor->dtype};
    }
    return out;
}

/* nf4's offset of the scales stands as text in the state. */
static float offset_of(const struct hub *hub, const char *module) {
    char name[128];
    struct error err;
    json_t *state;
    snprintf(name, sizeof name, "%s.weight.quant_state.bitsandbytes__nf4", module);
    const struct tensor *tensor = hub_find_tensor(hub, name);
    assert_ok(json_read(&state, tensor->data, (size_t)tensor->bytes, "state", 1, &err), &err);
    float offset = (float)json_number_value(json_object_get(state, "nested_offset"));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(state, "shape"), 0)), 512);
    json_decref(state);
    return offset;
}

/* What bitsandbytes and MLX would read is close to what was drawn. Bounds: as above, and a code of 8 bits for
 * rows of 256 numbers, which reach to 3 deviations: 6 / 2^b / √12 and some more for groups of 128. */
static void types_with_scales_apart_become_several_tensors(void **state) {
    (void)state;
    static const struct {
        const char *type;
        enum container to;
        double most;
    } rows[] = {{"nf4", CONTAINER_SAFETENSORS, 0.1},    {"int8", CONTAINER_SAFETENSORS, 0.01},
                {"mlx-4bit", CONTAINER_MLX, 0.1},       {"mlx-8bit-g32", CONTAINER_MLX, 0.01},
                {"mlx-3bit-g128", CONTAINER_MLX, 0.24}, {"mlx-2bit", CONTAINER_MLX, 0.5},
                {"mxfp4", CONTAINER_MLX, 0.13}};
    static const char module[] = "model.layers.0.mlp.up_proj";
    struct scene scene;
    scene_open(&scene, SHAPE(256, 512, 300, ""), "m");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hub *hub;
        struct error err;
        float line[256], drawn[256], offset;
        double change = 0, squares = 0;
        json_decref(save_as(&scene, rows[i].to, rows[i].type));
        assert_ok(hub_open(&hub, scene.path, &err), &err);
        struct stored view = view_of(hub, module, scene.save.type->dtype, 256);
        if (view.dtype == DTYPE_NF4) {
            offset = offset_of(hub, module);
            view.part[PART_OFFSETS] = (struct stored_part){&offset, DTYPE_F32};
        }
        for (int64_t r = 0; r < 512; r++) {
            stored_decode(&view, r, 0, 256, line);
            sketch_row(&scene.sketch, layout_index(&scene.model->config, WEIGHT_UP, 0), r, drawn);
            for (int c = 0; c < 256; c++) {
                double d = (double)line[c] - (double)drawn[c];
                change += d * d;
                squares += (double)drawn[c] * (double)drawn[c];
            }
        }
        double error = sqrt(change / squares);
        if (!(error > 0 && error <= rows[i].most)) fail_msg("%s: %g", rows[i].type, error);
        assert_int_equal(hub_find_tensor(hub, "model.norm.weight")->dtype, DTYPE_BF16);
        hub_close(&hub);
    }
    scene_close(&scene);
}

static void rows_that_blocks_do_not_divide_fall_back(void **state) {
    (void)state;
    static const struct {
        const char *type, *hidden, *head;
    } rows[] = {{"q4_k", "q5_0", "q8_0"},    {"q5_k", "q5_1", "q8_0"}, {"q6_k", "q8_0", "q8_0"},
                {"q2_k", "iq4_nl", "q8_0"},  {"q4_0", "q4_0", "q8_0"}, {"q8_0", "q8_0", "q8_0"},
                {"iq4_xs", "iq4_nl", "q8_0"}};
    struct scene scene;
    scene_open(&scene, SHAPE(96, 80, 300, ""), "m.gguf");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *report = save_as(&scene, CONTAINER_GGUF, rows[i].type);
        /* rows of 96: whole blocks of 32, none of 256 */
        assert_string_equal(dtype_row(dtype_in(scene.path, "blk.0.attn_q.weight"))->name, rows[i].hidden);
        assert_string_equal(dtype_row(dtype_in(scene.path, "token_embd.weight"))->name, rows[i].head);
        /* rows of 80: no whole blocks of either */
        assert_int_equal(dtype_in(scene.path, "blk.0.ffn_down.weight"), DTYPE_F16);
        const json_t *fallbacks = json_object_get(report, "fallbacks"), *last;
        assert_true(json_array_size(fallbacks) >= 1);
        last = json_array_get(fallbacks, strcmp(rows[i].type, rows[i].hidden) != 0);
        assert_string_equal(json_string_value(json_object_get(last, "type")), "f16");
        assert_int_equal(json_integer_value(json_object_get(last, "row")), 80);
        json_decref(report);
    }
    scene_close(&scene);
}

static void threads_leave_the_bits_alone(void **state) {
    (void)state;
    struct scene scene;
    struct buf one = {0}, two = {0};
    struct error err;
    scene_open(&scene, SHAPE(256, 512, 300, ""), "m.gguf");
    scene.save.threads = 1;
    json_t *first = save_as(&scene, CONTAINER_GGUF, "q4_k");
    assert_ok(fs_read(scene.path, 0, &one, &err), &err);
    scene.save.threads = 3;
    json_t *second = save_as(&scene, CONTAINER_GGUF, "q4_k");
    assert_ok(fs_read(scene.path, 0, &two, &err), &err);
    assert_true(json_equal(first, second)); /* the error too, to the bit */
    assert_int_equal(one.size, two.size);
    assert_memory_equal(one.data, two.data, one.size);
    buf_release(&one);
    buf_release(&two);
    json_decref(first);
    json_decref(second);
    scene_close(&scene);
}

/* Llama 3's divisors stand in a GGUF file as a tensor of their own, beside weights that are drawn too. */
static void drawn_models_have_the_divisors_of_their_scaling(void **state) {
    (void)state;
    struct scene scene;
    struct error err;
    struct gguf *gguf;
    float want[4];
    scene_open(&scene,
               SHAPE(16, 32, 300,
                     ", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, \"low_freq_factor\": 1, "
                     "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}"),
               "m.gguf");
    json_decref(save_as(&scene, CONTAINER_GGUF, "f32"));
    rope_factors(&scene.model->config, want);
    assert_ok(gguf_open(&gguf, scene.path, &err), &err);
    assert_memory_equal(gguf_find_tensor(gguf, "rope_freqs.weight")->data, want, sizeof want);
    gguf_close(&gguf);
    scene_close(&scene);
}

/* The largest tensor takes 96 MiB as f32; what writing takes beside what was there before is far from twice
 * it. */
static void memory_does_not_grow_with_the_model(void **state) {
    (void)state;
    const uint64_t largest = 49152ull * 512 * 4;
    for (int to = 0; to < 2; to++) {
        struct scene scene;
        struct process_memory before;
        scene_open(&scene, SHAPE(512, 512, 49152, ""), "m");
        process_memory(&before);
        json_decref(save_as(&scene, (enum container)to, to ? "bf16" : "q8_0"));
        assert_true(before.anonymous == 0 || scene.most > 0);
        if (scene.most > before.anonymous + largest / 4)
            fail_msg("%s: %.1f MiB beside the model", container_name((enum container)to),
                     (double)(scene.most - before.anonymous) / 1048576);
        scene_close(&scene);
    }
}

/* ---- directories ---- */

static void large_models_get_shards_and_an_index(void **state) {
    (void)state;
    struct scene scene;
    struct hub *hub;
    struct error err;
    scene_open(&scene, SHAPE(96, 80, 300, ""), "m");
    scene.save.shard_bytes = 60000; /* the embedding takes 57,600 bytes */
    json_t *report = save_as(&scene, CONTAINER_SAFETENSORS, "bf16");
    char *index = fs_join(scene.path, "model.safetensors.index.json"),
         *first = fs_join(scene.path, "model-00001-of-00004.safetensors");
    assert_int_equal(fs_kind_of(index), FS_FILE);
    assert_int_equal(fs_kind_of(first), FS_FILE);
    assert_ok(hub_open(&hub, scene.path, &err), &err);
    assert_int_equal(hub_tensor_count(hub), 11);
    struct model *model;
    assert_ok(model_open(&model, scene.path, &err), &err);
    model_close(&model);
    hub_close(&hub);
    json_decref(report);
    mem_free(index);
    mem_free(first);
    scene_close(&scene);
}

/* ---- rotary scaling ---- */

static void divisors_tell_the_scaling_that_made_them(void **state) {
    (void)state;
    static const struct model_config rows[] = {
        {.head_dim = 128,
         .rope_theta = 500000,
         .rope_scaling = ROPE_LLAMA3,
         .rope_factor = 8,
         .rope_low = 1,
         .rope_high = 4,
         .rope_original = 8192},
        {.head_dim = 64,
         .rope_theta = 500000,
         .rope_scaling = ROPE_LLAMA3,
         .rope_factor = 32,
         .rope_low = 1,
         .rope_high = 4,
         .rope_original = 8192},
        {.head_dim = 128,
         .rope_theta = 10000,
         .rope_scaling = ROPE_LLAMA3,
         .rope_factor = 2.5,
         .rope_low = 1,
         .rope_high = 2.5,
         .rope_original = 1000},
        {.head_dim = 16,
         .rope_theta = 10000,
         .rope_scaling = ROPE_LLAMA3,
         .rope_factor = 8,
         .rope_low = 1,
         .rope_high = 4,
         .rope_original = 32},
        {.head_dim = 64, .rope_theta = 10000, .rope_scaling = ROPE_LINEAR, .rope_factor = 4},
        {.head_dim = 64, .rope_theta = 10000, .rope_scaling = ROPE_PLAIN},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        float factors[64];
        struct model_config found = {.head_dim = rows[i].head_dim, .rope_theta = rows[i].rope_theta};
        rope_factors(&rows[i], factors);
        assert_true(rope_scaling_from(&found, factors));
        assert_int_equal(found.rope_scaling, rows[i].rope_scaling);
        if (found.rope_scaling == ROPE_PLAIN) continue;
        assert_true(found.rope_factor == rows[i].rope_factor);
        if (found.rope_scaling == ROPE_LINEAR) continue;
        assert_true(found.rope_low == rows[i].rope_low && found.rope_high == rows[i].rope_high);
        assert_true(found.rope_original == rows[i].rope_original);
        factors[rows[i].head_dim / 4] *= 1.001f; /* of no such scaling */
        assert_false(rope_scaling_from(&found, factors));
    }
}

/* ---- refusals ---- */

/* A copy of the tiny model with the first number of one tensor replaced. */
static void damage(const char *to, const char *tensor, float number) {
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json",
                                        "tokenizer_config.json"};
    struct error err;
    struct hub *hub;
    assert_ok(fs_make_directories(to, &err), &err);
    assert_ok(hub_open(&hub, TINY, &err), &err);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct buf content = {0};
        char *from = fs_join(TINY, names[i]), *path = fs_join(to, names[i]);
        assert_ok(fs_read(from, 0, &content, &err), &err);
        if (i == 1) { /* the offset of its data is that in the mapped file */
            const struct tensor *found = hub_find_tensor(hub, tensor),
                                *last = hub_tensor(hub, hub_tensor_count(hub) - 1);
            assert_non_null(found);
            size_t from_end = (size_t)((const char *)last->data + last->bytes - (const char *)found->data);
            memcpy(content.data + content.size - from_end, &number, sizeof number);
        }
        assert_ok(fs_write_atomic(path, content.data, content.size, &err), &err);
        buf_release(&content);
        mem_free(from);
        mem_free(path);
    }
    hub_close(&hub);
}

static void numbers_that_cannot_be_stored_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *tensor, *type;
        float number;
        const char *cause;
    } rows[] = {
        {"model.layers.1.mlp.up_proj.weight", "f32", NAN, "holds NaN or infinity"},
        {"model.layers.0.self_attn.q_proj.weight", "f16", INFINITY, "holds NaN or infinity"},
        {"model.norm.weight", "bf16", -INFINITY, "holds NaN or infinity"},
        {"model.layers.0.self_attn.k_proj.weight", "f16", 70000, "too large for f16"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *directory = test_directory(), *from = fs_join(directory, "in"),
             *to = fs_join(directory, "out.gguf");
        struct model *model;
        struct error err;
        struct fs_list list;
        json_t *report;
        damage(from, rows[i].tensor, rows[i].number);
        assert_ok(model_open(&model, from, &err), &err);
        struct save save = {.model = model, .to = CONTAINER_GGUF, .path = to, .threads = 2};
        assert_ok(save_type_find(rows[i].type, save.to, &save.type, &err), &err);
        assert_false(model_save(&save, &report, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        assert_non_null(strstr(err.what, rows[i].tensor));
        assert_non_null(strstr(err.what, rows[i].cause));
        model_close(&model);
        assert_ok(fs_list_open(&list, directory, &err), &err);
        assert_int_equal(list.count, 1);
        fs_list_close(&list);
        mem_free(from);
        mem_free(to);
        test_remove_directory(directory);
    }
}

static void types_that_a_container_lacks_are_refused(void **state) {
    (void)state;
    const struct save_type *type;
    struct error err;
    assert_false(save_type_find("q4_k", CONTAINER_SAFETENSORS, &type, &err));
    assert_int_equal(err.code, ERROR_USAGE);
    assert_non_null(strstr(err.fix, "bf16"));
    assert_null(strstr(err.fix, "q4_k"));
    assert_false(save_type_find("f64", CONTAINER_GGUF, &type, &err));
    assert_false(save_type_find("", CONTAINER_GGUF, &type, &err));
}

static void shapes_that_no_model_has_are_refused(void **state) {
    (void)state;
    static const char *const configs[] = {SHAPE(96, 80, 256, ""), SHAPE(0, 80, 300, ""),
                                          SHAPE(96, 80, 300, ", \"initializer_range\": \"wide\""), "[]", "{"};
    char *directory = test_directory(), *path = fs_join(directory, "config.json");
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        struct model *model;
        struct sketch sketch;
        struct error err;
        assert_ok(fs_write_atomic(path, configs[i], strlen(configs[i]), &err), &err);
        assert_false(sketch_open(&model, path, &err) && sketch_init(&sketch, model, 0, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        model_close(&model);
    }
    mem_free(path);
    test_remove_directory(directory);
}

/* ---- failing files and memory ---- */

struct fault {
    int left;
    bool hit;
};

static int fail_file(void *user, const char *call, const char *path) {
    struct fault *fault = user;
    (void)path;
    if (!strcmp(call, "stat") || fault->hit || fault->left-- > 0) return 0;
    fault->hit = true;
    return ENOSPC;
}

static int fail_memory(void *user, size_t size) {
    struct fault *fault = user;
    (void)size;
    if (fault->hit || fault->left-- > 0) return 0;
    return fault->hit = true;
}

/* The k-th of these fails: an error that says so, and neither the model nor a piece of it. */
static void try_faults(struct scene *scene, enum container to, bool memory) {
    struct error err;
    bool whole = false;
    scene->save.to = to;
    scene->save.type = NULL;
    for (int k = 0; !whole; k++) {
        struct fault fault = {.left = k};
        json_t *report = NULL;
        struct fs_list list;
        memory ? mem_set_fault(fail_memory, &fault) : fs_set_fault(fail_file, &fault);
        bool ok = model_save(&scene->save, &report, &err);
        memory ? mem_set_fault(NULL, NULL) : fs_set_fault(NULL, NULL);
        whole = !fault.hit;
        assert_true(ok || !whole);
        /* What fails after the renaming leaves the whole model; anything before it, nothing. */
        assert_ok(fs_list_open(&list, scene->directory, &err), &err);
        assert_true(list.count == 1 || (list.count == 2 && !strcmp(list.names[1], "m")));
        if (list.count == 2) {
            struct model *model;
            assert_ok(model_open(&model, scene->path, &err), &err);
            model_close(&model);
        }
        fs_list_close(&list);
        assert_ok(fs_remove_tree(scene->path, &err), &err);
        json_decref(report);
    }
}

static void a_failing_file_or_request_leaves_nothing(void **state) {
    (void)state;
    struct scene scene;
    scene_open(&scene, SHAPE(32, 32, 260, ""), "m");
    scene.save.progress = NULL;
    scene.save.threads = 1;
    for (int to = 0; to < CONTAINER_COUNT; to++)
        for (int memory = 0; memory < 2; memory++) try_faults(&scene, (enum container)to, memory);
    scene_close(&scene);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_written_and_read),
        cmocka_unit_test(types_with_scales_apart_become_several_tensors),
        cmocka_unit_test(rows_that_blocks_do_not_divide_fall_back),
        cmocka_unit_test(threads_leave_the_bits_alone),
        cmocka_unit_test(drawn_models_have_the_divisors_of_their_scaling),
        cmocka_unit_test(memory_does_not_grow_with_the_model),
        cmocka_unit_test(large_models_get_shards_and_an_index),
        cmocka_unit_test(divisors_tell_the_scaling_that_made_them),
        cmocka_unit_test(numbers_that_cannot_be_stored_are_refused_by_name),
        cmocka_unit_test(types_that_a_container_lacks_are_refused),
        cmocka_unit_test(shapes_that_no_model_has_are_refused),
        cmocka_unit_test(a_failing_file_or_request_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
