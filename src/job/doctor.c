/* `hone doctor`: what this machine is, which kernels it selects and why, and, with --measure, the rates that
 * estimates use. */
#include <stdio.h>
#include <string.h>

#include "base/machine.h"
#include "base/mem.h"
#include "base/process.h"
#include "base/thread.h"
#include "device/device.h"
#include "job/bench.h"
#include "job/job.h"
#include "job/store.h"

/* "512x576x1536" → m, n, k. */
static bool parse_shape(const char *text, int64_t shape[3], struct error *err) {
    long long m, n, k;
    int used = 0;
    if (strlen(text) < 40 && sscanf(text, "%lldx%lldx%lld%n", &m, &n, &k, &used) == 3 && !text[used] &&
        m > 0 && n > 0 && k > 0 && m <= 1 << 20 && n <= 1 << 20 && k <= 1 << 20) {
        shape[0] = m;
        shape[1] = n;
        shape[2] = k;
        return true;
    }
    error_set(err, ERROR_USAGE, "settings", "shapes: \"%.60s\" is not a shape", text);
    return error_fix(err, "Write m, n and k as 512x576x1536, each between 1 and 1048576.");
}

bool bench_shapes(struct job *job, int64_t (*out)[3], int *count, struct error *err) {
    const struct text_list *list = &job->options.shapes;
    if (list->count > bench_most_shapes)
        return error_set(err, ERROR_USAGE, "settings", "shapes: at most %d can be measured at once",
                         bench_most_shapes);
    for (size_t i = 0; i < list->count; i++)
        if (!parse_shape(list->items[i], out[i], err)) return false;
    *count = (int)list->count;
    return true;
}

bool bench_rates(struct job *job, const struct device_ops *ops, struct device *device, json_t **out,
                 struct error *err) {
    int64_t shapes[bench_most_shapes][3];
    int count;
    return bench_shapes(job, shapes, &count, err) &&
           ops->measure(device, NULL, (const int64_t(*)[3])shapes, count, 0, out, err);
}

bool bench_device(struct job *job, const struct device_ops *ops, struct device **out, struct error *err) {
    char *mask = NULL;
    if (!recipe_mask(&job->recipe, &mask, err)) return false;
    struct device_options options = {.name = recipe_device_name(&job->recipe),
                                     .threads = (int)job->recipe.threads,
                                     .mask = mask,
                                     .tf32 = job->recipe.compute == COMPUTE_TF32};
    bool ok = device_open(ops, out, &options, err);
    mem_free(mask);
    return ok;
}

static json_t *memory_facts(void) {
    uint64_t limit = process_memory_limit();
    return json_pack("{s:I, s:I, s:I}", "total_bytes", (json_int_t)process_memory_total(), "available_bytes",
                     (json_int_t)process_memory_available(), "limit_bytes",
                     (json_int_t)(limit == UINT64_MAX ? 0 : limit));
}

/* One device: its description, or why it cannot be opened. */
static bool device_facts(struct job *job, const char *name, json_t **out, struct error *err) {
    struct device *device = NULL;
    struct error cause;
    /* The reference has no rates worth knowing. */
    bool measured = job->options.measure && strcmp(name, "ref") != 0;
    const struct device_ops *ops = device_find(name, &cause);
    *out = NULL;
    if (!ops || !bench_device(job, ops, &device, &cause)) {
        if (cause.code == ERROR_USAGE) {
            *err = cause;
            return false;
        }
        *out = json_pack("{s:s, s:s, s:s, s:s}", "name", name, "why_not", cause.what, "why", cause.why, "fix",
                         cause.fix);
        return *out || error_no_memory(err, "doctor", 0);
    }
    json_t *rates = NULL;
    bool ok = ops->describe(device, out, err);
    if (ok && measured && (ok = bench_rates(job, ops, device, &rates, err)))
        ok = json_object_set_new(*out, "rates", rates) == 0 || error_no_memory(err, "doctor", 0);
    ops->close(&device);
    if (ok) return true;
    json_decref(*out);
    *out = NULL;
    return false;
}

/* Every device, or the one that --device names. */
static bool all_devices(struct job *job, json_t *devices, struct error *err) {
    const char *only = recipe_device_name(&job->recipe), *name;
    bool every = !strcmp(only, "auto"), ok = true;
    for (size_t i = 0; ok && (name = device_name_at(i)) && (every || !i); i++) {
        json_t *one = NULL;
        ok = job_going(job, err) && device_facts(job, every ? name : only, &one, err);
        if (ok) ok = json_array_append_new(devices, one) == 0 || error_no_memory(err, "doctor", 0);
    }
    return ok;
}

bool job_doctor(struct job *job, struct error *err) {
    struct machine machine;
    struct error no_store;
    char *store = NULL;
    struct settings settings = options_settings(&job->options);
    if (settings.states[settings_find(&settings, "shapes", USE_DOCTOR)].origin == ORIGIN_GIVEN &&
        !job->options.measure) {
        error_set(err, ERROR_USAGE, "doctor", "--shapes is read with --measure alone");
        return error_fix(err, "Add --measure, or leave --shapes out.");
    }
    machine_describe(&machine);
    if (!store_directory(&store, &no_store)) store = NULL;
    json_t *devices = json_array();
    int64_t shapes[bench_most_shapes][3];
    int count;
    bool ok = devices || error_no_memory(err, "doctor", 0);
    ok = ok && bench_shapes(job, shapes, &count, err); /* refused before anything is measured */
    ok = ok && all_devices(job, devices, err);
    if (ok) {
        job->result = json_pack("{s:s, s:s, s:s, s:i, s:i, s:o, s:O}", "version", HONE_VERSION, "system",
                                machine.system, "cpu", machine.cpu, "cores", machine.cores, "usable_cores",
                                thread_cores(), "memory", memory_facts(), "devices", devices);
        if (job->result && store) json_object_put(&job->result, "store", json_text(store));
        ok = job->result || error_no_memory(err, "doctor", 0);
    }
    mem_free(store);
    json_decref(devices);
    return ok;
}
