/* A directory of a stranger whose weights bitsandbytes or MLX quantised: each weight is put together and its
 * first and last blocks are decoded, or it is refused.
 *
 * Input: config.json, "\n====\n", the JSON header of model.safetensors, "\n====\n", its data. */
#include <string.h>

#include "base/arena.h"
#include "format/hub.h"
#include "fuzz_folder.h"
#include "tensor/stored.h"

static const char divider[] = "\n====\n";

struct part {
    const char *data;
    size_t size;
};

static struct part next(struct part *rest) {
    const char *end = memmem(rest->data, rest->size, divider, sizeof divider - 1);
    struct part part = {rest->data, end ? (size_t)(end - rest->data) : rest->size};
    size_t passed = end ? part.size + sizeof divider - 1 : part.size;
    rest->data += passed;
    rest->size -= passed;
    return part;
}

static void put_weights(struct part header, struct part data) {
    char path[160];
    const uint64_t size = header.size;
    snprintf(path, sizeof path, "%s/model.safetensors", fuzz_folder);
    FILE *file = fopen(path, "wb");
    require(file && fwrite(&size, sizeof size, 1, file) == 1);
    require(fwrite(header.data, 1, header.size, file) == header.size);
    require(fwrite(data.data, 1, data.size, file) == data.size && fclose(file) == 0);
}

/* Sizes that agreed are within the file, whatever they are. */
static void decode(const struct tensor *tensor) {
    float numbers[256];
    int64_t block = dtype_row(tensor->dtype)->block;
    if (tensor->rank != 2 || tensor->dim[0] < 1 || tensor->dim[1] < 1 || block > 256) return;
    if (tensor->dtype == DTYPE_I8 || tensor->dtype == DTYPE_U8 || tensor->dtype == DTYPE_U32 ||
        tensor->dtype == DTYPE_I32 || tensor->dtype == DTYPE_F64)
        return; /* no weights */
    const struct stored stored = stored_of(tensor);
    int64_t count = tensor->dim[1] < block ? tensor->dim[1] : block;
    int64_t last = (tensor->dim[1] - 1) / block * block;
    stored_decode(&stored, 0, 0, count, numbers);
    stored_decode(&stored, tensor->dim[0] - 1, last, tensor->dim[1] - last, numbers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct part rest = {(const char *)data, size};
    struct part config = next(&rest), header = next(&rest);
    struct hub *hub;
    struct error err;
    make_fuzz_folder();
    put_fuzz_file("config.json", config.data, config.size);
    put_weights(header, rest);
    bool opened = hub_open(&hub, fuzz_folder, &err);
    require(opened || (err.code == ERROR_INPUT && err.what[0]));
    for (size_t i = 0; opened && i < hub_tensor_count(hub); i++) {
        struct tensor tensor;
        bool found;
        const char *name = hub_tensor(hub, i)->name;
        bool ok = hub_find_weight(hub, name, &tensor, &found, &err);
        require(ok ? found : err.code == ERROR_INPUT && err.what[0]);
        if (ok) decode(&tensor);
    }
    hub_close(&hub);
    return 0;
}
