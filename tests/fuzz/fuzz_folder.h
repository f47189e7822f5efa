/* A folder for the files of an input, in memory where the system has such a place; removed at the end. */
#ifndef TESTS_FUZZ_FOLDER_H
#define TESTS_FUZZ_FOLDER_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"

static char fuzz_folder[64];

static inline void require(bool holds) {
    if (!holds) abort();
}

static inline void remove_fuzz_folder(void) {
    struct error ignored;
    fs_remove_tree(fuzz_folder, &ignored);
}

static inline void make_fuzz_folder(void) {
    if (fuzz_folder[0]) return;
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/hone-fuzz-XXXXXX",
             fs_kind_of("/dev/shm") == FS_DIRECTORY ? "/dev/shm" : "/tmp");
    require(mkdtemp(fuzz_folder) && atexit(remove_fuzz_folder) == 0);
}

static inline void put_fuzz_file(const char *name, const void *data, size_t size) {
    char path[160];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder, name);
    FILE *file = fopen(path, "wb");
    require(file && (size == 0 || fwrite(data, 1, size, file) == size) && fclose(file) == 0);
}

#endif
