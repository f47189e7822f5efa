/* A run's events.jsonl read back: for reports, and to set what was measured beside what was planned. Works on
 * a run that is still being written, and on one that broke off: a torn last line is left out. */
#ifndef HONE_TRAIN_RUN_LOG_H
#define HONE_TRAIN_RUN_LOG_H

#include "base/json.h"

struct run_log_step {
    int64_t step;
    double time, loss, learning_rate, gradient_norm, tokens, tokens_per_second, memory_bytes, mapped_bytes,
        seconds;
};

struct run_log_eval {
    int64_t step;
    double loss;
};

/* What is told in words: warnings, resumes, and what later versions tell. */
struct run_log_note {
    int64_t step;
    double time;
    json_t *event;
};

struct run_log {
    /* In the order of steps; of a step that was done twice only the later line. */
    struct run_log_step *steps;
    struct run_log_eval *evals;
    struct run_log_note *notes;
    size_t step_count, step_capacity, eval_count, eval_capacity, note_count, note_capacity;
    json_t *done;          /* the last event of that kind, or NULL */
    json_t *plan;          /* the last one that steps follow; before the first step the last; or NULL */
    json_t *next_plan;     /* one that no step follows yet, or NULL */
    double peak_bytes;     /* the most that any step told since `plan`; 0: nobody did */
    double mapped_bytes;   /* the same of pages of mapped files */
    size_t notes_left_out; /* beyond the first thousand */
    size_t lines, damaged; /* damaged: lines that are no event */
    bool torn;             /* the last line has no end */
};

/* Errors: ERROR_INPUT when DIRECTORY/events.jsonl cannot be read or holds no event. */
bool run_log_open(struct run_log *out, const char *directory, struct error *err);
void run_log_close(struct run_log *log);

#endif
