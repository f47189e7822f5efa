/* Measuring: the held-out loss of a model, with or without an adapter, on a data set. */
#ifndef HONE_EVAL_EVAL_H
#define HONE_EVAL_EVAL_H

#include <stdatomic.h>

#include "base/json.h"
#include "score/render.h"
#include "text/dataset.h"

struct eval_options {
    const char *model_path, *adapter; /* adapter NULL: none */
    const char *base_type;            /* as --base-type says it; NULL: the adapter's, else as stored */
    const char *device, *mask;
    int threads;
    enum dtype compute;
    bool fp8;                     /* frozen linears */
    bool tf32;                    /* round what products in f32 take */
    bool compute_auto;            /* as training decides; `compute` is not looked at */
    int64_t micro_batch_tokens;   /* 0: 512, or the longest example */
    uint64_t memory;              /* 0: no bound */
    struct render_options render; /* max_length 0: min(2048, the model's context) */
    const char *const *files;
    size_t file_count;
    const char *columns;
    bool skip_bad_rows;
    const atomic_int *stop;
    void (*progress)(void *user, size_t done, size_t all); /* may be NULL */
    void (*warn)(void *user, const char *message);         /* the same */
    void *user;
};

/* {"loss","perplexity","supervised_tokens","examples","tokens","bad_rows","problems":[…] (the first hundred,
 * as text/report.h has them),"seconds"}. */
bool eval_run(const struct eval_options *options, json_t **result, struct error *err);

#endif
