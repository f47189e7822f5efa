/* A safetensors file of arbitrary bytes: opens or is refused, and its tensors cover it exactly. */
#include <stdlib.h>

#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct safetensors *file;
    struct error err;
    volatile unsigned sum = 0; /* keeps the reads */
    if (!safetensors_open_bytes(&file, data, size, "fuzz", &err)) {
        if (err.code != ERROR_INPUT || !err.what[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct tensor *tensor = safetensors_tensor(file, i);
        if (safetensors_find(file, tensor->name) != tensor) abort();
        for (uint64_t j = 0; j < tensor->bytes; j++) sum += ((const uint8_t *)tensor->data)[j];
        if (i + 1 == safetensors_count(file) && (const uint8_t *)tensor->data + tensor->bytes != data + size)
            abort();
    }
    if (safetensors_metadata(file) && !json_is_object(safetensors_metadata(file))) abort();
    safetensors_close(&file);
    (void)sum;
    return 0;
}
