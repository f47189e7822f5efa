/* What happens when a step yields a number that is not finite: the step is done again from the same bits to
 * name the first operation that made one, the user is told, and --nan-policy is followed. Each policy decides
 * by what a checkpoint holds, so that a run that was killed and goes on decides the same. */
#include <math.h>
#include <stdio.h>

#include "base/fs.h"
#include "train/run_internal.h"

enum {
    most_skipped = 10,  /* steps in a row, then the run ends */
    most_rollbacks = 5, /* of a run; the learning rate is then 1/32 */
};

static const char *const policies[] = {[NAN_STOP] = "stop", [NAN_SKIP] = "skip", [NAN_ROLLBACK] = "rollback"};

static const char *number_name(double number) { return isnan(number) ? "nan" : number > 0 ? "inf" : "-inf"; }

/* What is done about it: the policy, as far as it helps. `broken`: what is trained is lost, no step can
 * follow. */
static enum nan_policy choose(const struct run *run, const struct nonfinite *found, bool broken) {
    const struct progress *p = &run->progress;
    enum nan_policy policy = (enum nan_policy)run->recipe->nan_policy;
    if (found->frozen) return NAN_STOP; /* it would be there again whatever is done */
    if (policy == NAN_SKIP && broken) policy = NAN_ROLLBACK;
    if (policy == NAN_SKIP && p->skipped_in_row >= most_skipped) return NAN_STOP;
    if (policy == NAN_ROLLBACK && p->rollbacks >= most_rollbacks) return NAN_STOP;
    return policy;
}

enum { place_size = 160 };

/* "rows.jsonl:12": where the row of data stands that the number belongs to. "": of none alone. */
static const char *row_place(const struct run *run, const struct nonfinite *found, char out[place_size]) {
    const struct dataset *data = &run->inputs.data;
    char beside[32] = "";
    out[0] = '\0';
    if (found->frozen || found->row < 0 || (size_t)found->row >= data->row_count) return out;
    const struct dataset_row *row = &data->rows[found->row];
    if (row->number) snprintf(beside, sizeof beside, " (row %zu)", row->number);
    snprintf(out, place_size, "%.100s:%zu%s", fs_base_name(data->files[row->file]), row->line, beside);
    return out;
}

static bool tell(struct run *run, const struct nonfinite *found, enum nan_policy action, struct error *err) {
    char place[place_size];
    run->events.step = run->progress.step + 1;
    row_place(run, found, place);
    return events_emit(&run->events, "nonfinite",
                       json_pack("{s:s?, s:s?, s:o, s:s?, s:s?, s:s?, s:o, s:s, s:s}", "operation",
                                 found->operation, "pass", found->operation ? found->pass : NULL, "layer",
                                 found->layer < 0 ? json_null() : json_integer(found->layer), "value",
                                 found->value[0] ? found->value : NULL, "number",
                                 found->operation ? number_name(found->number) : NULL, "cause",
                                 found->cause[0] ? found->cause : NULL, "row",
                                 place[0] ? json_text(place) : json_null(), "policy",
                                 policies[run->recipe->nan_policy], "action", policies[action]),
                       err);
}

/* `elsewhere`: another of the processes that share the run found it. */
static bool explain(const struct run *run, const struct nonfinite *found, bool elsewhere, struct error *err) {
    char layer[32] = "", place[place_size];
    row_place(run, found, place);
    if (!found->operation && elsewhere)
        return error_why(err, "it arose in another process of the run, which says where");
    if (found->layer >= 0) snprintf(layer, sizeof layer, " of layer %d", found->layer);
    if (!found->operation)
        return error_why(err,
                         "done again from the same bits it was finite: memory or processor may be at fault");
    return error_why(err, "the operation %s%s (%s pass, %s) was the first to yield %s%s%s%s%s",
                     found->operation, layer, found->pass, found->value, number_name(found->number),
                     place[0] ? ", for " : "", place, found->cause[0] ? ", and there is one in " : "",
                     found->cause);
}

static bool stop(struct run *run, const struct nonfinite *found, bool elsewhere, bool broken,
                 struct error *err) {
    const struct progress *p = &run->progress;
    error_set(err, ERROR_FAILED, "train", "step %lld made a number that is not finite",
              (long long)p->step + 1);
    explain(run, found, elsewhere, err);
    run->halted = !broken;
    if (found->frozen)
        return error_fix(err,
                         "The model's file is damaged, or its weights overflow in this type: take another.");
    if (run->recipe->compute == COMPUTE_F16 && !broken)
        return error_fix(err,
                         "f16 holds no number above 65,504: go on with --resume --compute bf16, or lower "
                         "--learning-rate.");
    if (p->skipped_in_row >= most_skipped)
        return error_fix(err, "%d steps in a row were skipped: lower --learning-rate.", most_skipped);
    if (p->rollbacks >= most_rollbacks)
        return error_fix(
            err,
            "The run went back %d times, each time to half the rate, and that does not help: mend or "
            "remove %s and begin anew, or begin anew with --nan-policy skip%s.",
            most_rollbacks, found->row < 0 ? "the rows of this step" : "that row",
            broken ? " and a lower --learning-rate" : "");
    return error_fix(
        err, "Lower --learning-rate, look at the rows of this step, or go on with --resume --nan-policy %s.",
        broken ? "rollback" : "skip or rollback");
}

struct nonfinite nonfinite_norm(const char *value, double norm) {
    struct nonfinite found = {.operation = op_row(OP_GRADIENT_NORM)->name,
                              .pass = "update",
                              .layer = -1,
                              .row = -1,
                              .number = norm};
    snprintf(found.value, sizeof found.value, "%s", value);
    return found;
}

static bool go_back(struct run *run, struct error *err) {
    if (!run_all_well(run, run_go_back(run, err), err)) return false;
    const struct progress *p = &run->progress;
    run->events.step = p->step;
    events_restart(&run->events);
    return events_emit(&run->events, "rollback",
                       json_pack("{s:I, s:I, s:f}", "failed_step", (json_int_t)p->failed_step, "tries",
                                 (json_int_t)p->tries, "rate_factor", ldexp(1, -(int)p->rollbacks)),
                       err);
}

bool run_nonfinite(struct run *run, const struct step *step, struct error *err) {
    struct nonfinite found;
    bool broken = isfinite(step->loss) && isfinite(step->norm); /* then it is the state that is not */
    bool named,
        ok = broken ? finite_state(&found, &run->programs.engine, err) : step_replay(run, step, &found, err);
    if (!run_all_well(run, ok, err) || !run_any(run, found.operation != NULL, &named, err) ||
        !run_any(run, found.frozen, &found.frozen, err)) /* what decides must be the same for all */
        return false;
    if (broken && !found.operation && isinf(step->state))
        found = nonfinite_norm("norm of what is trained", (double)step->state);
    enum nan_policy action = choose(run, &found, broken);
    if (!tell(run, &found, action, err)) return false;
    if (action == NAN_STOP) return stop(run, &found, named, broken, err);
    if (action == NAN_ROLLBACK) return go_back(run, err);
    step_count(run, step);
    run->progress.skipped++;
    run->progress.skipped_in_row++;
    return true;
}
