/* Shared by the files that implement include/hone/hone.h. */
#ifndef HONE_JOB_API_INTERNAL_H
#define HONE_JOB_API_INTERNAL_H

#include <hone/hone.h>

#include "base/error.h"
#include "base/locale.h"
#include "job/job.h"

/* Copies an error out, when there is a place for it. Always returns false. */
bool api_fail(struct hone_error *out, const struct error *err);
/* For a pointer that a caller must give and did not. Always returns false. */
bool api_null(struct hone_error *out, const char *name);
/* locale_enter; false: *err is filled. */
bool api_enter(struct locale *out, struct error *err);
/* A JSON value as compact text from mem_alloc; NULL values count as out of memory. */
bool api_text(json_t *value, char **out, struct error *err);

#endif
