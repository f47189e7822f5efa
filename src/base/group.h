/* The processes of one run on one machine, which add up what each has: a socket from each to the first, which
 * adds in the order of the ranks, so that all get the same bits, in every run.
 *
 * Words: rank (which process, from 0), size (how many there are). Every process calls the same functions in
 * the same order. One that ends closes its socket; the others' next call fails with ERROR_FAILED and says so.
 */
#ifndef HONE_BASE_GROUP_H
#define HONE_BASE_GROUP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/digest.h"
#include "base/error.h"

struct group;

struct group_options {
    int rank, size;
    const char *place; /* a directory that is theirs alone, now or later: they find each other by its path */
    struct digest facts;    /* of what must be equal in all, or they do not belong together */
    double patience;        /* seconds to wait for the others */
    const atomic_int *stop; /* nonzero: waits no longer, ERROR_INTERRUPTED. May be NULL */
    /* Called while all are there and one keeps another waiting: after `slow` seconds (0: 60), then after
     * twice as many, and so on. May be NULL. */
    void (*waits)(void *user, int rank, double seconds);
    void *user;
    double slow;
};

/* Waits until all are there. Only processes of the same user are let in. */
bool group_open(struct group **out, const struct group_options *options, struct error *err);
void group_close(struct group **group); /* takes a NULL inside */
int group_rank(const struct group *group);
int group_size(const struct group *group);

/* data[count] becomes its sum over all ranks. */
bool group_sum_f32(struct group *group, float *data, size_t count, struct error *err);
bool group_sum_f64(struct group *group, double *data, size_t count, struct error *err);
/* data[bytes] becomes what rank 0 has there. */
bool group_broadcast(struct group *group, void *data, size_t bytes, struct error *err);

#endif
