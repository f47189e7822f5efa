/* config.json of a stranger, from which `hone convert --config` draws a model: refused, or within bounds, and
 * the rows that are drawn are finite. */
#include <math.h>
#include <string.h>

#include "fuzz_folder.h"
#include "model/layout.h"
#include "model/model_internal.h"
#include "model/sketch.h"

enum { most_columns = 4096 };

static void draw(const struct sketch *sketch, size_t index) {
    const struct tensor *weight = &sketch->model->weights[index];
    float row[most_columns];
    if (!weight->name) return;
    int64_t columns = weight->rank == 2 ? weight->dim[1] : weight->dim[0];
    require(weight->rank >= 1 && columns > 0 && weight->bytes > 0);
    if (columns > most_columns) return;
    sketch_row(sketch, index, 0, row);
    for (int64_t i = 0; i < columns; i++) require(isfinite(row[i]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct model *model;
    struct sketch sketch;
    struct error err;
    char path[160];
    make_fuzz_folder();
    put_fuzz_file("config.json", data, size);
    snprintf(path, sizeof path, "%s/config.json", fuzz_folder);
    bool ok = sketch_open(&model, path, &err);
    if (ok && sketch_init(&sketch, model, 5, &err)) {
        size_t count = layout_count(&model->config);
        for (size_t i = 0; i < count && i < 64; i++) draw(&sketch, i);
        draw(&sketch, count - 1);
    } else {
        require((err.code == ERROR_INPUT || err.code == ERROR_MEMORY) && err.what[0]);
    }
    model_close(&model);
    return 0;
}
