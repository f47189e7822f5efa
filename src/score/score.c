#include "score/score.h"

#include <string.h>

#include "base/mem.h"

bool score_examples(struct score *out, struct engine *engine, struct engine_program *program,
                    struct batch *batch, const struct example *examples, size_t count, const atomic_int *stop,
                    void (*progress)(void *user, size_t done, size_t all), void *user, struct error *err) {
    memset(out, 0, sizeof *out);
    float *logp = mem_array((size_t)batch->capacity, sizeof *logp);
    if (!logp) return error_no_memory(err, "score", (size_t)batch->capacity * sizeof *logp);
    double sum = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < count;) {
        batch_clear(batch);
        for (; i < count && batch_fits(batch, &examples[i]); i++) {
            batch_add(batch, &examples[i], 0);
            out->tokens += examples[i].count;
            out->examples++;
        }
        if (!batch->binding.segments) {
            ok = error_set(err, ERROR_INTERNAL, "score", "an example of %u tokens was not planned for",
                           examples[i].count);
            break;
        }
        batch->binding.stop = stop;
        batch->binding.leave = NULL;
        if (!batch->binding.targets) continue;
        ok = engine->ops->run(program->program, &batch->binding, err) &&
             engine->ops->read(program->program, program->built.logp, logp,
                               (size_t)batch->binding.targets * sizeof *logp, err);
        for (int64_t m = 0; ok && m < batch->binding.targets; m++) sum -= (double)logp[m];
        out->supervised += (size_t)batch->binding.targets;
        if (ok && progress) progress(user, i, count);
    }
    mem_free(logp);
    out->loss = out->supervised ? sum / (double)out->supervised : 0;
    return ok;
}
