/* Settings that only some choices of another setting read. */
#include "train/recipe_owned.h"

#include <string.h>

#include "model/method.h"
#include "model/optimizer.h"

enum { of_adapters = 1u << TUNING_LORA | 1u << TUNING_QLORA | 1u << TUNING_DORA };
/* Muon moves what is no hidden matrix as AdamW does. */
enum { of_adam = 1u << OPTIMIZER_ADAMW | 1u << OPTIMIZER_ADAMW8BIT | 1u << OPTIMIZER_MUON };
enum { of_blocks = 1u << RECOMPUTE_AUTO | 1u << RECOMPUTE_BLOCK | 1u << RECOMPUTE_OFFLOAD };
enum owner { BY_METHOD, BY_OPTIMIZER, BY_SCHEDULE, BY_INIT, BY_RECOMPUTE };

static const struct {
    const char *name;
    size_t slot; /* int */
} owners[] = {[BY_METHOD] = {"method", offsetof(struct recipe, method)},
              [BY_OPTIMIZER] = {"optimizer", offsetof(struct recipe, optimizer)},
              [BY_SCHEDULE] = {"schedule", offsetof(struct recipe, schedule)},
              [BY_INIT] = {"lora-init", offsetof(struct recipe, lora_init)},
              [BY_RECOMPUTE] = {"recompute", offsetof(struct recipe, recompute)}};

static const struct {
    const char *name;
    enum owner owner;
    unsigned choices; /* of the owner: a bit for each that reads it */
} rows[] = {
    {"adapter", BY_METHOD, of_adapters},
    {"lora-rank", BY_METHOD, of_adapters},
    {"lora-alpha", BY_METHOD, of_adapters},
    {"lora-dropout", BY_METHOD, of_adapters},
    {"lora-targets", BY_METHOD, of_adapters},
    {"lora-rank-pattern", BY_METHOD, of_adapters},
    {"lora-alpha-pattern", BY_METHOD, of_adapters},
    {"lora-layers", BY_METHOD, of_adapters},
    {"lora-rslora", BY_METHOD, of_adapters},
    {"lora-init", BY_METHOD, of_adapters},
    {"modules-to-save", BY_METHOD, of_adapters},
    {"loraplus-ratio", BY_METHOD, of_adapters},
    {"lora-init-steps", BY_INIT, 1u << METHOD_INIT_PISSA},
    {"base-type", BY_METHOD, of_adapters},
    {"freeze", BY_METHOD, 1u << TUNING_FULL},
    {"adam-beta1", BY_OPTIMIZER, of_adam},
    {"adam-beta2", BY_OPTIMIZER, of_adam},
    {"adam-epsilon", BY_OPTIMIZER, of_adam},
    {"lion-beta1", BY_OPTIMIZER, 1u << OPTIMIZER_LION},
    {"lion-beta2", BY_OPTIMIZER, 1u << OPTIMIZER_LION},
    {"momentum", BY_OPTIMIZER, 1u << OPTIMIZER_SGD},
    {"dampening", BY_OPTIMIZER, 1u << OPTIMIZER_SGD},
    {"nesterov", BY_OPTIMIZER, 1u << OPTIMIZER_SGD},
    {"adafactor-decay-rate", BY_OPTIMIZER, 1u << OPTIMIZER_ADAFACTOR},
    {"adafactor-clip", BY_OPTIMIZER, 1u << OPTIMIZER_ADAFACTOR},
    {"adafactor-scale", BY_OPTIMIZER, 1u << OPTIMIZER_ADAFACTOR},
    {"muon-momentum", BY_OPTIMIZER, 1u << OPTIMIZER_MUON},
    {"muon-nesterov", BY_OPTIMIZER, 1u << OPTIMIZER_MUON},
    {"muon-adjust", BY_OPTIMIZER, 1u << OPTIMIZER_MUON},
    {"muon-ns-steps", BY_OPTIMIZER, 1u << OPTIMIZER_MUON},
    {"min-learning-rate-ratio", BY_SCHEDULE, ~(1u << SCHEDULE_CONSTANT)},
    {"cosine-cycles", BY_SCHEDULE, 1u << SCHEDULE_COSINE_RESTARTS},
    {"wsd-decay-ratio", BY_SCHEDULE, 1u << SCHEDULE_WSD},
    {"wsd-shape", BY_SCHEDULE, 1u << SCHEDULE_WSD},
    {"recompute-layers", BY_RECOMPUTE, of_blocks},
    {"recompute-span", BY_RECOMPUTE, of_blocks},
};

/* The value as the run has it; valid until the next call with this buffer. */
static const char *written(struct recipe *recipe, const struct setting *row, struct buf *text) {
    buf_clear(text);
    setting_write(row, recipe, text);
    return text->data ? text->data : "";
}

/* A value as the row presets it, and a span of one layer: recipe.yaml holds both, whatever their owner's
 * choice. */
static bool changes_nothing(struct recipe *recipe, const struct setting *row, struct buf *text) {
    if (row->offset == offsetof(struct recipe, recompute_span) && recipe->recompute_span == 1) return true;
    return !strcmp(written(recipe, row, text), row->preset ? row->preset : "");
}

bool recipe_owned_check(struct recipe *recipe, struct error *err) {
    struct settings settings = recipe_settings(recipe);
    struct buf text = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++) {
        int chosen = *(const int *)((const char *)recipe + owners[rows[i].owner].slot), reader = 0;
        const struct setting *row = &recipe_rows[settings_find(&settings, rows[i].name, USE_RUN)],
                             *owner =
                                 &recipe_rows[settings_find(&settings, owners[rows[i].owner].name, USE_RUN)];
        if (rows[i].choices >> chosen & 1u || recipe_origin(recipe, rows[i].name) != ORIGIN_GIVEN ||
            changes_nothing(recipe, row, &text))
            continue;
        ok = error_set(err, ERROR_USAGE, "settings", "--%s is not read by --%s %s", row->name, owner->name,
                       written(recipe, owner, &text));
        while (!(rows[i].choices >> reader & 1u)) reader++;
        buf_clear(&text);
        setting_write_choice(owner, reader, &text);
        error_fix(err, "Leave it out, or choose --%s %s.", owner->name, text.data ? text.data : "");
    }
    buf_release(&text);
    return ok;
}
