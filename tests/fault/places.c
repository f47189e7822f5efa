#include "fault/places.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/rng.h"
#include "support/test.h"

enum { first = 50, sample = 150 };

struct countdown {
    long left;
    bool lasting, hit;
    char what[300];
};

static bool is_due(struct countdown *count) {
    bool due = count->left == 0 || (count->lasting && count->left < 0);
    count->left--;
    return due;
}

static int fail_memory(void *user, size_t size) {
    struct countdown *count = user;
    if (!is_due(count)) return 0;
    if (!count->hit) snprintf(count->what, sizeof count->what, "%zu bytes", size);
    return count->hit = true;
}

static int fail_file(void *user, const char *call, const char *path) {
    static const int numbers[] = {EIO, ENOSPC, EACCES};
    struct countdown *count = user;
    if (!is_due(count)) return 0;
    if (!count->hit) snprintf(count->what, sizeof count->what, "%s of %s", call, path);
    count->hit = true;
    return numbers[strlen(call) % 3];
}

static void set_memory_fault(void *count) { mem_set_fault(count ? fail_memory : NULL, count); }
static void set_file_fault(void *count) { fs_set_fault(count ? fail_file : NULL, count); }

const struct fault_kind memory_fault = {"request for memory", set_memory_fault, {HONE_MEMORY, HONE_MEMORY}},
                        file_fault = {"file operation", set_file_fault, {HONE_INPUT, HONE_DISK}};

static bool run(const struct fault_kind *kind, struct countdown *count, place_job job, void *user,
                struct hone_error *err) {
    memset(err, 0, sizeof *err);
    kind->set(count);
    bool ok = job(user, err);
    kind->set(NULL);
    return ok;
}

bool place_try(const struct fault_kind *kind, long k, bool lasting, place_job job, void *user,
               char when[place_text]) {
    struct countdown count = {.left = k, .lasting = lasting};
    struct hone_error err;
    bool ok = run(kind, &count, job, user, &err);
    snprintf(when, place_text, "%s %ld%s (%s)", kind->name, k, lasting ? " and all later" : "",
             count.hit ? count.what : "never");
    if (!ok && err.code != kind->allowed[0] && err.code != kind->allowed[1])
        fail_msg("%s: %s: %s: %s: %s", when, hone_code_name(err.code), err.where, err.what, err.why);
    if (!ok && (!count.hit || !err.where[0] || !err.what[0])) fail_msg("%s: %s", when, err.what);
    return ok;
}

long place_count(const struct fault_kind *kind, place_job job, void *user) {
    struct countdown count = {.left = LONG_MAX};
    struct hone_error err;
    if (!run(kind, &count, job, user, &err)) fail_msg("%s: %s: %s", err.where, err.what, err.why);
    return LONG_MAX - count.left;
}

static bool is_tried(long k, long places, struct place_share share) {
    const char *every = getenv("HONE_TEST_LONG");
    uint32_t bits[4];
    if (k < first / share.ordinary) return true;
    if (every) return k % (share.all * strtol(every, NULL, 10)) == 0;
    philox(7, (uint32_t[4]){(uint32_t)k, 0, 0, 0}, bits);
    return bits[0] % places < sample / share.ordinary;
}

void place_each(const struct fault_kind *kind, struct place_share share, place_job job, void *user,
                void (*before)(void *user),
                void (*at)(void *user, const struct fault_kind *kind, long k, bool lasting)) {
    before(user);
    long places = place_count(kind, job, user), tried = 0;
    assert_true(places > 0); /* the hook was really asked */
    for (long k = 0; k < places; k++) {
        if (!is_tried(k, places, share)) continue;
        for (int lasting = 0; lasting < 2; lasting++) {
            before(user);
            at(user, kind, k, lasting);
        }
        tried++;
    }
    print_message("%ld of %ld places tried, each alone and with all later ones\n", tried, places);
}
