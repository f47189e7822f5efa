/* Runs that come again, replayed: the launches of a program depend on nothing but its counts, so those of the
 * third run with the same counts are recorded as a CUDA graph, which later ones launch in one go. It pays
 * where kernels are short: decoding, small models. */
#ifndef HONE_DEVICE_CUDA_REPLAY_H
#define HONE_DEVICE_CUDA_REPLAY_H

#include "device/cuda/cuda.h"

enum { replays_most = 16 };

struct replay {
    int64_t tokens, targets, segments;
    int seen;
    bool refused; /* it could not be recorded: these runs stay as they are */
    cudaGraphExec_t graph;
};

struct replays {
    struct replay items[replays_most];
    int count, next;       /* next: whose place a new one takes when all are taken */
    const void *workplace; /* the arena that the graphs write to */
};

/* The entry of these counts; forgets every graph when the arena has moved. */
struct replay *replay_find(struct replays *replays, const struct binding *binding, const void *arena);
/* Records what `run` launches; false only when `run` fails. Afterwards entry->graph or entry->refused is set.
 */
bool replay_record(struct replay *entry, cudaStream_t stream, bool (*run)(void *user, struct error *err),
                   void *user, struct error *err);
void replays_release(struct replays *replays);

#endif
