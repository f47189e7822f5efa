/* Closed to other folders: what the reader of quantised weights needs of a model directory. */
#ifndef HONE_FORMAT_HUB_INTERNAL_H
#define HONE_FORMAT_HUB_INTERNAL_H

#include "base/arena.h"
#include "format/hub.h"

const char *hub_directory(const struct hub *hub);
struct arena *hub_arena(struct hub *hub);
/* Refuses a way of quantising that is not read, by its name in config.json. */
bool hub_check_quantised(const struct hub *hub, struct error *err);

#endif
