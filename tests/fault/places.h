/* Places where a program may fail: its k-th request for memory, its k-th operation on a file; that one alone,
 * or every one from there on. */
#ifndef TESTS_FAULT_PLACES_H
#define TESTS_FAULT_PLACES_H

#include <hone/hone.h>
#include <stdbool.h>

enum { place_text = 400 };

struct fault_kind {
    const char *name;
    void (*set)(void *count);  /* NULL: off */
    enum hone_code allowed[2]; /* what a job may end with */
};
extern const struct fault_kind memory_fault, file_fault;

/* What fails: a job that leaves a result, or an error. */
typedef bool (*place_job)(void *user, struct hone_error *err);

/* Runs the job with a fault at place k, and checks the error that it may end with; `when` gets what failed.
 */
bool place_try(const struct fault_kind *kind, long k, bool lasting, place_job job, void *user,
               char when[place_text]);
/* How many places it passes; it must not fail. */
long place_count(const struct fault_kind *kind, place_job job, void *user);

/* Which of the places that would be tried are: one in so many. */
struct place_share {
    long ordinary, all; /* all: under HONE_TEST_LONG */
};

/* Calls `at` with each place that is to be tried, and whether the fault lasts. The ordinary tier takes the
 * first places and some of the others, drawn with a fixed seed; HONE_TEST_LONG=N every N-th. */
void place_each(const struct fault_kind *kind, struct place_share share, place_job job, void *user,
                void (*before)(void *user),
                void (*at)(void *user, const struct fault_kind *kind, long k, bool lasting));

#endif
