#include "format/emit.h"

enum { most_padding = 64 };

static bool emit_tensor(struct fs_writer *file, const struct tensor *tensor, size_t index, tensor_emit *emit,
                        void *user, struct error *err) {
    uint64_t before = file->size;
    if (!(emit ? emit(user, index, file, err)
               : fs_writer_write(file, tensor->data, (size_t)tensor->bytes, err)))
        return false;
    return file->size - before == tensor->bytes ||
           error_set(err, ERROR_INTERNAL, "file", "tensor %s got %llu bytes, not %llu", tensor->name,
                     (unsigned long long)(file->size - before), (unsigned long long)tensor->bytes);
}

bool emit_file(const char *path, const struct buf *header, const struct tensor *tensors, size_t count,
               size_t alignment, tensor_emit *emit, void *user, struct error *err) {
    static const char zeros[most_padding];
    struct fs_writer file;
    if (!fs_writer_open(&file, path, err)) return false;
    bool ok = fs_writer_write(&file, header->data, header->size, err);
    for (size_t i = 0; ok && i < count; i++)
        ok = emit_tensor(&file, &tensors[i], i, emit, user, err) &&
             fs_writer_write(&file, zeros, -(size_t)tensors[i].bytes % alignment, err);
    if (ok) return fs_writer_commit(&file, err);
    fs_writer_drop(&file);
    return false;
}
