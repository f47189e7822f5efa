/* Closed to other folders: what the files of the engine share. */
#ifndef HONE_SCORE_ENGINE_INTERNAL_H
#define HONE_SCORE_ENGINE_INTERNAL_H

#include "base/thread.h"
#include "score/engine.h"

/* As many threads as the device has, whose own sleep meanwhile. */
bool engine_open_pool(const struct engine *engine, struct pool **out, struct error *err);
/* Computes what follows from an adapter's numbers (GRAPH_DERIVE). */
bool engine_derive(struct engine *engine, struct error *err);

#endif
