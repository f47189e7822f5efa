/* Files. All access of the library to the file system passes here, so that tests can make any step
 * fail, and so that nothing half written ever stands under a final name.
 *
 * Paths in messages are shown as given. Errors: ERROR_INPUT for reading, ERROR_DISK for writing. */
#ifndef HONE_BASE_FS_H
#define HONE_BASE_FS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/* A file mapped read-only. size 0 gives data == "" and no mapping. */
struct fs_map {
    const unsigned char *data;
    size_t size;
};
bool fs_map_open(struct fs_map *map, const char *path, struct error *err);
void fs_map_close(struct fs_map *map);

/* The whole of a file appended to *out; refused when larger than `limit` bytes (0: no limit). */
bool fs_read(const char *path, size_t limit, struct buf *out, struct error *err);

/* Writes a file beside its name, syncs it, renames it over `path` (over the file that a link leads to), syncs
 * the directory. */
bool fs_write_atomic(const char *path, const void *data, size_t size, struct error *err);

/* A file that is written in pieces, then published under its name, or dropped. */
enum { fs_writer_memory = 1 << 20 }; /* bytes that an open one takes */
struct fs_writer {
    int fd;
    uint64_t size;
    char *path, *temporary;
    unsigned char *buffer; /* gathers small writes */
    size_t held;
};
bool fs_writer_open(struct fs_writer *writer, const char *path, struct error *err);
bool fs_writer_write(struct fs_writer *writer, const void *data, size_t size, struct error *err);
bool fs_writer_commit(struct fs_writer *writer, struct error *err); /* sync, rename; releases */
void fs_writer_drop(struct fs_writer *writer); /* removes the temporary; takes a released one */

/* A file that grows by whole records (events.jsonl). Opened at `keep` bytes: the rest is cut. */
struct fs_appender {
    int fd;
    char *path;
};
bool fs_appender_open(struct fs_appender *appender, const char *path, uint64_t keep, struct error *err);
bool fs_appender_write(struct fs_appender *appender, const void *data, size_t size, struct error *err);
bool fs_appender_sync(struct fs_appender *appender, struct error *err);
void fs_appender_close(struct fs_appender *appender);

enum fs_kind { FS_NOTHING, FS_FILE, FS_DIRECTORY, FS_OTHER };
struct fs_info {
    enum fs_kind kind; /* symbolic links are followed */
    uint64_t size;
    int64_t modified_ns;
    uint64_t device, inode;
};
bool fs_stat(const char *path, struct fs_info *info, struct error *err); /* FS_NOTHING is no error */
enum fs_kind fs_kind_of(const char *path); /* FS_OTHER too for what cannot be looked at */
/* ERROR_USAGE where the directory that `path` is to lie in is not there. */
bool fs_check_directory(const char *path, const char *where, struct error *err);
bool fs_make_directories(const char *path, struct error *err);       /* each synced where it is named */
bool fs_rename(const char *from, const char *to, struct error *err); /* and syncs the directory of `to` */
/* A directory takes the place, and the name, of another one, which is removed; in one step where the system
 * can do that. */
bool fs_replace_tree(const char *from, const char *to, struct error *err);
bool fs_sync_directory(const char *path, struct error *err);
bool fs_remove(const char *path, struct error *err);      /* a file; absent is no error */
bool fs_remove_tree(const char *path, struct error *err); /* a directory and all below; follows no link */
/* Removes a directory that is empty, and the directories above it that are, but for those whose path has at
 * most `keep` bytes. What cannot be removed stays. */
void fs_remove_empty(const char *path, size_t keep);
bool fs_free_bytes(const char *path, uint64_t *out, struct error *err);
bool fs_symlink(const char *target, const char *path,
                struct error *err); /* replaces, in one step, what is there */

/* Names in a directory, sorted, without "." and "..". */
struct fs_list {
    char **names;
    size_t count;
};
bool fs_list_open(struct fs_list *list, const char *path, struct error *err);
void fs_list_close(struct fs_list *list);

/* dir/name, from mem_alloc; NULL when out of memory. */
char *fs_join(const char *directory, const char *name);
/* The directory that a path lies in, and the name beside it under which this process writes it before it is
 * renamed; from mem_alloc, NULL when out of memory. */
char *fs_directory_of(const char *path);
char *fs_partial(const char *path);
extern const char fs_partial_mark[]; /* ends the name of what others write before it is renamed */
/* Whether that is the name of something half-written: with the mark, of fs_partial or fs_scratch_open. */
bool fs_is_partial(const char *name);
/* An absolute, link-free path, from mem_alloc. */
bool fs_absolute(const char *path, char **out, struct error *err);
const char *fs_base_name(const char *path);

/* An exclusive lock on `path`, kept until closed or until the process dies. `taken` tells that
 * another living process holds it. */
bool fs_lock_open(int *lock, const char *path, bool *taken, struct error *err);
void fs_lock_close(int *lock);

/* A mapped file that has no name, for what has no place in memory; its disk space is taken at once, so that
 * no later write fails. It is gone when it is closed or the process ends. ERROR_DISK where there is no room,
 * ERROR_USAGE where the files of `directory` lie in memory themselves. */
struct fs_scratch {
    unsigned char *data; /* of whole pages, zero */
    size_t size;
};
bool fs_scratch_open(struct fs_scratch *out, const char *directory, size_t size, struct error *err);
void fs_scratch_close(struct fs_scratch *scratch); /* takes a closed one */
bool fs_in_memory(const char *directory);          /* files there take memory, not disk */

/* Fault injection, for tests: called before each system call with its name and path; a nonzero
 * return is the errno that the call fails with. */
typedef int (*fs_fault)(void *user, const char *call, const char *path);
void fs_set_fault(fs_fault fault, void *user);

#endif
