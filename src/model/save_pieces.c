/* Types whose scales lie apart from the codes, as bitsandbytes and mlx-lm lay them out in safetensors files:
 * a weight becomes several tensors, and the whole weight is made, in its stored form, before the first is
 * written. One that is stored in this type already keeps its pieces to the byte: to encode what they stand
 * for again would change nf4's scales, and scales of another type than the one that is written. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/thread.h"
#include "model/layout.h"
#include "model/save_internal.h"
#include "tensor/stored_parts.h"

enum { state_bytes = 384 }; /* JSON, filled up with spaces, since its length stands in the header before it */

/* In the order of the file. `of_module`: the name follows the module's ("q_proj.scales") and not the weight's
 * ("q_proj.weight.absmax"). Sources: bitsandbytes, functional.py, QuantState.as_dict; transformers, the
 * deserialisation of Int8Params; mlx, QuantizedLinear. */
static const struct piece_row {
    enum dtype_form form;
    enum save_piece piece;
    const char *suffix;
    bool of_module;
    enum dtype dtype;
} pieces[] = {
    {FORM_LEVELS, PIECE_CODES, "", false, DTYPE_U8},
    {FORM_LEVELS, PIECE_PARTS + PART_SCALES, ".absmax", false, DTYPE_U8},
    {FORM_LEVELS, PIECE_PARTS + PART_FACTORS, ".nested_absmax", false, DTYPE_F32},
    {FORM_LEVELS, PIECE_PARTS + PART_LEVELS, ".nested_quant_map", false, DTYPE_F32},
    {FORM_LEVELS, PIECE_LEVELS, ".quant_map", false, DTYPE_F32},
    {FORM_LEVELS, PIECE_STATE, ".quant_state.bitsandbytes__nf4", false, DTYPE_U8},
    {FORM_ROWS, PIECE_CODES, "", false, DTYPE_I8},
    {FORM_ROWS, PIECE_PARTS + PART_SCALES, ".SCB", true, DTYPE_F32},
    {FORM_ROWS, PIECE_FORMAT, ".weight_format", true, DTYPE_U8},
    {FORM_AFFINE, PIECE_CODES, "", false, DTYPE_U32},
    {FORM_AFFINE, PIECE_PARTS + PART_SCALES, ".scales", true, DTYPE_BF16},
    {FORM_AFFINE, PIECE_PARTS + PART_OFFSETS, ".biases", true, DTYPE_BF16},
    {FORM_MICRO, PIECE_CODES, "", false, DTYPE_U32},
    {FORM_MICRO, PIECE_PARTS + PART_SCALES, ".scales", true, DTYPE_U8},
};
enum { piece_count = sizeof pieces / sizeof *pieces };

static bool lay_out(struct stored_layout *out, const struct save_item *item) {
    return stored_layout(out, item->type, item->rows, item->columns, DTYPE_BF16);
}

static const struct piece_row *row_number(enum dtype_form form, int index) {
    for (int i = 0; i < piece_count; i++)
        if (pieces[i].form == form && index-- == 0) return &pieces[i];
    return NULL;
}

/* Codes are nibbles in a column, signed bytes as the weight lies, or words of 32 bits. */
static void shape_codes(const struct save_item *item, struct tensor *out) {
    out->rank = 2;
    out->dim[0] = item->rows;
    out->dim[1] = item->columns;
    if (out->dtype == DTYPE_U8) {
        out->dim[0] = (item->rows * item->columns + 1) / 2;
        out->dim[1] = 1;
    } else if (out->dtype == DTYPE_U32) {
        out->dim[1] = item->columns * stored_code_bits(item->type) / 32;
    }
}

/* What the piece's name begins with: "….q_proj" or "….q_proj.weight". */
static size_t stem_size(const struct piece_row *row, const char *weight) {
    size_t size = strlen(weight), tail = strlen(".weight");
    return row->of_module && size > tail ? size - tail : size;
}

static int part_of(const struct piece_row *row) {
    int part = (int)row->piece - PIECE_PARTS;
    return part >= 0 && part < tensor_parts ? part : -1;
}

/* Of a weight that is stored so already, the piece as it lies there; NULL: it has none, as nf4 whose scales
 * are numbers has no levels for them. */
static const struct tensor *stored_piece(const struct piece_row *row, const struct tensor *stored) {
    return stored->part[part_of(row)];
}

/* Row number `index` of those that the item has. */
static const struct piece_row *row_of_item(const struct save_item *item, int index,
                                           const struct tensor *stored) {
    const struct piece_row *row;
    for (int i = 0; (row = row_number(dtype_row(item->type)->form, i)); i++)
        if ((!item->copied || part_of(row) < 0 || stored_piece(row, stored)) && index-- == 0) return row;
    return NULL;
}

bool save_piece_of(const struct save_item *item, int index, const struct tensor *stored, const char *weight,
                   enum save_piece *piece, char name[tensor_max_name], struct tensor *out) {
    const struct piece_row *row = row_of_item(item, index, stored);
    struct stored_layout layout;
    if (!row || !lay_out(&layout, item)) return false;
    snprintf(name, tensor_max_name, "%.*s%s", (int)stem_size(row, weight), weight, row->suffix);
    *out = (struct tensor){.dtype = row->dtype, .rank = 1};
    *piece = row->piece;
    if (item->copied && part_of(row) >= 0) {
        const struct tensor *part = stored_piece(row, stored);
        out->dtype = part->dtype;
        out->rank = part->rank;
        memcpy(out->dim, part->dim, sizeof part->dim);
    } else if (row->piece == PIECE_CODES) {
        shape_codes(item, out);
    } else if (row->piece == PIECE_LEVELS) {
        out->dim[0] = sizeof nf4_levels / sizeof *nf4_levels;
    } else if (row->piece == PIECE_STATE) {
        out->dim[0] = state_bytes;
    } else if (row->piece == PIECE_FORMAT) {
        out->rank = 0;
    } else {
        const struct stored_piece *part = &layout.part[row->piece - PIECE_PARTS];
        out->rank = part->rank;
        memcpy(out->dim, part->dim, sizeof part->dim);
    }
    return true;
}

bool save_is_piece(const struct tensor *weight, const char *name) {
    const struct piece_row *row;
    for (int i = 0; (row = row_number(dtype_row(weight->dtype)->form, i)); i++) {
        size_t size = stem_size(row, weight->name);
        if (!strncmp(name, weight->name, size) && !strcmp(name + size, row->suffix)) return true;
    }
    return false;
}

/* ---- what config.json says ---- */

/* A weight of the list that stands for its module: a matrix, by its codes or all at once. */
static bool is_matrix(const struct save_item *item) { return item->piece <= PIECE_CODES && item->rows > 1; }

/* The type with pieces that the first such weight has; DTYPE_COUNT: none has one. */
static enum dtype first_with_pieces(const struct save_list *list) {
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].piece == PIECE_CODES) return list->items[i].type;
    return DTYPE_COUNT;
}

/* transformers makes quantised modules of all linears that are not named here; without the list, of all but
 * the head. NULL: the list is not needed. */
static json_t *float_modules(const struct save *save, const struct save_list *list) {
    json_t *out = json_array();
    bool any = false;
    for (size_t i = 0; i < list->count; i++) {
        enum weight_role role = layout_role(&save->model->config, list->items[i].weight);
        const char *name = list->tensors[i].name;
        if (!is_matrix(&list->items[i]) || list->items[i].piece == PIECE_CODES || role == WEIGHT_EMBEDDING ||
            role == WEIGHT_HEAD)
            continue;
        json_list_add(&out, json_stringn(name, strlen(name) - strlen(".weight")));
        any = true;
    }
    json_list_add(&out, json_string("lm_head"));
    if (any) return out;
    json_decref(out);
    return NULL;
}

/* What bitsandbytes decodes nf4 to: as the source says, since what is kept is then computed as before. */
static const char *compute_type(const struct save *save) {
    static const char *const known[] = {"float32", "float16", "bfloat16"};
    const json_t *theirs = json_object_get(model_hub_config(save->model), "quantization_config");
    const char *name = json_string_value(json_object_get(theirs, "bnb_4bit_compute_dtype"));
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i])) return known[i];
    return "bfloat16";
}

static json_t *bitsandbytes_config(const struct save *save, const struct save_list *list, enum dtype dtype) {
    json_t *out, *floats = float_modules(save, list);
    bool nested = false;
    for (size_t i = 0; i < list->count; i++) nested |= list->items[i].piece == PIECE_PARTS + PART_FACTORS;
    if (dtype == DTYPE_NF4)
        out =
            json_pack("{s:s, s:b, s:b, s:s, s:b, s:s, s:s}", "quant_method", "bitsandbytes", "load_in_4bit",
                      1, "load_in_8bit", 0, "bnb_4bit_quant_type", "nf4", "bnb_4bit_use_double_quant", nested,
                      "bnb_4bit_compute_dtype", compute_type(save), "bnb_4bit_quant_storage", "uint8");
    else
        out = json_pack("{s:s, s:b, s:b, s:f}", "quant_method", "bitsandbytes", "load_in_4bit", 0,
                        "load_in_8bit", 1, "llm_int8_threshold", 6.0);
    if (floats) json_object_put(&out, "llm_int8_skip_modules", floats);
    return out;
}

static bool is_mlx(enum dtype dtype) {
    return dtype_row(dtype)->form == FORM_AFFINE || dtype_row(dtype)->form == FORM_MICRO;
}

/* Without a mode it is affine, of a module too where all others have one. */
static json_t *mlx_settings(enum dtype dtype) {
    json_t *out =
        json_pack("{s:i, s:i}", "group_size", (int)dtype_row(dtype)->block, "bits", stored_code_bits(dtype));
    if (dtype_row(dtype)->form == FORM_MICRO) json_object_put(&out, "mode", json_string("mxfp4"));
    return out;
}

/* Modules without scales are floats to mlx-lm; those of another type than the first stand by name. */
static json_t *mlx_config(const struct save_list *list, enum dtype dtype) {
    json_t *out = mlx_settings(dtype);
    for (size_t i = 0; i < list->count; i++) {
        const struct save_item *item = &list->items[i];
        char name[tensor_max_name];
        if (item->piece != PIECE_CODES || item->type == dtype) continue;
        snprintf(name, sizeof name, "%.*s", (int)(strlen(list->tensors[i].name) - strlen(".weight")),
                 list->tensors[i].name);
        json_object_put(&out, name, mlx_settings(item->type));
    }
    return out;
}

void save_quantisation(const struct save *save, const struct save_list *list, json_t **config) {
    enum dtype dtype = first_with_pieces(list);
    json_object_del(*config, "quantization_config"); /* the source's own */
    json_object_del(*config, "quantization");
    if (dtype == DTYPE_COUNT) return;
    if (!is_mlx(dtype)) {
        json_object_put(config, "quantization_config", bitsandbytes_config(save, list, dtype));
        return;
    }
    json_t *settings = mlx_config(list, dtype);
    json_object_put(config, "quantization", json_incref(settings)); /* mlx-lm reads the one, hubs the other */
    json_object_put(config, "quantization_config", settings);
}

/* ---- the making ---- */

bool save_pieces_need(const struct save_item *item, uint64_t *bytes, int64_t *rows, uint64_t *elements) {
    struct stored_layout layout;
    *rows = item->rows;
    if (item->copied) {
        *bytes = 1;
        *elements = (uint64_t)item->columns;
        return true;
    }
    return lay_out(&layout, item) && (*bytes = layout.bytes) &&
           checked_mul((uint64_t)item->columns, stored_rows_together + 1, elements);
}

/* Rows that are encoded together. The reports are of the numbers alone so far. */
static void encode_rows(void *user, int task, int worker) {
    struct save_stream *stream = user;
    const struct save_item *item = &stream->list->items[stream->index];
    float *lines = stream->lines + (size_t)worker * stream->line_elements;
    int64_t first = stream->first + (int64_t)task * stored_rows_together, count = item->rows - first;
    bool good = true;
    if (count > stored_rows_together) count = stored_rows_together;
    for (int64_t r = 0; r < count; r++) {
        save_read_row(stream, item, first + r, lines + r * item->columns, &stream->reports[first + r]);
        good = good && stream->reports[first + r].state == ROW_GOOD;
    }
    if (good) stored_encode(&stream->encoder, first, count, lines);
}

/* Once the scales of all rows are there. */
static void compare_rows(void *user, int task, int worker) {
    struct save_stream *stream = user;
    const struct save_item *item = &stream->list->items[stream->index];
    float *line = stream->lines + (size_t)worker * stream->line_elements, *again = line + item->columns;
    struct stored stored = stored_in(&stream->layout, stream->slab);
    int64_t first = stream->first + (int64_t)task * stored_rows_together, count = item->rows - first;
    if (count > stored_rows_together) count = stored_rows_together;
    for (int64_t r = first; r < first + count; r++) {
        save_read_row(stream, item, r, line, &stream->reports[r]);
        if (stream->reports[r].state != ROW_GOOD) continue;
        stored_decode(&stored, r, 0, item->columns, again);
        save_compare_row(line, again, item->columns, &stream->reports[r]);
    }
}

/* Rows that are kept: looked at alone. */
static void look_at_rows(void *user, int task, int worker) {
    struct save_stream *stream = user;
    const struct save_item *item = &stream->list->items[stream->index];
    float *line = stream->lines + (size_t)worker * stream->line_elements;
    int64_t first = stream->first + (int64_t)task * stored_rows_together, count = item->rows - first;
    if (count > stored_rows_together) count = stored_rows_together;
    for (int64_t r = first; r < first + count; r++) {
        save_read_row(stream, item, r, line, &stream->reports[r]);
        if (stream->reports[r].state == ROW_GOOD)
            save_compare_row(line, line, item->columns, &stream->reports[r]);
    }
}

/* Some tasks for each thread between two looks at the clock and at a stop. */
static bool pass(struct save_stream *stream, const struct save_item *item, pool_task run, struct error *err) {
    int together = 4 * pool_threads(stream->pool);
    for (stream->first = 0; stream->first < item->rows;
         stream->first += (int64_t)together * stored_rows_together) {
        int64_t left = (item->rows - stream->first + stored_rows_together - 1) / stored_rows_together;
        if (!save_tell_progress(stream, err)) return false;
        pool_run(stream->pool, left < together ? (int)left : together, run, stream);
    }
    return true;
}

static bool make_weight(struct save_stream *stream, const struct save_item *item, struct error *err) {
    if (item->copied)
        return pass(stream, item, look_at_rows, err) && save_take_reports(stream, item->rows, err);
    if (!lay_out(&stream->layout, item))
        return error_set(err, ERROR_INTERNAL, "model", "%s has no layout", dtype_row(item->type)->name);
    if (!stored_encoder_open(&stream->encoder, &stream->layout, stream->slab, err)) return false;
    bool ok = pass(stream, item, encode_rows, err);
    stored_encoder_finish(&stream->encoder, stream->pool);
    return ok && pass(stream, item, compare_rows, err) && save_take_reports(stream, item->rows, err);
}

static const struct tensor *source_of(const struct save_stream *stream, const struct save_item *item) {
    return &stream->save->model->weights[item->weight];
}

/* What bitsandbytes' QuantState.from_dict asks for beside the tensors. */
static bool write_state(const struct save_stream *stream, const struct save_item *item,
                        struct fs_writer *file, struct error *err) {
    struct stored stored =
        item->copied ? stored_of(source_of(stream, item)) : stored_in(&stream->layout, stream->slab);
    struct buf text = {0};
    json_t *state =
        json_pack("{s:s, s:i, s:s, s:[I, I]}", "quant_type", "nf4", "blocksize", nf4_block, "dtype",
                  "bfloat16", "shape", (json_int_t)item->rows, (json_int_t)item->columns);
    if (stored.part[PART_FACTORS].data) {
        double offset = (double)stored_number(&stored.part[PART_OFFSETS], 0);
        json_object_put(&state, "nested_blocksize", json_integer(nf4_outer_block));
        json_object_put(&state, "nested_dtype", json_string("float32"));
        json_object_put(&state, "nested_offset", json_real(offset));
    }
    bool ok = (state || error_no_memory(err, "model", 0)) && json_write(state, &text, err);
    while (ok && text.size < state_bytes)
        ok = buf_byte(&text, ' ') || error_no_memory(err, "model", text.size);
    ok = ok && fs_writer_write(file, text.data, text.size, err);
    buf_release(&text);
    json_decref(state);
    return ok;
}

/* Where the piece's bytes lie, once the weight is made. */
static const void *piece_data(const struct save_stream *stream, const struct save_item *item) {
    static const unsigned char row_by_row = 0;
    const struct tensor *source = item->copied ? source_of(stream, item) : NULL;
    if (item->piece == PIECE_LEVELS) return nf4_levels;
    if (item->piece == PIECE_FORMAT) return &row_by_row;
    if (item->piece == PIECE_CODES) return source ? source->data : stream->slab + stream->layout.codes.offset;
    int part = (int)item->piece - PIECE_PARTS;
    return source ? source->part[part]->data : stream->slab + stream->layout.part[part].offset;
}

bool save_emit_piece(struct save_stream *stream, const struct save_item *item, struct fs_writer *file,
                     struct error *err) {
    const struct tensor *tensor = &stream->list->tensors[stream->index];
    if (item->piece == PIECE_CODES && !make_weight(stream, item, err)) return false;
    stream->done += tensor->bytes;
    return item->piece == PIECE_STATE
               ? write_state(stream, item, file, err)
               : fs_writer_write(file, piece_data(stream, item), (size_t)tensor->bytes, err);
}
