/* What the readers share: an index of names that refuses duplicates, and names made fit for messages. */
#ifndef HONE_FORMAT_NAMES_INTERNAL_H
#define HONE_FORMAT_NAMES_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct name {
    const char *data; /* not terminated, must outlive the index */
    size_t size;
};

/* Sorted positions into `names`, searched by halving: log n steps whatever the names are, where a hash
 * table would let a hostile file choose colliding ones. */
struct name_index {
    const struct name *names;
    uint32_t *order;
    size_t count;
};

/* `names` must outlive the index. *duplicate: the position of a name that stands twice, or `count`.
 * False: out of memory. */
bool name_index_build(struct name_index *index, const struct name *names, size_t count, size_t *duplicate);
void name_index_release(struct name_index *index);
/* The position of a name, or `count`. */
size_t name_index_find(const struct name_index *index, const char *name);

/* Text from a file as it may stand in a message: control and bidirectional characters escaped, cut. */
struct shown {
    char text[160];
};
const char *shown_text(struct shown *shown, const char *text, size_t size);

#endif
