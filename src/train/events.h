/* Events of a run: one JSON object a line, in events.jsonl, to whoever listens, and the curves to
 * TensorBoard. */
#ifndef HONE_TRAIN_EVENTS_H
#define HONE_TRAIN_EVENTS_H

#include "base/buf.h"
#include "base/fs.h"
#include "base/json.h"
#include "format/tfevents.h"

enum { event_version = 1 };

struct events {
    struct fs_appender file;
    struct tfevents board;
    struct buf waiting; /* lines that the disk has refused so far */
    bool board_open, disk_failed;
    void (*listen)(void *user, const char *line);
    void *user;
    int64_t step; /* put into every line */
};

/* Opens DIRECTORY/events.jsonl, cutting a torn last line, and a new TensorBoard file. */
bool events_open(struct events *out, const char *directory, void (*listen)(void *user, const char *line),
                 void *user, struct error *err);
void events_close(struct events *events);
/* Adds event, version, time and step before the fields of `fields`, which is released. A full disk is told
 * once to the listener and does not fail: the run matters more than its log. Lines that it refuses are
 * written when it has room again, up to a MiB of them. */
bool events_emit(struct events *events, const char *name, json_t *fields, struct error *err);
/* What was told so far is on the disk from now on; a failure is treated as above. */
void events_sync(struct events *events);
bool events_warn(struct events *events, const char *message, struct error *err);
/* A point of a curve; failures are treated as above. */
void events_scalar(struct events *events, const struct tfevents_scalar *scalars, size_t count);
/* The run goes on from the events' step: points of later ones leave the curves. */
void events_restart(struct events *events);

#endif
