/* Launches that come again, replayed: those of a stretch of nodes depend on nothing but counts, so those of
 * the second run with the same counts are recorded as a CUDA graph, which later ones launch in one go. It
 * pays where kernels are short: decoding, small models.
 *
 * Where a program's tokens are rounded (inputs.h), its nodes fall into stretches that depend on the number of
 * tokens alone, which are recorded, and the few around the head that depend on the number of targets, which
 * are launched one by one. Any other program is one stretch, recorded for its counts. */
#ifndef HONE_DEVICE_CUDA_REPLAY_H
#define HONE_DEVICE_CUDA_REPLAY_H

#include "device/cuda/cuda.h"

struct passes;

/* Nodes first … end - 1. */
struct stretch {
    int first, end;
    bool recorded;
};

enum { replays_most = 32 };
/* Of the device's memory that a recorded node takes, most of them a launch or two: on an H100 5.2 KiB in a
 * forward pass and 5.7 in a training program of 30 layers; it comes in pieces of 2 MiB. */
enum { replay_node_bytes = 6 << 10, replay_piece = 2 << 20 };

struct replay {
    int stretch;
    int64_t tokens, targets, segments;
    uint64_t used; /* when, by the number of the call */
    int seen;
    bool refused; /* it could not be recorded: these runs stay as they are */
    cudaGraphExec_t graph;
};

struct replays {
    struct stretch *stretches;
    int stretch_count;
    bool by_tokens; /* what is recorded depends on the number of tokens alone */
    struct replay items[replays_most];
    int count;
    uint64_t calls;
    const struct store *store;
    const void *workplace; /* the arena that the graphs write to */
};

/* `by_tokens`: the program's tokens are rounded, and nothing runs beside its stream. */
bool replays_open(struct replays *out, const struct store *store, const struct graph *graph,
                  const struct passes *passes, bool by_tokens, struct error *err);
void replays_close(struct replays *replays);
/* Bytes of all that will be recorded in runs with these counts, one after another
 * (device_ops.recorded_bytes).
 */
uint64_t replays_bytes(const struct plan *plan, const struct counts *runs, size_t count);
/* Forgets every graph when the arena has moved. */
void replays_begin(struct replays *replays, const void *arena);
/* None is recorded beyond the bound of the store's table. Runs a stretch, whose nodes `run` launches: by its
 * graph, or as it is. */
bool replay_run(struct replays *replays, int stretch, const struct binding *binding, cudaStream_t stream,
                bool (*run)(void *user, int first, int end, struct error *err), void *user,
                struct error *err);

#endif
