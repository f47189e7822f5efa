/* Types whose scales lie apart from the codes, as bitsandbytes and mlx-lm lay them out in safetensors files:
 * a weight becomes several tensors, and the whole weight is made, in its stored form, before the first is
 * written. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/thread.h"
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
        out->dim[1] = item->columns * stored_affine_bits(item->type) / 32;
    }
}

bool save_piece_of(const struct save_item *item, int index, const char *weight, enum save_piece *piece,
                   char name[tensor_max_name], struct tensor *out) {
    const struct piece_row *row = row_number(dtype_row(item->type)->form, index);
    struct stored_layout layout;
    if (!row || !lay_out(&layout, item)) return false;
    size_t size = strlen(weight), tail = strlen(".weight");
    if (row->of_module && size > tail) size -= tail;
    snprintf(name, tensor_max_name, "%.*s%s", (int)size, weight, row->suffix);
    *out = (struct tensor){.dtype = row->dtype, .rank = 1};
    *piece = row->piece;
    if (row->piece == PIECE_CODES) {
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

/* ---- what config.json says ---- */

void save_quantisation(const struct save *save, json_t **config) {
    enum dtype dtype = save->type ? save->type->dtype : DTYPE_F32;
    enum dtype_form form = dtype_row(dtype)->form;
    json_object_del(*config, "quantization_config"); /* the source's own */
    json_object_del(*config, "quantization");
    if (form == FORM_LEVELS)
        json_object_put(config, "quantization_config",
                        json_pack("{s:s, s:b, s:b, s:s, s:b, s:s, s:s}", "quant_method", "bitsandbytes",
                                  "load_in_4bit", 1, "load_in_8bit", 0, "bnb_4bit_quant_type", "nf4",
                                  "bnb_4bit_use_double_quant", 1, "bnb_4bit_compute_dtype", "bfloat16",
                                  "bnb_4bit_quant_storage", "uint8"));
    if (form == FORM_ROWS)
        json_object_put(config, "quantization_config",
                        json_pack("{s:s, s:b, s:b, s:f}", "quant_method", "bitsandbytes", "load_in_4bit", 0,
                                  "load_in_8bit", 1, "llm_int8_threshold", 6.0));
    if (form != FORM_AFFINE) return;
    json_t *affine = json_pack("{s:i, s:i}", "group_size", (int)dtype_row(dtype)->block, "bits",
                               stored_affine_bits(dtype));
    json_object_put(config, "quantization", json_incref(affine)); /* mlx-lm reads the one, hubs the other */
    json_object_put(config, "quantization_config", affine);
}

/* ---- the making ---- */

bool save_pieces_need(const struct save_item *item, uint64_t *bytes, int64_t *rows, uint64_t *elements) {
    struct stored_layout layout;
    *rows = item->rows;
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
    if (!lay_out(&stream->layout, item))
        return error_set(err, ERROR_INTERNAL, "model", "%s has no layout", dtype_row(item->type)->name);
    if (!stored_encoder_open(&stream->encoder, &stream->layout, stream->slab, err)) return false;
    bool ok = pass(stream, item, encode_rows, err);
    stored_encoder_finish(&stream->encoder, stream->pool);
    return ok && pass(stream, item, compare_rows, err) && save_take_reports(stream, item->rows, err);
}

/* What bitsandbytes' QuantState.from_dict asks for beside the tensors. */
static bool write_state(const struct save_stream *stream, const struct save_item *item,
                        struct fs_writer *file, struct error *err) {
    struct stored stored = stored_in(&stream->layout, stream->slab);
    double offset = (double)stored_number(&stored.part[PART_OFFSETS], 0);
    struct buf text = {0};
    json_t *state =
        json_pack("{s:s, s:i, s:s, s:[I, I], s:i, s:s, s:f}", "quant_type", "nf4", "blocksize", nf4_block,
                  "dtype", "bfloat16", "shape", (json_int_t)item->rows, (json_int_t)item->columns,
                  "nested_blocksize", nf4_outer_block, "nested_dtype", "float32", "nested_offset", offset);
    bool ok = (state || error_no_memory(err, "model", 0)) && json_write(state, &text, err);
    while (ok && text.size < state_bytes)
        ok = buf_byte(&text, ' ') || error_no_memory(err, "model", text.size);
    ok = ok && fs_writer_write(file, text.data, text.size, err);
    buf_release(&text);
    json_decref(state);
    return ok;
}

bool save_emit_piece(struct save_stream *stream, const struct save_item *item, struct fs_writer *file,
                     struct error *err) {
    const struct tensor *tensor = &stream->list->tensors[stream->index];
    static const unsigned char row_by_row = 0;
    const void *data = stream->slab + stream->layout.codes.offset;
    if (item->piece == PIECE_CODES) {
        if (!make_weight(stream, item, err)) return false;
        data = stream->slab + stream->layout.codes.offset;
    } else if (item->piece == PIECE_LEVELS) {
        data = nf4_levels;
    } else if (item->piece == PIECE_FORMAT) {
        data = &row_by_row;
    } else if (item->piece != PIECE_STATE) {
        data = stream->slab + stream->layout.part[item->piece - PIECE_PARTS].offset;
    }
    stream->done += tensor->bytes;
    return item->piece == PIECE_STATE ? write_state(stream, item, file, err)
                                      : fs_writer_write(file, data, (size_t)tensor->bytes, err);
}
