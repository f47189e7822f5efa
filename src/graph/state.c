#include "graph/state.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

static const char *const class_names[STATE_CLASSES] = {"mapped",   "weights",   "trained",
                                                       "gradient", "optimizer", "cache"};

const char *state_class_name(enum state_class class) { return class_names[class]; }

void state_table_init(struct state_table *table) { memset(table, 0, sizeof *table); }

void state_table_release(struct state_table *table) {
    mem_free(table->rows);
    state_table_init(table);
}

static bool set_bytes(struct state_row *row) {
    uint64_t elements = 1;
    for (int i = 0; i < row->rank; i++)
        if (row->dim[i] < 0 || !checked_mul(elements, (uint64_t)row->dim[i], &elements)) return false;
    return dtype_bytes(row->dtype, elements, &row->bytes);
}

static int add(struct state_table *table, struct state_row *row, const int64_t *dim, const char *name) {
    memcpy(row->dim, dim, (size_t)row->rank * sizeof *dim);
    snprintf(row->name, sizeof row->name, "%s", name);
    for (int p = 0; p < tensor_parts; p++) row->part[p] = -1;
    if (table->failed || !set_bytes(row)) {
        table->failed = true;
        return -1;
    }
    if (table->count == table->capacity) {
        int larger = table->capacity ? table->capacity * 2 : 128;
        struct state_row *moved = mem_realloc(table->rows, (size_t)larger * sizeof *moved);
        if (!moved) {
            table->failed = true;
            return -1;
        }
        table->rows = moved;
        table->capacity = larger;
    }
    table->rows[table->count] = *row;
    return table->count++;
}

int state_add(struct state_table *table, enum state_class class, enum dtype dtype, int rank,
              const int64_t *dim, const char *name) {
    struct state_row row = {.class = class, .dtype = dtype, .rank = rank, .parent = -1};
    return add(table, &row, dim, name);
}

int state_add_mapped(struct state_table *table, const void *data, enum dtype dtype, int rank,
                     const int64_t *dim, const char *name) {
    struct state_row row = {
        .class = STATE_MAPPED, .dtype = dtype, .rank = rank, .mapped = data, .parent = -1};
    return add(table, &row, dim, name);
}

int state_add_part(struct state_table *table, int parent, uint64_t offset, int rank, const int64_t *dim,
                   const char *name) {
    if (table->failed || parent < 0) return -1;
    return state_add_piece(table, parent, offset, table->rows[parent].dtype, rank, dim, name);
}

int state_add_piece(struct state_table *table, int parent, uint64_t offset, enum dtype dtype, int rank,
                    const int64_t *dim, const char *name) {
    if (table->failed || parent < 0) return -1;
    struct state_row row = {
        .class = table->rows[parent].class, .dtype = dtype, .rank = rank, .parent = parent, .offset = offset};
    int index = add(table, &row, dim, name);
    if (index >= 0 && !checked_range(offset, row.bytes, table->rows[parent].bytes)) {
        table->failed = true;
        return -1;
    }
    return index;
}

int state_find(const struct state_table *table, const char *name) {
    for (int i = 0; i < table->count; i++)
        if (!strcmp(table->rows[i].name, name)) return i;
    return -1;
}

bool state_is_offloaded(const struct state_table *table, int row) {
    int parent = table->rows[row].parent;
    return table->rows[parent < 0 ? row : parent].offloaded;
}

uint64_t state_class_bytes(const struct state_table *table, enum state_class class) {
    uint64_t total = 0;
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].class == class && table->rows[i].parent < 0 && !table->rows[i].offloaded)
            total += state_row_room(&table->rows[i]);
    return total;
}

uint64_t state_offloaded_bytes(const struct state_table *table) {
    uint64_t total = 0;
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].offloaded && table->rows[i].parent < 0) total += state_row_room(&table->rows[i]);
    return total;
}
