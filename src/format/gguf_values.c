/* Looking things up in an open GGUF file. */
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"
#include "format/gguf_internal.h"

size_t gguf_tensor_count(const struct gguf *gguf) { return gguf->tensor_count; }

const struct tensor *gguf_tensor(const struct gguf *gguf, size_t index) { return &gguf->tensors[index]; }

const struct tensor *gguf_find_tensor(const struct gguf *gguf, const char *name) {
    size_t at = name_index_find(&gguf->tensors_by_name, name);
    return at < gguf->tensor_count ? &gguf->tensors[at] : NULL;
}

uint64_t gguf_file_bytes(const struct gguf *gguf) { return gguf->size; }

size_t gguf_key_count(const struct gguf *gguf) { return gguf->key_count; }

const char *gguf_key_name(const struct gguf *gguf, size_t index, enum gguf_kind *kind) {
    *kind = gguf->values[index].kind;
    return gguf->key_names[index].data;
}

static const struct gguf_value *find(const struct gguf *gguf, const char *key) {
    size_t at = name_index_find(&gguf->keys_by_name, key);
    return at < gguf->key_count ? &gguf->values[at] : NULL;
}

bool gguf_has(const struct gguf *gguf, const char *key) { return find(gguf, key) != NULL; }

/* One number of a kind, at any alignment. False: not of an integer kind, or beyond i64. */
static bool load_int(enum gguf_kind kind, const unsigned char *at, int64_t *out) {
    union {
        uint8_t u8;
        int8_t i8;
        uint16_t u16;
        int16_t i16;
        uint32_t u32;
        int32_t i32;
        uint64_t u64;
        int64_t i64;
    } value;
    switch (kind) {
    case GGUF_U8: memcpy(&value.u8, at, 1); return *out = value.u8, true;
    case GGUF_I8: memcpy(&value.i8, at, 1); return *out = value.i8, true;
    case GGUF_U16: memcpy(&value.u16, at, 2); return *out = value.u16, true;
    case GGUF_I16: memcpy(&value.i16, at, 2); return *out = value.i16, true;
    case GGUF_U32: memcpy(&value.u32, at, 4); return *out = value.u32, true;
    case GGUF_I32: memcpy(&value.i32, at, 4); return *out = value.i32, true;
    case GGUF_I64: memcpy(&value.i64, at, 8); return *out = value.i64, true;
    case GGUF_U64:
        memcpy(&value.u64, at, 8);
        if (value.u64 > INT64_MAX) return false;
        *out = (int64_t)value.u64;
        return true;
    default: return false;
    }
}

static bool load_float(enum gguf_kind kind, const unsigned char *at, double *out) {
    float narrow;
    int64_t whole;
    if (kind == GGUF_F64) {
        memcpy(out, at, sizeof *out);
        return true;
    }
    if (kind == GGUF_F32) {
        memcpy(&narrow, at, sizeof narrow);
        *out = narrow;
        return true;
    }
    if (!load_int(kind, at, &whole)) return false;
    *out = (double)whole;
    return true;
}

bool gguf_get_int(const struct gguf *gguf, const char *key, int64_t *out) {
    const struct gguf_value *value = find(gguf, key);
    return value && load_int(value->kind, value->bytes, out);
}

bool gguf_get_float(const struct gguf *gguf, const char *key, double *out) {
    const struct gguf_value *value = find(gguf, key);
    return value && load_float(value->kind, value->bytes, out);
}

bool gguf_get_bool(const struct gguf *gguf, const char *key, bool *out) {
    const struct gguf_value *value = find(gguf, key);
    if (!value || value->kind != GGUF_BOOL) return false;
    *out = *value->bytes != 0;
    return true;
}

bool gguf_get_text(const struct gguf *gguf, const char *key, struct gguf_text *out) {
    const struct gguf_value *value = find(gguf, key);
    if (!value || value->kind != GGUF_TEXT) return false;
    *out = (struct gguf_text){(const char *)value->bytes, value->size};
    return true;
}

bool gguf_get_array_count(const struct gguf *gguf, const char *key, size_t *count) {
    const struct gguf_value *value = find(gguf, key);
    if (!value || value->kind != GGUF_ARRAY) return false;
    *count = value->count;
    return true;
}

enum group { GROUP_NONE, GROUP_TEXT, GROUP_INT, GROUP_FLOAT };

static enum group group_of(enum gguf_kind kind) {
    if (kind == GGUF_TEXT) return GROUP_TEXT;
    if (kind == GGUF_F32 || kind == GGUF_F64) return GROUP_FLOAT;
    return kind == GGUF_BOOL || kind == GGUF_ARRAY ? GROUP_NONE : GROUP_INT;
}

static const void *find_array(const struct gguf *gguf, const char *key, enum group group, size_t *count) {
    const struct gguf_value *value = find(gguf, key);
    if (!value || value->kind != GGUF_ARRAY || group_of(value->element) != group || !value->elements)
        return NULL;
    *count = value->count;
    return value->elements;
}

bool gguf_get_text_array(const struct gguf *gguf, const char *key, const struct gguf_text **out,
                         size_t *count) {
    const void *found = find_array(gguf, key, GROUP_TEXT, count);
    if (found) *out = found;
    return found != NULL;
}

bool gguf_get_int_array(const struct gguf *gguf, const char *key, const int32_t **out, size_t *count) {
    const void *found = find_array(gguf, key, GROUP_INT, count);
    if (found) *out = found;
    return found != NULL;
}

bool gguf_get_float_array(const struct gguf *gguf, const char *key, const float **out, size_t *count) {
    const void *found = find_array(gguf, key, GROUP_FLOAT, count);
    if (found) *out = found;
    return found != NULL;
}

bool gguf_value_convert(struct gguf_value *value, struct arena *arena) {
    size_t step = gguf_kind_row(value->element)->bytes;
    enum group group = group_of(value->element);
    if (group == GROUP_NONE) return true;
    if ((value->element == GGUF_I32 || value->element == GGUF_F32) && (uintptr_t)value->bytes % 4 == 0) {
        value->elements = value->bytes;
        return true;
    }
    int32_t *ints = arena_array(arena, value->count, sizeof *ints); /* the same size as floats */
    float *floats = (float *)(void *)ints;
    if (!ints) return false;
    for (size_t i = 0; i < value->count; i++) {
        const unsigned char *at = value->bytes + i * step;
        int64_t whole;
        double real;
        if (group == GROUP_FLOAT) {
            load_float(value->element, at, &real);
            floats[i] = (float)real; /* beyond f32: infinite, as IEEE 754 rounds */
        } else {
            if (!load_int(value->element, at, &whole) || whole < INT32_MIN || whole > INT32_MAX) return true;
            ints[i] = (int32_t)whole;
        }
    }
    value->elements = ints;
    return true;
}

static int by_place(const void *a, const void *b) {
    const struct tensor *x = *(const struct tensor *const *)a, *y = *(const struct tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

void gguf_sort_by_place(const struct tensor **order, size_t count) {
    qsort(order, count, sizeof *order, by_place);
}
