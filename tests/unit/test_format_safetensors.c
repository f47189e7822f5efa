/* safetensors: what is written reads back; a file that leaves room for two readings is refused. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "format/safetensors.h"

static const float numbers[16] = {1, 2, 3, [15] = -4};
static const struct tensor tensors[] = {
    {.name = "b", .dtype = DTYPE_F32, .rank = 2, .dim = {2, 3}, .data = numbers, .bytes = 24},
    {.name = "a \"quoted\"", .dtype = DTYPE_BF16, .rank = 1, .dim = {3}, .data = numbers, .bytes = 6},
    {.name = "scalar", .dtype = DTYPE_I32, .rank = 0, .data = numbers, .bytes = 4},
};
enum { tensor_count = sizeof tensors / sizeof *tensors };

static void what_is_written_reads_back(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "m.safetensors");
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    struct safetensors *file;
    struct error err;
    assert_ok(safetensors_write(path, tensors, tensor_count, metadata, &err), &err);
    assert_ok(safetensors_open(&file, path, &err), &err);
    assert_int_equal(safetensors_count(file), tensor_count);
    for (size_t i = 0; i < tensor_count; i++) {
        const struct tensor *tensor = safetensors_find(file, tensors[i].name);
        assert_ptr_equal(tensor, safetensors_tensor(file, i));
        assert_int_equal(tensor->dtype, tensors[i].dtype);
        assert_int_equal(tensor->rank, tensors[i].rank);
        for (int j = 0; j < tensor->rank; j++) assert_int_equal(tensor->dim[j], tensors[i].dim[j]);
        assert_memory_equal(tensor->data, numbers, (size_t)tensors[i].bytes);
    }
    assert_null(safetensors_find(file, "__metadata__"));
    assert_true(json_equal(safetensors_metadata(file), metadata));
    safetensors_close(&file);
    safetensors_close(&file);
    json_decref(metadata);
    mem_free(path);
    test_remove_directory(directory);
}

/* Numbers that are there only when it is their turn, handed over in two pieces. */
static bool emit(void *user, size_t index, struct fs_writer *file, struct error *err) {
    size_t *left = user, half = (size_t)tensors[index].bytes / 2;
    const char *data = tensors[index].data;
    if (!(*left)--) return error_set(err, ERROR_FAILED, "test", "no more");
    return fs_writer_write(file, data, half, err) &&
           fs_writer_write(file, data + half, (size_t)tensors[index].bytes - half, err);
}

static bool emit_too_little(void *user, size_t index, struct fs_writer *file, struct error *err) {
    (void)user;
    return fs_writer_write(file, tensors[index].data, (size_t)tensors[index].bytes - 1, err);
}

static void tensors_can_be_written_one_at_a_time(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "m"), *other = fs_join(directory, "n");
    struct tensor bare[tensor_count];
    struct buf one = {0}, two = {0};
    struct error err;
    size_t left = tensor_count;
    memcpy(bare, tensors, sizeof bare);
    for (size_t i = 0; i < tensor_count; i++) bare[i].data = NULL;
    assert_ok(safetensors_write(path, tensors, tensor_count, NULL, &err), &err);
    assert_ok(safetensors_write_each(other, bare, tensor_count, NULL, emit, &left, &err), &err);
    assert_true(fs_read(path, 0, &one, &err) && fs_read(other, 0, &two, &err));
    assert_int_equal(one.size, two.size);
    assert_memory_equal(one.data, two.data, one.size);
    assert_ok(fs_remove_tree(other, &err), &err);
    left = 1;
    assert_false(safetensors_write_each(other, bare, tensor_count, NULL, emit, &left, &err));
    assert_string_equal(err.what, "no more");
    assert_false(safetensors_write_each(other, bare, tensor_count, NULL, emit_too_little, NULL, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_int_equal(fs_kind_of(other), FS_NOTHING);
    buf_release(&one);
    buf_release(&two);
    mem_free(path);
    mem_free(other);
    test_remove_directory(directory);
}

static void a_type_without_a_name_there_is_not_written(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "m.safetensors");
    struct tensor tensor = {
        .name = "q", .dtype = DTYPE_Q8_0, .rank = 1, .dim = {32}, .data = numbers, .bytes = 34};
    struct tensor twice[2] = {tensors[0], tensors[0]};
    struct error err;
    assert_false(safetensors_write(path, &tensor, 1, NULL, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_false(safetensors_write(path, twice, 2, NULL, &err));
    assert_int_equal(err.code, ERROR_INTERNAL);
    assert_int_equal(fs_kind_of(path), FS_NOTHING);
    mem_free(path);
    test_remove_directory(directory);
}

/* A private copy of exactly `size` bytes, so that a sanitizer sees any read past them. */
static bool try_bytes(const void *bytes, size_t size, struct error *err) {
    unsigned char *copy = mem_alloc(size);
    struct safetensors *file;
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    error_clear(err);
    bool ok = safetensors_open_bytes(&file, copy, size, "m.safetensors", err);
    for (size_t i = 0; ok && i < safetensors_count(file); i++) {
        const struct tensor *tensor = safetensors_tensor(file, i);
        size_t at = (size_t)((const unsigned char *)tensor->data - copy);
        assert_true(at <= size && tensor->bytes <= size - at);
    }
    if (!ok) assert_true(err->code == ERROR_INPUT && err->what[0] && !file);
    safetensors_close(&file);
    mem_free(copy);
    return ok;
}

static bool try_header(const char *header, size_t data, struct error *err) {
    struct buf bytes = {0};
    uint64_t length = strlen(header);
    buf_append(&bytes, &length, sizeof length);
    buf_text(&bytes, header);
    for (size_t i = 0; i < data; i++) buf_byte(&bytes, 1);
    bool ok = try_bytes(bytes.data, bytes.size, err);
    buf_release(&bytes);
    return ok;
}

#define ENTRY(type, shape, from, to) \
    "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":[" from "," to "]}"

static const struct {
    const char *lie, *header;
    size_t data;
    const char *says;
} lies[] = {
    {"not an object", "[]", 0, "not a safetensors file"},
    {"broken JSON", "{\"a\":", 0, "broken JSON"},
    {"duplicate key", "{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"a\":" ENTRY("U32", "[1]", "0", "4") "}", 4,
     "broken JSON"},
    {"gap at the start", "{\"a\":" ENTRY("F32", "[1]", "4", "8") "}", 8, "gap"},
    {"gap between", "{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("F32", "[1]", "8", "12") "}", 12,
     "gap"},
    {"overlap", "{\"a\":" ENTRY("F32", "[2]", "0", "8") ",\"b\":" ENTRY("F32", "[2]", "4", "12") "}", 12,
     "overlaps"},
    {"the same bytes", "{\"a\":" ENTRY("F32", "[1]", "0", "4") ",\"b\":" ENTRY("U32", "[1]", "0", "4") "}", 4,
     "overlaps"},
    {"bytes after the last", "{\"a\":" ENTRY("F32", "[1]", "0", "4") "}", 5, "bytes follow"},
    {"past the end", "{\"a\":" ENTRY("F32", "[2]", "0", "8") "}", 4, "past the end"},
    {"descending", "{\"a\":" ENTRY("F32", "[1]", "4", "0") "}", 4, "ascending"},
    {"negative", "{\"a\":" ENTRY("F32", "[1]", "-4", "0") "}", 4, "ascending"},
    {"reals as offsets", "{\"a\":" ENTRY("F32", "[1]", "0.0", "4.0") "}", 4, "ascending"},
    {"offset of 2^63", "{\"a\":" ENTRY("F32", "[1]", "0", "9223372036854775808") "}", 4, "ascending"},
    {"offset of 2^63-1", "{\"a\":" ENTRY("F32", "[1]", "0", "9223372036854775807") "}", 4, "past the end"},
    {"shape disagrees", "{\"a\":" ENTRY("F32", "[2]", "0", "4") "}", 4, "disagree with its shape"},
    {"shape wraps", "{\"a\":" ENTRY("F32", "[4294967296,4294967296]", "0", "0") "}", 0, "overflow"},
    {"shape wraps in bytes", "{\"a\":" ENTRY("F32", "[4611686018427387904]", "0", "0") "}", 0, "overflow"},
    {"dimension 0", "{\"a\":" ENTRY("F32", "[0]", "0", "0") "}", 0, "no positive integer"},
    {"negative dimension", "{\"a\":" ENTRY("F32", "[-1,-1]", "0", "4") "}", 4, "no positive integer"},
    {"rank 5", "{\"a\":" ENTRY("F32", "[1,1,1,1,1]", "0", "4") "}", 4, "more than 4"},
    {"unknown type", "{\"a\":" ENTRY("F8_E4M3", "[4]", "0", "4") "}", 4,
     "type F8_E4M3, which hone does not read"},
    {"no type", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "no \"dtype\""},
    {"no shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no \"shape\""},
    {"no offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
    {"a number as tensor", "{\"a\":7}", 0, "not described"},
    {"an empty name", "{\"\":" ENTRY("F32", "[1]", "0", "4") "}", 4, "empty name"},
    {"metadata of numbers", "{\"__metadata__\":{\"a\":1}}", 0, "__metadata__"},
    {"metadata as a list", "{\"__metadata__\":[]}", 0, "__metadata__"},
};

static void every_lie_is_named(void **state) {
    (void)state;
    struct error err;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        if (try_header(lies[i].header, lies[i].data, &err)) fail_msg("%s was opened", lies[i].lie);
        if (!strstr(err.what, lies[i].says)) fail_msg("%s: the message is \"%s\"", lies[i].lie, err.what);
    }
    assert_ok(
        try_header("{\"b\":" ENTRY("F32", "[1]", "4", "8") ",\"a\":" ENTRY("F32", "[1]", "0", "4") "}  ", 8,
                   &err),
        &err);
    assert_ok(try_header("{}", 0, &err), &err);
    assert_ok(try_header("{\"__metadata__\":null}", 0, &err), &err);
}

static void cut_or_with_another_header_length_it_is_refused(void **state) {
    (void)state;
    static const uint64_t edges[] = {0,
                                     1,
                                     0x7fffffff,
                                     0x80000000,
                                     0x80000001,
                                     0xffffffff,
                                     0x100000000,
                                     0x100000001,
                                     INT64_MAX,
                                     (uint64_t)INT64_MAX + 1,
                                     UINT64_MAX - 7,
                                     UINT64_MAX};
    char *directory = test_directory(), *path = fs_join(directory, "m.safetensors");
    struct buf bytes = {0};
    struct error err;
    assert_ok(safetensors_write(path, tensors, tensor_count, NULL, &err), &err);
    assert_ok(fs_read(path, 0, &bytes, &err), &err);
    assert_ok(try_bytes(bytes.data, bytes.size, &err), &err);
    for (size_t size = 0; size < bytes.size; size++)
        if (try_bytes(bytes.data, size, &err)) fail_msg("opened when cut to %zu bytes", size);
    for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
        memcpy(bytes.data, &edges[i], 8);
        assert_false(try_bytes(bytes.data, bytes.size, &err));
    }
    buf_release(&bytes);
    mem_free(path);
    test_remove_directory(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(tensors_can_be_written_one_at_a_time),
        cmocka_unit_test(a_type_without_a_name_there_is_not_written),
        cmocka_unit_test(every_lie_is_named),
        cmocka_unit_test(cut_or_with_another_header_length_it_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
