/* Matrices whose scales lie apart, against bitsandbytes and MLX (tests/golden/format/make_stored.py): what
 * they stored decodes to their numbers bit for bit, and what they were given is encoded to their codes. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/json.h"
#include "base/mem.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

/* The little of a safetensors file that is needed: this folder lies below the reader of that format. */
struct vectors {
    struct fs_map map;
    json_t *header;
    const unsigned char *data;
};

static void open_vectors(struct vectors *v) {
    struct error err;
    uint64_t size;
    assert_ok(fs_map_open(&v->map, TEST_DATA "/golden/format/stored.safetensors", &err), &err);
    memcpy(&size, v->map.data, sizeof size);
    assert_ok(json_read(&v->header, (const char *)v->map.data + 8, (size_t)size, "stored", 1, &err), &err);
    v->data = v->map.data + 8 + size;
}

static void close_vectors(struct vectors *v) {
    json_decref(v->header);
    fs_map_close(&v->map);
}

static const void *find(const struct vectors *v, const char *name, const char *part, size_t *bytes,
                        const json_t **entry) {
    char key[64];
    snprintf(key, sizeof key, "%s.%s", name, part);
    *entry = json_object_get(v->header, key);
    if (!*entry) return NULL;
    const json_t *offsets = json_object_get(*entry, "data_offsets");
    size_t begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    *bytes = (size_t)json_integer_value(json_array_get(offsets, 1)) - begin;
    return v->data + begin;
}

static const char *const parts[tensor_parts] = {[PART_SCALES] = "scales",
                                                [PART_OFFSETS] = "offsets",
                                                [PART_LEVELS] = "levels",
                                                [PART_FACTORS] = "factors"};

static enum dtype type_of(const json_t *entry) {
    static const struct {
        const char *name;
        enum dtype dtype;
    } types[] = {{"F32", DTYPE_F32}, {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}, {"U8", DTYPE_U8}};
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].name, name)) return types[i].dtype;
    fail_msg("type %s", name);
    return DTYPE_COUNT;
}

struct one {
    char name[32];
    struct stored stored; /* as the others stored it */
    int64_t rows, columns;
    const float *source, *decoded;
    size_t bytes[tensor_parts], code_bytes;
};

static void read_case(const struct vectors *v, const char *name, struct one *out) {
    const json_t *entry;
    size_t bytes;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->source = find(v, name, "source", &bytes, &entry);
    const json_t *shape = json_object_get(entry, "shape");
    out->rows = json_integer_value(json_array_get(shape, 0));
    out->columns = json_integer_value(json_array_get(shape, 1));
    out->decoded = find(v, name, "decoded", &bytes, &entry);
    char type[32];
    snprintf(type, sizeof type, "%.*s", (int)strcspn(name, " "), name);
    assert_true(dtype_from_name(type, &out->stored.dtype));
    out->stored.columns = out->columns;
    out->stored.codes = find(v, name, "codes", &out->code_bytes, &entry);
    for (int p = 0; p < tensor_parts; p++) {
        out->stored.part[p].data = find(v, name, parts[p], &out->bytes[p], &entry);
        if (out->stored.part[p].data) out->stored.part[p].dtype = type_of(entry);
    }
}

static void each_case(void (*check)(const struct one *)) {
    struct vectors v;
    const char *key;
    json_t *value;
    int count = 0;
    open_vectors(&v);
    json_object_foreach(v.header, key, value) {
        struct one one;
        char name[32];
        const char *dot = strstr(key, ".decoded");
        if (!dot) continue;
        snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
        read_case(&v, name, &one);
        check(&one);
        count++;
    }
    assert_int_equal(count, 17);
    close_vectors(&v);
}

static void check_decoding(const struct one *c) {
    float *row = mem_array((size_t)c->columns, sizeof *row);
    const int64_t block = dtype_row(c->stored.dtype)->block;
    assert_non_null(row);
    for (int64_t r = 0; r < c->rows; r++)
        for (int64_t from = 0; from < c->columns; from += c->columns / 2 / block * block + block) {
            int64_t count = c->columns - from; /* from the middle too */
            stored_decode(&c->stored, r, from, count, row);
            if (memcmp(row, c->decoded + r * c->columns + from, (size_t)count * sizeof *row))
                fail_msg("%s row %d from %d decodes to other numbers", c->name, (int)r, (int)from);
        }
    mem_free(row);
}

static void matrices_decode_as_bitsandbytes_and_mlx_do(void **state) {
    (void)state;
    each_case(check_decoding);
}

/* In pieces, as threads do it. */
static unsigned char *encode(const struct one *c, struct stored_layout *layout) {
    struct stored_encoder encoder;
    struct error err;
    enum dtype scales = c->stored.part[PART_OFFSETS].data ? c->stored.part[PART_SCALES].dtype : DTYPE_F32;
    assert_true(stored_layout(layout, c->stored.dtype, c->rows, c->columns, scales));
    unsigned char *bytes = mem_alloc((size_t)layout->bytes);
    assert_non_null(bytes);
    assert_ok(stored_encoder_open(&encoder, layout, bytes, &err), &err);
    for (int64_t row = (c->rows - 1) / stored_rows_together * stored_rows_together; row >= 0;
         row -= stored_rows_together) {
        int64_t count = c->rows - row < stored_rows_together ? c->rows - row : stored_rows_together;
        stored_encode(&encoder, row, count, c->source + row * c->columns);
    }
    stored_encoder_finish(&encoder, NULL);
    return bytes;
}

static bool near(float a, float b) { return fabsf(a - b) <= 1e-6f * fabsf(b); }

/* nf4's mean scale is summed in another order; and bitsandbytes' CPU build finds the codes of scales by a
 * table of equal steps, which for small ones is not the nearest: ours must be as near or nearer. */
static void check_scales(const struct one *c, const struct stored *ours) {
    const struct stored *theirs = &c->stored;
    int64_t all = c->rows * c->columns;
    assert_true(
        near(stored_number(&ours->part[PART_OFFSETS], 0), stored_number(&theirs->part[PART_OFFSETS], 0)));
    assert_memory_equal(ours->part[PART_LEVELS].data, theirs->part[PART_LEVELS].data, c->bytes[PART_LEVELS]);
    for (int64_t b = 0; b * nf4_block < all; b++) {
        float most = 0;
        for (int64_t i = b * nf4_block; i < all && i < (b + 1) * nf4_block; i++)
            most = fabsf(c->source[i]) > most ? fabsf(c->source[i]) : most;
        float off = fabsf(stored_nf4_scale(ours, b) - most), want = fabsf(stored_nf4_scale(theirs, b) - most);
        if (!(off <= want + 1e-6f))
            fail_msg("%s: scale %d is off by %g, not %g", c->name, (int)b, (double)off, (double)want);
    }
}

static void check_encoding(const struct one *c) {
    struct stored_layout layout;
    if (strstr(c->name, "plain")) return; /* hone writes nf4 with double quantisation alone */
    unsigned char *bytes = encode(c, &layout);
    struct stored ours = stored_in(&layout, bytes);
    assert_int_equal(layout.codes.bytes, c->code_bytes);
    if (memcmp(bytes, c->stored.codes, c->code_bytes)) fail_msg("%s: other codes", c->name);
    for (int p = 0; p < tensor_parts; p++) {
        const struct stored_piece *piece = &layout.part[p];
        assert_int_equal(piece->rank ? piece->bytes : 0, c->bytes[p]);
        if (c->stored.dtype != DTYPE_NF4 && piece->rank &&
            memcmp(bytes + piece->offset, c->stored.part[p].data, c->bytes[p]))
            fail_msg("%s: other %s", c->name, parts[p]);
    }
    if (c->stored.dtype == DTYPE_NF4) check_scales(c, &ours);
    mem_free(bytes);
}

static void matrices_encode_as_bitsandbytes_and_mlx_do(void **state) {
    (void)state;
    each_case(check_encoding);
}

/* As mx.dequantize in f32: 0 · ∞ is no number. */
static void every_scale_of_mxfp4_is_mlxs(void **state) {
    (void)state;
    enum { rows = 4, columns = 32 };
    static const uint8_t scales[rows] = {0, 1, 254, 255};
    static const float want[rows][3] = {/* of 0.5, 2 and -6 */
                                        {0x1p-128f, 0x1p-126f, -0x1.8p-125f},
                                        {0x1p-127f, 0x1p-125f, -0x1.8p-124f},
                                        {0x1p126f, INFINITY, -INFINITY},
                                        {INFINITY, INFINITY, -INFINITY}};
    uint8_t codes[rows][columns / 2] = {{0}};
    float row[columns];
    for (int r = 0; r < rows; r++) {
        codes[r][0] = 4 << 4 | 1;
        codes[r][1] = 15;
        const struct stored stored = {.dtype = DTYPE_MLX_MXFP4,
                                      .columns = columns,
                                      .codes = codes,
                                      .part = {[PART_SCALES] = {scales, DTYPE_U8}}};
        stored_decode(&stored, r, 0, columns, row);
        assert_memory_equal(row, want[r], sizeof want[r]);
        assert_true(r < 3 ? row[3] >= 0 && row[3] <= 0 : isnan(row[3]));
    }
}

/* MLX lets exponents below those of a byte wrap around to huge ones. */
static void numbers_too_small_for_mxfp4_keep_the_least_scale(void **state) {
    (void)state;
    float source[32] = {0x1p-140f, -0x1p-129f}, row[32];
    struct stored_layout layout;
    struct stored_encoder encoder;
    struct error err;
    unsigned char bytes[128];
    assert_true(stored_layout(&layout, DTYPE_MLX_MXFP4, 1, 32, DTYPE_F32) && layout.bytes <= sizeof bytes);
    assert_ok(stored_encoder_open(&encoder, &layout, bytes, &err), &err);
    stored_encode(&encoder, 0, 1, source);
    stored_encoder_finish(&encoder, NULL);
    struct stored stored = stored_in(&layout, bytes);
    stored_decode(&stored, 0, 0, 32, row);
    for (int i = 0; i < 32; i++) assert_true(fabsf(row[i] - source[i]) <= 0x1p-129f);
}

static void encode_rows_of(enum dtype dtype, int64_t rows, int64_t columns, const float *source,
                           float *decoded) {
    struct stored_layout layout;
    struct stored_encoder encoder;
    struct error err;
    assert_true(stored_layout(&layout, dtype, rows, columns, DTYPE_F32));
    unsigned char *bytes = mem_alloc((size_t)layout.bytes);
    assert_non_null(bytes);
    assert_ok(stored_encoder_open(&encoder, &layout, bytes, &err), &err);
    stored_encode(&encoder, 0, rows, source);
    stored_encoder_finish(&encoder, NULL);
    struct stored stored = stored_in(&layout, bytes);
    for (int64_t r = 0; r < rows; r++) stored_decode(&stored, r, 0, columns, decoded + r * columns);
    mem_free(bytes);
}

/* Their scales are all the mean, so what is left of them has no largest one to divide by. */
static void nf4_of_blocks_with_one_scale_is_exact(void **state) {
    (void)state;
    static const float scales[] = {0, 0.25f};
    float source[2 * 128] = {0}, decoded[2 * 128];
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        for (int i = 0; i < 2 * 128; i++) source[i] = i % 3 ? 0 : i % 2 ? scales[s] : -scales[s];
        encode_rows_of(DTYPE_NF4, 2, 128, source, decoded);
        for (int i = 0; i < 2 * 128; i++) assert_true(fabsf(decoded[i] - source[i]) <= 0);
    }
}

/* Each number of a group may be its least or its largest one. */
static void affine_groups_reach_to_their_edges_wherever_they_are(void **state) {
    (void)state;
    float source[64], decoded[64];
    for (int low = 0; low < 64; low++)
        for (int high = 0; high < 64; high += 21) {
            if (low == high) continue;
            for (int i = 0; i < 64; i++) source[i] = 0;
            source[low] = -7;
            source[high] = 8;
            encode_rows_of(DTYPE_MLX4_G64, 1, 64, source, decoded);
            for (int i = 0; i < 64; i++) assert_true(fabsf(decoded[i] - source[i]) <= 0.01f);
        }
}

/* As threads encode them, the last piece first. */
static void rows_that_are_encoded_in_pieces_are_as_all_at_once(void **state) {
    (void)state;
    static const enum dtype types[] = {DTYPE_NF4, DTYPE_INT8, DTYPE_MLX4_G64, DTYPE_MLX_MXFP4, DTYPE_Q8_0};
    enum { columns = 64, rows = 3 * stored_rows_together + 1 };
    float *source = mem_array(rows * columns, sizeof *source), decoded[columns], direct[columns];
    unsigned char block[8 * columns];
    assert_non_null(source);
    for (int i = 0; i < rows * columns; i++)
        source[i] = (float)(i * 7919 % 1009 - 504) * 1e-3f * (float)(i / columns + 1);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct stored_layout layout;
        struct stored_encoder encoder;
        struct error err;
        unsigned char *made[2];
        for (int pieces = 0; pieces < 2; pieces++) {
            assert_true(stored_layout(&layout, types[t], rows, columns, DTYPE_F32));
            made[pieces] = mem_calloc(1, (size_t)layout.bytes);
            assert_non_null(made[pieces]);
            assert_ok(stored_encoder_open(&encoder, &layout, made[pieces], &err), &err);
            if (!pieces) stored_encode(&encoder, 0, rows, source);
            for (int64_t row = rows - 1; pieces && row >= 0; row -= stored_rows_together)
                stored_encode(&encoder, row, row == rows - 1 ? 1 : stored_rows_together,
                              source + row * columns);
            stored_encoder_finish(&encoder, NULL);
        }
        assert_memory_equal(made[0], made[1], (size_t)layout.bytes);
        struct stored stored = stored_in(&layout, made[1]);
        for (int64_t r = 0; types[t] == DTYPE_Q8_0 && r < rows; r++) {
            stored_decode(&stored, r, 0, columns, decoded);
            rowcodec(types[t])->encode(source + r * columns, block, columns);
            rowcodec(types[t])->decode(block, direct, columns);
            assert_memory_equal(decoded, direct, sizeof direct);
        }
        mem_free(made[0]);
        mem_free(made[1]);
    }
    mem_free(source);
}

static void a_layout_needs_whole_blocks(void **state) {
    (void)state;
    struct stored_layout layout;
    assert_false(stored_layout(&layout, DTYPE_NF4, 3, 5, DTYPE_F32));
    assert_false(stored_layout(&layout, DTYPE_MLX4_G64, 3, 96, DTYPE_F32));
    assert_false(stored_layout(&layout, DTYPE_MLX_MXFP4, 3, 80, DTYPE_F32));
    assert_false(stored_layout(&layout, DTYPE_Q4_K, 3, 128, DTYPE_F32));
    assert_true(stored_layout(&layout, DTYPE_INT8, 3, 5, DTYPE_F32));
    assert_int_equal(layout.bytes, 128);
    assert_int_equal(layout.part[PART_SCALES].offset, 64);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_decode_as_bitsandbytes_and_mlx_do),
        cmocka_unit_test(matrices_encode_as_bitsandbytes_and_mlx_do),
        cmocka_unit_test(every_scale_of_mxfp4_is_mlxs),
        cmocka_unit_test(numbers_too_small_for_mxfp4_keep_the_least_scale),
        cmocka_unit_test(nf4_of_blocks_with_one_scale_is_exact),
        cmocka_unit_test(affine_groups_reach_to_their_edges_wherever_they_are),
        cmocka_unit_test(rows_that_are_encoded_in_pieces_are_as_all_at_once),
        cmocka_unit_test(a_layout_needs_whole_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
