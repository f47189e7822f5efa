/* GGUF files (version 2 and 3, little endian), mapped and bounded. gguf_writer.h writes them.
 *
 *   magic "GGUF" | version u32 | tensor count u64 | key count u64
 *   keys:    name (u64 length, bytes) | type u32 | value
 *   tensors: name | rank u32 | dims u64[rank], fastest first | type u32 | offset u64
 *   padding to general.alignment | tensor data
 *
 * Source: ggml's docs/gguf.md. Knows no architecture: keys and tensors only. Texts are bytes as they
 * stand in the file, not checked to be UTF-8: who reads a text as such checks it. */
#ifndef HONE_FORMAT_GGUF_H
#define HONE_FORMAT_GGUF_H

#include "base/buf.h"
#include "base/error.h"
#include "tensor/tensor.h"

struct gguf;

struct gguf_text {
    const char *data; /* not NUL-terminated; lies in the mapping */
    size_t size;
};

/* The kinds of values, by their numbers in the file. */
enum gguf_kind {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_TEXT,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_KIND_COUNT
};

/* Every size, count and offset is checked against the bytes that are there, and no tensor's bytes are
 * touched. Errors: ERROR_INPUT, "PATH: FIELD: cause". Types that have no codec are refused by name, as are
 * duplicate names, empty dimensions and tensors that overlap. */
bool gguf_open(struct gguf **out, const char *path, struct error *err);
/* The same over bytes in memory, which must outlive the handle; `name` stands in messages. */
bool gguf_open_bytes(struct gguf **out, const void *bytes, size_t size, const char *name, struct error *err);
void gguf_close(struct gguf **gguf);

size_t gguf_tensor_count(const struct gguf *gguf);
const struct tensor *gguf_tensor(const struct gguf *gguf, size_t index);          /* dims slowest first */
const struct tensor *gguf_find_tensor(const struct gguf *gguf, const char *name); /* NULL: none; log n */
uint64_t gguf_file_bytes(const struct gguf *gguf);

size_t gguf_key_count(const struct gguf *gguf);
const char *gguf_key_name(const struct gguf *gguf, size_t index, enum gguf_kind *kind); /* in file order */

/* Typed lookups. Return false when the key is absent or of another kind; any integer type converts to
 * i64 when it fits, f32 and f64 to double. */
bool gguf_has(const struct gguf *gguf, const char *key);
bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *out);
bool gguf_get_float(const struct gguf *gguf, const char *key, double *out); /* integers convert too */
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out);
bool gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out);
/* Arrays: the count, then elements, which live as long as the handle. Integer arrays of any width are
 * offered when every element fits i32; f64 arrays are rounded to f32. */
bool gguf_get_array_count(const struct gguf *gguf, const char *key, size_t *count);
bool gguf_get_text_array(const struct gguf *gguf, const char *key, const struct gguf_text **out,
                         size_t *count);
bool gguf_get_int_array(const struct gguf *gguf, const char *key, const int32_t **out, size_t *count);
bool gguf_get_float_array(const struct gguf *gguf, const char *key, const float **out, size_t *count);

#endif
