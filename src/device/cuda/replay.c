#include "device/cuda/replay.h"

#include <string.h>

#include "base/mem.h"
#include "device/cuda/inputs.h"
#include "device/cuda/passes.h"
#include "device/cuda/usage.h"

/* ---- stretches ---- */

/* Segments reach nodes as ranges of tokens (inputs.h), so where each begins does not count. */
static bool counts_targets(const struct graph *graph, int id) {
    enum count count = id < 0 ? COUNT_FIXED : graph->values[id].count;
    return count == COUNT_TARGETS || count == COUNT_SEGMENTS;
}

static bool is_recorded(const struct graph *graph, int n) {
    const struct node *node = &graph->nodes[n];
    for (int i = 0; i < node->inputs; i++)
        if (counts_targets(graph, node->input[i])) return false;
    for (int o = 0; o < node->outputs; o++)
        if (counts_targets(graph, node->output[o])) return false;
    return true;
}

/* False where a pass goes on over a stretch's end. */
static bool find_stretches(struct replays *replays, const struct graph *graph, const struct passes *passes) {
    struct stretch *at = replays->stretches;
    for (int n = 0; n < graph->node_count; n++) {
        bool recorded = is_recorded(graph, n);
        if (n && recorded == at->recorded) continue;
        if (n && passes_cross(passes, n)) return false;
        if (n) (at++)->end = n;
        *at = (struct stretch){.first = n, .recorded = recorded};
    }
    at->end = graph->node_count;
    replays->stretch_count = (int)(at - replays->stretches) + 1;
    return true;
}

bool replays_open(struct replays *replays, const struct store *store, const struct graph *graph,
                  const struct passes *passes, bool by_tokens, struct error *err) {
    size_t nodes = (size_t)graph->node_count;
    *replays = (struct replays){.store = store, .by_tokens = by_tokens};
    replays->stretches = mem_calloc(nodes + 1, sizeof *replays->stretches);
    if (!replays->stretches) return error_no_memory(err, "cuda", nodes * sizeof *replays->stretches);
    replays->by_tokens = by_tokens && find_stretches(replays, graph, passes);
    if (replays->by_tokens) return true;
    replays->stretches[0] = (struct stretch){.end = graph->node_count, .recorded = true};
    replays->stretch_count = 1;
    return true;
}

/* The first run has loaded the kernels, which must not happen while others are recorded. */
enum { worth = 2 };

/* How many stretches a run's graph has that are recorded, and their nodes. */
static int count_recorded(const struct graph *graph, int *nodes) {
    int stretches = 0;
    bool before = false;
    *nodes = 0;
    for (int n = 0; n < graph->node_count; n++) {
        bool now = is_recorded(graph, n);
        stretches += now && !before;
        *nodes += now;
        before = now;
    }
    return stretches;
}

uint64_t replays_bytes(const struct plan *plan, const struct counts *runs, size_t count) {
    struct {
        struct counts counts;
        int times;
    } seen[replays_most];
    const int64_t most = cuda_rounded_tokens(plan->graph);
    const bool by_tokens = most && !plan->offloaded_bytes;
    int nodes = plan->graph->node_count, stretches = by_tokens ? count_recorded(plan->graph, &nodes) : 1;
    int kinds = 0, again = 0, kinds_most = stretches ? replays_most / stretches : 0;
    for (size_t r = 0; r < count; r++) {
        struct counts c = {most ? cuda_rung(runs[r].tokens, most) : runs[r].tokens,
                           by_tokens ? 0 : runs[r].targets, by_tokens ? 0 : runs[r].segments};
        int i = 0;
        while (i < kinds && memcmp(&seen[i].counts, &c, sizeof c) != 0) i++;
        if (i == kinds_most) continue;
        if (i == kinds) seen[kinds++].counts = c, seen[i].times = 0;
        again += ++seen[i].times == worth;
    }
    return (uint64_t)again * (uint64_t)nodes * replay_node_bytes;
}

/* ---- graphs ---- */

static void forget(struct replay *entry) {
    if (entry->graph) cudaGraphExecDestroy(entry->graph);
    memset(entry, 0, sizeof *entry);
}

static void forget_all(struct replays *replays) {
    for (int i = 0; i < replays->count; i++) forget(&replays->items[i]);
    replays->count = 0;
}

void replays_close(struct replays *replays) {
    forget_all(replays);
    mem_free(replays->stretches);
}

void replays_begin(struct replays *replays, const void *arena) {
    if (replays->workplace != arena) forget_all(replays);
    replays->workplace = arena;
}

static struct replay *find(struct replays *replays, int stretch, const struct binding *binding) {
    struct replay wanted = {.stretch = stretch, .tokens = binding->tokens}, *oldest = replays->items;
    if (!replays->by_tokens) {
        wanted.targets = binding->targets;
        wanted.segments = binding->segments;
    }
    for (int i = 0; i < replays->count; i++) {
        struct replay *entry = &replays->items[i];
        if (entry->stretch == stretch && entry->tokens == wanted.tokens && entry->targets == wanted.targets &&
            entry->segments == wanted.segments)
            return entry;
        if (entry->used < oldest->used) oldest = entry;
    }
    struct replay *entry = replays->count < replays_most ? &replays->items[replays->count++] : oldest;
    forget(entry);
    *entry = wanted;
    return entry;
}

struct launches {
    const struct stretch *stretch;
    cudaStream_t stream;
    bool (*run)(void *user, int first, int end, struct error *err);
    void *user;
};

static bool launch(const struct launches *l, struct error *err) {
    return l->run(l->user, l->stretch->first, l->stretch->end, err);
}

static bool has_room(const struct store *store, const struct stretch *stretch) {
    uint64_t bound = store->table->bound,
             takes = (uint64_t)(stretch->end - stretch->first) * replay_node_bytes + replay_piece;
    return !bound || usage_now(store->device->usage) + takes <= bound;
}

/* Records what a run launches; false only when it was left. Afterwards entry->graph or entry->refused is set:
 * what could not be recorded (a reason is want of memory) is run as before, and fails then if it must. */
static bool record(struct replay *entry, const struct launches *l, struct error *err) {
    cudaGraph_t graph = NULL;
    entry->refused = true;
    if (cudaStreamBeginCapture(l->stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
        cudaGetLastError();
        return true;
    }
    bool ok = launch(l, err);
    if (cudaStreamEndCapture(l->stream, &graph) == cudaSuccess && ok &&
        cudaGraphInstantiate(&entry->graph, graph, 0) == cudaSuccess)
        entry->refused = false;
    else
        entry->graph = NULL;
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    return ok || err->code != ERROR_INTERRUPTED;
}

bool replay_run(struct replays *replays, int stretch, const struct binding *binding, cudaStream_t stream,
                bool (*run)(void *user, int first, int end, struct error *err), void *user,
                struct error *err) {
    const struct launches l = {&replays->stretches[stretch], stream, run, user};
    if (!l.stretch->recorded) return launch(&l, err);
    struct replay *entry = find(replays, stretch, binding);
    entry->used = ++replays->calls;
    if (!entry->graph && !entry->refused && ++entry->seen == worth) {
        if (!has_room(replays->store, l.stretch))
            entry->refused = true;
        else if (!record(entry, &l, err))
            return false;
    }
    return entry->graph ? cuda_check(cudaGraphLaunch(entry->graph, stream), "launch a graph", err)
                        : launch(&l, err);
}
