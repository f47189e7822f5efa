/* safetensors files: 8 bytes of header length (u64, little endian), a JSON header, tensor bytes.
 * Offsets must be in order, without gaps or overlaps, and cover the file exactly; duplicate keys are
 * refused. Source: the safetensors README ("Format"). */
#ifndef HONE_FORMAT_SAFETENSORS_H
#define HONE_FORMAT_SAFETENSORS_H

#include "base/error.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/emit.h"
#include "tensor/tensor.h"

struct safetensors;

bool safetensors_open(struct safetensors **out, const char *path, struct error *err);
/* The same over bytes in memory, which must outlive the handle; `name` stands in messages. */
bool safetensors_open_bytes(struct safetensors **out, const void *bytes, size_t size, const char *name,
                            struct error *err);
void safetensors_close(struct safetensors **file);
size_t safetensors_count(const struct safetensors *file);
const struct tensor *safetensors_tensor(const struct safetensors *file, size_t index);
const struct tensor *safetensors_find(const struct safetensors *file, const char *name); /* NULL: none */
uint64_t safetensors_file_bytes(const struct safetensors *file); /* header and tensors */
/* "__metadata__", an object of strings, or NULL. */
const json_t *safetensors_metadata(const struct safetensors *file);

/* Writes tensors (f32, f16, bf16, i32, u32 …) in the order given, atomically. metadata may be NULL. */
bool safetensors_write(const char *path, const struct tensor *tensors, size_t count, const json_t *metadata,
                       struct error *err);

/* The same where the tensors are not all in memory at once (emit.h); their `data` is not looked at. */
bool safetensors_write_each(const char *path, const struct tensor *tensors, size_t count,
                            const json_t *metadata, tensor_emit *emit, void *user, struct error *err);

#endif
