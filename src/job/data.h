/* Facts about data files that the data jobs share. */
#ifndef HONE_JOB_DATA_H
#define HONE_JOB_DATA_H

#include "job/job.h"
#include "text/dataset.h"

/* --data (or --valid), every bad row kept as a problem. Errors: ERROR_USAGE when none is named, and
 * dataset_open's. */
bool data_open(struct dataset *out, struct job *job, const struct text_list *files, struct error *err);
/* files, container, layout, evidence, rows, bad_rows, problems [{file, line, cause}], digest. NULL: out of
 * memory. */
json_t *data_describe(const struct dataset *data);

#endif
