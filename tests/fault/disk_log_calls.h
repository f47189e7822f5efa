/* Between disk_log.c and the calls that it listens to (disk_log_calls.c). Each is told what was done. */
#ifndef TESTS_FAULT_DISK_LOG_CALLS_H
#define TESTS_FAULT_DISK_LOG_CALLS_H

#include <stdbool.h>
#include <stddef.h>

void disk_log_opened(int fd, const char *path, int flags);
void disk_log_closed(int fd);
void disk_log_written(int fd, const void *bytes, size_t size, size_t at);
void disk_log_cut(int fd, size_t size);
void disk_log_synced(int fd);
void disk_log_made(const char *path);
void disk_log_left(const char *path);
void disk_log_renamed(const char *from, const char *to, bool exchanged);

#endif
