/* Closed to other folders: what the files behind fs.h share. */
#ifndef HONE_BASE_FS_INTERNAL_H
#define HONE_BASE_FS_INTERNAL_H

#include "base/fs.h"

/* True when a test wants this call to fail; errno is set then. */
bool fs_refused(const char *call, const char *path);

#endif
