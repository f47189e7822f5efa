#include "model/base_type.h"

#include <string.h>

#include "base/text.h"

static const char as_stored[] = "as-stored", qlora_type[] = "nf4";

static bool is_linear(enum weight_role role) {
    for (int m = 0; m < module_count; m++)
        if (modules[m].role == role) return true;
    return false;
}

bool base_type_takes(enum weight_role role, const struct tensor *weight) {
    return weight->rank == 2 && is_linear(role) && !dtype_row(weight->dtype)->quantised;
}

/* The first linear that is float, or quantised; NULL: there is none. */
static const struct tensor *first_linear(const struct model *model, bool quantised) {
    for (int64_t layer = 0; layer < model->config.layers; layer++)
        for (int m = 0; m < module_count; m++) {
            const struct tensor *weight = model_weight(model, modules[m].role, layer);
            if (weight && dtype_row(weight->dtype)->quantised == quantised) return weight;
        }
    return NULL;
}

static bool check_rows(const struct model *model, enum dtype dtype, struct error *err) {
    const struct dtype_row *row = dtype_row(dtype);
    for (int64_t layer = 0; layer < model->config.layers; layer++)
        for (int m = 0; m < module_count; m++) {
            const struct tensor *weight = model_weight(model, modules[m].role, layer);
            if (!weight || !base_type_takes(modules[m].role, weight) ||
                weight->dim[1] % (int64_t)row->block == 0)
                continue;
            error_set(err, ERROR_USAGE, "model", "--base-type %s does not fit the tensor %s", row->name,
                      weight->name);
            error_why(err, "its rows have %lld %s, which blocks of %u do not divide",
                      (long long)weight->dim[1], text_plural((uint64_t)weight->dim[1], "element", "elements"),
                      row->block);
            return error_fix(err, "Choose a type with smaller blocks; int8 takes rows of any length.");
        }
    return true;
}

static bool named(struct base_choice *out, const struct model *model, const char *name, const char *from,
                  struct error *err) {
    if (!dtype_quantised_from_name(name, from, &out->dtype, err)) return false;
    const struct tensor *stored = first_linear(model, true);
    out->name = dtype_row(out->dtype)->name;
    if (first_linear(model, false)) return check_rows(model, out->dtype, err);
    if (!stored || stored->dtype == out->dtype) return true;
    error_set(err, ERROR_USAGE, "model", "--base-type %s needs float weights", name);
    error_why(err, "%s is quantised already: %s is %s", model->path, stored->name,
              dtype_row(stored->dtype)->name);
    return error_fix(err, "Leave --base-type out, or name the model that the file was made from.");
}

bool base_type_choose(struct base_choice *out, const struct model *model, const struct base_wish *wish,
                      struct error *err) {
    const struct tensor *quantised = first_linear(model, true), *plain = first_linear(model, false);
    *out = (struct base_choice){.dtype = DTYPE_F32, .name = as_stored};
    if (wish->name && strcmp(wish->name, as_stored)) return named(out, model, wish->name, "--base-type", err);
    if (wish->name && (!wish->quantised || quantised)) return true;
    if (wish->name) {
        error_set(err, ERROR_USAGE, "train", "--method qlora needs a quantised base");
        error_why(err, "%s is stored in %s", model->path,
                  plain ? dtype_row(plain->dtype)->name : "no layers");
        return error_fix(err, "Leave --base-type out, which means nf4 then, or choose --method lora.");
    }
    const char *adapter = plain ? wish->adapter : NULL,
               *own = wish->quantised && !quantised ? qlora_type : NULL;
    out->reason = adapter     ? "of --adapter"
                  : own       ? "--method qlora on float weights"
                  : quantised ? "the file is quantised"
                              : "the weights' own type";
    if (!adapter && !own) return true;
    return named(out, model, adapter ? adapter : own, adapter ? "the adapter's base" : "--method qlora", err);
}
