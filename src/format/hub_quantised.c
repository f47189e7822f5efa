/* Weights that a directory holds quantised, found by the names of what lies beside them:
 *
 *   bitsandbytes  X.weight (u8), X.weight.absmax, .quant_map, .nested_absmax, .nested_quant_map,
 *                 .quant_state.bitsandbytes__nf4 (JSON, as bytes); int8: X.weight (i8), X.SCB,
 *                 X.weight_format
 *   MLX           X.weight (u32), X.scales, X.biases (mxfp4: none); groups, bits and mode stand in
 *                 config.json's "quantization"
 *
 * Sources: transformers' quantizers and bitsandbytes' QuantState.as_dict; mlx_lm/utils.py. */
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/checked.h"
#include "format/hub_internal.h"
#include "tensor/stored.h"

/* A weight being put together. */
struct finding {
    struct hub *hub;
    const char *name; /* "….weight" */
    struct tensor *out;
};

static bool refuse(const struct finding *f, const char *cause, struct error *err) {
    return error_set(err, ERROR_INPUT, "hub", "%s: the tensor %.200s %s", hub_directory(f->hub), f->name,
                     cause);
}

/* The tensor whose name is `size` bytes of the weight's, and then `suffix`; NULL: there is none. */
static const struct tensor *beside(const struct finding *f, size_t size, const char *suffix) {
    char name[tensor_max_name + 64];
    snprintf(name, sizeof name, "%.*s%s", (int)size, f->name, suffix);
    return hub_find_tensor(f->hub, name);
}

static size_t module_size(const struct finding *f) {
    size_t size = strlen(f->name), tail = strlen(".weight");
    return size > tail && !strcmp(f->name + size - tail, ".weight") ? size - tail : size;
}

static bool is_vector(const struct tensor *tensor, enum dtype dtype, int64_t elements) {
    uint64_t count;
    return tensor && tensor->dtype == dtype && tensor_elements(tensor, &count) && count == (uint64_t)elements;
}

/* ---- bitsandbytes ---- */

static bool same_levels(const struct tensor *map) {
    return is_vector(map, DTYPE_F32, 16) && !memcmp(map->data, nf4_levels, sizeof nf4_levels);
}

/* The offset stands in JSON alone: its number gets a place of its own. */
static bool keep_offset(const struct finding *f, double value, struct error *err) {
    struct tensor *tensor = arena_array(hub_arena(f->hub), 1, sizeof *tensor);
    float *number = arena_array(hub_arena(f->hub), 1, sizeof *number);
    if (!tensor || !number) return error_no_memory(err, "hub", sizeof *tensor);
    *number = (float)value;
    *tensor = (struct tensor){.name = "nested_offset",
                              .dtype = DTYPE_F32,
                              .rank = 1,
                              .dim = {1},
                              .data = number,
                              .bytes = sizeof *number};
    f->out->part[PART_OFFSETS] = tensor;
    return true;
}

static bool nf4_scales(const struct finding *f, const json_t *state, int64_t blocks, struct error *err) {
    size_t size = strlen(f->name);
    const struct tensor *scales = beside(f, size, ".absmax"), *factors = beside(f, size, ".nested_absmax"),
                        *levels = beside(f, size, ".nested_quant_map");
    const json_t *offset = json_object_get(state, "nested_offset");
    f->out->part[PART_SCALES] = scales;
    if (!factors)
        return is_vector(scales, DTYPE_F32, blocks) || refuse(f, "has no scales (absmax) of its size", err);
    f->out->part[PART_FACTORS] = factors;
    f->out->part[PART_LEVELS] = levels;
    if (json_integer_value(json_object_get(state, "nested_blocksize")) != nf4_outer_block)
        return refuse(f, "has scales in other blocks than 256", err);
    if (!is_vector(scales, DTYPE_U8, blocks) || !is_vector(levels, DTYPE_F32, nf4_scale_levels) ||
        !is_vector(factors, DTYPE_F32, (blocks + nf4_outer_block - 1) / nf4_outer_block) ||
        !json_is_number(offset))
        return refuse(
            f, "has scales (absmax, nested_absmax, nested_quant_map, nested_offset) of another size", err);
    return keep_offset(f, json_number_value(offset), err);
}

static bool read_nf4(const struct finding *f, const struct tensor *codes, const struct tensor *bytes,
                     struct error *err) {
    json_t *state = NULL;
    bool ok = json_read(&state, bytes->data, (size_t)bytes->bytes, f->name, 1, err);
    const json_t *shape = json_object_get(state, "shape");
    int64_t rows = json_integer_value(json_array_get(shape, 0)),
            columns = json_integer_value(json_array_get(shape, 1));
    *f->out = (struct tensor){
        .name = codes->name, .dtype = DTYPE_NF4, .rank = 2, .dim = {rows, columns}, .data = codes->data};
    if (ok && json_integer_value(json_object_get(state, "blocksize")) != nf4_block)
        ok = refuse(f, "is nf4 in other blocks than 64, which is not supported", err);
    if (ok && (json_array_size(shape) != 2 || rows < 1 || columns < 1 || !tensor_set_bytes(f->out) ||
               f->out->bytes != codes->bytes))
        ok = refuse(f, "has another size than its quant_state says", err);
    if (ok && !same_levels(beside(f, strlen(f->name), ".quant_map")))
        ok = refuse(f, "has levels (quant_map) that are not nf4's", err);
    ok = ok && nf4_scales(f, state, (int64_t)((f->out->bytes * 2 + nf4_block - 1) / nf4_block), err);
    json_decref(state);
    return ok;
}

static bool read_int8(const struct finding *f, const struct tensor *codes, struct error *err) {
    const struct tensor *scales = beside(f, module_size(f), ".SCB"),
                        *order = beside(f, module_size(f), ".weight_format");
    if (codes->rank != 2 || !is_vector(scales, DTYPE_F32, codes->dim[0]))
        return refuse(f, "is of signed bytes and has no scale (SCB) for each row", err);
    if (order && (!is_vector(order, DTYPE_U8, 1) || *(const uint8_t *)order->data))
        return refuse(f, "does not lie row by row (weight_format), which is not supported", err);
    *f->out = *codes;
    f->out->dtype = DTYPE_INT8;
    f->out->part[PART_SCALES] = scales;
    return true;
}

/* ---- MLX ---- */

/* What config.json says of a module, or of all; NULL: nothing. */
static const json_t *mlx_settings(const struct hub *hub, const char *module, size_t size) {
    const json_t *all = json_object_get(hub_config(hub), "quantization");
    char name[tensor_max_name];
    snprintf(name, sizeof name, "%.*s", (int)size, module);
    const json_t *own = json_object_get(all, name);
    return json_is_object(own) ? own : all;
}

static bool mlx_type(const struct finding *f, enum dtype *out, struct error *err) {
    const json_t *settings = mlx_settings(f->hub, f->name, module_size(f));
    long long bits = json_integer_value(json_object_get(settings, "bits")),
              group = json_integer_value(json_object_get(settings, "group_size"));
    const char *mode = json_string_value(json_object_get(settings, "mode"));
    char name[32], cause[160];
    snprintf(name, sizeof name, group == 64 ? "mlx-%lldbit" : "mlx-%lldbit-g%lld", bits % 100, group % 1000);
    if ((!mode || !strcmp(mode, "affine")) && bits < 100 && group < 1000 && dtype_from_name(name, out))
        return true;
    *out = DTYPE_MLX_MXFP4;
    if (mode && !strcmp(mode, "mxfp4") && bits == 4 && group == dtype_row(*out)->block) return true;
    snprintf(cause, sizeof cause,
             "is quantised in mode %.20s with %lld bits and groups of %lld, which is not read",
             mode ? mode : "affine", bits, group);
    refuse(f, cause, err);
    return error_fix(err,
                     "Read are affine with 2, 3, 4, 5, 6 or 8 bits and groups of 32, 64 or 128, and mxfp4 "
                     "with 4 bits and groups of 32.");
}

/* A scale for each group of `codes`' rows; the matrix's shape follows. */
static bool mlx_shape(struct tensor *out, const struct tensor *codes, const struct tensor *scales) {
    const int64_t group = dtype_row(out->dtype)->block;
    if (codes->rank != 2 || scales->rank != 2 || codes->dim[0] != scales->dim[0] ||
        scales->dim[1] > INT64_MAX / group)
        return false;
    out->dim[0] = codes->dim[0];
    out->dim[1] = scales->dim[1] * group;
    return tensor_set_bytes(out) && out->bytes == codes->bytes;
}

static bool same_shape(const struct tensor *a, const struct tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank && a->dim[0] == b->dim[0] && a->dim[1] == b->dim[1];
}

static bool read_mlx(const struct finding *f, const struct tensor *codes, const struct tensor *scales,
                     struct error *err) {
    const struct tensor *offsets = beside(f, module_size(f), ".biases");
    enum dtype dtype;
    if (!mlx_type(f, &dtype, err)) return false;
    *f->out = (struct tensor){.name = codes->name, .dtype = dtype, .rank = 2, .data = codes->data};
    f->out->part[PART_SCALES] = scales;
    f->out->part[PART_OFFSETS] = offsets;
    bool ok = mlx_shape(f->out, codes, scales);
    if (dtype == DTYPE_MLX_MXFP4)
        return (ok && scales->dtype == DTYPE_U8 && !offsets) ||
               refuse(f, "is mxfp4 and disagrees with its scales, a byte for each 32 numbers, or has biases",
                      err);
    bool plain = scales->dtype == DTYPE_F32 || scales->dtype == DTYPE_F16 || scales->dtype == DTYPE_BF16;
    return (ok && plain && offsets && same_shape(offsets, scales)) ||
           refuse(f, "disagrees with its scales and biases about size or type", err);
}

bool hub_find_weight(struct hub *hub, const char *name, struct tensor *out, bool *found, struct error *err) {
    const struct finding f = {hub, name, out};
    const struct tensor *codes = hub_find_tensor(hub, name);
    *found = codes != NULL;
    if (!codes) return true;
    const struct tensor *nf4 = beside(&f, strlen(name), ".quant_state.bitsandbytes__nf4"),
                        *scales = beside(&f, module_size(&f), ".scales");
    if (nf4) return read_nf4(&f, codes, nf4, err);
    if (beside(&f, strlen(name), ".quant_state.bitsandbytes__fp4")) {
        refuse(&f, "is fp4 of bitsandbytes, which is not supported", err);
        return error_fix(err, "Quantise the model to nf4, or name the one that it was made from.");
    }
    if (codes->dtype == DTYPE_I8) return read_int8(&f, codes, err);
    if (codes->dtype == DTYPE_U32)
        return scales ? read_mlx(&f, codes, scales, err)
                      : refuse(&f, "is of packed codes and has no scales beside it", err);
    *out = *codes;
    return true;
}

/* ---- config.json ---- */

bool hub_check_quantised(const struct hub *hub, struct error *err) {
    const json_t *config = hub_config(hub), *theirs = json_object_get(config, "quantization_config");
    const char *method = json_string_value(json_object_get(theirs, "quant_method"));
    /* mlx_lm writes a copy of "quantization" there. */
    if (!json_is_object(theirs) || json_is_object(json_object_get(config, "quantization"))) return true;
    if (method && !strcmp(method, "bitsandbytes")) return true;
    error_set(err, ERROR_INPUT, "hub", "%s: config.json: quantization_config of \"%.40s\" is not supported",
              hub_directory(hub), method ? method : "no quant_method");
    return error_fix(err, "bitsandbytes' nf4 and int8 and MLX's are read.");
}
