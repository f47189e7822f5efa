#include "format/gguf_writer.h"

#include <string.h>

#include "base/checked.h"
#include "format/gguf_internal.h"

enum { data_alignment = 32 };

static void put_size(struct buf *out, uint64_t size) { buf_append(out, &size, sizeof size); }

static void put_counted(struct buf *out, const char *text, size_t size) {
    put_size(out, size);
    if (size) buf_append(out, text, size);
}

static void put_key(struct gguf_writer *writer, const char *key, enum gguf_kind kind) {
    uint32_t number = kind;
    put_counted(&writer->keys, key, strlen(key));
    buf_append(&writer->keys, &number, sizeof number);
    writer->count++;
}

void gguf_writer_release(struct gguf_writer *writer) {
    buf_release(&writer->keys);
    writer->count = 0;
}

void gguf_put_text(struct gguf_writer *writer, const char *key, const char *text, size_t size) {
    put_key(writer, key, GGUF_TEXT);
    put_counted(&writer->keys, text, size);
}

void gguf_put_number(struct gguf_writer *writer, const char *key, enum gguf_kind kind, const void *value) {
    put_key(writer, key, kind);
    buf_append(&writer->keys, value, gguf_kind_row(kind)->bytes);
}

void gguf_put_u32(struct gguf_writer *writer, const char *key, uint32_t value) {
    gguf_put_number(writer, key, GGUF_U32, &value);
}

void gguf_put_f32(struct gguf_writer *writer, const char *key, float value) {
    gguf_put_number(writer, key, GGUF_F32, &value);
}

void gguf_put_bool(struct gguf_writer *writer, const char *key, bool value) {
    uint8_t byte = value;
    gguf_put_number(writer, key, GGUF_BOOL, &byte);
}

void gguf_put_array(struct gguf_writer *writer, const char *key, enum gguf_kind kind, const void *elements,
                    size_t count) {
    uint32_t number = kind;
    const struct gguf_text *texts = elements;
    put_key(writer, key, GGUF_ARRAY);
    buf_append(&writer->keys, &number, sizeof number);
    put_size(&writer->keys, count);
    if (kind == GGUF_TEXT)
        for (size_t i = 0; i < count; i++) put_counted(&writer->keys, texts[i].data, texts[i].size);
    else if (count)
        buf_append(&writer->keys, elements, count * gguf_kind_row(kind)->bytes);
}

void gguf_put_copy(struct gguf_writer *writer, const struct gguf *from, size_t index) {
    const struct gguf_value *value = &from->values[index];
    const char *key = from->key_names[index].data;
    if (value->kind == GGUF_TEXT)
        gguf_put_text(writer, key, (const char *)value->bytes, value->size);
    else if (value->kind != GGUF_ARRAY)
        gguf_put_number(writer, key, value->kind, value->bytes);
    else
        gguf_put_array(writer, key, value->element,
                       value->element == GGUF_TEXT ? value->elements : value->bytes, value->count);
}

/* One tensor's entry; *offset: where its data begins, moved on to where the next one's does. */
static bool put_tensor(struct buf *out, const struct tensor *tensor, uint64_t *offset, struct error *err) {
    struct tensor sized = *tensor;
    uint32_t type, rank = (uint32_t)tensor->rank;
    uint64_t end;
    if (!gguf_type_of(tensor->dtype, &type) || !tensor_set_bytes(&sized) || sized.bytes != tensor->bytes ||
        !checked_add(*offset, tensor->bytes, &end) || !checked_align(end, data_alignment, &end))
        return error_set(err, ERROR_INTERNAL, "gguf", "tensor %s cannot be written as it is", tensor->name);
    put_counted(out, tensor->name, strlen(tensor->name));
    buf_append(out, &rank, sizeof rank);
    for (uint32_t i = 0; i < rank; i++) put_size(out, (uint64_t)tensor->dim[rank - 1 - i]);
    buf_append(out, &type, sizeof type);
    put_size(out, *offset);
    *offset = end;
    return true;
}

/* Everything before the tensors' data, padded. */
static bool put_header(const struct gguf_writer *writer, const struct tensor *tensors, size_t count,
                       struct buf *out, struct error *err) {
    static const char zeros[data_alignment];
    const uint32_t version = 3;
    size_t before = out->size;
    uint64_t offset = 0;
    buf_append(out, "GGUF", 4);
    buf_append(out, &version, sizeof version);
    put_size(out, count);
    put_size(out, writer->count);
    buf_append(out, writer->keys.data, writer->keys.size);
    for (size_t i = 0; i < count; i++)
        if (!put_tensor(out, &tensors[i], &offset, err)) return false;
    buf_append(out, zeros, -(out->size - before) % data_alignment);
    return (!out->failed && !writer->keys.failed) || error_no_memory(err, "gguf", out->size);
}

bool gguf_writer_bytes(const struct gguf_writer *writer, const struct tensor *tensors, size_t count,
                       struct buf *out, struct error *err) {
    static const char zeros[data_alignment];
    if (!put_header(writer, tensors, count, out, err)) return false;
    for (size_t i = 0; i < count; i++) {
        buf_append(out, tensors[i].data, (size_t)tensors[i].bytes);
        buf_append(out, zeros, -(size_t)tensors[i].bytes % data_alignment);
    }
    return !out->failed || error_no_memory(err, "gguf", out->size);
}

bool gguf_writer_save(const struct gguf_writer *writer, const char *path, const struct tensor *tensors,
                      size_t count, tensor_emit *emit, void *user, struct error *err) {
    struct buf header = {0};
    bool ok = put_header(writer, tensors, count, &header, err) &&
              emit_file(path, &header, tensors, count, data_alignment, emit, user, err);
    buf_release(&header);
    return ok;
}
