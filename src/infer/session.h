/* Generation: a model (with an adapter) ready to answer, one prompt or many at once.
 *
 * Knows a model, a device and a renderer; knows no training. A session owns a key-value cache of `slots`
 * sequences; prompts are prefilled in flat runs, then all live sequences take one token a run.
 *
 * Words: slot (a sequence's place in the cache), prefill, decode. */
#ifndef HONE_INFER_SESSION_H
#define HONE_INFER_SESSION_H

#include <stdatomic.h>

#include "infer/sampler.h"
#include "score/batch.h"
#include "score/engine.h"
#include "score/render.h"

struct session_options {
    const char *adapter;   /* PEFT directory, or NULL */
    const char *base_type; /* as --base-type says it; NULL: the adapter's, else as stored */
    const char *device;    /* "auto" */
    int threads;           /* 0: all */
    const char *mask;      /* instruction sets to leave unused, or NULL */
    enum dtype compute;    /* f32, bf16 or f16 */
    bool compute_auto;     /* `compute` is not looked at: as the device likes it, the cache in 16 bits */
    bool fp8;              /* frozen linears */
    bool tf32;             /* round what products in f32 take */
    struct render_options render;
    uint64_t memory; /* bytes that the plan may take; 0: no bound */
};

struct session;

/* Reads model, adapter and template: prompts can be rendered, nothing can be answered yet. */
bool session_open(struct session **out, const char *model_path, const struct session_options *options,
                  struct error *err);
/* How many of `wanted` sequences with room for `context` tokens are best answered at once, each of which
 * holds keys and values. */
int64_t session_slots(const struct session *session, int64_t wanted, int64_t context);
/* Takes the memory for `slots` sequences at once (1 to 64) of at most `context` tokens, prompt and answer
 * together; 0: min(2048, the model's). Once, before session_generate. Errors: ERROR_MEMORY. */
bool session_start(struct session *session, int64_t slots, int64_t context, struct error *err);
void session_close(struct session **session);
const struct model *session_model(const struct session *session);
const struct renderer *session_renderer(const struct session *session);

struct request {
    const int32_t *ids; /* the prompt's tokens */
    size_t count;
    int64_t max_tokens;
    struct sampling sampling;
    /* Called with each piece of text as it becomes whole UTF-8; false stops this request ("stop"). May be
     * NULL. */
    bool (*text)(void *user, const char *piece, size_t size);
    void *user;
};

struct answer {
    struct buf text;
    size_t prompt_tokens, generated_tokens;
    const char *finish_reason; /* "stop" (end token) or "length" */
    double seconds;
};

/* Refuses a prompt that is empty, or leaves no room for an answer in `context` tokens; what session_generate
 * would say, before anything is started. */
bool session_accepts(const struct session *session, const struct request *request, int64_t context,
                     struct error *err);

/* engine_other_base of what it was opened with. */
bool session_other_base(const struct session *session, char out[engine_sentence]);

/* Answers all requests, in order, up to `slots` at a time; answers[i] belongs to requests[i] and is released
 * by buf_release(&answers[i].text). Results do not depend on how many run together, but for
 * rounding on a device whose sums depend on it. Errors: a prompt that
 * does not fit the context (ERROR_INPUT), ERROR_INTERRUPTED. */
bool session_generate(struct session *session, const struct request *requests, struct answer *answers,
                      size_t count, const atomic_int *stop, struct error *err);

#endif
