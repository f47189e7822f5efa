#include "train/recipe_method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/base_type.h"
#include "score/engine.h"

static bool is_given(struct recipe *recipe, const char *name) {
    return recipe_origin(recipe, name) == ORIGIN_GIVEN;
}

/* ---- settings to rules ---- */

/* "PATTERN=NUMBER"; the pattern may hold = too. */
static bool read_pattern(const char *item, enum pattern_numbers numbers, struct method_pattern *out,
                         struct arena *arena) {
    const char *mark = strrchr(item, '=');
    char *end;
    if (!mark || mark == item || !mark[1]) return false;
    out->value = strtod(mark + 1, &end);
    out->pattern = arena_strndup(arena, item, (size_t)(mark - item));
    if (*end || !isfinite(out->value) || out->value > 1e6) return false;
    if (numbers == PATTERN_NOT_NEGATIVE) return out->value >= 0;
    return out->value > 0 && (numbers == PATTERN_POSITIVE || floor(out->value) >= out->value);
}

/* Bytes of an item that say what it names: all, or those before the number. */
static size_t name_bytes(const char *item, bool numbered) {
    const char *mark = numbered ? strrchr(item, '=') : NULL;
    return mark ? (size_t)(mark - item) : strlen(item);
}

/* A name that stands twice is a slip: the second was to be another one, or another number for it. */
static bool check_twice(const struct text_list *list, const char *name, bool numbered, struct error *err) {
    for (size_t i = 1; i < list->count; i++)
        for (size_t j = 0, size = name_bytes(list->items[i], numbered); j < i; j++) {
            if (name_bytes(list->items[j], numbered) != size ||
                memcmp(list->items[j], list->items[i], size) != 0)
                continue;
            error_set(err, ERROR_USAGE, "settings", "--%s names \"%.*s\" twice", name,
                      (int)(size < 80 ? size : 80), list->items[i]);
            return error_fix(err, "Leave one of them out.");
        }
    return true;
}

bool recipe_patterns(const struct text_list *list, const char *name, enum pattern_numbers numbers,
                     struct method_pattern **out, size_t *count, struct arena *arena, struct error *err) {
    static const char *const words[] = {[PATTERN_WHOLE] = "whole number from 1 to 1000000",
                                        [PATTERN_POSITIVE] = "number above 0 and at most 1000000",
                                        [PATTERN_NOT_NEGATIVE] =
                                            "number that is not negative and at most 1000000"};
    *out = arena_array(arena, list->count + 1, sizeof **out);
    if (!*out) return error_no_memory(err, "train", list->count * sizeof **out);
    for (; *count < list->count; ++*count) {
        struct method_pattern *pattern = &(*out)[*count];
        bool ok = read_pattern(list->items[*count], numbers, pattern, arena);
        if (ok && !pattern->pattern) return error_no_memory(err, "train", strlen(list->items[*count]));
        if (ok) continue;
        error_set(err, ERROR_USAGE, "settings", "--%s: \"%.80s\" is not PATTERN=NUMBER with a %s", name,
                  list->items[*count], words[numbers]);
        return error_fix(err, "Write it as --%s q_proj=%s.", name,
                         numbers == PATTERN_NOT_NEGATIVE ? "0.0001" : "8");
    }
    return check_twice(list, name, true, err);
}

static bool read_rules(struct method_rules *out, const struct recipe *recipe, struct arena *arena,
                       struct error *err) {
    static const char *everything[] = {"all-linear"};
    *out = (struct method_rules){.targets = everything,
                                 .target_count = 1,
                                 .layers = recipe->lora_layers,
                                 .rank = recipe->lora_rank,
                                 .alpha = recipe->lora_alpha};
    if (recipe->lora_targets.count) {
        out->target_count = recipe->lora_targets.count;
        out->targets = arena_array(arena, out->target_count, sizeof *out->targets);
        if (!out->targets) return error_no_memory(err, "train", out->target_count);
        for (size_t i = 0; i < out->target_count; i++) out->targets[i] = recipe->lora_targets.items[i];
    }
    return recipe_patterns(&recipe->lora_rank_pattern, "lora-rank-pattern", PATTERN_WHOLE, &out->ranks,
                           &out->rank_count, arena, err) &&
           recipe_patterns(&recipe->lora_alpha_pattern, "lora-alpha-pattern", PATTERN_POSITIVE, &out->alphas,
                           &out->alpha_count, arena, err);
}

/* ---- an adapter to settings ---- */

static bool resolve_list(struct recipe *recipe, const char *name, const struct buf *text, struct error *err) {
    if (is_given(recipe, name) || !text->size) return true;
    return recipe_resolve(recipe, name, text->data, "of --adapter", err);
}

static bool resolve_patterns(struct recipe *recipe, const char *name, const struct method_pattern *patterns,
                             size_t count, struct error *err) {
    struct buf text = {0};
    for (size_t i = 0; i < count; i++)
        buf_printf(&text, "%s%s=%.17g", i ? "," : "", patterns[i].pattern, patterns[i].value);
    bool ok = text.failed ? error_no_memory(err, "train", text.size) : resolve_list(recipe, name, &text, err);
    buf_release(&text);
    return ok;
}

static void join_targets(const struct method_rules *rules, struct buf *out) {
    for (size_t i = 0; i < rules->target_count; i++) buf_printf(out, "%s%s", i ? "," : "", rules->targets[i]);
}

static bool resolve_targets(struct recipe *recipe, const struct method_rules *rules, struct error *err) {
    struct buf text = {0};
    join_targets(rules, &text);
    bool ok = text.failed ? error_no_memory(err, "train", text.size)
                          : resolve_list(recipe, "lora-targets", &text, err);
    buf_release(&text);
    return ok;
}

static bool resolve_saved(struct recipe *recipe, const struct method *method, const struct model *model,
                          struct arena *arena, struct error *err) {
    struct method_rules names = {0};
    struct buf text = {0};
    if (!method_saved_names(method, model, &names.targets, &names.target_count, arena, err)) return false;
    join_targets(&names, &text);
    bool ok = text.failed ? error_no_memory(err, "train", text.size)
                          : resolve_list(recipe, "modules-to-save", &text, err);
    buf_release(&text);
    return ok;
}

static bool save_modules(struct method *method, const struct recipe *recipe, const struct model *model,
                         struct error *err) {
    const struct text_list *list = &recipe->modules_to_save;
    return method_save_modules(method, model, (const char *const *)list->items, list->count, err);
}

/* Every setting that describes the adapter and was not given. */
static bool describe_adapter(struct recipe *recipe, const struct method *method,
                             const struct method_rules *rules, struct error *err) {
    static const char reason[] = "of --adapter";
    return (is_given(recipe, "method") || !method->dora ||
            recipe_resolve(recipe, "method", "dora", reason, err)) &&
           (is_given(recipe, "lora-rank") ||
            recipe_resolve_int(recipe, "lora-rank", rules->rank, "rank of --adapter", err)) &&
           (is_given(recipe, "lora-alpha") ||
            recipe_resolve_float(recipe, "lora-alpha", rules->alpha, "alpha of --adapter", err)) &&
           (is_given(recipe, "lora-layers") ||
            recipe_resolve_int(recipe, "lora-layers", rules->layers, reason, err)) &&
           (is_given(recipe, "lora-rslora") ||
            recipe_resolve(recipe, "lora-rslora", method->rslora ? "true" : "false", reason, err)) &&
           (is_given(recipe, "lora-init") ||
            recipe_resolve(recipe, "lora-init", method->init == METHOD_INIT_GAUSSIAN ? "gaussian" : "default",
                           reason, err)) &&
           resolve_targets(recipe, rules, err) &&
           resolve_patterns(recipe, "lora-rank-pattern", rules->ranks, rules->rank_count, err) &&
           resolve_patterns(recipe, "lora-alpha-pattern", rules->alphas, rules->alpha_count, err);
}

/* The first of the given settings is named; where it is one number, with what the adapter has. */
static bool refuse_conflict(struct recipe *recipe, const struct method_rules *rules, struct error *err) {
    static const char *const names[] = {
        "lora-rank",          "lora-alpha",  "lora-targets", "lora-layers",     "lora-rank-pattern",
        "lora-alpha-pattern", "lora-rslora", "lora-init",    "modules-to-save", "method"};
    const char *name = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names && !name; i++)
        if (is_given(recipe, names[i])) name = names[i];
    if (is_given(recipe, "lora-rank") && recipe->lora_rank != rules->rank) {
        error_set(err, ERROR_USAGE, "train", "--lora-rank %lld conflicts with the rank %lld of --adapter",
                  (long long)recipe->lora_rank, (long long)rules->rank);
        name = "lora-rank";
    } else if (is_given(recipe, "lora-alpha") && fabs(recipe->lora_alpha - rules->alpha) > 0) {
        error_set(err, ERROR_USAGE, "train", "--lora-alpha %.12g conflicts with the alpha %.12g of --adapter",
                  recipe->lora_alpha, rules->alpha);
        name = "lora-alpha";
    } else if (is_given(recipe, "lora-targets")) {
        struct buf of = {0};
        join_targets(rules, &of);
        error_set(err, ERROR_USAGE, "train", "--lora-targets conflicts with the targets %.300s of --adapter",
                  of.data ? of.data : "");
        buf_release(&of);
        name = "lora-targets";
    } else {
        error_set(err, ERROR_USAGE, "train", "--%s conflicts with --adapter, which is of another form",
                  name ? name : "lora-rank");
    }
    return error_fix(err, "Leave --%s out, or start without --adapter.", name ? name : "lora-rank");
}

static bool of_adapter(struct method *out, struct recipe *recipe, const struct model *model,
                       const struct peft *adapter, struct arena *arena, struct error *err) {
    struct method wanted = {0};
    struct method_rules rules, given;
    bool names;
    if (!engine_method_of(adapter, model, out, err) ||
        !method_describe(out, &model->config, &rules, &names, arena, err) ||
        !describe_adapter(recipe, out, &rules, err) || !resolve_saved(recipe, out, model, arena, err) ||
        !read_rules(&given, recipe, arena, err) || !method_build(&wanted, &model->config, &given, err))
        return false;
    if (!save_modules(&wanted, recipe, model, err)) {
        method_release(&wanted);
        return false;
    }
    wanted.rslora = recipe->lora_rslora;
    wanted.dora = recipe->method == TUNING_DORA;
    bool same = method_same_parts(&wanted, out) && recipe->lora_init == (int)out->init;
    method_release(&wanted);
    return same || refuse_conflict(recipe, &rules, err);
}

static bool of_settings(struct method *out, struct recipe *recipe, const struct model *model,
                        struct arena *arena, struct error *err) {
    struct method_rules rules;
    if (recipe->lora_alpha <= 0 && !recipe_resolve_float(recipe, "lora-alpha", (double)recipe->lora_rank,
                                                         "the rank, so that the scale is 1", err))
        return false;
    if (!read_rules(&rules, recipe, arena, err) || !method_build(out, &model->config, &rules, err) ||
        !save_modules(out, recipe, model, err) || !method_check(out, &model->config, err) ||
        (recipe->modules_to_save.count && !method_check_targets(out, &model->config, &rules, err)))
        return false;
    out->rslora = recipe->lora_rslora;
    out->dora = recipe->method == TUNING_DORA;
    out->init = (enum method_init)recipe->lora_init;
    out->init_steps = (int)recipe->lora_init_steps;
    return true;
}

/* PEFT's conversion of such a start to a plain adapter keeps A and B alone. */
static bool check_dora(const struct method *method, struct error *err) {
    if (!method->dora || !method_is_subtracted(method)) return true;
    error_set(err, ERROR_USAGE, "train", "--lora-init %s does not go with --method dora",
              method->init == METHOD_INIT_PISSA ? "pissa" : "olora");
    error_why(err, "PEFT's form of such an adapter has no place for the lengths of the rows");
    return error_fix(err, "Take --method lora, or leave --lora-init out.");
}

/* What does not go beside the embedding or the head. */
static bool check_outer(const struct method *method, const struct model_config *config, struct error *err) {
    const bool there[] = {method->dora, method->init > METHOD_INIT_GAUSSIAN, method->dropout > 0};
    const char *const what[] = {"--method dora does", "--lora-init pissa, olora and loftq do",
                                "--lora-dropout does"};
    for (int m = module_count; m < module_kinds; m++)
        for (int i = 0; i < 3; i++) {
            /* PEFT drops nothing of an embedding's, whose input are tokens. */
            if (!method->parts || !method->parts[part_index(config, 0, m)].rank || !there[i] ||
                (i == 2 && m == MODULE_EMBEDDING))
                continue;
            error_set(err, ERROR_USAGE, "train", "%s not go with --lora-targets %s yet", what[i],
                      modules[m].target);
            return error_fix(err, "Leave one of them out, or train it whole: --modules-to-save %s.",
                             modules[m].target);
        }
    return true;
}

/* LoftQ fits the adapter to what quantising takes from float weights. */
static bool check_loftq(const struct method *method, enum dtype base, const struct model *model,
                        struct error *err) {
    const struct tensor *stored = NULL;
    if (method->init != METHOD_INIT_LOFTQ) return true;
    for (size_t i = 0; i < method->count && !stored; i++) {
        const struct tensor *weight =
            model_weight(model, modules[part_module(&model->config, i)].role, part_layer(&model->config, i));
        if (method->parts[i].rank && dtype_row(weight->dtype)->quantised) stored = weight;
    }
    if (!stored && dtype_row(base)->quantised) return true;
    error_set(err, ERROR_USAGE, "train",
              "--lora-init loftq needs float weights, and a type to quantise them to");
    if (stored)
        error_why(err, "%s is %s already, and what that took is lost", stored->name,
                  dtype_row(stored->dtype)->name);
    return error_fix(err, stored ? "Name the model that the file was made from, or leave --lora-init out."
                                 : "Add --base-type nf4, or leave --lora-init out.");
}

bool recipe_check_start(const struct method *method, enum dtype base, const struct model *model,
                        struct error *err) {
    return check_dora(method, err) && check_outer(method, &model->config, err) &&
           check_loftq(method, base, model, err);
}

static bool resolve_rate(struct recipe *recipe, const struct model_config *config, struct error *err) {
    const struct optimizer_row *optimizer = &optimizer_rows[recipe->optimizer];
    bool full = recipe->method == TUNING_FULL;
    double rate = optimizer->rate * recipe_default_learning_rate(config->hidden, config->architecture) *
                  (full ? 0.1 : 1);
    char reason[160], beside[48] = "";
    if (recipe->learning_rate > 0) return true;
    if (optimizer->rate < 1 || optimizer->rate > 1)
        snprintf(beside, sizeof beside, "; %g times AdamW's for %s", optimizer->rate, optimizer->name);
    snprintf(reason, sizeof reason, "hidden size %lld of %s%s%s", (long long)config->hidden,
             config->architecture, beside, full ? "; a tenth of an adapter's" : "");
    return recipe_resolve_float(recipe, "learning-rate", rate < 1 ? rate : 1, reason, err);
}

bool recipe_method(struct method *out, struct recipe *recipe, const struct model *model,
                   const struct peft *adapter, struct error *err) {
    struct arena arena = {0};
    bool ok = check_twice(&recipe->lora_targets, "lora-targets", false, err) &&
              check_twice(&recipe->modules_to_save, "modules-to-save", false, err) &&
              check_twice(&recipe->freeze, "freeze", false, err);
    if (!ok) return false;
    if (recipe->method == TUNING_FULL)
        ok = method_full(out, model, (const char *const *)recipe->freeze.items, recipe->freeze.count, err);
    else
        ok = adapter ? of_adapter(out, recipe, model, adapter, &arena, err)
                     : of_settings(out, recipe, model, &arena, err);
    out->dropout = recipe->lora_dropout;
    out->noise = recipe->neftune_alpha;
    arena_release(&arena);
    return ok && resolve_rate(recipe, &model->config, err);
}

bool recipe_base(enum dtype *out, struct recipe *recipe, const struct model *model,
                 const struct peft *adapter, struct error *err) {
    *out = DTYPE_F32;
    if (recipe->method == TUNING_FULL) return true; /* from the values that the stored ones stand for */
    struct base_wish wish = {.name = recipe->base_type,
                             .adapter = adapter ? peft_config(adapter)->base_type : NULL,
                             .quantised = recipe->method == TUNING_QLORA};
    struct base_choice choice;
    if (!base_type_choose(&choice, model, &wish, err)) return false;
    *out = choice.dtype;
    return !choice.reason || recipe_resolve(recipe, "base-type", choice.name, choice.reason, err);
}
