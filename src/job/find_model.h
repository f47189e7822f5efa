/* From the name of a model to its path, for every job that reads one. */
#ifndef HONE_JOB_FIND_MODEL_H
#define HONE_JOB_FIND_MODEL_H

#include "job/job.h"

enum { find_model_sentence = 700 };

/* A store name, or a path, to a path that exists; from mem_alloc. A name whose model is another one than
 * `hone pull` recorded is told as a warning of the job, and in `note` where it is not NULL ("": nothing). */
bool job_find_model(struct job *job, const char *name_or_path, char **out, char note[find_model_sentence],
                    struct error *err);

#endif
