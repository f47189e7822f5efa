/* Closed to other folders: what the files that write a model share. */
#ifndef HONE_MODEL_SAVE_INTERNAL_H
#define HONE_MODEL_SAVE_INTERNAL_H

#include "base/arena.h"
#include "format/emit.h"
#include "model/save.h"

/* A tensor of the file. */
struct save_item {
    size_t weight;     /* index of model/layout.h */
    enum dtype wanted; /* what the rules ask for, before a fallback */
    bool interleaved;  /* rows of q and k in GGUF's order */
    bool copied;       /* the stored bytes serve as they are */
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

/* Makes slabs with a pool of threads. */
struct save_stream;
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

/* The two layouts. */
bool save_gguf(const struct save *save, const struct save_list *list, struct save_stream *stream,
               struct error *err);
bool save_hub(const struct save *save, const struct save_list *list, struct save_stream *stream,
              struct error *err);
/* Torch's name of the type that most numbers are computed in: "bfloat16". */
const char *save_torch_type(const struct save_list *list);

#endif
