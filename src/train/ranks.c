/* A run that several processes of one machine share. Every process reads the same model and data and makes
 * the same steps: it computes the gradients of its part of a step's examples, all add theirs up, and each
 * makes the same update from the same sums, so that what is trained is the same everywhere to the bit. What a
 * step is, and its result but for the rounding of sums, does not depend on how many share it. Rank 0 alone
 * writes files.
 *
 * What one process decides from what it alone sees (a stop, an error, a full disk) is told to all before the
 * next sum, or the others would wait for it. */

#include "base/mem.h"
#include "train/run_internal.h"

static const double join_seconds = 300;

int run_ranks(const struct run *run) { return run->group ? group_size(run->group) : 1; }

bool run_first(const struct run *run) { return run->recipe->rank == 0; }

/* ---- coming together ---- */

/* Whether every process must have the same value: of what makes another result, and of when all meet to
 * measure, to save, or over a number that is not finite. Where rows show the clock, it has been agreed upon.
 */
static bool is_shared(const struct setting *row) {
    static const size_t meetings[] = {offsetof(struct recipe, eval_every),
                                      offsetof(struct recipe, save_every),
                                      offsetof(struct recipe, nan_policy)};
    if (row->uses & USE_INVOKE || row->offset == offsetof(struct recipe, template_clock)) return false;
    for (size_t i = 0; i < sizeof meetings / sizeof *meetings; i++)
        if (row->offset == meetings[i]) return true;
    return row->effect == SETTING_RESULT;
}

static bool digest_shared(const struct run *run, struct digest *out, struct error *err) {
    struct buf facts = {0};
    buf_printf(&facts, "%lld %d %d", (long long)run->plan.steps, (int)run->recipe->resume,
               (int)run->plan.compute);
    for (size_t i = 0; i < recipe_row_count; i++) {
        if (!is_shared(&recipe_rows[i])) continue;
        buf_printf(&facts, "\n%s ", recipe_rows[i].name);
        setting_write(&recipe_rows[i], run->recipe, &facts);
    }
    bool ok = !facts.failed || error_no_memory(err, "train", 0);
    if (ok) digest_bytes(facts.data, facts.size, out);
    buf_release(&facts);
    return ok;
}

/* It may be stopped, or hang, or be at work: who looks at the run can see to it. */
static void tell_waiting(void *user, int rank, double seconds) {
    struct run *run = user;
    char text[96];
    struct error ignored;
    struct events aside = {
        .file = {.fd = -1}, .listen = run->host->event, .user = run->host->user, .step = run->progress.step};
    snprintf(text, sizeof text, "process %d of the run has kept the others waiting for %.0f s", rank,
             seconds);
    events_warn(run->events_open ? &run->events : &aside, text, &ignored);
}

static struct group_options meeting(struct run *run) {
    return (struct group_options){.rank = (int)run->recipe->rank,
                                  .size = (int)run->recipe->world_size,
                                  .place = run->recipe->output,
                                  .patience = join_seconds,
                                  .stop = run->host->stop,
                                  .waits = tell_waiting,
                                  .user = run};
}

bool run_agree_clock(void *user, double *clock, struct error *err) {
    struct run *run = user;
    struct group_options options = meeting(run);
    struct group *group;
    if (options.size == 1 || !options.place) return true;
    digest_bytes("clock", 5, &options.facts);
    bool ok = group_open(&group, &options, err) && group_broadcast(group, clock, sizeof *clock, err);
    group_close(&group);
    return ok;
}

bool run_join(struct run *run, struct error *err) {
    struct group_options options = meeting(run);
    if (options.size == 1) return true;
    return digest_shared(run, &options.facts, err) && group_open(&run->group, &options, err) &&
           (!run->ops->join || run->ops->join(run->device, run->group, &run->device_sums, err));
}

/* ---- agreeing ---- */

bool run_any(struct run *run, bool mine, bool *any, struct error *err) {
    double sum = mine;
    if (run->group && !group_sum_f64(run->group, &sum, 1, err)) return false;
    *any = sum > 0;
    return true;
}

/* An error of one process is everybody's; whose own it is keeps what it knows of it. */
bool run_all_well(struct run *run, bool ok, struct error *err) {
    int size = run_ranks(run);
    if (!run->group) return ok;
    struct error cause;
    double *codes = mem_calloc((size_t)size, sizeof *codes);
    if (!codes) return error_no_memory(err, "train", 0);
    codes[run->recipe->rank] = ok ? 0 : err->code;
    bool told = group_sum_f64(run->group, codes, (size_t)size, &cause);
    int bad = 0;
    while (told && bad < size && codes[bad] == 0) bad++;
    if (ok && !told)
        *err = cause;
    else if (ok && bad < size)
        error_set(err, (enum error_code)(int)codes[bad], "train", "process %d of the run has ended", bad);
    ok = ok && told && bad == size;
    mem_free(codes);
    return ok;
}

bool run_outcome(struct run *run, bool ok, struct error *err) {
    struct error told = {.code = ERROR_NONE};
    if (!run->group) return ok;
    if (!ok && run_first(run)) told = *err;
    if (!group_broadcast(run->group, &told, sizeof told, err)) return false;
    if (told.code == ERROR_NONE) return true;
    *err = told;
    return false;
}

/* ---- sharing a step ---- */

bool run_share(const struct run *run, const uint32_t **chosen, size_t *count, struct arena *arena,
               struct error *err) {
    uint32_t *mine;
    if (!run->group) return true;
    if (!pack_share(&mine, count, run->inputs.train.items, *chosen, *count, (int)run->recipe->rank,
                    run_ranks(run), arena, err))
        return false;
    *chosen = mine;
    return true;
}

static bool sum_row(struct run *run, int row, bool wide, struct error *err) {
    struct engine *engine = &run->programs.engine;
    struct engine_row open;
    if (run->device_sums) return engine->ops->sum(engine->store, row, err);
    if (!engine_row_open(&open, engine, row, true, err)) return false;
    bool ok = wide ? group_sum_f64(run->group, open.data, open.bytes / sizeof(double), err)
                   : group_sum_f32(run->group, open.data, open.bytes / sizeof(float), err);
    ok = ok && engine_row_put(&open, err);
    engine_row_release(&open);
    return ok;
}

bool run_sum(struct run *run, struct error *err) {
    const struct model_state *state = &run->programs.engine.state;
    return !run->group || (sum_row(run, state->loss, true, err) && sum_row(run, state->gradient, false, err));
}

bool run_sum_score(struct run *run, struct score *score, struct error *err) {
    double sums[] = {score->loss * (double)score->supervised, (double)score->supervised,
                     (double)score->tokens, (double)score->examples};
    if (!run->group) return true;
    if (!group_sum_f64(run->group, sums, sizeof sums / sizeof *sums, err)) return false;
    *score = (struct score){.loss = sums[1] > 0 ? sums[0] / sums[1] : 0,
                            .supervised = (size_t)sums[1],
                            .tokens = (size_t)sums[2],
                            .examples = (size_t)sums[3]};
    return true;
}
