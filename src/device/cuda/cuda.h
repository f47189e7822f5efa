/* The inside of the CUDA device, shared by its C files. Kernels: kernels.h.
 *
 * All work of a device goes to one stream, in the order of the calls; nothing waits but download, read and
 * finish. The store holds every row of the state table, mapped weights too. */
#ifndef HONE_DEVICE_CUDA_CUDA_H
#define HONE_DEVICE_CUDA_CUDA_H

#include "device/cuda/kernels.h"
#include "device/operand.h"

struct blas;
struct collect;
struct upload;
struct usage;

struct device {
    int index;
    cudaStream_t stream;
    struct blas *blas;
    struct upload *upload;   /* until the first store is filled; NULL afterwards */
    struct usage *usage;     /* what this process takes of the GPU's memory */
    struct collect *collect; /* of the GPUs of a shared run; NULL: there are none, or no NCCL */
    bool joined;             /* the run's GPUs have come together, or cannot */
    char name[128];
    int major, minor, processors;
    size_t shared_most; /* bytes of shared memory that a block may have */
    uint64_t total;     /* bytes of memory */
};

struct store {
    struct device *device;
    const struct state_table *table; /* must outlive the store */
    unsigned char **data;            /* [rows], on the device */
    int rows;
    int64_t pad; /* bf16 matrices have so many more columns and rows, for an adapter's numbers (products.c) */
    int64_t fp8_pad;      /* the same of matrices in fp8 (fp8.c) */
    unsigned char *block; /* all of them but … */
    unsigned char *host; /* … those that are offloaded: page-locked memory of the host, where kernels read and
                            write them over the bus; or NULL */
    unsigned char *arena; /* shared by the programs over this store */
    uint64_t arena_bytes;
};

/* errors.c: how many GPUs there are; false where there is no driver, an old one, or no GPU. */
bool cuda_count(int *count, struct error *err);
/* False with *err filled from a failed call. `doing` is a verb phrase: "allocate 3 GiB". */
bool cuda_check(cudaError_t status, const char *doing, struct error *err);
/* Waits for all that the stream was given. */
bool cuda_wait(struct device *device, struct error *err);

/* A library of NVIDIA's by its soname, or NULL; *path (from mem_alloc) where it was found, NULL: by the
 * loader. */
void *cuda_library(const char *soname, char **path);

struct cuda_function {
    const char *name;
    void *slot; /* a pointer to a function, which becomes its address */
};
/* Fills the slots. Returns the first name that the library lacks, or NULL. */
const char *cuda_functions(void *library, const struct cuda_function *rows, size_t count);

/* collect.c */
uint64_t cuda_join_bytes(const struct device *device);
bool cuda_join(struct device *device, struct group *group, bool *sums, struct error *err);
bool cuda_sum(struct store *store, int row, struct error *err);
void collect_close(struct collect **collect);

/* memory.c */
bool cuda_is_padded(const struct state_table *table, int row); /* by the store's pad, where it has one */
uint64_t cuda_store_extra(const struct state_table *table);
bool cuda_store_open(struct device *device, const struct state_table *table, struct store **out,
                     struct error *err);
bool cuda_store_fill(struct store *store, struct error *err);
void cuda_store_close(struct store **store);
bool cuda_reserve(struct store *store, uint64_t bytes, struct error *err);
bool cuda_upload(struct store *store, int row, const void *data, size_t bytes, struct error *err);
bool cuda_download(struct store *store, int row, void *data, size_t bytes, struct error *err);
bool cuda_clear(struct store *store, int row, struct error *err);
bool cuda_allocate(void **out, uint64_t bytes, const char *what, struct error *err);

/* What one node of a program is given in one run. */
struct call {
    struct device *device;
    const struct graph *graph;
    const struct node *node;
    struct operand in[op_max_inputs], out[op_max_outputs];
    cudaStream_t stream;
    enum dtype compute;       /* of products */
    int64_t pad;              /* columns that copies of operands have beyond their own */
    int64_t fp8_pad;          /* of the store */
    unsigned char *workspace; /* as many bytes as the row asked for */
    size_t used;              /* … of which are given out, from the beginning on */
    size_t top;               /* … and those from here to the end: call_scratch_above */
    struct ranges ranges;     /* of the run's tokens */
    struct converted *copies; /* [cuda_copies] what earlier nodes left in the workspace */
    int few_before, *few;     /* what the product of few rows just before multiplied, and this one; -1 */
    const void *table;        /* what the row's `table` made, on the device; or NULL */
    int table_count;
    const float *hyper; /* INPUT_HYPER as the host has it: what is the same in every step may be read here,
                           since launches are recorded (replay.h). NULL: not bound */
};

/* A value in another type, at a place of the workspace that nobody wrote over yet; value -1: none. */
struct converted {
    int value;
    enum dtype type;
    unsigned char *data, *end;
};
enum { cuda_copies = 4 };

struct cuda_kernel {
    enum op_code op;
    bool (*run)(struct call *call, struct error *err);
    /* Scratch bytes at the planned size; NULL: none. */
    size_t (*workspace)(const struct graph *graph, const struct node *node);
    /* Makes what the node's launches read of its attributes, from mem_alloc; NULL: nothing. */
    bool (*table)(const struct node *node, void **out, size_t *bytes, int *count, struct error *err);
};
/* Ended by a row without run. One table a file; listed in program.c. */
extern const struct cuda_kernel cuda_kernels_rows[], cuda_kernels_products[], cuda_kernels_attention[],
    cuda_kernels_optimizer[], cuda_kernels_dora[];
const struct cuda_kernel *cuda_kernel_of(enum op_code op);

static inline struct array array_of(const struct operand *operand) {
    return (struct array){operand->data, operand->dtype, operand->stride};
}
struct matrix matrix_of(const struct operand *operand);
static inline size_t cuda_round(size_t bytes) { return (bytes + 255) & ~(size_t)255; }
/* The next so many bytes of the workspace, 256-byte aligned; above: of its end, for what later nodes read. */
void *call_scratch(struct call *call, size_t bytes);
void *call_scratch_above(struct call *call, size_t bytes);
/* A copy of a value that is still there, or NULL; and one that is there from now on. */
unsigned char *call_copy(const struct call *call, int value, enum dtype type);
void call_keep(struct call *call, int value, enum dtype type, void *data, size_t bytes);

/* Columns that a row has behind its own, for an adapter of such a rank: rows of whole lines of the cache (128
 * bytes) stay so; products of others take up to a tenth longer. */
static inline int64_t cuda_pad(int64_t rank) { return (rank + 63) & ~(int64_t)63; }
/* products.c: the rank of a node's product of low rank, rounded up to whole vectors; 0: it has none */
int64_t cuda_node_rank(const struct graph *graph, const struct node *node);
/* Room for a copy of a value in the type of products; 0: it is read where it lies. */
size_t cuda_copy_bytes(const struct value *value, enum dtype compute);
/* Where the copy of value `id` lies, behind the room of the library: true when it is there already. */
bool cuda_copy_place(struct call *call, int id, const struct operand *operand, struct array *copy);
/* Input i as a product reads it, in call->compute; behind the library's room if it has to be copied. */
struct array cuda_operand(struct call *call, int i);
/* Scratch bytes of the library and of copies of inputs 0 and 1. */
size_t cuda_two_operands(const struct graph *graph, const struct node *node);
/* products.c: whether a linear node has so few rows that it is a matter of reading its weight (few.cu) */
bool cuda_is_few(const struct call *call);
/* products.c: linear nodes of one input, as one launch reads them; when it begins is left open. */
struct few_product cuda_few_product(const struct call *calls, int parts);
/* attend.c: attention of new tokens, whose q and k the nodes before turn; false where that is no one launch.
 */
bool cuda_attend_turned(struct call *call, const struct call *q, const struct call *k);
/* Prepares what a product is added to; its beta says whether there is something. */
struct product;
void cuda_lay(struct call *call, const struct thin *thin, struct product *p);

/* Numbers between neighbouring rows of logits; how many rows of them, `bytes` a number, are made at a time: a
 * multiple of `step` unless it is all, in some 512 MiB, since w is read twice for each piece. */
static inline int64_t cuda_head_stride(int64_t vocabulary) { return (vocabulary + 63) & ~(int64_t)63; }
int64_t cuda_head_rows(int64_t rows, int64_t vocabulary, int64_t bytes, int64_t step);
/* head.c: scratch bytes beside those of operands, 0 where it never serves; whether it does, in a run */
size_t cuda_wide_head_workspace(const struct graph *graph, const struct node *node);
bool cuda_wide_head_serves(const struct call *call);
bool cuda_wide_head_run(struct call *call, struct error *err);

/* program.c */
struct program;
void cuda_arrange(const struct device *device, struct graph *graph);
bool cuda_compile(struct device *device, const struct plan *plan, struct store *store, struct program **out,
                  struct error *err);
bool cuda_run(struct program *program, const struct binding *binding, struct error *err);
bool cuda_finish(struct program *program, struct error *err);
bool cuda_read(struct program *program, int value, void *data, size_t bytes, struct error *err);
void cuda_program_close(struct program **program);
bool cuda_supports(const struct device *device, const struct graph *graph, const struct node *node,
                   struct error *err);
size_t cuda_workspace(const struct device *device, const struct graph *graph, const struct node *node);

/* measure.c */
bool cuda_describe(const struct device *device, json_t **out, struct error *err);
bool cuda_measure(struct device *device, const enum dtype *compute, const int64_t (*shapes)[3], int count,
                  uint64_t memory, json_t **out, struct error *err);

#endif
