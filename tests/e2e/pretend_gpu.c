/* The processor under the name of a GPU: a module for tests of what a run does with a device that has memory
 * of its own, and with one that is lost.
 *
 *   PRETEND_MIB=N      so much memory is free on it (1024)
 *   PRETEND_FAIL=N     the N-th run of a program fails, as does all that follows */
#include <stdlib.h>

#include "device/device.h"

extern const struct device_ops device_cpu;
__attribute__((visibility("default"))) struct device_ops hone_device;

enum { context_mib = 64 };
static int runs;

static int setting(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? (int)strtol(text, NULL, 10) : otherwise;
}

static bool memory(struct device *device, struct device_memory *out, struct error *err) {
    (void)device;
    (void)err;
    uint64_t available = (uint64_t)setting("PRETEND_MIB", 1024) << 20, context = (uint64_t)context_mib << 20;
    *out = (struct device_memory){
        .total = available + context, .available = available, .held = context, .context = context};
    return true;
}

static bool is_lost(struct error *err) {
    int fail = setting("PRETEND_FAIL", 0);
    if (!fail || runs < fail) return false;
    error_set(err, ERROR_FAILED, "cuda", "cannot run: the GPU is lost");
    return true;
}

static bool run(struct program *program, const struct binding *binding, struct error *err) {
    runs++;
    return !is_lost(err) && device_cpu.run(program, binding, err);
}

static bool download(struct store *store, int row, void *data, size_t bytes, struct error *err) {
    return !is_lost(err) && device_cpu.download(store, row, data, bytes, err);
}

static bool read_value(struct program *program, int value, void *data, size_t bytes, struct error *err) {
    return !is_lost(err) && device_cpu.read(program, value, data, bytes, err);
}

__attribute__((constructor)) static void fill(void) {
    hone_device = device_cpu;
    hone_device.name = "cuda";
    hone_device.memory = memory;
    hone_device.run = run;
    hone_device.download = download;
    hone_device.read = read_value;
    hone_device.row = NULL; /* the host cannot look into it */
}
