#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "base/checked.h"

/* The only state of the library that no handle holds: a hook that only tests set, and a count. */
static mem_fault fault_hook;
static void *fault_user;
static _Thread_local unsigned long failures;

void mem_set_fault(mem_fault fault, void *user) {
    fault_user = user;
    fault_hook = fault;
}

static int refused(size_t size) { return fault_hook && fault_hook(fault_user, size); }

unsigned long mem_failures(void) { return failures; }

static void *counted(void *block) {
    if (!block) failures++;
    return block;
}

void *mem_alloc(size_t size) { return counted(refused(size) ? NULL : malloc(size ? size : 1)); }

void *mem_calloc(size_t count, size_t size) {
    size_t total;
    if (!checked_size_mul(count, size, &total)) return counted(NULL);
    return counted(refused(total) ? NULL : calloc(1, total ? total : 1));
}

void *mem_array(size_t count, size_t size) {
    size_t total;
    return checked_size_mul(count, size, &total) ? mem_alloc(total) : counted(NULL);
}

void *mem_realloc(void *pointer, size_t size) {
    return counted(refused(size) ? NULL : realloc(pointer, size ? size : 1));
}

void mem_free(void *pointer) { free(pointer); }

char *mem_strndup(const char *text, size_t size) {
    char *copy = mem_alloc(size + 1);
    if (!copy) return NULL;
    memcpy(copy, text, size);
    copy[size] = '\0';
    return copy;
}

char *mem_strdup(const char *text) { return mem_strndup(text, strlen(text)); }

void mem_trim(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

void *mem_map(size_t size, int touch) {
    void *block = MAP_FAILED;
    if (!refused(size))
        block = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED) return counted(NULL);
#ifdef MADV_HUGEPAGE
    /* Blocks that are touched whole: fewer pages to find while a step goes over all of them. */
    if (touch) madvise(block, size, MADV_HUGEPAGE);
#endif
    if (touch) memset(block, 0, size);
    return block;
}

size_t mem_map_shrink(void *pointer, size_t size, size_t least) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), keep = (least + page - 1) / page * page;
    if (!keep) keep = page;
    if (keep >= size || munmap((char *)pointer + keep, size - keep)) return size;
    return keep;
}

void mem_unmap(void *pointer, size_t size) {
    if (pointer) munmap(pointer, size ? size : 1);
}

enum { pages_header = 64 }; /* keeps what follows aligned as mapped blocks are, to a line of the cache */

void *mem_pages(size_t count, size_t size) {
    size_t total;
    if (!checked_size_mul(count, size, &total) || total > SIZE_MAX - pages_header) return counted(NULL);
    char *block = mem_map(total + pages_header, 0);
    if (!block) return NULL;
    *(size_t *)(void *)block = total + pages_header;
    return block + pages_header;
}

void mem_pages_free(void *pointer) {
    if (!pointer) return;
    char *block = (char *)pointer - pages_header;
    mem_unmap(block, *(size_t *)(void *)block);
}
