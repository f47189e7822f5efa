/* A growing run of bytes, always followed by a NUL that does not count. Failure sticks: after a
 * failed append `failed` is true and later appends do nothing, so a writer checks once at the end. */
#ifndef HONE_BASE_BUF_H
#define HONE_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct buf {
    char *data; /* never NULL after the first append; NUL-terminated */
    size_t size, capacity;
    size_t limit; /* most bytes that it may hold; 0: no limit */
    bool failed;  /* out of memory, or past the limit */
    bool full;    /* it failed for the limit's sake */
};

/* An all-zero struct buf is empty and valid. */
void buf_init(struct buf *buf, size_t limit);
void buf_release(struct buf *buf);
void buf_clear(struct buf *buf); /* keeps the memory, clears `failed` */
bool buf_reserve(struct buf *buf, size_t extra);
bool buf_append(struct buf *buf, const void *bytes, size_t size);
bool buf_text(struct buf *buf, const char *text);
bool buf_byte(struct buf *buf, char byte);
bool buf_printf(struct buf *buf, const char *format, ...) PRINTF_LIKE(2, 3);
/* The bytes, to be freed by mem_free; the buffer is empty afterwards. NULL when `failed`. */
char *buf_detach(struct buf *buf, size_t *size);

#endif
