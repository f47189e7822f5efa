/* Directories: making, renaming, replacing and removing them, and syncing what names a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs_internal.h"
#include "base/mem.h"

bool fs_sync_directory(const char *path, struct error *err) {
    int fd = fs_open_retry(path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return fs_write_error(err, "open", path);
    /* Some file systems refuse to sync a directory; the rename itself is still atomic there. */
    bool ok = fs_sync_fd(fd, path) || errno == EINVAL;
    close(fd);
    return ok || fs_write_error(err, "sync", path);
}

bool fs_sync_holder(const char *path, struct error *err) {
    char *directory = fs_directory_of(path);
    if (!directory) return error_no_memory(err, "file", 0);
    bool ok = fs_sync_directory(directory, err);
    mem_free(directory);
    return ok;
}

static bool make_directory(const char *path, struct error *err) {
    bool made = !fs_refused("mkdir", path) && mkdir(path, 0755) == 0;
    if (!made && errno != EEXIST) return fs_write_error(err, "create directory", path);
    if (fs_kind_of(path) != FS_DIRECTORY)
        return error_set(err, ERROR_INPUT, "file", "%s exists and is not a directory", path);
    return !made || fs_sync_holder(path, err);
}

bool fs_make_directories(const char *path, struct error *err) {
    char *copy = mem_strdup(path);
    if (!copy) return error_no_memory(err, "file", strlen(path));
    bool ok = true;
    for (char *at = copy + 1; ok && *copy; at++) {
        if (*at != '/' && *at) continue;
        char held = *at;
        *at = '\0';
        ok = make_directory(copy, err);
        *at = held;
        if (!held) break;
    }
    mem_free(copy);
    return ok;
}

bool fs_rename(const char *from, const char *to, struct error *err) {
    if (fs_refused("rename", to) || rename(from, to) != 0) return fs_write_error(err, "rename to", to);
    return fs_sync_holder(to, err);
}

/* In one step, so that one of the two has the name `b` at any moment; false where a file system lacks it. */
static bool exchange(const char *a, const char *b) {
    if (fs_refused("exchange", b)) return false;
#ifdef __APPLE__
    return renamex_np(a, b, RENAME_SWAP) == 0;
#elif defined RENAME_EXCHANGE
    return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0;
#else
    (void)a;
    errno = ENOSYS;
    return false;
#endif
}

bool fs_replace_tree(const char *from, const char *to, struct error *err) {
    if (fs_kind_of(to) == FS_NOTHING) return fs_rename(from, to, err);
    if (exchange(from, to)) return fs_sync_holder(to, err) && fs_remove_tree(from, err);
    if (errno != EINVAL && errno != ENOSYS && errno != ENOTSUP) return fs_write_error(err, "rename to", to);
    return fs_remove_tree(to, err) && fs_rename(from, to, err);
}

bool fs_remove(const char *path, struct error *err) {
    if (!fs_refused("unlink", path) && unlink(path) == 0) return true;
    return errno == ENOENT || fs_write_error(err, "remove", path);
}

/* Depth is bounded: the trees removed are our own, at most a few levels deep. */
static bool remove_below(const char *path, int depth, struct error *err) {
    struct stat st;
    if (lstat(path, &st) != 0) return errno == ENOENT || fs_write_error(err, "look at", path);
    if (!S_ISDIR(st.st_mode)) return fs_remove(path, err);
    if (depth > 16) return error_set(err, ERROR_DISK, "file", "%s is nested too deep to remove", path);
    struct fs_list list;
    if (!fs_list_open(&list, path, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        char *child = fs_join(path, list.names[i]);
        ok = child ? remove_below(child, depth + 1, err) : error_no_memory(err, "file", 0);
        mem_free(child);
    }
    fs_list_close(&list);
    if (ok && (fs_refused("rmdir", path) || rmdir(path) != 0)) ok = fs_write_error(err, "remove", path);
    return ok;
}

bool fs_remove_tree(const char *path, struct error *err) { return remove_below(path, 0, err); }

void fs_remove_empty(const char *path, size_t keep) {
    char *copy = mem_strdup(path);
    for (size_t size = copy ? strlen(copy) : 0; size > keep; size = strlen(copy)) {
        if (fs_refused("rmdir", copy) || rmdir(copy) != 0) break;
        char *slash = strrchr(copy, '/');
        if (!slash || slash == copy) break;
        while (slash > copy && slash[-1] == '/') slash--;
        *slash = '\0';
    }
    mem_free(copy);
}
