#include "base/error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

static const struct {
    enum error_code code;
    const char *name;
    int exit_status;
} codes[] = {
    {ERROR_NONE, "none", 0},         {ERROR_FAILED, "failed", 1},
    {ERROR_INTERNAL, "internal", 1}, {ERROR_USAGE, "usage", 2},
    {ERROR_INPUT, "input", 3},       {ERROR_MEMORY, "memory", 4},
    {ERROR_DISK, "disk", 4},         {ERROR_INTERRUPTED, "interrupted", 130},
};

const char *error_code_name(enum error_code code) {
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].name;
    return "internal";
}

int error_exit_status(enum error_code code) {
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)
        if (codes[i].code == code) return codes[i].exit_status;
    return 1;
}

void error_clear(struct error *err) { memset(err, 0, sizeof *err); }

/* The text, cut where it is too long, and clean. */
static void fill(char *out, size_t size, const char *format, va_list args) {
    int length = vsnprintf(out, size, format, args);
    if (length < 0) out[0] = '\0';
    if (length >= 0 && (size_t)length >= size) text_ellipsis(out, size);
    text_clean(out);
}

bool error_set(struct error *err, enum error_code code, const char *where, const char *format, ...) {
    error_clear(err);
    err->code = code;
    snprintf(err->where, sizeof err->where, "%s", where);
    va_list args;
    va_start(args, format);
    fill(err->what, sizeof err->what, format, args);
    va_end(args);
    return false;
}

bool error_why(struct error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fill(err->why, sizeof err->why, format, args);
    va_end(args);
    return false;
}

bool error_fix(struct error *err, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fill(err->fix, sizeof err->fix, format, args);
    va_end(args);
    return false;
}

static void fill_with(char *out, size_t size, const char *format, ...) PRINTF_LIKE(3, 4);
static void fill_with(char *out, size_t size, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fill(out, size, format, args);
    va_end(args);
}

bool error_about(struct error *err, const char *name) {
    char what[sizeof err->what];
    memcpy(what, err->what, sizeof what);
    fill_with(err->what, sizeof err->what, "%.200s: %s", name, what);
    return false;
}

bool error_no_memory(struct error *err, const char *where, unsigned long long bytes) {
    error_set(err, ERROR_MEMORY, where, "out of memory while asking for %llu bytes", bytes);
    return error_fix(err, "Free memory, or lower --memory or --max-length.");
}

bool error_system(struct error *err, enum error_code otherwise, const char *where, const char *doing,
                  const char *path) {
    int number = errno;
    enum error_code code = otherwise;
    if (number == ENOSPC || number == EDQUOT) code = ERROR_DISK;
    if (number == ENOMEM) code = ERROR_MEMORY;
    error_set(err, code, where, "cannot %s %s", doing, path);
    error_why(err, "%s", strerror(number));
    if (number == ENOSPC || number == EDQUOT) error_fix(err, "Free space there, or choose another place.");
    if (code == ERROR_DISK && (number == EROFS || number == EACCES || number == EPERM))
        error_fix(err, "Choose a place that may be written.");
    return false;
}

void error_format(const struct error *err, char *out, unsigned long size) {
    const char *why = err->why, *fix = err->fix, *last = *why ? why : err->what;
    bool stop = *last && last[strlen(last) - 1] != '.';
    fill_with(out, size, "%s: %s%s%s%s%s%s", err->where, err->what, *why ? ": " : "", why, stop ? "." : "",
              *fix ? " " : "", fix);
}
