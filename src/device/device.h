/* A device compiles a plan to a program and runs it. Everything above speaks only to this table.
 *
 * Words: store (the memory of all state, shared by programs), program (a compiled plan with its arena),
 * binding (the inputs and counts of one run). */
#ifndef HONE_DEVICE_DEVICE_H
#define HONE_DEVICE_DEVICE_H

#include <stdatomic.h>
#include <stddef.h>

#include "base/error.h"
#include "base/json.h"
#include "graph/plan.h"
#include "graph/state.h"

/* Goes up with every change of what crosses to a module, and by itself when the size of a struct or the
 * number of operations or types does: a module of another build is refused instead of misread. */
enum {
    device_abi =
        ((((int)sizeof(struct node) * 31 + (int)sizeof(struct value)) * 31 + (int)sizeof(struct state_row)) *
             13 +
         OP_COUNT * 67 + DTYPE_COUNT) *
            11 +
        12
};

struct device;
struct program;
struct store;
struct timeline; /* device/timeline.h */
struct group;    /* base/group.h */

struct device_options {
    const char *name; /* as the user says it, "cuda:1"; NULL: the first of its kind */
    int threads;      /* 0: all cores that the process may use */
    const char *mask; /* instruction sets to leave unused, "avx512bf16,avx512", or NULL */
    bool tf32;        /* round the operands of f32 products to 11 bits, where the device can */
};

/* Of a device with memory of its own. */
struct device_memory {
    uint64_t total, available; /* bytes, after the device was opened */
    uint64_t held;             /* what this process takes of them now, as far as it can be told from others */
    uint64_t context; /* of that, what no plan knows of: the driver's context, and what it and the libraries
                         load, measured when the device was opened */
};

/* The counts of one run, for what is planned of many. */
struct counts {
    int64_t tokens, targets, segments;
};

/* Counts and inputs of one run. Pointers are read during run only. */
struct binding {
    int64_t tokens, targets, segments, longest_segment;
    const void *inputs[INPUT_COUNT]; /* NULL where the graph has no such input */
    const atomic_int *stop; /* looked at between operations; nonzero: ERROR_INTERRUPTED. May be NULL */
    /* Asked between operations once `stop` is set: false goes on. NULL: leaves at once. */
    bool (*leave)(void *user);
    /* Called after each operation (its index in the graph), whose outputs and state can be read until the
     * next one runs; false ends the run with its error. An operation of a loop comes once for each piece, of
     * so many rows of tokens from `first` on: they lie at the beginning of what lives in the loop
     * (value.loop), and at their own place in all else. For looking into a run, not for speed. May be NULL.
     */
    bool (*after)(void *user, int node, int64_t first, int64_t rows, struct error *err);
    void *user;
    struct timeline *timeline; /* when each operation ran is added to it, and run waits. May be NULL */
};

/* Where values and rows of state lie that are offloaded. */
enum device_offload {
    OFFLOAD_NOWHERE, /* this device offloads nothing */
    OFFLOAD_TO_FILE, /* in files in the state table's directory */
    OFFLOAD_TO_HOST, /* in the host's memory; values are copied there and back beside the computing */
};

struct device_ops {
    int abi;
    const char *name;      /* "cpu", "ref" */
    bool tf32;             /* has products in TF32 */
    bool narrow_gradients; /* where memory's rate costs more than the rounding: see graph_sizes.narrow */
    enum device_offload offload;
    double attention_rate; /* what attention over long rows reaches of the products' rate, for estimates; 0:
                              all */
    bool (*open)(struct device **out, const struct device_options *options, struct error *err);
    void (*close)(struct device **device);
    /* Whether there is one, without opening it. NULL: always. */
    bool (*present)(struct error *err);
    /* NULL: its memory is the process's. Else state, mapped weights too, and arena lie there. */
    bool (*memory)(struct device *device, struct device_memory *out, struct error *err);
    /* Name, threads, features, which kernels and products were selected, why not the others. */
    bool (*describe)(const struct device *device, json_t **out, struct error *err);
    /* Measured rates: product flops per second of one compute type, NULL: of each, at shapes [n][3] = m, n,
     * k; bytes per second. Takes some 60 ms for each, and no more than `memory` bytes (0: as many as it
     * likes): a shape is cut to what fits, and told so; what cannot be measured within them has the rate 0.
     */
    bool (*measure)(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3], int count,
                    uint64_t memory, json_t **out, struct error *err);
    /* What a run of the graph costs beside what grows with its tokens (weights decoded and packed, operations
     * handed to threads), in flops that products do in that time. From a table, for choosing between plans:
     * a measurement would give one command another plan each time. NULL: not known. */
    double (*fixed_flops)(const struct device *device, const struct graph *graph,
                          const int64_t counts[COUNT_KINDS], enum dtype compute);
    /* False with the reason in *err where weights cannot be kept, and multiplied, in fp8. NULL: they cannot.
     */
    bool (*fp8)(const struct device *device, struct error *err);
    /* False with the reason in *err when a node cannot run here. */
    bool (*supports)(const struct device *device, const struct graph *graph, const struct node *node,
                     struct error *err);
    /* Scratch bytes a node needs beside the plan's arena, so that the plan is exact. */
    size_t (*workspace)(const struct device *device, const struct graph *graph, const struct node *node);
    /* May widen the rows of transient values (value.padding) before the graph is planned. NULL: never. */
    void (*arrange)(const struct device *device, struct graph *graph);
    /* Bytes that a store takes beyond those of its table's rows. NULL: none. */
    uint64_t (*store_extra)(const struct state_table *table);
    bool (*store_open)(struct device *device, const struct state_table *table, struct store **out,
                       struct error *err);
    /* Copies what is mapped into the open store. NULL: it is read where it is mapped. */
    bool (*store_fill)(struct store *store, struct error *err);
    void (*store_close)(struct store **store);
    /* Programs over one store never run at the same time and share one arena: makes it at least this large.
     * Called with the largest of their plans before they are compiled. */
    bool (*reserve)(struct store *store, uint64_t bytes, struct error *err);
    /* Gives back what the arena has beyond this, between runs; programs that need more must not run again.
     * NULL: it stays. */
    void (*shrink)(struct store *store, uint64_t bytes);
    /* Bytes of its own memory that the device keeps beside the plan while it runs one program with these
     * counts, one after another: launches that it records for counts that come again. NULL: none. */
    uint64_t (*recorded_bytes)(const struct plan *plan, const struct counts *runs, size_t count);
    /* About what join will take of the device's memory; nothing once it has, since then it is part of the
     * context. NULL: nothing. */
    uint64_t (*join_bytes)(const struct device *device);
    /* Lets the devices of the group's processes add up rows of state among themselves; called by all of them.
     * *sums false: they cannot, the host does it. NULL: they never can. */
    bool (*join)(struct device *device, struct group *group, bool *sums, struct error *err);
    /* After that: a row (f32, f64 if its type says so) becomes its sum over all processes, the same bits in
     * each. */
    bool (*sum)(struct store *store, int row, struct error *err);
    /* Copies `bytes` of a state row (offset 0) in or out. */
    bool (*upload)(struct store *store, int row, const void *data, size_t bytes, struct error *err);
    bool (*download)(struct store *store, int row, void *data, size_t bytes, struct error *err);
    /* Zeros in a row that is no weight. NULL: the host writes them. */
    bool (*clear)(struct store *store, int row, struct error *err);
    /* Where a row that is not mapped lies, for the host to read and write between runs. NULL: it cannot. */
    void *(*row)(struct store *store, int row);
    bool (*compile)(struct device *device, const struct plan *plan, struct store *store, struct program **out,
                    struct error *err);
    /* May return before the device is done; read, download and finish wait for it. */
    bool (*run)(struct program *program, const struct binding *binding, struct error *err);
    bool (*finish)(struct program *program, struct error *err); /* NULL: run waits */
    /* Copies a value out: a kept one after a run, any that a node has just written in `after`. */
    bool (*read)(struct program *program, int value, void *data, size_t bytes, struct error *err);
    void (*program_close)(struct program **program);
};

/* "cpu", "ref", "cuda" or "cuda:1"; "auto" is cuda where there is one, else cpu. NULL with *err filled for an
 * unknown or missing device: for a module that says which and where it was looked for. */
const struct device_ops *device_find(const char *name, struct error *err);
/* As ops->open, for options that the device may not serve: ERROR_USAGE. */
bool device_open(const struct device_ops *ops, struct device **out, const struct device_options *options,
                 struct error *err);
/* The names of all devices, in the order of their list; NULL past its end. */
const char *device_name_at(size_t index);

#endif
