/* Writes GGUF files, version 3, as gguf.h reads them. Keys are gathered in memory in the order of the calls,
 * then saved with the tensors, one after the other; the file appears under its name whole or not at all. */
#ifndef HONE_FORMAT_GGUF_WRITER_H
#define HONE_FORMAT_GGUF_WRITER_H

#include "base/buf.h"
#include "base/error.h"
#include "format/emit.h"
#include "format/gguf.h"

/* An all-zero struct gguf_writer is empty and valid. */
struct gguf_writer {
    struct buf keys; /* sticky failure: reported by save */
    uint64_t count;
};

void gguf_writer_release(struct gguf_writer *writer);

/* Texts are copied. The caller keeps keys distinct; general.alignment is left at its default of 32. */
void gguf_put_text(struct gguf_writer *writer, const char *key, const char *text, size_t size);
void gguf_put_u32(struct gguf_writer *writer, const char *key, uint32_t value);
void gguf_put_f32(struct gguf_writer *writer, const char *key, float value);
void gguf_put_bool(struct gguf_writer *writer, const char *key, bool value);
/* Any kind of number: `value` points to one in the kind's own C type (a bool is one byte). */
void gguf_put_number(struct gguf_writer *writer, const char *key, enum gguf_kind kind, const void *value);
/* `elements`: numbers side by side in the kind's C type, or struct gguf_text for GGUF_TEXT. */
void gguf_put_array(struct gguf_writer *writer, const char *key, enum gguf_kind kind, const void *elements,
                    size_t count);

/* Key number `index` of an open file, with its value as it is. */
void gguf_put_copy(struct gguf_writer *writer, const struct gguf *from, size_t index);

/* Tensors in the order given, from `emit` (emit.h), or with NULL from their data pointers; dtype must be one
 * that gguf_open reads and `bytes` must agree with the shape (ERROR_INTERNAL). Errors of writing: ERROR_DISK.
 */
bool gguf_writer_save(const struct gguf_writer *writer, const char *path, const struct tensor *tensors,
                      size_t count, tensor_emit *emit, void *user, struct error *err);
/* The same bytes, from the data pointers, appended to a buffer. */
bool gguf_writer_bytes(const struct gguf_writer *writer, const struct tensor *tensors, size_t count,
                       struct buf *out, struct error *err);

#endif
