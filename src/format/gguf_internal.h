/* Inside the GGUF reader: value types by their numbers in the file, and the handle. */
#ifndef HONE_FORMAT_GGUF_INTERNAL_H
#define HONE_FORMAT_GGUF_INTERNAL_H

#include "base/arena.h"
#include "base/fs.h"
#include "format/gguf.h"
#include "format/names_internal.h"

struct gguf_kind_row {
    const char *name;
    uint8_t bytes; /* of one value; 0: text and arrays */
};
const struct gguf_kind_row *gguf_kind_row(uint32_t kind); /* NULL: no such type */

/* ggml's tensor types: the name by the number in the file, and ours where a codec exists. */
struct gguf_type_row {
    const char *name; /* NULL: never assigned or withdrawn */
    bool readable;
    enum dtype dtype;
};
const struct gguf_type_row *gguf_type_row(uint32_t type); /* NULL: unknown number */
bool gguf_type_of(enum dtype dtype, uint32_t *type);      /* false: not a GGUF type of ours */

struct gguf_value {
    enum gguf_kind kind;        /* GGUF_ARRAY: see element */
    enum gguf_kind element;     /* of an array */
    size_t count;               /* of an array's elements */
    const unsigned char *bytes; /* the value, text bytes, or first element, in the mapping */
    size_t size;                /* of text */
    const void *elements;       /* struct gguf_text, int32_t or float by element kind; NULL: not offered */
};
/* Sets `elements` of an array of numbers: in place where the file's bytes serve as they stand, else a
 * copy. False: out of memory. */
bool gguf_value_convert(struct gguf_value *value, struct arena *arena);
void gguf_sort_by_place(const struct tensor **order, size_t count); /* by `data`, ascending */

struct gguf {
    struct fs_map map; /* size 0 when opened over bytes */
    const unsigned char *data;
    size_t size;
    const char *path;
    struct arena arena;
    size_t key_count, tensor_count;
    struct name *key_names, *tensor_names;
    struct gguf_value *values;
    struct tensor *tensors;
    struct name_index keys_by_name, tensors_by_name;
};

#endif
