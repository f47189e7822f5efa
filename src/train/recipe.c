#include "train/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "train/recipe_owned.h"
#include "train/update.h"

struct settings recipe_settings(struct recipe *recipe) {
    return (struct settings){recipe_rows, recipe_row_count, recipe, recipe->states};
}

bool recipe_init(struct recipe *recipe, struct error *err) {
    memset(recipe, 0, sizeof *recipe);
    struct settings settings = recipe_settings(recipe);
    if (settings_init(&settings, err)) return true;
    settings_release(&settings);
    return false;
}

void recipe_release(struct recipe *recipe) {
    struct settings settings = recipe_settings(recipe);
    settings_release(&settings);
}

bool recipe_set(struct recipe *recipe, unsigned uses, const char *name, const char *value,
                struct error *err) {
    struct settings settings = recipe_settings(recipe);
    struct settings *sets[] = {&settings};
    return settings_assign(sets, 1, uses, name, value, "--", err);
}

bool recipe_resolve(struct recipe *recipe, const char *name, const char *value, const char *reason,
                    struct error *err) {
    struct settings settings = recipe_settings(recipe);
    size_t row = settings_find(&settings, name, ~0u);
    if (row == SIZE_MAX) return error_set(err, ERROR_INTERNAL, "recipe", "no setting is called %s", name);
    return settings_resolve(&settings, row, value, reason, err);
}

bool recipe_resolve_int(struct recipe *recipe, const char *name, int64_t value, const char *reason,
                        struct error *err) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return recipe_resolve(recipe, name, text, reason, err);
}

bool recipe_resolve_float(struct recipe *recipe, const char *name, double value, const char *reason,
                          struct error *err) {
    char text[40];
    snprintf(text, sizeof text, "%.17g", value);
    return recipe_resolve(recipe, name, text, reason, err);
}

enum setting_origin recipe_origin(struct recipe *recipe, const char *name) {
    struct settings settings = recipe_settings(recipe);
    size_t row = settings_find(&settings, name, ~0u);
    return row == SIZE_MAX ? ORIGIN_DEFAULT : recipe->states[row].origin;
}

enum dtype recipe_compute(const struct recipe *recipe) {
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F32,  DTYPE_BF16,
                                       DTYPE_F16, DTYPE_BF16, DTYPE_F32}; /* enum compute */
    return types[recipe->compute];
}

bool recipe_mask(const struct recipe *recipe, char **out, struct error *err) {
    struct buf text = {0};
    *out = NULL;
    if (!recipe->mask.count) return true;
    for (size_t i = 0; i < recipe->mask.count; i++)
        buf_printf(&text, "%s%s", i ? "," : "", recipe->mask.items[i]);
    *out = buf_detach(&text, NULL);
    return *out || error_no_memory(err, "recipe", 0);
}

static bool given(struct recipe *recipe, const char *name) {
    return recipe_origin(recipe, name) == ORIGIN_GIVEN;
}

/* ---- conflicts ---- */

static bool need(bool there, const char *name, const char *fix, struct error *err) {
    if (there) return true;
    error_set(err, ERROR_USAGE, "settings", "--%s is missing", name);
    return error_fix(err, "%s", fix);
}

static bool conflict(struct error *err, const char *a, const char *b, const char *why, const char *fix) {
    error_set(err, ERROR_USAGE, "settings", "--%s and --%s exclude each other", a, b);
    error_why(err, "%s", why);
    return error_fix(err, "%s", fix);
}

bool recipe_check(struct recipe *recipe, unsigned uses, struct error *err) {
    if (uses & USE_TRAIN &&
        !need(recipe->output != NULL, "output", "Name the directory of the run: --output runs/first.", err))
        return false;
    if (recipe->resume && recipe->adapter && given(recipe, "adapter"))
        return conflict(err, "adapter", "resume", "a resumed run has its adapter",
                        "Leave --adapter out, or start a new run.");
    if (recipe->valid.count && recipe->valid_split > 0)
        return conflict(err, "valid", "valid-split", "the held-out rows come from one of them",
                        "Give one of the two.");
    for (size_t i = 0; i < recipe->template_args.count; i++) {
        const char *item = recipe->template_args.items[i];
        if (strchr(item, '=') && *item != '=') continue;
        error_set(err, ERROR_USAGE, "settings", "--template-arg: \"%.80s\" is not NAME=VALUE", item);
        return error_fix(err, "Write it as --template-arg enable_thinking=false.");
    }
    if (!recipe->resume && (!recipe_owned_check(recipe, err) || !update_check(recipe, err))) return false;
    if (!recipe_fits(recipe, err)) return false;
    if (recipe->resume) return true; /* the rest comes from the run's own recipe */
    if (recipe->early_stopping_threshold > 0 && !recipe->early_stopping) {
        error_set(err, ERROR_USAGE, "settings",
                  "--early-stopping-threshold is not read without --early-stopping");
        return error_fix(err, "Leave it out, or give --early-stopping 3.");
    }
    return need(recipe->model != NULL, "model",
                "Name a model: one that `hone pull` stored, a GGUF file or a directory.", err) &&
           need(recipe->data.count != 0, "data", "Name the training rows: --data rows.jsonl.", err);
}

/* ---- resume ---- */

static void write_value(const struct setting *row, const struct recipe *recipe, struct buf *out) {
    size_t before = out->size;
    setting_write(row, recipe, out);
    if (out->size == before) buf_text(out, "not set");
}

static bool note_change(const struct setting *row, struct recipe *now, const struct recipe *before,
                        json_t *changed, struct error *err) {
    struct buf text = {0};
    buf_printf(&text, "%s ", row->name);
    write_value(row, before, &text);
    buf_text(&text, " → ");
    write_value(row, now, &text);
    bool ok = !text.failed && json_array_append_new(changed, json_string(text.data)) == 0;
    buf_release(&text);
    return ok || error_no_memory(err, "recipe", 64);
}

static const char digest_of[] = "XXH3 of "; /* how the help of a digest begins; then what it is of */

static bool refuse_change(const struct setting *row, const struct recipe *now, const struct recipe *before,
                          struct error *err) {
    struct buf old = {0}, new = {0};
    bool digest = row->uses & USE_FACT && !strncmp(row->help, digest_of, strlen(digest_of));
    write_value(row, before, &old);
    write_value(row, now, &new);
    error_set(err, ERROR_USAGE, "train", "%s changed since the run was started",
              digest ? row->help + strlen(digest_of) : row->name);
    error_why(err, "%s was %.200s, now it is %.200s", digest ? "the digest" : "it",
              old.failed ? "" : old.data, new.failed ? "" : new.data);
    error_fix(err, "Leave it as it was, or start a new run in another --output.");
    buf_release(&old);
    buf_release(&new);
    return false;
}

/* What was fitted to the memory of the first run is fitted again when the memory is another. */
static bool fit_again(struct recipe *recipe, struct error *err) {
    static const char *const fitted[] = {"micro-batch-tokens", "piece-rows",     "recompute",
                                         "recompute-layers",   "recompute-span", "frozen-weights"};
    struct settings settings = recipe_settings(recipe);
    for (size_t i = 0; i < sizeof fitted / sizeof *fitted; i++) {
        size_t row = settings_find(&settings, fitted[i], USE_RUN);
        if (recipe->states[row].origin != ORIGIN_GIVEN && !settings_set(&settings, row, "auto", err))
            return false;
    }
    return true;
}

/* What another value does to the stored run: how often it is measured matters where that can end it. */
static enum setting_effect effect_on(const struct recipe *stored, const struct setting *row) {
    bool ends = stored->early_stopping > 0 && row->offset == offsetof(struct recipe, eval_every);
    return ends ? SETTING_RESULT : row->effect;
}

bool recipe_continue(struct recipe *recipe, const struct recipe *stored, json_t *changed, struct error *err) {
    struct settings to = recipe_settings(recipe);
    struct settings from = {recipe_rows, recipe_row_count, (void *)(uintptr_t)stored,
                            (struct setting_state *)(uintptr_t)stored->states};
    bool other_memory = false;
    for (size_t i = 0; i < recipe_row_count; i++) {
        const struct setting *row = &recipe_rows[i];
        if (recipe->states[i].origin != ORIGIN_GIVEN || row->uses & (USE_INVOKE | USE_FACT)) continue;
        enum setting_effect effect = effect_on(stored, row);
        if (effect == SETTING_HARMLESS || setting_equal(row, recipe, stored)) continue;
        if (effect == SETTING_RESULT) return refuse_change(row, recipe, stored, err);
        if (!note_change(row, recipe, stored, changed, err)) return false;
        if (row->offset == offsetof(struct recipe, memory)) other_memory = true;
    }
    if (!settings_inherit(&to, &from, ORIGIN_STORED, err)) return false;
    return !other_memory || fit_again(recipe, err);
}

bool recipe_same_facts(struct recipe *recipe, const struct recipe *stored, json_t *changed,
                       struct error *err) {
    for (size_t i = 0; i < recipe_row_count; i++) {
        const struct setting *row = &recipe_rows[i];
        if (!(row->uses & USE_FACT) || row->effect == SETTING_HARMLESS || setting_equal(row, recipe, stored))
            continue;
        if (row->effect == SETTING_RESULT) return refuse_change(row, recipe, stored, err);
        if (!note_change(row, recipe, stored, changed, err)) return false;
    }
    return true;
}

/* ---- showing ---- */

json_t *recipe_describe(struct recipe *recipe) {
    json_t *out = json_object();
    struct buf text = {0};
    for (size_t i = 0; out && i < recipe_row_count; i++) {
        const struct setting_state *state = &recipe->states[i];
        if (!setting_is_set(&recipe_rows[i], recipe) || recipe_rows[i].uses & (USE_FACT | USE_INVOKE))
            continue;
        buf_clear(&text);
        if (state->origin == ORIGIN_AUTO)
            buf_text(&text, "auto");
        else
            setting_write(&recipe_rows[i], recipe, &text);
        const char *reason = state->origin == ORIGIN_AUTO ? recipe_rows[i].automatic : state->reason;
        json_t *one = text.failed ? NULL
                                  : json_pack("{s:s, s:s}", "value", text.data ? text.data : "", "origin",
                                              setting_origin_name(state->origin));
        if (one && reason) json_object_put(&one, "reason", json_text(reason));
        if (!one || json_object_set_new(out, recipe_rows[i].name, one) != 0) {
            json_decref(out);
            out = NULL;
        }
    }
    buf_release(&text);
    return out;
}

double recipe_default_learning_rate(int64_t hidden, const char *architecture) {
    double power = strncmp(architecture, "qwen", 4) == 0 ? 0.0775 : 0.781;
    double rate = 5e-4 * pow(2000.0 / (double)(hidden > 0 ? hidden : 1), power);
    return fmin(fmax(rate, 2e-5), 2e-3);
}
