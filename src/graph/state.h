/* The state table: every value that outlives a run, with its class and exact size. The plan's figures and
 * the store's allocation come from this one table. */
#ifndef HONE_GRAPH_STATE_H
#define HONE_GRAPH_STATE_H

#include "op/op.h"
#include "tensor/tensor.h"

enum state_class {
    STATE_MAPPED,  /* weights read where the file is mapped; no bytes of ours */
    STATE_WEIGHT,  /* copies and decoded weights */
    STATE_TRAINED, /* an adapter, or trained weights */
    STATE_GRADIENT,
    STATE_OPTIMIZER, /* moments, step counters, loss sums */
    STATE_CACHE,     /* keys and values of inference */
    STATE_CLASSES
};
const char *state_class_name(enum state_class class);

struct state_row {
    char name[96];
    enum state_class class;
    enum dtype dtype;
    int rank;
    int64_t dim[op_max_rank];
    uint64_t bytes;
    bool fp8;           /* a weight that only products read: the device keeps it in fp8, both ways round */
    bool offloaded;     /* lies in a mapped file of its own, not in memory */
    const void *mapped; /* STATE_MAPPED: where the numbers lie; any alignment */
    int parent;         /* -1, or the row of the contiguous block that this row is a part of … */
    uint64_t offset;    /* … at this byte */
    int part[tensor_parts]; /* of a weight's codes: the rows of what lies apart from them; -1: there is none
                             */
};

struct state_table {
    struct state_row *rows;
    int count, capacity;
    bool failed;    /* out of memory or a size overflow; sticks */
    uint64_t bound; /* bytes that a run may take of a device's own memory; what only makes it faster keeps
                       within them. 0: what is there */
    const char *directory; /* where the store makes its files; must outlive it. NULL: nothing is offloaded */
};

/* Bytes that a row takes in the store. */
static inline uint64_t state_row_room(const struct state_row *row) {
    return (row->bytes + 63) & ~(uint64_t)63;
}

void state_table_init(struct state_table *table);
void state_table_release(struct state_table *table);
/* Return the row, or -1 once `failed`. */
int state_add(struct state_table *table, enum state_class class, enum dtype dtype, int rank,
              const int64_t *dim, const char *name);
int state_add_mapped(struct state_table *table, const void *data, enum dtype dtype, int rank,
                     const int64_t *dim, const char *name);
int state_add_part(struct state_table *table, int parent, uint64_t offset, int rank, const int64_t *dim,
                   const char *name);
/* The same of another type than the block's. */
int state_add_piece(struct state_table *table, int parent, uint64_t offset, enum dtype dtype, int rank,
                    const int64_t *dim, const char *name);
int state_find(const struct state_table *table, const char *name); /* -1: none */
/* Whether a row, or the block that it is a part of, is. */
bool state_is_offloaded(const struct state_table *table, int row);
/* Bytes that the store allocates for a class (each row rounded up to 64; parts count in their parent), and of
 * all rows that lie in a file instead. */
uint64_t state_class_bytes(const struct state_table *table, enum state_class class);
uint64_t state_offloaded_bytes(const struct state_table *table);

#endif
