/* `hone bench`: the rates of `doctor --measure`, and how fast a model answers beside them. */
#include "job/bench.h"

#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "job/talk.h"

enum { repeats = 3 };

/* Ids that no tokenizer is asked for: what they mean does not change the time. */
static int32_t *some_ids(size_t count, int64_t vocabulary) {
    int32_t *ids = mem_array(count, sizeof *ids);
    for (size_t i = 0; ids && i < count; i++) ids[i] = (int32_t)((int64_t)(i * 7919 + 101) % vocabulary);
    return ids;
}

/* Seconds of the fastest of a few answers of at most `max_tokens`; *generated is how many it had. */
static bool time_answer(struct job *job, struct session *session, const int32_t *ids, size_t count,
                        int64_t max_tokens, double *seconds, size_t *generated, struct error *err) {
    struct request request = {.ids = ids,
                              .count = count,
                              .max_tokens = max_tokens,
                              .sampling = {.top_p = 1, .repetition_penalty = 1}};
    *seconds = 1e30;
    for (int i = 0; i < repeats; i++) {
        struct answer answer;
        double start = clock_seconds();
        if (!session_generate(session, &request, &answer, 1, &job->stop, err)) return false;
        double taken = clock_seconds() - start;
        *generated = answer.generated_tokens;
        buf_release(&answer.text);
        if (taken < *seconds) *seconds = taken;
    }
    return true;
}

/* Prefill is an answer of one token; what more tokens take beyond it is decoding. */
static bool measure_answers(struct job *job, json_t **out, struct error *err) {
    size_t prompt = (size_t)job->options.prompt_tokens, one, many;
    double prefill, whole;
    struct session *session;
    if (!talk_open(&session, job, NULL, err)) return false;
    const struct model *model = session_model(session);
    int32_t *ids = some_ids(prompt, model->config.vocabulary);
    bool ok = (ids || error_no_memory(err, "bench", prompt * sizeof *ids)) &&
              session_start(session, 1, (int64_t)prompt + job->options.max_tokens + 1, err);
    ok = ok && time_answer(job, session, ids, prompt, 1, &prefill, &one, err) &&
         time_answer(job, session, ids, prompt, job->options.max_tokens, &whole, &many, err);
    if (ok) {
        uint64_t bytes = model_token_bytes(model);
        double decode = many > one && whole > prefill ? (double)(many - one) / (whole - prefill) : 0;
        *out = json_pack("{s:I, s:f, s:I, s:f, s:I, s:f}", "prompt_tokens", (json_int_t)prompt,
                         "prefill_tokens_per_second", (double)prompt / prefill, "generated_tokens",
                         (json_int_t)many, "decode_tokens_per_second", decode, "weight_bytes",
                         (json_int_t)bytes, "decode_bytes_per_second", decode * (double)bytes);
        ok = *out || error_no_memory(err, "bench", 0);
    }
    mem_free(ids);
    session_close(&session);
    return ok;
}

bool job_bench(struct job *job, struct error *err) {
    struct device *device = NULL;
    json_t *rates = NULL, *answers = NULL;
    const struct device_ops *ops = device_find(recipe_device_name(&job->recipe), err);
    bool ok = ops && bench_device(job, ops, &device, err) && bench_rates(job, ops, device, &rates, err);
    if (device) ops->close(&device); /* its threads must not stand beside the session's */
    if (ok && job->recipe.model) ok = job_going(job, err) && measure_answers(job, &answers, err);
    if (ok) {
        job->result =
            json_pack("{s:s, s:O, s:O*}", "device", ops->name, "rates", rates, "generation", answers);
        ok = job->result || error_no_memory(err, "bench", 0);
    }
    json_decref(rates);
    json_decref(answers);
    return ok;
}
