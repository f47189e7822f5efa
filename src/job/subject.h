/* What many jobs open first: the model that is named, and the template that it speaks with. */
#ifndef HONE_JOB_SUBJECT_H
#define HONE_JOB_SUBJECT_H

#include "job/job.h"
#include "score/render.h"

struct subject {
    char *path; /* the store's names are resolved */
    struct model *model;
    struct render render;
};

/* --model, --adapter (its template only), --chat-template, --template-arg, --system and the text settings.
 * max-length `auto` becomes min(2048, context), with the reason in the recipe. */
bool subject_open(struct subject *out, struct job *job, struct error *err);
void subject_close(struct subject *subject);

#endif
