/* Closed to other folders: what the files that write a model share. */
#ifndef HONE_MODEL_SAVE_INTERNAL_H
#define HONE_MODEL_SAVE_INTERNAL_H

#include "base/arena.h"
#include "format/emit.h"
#include "model/save.h"
#include "tensor/stored.h"

/* What a tensor of the file holds of a weight: all of it, or, of a type whose scales lie apart
 * (tensor/stored.h), one piece. The codes come first; the pieces after them follow at once. */
enum save_piece {
    PIECE_ALL,
    PIECE_CODES,
    PIECE_PARTS,                               /* + enum tensor_part */
    PIECE_LEVELS = PIECE_PARTS + tensor_parts, /* nf4: what the codes mean */
    PIECE_STATE,                               /* nf4: shape and block sizes as JSON, and the offset */
    PIECE_FORMAT                               /* int8: the order of the codes, 0: row by row */
};

/* A tensor of the file. */
struct save_item {
    size_t weight;     /* index of model/layout.h */
    enum dtype type;   /* of the weight, whatever its pieces are */
    enum dtype wanted; /* what the rules ask for, before a fallback */
    enum save_piece piece;
    int64_t rows, columns; /* of the weight; a vector is one row */
    bool interleaved;      /* rows of q and k in GGUF's order */
    bool copied;           /* the stored bytes serve as they are */
};

/* All tensors of the file or directory, in its order. */
struct save_list {
    struct arena arena;
    struct save_item *items;
    struct tensor *tensors; /* the same, without data */
    size_t count;
    uint64_t bytes; /* of all tensors */
};
bool save_list_build(struct save_list *out, const struct save *save, struct error *err);
void save_list_release(struct save_list *list);
/* The type of a weight by the rules of save.h; *wanted before any fallback. */
enum dtype save_type_of(const struct save *save, size_t weight, enum dtype *wanted);
/* The float type beside it: bf16, unless `type` is a float type. */
enum dtype save_float_type(enum dtype type);

/* ---- types whose scales lie apart (save_pieces.c) ---- */

/* Piece number `index` of such a type, as a tensor named after the weight; false where there are no more.
 * `stored`: the weight as the model has it, whose pieces are kept where the item is copied. */
bool save_piece_of(const struct save_item *item, int index, const struct tensor *stored, const char *weight,
                   enum save_piece *piece, char name[tensor_max_name], struct tensor *out);
/* Whether a tensor of the source is a piece of this weight of it. */
bool save_is_piece(const struct tensor *weight, const char *name);
/* What config.json says of them: "quantization_config" (bitsandbytes), "quantization" (MLX). */
void save_quantisation(const struct save *save, const struct save_list *list, json_t **config);

/* ---- the stream (save_stream.c) ---- */

enum row_state { ROW_GOOD, ROW_NOT_FINITE, ROW_TOO_LARGE };

/* What a row tells; summed in the order of rows, so that the sums do not depend on threads. */
struct row_report {
    double change, squares;
    enum row_state state;
};

/* Makes slabs with a pool of threads. */
struct save_stream {
    const struct save *save;
    const struct save_list *list;
    struct pool *pool;
    float *lines; /* [threads, line_elements]: a worker's rows, and what is read back of one */
    size_t line_elements;
    unsigned char *slab; /* rows as the file has them; of a type with pieces a whole weight */
    struct row_report *reports;
    uint64_t done;
    double change, squares;
    size_t index; /* of the tensor that is being made */
    int64_t first, rows, per_task;
    struct stored_layout layout; /* of a weight with pieces, in the slab, */
    struct stored_encoder encoder;
};
bool save_stream_open(struct save_stream **out, const struct save *save, const struct save_list *list,
                      struct error *err);
void save_stream_close(struct save_stream **stream);
/* A tensor_emit: `user` is a struct save_part. */
struct save_part {
    struct save_stream *stream;
    size_t first; /* the list's index of the file's first tensor */
};
bool save_emit(void *user, size_t index, struct fs_writer *file, struct error *err);
double save_stream_error(const struct save_stream *stream); /* relative, of what was written so far */

/* The numbers of row `r` of the weight, as the file orders them, in `line`; NaN and infinities are told in
 * the report. Returns whether they are the stored ones. */
bool save_read_row(const struct save_stream *stream, const struct save_item *item, int64_t r, float *line,
                   struct row_report *report);
/* Adds what storing made of them. */
void save_compare_row(const float *line, const float *again, int64_t n, struct row_report *report);
/* Sums `count` reports; ERROR_INPUT by the tensor's name where a row is bad. */
bool save_take_reports(struct save_stream *stream, int64_t count, struct error *err);
bool save_tell_progress(const struct save_stream *stream, struct error *err);

/* Bytes of the slab, rows of reports and elements of a worker's lines that a weight with pieces takes. */
bool save_pieces_need(const struct save_item *item, uint64_t *bytes, int64_t *rows, uint64_t *elements);
/* Writes the piece that the item is; with the codes all pieces of the weight are made. */
bool save_emit_piece(struct save_stream *stream, const struct save_item *item, struct fs_writer *file,
                     struct error *err);

/* The two layouts. */
bool save_gguf(const struct save *save, const struct save_list *list, struct save_stream *stream,
               struct error *err);
bool save_hub(const struct save *save, const struct save_list *list, struct save_stream *stream,
              struct error *err);
/* Torch's name of the type that most numbers are computed in: "bfloat16". */
const char *save_torch_type(const struct save_list *list);

#endif
