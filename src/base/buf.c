#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

void buf_init(struct buf *buf, size_t limit) {
    memset(buf, 0, sizeof *buf);
    buf->limit = limit;
}

void buf_release(struct buf *buf) {
    mem_free(buf->data);
    buf_init(buf, buf->limit);
}

void buf_clear(struct buf *buf) {
    buf->size = 0;
    buf->failed = buf->full = false;
    if (buf->data) buf->data[0] = '\0';
}

bool buf_reserve(struct buf *buf, size_t extra) {
    size_t need, with_nul;
    if (buf->failed) return false;
    if (!checked_size_add(buf->size, extra, &need) || !checked_size_add(need, 1, &with_nul) ||
        (buf->limit && need > buf->limit)) {
        buf->failed = buf->full = true;
        return false;
    }
    if (with_nul <= buf->capacity) return true;
    size_t grown = buf->capacity ? buf->capacity : 64;
    while (grown < with_nul && checked_size_mul(grown, 2, &grown)) continue;
    if (grown < with_nul) grown = with_nul;
    char *data = mem_realloc(buf->data, grown);
    if (!data) return !(buf->failed = true);
    buf->data = data;
    buf->capacity = grown;
    return true;
}

bool buf_append(struct buf *buf, const void *bytes, size_t size) {
    if (!buf_reserve(buf, size)) return false;
    if (size) memcpy(buf->data + buf->size, bytes, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
    return true;
}

bool buf_text(struct buf *buf, const char *text) { return buf_append(buf, text, strlen(text)); }

bool buf_byte(struct buf *buf, char byte) { return buf_append(buf, &byte, 1); }

bool buf_printf(struct buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bool ok = need >= 0 && buf_reserve(buf, (size_t)need);
    if (ok) {
        vsnprintf(buf->data + buf->size, (size_t)need + 1, format, again);
        buf->size += (size_t)need;
    } else {
        buf->failed = true;
    }
    va_end(again);
    return ok;
}

char *buf_detach(struct buf *buf, size_t *size) {
    if (!buf_append(buf, "", 0)) {
        buf_release(buf);
        return NULL;
    }
    char *data = buf->data;
    if (size) *size = buf->size;
    buf_init(buf, buf->limit);
    return data;
}
