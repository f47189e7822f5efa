/* Opening a GGUF file: one pass over the header with a cursor that cannot leave the file, then tensors
 * against the data section. Nothing read from the file is used as a size or an offset before it was
 * compared with what is left. */
#include "format/gguf.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/gguf_internal.h"

enum {
    longest_key = 65535,      /* the format's own bound */
    most_elements = 1 << 24,  /* of one array; the largest vocabularies have a million entries */
    smallest_key = 8 + 4 + 1, /* bytes of a key with an empty name and a one-byte value */
    smallest_tensor = 8 + 4 + 4 + 8,
    default_alignment = 32,
    least_alignment = 8, /* the format's rule */
};

struct cursor {
    struct gguf *gguf;
    size_t at;
    struct error *err;
};

static size_t left(const struct cursor *cursor) { return cursor->gguf->size - cursor->at; }

static bool take(struct cursor *cursor, void *out, size_t size, const char *field) {
    if (size > left(cursor))
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: %s: the file ends at byte %zu, in the middle of it", cursor->gguf->path, field,
                         cursor->gguf->size);
    memcpy(out, cursor->gguf->data + cursor->at, size);
    cursor->at += size;
    return true;
}

static bool take_text(struct cursor *cursor, struct name *out, const char *field) {
    uint64_t size = 0;
    if (!take(cursor, &size, sizeof size, field)) return false;
    if (size > left(cursor))
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: %s: a text of %llu bytes, but only %zu %s left", cursor->gguf->path, field,
                         (unsigned long long)size, left(cursor), text_plural(left(cursor), "is", "are"));
    out->data = (const char *)cursor->gguf->data + cursor->at;
    out->size = (size_t)size;
    cursor->at += (size_t)size;
    return true;
}

/* A name, copied so that it ends with a NUL. */
static bool take_name(struct cursor *cursor, struct name *out, size_t longest, const char *field) {
    struct gguf *gguf = cursor->gguf;
    struct shown shown;
    if (!take_text(cursor, out, field)) return false;
    if (out->size == 0)
        return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: %s: empty", gguf->path, field);
    if (out->size > longest)
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: %s: %zu bytes long, at most %zu are allowed: %s", gguf->path, field, out->size,
                         longest, shown_text(&shown, out->data, out->size));
    if (memchr(out->data, '\0', out->size))
        return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: %s: holds a NUL byte: %s", gguf->path, field,
                         shown_text(&shown, out->data, out->size));
    out->data = arena_strndup(&gguf->arena, out->data, out->size);
    return out->data || error_no_memory(cursor->err, "gguf", out->size);
}

static bool value_error(struct cursor *cursor, const struct name *key, const char *cause) {
    struct shown shown;
    return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: key %s: %s", cursor->gguf->path,
                     shown_text(&shown, key->data, key->size), cause);
}

/* Walks a text array once and keeps where each element lies. */
static bool read_text_array(struct cursor *cursor, struct gguf_value *value) {
    struct gguf_text *texts = arena_array(&cursor->gguf->arena, value->count, sizeof *texts);
    if (!texts) return error_no_memory(cursor->err, "gguf", value->count * sizeof *texts);
    for (size_t i = 0; i < value->count; i++) {
        struct name text;
        if (!take_text(cursor, &text, "an array's text")) return false;
        texts[i] = (struct gguf_text){text.data, text.size};
    }
    value->elements = texts;
    return true;
}

static bool read_array(struct cursor *cursor, const struct name *key, struct gguf_value *value) {
    uint32_t element;
    uint64_t count, bytes;
    if (!take(cursor, &element, sizeof element, "an array's type")) return false;
    if (!take(cursor, &count, sizeof count, "an array's count")) return false;
    const struct gguf_kind_row *row = gguf_kind_row(element);
    if (!row) return value_error(cursor, key, "an array of an unknown type");
    if (element == GGUF_ARRAY)
        return value_error(cursor, key, "an array of arrays, which hone does not read");
    size_t smallest = row->bytes ? row->bytes : sizeof(uint64_t);
    if (count > left(cursor) / smallest)
        return value_error(cursor, key, "an array with more elements than the file has bytes");
    if (count > most_elements) return value_error(cursor, key, "an array of more than 16,777,216 elements");
    value->element = (enum gguf_kind)element;
    value->count = (size_t)count;
    value->bytes = cursor->gguf->data + cursor->at;
    if (element == GGUF_TEXT) return read_text_array(cursor, value);
    if (!checked_mul(count, row->bytes, &bytes) || bytes > left(cursor))
        return value_error(cursor, key, "an array that runs past the end of the file");
    cursor->at += (size_t)bytes;
    return gguf_value_convert(value, &cursor->gguf->arena) || error_no_memory(cursor->err, "gguf", 4 * count);
}

static bool read_value(struct cursor *cursor, const struct name *key, struct gguf_value *value) {
    uint32_t kind;
    struct name text;
    if (!take(cursor, &kind, sizeof kind, "a key's type")) return false;
    const struct gguf_kind_row *row = gguf_kind_row(kind);
    if (!row) return value_error(cursor, key, "a value of an unknown type");
    value->kind = (enum gguf_kind)kind;
    if (kind == GGUF_ARRAY) return read_array(cursor, key, value);
    value->bytes = cursor->gguf->data + cursor->at;
    if (kind == GGUF_TEXT) {
        if (!take_text(cursor, &text, "a key's text")) return false;
        value->bytes = (const unsigned char *)text.data;
        value->size = text.size;
        return true;
    }
    if (row->bytes > left(cursor)) return value_error(cursor, key, "the file ends inside its value");
    cursor->at += row->bytes;
    if (kind == GGUF_BOOL && *value->bytes > 1)
        return value_error(cursor, key, "a bool that is neither 0 nor 1");
    return true;
}

static bool index_names(struct cursor *cursor, struct name_index *index, const struct name *names,
                        size_t count, const char *what) {
    size_t duplicate;
    struct shown shown;
    if (!name_index_build(index, names, count, &duplicate))
        return error_no_memory(cursor->err, "gguf", 4 * count);
    if (duplicate == count) return true;
    return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: %s %s stands twice", cursor->gguf->path, what,
                     shown_text(&shown, names[duplicate].data, names[duplicate].size));
}

static bool read_keys(struct cursor *cursor) {
    struct gguf *gguf = cursor->gguf;
    gguf->key_names = arena_array(&gguf->arena, gguf->key_count, sizeof *gguf->key_names);
    gguf->values = arena_array(&gguf->arena, gguf->key_count, sizeof *gguf->values);
    if (!gguf->key_names || !gguf->values)
        return error_no_memory(cursor->err, "gguf", gguf->key_count * sizeof *gguf->values);
    for (size_t i = 0; i < gguf->key_count; i++) {
        if (!take_name(cursor, &gguf->key_names[i], longest_key, "a key's name")) return false;
        if (!read_value(cursor, &gguf->key_names[i], &gguf->values[i])) return false;
    }
    return index_names(cursor, &gguf->keys_by_name, gguf->key_names, gguf->key_count, "key");
}

static bool tensor_error(struct cursor *cursor, const struct tensor *tensor, const char *cause) {
    struct shown shown;
    return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: tensor %s %s", cursor->gguf->path,
                     shown_text(&shown, tensor->name, strlen(tensor->name)), cause);
}

static bool read_type(struct cursor *cursor, struct tensor *tensor) {
    uint32_t type;
    struct shown shown;
    if (!take(cursor, &type, sizeof type, "a tensor's type")) return false;
    const struct gguf_type_row *row = gguf_type_row(type);
    if (row && row->readable) {
        tensor->dtype = row->dtype;
        return true;
    }
    shown_text(&shown, tensor->name, strlen(tensor->name));
    if (!row)
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: tensor %s has type number %u, which hone does not know", cursor->gguf->path,
                         shown.text, type);
    error_set(cursor->err, ERROR_INPUT, "gguf", "%s: tensor %s has type %s, which hone does not read",
              cursor->gguf->path, shown.text, row->name);
    return error_fix(
        cursor->err,
        "Use a file of the same model in another type, such as bf16, q8_0, q4_k, iq4_xs or q2_k.");
}

/* Fills one tensor; *offset: from the start of the data section. */
static bool read_tensor(struct cursor *cursor, struct name *name, struct tensor *tensor, uint64_t *offset) {
    uint32_t rank;
    if (!take_name(cursor, name, tensor_max_name - 1, "a tensor's name")) return false;
    tensor->name = name->data;
    if (!take(cursor, &rank, sizeof rank, "a tensor's rank")) return false;
    if (rank > tensor_max_rank) return tensor_error(cursor, tensor, "has more than 4 dimensions");
    tensor->rank = (int)rank;
    for (uint32_t i = 0; i < rank; i++) {
        uint64_t dim;
        if (!take(cursor, &dim, sizeof dim, "a tensor's dimensions")) return false;
        if (dim == 0) return tensor_error(cursor, tensor, "has a dimension of 0");
        if (dim > INT64_MAX) return tensor_error(cursor, tensor, "has a dimension beyond 2^63");
        tensor->dim[rank - 1 - i] = (int64_t)dim;
    }
    if (!read_type(cursor, tensor)) return false;
    if (!tensor_set_bytes(tensor))
        return tensor_error(cursor, tensor,
                            "has dimensions that overflow or rows that are no whole number of blocks");
    return take(cursor, offset, sizeof *offset, "a tensor's offset");
}

/* Each tensor's end against the start of the one that follows it in the file. */
static bool check_overlap(struct cursor *cursor) {
    struct gguf *gguf = cursor->gguf;
    size_t count = gguf->tensor_count;
    bool sorted = true;
    for (size_t i = 1; i < count && sorted; i++) {
        const struct tensor *before = &gguf->tensors[i - 1];
        sorted = (const unsigned char *)before->data + before->bytes <=
                 (const unsigned char *)gguf->tensors[i].data;
    }
    if (sorted) return true; /* as every writer lays them out */
    const struct tensor **order = mem_array(count, sizeof *order);
    if (!order) return error_no_memory(cursor->err, "gguf", count * sizeof *order);
    for (size_t i = 0; i < count; i++) order[i] = &gguf->tensors[i];
    gguf_sort_by_place(order, count);
    bool ok = true;
    for (size_t i = 1; i < count && ok; i++)
        if ((const unsigned char *)order[i - 1]->data + order[i - 1]->bytes >
            (const unsigned char *)order[i]->data)
            ok = tensor_error(cursor, order[i], "overlaps another tensor");
    mem_free(order);
    return ok;
}

static bool read_tensors(struct cursor *cursor, uint64_t alignment) {
    struct gguf *gguf = cursor->gguf;
    size_t count = gguf->tensor_count;
    uint64_t start, *offsets = mem_array(count, sizeof *offsets);
    bool ok = false;
    gguf->tensors = arena_array(&gguf->arena, count, sizeof *gguf->tensors);
    gguf->tensor_names = arena_array(&gguf->arena, count, sizeof *gguf->tensor_names);
    if (!offsets || !gguf->tensors || !gguf->tensor_names) {
        error_no_memory(cursor->err, "gguf", count * sizeof *gguf->tensors);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        if (!read_tensor(cursor, &gguf->tensor_names[i], &gguf->tensors[i], &offsets[i])) goto done;
    if (!checked_align(cursor->at, alignment, &start)) {
        error_set(cursor->err, ERROR_INPUT, "gguf", "%s: general.alignment: too large", gguf->path);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        struct tensor *tensor = &gguf->tensors[i];
        uint64_t place;
        if (offsets[i] % alignment) {
            tensor_error(cursor, tensor, "begins at an offset that is not a multiple of general.alignment");
            goto done;
        }
        if (!checked_add(start, offsets[i], &place) || !checked_range(place, tensor->bytes, gguf->size)) {
            tensor_error(cursor, tensor, "runs past the end of the file");
            error_fix(cursor->err, "The file is incomplete or damaged; fetch it again.");
            goto done;
        }
        tensor->data = gguf->data + place;
    }
    ok = index_names(cursor, &gguf->tensors_by_name, gguf->tensor_names, count, "tensor") &&
         check_overlap(cursor);
done:
    mem_free(offsets);
    return ok;
}

static bool read_alignment(struct cursor *cursor, uint64_t *alignment) {
    struct gguf *gguf = cursor->gguf;
    size_t at = name_index_find(&gguf->keys_by_name, "general.alignment");
    uint32_t stored = default_alignment;
    if (at < gguf->key_count) {
        if (gguf->values[at].kind != GGUF_U32)
            return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: general.alignment: not of type u32",
                             gguf->path);
        memcpy(&stored, gguf->values[at].bytes, sizeof stored);
    }
    if (stored < least_alignment || (stored & (stored - 1)))
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: general.alignment: %u is not a power of two from %d on", gguf->path, stored,
                         least_alignment);
    *alignment = stored;
    return true;
}

static bool read_counts(struct cursor *cursor) {
    struct gguf *gguf = cursor->gguf;
    uint64_t tensors, keys;
    if (!take(cursor, &tensors, sizeof tensors, "tensor count") ||
        !take(cursor, &keys, sizeof keys, "key count"))
        return false;
    if (keys > left(cursor) / smallest_key)
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: key count: %llu keys cannot stand in %zu bytes", gguf->path,
                         (unsigned long long)keys, left(cursor));
    if (tensors > left(cursor) / smallest_tensor)
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: tensor count: %llu tensors cannot stand in %zu bytes", gguf->path,
                         (unsigned long long)tensors, left(cursor));
    gguf->key_count = (size_t)keys;
    gguf->tensor_count = (size_t)tensors;
    return true;
}

static bool read_version(struct cursor *cursor) {
    char magic[4];
    uint32_t version;
    const char *path = cursor->gguf->path;
    if (cursor->gguf->size == 0) return error_set(cursor->err, ERROR_INPUT, "gguf", "%s is empty", path);
    if (!take(cursor, magic, sizeof magic, "magic")) return false;
    if (memcmp(magic, "GGUF", 4)) {
        error_set(cursor->err, ERROR_INPUT, "gguf", "%s: magic: this is not a GGUF file", path);
        return error_fix(cursor->err,
                         "Give a .gguf file, or a directory with config.json and safetensors files.");
    }
    if (!take(cursor, &version, sizeof version, "version")) return false;
    if (version == 2 || version == 3) return true;
    if (version && (version & 0xffffu) == 0)
        return error_set(cursor->err, ERROR_INPUT, "gguf",
                         "%s: version: the file is big-endian, hone reads little-endian files", path);
    return error_set(cursor->err, ERROR_INPUT, "gguf", "%s: version: %u, hone reads 2 and 3", path, version);
}

/* Takes over *map (empty when `bytes` belong to the caller). */
static bool open_over(struct gguf **out, struct fs_map *map, const void *bytes, size_t size, const char *name,
                      struct error *err) {
    struct gguf *gguf = mem_calloc(1, sizeof *gguf);
    uint64_t alignment = default_alignment;
    *out = NULL;
    if (!gguf) {
        fs_map_close(map);
        return error_no_memory(err, "gguf", sizeof *gguf);
    }
    gguf->map = *map;
    gguf->data = bytes;
    gguf->size = size;
    gguf->path = arena_strdup(&gguf->arena, name);
    struct cursor cursor = {gguf, 0, err};
    bool ok = gguf->path ? read_version(&cursor) && read_counts(&cursor) && read_keys(&cursor) &&
                               read_alignment(&cursor, &alignment) && read_tensors(&cursor, alignment)
                         : error_no_memory(err, "gguf", strlen(name));
    if (ok)
        *out = gguf;
    else
        gguf_close(&gguf);
    return ok;
}

bool gguf_open(struct gguf **out, const char *path, struct error *err) {
    struct fs_map map;
    *out = NULL;
    return fs_map_open(&map, path, err) && open_over(out, &map, map.data, map.size, path, err);
}

bool gguf_open_bytes(struct gguf **out, const void *bytes, size_t size, const char *name, struct error *err) {
    struct fs_map none = {0};
    return open_over(out, &none, bytes, size, name, err);
}

void gguf_close(struct gguf **gguf) {
    struct gguf *closing = *gguf;
    *gguf = NULL;
    if (!closing) return;
    name_index_release(&closing->keys_by_name);
    name_index_release(&closing->tensors_by_name);
    arena_release(&closing->arena);
    fs_map_close(&closing->map);
    mem_free(closing);
}
