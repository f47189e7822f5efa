/* Mapped files without a name. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/magic.h>
#include <sys/vfs.h>
#endif

#include "base/fs_internal.h"
#include "base/mem.h"
#include "base/text.h"

bool fs_in_memory(const char *directory) {
#ifdef __linux__
    struct statfs info;
    return statfs(directory, &info) == 0 && (info.f_type == TMPFS_MAGIC || info.f_type == RAMFS_MAGIC);
#else
    (void)directory;
    return false;
#endif
}

/* Blocks on disk for all of it: a write into a hole of a full disk would be a signal, not an error. */
static int take_room(int fd, size_t size) {
#ifdef __APPLE__
    fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t)size, 0};
    if (fcntl(fd, F_PREALLOCATE, &store) != 0 || ftruncate(fd, (off_t)size) != 0) return errno;
    return 0;
#else
    return posix_fallocate(fd, 0, (off_t)size);
#endif
}

static bool refuse_room(const char *directory, size_t size, int cause, struct error *err) {
    char need[32];
    errno = cause;
    error_set(err, ERROR_DISK, "file", "what is offloaded needs %s in a file in %s", text_bytes(size, need),
              directory);
    error_why(err, "%s", strerror(cause));
    return error_fix(err, "Free space there, or offload less.");
}

static bool map(struct fs_scratch *out, int fd, const char *directory, size_t size, struct error *err) {
    int cause = fs_refused("fallocate", directory) ? errno : take_room(fd, size);
    if (cause) return refuse_room(directory, size, cause, err);
    void *data = fs_refused("mmap", directory) ? MAP_FAILED
                                               : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) return error_system(err, ERROR_DISK, "file", "map a file in", directory);
    *out = (struct fs_scratch){data, size};
    return true;
}

bool fs_scratch_open(struct fs_scratch *out, const char *directory, size_t size, struct error *err) {
    *out = (struct fs_scratch){0};
    if (!size) return true;
    if (fs_in_memory(directory)) {
        error_set(err, ERROR_USAGE, "file", "files in %s lie in memory, nothing can be offloaded there",
                  directory);
        return error_fix(err, "Name a directory on a disk: --output, or TMPDIR.");
    }
    char *path = fs_join(directory, ".offloaded.partial-XXXXXX");
    if (!path) return error_no_memory(err, "file", 0);
    int fd = fs_refused("open", directory) ? -1 : mkostemp(path, O_CLOEXEC);
    bool ok = fd >= 0 || error_system(err, ERROR_DISK, "file", "make a file in", directory);
    if (fd >= 0) {
        unlink(path);
        ok = map(out, fd, directory, size, err);
        close(fd);
    }
    mem_free(path);
    return ok;
}

void fs_scratch_close(struct fs_scratch *scratch) {
    if (scratch->data) munmap(scratch->data, scratch->size);
    *scratch = (struct fs_scratch){0};
}
