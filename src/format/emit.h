/* A file of tensors that are not all in memory at once: a header, then each one's bytes when it is its turn.
 * safetensors.c and gguf_writer.c make the header. */
#ifndef HONE_FORMAT_EMIT_H
#define HONE_FORMAT_EMIT_H

#include "base/error.h"
#include "base/fs.h"
#include "tensor/tensor.h"

/* Hands the bytes of tensor `index` to fs_writer_write, in as many pieces as it likes, `bytes` of the tensor
 * in all. False with *err filled ends the file, which then never appears. */
typedef bool tensor_emit(void *user, size_t index, struct fs_writer *file, struct error *err);

/* The file appears under its name whole, or not at all. `emit` NULL: every tensor from its data pointer,
 * which is not looked at otherwise. Zeros follow each tensor up to a multiple of `alignment` bytes. */
bool emit_file(const char *path, const struct buf *header, const struct tensor *tensors, size_t count,
               size_t alignment, tensor_emit *emit, void *user, struct error *err);

#endif
