#include "device/cuda/replay.h"

#include <string.h>

static void forget(struct replay *entry) {
    if (entry->graph) cudaGraphExecDestroy(entry->graph);
    memset(entry, 0, sizeof *entry);
}

void replays_release(struct replays *replays) {
    for (int i = 0; i < replays->count; i++) forget(&replays->items[i]);
    memset(replays, 0, sizeof *replays);
}

struct replay *replay_find(struct replays *replays, const struct binding *binding, const void *arena) {
    if (replays->workplace != arena) replays_release(replays);
    replays->workplace = arena;
    for (int i = 0; i < replays->count; i++) {
        struct replay *entry = &replays->items[i];
        if (entry->tokens == binding->tokens && entry->targets == binding->targets &&
            entry->segments == binding->segments)
            return entry;
    }
    struct replay *entry = &replays->items[replays->next];
    replays->next = (replays->next + 1) % replays_most;
    if (replays->count < replays_most) replays->count++;
    forget(entry);
    entry->tokens = binding->tokens;
    entry->targets = binding->targets;
    entry->segments = binding->segments;
    return entry;
}

bool replay_record(struct replay *entry, cudaStream_t stream, bool (*run)(void *user, struct error *err),
                   void *user, struct error *err) {
    cudaGraph_t graph = NULL;
    entry->refused = true;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        cudaGetLastError();
        return true;
    }
    bool ok = run(user, err);
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && ok &&
        cudaGraphInstantiate(&entry->graph, graph, 0) == cudaSuccess)
        entry->refused = false;
    else
        entry->graph = NULL;
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError(); /* what could not be recorded is run as before */
    return ok || err->code != ERROR_INTERRUPTED;
}
