/* Where a command is to write its file. Looked at before the work, whose result would be lost otherwise. */
#ifndef HONE_JOB_PLACE_H
#define HONE_JOB_PLACE_H

#include "base/error.h"

/* Refuses a path in a directory that is not there or may not be written, a directory, a device or a pipe, and
 * `source`, the file that is read for it. */
bool place_check(const char *path, const char *source, const char *where, struct error *err);

#endif
