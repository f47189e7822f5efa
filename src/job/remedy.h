/* What to do about an error whose finder could not say it: a reader of bytes knows what is wrong with them,
 * not where they come from. */
#ifndef HONE_JOB_REMEDY_H
#define HONE_JOB_REMEDY_H

#include "base/error.h"

/* By the part and the code of the error; a text shorter than err->fix, never NULL. */
const char *remedy_for(const struct error *err);

#endif
