/* What devices share whose memory is the host's: the store, the arena, and where each operand lies. */
#ifndef HONE_DEVICE_HOST_H
#define HONE_DEVICE_HOST_H

#include "base/fs.h"
#include "device/operand.h"

struct store {
    const struct state_table *table; /* must outlive the store */
    void **data;                     /* [rows] */
    int rows;
    unsigned char *block; /* all rows of our own, one allocation */
    size_t bytes;
    unsigned char *arena; /* shared by the programs over this store */
    size_t arena_bytes;
    /* In files: rows, and what programs offload. */
    struct fs_scratch row_file, arena_file;
};

bool host_store_open(struct device *device, const struct state_table *table, struct store **out,
                     struct error *err);
void host_store_close(struct store **store);
bool host_reserve(struct store *store, uint64_t bytes, struct error *err);
void host_shrink(struct store *store, uint64_t bytes);
bool host_upload(struct store *store, int row, const void *data, size_t bytes, struct error *err);
bool host_download(struct store *store, int row, void *data, size_t bytes, struct error *err);
void *host_row(struct store *store, int row);

/* Where one program finds its operands. */
struct host_memory {
    const struct plan *plan; /* must outlive the program */
    struct store *store;     /* its arena: the plan's arena, then the workspace */
};
bool host_memory_open(struct host_memory *out, const struct plan *plan, struct store *store,
                      struct error *err);
void *host_workspace(const struct host_memory *memory);
/* For the rows that the walk is at. `value` -1 gives an absent operand. */
struct operand host_operand(const struct host_memory *memory, const struct binding *binding,
                            const struct walk *walk, int value);
bool host_read(const struct host_memory *memory, int value, void *data, size_t bytes, struct error *err);

#endif
