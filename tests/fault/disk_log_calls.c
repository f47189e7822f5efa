/* The system calls by which the library changes files: the linker leads them here (--wrap in extra.cmake). */
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "fault/disk_log_calls.h"

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_write(int fd, const void *bytes, size_t size);
int __real_ftruncate(int fd, off_t size);
int __real_fsync(int fd);
int __real_mkdir(const char *path, mode_t mode);
int __real_unlink(const char *path);
int __real_rmdir(const char *path);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags);

int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
int __wrap_ftruncate(int fd, off_t size);
int __wrap_fsync(int fd);
int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_unlink(const char *path);
int __wrap_rmdir(const char *path);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags);

int __wrap_open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    int fd = __real_open(path, flags, mode);
    disk_log_opened(fd, path, flags);
    return fd;
}

int __wrap_close(int fd) {
    disk_log_closed(fd);
    return __real_close(fd);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    ssize_t written = __real_write(fd, bytes, size);
    if (written > 0) disk_log_written(fd, bytes, (size_t)written, at < 0 ? 0 : (size_t)at);
    return written;
}

int __wrap_ftruncate(int fd, off_t size) {
    int failed = __real_ftruncate(fd, size);
    if (!failed) disk_log_cut(fd, (size_t)size);
    return failed;
}

int __wrap_fsync(int fd) {
    int failed = __real_fsync(fd);
    if (!failed) disk_log_synced(fd);
    return failed;
}

int __wrap_mkdir(const char *path, mode_t mode) {
    int failed = __real_mkdir(path, mode);
    if (!failed) disk_log_made(path);
    return failed;
}

int __wrap_unlink(const char *path) {
    int failed = __real_unlink(path);
    if (!failed) disk_log_left(path);
    return failed;
}

int __wrap_rmdir(const char *path) {
    int failed = __real_rmdir(path);
    if (!failed) disk_log_left(path);
    return failed;
}

int __wrap_rename(const char *from, const char *to) {
    int failed = __real_rename(from, to);
    if (!failed) disk_log_renamed(from, to, false);
    return failed;
}

int __wrap_renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    int failed = __real_renameat2(from_directory, from, to_directory, to, flags);
    if (!failed) disk_log_renamed(from, to, flags != 0);
    return failed;
}
