/* All memory of the library is asked for here, so that tests can make any request fail.
 * Requests return NULL on failure; sizes of 0 give a valid pointer. */
#ifndef HONE_BASE_MEM_H
#define HONE_BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t size);                  /* not cleared */
void *mem_calloc(size_t count, size_t size);   /* cleared; NULL when count × size overflows */
void *mem_array(size_t count, size_t size);    /* not cleared; NULL when count × size overflows */
void *mem_realloc(void *pointer, size_t size); /* the old block stays valid on failure */
void mem_free(void *pointer);                  /* takes NULL */
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t size);

/* A zeroed block of whole pages, 64-byte aligned, for arenas and stores. `touch` makes every page
 * resident now. NULL on failure. mem_unmap takes the same size. */
void *mem_map(size_t size, int touch);
void mem_unmap(void *pointer, size_t size);
/* Gives back the pages beyond the first `least` bytes; returns the size that is left, for mem_unmap. */
size_t mem_map_shrink(void *pointer, size_t size, size_t least);

/* An array in pages of its own, zeroed: they are the system's again as soon as it is freed, where an
 * allocator may keep them. For large blocks that a plan counts as gone. */
void *mem_pages(size_t count, size_t size);
void mem_pages_free(void *pointer);

/* Gives back to the system what has been freed and is still held, where the allocator can. */
void mem_trim(void);

/* How many requests of this thread have failed so far. A caller that cannot see a failure itself, because a
 * library in between swallows it, compares the number before with the number after. */
unsigned long mem_failures(void);

/* Fault injection, for tests: returns nonzero to make this request fail. NULL switches it off. */
typedef int (*mem_fault)(void *user, size_t size);
void mem_set_fault(mem_fault fault, void *user);

#endif
