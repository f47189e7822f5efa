/* GGUF files (version 2 and 3, little endian), mapped and bounded; read and written.
 *
 *   magic "GGUF" | version u32 | tensor count u64 | key count u64
 *   keys:    name (u64 length, bytes) | type u32 | value
 *   tensors: name | rank u32 | dims u64[rank], fastest first | type u32 | offset u64
 *   padding to general.alignment | tensor data
 *
 * Source: ggml's docs/gguf.md. Knows no architecture: keys and tensors only. */
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

/* Every size, count and offset is checked against the bytes that are there. Errors: ERROR_INPUT,
 * "PATH: FIELD: cause". Types that have no codec are refused by name. */
bool gguf_open(struct gguf **out, const char *path, struct error *err);
void gguf_close(struct gguf **gguf);

size_t gguf_tensor_count(const struct gguf *gguf);
const struct tensor *gguf_tensor(const struct gguf *gguf, size_t index); /* dims slowest first */
const struct tensor *gguf_find_tensor(const struct gguf *gguf, const char *name); /* NULL: none; constant time */
uint64_t gguf_file_bytes(const struct gguf *gguf);

/* Typed lookups. Return false when the key is absent or of another kind; any integer type converts to
 * i64 when it fits, f32 and f64 to double. */
bool gguf_has(const struct gguf *gguf, const char *key);
bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *out);
bool gguf_get_float(const struct gguf *gguf, const char *key, double *out); /* integers convert too */
bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out);
bool gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out);
/* Arrays: the count, then elements. Text elements are found through an index made once. */
bool gguf_get_array_count(const struct gguf *gguf, const char *key, size_t *count);
bool gguf_get_text_array(const struct gguf *gguf, const char *key, const struct gguf_text **out, size_t *count);
bool gguf_get_int_array(const struct gguf *gguf, const char *key, const int32_t **out, size_t *count);
bool gguf_get_float_array(const struct gguf *gguf, const char *key, const float **out, size_t *count);

#endif
