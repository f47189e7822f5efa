/* The list of devices, best first after "auto" is asked for. Modules loaded at run time will add theirs here.
 */
#include <string.h>

#include "device/device.h"

extern const struct device_ops device_cpu, device_ref;

static const struct device_ops *const devices[] = {&device_cpu, &device_ref};
enum { devices_count = sizeof devices / sizeof *devices };

size_t device_count(void) { return devices_count; }

const struct device_ops *device_at(size_t index) { return index < devices_count ? devices[index] : NULL; }

const struct device_ops *device_find(const char *name, struct error *err) {
    if (!strcmp(name, "auto")) return devices[0];
    for (size_t i = 0; i < devices_count; i++)
        if (!strcmp(devices[i]->name, name)) return devices[i];
    error_set(err, ERROR_USAGE, "device", "there is no device \"%s\"", name);
    error_fix(err, "Take --device auto, cpu or ref.");
    return NULL;
}
