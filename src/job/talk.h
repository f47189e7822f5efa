/* What `hone generate` and sessions of the public API share: opening, requests, answers. */
#ifndef HONE_JOB_TALK_H
#define HONE_JOB_TALK_H

#include "infer/session.h"
#include "job/find_model.h"
#include "job/job.h"

/* A session with the job's model, adapter, template and machine settings; its memory is still to be taken
 * (session_start). `note`: of its name, find_model.h; may be NULL. */
bool talk_open(struct session **out, struct job *job, char note[find_model_sentence], struct error *err);

/* What the user should know of the job's settings beside this model; false: nothing. */
enum { talk_warning_size = 400 };
bool talk_warning(const struct session *session, const struct job *job, char out[talk_warning_size]);

/* One conversation, tokenised. */
struct talk {
    struct tokens tokens;
    json_t *messages, *tools; /* tools may be NULL */
};
/* A text becomes one user turn. */
bool talk_prompt(struct talk *out, const char *prompt, struct error *err);
/* An array of messages, or an object with `messages` or `prompt`, and perhaps `tools`. `name` stands in
 * errors, after which `out` holds nothing. */
bool talk_value(struct talk *out, const json_t *value, const char *name, struct error *err);
void talk_release(struct talk *talk);
/* Renders and tokenises; the request borrows the tokens. */
bool talk_request(struct talk *talk, struct session *session, const struct job *job, struct request *out,
                  struct error *err);

/* {"text","prompt_tokens","generated_tokens","finish_reason","seconds"}; NULL: out of memory. */
json_t *talk_answer(const struct answer *answer);

#endif
