/* Reading and writing GGUF: what is written reads back; every lie in the file is a clean error. */
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/thread.h"
#include "format/gguf_writer.h"

static const float numbers[64] = {1.5f, -2.0f, 3.25f, [63] = 9.0f};
static const unsigned char blocks[40] = {0x00, 0x3c, [20] = 0x00, 0x3c}; /* two q4_1 blocks */
static const struct tensor model[] = {
    {.name = "a.weight", .dtype = DTYPE_F32, .rank = 2, .dim = {3, 5}, .data = numbers, .bytes = 60},
    {.name = "b.weight", .dtype = DTYPE_Q4_1, .rank = 2, .dim = {2, 32}, .data = blocks, .bytes = 40},
    {.name = "c", .dtype = DTYPE_F16, .rank = 1, .dim = {7}, .data = numbers, .bytes = 14},
};
enum { model_count = sizeof model / sizeof *model };

static void put_keys(struct gguf_writer *writer) {
    static const struct gguf_text words[] = {{"<s>", 3}, {"", 0}, {"h\xc3\xa9", 3}};
    static const int32_t ints[] = {3, -1, 2147483647};
    static const uint8_t bytes[] = {1, 255};
    static const double reals[] = {0.5, -0.25};
    static const uint64_t wide[] = {1, 1ull << 40};
    static const uint64_t big = UINT64_MAX;
    static const int16_t small = -7;
    gguf_put_text(writer, "general.architecture", "llama", 5);
    gguf_put_u32(writer, "llama.block_count", 30);
    gguf_put_f32(writer, "llama.eps", 0.5f);
    gguf_put_bool(writer, "add_bos", true);
    gguf_put_number(writer, "big", GGUF_U64, &big);
    gguf_put_number(writer, "small", GGUF_I16, &small);
    gguf_put_array(writer, "tokens", GGUF_TEXT, words, 3);
    gguf_put_array(writer, "types", GGUF_I32, ints, 3);
    gguf_put_array(writer, "bytes", GGUF_U8, bytes, 2);
    gguf_put_array(writer, "reals", GGUF_F64, reals, 2);
    gguf_put_array(writer, "wide", GGUF_U64, wide, 2);
    gguf_put_array(writer, "none", GGUF_TEXT, words, 0);
}

static void make_model(struct buf *out) {
    struct gguf_writer writer = {0};
    struct error err;
    put_keys(&writer);
    assert_ok(gguf_writer_bytes(&writer, model, model_count, out, &err), &err);
    gguf_writer_release(&writer);
}

static void check_numbers(const struct gguf *gguf) {
    int64_t whole;
    double real;
    bool flag = false;
    assert_true(gguf_get_int(gguf, "llama.block_count", &whole) && whole == 30);
    assert_true(gguf_get_int(gguf, "small", &whole) && whole == -7);
    assert_false(gguf_get_int(gguf, "big", &whole));
    assert_false(gguf_get_int(gguf, "llama.eps", &whole));
    assert_false(gguf_get_int(gguf, "types", &whole));
    assert_true(gguf_get_float(gguf, "llama.eps", &real) && real == 0.5);
    assert_true(gguf_get_float(gguf, "small", &real) && real == -7);
    assert_false(gguf_get_float(gguf, "add_bos", &real));
    assert_true(gguf_get_bool(gguf, "add_bos", &flag) && flag);
    assert_false(gguf_get_bool(gguf, "llama.block_count", &flag));
}

static void check_texts_and_arrays(const struct gguf *gguf) {
    struct gguf_text text;
    const struct gguf_text *words;
    const int32_t *ints;
    const float *reals;
    size_t count = 99;
    assert_true(gguf_get_text(gguf, "general.architecture", &text) && text.size == 5 &&
                !memcmp(text.data, "llama", 5));
    assert_false(gguf_get_text(gguf, "tokens", &text));
    assert_true(gguf_get_text_array(gguf, "tokens", &words, &count) && count == 3);
    assert_true(words[0].size == 3 && words[1].size == 0 && !memcmp(words[2].data, "h\xc3\xa9", 3));
    assert_true(gguf_get_int_array(gguf, "types", &ints, &count) && count == 3);
    assert_true(ints[0] == 3 && ints[1] == -1 && ints[2] == INT32_MAX);
    assert_true(gguf_get_int_array(gguf, "bytes", &ints, &count) && count == 2 && ints[1] == 255);
    assert_true(gguf_get_float_array(gguf, "reals", &reals, &count) && count == 2 && reals[1] == -0.25f);
    assert_true(gguf_get_array_count(gguf, "wide", &count) && count == 2);
    assert_false(gguf_get_int_array(gguf, "wide", &ints, &count));
    assert_false(gguf_get_float_array(gguf, "types", &reals, &count));
    assert_false(gguf_get_int_array(gguf, "tokens", &ints, &count));
    assert_false(gguf_get_text_array(gguf, "types", &words, &count));
    assert_true(gguf_get_text_array(gguf, "none", &words, &count) && count == 0);
}

/* The tensors' bytes one at a time, in two pieces. */
static bool emit(void *user, size_t index, struct fs_writer *file, struct error *err) {
    const char *data = model[index].data;
    size_t half = (size_t)model[index].bytes / 2;
    (void)user;
    return fs_writer_write(file, data, half, err) &&
           fs_writer_write(file, data + half, (size_t)model[index].bytes - half, err);
}

static bool refuse_third(void *user, size_t index, struct fs_writer *file, struct error *err) {
    return index < 2 ? emit(user, index, file, err) : error_set(err, ERROR_INPUT, "test", "no more");
}

static void tensors_can_be_written_one_at_a_time(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "m.gguf");
    struct gguf_writer writer = {0};
    struct tensor bare[model_count];
    struct buf whole = {0}, pieces = {0};
    struct error err;
    put_keys(&writer);
    memcpy(bare, model, sizeof bare);
    for (size_t i = 0; i < model_count; i++) bare[i].data = NULL;
    assert_false(gguf_writer_save(&writer, path, bare, model_count, refuse_third, NULL, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    struct fs_list list;
    assert_ok(fs_list_open(&list, directory, &err), &err);
    assert_int_equal(list.count, 0);
    fs_list_close(&list);
    assert_ok(gguf_writer_save(&writer, path, bare, model_count, emit, NULL, &err), &err);
    assert_ok(fs_read(path, 0, &pieces, &err), &err);
    make_model(&whole);
    assert_int_equal(pieces.size, whole.size);
    assert_memory_equal(pieces.data, whole.data, whole.size);
    gguf_writer_release(&writer);
    buf_release(&whole);
    buf_release(&pieces);
    mem_free(path);
    test_remove_directory(directory);
}

static void what_is_written_reads_back(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "m.gguf");
    struct gguf_writer writer = {0};
    struct gguf *gguf;
    struct error err;
    enum gguf_kind kind;
    put_keys(&writer);
    assert_ok(gguf_writer_save(&writer, path, model, model_count, NULL, NULL, &err), &err);
    assert_ok(gguf_open(&gguf, path, &err), &err);
    assert_int_equal(gguf_key_count(gguf), 12);
    assert_string_equal(gguf_key_name(gguf, 1, &kind), "llama.block_count");
    assert_int_equal(kind, GGUF_U32);
    assert_true(gguf_has(gguf, "none") && !gguf_has(gguf, "llama") && !gguf_has(gguf, ""));
    check_numbers(gguf);
    check_texts_and_arrays(gguf);
    assert_int_equal(gguf_tensor_count(gguf), model_count);
    for (size_t i = 0; i < model_count; i++) {
        const struct tensor *tensor = gguf_find_tensor(gguf, model[i].name);
        assert_ptr_equal(tensor, gguf_tensor(gguf, i));
        assert_int_equal(tensor->dtype, model[i].dtype);
        assert_int_equal(tensor->rank, model[i].rank);
        for (int j = 0; j < tensor->rank; j++) assert_int_equal(tensor->dim[j], model[i].dim[j]);
        assert_int_equal(tensor->bytes, model[i].bytes);
        assert_memory_equal(tensor->data, model[i].data, (size_t)tensor->bytes);
    }
    assert_null(gguf_find_tensor(gguf, "a.weigh"));
    gguf_close(&gguf);
    assert_null(gguf);
    gguf_close(&gguf);
    gguf_writer_release(&writer);
    mem_free(path);
    test_remove_directory(directory);
}

/* Opens a private copy of exactly `size` bytes, so that a sanitizer sees any read past them, and when it
 * opens reads all that it offers. */
static bool try_bytes(const void *bytes, size_t size, struct error *err) {
    unsigned char *copy = mem_alloc(size);
    struct gguf *gguf;
    assert_non_null(copy);
    if (size) memcpy(copy, bytes, size);
    error_clear(err);
    bool ok = gguf_open_bytes(&gguf, copy, size, "m.gguf", err);
    unsigned sum = 0;
    for (size_t i = 0; ok && i < gguf_tensor_count(gguf); i++) {
        const struct tensor *tensor = gguf_tensor(gguf, i);
        assert_true((const unsigned char *)tensor->data >= copy);
        assert_true(tensor->bytes <= size - (size_t)((const unsigned char *)tensor->data - copy));
        for (uint64_t j = 0; j < tensor->bytes; j++) sum += ((const unsigned char *)tensor->data)[j];
    }
    for (size_t i = 0; ok && i < gguf_key_count(gguf); i++) {
        enum gguf_kind kind;
        const char *key = gguf_key_name(gguf, i, &kind);
        const struct gguf_text *texts;
        size_t count;
        if (!gguf_get_text_array(gguf, key, &texts, &count)) continue;
        for (size_t j = 0; j < count; j++)
            for (size_t k = 0; k < texts[j].size; k++) sum += (unsigned char)texts[j].data[k];
    }
    if (!ok) assert_true(err->code == ERROR_INPUT && err->what[0] && !gguf && sum == 0);
    gguf_close(&gguf);
    mem_free(copy);
    return ok;
}

static void a_file_cut_at_any_byte_is_refused(void **state) {
    (void)state;
    struct buf bytes = {0};
    struct error err;
    make_model(&bytes);
    assert_ok(try_bytes(bytes.data, bytes.size, &err), &err);
    for (size_t size = 0; size < bytes.size - 18; size++) /* the last tensor's padding may be missing */
        if (try_bytes(bytes.data, size, &err)) fail_msg("opened when cut to %zu bytes", size);
    assert_ok(try_bytes(bytes.data, bytes.size - 18, &err), &err);
    buf_release(&bytes);
}

/* Every edge value at every byte of the header, in both widths: that covers each u32 and u64 field. */
static void no_number_in_the_header_leads_outside(void **state) {
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
                                     (uint64_t)INT64_MAX + 2,
                                     UINT64_MAX};
    struct buf bytes = {0};
    struct error err;
    unsigned char saved[8];
    int opened = 0, refused = 0;
    make_model(&bytes);
    for (size_t at = 4; at + 8 <= bytes.size - 160; at++)
        for (size_t i = 0; i < 2 * sizeof edges / sizeof *edges; i++) {
            size_t width = i % 2 ? 4 : 8;
            memcpy(saved, bytes.data + at, width);
            memcpy(bytes.data + at, &edges[i / 2], width);
            if (try_bytes(bytes.data, bytes.size, &err))
                opened++;
            else
                refused++;
            memcpy(bytes.data + at, saved, width);
        }
    assert_true(opened > 0 && refused > opened / 10);
    buf_release(&bytes);
}

/* A file built by hand, for the lies that the writer cannot tell. */
struct raw {
    struct buf bytes;
};
static void u32(struct raw *raw, uint32_t value) { buf_append(&raw->bytes, &value, sizeof value); }
static void u64(struct raw *raw, uint64_t value) { buf_append(&raw->bytes, &value, sizeof value); }
static void text(struct raw *raw, const char *value) {
    u64(raw, strlen(value));
    buf_text(&raw->bytes, value);
}
static void header(struct raw *raw, uint32_t version, uint64_t tensors, uint64_t keys) {
    buf_text(&raw->bytes, "GGUF");
    u32(raw, version);
    u64(raw, tensors);
    u64(raw, keys);
}
static void tensor(struct raw *raw, const char *name, uint32_t rank, const uint64_t *dims, uint32_t type,
                   uint64_t offset) {
    text(raw, name);
    u32(raw, rank);
    for (uint32_t i = 0; i < rank; i++) u64(raw, dims[i]);
    u32(raw, type);
    u64(raw, offset);
}
static void key_u32(struct raw *raw, const char *name, uint32_t value) {
    text(raw, name);
    u32(raw, GGUF_U32);
    u32(raw, value);
}

static const uint64_t d8[] = {8, 1, 1, 1, 1}, d0[] = {8, 0}, huge[] = {1ull << 62, 2, 1, 1},
                      wrap[] = {1ull << 32, 1ull << 32}, negative[] = {1ull << 63}, d33[] = {33},
                      d32[] = {32}, exabyte[] = {1ull << 50};

static void empty(struct raw *raw) { (void)raw; }
static void other_magic(struct raw *raw) {
    buf_text(&raw->bytes, "PK\003\004................................");
}
static void version_1(struct raw *raw) { header(raw, 1, 0, 0); }
static void version_4(struct raw *raw) { header(raw, 4, 0, 0); }
static void big_endian(struct raw *raw) { header(raw, 0x03000000, 0, 0); }
static void many_keys(struct raw *raw) { header(raw, 3, 0, UINT64_MAX); }
static void many_tensors(struct raw *raw) { header(raw, 3, UINT64_MAX / 24, 0); }
static void twice_key(struct raw *raw) { header(raw, 3, 0, 2), key_u32(raw, "k", 1), key_u32(raw, "k", 1); }
static void nul_key(struct raw *raw) {
    header(raw, 3, 0, 1);
    u64(raw, 3);
    buf_append(&raw->bytes, "a\0b", 3);
    u32(raw, GGUF_U32);
    u32(raw, 1);
}
static void no_key(struct raw *raw) { header(raw, 3, 0, 1), key_u32(raw, "", 1); }
static void unknown_kind(struct raw *raw) { header(raw, 3, 0, 1), text(raw, "k"), u32(raw, 13), u64(raw, 0); }
static void odd_bool(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_BOOL), u64(raw, 2);
}
static void nested(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_ARRAY), u32(raw, GGUF_ARRAY), u64(raw, 0),
        u64(raw, 0);
}
static void array_kind(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_ARRAY), u32(raw, 77), u64(raw, 0), u64(raw, 0);
}
static void array_wraps(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_ARRAY), u32(raw, GGUF_F64), u64(raw, 1ull << 61),
        u64(raw, 0);
}
static void array_texts(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_ARRAY), u32(raw, GGUF_TEXT), u64(raw, 2),
        u64(raw, 505);
}
static void array_text_long(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "k"), u32(raw, GGUF_ARRAY), u32(raw, GGUF_TEXT), u64(raw, 1),
        u64(raw, UINT64_MAX);
}
static void alignment(struct raw *raw) { header(raw, 3, 0, 1), key_u32(raw, "general.alignment", 48); }
static void alignment_1(struct raw *raw) { header(raw, 3, 0, 1), key_u32(raw, "general.alignment", 1); }
static void alignment_0(struct raw *raw) { header(raw, 3, 0, 1), key_u32(raw, "general.alignment", 0); }
static void alignment_kind(struct raw *raw) {
    header(raw, 3, 0, 1), text(raw, "general.alignment"), u32(raw, GGUF_U64), u64(raw, 32);
}
static void alignment_huge(struct raw *raw) {
    header(raw, 3, 1, 1), key_u32(raw, "general.alignment", 1u << 31), tensor(raw, "t", 1, d8, 0, 0);
}
static void rank_5(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 5, d8, 0, 0); }
static void dim_0(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 2, d0, 0, 0); }
static void dims_wrap(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 2, wrap, 0, 0); }
static void dims_huge(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 4, huge, 0, 0); }
static void dim_negative(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, negative, 0, 0); }
static void dims_exabyte(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, exabyte, 0, 0); }
static void half_block(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, d33, 3, 0); }
static void type_iq(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "blk.0.x", 1, d32, 16, 0); }
static void type_withdrawn(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, d32, 31, 0); }
static void type_unknown(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, d32, UINT32_MAX, 0); }
static void unaligned(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, d8, 0, 8); }
static void outside(struct raw *raw) { header(raw, 3, 1, 0), tensor(raw, "t", 1, d8, 0, 1 << 20); }
static void offset_wraps(struct raw *raw) {
    header(raw, 3, 1, 0), tensor(raw, "t", 1, d8, 0, UINT64_MAX - 31);
}
static void twice_tensor(struct raw *raw) {
    header(raw, 3, 2, 0), tensor(raw, "t", 1, d8, 0, 0), tensor(raw, "t", 1, d8, 0, 32);
}
static void overlap(struct raw *raw) {
    header(raw, 3, 3, 0);
    tensor(raw, "t", 1, d32, 0, 64), tensor(raw, "u", 1, d8, 0, 0), tensor(raw, "v", 1, d8, 0, 96);
}
static void bidirectional(struct raw *raw) {
    header(raw, 3, 1, 0), tensor(raw, "x\xe2\x80\xae\x1b[2J", 1, d32, 10, 0);
}
static void long_name(struct raw *raw) {
    char name[300];
    memset(name, 'n', 299);
    name[299] = '\0';
    header(raw, 3, 1, 0), tensor(raw, name, 1, d8, 0, 0);
}

static const struct {
    const char *lie;
    void (*make)(struct raw *raw);
    const char *says;
} lies[] = {
    {"empty file", empty, "is empty"},
    {"another format", other_magic, "not a GGUF file"},
    {"version 1", version_1, "version: 1"},
    {"version 4", version_4, "version: 4"},
    {"big-endian", big_endian, "big-endian"},
    {"2^64-1 keys", many_keys, "key count"},
    {"tensor count whose size wraps", many_tensors, "tensor count"},
    {"duplicate key", twice_key, "key k stands twice"},
    {"NUL in a key", nul_key, "NUL"},
    {"empty key", no_key, "empty"},
    {"unknown value type", unknown_kind, "unknown type"},
    {"bool of 2", odd_bool, "neither 0 nor 1"},
    {"array of arrays", nested, "array of arrays"},
    {"array of an unknown type", array_kind, "unknown type"},
    {"array whose size wraps", array_wraps, "more elements than the file has bytes"},
    {"more texts than there are", array_texts, "the file ends"},
    {"text beyond the end", array_text_long, "only"},
    {"alignment of 48", alignment, "power of two"},
    {"alignment of 0", alignment_0, "power of two"},
    {"alignment of 1", alignment_1, "power of two from 8"},
    {"alignment of another type", alignment_kind, "not of type u32"},
    {"alignment of 2 GiB", alignment_huge, "past the end"},
    {"rank 5", rank_5, "more than 4 dimensions"},
    {"dimension 0", dim_0, "dimension of 0"},
    {"dimensions that wrap", dims_wrap, "overflow"},
    {"dimensions that nearly wrap", dims_huge, "overflow"},
    {"negative dimension", dim_negative, "2^63"},
    {"a tensor of a petabyte", dims_exabyte, "past the end"},
    {"row of a block and one", half_block, "whole number of blocks"},
    {"type without codec", type_iq, "tensor blk.0.x has type iq2_xxs, which hone does not read"},
    {"withdrawn type", type_withdrawn, "type number 31"},
    {"unknown type", type_unknown, "type number 4294967295"},
    {"unaligned offset", unaligned, "general.alignment"},
    {"offset outside", outside, "past the end"},
    {"offset that wraps", offset_wraps, "past the end"},
    {"duplicate tensor", twice_tensor, "tensor t stands twice"},
    {"overlapping tensors", overlap, "tensor v overlaps"},
    {"terminal escapes in a name", bidirectional, "x\\u{202e}\\x1b[2J"},
    {"name of 299 bytes", long_name, "at most 255"},
};

static void every_lie_is_named(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct raw raw = {0};
        struct error err;
        lies[i].make(&raw);
        if (i) /* all but the empty file: bytes that tensors could lie in */
            for (int j = 0; j < 512; j++) buf_byte(&raw.bytes, 0);
        if (try_bytes(raw.bytes.data, raw.bytes.size, &err)) fail_msg("%s was opened", lies[i].lie);
        if (!strstr(err.what, lies[i].says)) fail_msg("%s: the message is \"%s\"", lies[i].lie, err.what);
        buf_release(&raw.bytes);
    }
}

static void a_scalar_and_gaps_and_any_order_are_fine(void **state) {
    (void)state;
    struct raw raw = {0};
    struct error err;
    header(&raw, 2, 3, 0);
    tensor(&raw, "t", 1, d8, 0, 128), tensor(&raw, "u", 1, d8, 0, 0), tensor(&raw, "v", 0, d8, 0, 64);
    for (int j = 0; j < 512; j++) buf_byte(&raw.bytes, 0);
    assert_ok(try_bytes(raw.bytes.data, raw.bytes.size, &err), &err);
    buf_release(&raw.bytes);
}

static void directories_and_absent_files_are_refused(void **state) {
    (void)state;
    char *directory = test_directory(), *path = fs_join(directory, "none.gguf");
    struct gguf *gguf;
    struct error err;
    assert_false(gguf_open(&gguf, directory, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    assert_false(gguf_open(&gguf, path, &err));
    assert_int_equal(err.code, ERROR_INPUT);
    mem_free(path);
    test_remove_directory(directory);
}

static int fail_at(void *user, size_t size) {
    int *left = user;
    (void)size;
    return (*left)-- == 0;
}

static void every_failed_request_for_memory_is_an_error(void **state) {
    (void)state;
    struct buf bytes = {0};
    struct error err;
    bool ok = false;
    make_model(&bytes);
    for (int i = 0; !ok; i++) {
        struct gguf *gguf;
        int left = i;
        mem_set_fault(fail_at, &left);
        ok = gguf_open_bytes(&gguf, bytes.data, bytes.size, "m.gguf", &err);
        mem_set_fault(NULL, NULL);
        if (!ok) assert_int_equal(err.code, ERROR_MEMORY);
        assert_true(ok ? i > 2 : gguf == NULL);
        gguf_close(&gguf);
    }
    buf_release(&bytes);
}

static void the_real_model_opens_fast(void **state) {
    (void)state;
    const char *files = getenv("HONE_TEST_FILES");
    if (!files) {
        print_message("skipped: HONE_TEST_FILES is not set\n");
        skip();
    }
    char *path = fs_join(files, "smollm2.gguf");
    double best = 1e9;
    struct gguf *gguf;
    struct error err;
    for (int i = 0; i < 5; i++) {
        double start = clock_seconds();
        assert_ok(gguf_open(&gguf, path, &err), &err);
        double taken = clock_seconds() - start;
        if (taken < best) best = taken;
        const struct gguf_text *tokens;
        size_t count;
        assert_true(gguf_get_text_array(gguf, "tokenizer.ggml.tokens", &tokens, &count) && count == 49152);
        const struct tensor *embedding = gguf_find_tensor(gguf, "token_embd.weight");
        assert_true(embedding && embedding->dtype == DTYPE_Q8_0 && embedding->dim[0] == 49152 &&
                    embedding->dim[1] == 576);
        gguf_close(&gguf);
    }
    print_message("opened in %.1f ms\n", best * 1e3);
    assert_true(best < 0.1); /* about 5 ms; ten times that under a sanitizer */
    mem_free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(tensors_can_be_written_one_at_a_time),
        cmocka_unit_test(a_file_cut_at_any_byte_is_refused),
        cmocka_unit_test(no_number_in_the_header_leads_outside),
        cmocka_unit_test(every_lie_is_named),
        cmocka_unit_test(a_scalar_and_gaps_and_any_order_are_fine),
        cmocka_unit_test(directories_and_absent_files_are_refused),
        cmocka_unit_test(every_failed_request_for_memory_is_an_error),
        cmocka_unit_test(the_real_model_opens_fast),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
