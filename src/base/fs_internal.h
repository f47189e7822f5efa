/* Closed to other folders: what the files behind fs.h share. */
#ifndef HONE_BASE_FS_INTERNAL_H
#define HONE_BASE_FS_INTERNAL_H

#include <sys/types.h>

#include "base/fs.h"

/* True when a test wants this call to fail; errno is set then. */
bool fs_refused(const char *call, const char *path);
bool fs_write_error(struct error *err, const char *doing, const char *path); /* of errno; false */
int fs_open_retry(const char *path, int flags, mode_t mode);                 /* -1: errno */
/* The same descriptor under a number above those of standard input, output and error: where a program has
 * closed one of these, what it prints would go into the file. -1 of -1, and where there is none: errno. */
int fs_apart(int fd);
bool fs_sync_fd(int fd, const char *path); /* false: errno */
/* The directory that names `path` is synced: a new entry there outlives a failure of power. */
bool fs_sync_holder(const char *path, struct error *err);

#endif
