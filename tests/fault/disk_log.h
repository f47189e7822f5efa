/* What a program does to files below one directory, recorded at the system calls (the linker's --wrap), and
 * the states in which a disk may be found when the power fails after any of them.
 *
 * What was synced is there. Of the rest a file system may have written anything: a file's bytes count as
 * synced with the next fsync of the file, a directory's entries with the next fsync of the directory. A
 * rename is one step, there or not. One thread. */
#ifndef TESTS_FAULT_DISK_LOG_H
#define TESTS_FAULT_DISK_LOG_H

#include <stddef.h>
#include <stdint.h>

/* What becomes of that which was not synced. */
enum disk_loss {
    DISK_NOTHING_LOST, /* the program was killed, the system lives */
    DISK_ALL_LOST,
    DISK_DATA_LOST, /* names and sizes are there, the bytes are zero */
    DISK_DATA_TORN, /* names are there, of each write the first half */
    DISK_SOME_LOST, /* any step, and any 512 bytes of a write, as `seed` draws them */
};

void disk_log_begin(const char *root); /* which is empty; what an earlier log held is gone */
void disk_log_end(void);               /* recording stops, the log stays */
void disk_log_release(void);
size_t disk_log_count(void);
const char *disk_log_step(size_t index); /* "rename of step-00000001" */
/* Makes `directory` and in it the state after the first `count` steps. */
void disk_log_lay(size_t count, enum disk_loss loss, uint64_t seed, const char *directory);

#endif
