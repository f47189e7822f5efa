/* adapter_config.json of arbitrary text: read or refused, and what is read is in range. */
#include <math.h>
#include <stdlib.h>

#include "format/peft_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct peft_config config;
    struct arena arena = {0};
    struct error err;
    json_t *json;
    bool ok = json_read(&json, (const char *)data, size, "fuzz", 1, &err) &&
              peft_read_config(&config, json, "fuzz", &arena, &err);
    if (!ok && (err.code != ERROR_INPUT || !err.what[0])) abort();
    if (ok && (config.rank < 1 || !isfinite(config.alpha) || !(config.dropout >= 0 && config.dropout < 1)))
        abort();
    json_decref(json);
    arena_release(&arena);
    return 0;
}
