#include "device/host.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

bool host_store_open(struct device *device, const struct state_table *table, struct store **out,
                     struct error *err) {
    (void)device;
    *out = NULL;
    if (table->failed) return error_no_memory(err, "store", 0);
    struct store *store = mem_calloc(1, sizeof *store);
    if (!store) return error_no_memory(err, "store", sizeof *store);
    store->table = table;
    store->rows = table->count;
    store->data = mem_calloc((size_t)table->count + 1, sizeof *store->data);
    uint64_t total = 0;
    for (int c = STATE_WEIGHT; c < STATE_CLASSES; c++) total += state_class_bytes(table, (enum state_class)c);
    store->bytes = (size_t)total;
    /* Pages are touched now: the plan's figure is what the process holds from the start. */
    store->block = store->data ? mem_map(store->bytes, 1) : NULL;
    if (!store->block) {
        host_store_close(&store);
        return error_no_memory(err, "store", total);
    }
    uint64_t at = 0, file_at = 0, in_file = state_offloaded_bytes(table);
    if (in_file &&
        !fs_scratch_open(&store->row_file, table->directory ? table->directory : ".", (size_t)in_file, err)) {
        host_store_close(&store);
        return false;
    }
    for (int i = 0; i < table->count; i++) {
        const struct state_row *row = &table->rows[i];
        if (row->class == STATE_MAPPED) {
            store->data[i] = (void *)(uintptr_t)
                                 row->mapped; /* never written: no operation's state_writes names a weight */
        } else if (row->parent < 0) {
            uint64_t *next = row->offloaded ? &file_at : &at;
            store->data[i] = (row->offloaded ? store->row_file.data : store->block) + *next;
            *next += state_row_room(row);
        }
    }
    for (int i = 0; i < table->count; i++)
        if (table->rows[i].parent >= 0)
            store->data[i] = (unsigned char *)store->data[table->rows[i].parent] + table->rows[i].offset;
    *out = store;
    return true;
}

void host_store_close(struct store **handle) {
    struct store *store = *handle;
    if (!store) return;
    mem_unmap(store->block, store->bytes);
    mem_unmap(store->arena, store->arena_bytes);
    fs_scratch_close(&store->row_file);
    fs_scratch_close(&store->arena_file);
    mem_free(store->data);
    mem_free(store);
    *handle = NULL;
}

static bool row_range(const struct store *store, int row, size_t bytes, struct error *err) {
    if (row >= 0 && row < store->rows && bytes <= store->table->rows[row].bytes) return true;
    return error_set(err, ERROR_INTERNAL, "store", "row %d has no %zu bytes", row, bytes);
}

bool host_upload(struct store *store, int row, const void *data, size_t bytes, struct error *err) {
    if (!row_range(store, row, bytes, err)) return false;
    memcpy(store->data[row], data, bytes);
    return true;
}

bool host_download(struct store *store, int row, void *data, size_t bytes, struct error *err) {
    if (!row_range(store, row, bytes, err)) return false;
    memcpy(data, store->data[row], bytes);
    return true;
}

void *host_row(struct store *store, int row) { return store->data[row]; }

bool host_reserve(struct store *store, uint64_t bytes, struct error *err) {
    if (bytes <= store->arena_bytes) return true;
    mem_unmap(store->arena, store->arena_bytes);
    store->arena_bytes = 0;
    store->arena = mem_map((size_t)bytes, 1);
    if (!store->arena) return error_no_memory(err, "program", bytes);
    store->arena_bytes = (size_t)bytes;
    return true;
}

void host_shrink(struct store *store, uint64_t bytes) {
    store->arena_bytes = mem_map_shrink(store->arena, store->arena_bytes, (size_t)bytes);
}

static bool reserve_file(struct store *store, uint64_t bytes, struct error *err) {
    if (bytes <= store->arena_file.size) return true;
    fs_scratch_close(&store->arena_file);
    return fs_scratch_open(&store->arena_file, store->table->directory ? store->table->directory : ".",
                           (size_t)bytes, err);
}

bool host_memory_open(struct host_memory *out, const struct plan *plan, struct store *store,
                      struct error *err) {
    *out = (struct host_memory){.plan = plan, .store = store};
    uint64_t total;
    if (!checked_add(plan->arena_bytes, plan->workspace_bytes, &total))
        return error_no_memory(err, "program", plan->arena_bytes);
    return host_reserve(store, total, err) && reserve_file(store, plan->offloaded_bytes, err);
}

void *host_workspace(const struct host_memory *memory) {
    return memory->store->arena + memory->plan->arena_bytes;
}

static void take_state(const struct store *store, int row, struct operand *out) {
    const int *part = store->table->rows[row].part;
    out->data = store->data[row];
    for (int p = 0; p < tensor_parts; p++)
        if (part[p] >= 0)
            out->part[p] = (struct stored_part){store->data[part[p]], store->table->rows[part[p]].dtype};
}

struct operand host_operand(const struct host_memory *memory, const struct binding *binding,
                            const struct walk *walk, int id) {
    if (id < 0) return (struct operand){0};
    const struct value *value = &memory->plan->graph->values[id];
    struct operand operand = operand_bound(value, binding);
    if (value->kind == VALUE_STATE)
        take_state(memory->store, value->which, &operand);
    else if (value->kind == VALUE_INPUT)
        operand.data = (void *)(uintptr_t)binding->inputs[value->which];
    else if (memory->plan->offset[id] != UINT64_MAX)
        operand.data = (value->offloaded ? memory->store->arena_file.data : memory->store->arena) +
                       memory->plan->offset[id];
    walk_cut(walk, value, &operand);
    return operand;
}

bool host_read(const struct host_memory *memory, int id, void *data, size_t bytes, struct error *err) {
    if (id < 0 || id >= memory->plan->graph->value_count || memory->plan->offset[id] == UINT64_MAX ||
        bytes > memory->plan->bytes[id])
        return error_set(err, ERROR_INTERNAL, "program", "value %d cannot be read", id);
    const unsigned char *from =
        memory->plan->graph->values[id].offloaded ? memory->store->arena_file.data : memory->store->arena;
    memcpy(data, from + memory->plan->offset[id], bytes);
    return true;
}
