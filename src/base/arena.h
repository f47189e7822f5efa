/* Memory with one lifetime: many small blocks, released together. Growing never moves a block. */
#ifndef HONE_BASE_ARENA_H
#define HONE_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>

struct arena_chunk;
struct arena {
    struct arena_chunk *chunks; /* newest first */
    size_t limit;               /* total bytes that may be asked for; 0: no limit */
    size_t used;                /* bytes handed out so far */
    bool full; /* a request was refused for its size or the limit's sake, not for want of memory */
};

/* An all-zero struct arena is empty and valid. */
void arena_init(struct arena *arena, size_t limit);
void arena_release(struct arena *arena);
void *arena_alloc(struct arena *arena, size_t size); /* zeroed, 16-byte aligned; NULL on failure */
void *arena_array(struct arena *arena, size_t count, size_t size); /* NULL when count × size overflows */
char *arena_strndup(struct arena *arena, const char *text, size_t size);
char *arena_strdup(struct arena *arena, const char *text);

#endif
