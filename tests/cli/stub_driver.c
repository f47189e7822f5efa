/* A libcuda.so.1 of the version STUB_VERSION that finds no GPU: as much of NVIDIA's driver as the CUDA
 * runtime asks before it gives up. */
#include <string.h>

enum { success = 0, no_device = 100, not_supported = 801 }; /* CUresult */

int cuDriverGetVersion(int *version);
int cuInit(unsigned flags);
int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status);
int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags);

int cuDriverGetVersion(int *version) {
    *version = STUB_VERSION;
    return success;
}

int cuInit(unsigned flags) {
    (void)flags;
    return no_device;
}

static int refuse(void) { return not_supported; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags,
                        int *status) {
    static const struct {
        const char *name;
        void (*function)(void);
    } rows[] = {{"cuDriverGetVersion", (void (*)(void))cuDriverGetVersion},
                {"cuInit", (void (*)(void))cuInit},
                {"cuGetProcAddress", (void (*)(void))cuGetProcAddress_v2}};
    void (*found)(void) = (void (*)(void))refuse;
    (void)version;
    (void)flags;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(name, rows[i].name)) found = rows[i].function;
    memcpy(function, &found, sizeof found);
    if (status) *status = 0;
    return success;
}

int cuGetProcAddress(const char *name, void **function, int version, unsigned long long flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
