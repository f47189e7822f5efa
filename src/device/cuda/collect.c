/* Sums over the GPUs of a run by NCCL, one process a GPU. The library is loaded when a run is shared and
 * found as cuBLASLt is; where one of the processes has none, the numbers go through the hosts' memory
 * instead. */
#include "base/group.h"
#include "base/mem.h"
#include "device/cuda/cuda.h"
#include "device/cuda/usage.h"

/* What nccl.h (2.x) declares of the functions used here; the toolkit does not bring that header. */
typedef struct ncclComm *nccl_comm;
struct nccl_id {
    char internal[128];
};
enum { NCCL_SUM = 0, NCCL_FLOAT32 = 7, NCCL_FLOAT64 = 8 };

struct collect {
    nccl_comm comm;
    int (*get_id)(struct nccl_id *id);
    int (*init)(nccl_comm *comm, int size, struct nccl_id id, int rank);
    int (*reduce)(const void *from, void *to, size_t count, int type, int operation, nccl_comm comm,
                  cudaStream_t stream);
    int (*destroy)(nccl_comm comm);
    const char *(*text)(int status);
};

static const char soname[] = "libnccl.so.2";

/* False where it is not here; that is no error. */
static bool find(struct collect *c) {
    const struct cuda_function rows[] = {{"ncclGetUniqueId", &c->get_id},
                                         {"ncclCommInitRank", &c->init},
                                         {"ncclAllReduce", &c->reduce},
                                         {"ncclCommDestroy", &c->destroy},
                                         {"ncclGetErrorString", &c->text}};
    char *path = NULL;
    void *library = cuda_library(soname, &path);
    mem_free(path);
    return library && !cuda_functions(library, rows, sizeof rows / sizeof *rows);
}

static bool check(const struct collect *c, int status, const char *doing, struct error *err) {
    return status == 0 || error_set(err, ERROR_FAILED, "nccl", "cannot %s: %s", doing, c->text(status));
}

void collect_close(struct collect **handle) {
    struct collect *c = *handle;
    if (!c) return;
    if (c->comm) c->destroy(c->comm);
    mem_free(c);
    *handle = NULL;
}

/* Whether it is so in all of them. */
static bool in_all(struct group *group, bool here, bool *out, struct error *err) {
    double count = here;
    if (!group_sum_f64(group, &count, 1, err)) return false;
    *out = (int)count == group_size(group);
    return true;
}

/* Rank 0 makes the name by which they find each other; the rest wait in the library until all have come, and
 * so are only sent there when there is one. */
static bool come_together(struct collect *c, struct group *group, struct error *err) {
    struct nccl_id id = {{0}};
    struct error cause;
    bool all, here = group_rank(group) != 0 || check(c, c->get_id(&id), "name the group of GPUs", &cause);
    if (!in_all(group, here, &all, err)) return false;
    if (!all) {
        if (!here) *err = cause;
        return !here ? false
                     : error_set(err, ERROR_FAILED, "nccl",
                                 "process 0 of the run cannot name the group of GPUs");
    }
    return group_broadcast(group, &id, sizeof id, err) &&
           check(c, c->init(&c->comm, group_size(group), id, group_rank(group)), "bring the GPUs together",
                 err);
}

/* NCCL's buffers come with the first sum, which waits for all. */
static bool first_sum(struct collect *c, struct device *device, struct group *group, struct error *err) {
    void *number = NULL;
    struct error cause;
    bool all = false, here = cuda_allocate(&number, sizeof(double), "the first sum", &cause);
    bool ok = in_all(group, here, &all, err);
    if (ok && !here) *err = cause;
    if (ok && here && !all)
        error_set(err, ERROR_FAILED, "nccl", "another process of the run has no memory left");
    ok = ok && all &&
         cuda_check(cudaMemsetAsync(number, 0, sizeof(double), device->stream), "clear a number", err) &&
         check(c, c->reduce(number, number, 1, NCCL_FLOAT64, NCCL_SUM, c->comm, device->stream),
               "add up over the GPUs", err) &&
         cuda_check(cudaStreamSynchronize(device->stream), "add up over the GPUs", err);
    cudaFree(number);
    return ok;
}

/* Of two H100 of one host, with NVLink; others differ, so a run measures its own. */
static const uint64_t usual_bytes = (uint64_t)868 << 20;

uint64_t cuda_join_bytes(const struct device *device) {
    struct collect c;
    return !device->joined && find(&c) ? usual_bytes : 0;
}

bool cuda_join(struct device *device, struct group *group, bool *sums, struct error *err) {
    struct collect *c = mem_calloc(1, sizeof *c);
    *sums = false;
    if (!c) return error_no_memory(err, "cuda", sizeof *c);
    const uint64_t before = usage_now(device->usage);
    bool ok = in_all(group, find(c), sums, err) &&
              (!*sums || (come_together(c, group, err) && first_sum(c, device, group, err)));
    const uint64_t after = usage_now(device->usage);
    if (after > before) usage_add(device->usage, after - before);
    device->joined = true;
    if (!ok || !*sums) collect_close(&c);
    device->collect = c;
    return ok;
}

bool cuda_sum(struct store *store, int row, struct error *err) {
    struct collect *c = store->device->collect;
    const struct state_row *state = &store->table->rows[row];
    bool wide = state->dtype == DTYPE_F64;
    size_t count = (size_t)state->bytes / (wide ? sizeof(double) : sizeof(float));
    return check(c,
                 c->reduce(store->data[row], store->data[row], count, wide ? NCCL_FLOAT64 : NCCL_FLOAT32,
                           NCCL_SUM, c->comm, store->device->stream),
                 "add up over the GPUs", err);
}
