/* Records of a CSV file (RFC 4180): quoted fields, doubled quotes, line breaks inside quotes, LF or
 * CRLF; the separator is comma, semicolon or tab. Reads from memory, one record at a time, in one pass.
 *
 * Words: record (one row), field (one cell, unquoted). */
#ifndef HONE_TEXT_CSV_H
#define HONE_TEXT_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

struct csv {
    const char *text;
    size_t size;
    size_t at;   /* the next record begins here */
    size_t line; /* 1-based line of `at` */
    char separator;
};

/* Field i is text.data[starts[i]] up to starts[i + 1] - 1, where a NUL stands. */
struct csv_record {
    struct buf text;
    size_t *starts; /* [count + 1] */
    size_t count, capacity;
    size_t line;        /* where it begins */
    size_t first, end;  /* its bytes in the file, line end left out */
    const char *broken; /* why it is not a record, or NULL */
};

enum csv_result { CSV_RECORD, CSV_END, CSV_NO_MEMORY };

/* The separator that cuts the first record into most fields; comma when none does. */
char csv_separator(const char *text, size_t size);

/* Reads the next record; empty lines are skipped. A broken record (a quote that is never closed,
 * text behind a closing quote) comes back with `broken` set, and reading goes on behind it. */
enum csv_result csv_next(struct csv *csv, struct csv_record *record);

const char *csv_field(const struct csv_record *record, size_t index, size_t *size);
void csv_record_release(struct csv_record *record);

#endif
