/* Sessions of the public API: a model kept ready to answer. */
#include "job/api_internal.h"

bool job_chat(struct job *job, struct error *err) {
    (void)job;
    error_set(err, ERROR_USAGE, "chat", "a conversation is no job");
    return error_fix(err, "Use a session (hone_session_open).");
}
