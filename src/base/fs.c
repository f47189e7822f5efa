#include "base/fs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/mem.h"

static fs_fault fault_hook;
static void *fault_user;

void fs_set_fault(fs_fault fault, void *user) {
    fault_user = user;
    fault_hook = fault;
}

bool fs_refused(const char *call, const char *path) {
    int number = fault_hook ? fault_hook(fault_user, call, path) : 0;
    if (number) errno = number;
    return number != 0;
}

static bool read_error(struct error *err, const char *doing, const char *path) {
    return error_system(err, ERROR_INPUT, "file", doing, path);
}

bool fs_write_error(struct error *err, const char *doing, const char *path) {
    return error_system(err, ERROR_DISK, "file", doing, path);
}

int fs_open_retry(const char *path, int flags, mode_t mode) {
    int fd;
    if (fs_refused("open", path)) return -1;
    do fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fs_apart(fd);
}

int fs_apart(int fd) {
    if (fd < 0 || fd > STDERR_FILENO) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1), cause = errno;
    close(fd);
    errno = cause;
    return moved;
}

static bool write_all(int fd, const char *path, const void *data, size_t size) {
    const char *at = data;
    if (fs_refused("write", path)) return false;
    while (size) {
        ssize_t n = write(fd, at, size > 1u << 30 ? 1u << 30 : size);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            if (n == 0) errno = ENOSPC;
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

bool fs_sync_fd(int fd, const char *path) {
    if (fs_refused("fsync", path)) return false;
    return fsync(fd) == 0;
}

char *fs_directory_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return mem_strdup(".");
    return mem_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

const char fs_partial_mark[] = ".partial";

char *fs_partial(const char *path) {
    struct buf name = {0};
    buf_printf(&name, "%s%s-%ld", path, fs_partial_mark, (long)getpid());
    return buf_detach(&name, NULL);
}

bool fs_is_partial(const char *name) {
    static const char scratch[] = ".offloaded.partial-";
    const char *end = strrchr(name, '-');
    size_t length = strlen(name), size = sizeof fs_partial_mark - 1;
    if (!strncmp(name, scratch, sizeof scratch - 1)) return true;
    if (end && end[1] && !end[1 + strspn(end + 1, "0123456789")]) length = (size_t)(end - name);
    return length > size && !memcmp(name + length - size, fs_partial_mark, size);
}

bool fs_map_open(struct fs_map *map, const char *path, struct error *err) {
    struct stat st;
    memset(map, 0, sizeof *map);
    map->data = (const unsigned char *)"";
    /* Of a pipe that nobody writes to, open would wait for ever; for files the flag means nothing. */
    int fd = fs_open_retry(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return read_error(err, "open", path);
    bool ok = false;
    if (fs_refused("fstat", path) || fstat(fd, &st) != 0) {
        read_error(err, "read", path);
    } else if (S_ISDIR(st.st_mode)) {
        error_set(err, ERROR_INPUT, "file", "%s is a directory, a file is needed", path);
    } else if (!S_ISREG(st.st_mode)) {
        error_set(err, ERROR_INPUT, "file", "%s is not a regular file", path);
    } else if (st.st_size == 0) {
        ok = true;
    } else {
        void *data = fs_refused("mmap", path) ? MAP_FAILED
                                              : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) {
            read_error(err, "map", path);
        } else {
            map->data = data;
            map->size = (size_t)st.st_size;
            ok = true;
        }
    }
    close(fd);
    return ok;
}

void fs_map_close(struct fs_map *map) {
    if (map->size) munmap((void *)(uintptr_t)map->data, map->size);
    map->data = (const unsigned char *)"";
    map->size = 0;
}

bool fs_read(const char *path, size_t limit, struct buf *out, struct error *err) {
    char block[16384];
    size_t taken = 0;
    int fd = fs_open_retry(path, O_RDONLY, 0);
    if (fd < 0) return read_error(err, "open", path);
    for (;;) {
        ssize_t n = fs_refused("read", path) ? -1 : read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            read_error(err, "read", path);
            break;
        }
        taken += (size_t)n;
        if (limit && taken > limit) {
            error_set(err, ERROR_INPUT, "file", "%s is larger than %zu bytes", path, limit);
            break;
        }
        if (n == 0) {
            close(fd);
            return buf_append(out, "", 0) || error_no_memory(err, "file", taken);
        }
        if (!buf_append(out, block, (size_t)n)) {
            error_no_memory(err, "file", taken);
            break;
        }
    }
    close(fd);
    return false;
}

/* Where a link leads, so that the link stays and the file lies where its owner put it; else the path itself.
 */
static char *writer_target(const char *path) {
    struct stat st;
    char resolved[PATH_MAX];
    bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode) && realpath(path, resolved);
    return mem_strdup(link ? resolved : path);
}

bool fs_writer_open(struct fs_writer *writer, const char *path, struct error *err) {
    memset(writer, 0, sizeof *writer);
    writer->fd = -1;
    writer->path = writer_target(path);
    writer->temporary = writer->path ? fs_partial(writer->path) : NULL;
    writer->buffer = mem_alloc(fs_writer_memory);
    if (!writer->temporary || !writer->path || !writer->buffer) {
        error_no_memory(err, "file", fs_writer_memory);
    } else {
        writer->fd = fs_open_retry(writer->temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
        if (writer->fd >= 0) return true;
        fs_write_error(err, "create", path);
    }
    fs_writer_drop(writer);
    return false;
}

static bool writer_flush(struct fs_writer *writer, struct error *err) {
    bool ok = write_all(writer->fd, writer->path, writer->buffer, writer->held);
    writer->held = 0;
    return ok || fs_write_error(err, "write", writer->path);
}

bool fs_writer_write(struct fs_writer *writer, const void *data, size_t size, struct error *err) {
    writer->size += size;
    if (size > fs_writer_memory - writer->held && !writer_flush(writer, err)) return false;
    if (size > fs_writer_memory)
        return write_all(writer->fd, writer->path, data, size) || fs_write_error(err, "write", writer->path);
    if (size) memcpy(writer->buffer + writer->held, data, size);
    writer->held += size;
    return true;
}

static void writer_release(struct fs_writer *writer) {
    if (writer->fd >= 0) close(writer->fd);
    mem_free(writer->path);
    mem_free(writer->temporary);
    mem_free(writer->buffer);
    memset(writer, 0, sizeof *writer);
    writer->fd = -1;
}

bool fs_writer_commit(struct fs_writer *writer, struct error *err) {
    bool ok = writer_flush(writer, err);
    if (ok && !fs_sync_fd(writer->fd, writer->path)) ok = fs_write_error(err, "sync", writer->path);
    int fd = writer->fd;
    writer->fd = -1;
    if (fd >= 0 && close(fd) != 0 && ok) ok = fs_write_error(err, "close", writer->path);
    if (ok) ok = fs_rename(writer->temporary, writer->path, err);
    if (ok)
        writer_release(writer);
    else
        fs_writer_drop(writer);
    return ok;
}

void fs_writer_drop(struct fs_writer *writer) {
    if (writer->temporary && writer->path) unlink(writer->temporary);
    writer_release(writer);
}

bool fs_write_atomic(const char *path, const void *data, size_t size, struct error *err) {
    struct fs_writer writer;
    if (!fs_writer_open(&writer, path, err)) return false;
    if (fs_writer_write(&writer, data, size, err)) return fs_writer_commit(&writer, err);
    fs_writer_drop(&writer);
    return false;
}

bool fs_appender_open(struct fs_appender *appender, const char *path, uint64_t keep, struct error *err) {
    appender->path = mem_strdup(path);
    appender->fd = -1;
    if (!appender->path) return error_no_memory(err, "file", 0);
    appender->fd = fs_open_retry(path, O_WRONLY | O_CREAT, 0644);
    bool ok = appender->fd >= 0;
    if (ok) ok = !fs_refused("ftruncate", path) && ftruncate(appender->fd, (off_t)keep) == 0;
    if (ok) ok = lseek(appender->fd, 0, SEEK_END) >= 0;
    if (ok && fs_sync_holder(path, err)) return true;
    if (!ok) fs_write_error(err, "open", path);
    fs_appender_close(appender);
    return false;
}

bool fs_appender_write(struct fs_appender *appender, const void *data, size_t size, struct error *err) {
    off_t start = lseek(appender->fd, 0, SEEK_CUR);
    if (write_all(appender->fd, appender->path, data, size)) return true;
    fs_write_error(err, "write", appender->path);
    /* A torn record would be read as garbage: cut back to the last whole one. */
    if (start >= 0 && ftruncate(appender->fd, start) == 0) lseek(appender->fd, start, SEEK_SET);
    return false;
}

bool fs_appender_sync(struct fs_appender *appender, struct error *err) {
    return fs_sync_fd(appender->fd, appender->path) || fs_write_error(err, "sync", appender->path);
}

void fs_appender_close(struct fs_appender *appender) {
    if (appender->fd >= 0) close(appender->fd);
    mem_free(appender->path);
    appender->path = NULL;
    appender->fd = -1;
}

bool fs_stat(const char *path, struct fs_info *info, struct error *err) {
    struct stat st;
    memset(info, 0, sizeof *info);
    if (fs_refused("stat", path) || stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR) return true;
        return read_error(err, "look at", path);
    }
    info->kind = S_ISREG(st.st_mode) ? FS_FILE : S_ISDIR(st.st_mode) ? FS_DIRECTORY : FS_OTHER;
    info->size = (uint64_t)st.st_size;
#ifdef __APPLE__
    info->modified_ns = (int64_t)st.st_mtimespec.tv_sec * 1000000000 + st.st_mtimespec.tv_nsec;
#else
    info->modified_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
#endif
    info->device = (uint64_t)st.st_dev;
    info->inode = (uint64_t)st.st_ino;
    return true;
}

bool fs_check_directory(const char *path, const char *where, struct error *err) {
    char *directory = fs_directory_of(path);
    struct fs_info info;
    bool ok = directory ? fs_stat(directory, &info, err) : error_no_memory(err, "file", 0);
    if (ok && info.kind != FS_DIRECTORY) {
        ok = error_set(err, ERROR_USAGE, where, "%s: there is no directory %s", path, directory);
        error_fix(err, "Make it, or choose another place.");
    }
    mem_free(directory);
    return ok;
}

enum fs_kind fs_kind_of(const char *path) {
    struct fs_info info;
    struct error ignored;
    return fs_stat(path, &info, &ignored) ? info.kind : FS_OTHER;
}

bool fs_free_bytes(const char *path, uint64_t *out, struct error *err) {
    struct statvfs st;
    if (fs_refused("statvfs", path) || statvfs(path, &st) != 0) return read_error(err, "look at", path);
    *out = (uint64_t)st.f_bavail * (uint64_t)st.f_frsize;
    return true;
}

bool fs_symlink(const char *target, const char *path, struct error *err) {
    struct error ignored;
    char *temporary = fs_partial(path);
    if (!temporary) return error_no_memory(err, "file", strlen(path));
    bool ok = fs_remove(temporary, err);
    if (ok && (fs_refused("symlink", path) || symlink(target, temporary) != 0))
        ok = fs_write_error(err, "link", path);
    if (ok && !fs_rename(temporary, path, err)) {
        fs_remove(temporary, &ignored);
        ok = false;
    }
    mem_free(temporary);
    return ok;
}

static int name_order(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

bool fs_list_open(struct fs_list *list, const char *path, struct error *err) {
    memset(list, 0, sizeof *list);
    DIR *directory = fs_refused("opendir", path) ? NULL : opendir(path);
    if (!directory) return read_error(err, "list", path);
    size_t capacity = 0;
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (list->count == capacity) {
            capacity = capacity ? capacity * 2 : 16;
            char **names = mem_realloc(list->names, capacity * sizeof *names);
            if (!names) {
                ok = error_no_memory(err, "file", capacity * sizeof *names);
                break;
            }
            list->names = names;
        }
        char *name = mem_strdup(entry->d_name);
        if (name)
            list->names[list->count++] = name;
        else
            ok = error_no_memory(err, "file", 0);
    }
    closedir(directory);
    if (ok && list->count) qsort(list->names, list->count, sizeof *list->names, name_order);
    if (!ok) fs_list_close(list);
    return ok;
}

void fs_list_close(struct fs_list *list) {
    for (size_t i = 0; i < list->count; i++) mem_free(list->names[i]);
    mem_free(list->names);
    memset(list, 0, sizeof *list);
}

char *fs_join(const char *directory, const char *name) {
    struct buf path = {0};
    size_t size = strlen(directory);
    buf_printf(&path, "%s%s%s", directory, size && directory[size - 1] == '/' ? "" : "/", name);
    return buf_detach(&path, NULL);
}

bool fs_absolute(const char *path, char **out, struct error *err) {
    char resolved[PATH_MAX];
    if (fs_refused("realpath", path) || !realpath(path, resolved)) return read_error(err, "find", path);
    *out = mem_strdup(resolved);
    return *out || error_no_memory(err, "file", PATH_MAX);
}

const char *fs_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool fs_lock_open(int *lock, const char *path, bool *taken, struct error *err) {
    *taken = false;
    *lock = fs_open_retry(path, O_RDWR | O_CREAT, 0644);
    if (*lock < 0) return fs_write_error(err, "open", path);
    if (!fs_refused("flock", path) && flock(*lock, LOCK_EX | LOCK_NB) == 0) return true;
    *taken = errno == EWOULDBLOCK;
    bool ok = *taken || fs_write_error(err, "lock", path);
    close(*lock);
    *lock = -1;
    return ok;
}

void fs_lock_close(int *lock) {
    if (*lock >= 0) close(*lock);
    *lock = -1;
}
