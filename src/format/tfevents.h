/* TensorBoard event files: TFRecord framing (length u64, masked CRC-32C, bytes, masked CRC-32C) around
 * Event messages, of which only wall_time, step, file_version, scalar summaries and the start of a session
 * are written. Source: tensorflow/core/util/event.proto, summary.proto, lib/io/record_writer. */
#ifndef HONE_FORMAT_TFEVENTS_H
#define HONE_FORMAT_TFEVENTS_H

#include "base/error.h"
#include "base/fs.h"

struct tfevents {
    struct fs_appender file;
};
struct tfevents_scalar {
    const char *tag; /* "train/loss" */
    double value;
};

bool tfevents_open(struct tfevents *out, const char *path, double wall_time,
                   struct error *err); /* new file; writes the version record */
bool tfevents_write(struct tfevents *events, double wall_time, int64_t step,
                    const struct tfevents_scalar *scalars, size_t count, struct error *err);
/* What was written of `step` and later ones, in earlier files of the directory too, counts no more:
 * TensorBoard drops it from its curves. */
bool tfevents_restart(struct tfevents *events, double wall_time, int64_t step, struct error *err);
void tfevents_close(struct tfevents *events);

#endif
