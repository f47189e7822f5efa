#include "base/arena.h"

#include <stdint.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

enum { chunk_bytes = 64 * 1024, alignment = 16 };

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, capacity;
    _Alignas(16) unsigned char bytes[];
};

void arena_init(struct arena *arena, size_t limit) {
    memset(arena, 0, sizeof *arena);
    arena->limit = limit;
}

void arena_release(struct arena *arena) {
    while (arena->chunks) {
        struct arena_chunk *next = arena->chunks->next;
        mem_free(arena->chunks);
        arena->chunks = next;
    }
    arena->used = 0;
}

static struct arena_chunk *chunk_open(struct arena *arena, size_t size) {
    size_t capacity = size > chunk_bytes ? size : chunk_bytes, total;
    if (!checked_size_add(sizeof(struct arena_chunk), capacity, &total)) return NULL;
    struct arena_chunk *chunk = mem_alloc(total);
    if (!chunk) return NULL;
    chunk->used = 0;
    chunk->capacity = capacity;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t size) {
    size_t padded;
    if (!checked_size_add(size ? size : 1, alignment - 1, &padded)) return NULL;
    padded &= ~(size_t)(alignment - 1);
    if (arena->limit && (padded > arena->limit || arena->used > arena->limit - padded)) {
        arena->full = true;
        return NULL;
    }
    struct arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->capacity - chunk->used < padded) chunk = chunk_open(arena, padded);
    if (!chunk) return NULL;
    void *block = chunk->bytes + chunk->used;
    chunk->used += padded;
    arena->used += padded;
    return memset(block, 0, padded);
}

void *arena_array(struct arena *arena, size_t count, size_t size) {
    size_t total;
    if (checked_size_mul(count, size, &total)) return arena_alloc(arena, total);
    arena->full = true;
    return NULL;
}

char *arena_strndup(struct arena *arena, const char *text, size_t size) {
    size_t total;
    if (!checked_size_add(size, 1, &total)) return NULL;
    char *copy = arena_alloc(arena, total);
    if (copy) memcpy(copy, text, size);
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text) { return arena_strndup(arena, text, strlen(text)); }
