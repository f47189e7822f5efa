/* One JSON header that says where everything lies. The rules on offsets leave no byte of the file unnamed
 * and none named twice, so that no two readers can see different tensors in it. Stricter than the
 * reference: duplicate keys, empty dimensions, more than 4 of them and types of no use here are refused. */
#include "format/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/names_internal.h"

enum { prefix_bytes = 8, largest_header = 32 << 20 }; /* 100,000 tensors take about 12 MiB */

static const char metadata_key[] = "__metadata__";

static const struct {
    const char *name;
    enum dtype dtype;
} types[] = {{"F32", DTYPE_F32}, {"F16", DTYPE_F16}, {"BF16", DTYPE_BF16}, {"F64", DTYPE_F64},
             {"I32", DTYPE_I32}, {"U32", DTYPE_U32}, {"U8", DTYPE_U8},     {"I8", DTYPE_I8}};
enum { type_count = sizeof types / sizeof *types };

struct safetensors {
    struct fs_map map; /* size 0 when opened over bytes */
    const unsigned char *data;
    uint64_t size, file_bytes; /* of the tensors; in all */
    const char *path;
    struct arena arena;
    json_t *header;
    size_t count;
    struct tensor *tensors; /* in the order of their bytes */
    struct name *names;
    struct name_index by_name;
};

static bool refuse(const struct safetensors *file, const char *name, const char *cause, struct error *err) {
    struct shown shown;
    return error_set(err, ERROR_INPUT, "safetensors", "%s: tensor %s %s", file->path,
                     shown_text(&shown, name, strlen(name)), cause);
}

static bool read_type(const struct safetensors *file, const char *name, const json_t *value, enum dtype *out,
                      struct error *err) {
    const char *type = json_string_value(value);
    struct shown shown, shown_type;
    if (!type) return refuse(file, name, "has no \"dtype\"", err);
    for (size_t i = 0; i < type_count; i++) {
        if (strcmp(types[i].name, type)) continue;
        *out = types[i].dtype;
        return true;
    }
    return error_set(err, ERROR_INPUT, "safetensors", "%s: tensor %s has type %s, which hone does not read",
                     file->path, shown_text(&shown, name, strlen(name)),
                     shown_text(&shown_type, type, strlen(type)));
}

static bool read_shape(const struct safetensors *file, struct tensor *tensor, const json_t *shape,
                       struct error *err) {
    if (!json_is_array(shape)) return refuse(file, tensor->name, "has no \"shape\"", err);
    if (json_array_size(shape) > tensor_max_rank)
        return refuse(file, tensor->name, "has more than 4 dimensions", err);
    tensor->rank = (int)json_array_size(shape);
    for (int i = 0; i < tensor->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return refuse(file, tensor->name, "has a dimension that is no positive integer", err);
        tensor->dim[i] = json_integer_value(dim);
    }
    return tensor_set_bytes(tensor) || refuse(file, tensor->name, "has dimensions that overflow", err);
}

/* Fills one tensor; its data points where it claims to begin, inside the file. */
static bool read_entry(struct safetensors *file, const char *name, const json_t *entry, struct tensor *tensor,
                       struct error *err) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!*name) return refuse(file, name, "has an empty name", err);
    if (strlen(name) >= tensor_max_name) return refuse(file, name, "has a name of more than 255 bytes", err);
    if (!json_is_object(entry)) return refuse(file, name, "is not described by an object", err);
    tensor->name = arena_strdup(&file->arena, name);
    if (!tensor->name) return error_no_memory(err, "safetensors", strlen(name));
    if (!read_type(file, name, json_object_get(entry, "dtype"), &tensor->dtype, err)) return false;
    if (!read_shape(file, tensor, json_object_get(entry, "shape"), err)) return false;
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last) ||
        json_integer_value(first) < 0 || json_integer_value(last) < json_integer_value(first))
        return refuse(file, name, "has \"data_offsets\" that are not two ascending integers", err);
    uint64_t start = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last);
    if (end > file->size) return refuse(file, name, "runs past the end of the file", err);
    if (end - start != tensor->bytes)
        return refuse(file, name, "has offsets that disagree with its shape", err);
    tensor->data = file->data + start;
    return true;
}

static int by_place(const void *a, const void *b) {
    const struct tensor *x = a, *y = b;
    return x->data < y->data ? -1 : x->data > y->data;
}

/* Every byte after the header belongs to exactly one tensor. */
static bool check_cover(const struct safetensors *file, struct error *err) {
    const unsigned char *at = file->data;
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor *tensor = &file->tensors[i];
        if ((const unsigned char *)tensor->data < at)
            return refuse(file, tensor->name, "overlaps another", err);
        if ((const unsigned char *)tensor->data > at)
            return refuse(file, tensor->name, "leaves a gap before it", err);
        at += tensor->bytes;
    }
    if (at == file->data + file->size) return true;
    return error_set(err, ERROR_INPUT, "safetensors", "%s: bytes follow the last tensor", file->path);
}

/* MLX writes null where there is none. */
static bool check_metadata(const struct safetensors *file, struct error *err) {
    json_t *metadata = json_object_get(file->header, metadata_key), *value;
    const char *key;
    bool ok = !metadata || json_is_null(metadata) || json_is_object(metadata);
    json_object_foreach(metadata, key, value) ok = ok && json_is_string(value);
    return ok || error_set(err, ERROR_INPUT, "safetensors", "%s: __metadata__ is not an object of texts",
                           file->path);
}

static bool read_tensors(struct safetensors *file, struct error *err) {
    const char *name;
    json_t *entry;
    size_t capacity = json_object_size(file->header), duplicate;
    file->tensors = arena_array(&file->arena, capacity, sizeof *file->tensors);
    file->names = arena_array(&file->arena, capacity, sizeof *file->names);
    if (!file->tensors || !file->names)
        return error_no_memory(err, "safetensors", capacity * sizeof *file->tensors);
    json_object_foreach(file->header, name, entry) {
        if (!strcmp(name, metadata_key)) continue;
        if (!read_entry(file, name, entry, &file->tensors[file->count], err)) return false;
        file->count++;
    }
    if (file->count) qsort(file->tensors, file->count, sizeof *file->tensors, by_place);
    for (size_t i = 0; i < file->count; i++)
        file->names[i] = (struct name){file->tensors[i].name, strlen(file->tensors[i].name)};
    if (!name_index_build(&file->by_name, file->names, file->count, &duplicate))
        return error_no_memory(err, "safetensors", 4 * file->count);
    return check_cover(file, err) && check_metadata(file, err);
}

static bool read_header(struct safetensors *file, const void *bytes, size_t size, struct error *err) {
    const char *text = (const char *)bytes + prefix_bytes;
    uint64_t length;
    file->file_bytes = size;
    if (size < prefix_bytes)
        return error_set(err, ERROR_INPUT, "safetensors", "%s: %zu %s too few for a safetensors file",
                         file->path, size, text_plural(size, "byte is", "bytes are"));
    memcpy(&length, bytes, sizeof length);
    if (length > size - prefix_bytes)
        return error_set(err, ERROR_INPUT, "safetensors", "%s: a header of %llu bytes, but only %zu %s there",
                         file->path, (unsigned long long)length, size - prefix_bytes,
                         text_plural(size - prefix_bytes, "is", "are"));
    if (length > largest_header)
        return error_set(err, ERROR_INPUT, "safetensors", "%s: a header of %llu bytes, at most %d are read",
                         file->path, (unsigned long long)length, largest_header);
    if (length == 0 || *text != '{')
        return error_set(err, ERROR_INPUT, "safetensors", "%s: this is not a safetensors file", file->path);
    file->data = (const unsigned char *)text + length;
    file->size = size - prefix_bytes - length;
    if (!json_read(&file->header, text, (size_t)length, file->path, 1, err)) return false;
    return read_tensors(file, err);
}

/* Takes over *map (empty when `bytes` belong to the caller). */
static bool open_over(struct safetensors **out, struct fs_map *map, const void *bytes, size_t size,
                      const char *name, struct error *err) {
    struct safetensors *file = mem_calloc(1, sizeof *file);
    *out = NULL;
    if (!file) {
        fs_map_close(map);
        return error_no_memory(err, "safetensors", sizeof *file);
    }
    file->map = *map;
    file->path = arena_strdup(&file->arena, name);
    bool ok =
        file->path ? read_header(file, bytes, size, err) : error_no_memory(err, "safetensors", strlen(name));
    if (ok)
        *out = file;
    else
        safetensors_close(&file);
    return ok;
}

bool safetensors_open(struct safetensors **out, const char *path, struct error *err) {
    struct fs_map map;
    *out = NULL;
    return fs_map_open(&map, path, err) && open_over(out, &map, map.data, map.size, path, err);
}

bool safetensors_open_bytes(struct safetensors **out, const void *bytes, size_t size, const char *name,
                            struct error *err) {
    struct fs_map none = {0};
    return open_over(out, &none, bytes, size, name, err);
}

void safetensors_close(struct safetensors **file) {
    struct safetensors *closing = *file;
    *file = NULL;
    if (!closing) return;
    json_decref(closing->header);
    name_index_release(&closing->by_name);
    arena_release(&closing->arena);
    fs_map_close(&closing->map);
    mem_free(closing);
}

size_t safetensors_count(const struct safetensors *file) { return file->count; }

uint64_t safetensors_file_bytes(const struct safetensors *file) { return file->file_bytes; }

const struct tensor *safetensors_tensor(const struct safetensors *file, size_t index) {
    return &file->tensors[index];
}

const struct tensor *safetensors_find(const struct safetensors *file, const char *name) {
    size_t at = name_index_find(&file->by_name, name);
    return at < file->count ? &file->tensors[at] : NULL;
}

const json_t *safetensors_metadata(const struct safetensors *file) {
    const json_t *metadata = json_object_get(file->header, metadata_key);
    return json_is_object(metadata) ? metadata : NULL;
}

static const char *type_name(enum dtype dtype) {
    for (size_t i = 0; i < type_count; i++)
        if (types[i].dtype == dtype) return types[i].name;
    return NULL;
}

static json_t *describe(const struct tensor *tensor, uint64_t offset, uint64_t end) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++) json_list_add(&shape, json_integer(tensor->dim[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", type_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)offset, (json_int_t)end);
}

/* The length and the header, padded with spaces so that tensors begin at a multiple of 8. */
static bool make_header(struct buf *out, const struct tensor *tensors, size_t count, const json_t *metadata,
                        struct error *err) {
    json_t *header = json_object();
    uint64_t offset = 0, length = 0;
    bool ok =
        header && (!metadata || json_object_set(header, metadata_key, (json_t *)(uintptr_t)metadata) == 0);
    if (!ok) error_no_memory(err, "safetensors", count);
    for (size_t i = 0; ok && i < count; i++) {
        struct tensor sized = tensors[i];
        uint64_t end = 0;
        ok = tensor_set_bytes(&sized) && sized.bytes == tensors[i].bytes &&
             checked_add(offset, sized.bytes, &end) && end <= INT64_MAX && type_name(sized.dtype) &&
             !json_object_get(header, sized.name);
        if (!ok)
            error_set(err, ERROR_INTERNAL, "safetensors", "tensor %s cannot be written as it is", sized.name);
        ok = ok && (json_object_set_new(header, sized.name, describe(&sized, offset, end)) == 0 ||
                    error_no_memory(err, "safetensors", count));
        offset = end;
    }
    ok = ok &&
         (buf_append(out, &length, sizeof length) || error_no_memory(err, "safetensors", sizeof length)) &&
         json_write(header, out, err);
    while (ok && out->size % prefix_bytes)
        ok = buf_byte(out, ' ') || error_no_memory(err, "safetensors", out->size);
    if (ok) {
        length = out->size - prefix_bytes;
        memcpy(out->data, &length, sizeof length);
    }
    json_decref(header);
    return ok;
}

bool safetensors_write_each(const char *path, const struct tensor *tensors, size_t count,
                            const json_t *metadata, tensor_emit *emit, void *user, struct error *err) {
    struct buf header = {0};
    bool ok = make_header(&header, tensors, count, metadata, err) &&
              emit_file(path, &header, tensors, count, 1, emit, user, err);
    buf_release(&header);
    return ok;
}

bool safetensors_write(const char *path, const struct tensor *tensors, size_t count, const json_t *metadata,
                       struct error *err) {
    return safetensors_write_each(path, tensors, count, metadata, NULL, NULL, err);
}
