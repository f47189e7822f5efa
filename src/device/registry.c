/* The list of devices. What is not part of this program is a module, loaded when it is asked for. */
#include <string.h>

#include "device/device.h"
#include "device/module.h"

extern const struct device_ops device_cpu, device_ref;

static const struct {
    const char *name;
    const struct device_ops *ops; /* NULL: a module */
    bool numbered;                /* there may be several: "cuda:1" */
} devices[] = {{"cpu", &device_cpu, false}, {"ref", &device_ref, false}, {"cuda", NULL, true}};
enum { devices_count = sizeof devices / sizeof *devices };

const char *device_name_at(size_t index) { return index < devices_count ? devices[index].name : NULL; }

/* True for ":0" to ":9999". */
static bool is_number(const char *text) {
    size_t digits = strspn(text + 1, "0123456789");
    return *text == ':' && digits > 0 && digits < 5 && !text[1 + digits];
}

static bool is_named(size_t i, const char *name) {
    size_t length = strlen(devices[i].name);
    return !strncmp(name, devices[i].name, length) &&
           (!name[length] || (devices[i].numbered && is_number(name + length)));
}

static const struct device_ops *device_auto(void) {
    struct error ignored;
    for (size_t i = 0; i < devices_count; i++) {
        const struct device_ops *ops = devices[i].ops ? NULL : device_module(devices[i].name, &ignored);
        if (ops && (!ops->present || ops->present(&ignored))) return ops;
    }
    return devices[0].ops;
}

bool device_open(const struct device_ops *ops, struct device **out, const struct device_options *options,
                 struct error *err) {
    *out = NULL;
    if (!options->tf32 || ops->tf32) return ops->open(out, options, err);
    error_set(err, ERROR_USAGE, ops->name, "this device has no products in TF32");
    return error_fix(err, "Take --compute f32; tf32 is for NVIDIA's GPUs.");
}

const struct device_ops *device_find(const char *name, struct error *err) {
    if (!strcmp(name, "auto")) return device_auto();
    for (size_t i = 0; i < devices_count; i++)
        if (is_named(i, name)) return devices[i].ops ? devices[i].ops : device_module(devices[i].name, err);
    error_set(err, ERROR_USAGE, "device", "there is no device \"%s\"", name);
    error_fix(err, strchr(name, ',') ? "Take one device: several are for hone train and hone plan."
                                     : "Take --device auto, cpu, cuda, cuda:1 (the second GPU) or ref.");
    return NULL;
}
