#include "train/run_log.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/fs.h"
#include "base/mem.h"

enum { most_notes = 1000 }; /* a warning at every step of a long run would fill the memory */

/* An array that has room for one more item; NULL when out of memory, and `items` stays. */
static void *roomy(void *items, size_t *capacity, size_t count, size_t size, struct error *err) {
    size_t larger = *capacity ? *capacity : 32, bytes = 0;
    if (count < *capacity) return items;
    void *moved = checked_size_mul(larger, 2, &larger) && checked_size_mul(larger, size, &bytes)
                      ? mem_realloc(items, bytes)
                      : NULL;
    if (!moved) {
        error_no_memory(err, "run", bytes);
        return NULL;
    }
    *capacity = larger;
    return moved;
}

static double number(const json_t *event, const char *key) {
    return json_number_value(json_object_get(event, key));
}

static void keep_last(json_t **slot, json_t *event) {
    json_decref(*slot);
    *slot = json_incref(event);
}

/* What is measured from here on belongs to the plan that was told last. */
static void begin_sitting(struct run_log *log) {
    if (!log->next_plan) return;
    log->peak_bytes = log->mapped_bytes = 0;
    json_decref(log->plan);
    log->plan = log->next_plan;
    log->next_plan = NULL;
}

static bool add_step(struct run_log *log, const json_t *event, struct error *err) {
    struct run_log_step *items = roomy(log->steps, &log->step_capacity, log->step_count, sizeof *items, err);
    if (!items) return false;
    log->steps = items;
    struct run_log_step step = {.step = json_integer_value(json_object_get(event, "step")),
                                .time = number(event, "time"),
                                .loss = number(event, "loss"),
                                .learning_rate = number(event, "learning_rate"),
                                .gradient_norm = number(event, "gradient_norm"),
                                .tokens = number(event, "tokens"),
                                .tokens_per_second = number(event, "tokens_per_second"),
                                .memory_bytes = number(event, "memory_bytes"),
                                .mapped_bytes = number(event, "mapped_bytes"),
                                .seconds = number(event, "seconds")};
    begin_sitting(log);
    if (step.memory_bytes > log->peak_bytes) log->peak_bytes = step.memory_bytes;
    if (step.mapped_bytes > log->mapped_bytes) log->mapped_bytes = step.mapped_bytes;
    /* A resume went back behind what had been done. */
    while (log->step_count && log->steps[log->step_count - 1].step >= step.step) log->step_count--;
    log->steps[log->step_count++] = step;
    return true;
}

static bool add_eval(struct run_log *log, const json_t *event, struct error *err) {
    struct run_log_eval *items = roomy(log->evals, &log->eval_capacity, log->eval_count, sizeof *items, err);
    if (!items) return false;
    log->evals = items;
    const json_t *loss = json_object_get(event, "loss"); /* null: it was not finite */
    struct run_log_eval eval = {json_integer_value(json_object_get(event, "step")),
                                json_is_null(loss) ? NAN : json_number_value(loss)};
    while (log->eval_count && log->evals[log->eval_count - 1].step >= eval.step) log->eval_count--;
    log->evals[log->eval_count++] = eval;
    return true;
}

static bool add_note(struct run_log *log, json_t *event, struct error *err) {
    if (log->note_count == most_notes) {
        log->notes_left_out++;
        return true;
    }
    struct run_log_note *items = roomy(log->notes, &log->note_capacity, log->note_count, sizeof *items, err);
    if (!items) return false;
    log->notes = items;
    log->notes[log->note_count++] = (struct run_log_note){json_integer_value(json_object_get(event, "step")),
                                                          number(event, "time"), json_incref(event)};
    return true;
}

/* Every process that goes on with a run tells its own plan, also one that has no step left to do. */
static bool take(struct run_log *log, json_t *event, struct error *err) {
    const char *name = json_string_value(json_object_get(event, "event"));
    json_int_t step = json_integer_value(json_object_get(event, "step"));
    if (!name || step < 0 || step > INT32_MAX) {
        log->damaged++;
        return true;
    }
    if (!strcmp(name, "step")) return add_step(log, event, err);
    if (!strcmp(name, "eval")) return add_eval(log, event, err);
    if (!strcmp(name, "plan")) {
        keep_last(log->step_count ? &log->next_plan : &log->plan, event);
        return true;
    }
    if (!strcmp(name, "done")) {
        double memory = number(event, "memory_bytes");
        bool sitting = !log->next_plan; /* else one that had no step left */
        if (sitting && memory > log->peak_bytes) log->peak_bytes = memory;
        keep_last(&log->done, event);
        return true;
    }
    if (!strcmp(name, "checkpoint")) return true;
    if (!strcmp(name, "resume")) keep_last(&log->done, NULL); /* that end was none */
    return add_note(log, event, err);
}

static bool read_lines(struct run_log *log, const struct fs_map *map, const char *path, struct error *err) {
    const char *text = (const char *)map->data, *end = text + map->size;
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        json_t *event = NULL;
        struct error cause;
        log->torn = !line_end;
        if (!line_end) break;
        log->lines++;
        if (json_read(&event, text, (size_t)(line_end - text), path, log->lines, &cause)) {
            bool ok = take(log, event, err);
            json_decref(event);
            if (!ok) return false;
        } else if (cause.code == ERROR_MEMORY) {
            *err = cause;
            return false;
        } else {
            log->damaged++;
        }
        text = line_end + 1;
    }
    if (log->lines > log->damaged) return true;
    error_set(err, ERROR_INPUT, "run", "%s holds no event", path);
    return error_fix(err, "Name the directory of a run that has begun.");
}

bool run_log_open(struct run_log *out, const char *directory, struct error *err) {
    struct fs_map map;
    memset(out, 0, sizeof *out);
    char *path = fs_join(directory, "events.jsonl");
    if (!path) return error_no_memory(err, "run", 0);
    bool ok = false;
    if (fs_kind_of(path) == FS_NOTHING) {
        error_set(err, ERROR_INPUT, "run", "%s is not the directory of a run: it has no events.jsonl",
                  directory);
        error_fix(err, "Name a directory that hone train wrote: its --output.");
    } else if (fs_map_open(&map, path, err)) {
        ok = read_lines(out, &map, path, err);
        fs_map_close(&map);
    }
    mem_free(path);
    if (!ok) run_log_close(out);
    return ok;
}

void run_log_close(struct run_log *log) {
    for (size_t i = 0; i < log->note_count; i++) json_decref(log->notes[i].event);
    mem_free(log->steps);
    mem_free(log->evals);
    mem_free(log->notes);
    json_decref(log->plan);
    json_decref(log->next_plan);
    json_decref(log->done);
    memset(log, 0, sizeof *log);
}
