#include "job/place.h"

#include "base/fs.h"

static bool is_same(const struct fs_info *one, const struct fs_info *other) {
    return one->kind != FS_NOTHING && one->kind == other->kind && one->device == other->device &&
           one->inode == other->inode;
}

bool place_check(const char *path, const char *source, const char *where, struct error *err) {
    struct fs_info at, read;
    struct fs_writer probe;
    if (!fs_stat(path, &at, err) || !fs_stat(source, &read, err)) return false;
    if (at.kind == FS_DIRECTORY) {
        error_set(err, ERROR_USAGE, where, "--output %s is a directory", path);
        return error_fix(err, "Name a file in it.");
    }
    if (at.kind == FS_OTHER) {
        error_set(err, ERROR_USAGE, where, "--output %s is a device or a pipe", path);
        return error_fix(err, "Name a file: it takes its name once it is whole.");
    }
    if (is_same(&at, &read)) {
        error_set(err, ERROR_USAGE, where, "--output %s is the file that is read, %s", path, source);
        return error_fix(err, "Choose another --output: it would be written over.");
    }
    if (!fs_check_directory(path, where, err) || !fs_writer_open(&probe, path, err)) return false;
    fs_writer_drop(&probe);
    return true;
}
