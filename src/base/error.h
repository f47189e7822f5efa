/* An error is a value: a code, where it arose, what happened, why, and what to do about it.
 *
 * Every function that can fail takes `struct error *err` last and returns bool; false means that
 * *err is filled. The first message wins: a caller that adds context changes `where` or `fix` only
 * when they are empty. `err` is never NULL. Texts are cut to fit (text_ellipsis), never overflow; they often
 * quote a stranger's file, so they are cleaned (text_clean): valid UTF-8 that cannot trick a terminal. */
#ifndef HONE_BASE_ERROR_H
#define HONE_BASE_ERROR_H

#include <stdarg.h>
#include <stdbool.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(text, first) __attribute__((__format__(__printf__, text, first)))
#else
#define PRINTF_LIKE(text, first)
#endif

/* Each code has one name (for JSON) and one exit status; the table stands in error.c. */
enum error_code {
    ERROR_NONE = 0,
    ERROR_FAILED,      /* exit 1: something outside of our hands failed */
    ERROR_INTERNAL,    /* exit 1: our own mistake, reported instead of crashing */
    ERROR_USAGE,       /* exit 2: unknown, out-of-range or conflicting setting */
    ERROR_INPUT,       /* exit 3: a file, a row or a request is refused */
    ERROR_MEMORY,      /* exit 4: memory cannot suffice */
    ERROR_DISK,        /* exit 4: no space left, or a write failed */
    ERROR_INTERRUPTED, /* exit 130: stopped by the user, resumable */
};

enum { error_text_size = 3200 }; /* what error_format needs for the longest error */

struct error {
    enum error_code code;
    char where[64]; /* the part or command: "train", "gguf" */
    char what[512]; /* one clause: file, line or field, and what is wrong with it */
    char why[2048]; /* the cause, may be empty; or the other causes, where there are several */
    char fix[512];  /* the remedy, may be empty */
};

/* Fills *err with code, where and the formatted `what`. Always returns false, so that
 * `return error_set(…)` and `ok = error_set(…)` read well. */
bool error_set(struct error *err, enum error_code code, const char *where, const char *format, ...)
    PRINTF_LIKE(4, 5);

/* Sets the cause or the remedy of an error that is already set. Return false too. */
bool error_why(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);
bool error_fix(struct error *err, const char *format, ...) PRINTF_LIKE(2, 3);

/* Puts "NAME: " before `what`: the file that the error is about. Returns false too. */
bool error_about(struct error *err, const char *name);

/* "out of memory" for an allocation of `bytes`. */
bool error_no_memory(struct error *err, const char *where, unsigned long long bytes);

/* Fills *err from errno after a failed system call on `path`: ENOSPC and EDQUOT become ERROR_DISK,
 * ENOMEM ERROR_MEMORY, everything else `otherwise`. `doing` is a verb phrase: "write", "open". */
bool error_system(struct error *err, enum error_code otherwise, const char *where, const char *doing,
                  const char *path);

void error_clear(struct error *err);
const char *error_code_name(enum error_code code);
int error_exit_status(enum error_code code);

/* "where: what: why. fix" on one line; `size` bytes at `out`, always terminated. */
void error_format(const struct error *err, char *out, unsigned long size);

#endif
