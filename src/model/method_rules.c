/* Rules to parts and back. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "model/method.h"
#include "text/regex.h"

/* ---- patterns ---- */

struct method_matcher {
    struct regex **regexes; /* [count] */
    const struct method_pattern *patterns;
    size_t count;
    struct regex_scratch *scratch;
};

bool method_matcher_open(struct method_matcher **out, const struct method_pattern *patterns, size_t count,
                         enum method_paths paths, struct error *err) {
    static const char *const more[] = {[METHOD_MODULES] = "", [METHOD_PARTS] = "(?:\\.[^.]*)?"};
    struct method_matcher *matcher = mem_calloc(1, sizeof *matcher);
    struct buf whole = {0};
    *out = NULL;
    if (!matcher) return error_no_memory(err, "method", sizeof *matcher);
    matcher->patterns = patterns;
    matcher->count = count;
    matcher->regexes = mem_calloc(count + 1, sizeof *matcher->regexes);
    bool ok = matcher->regexes || error_no_memory(err, "method", count * sizeof *matcher->regexes);
    ok = ok && regex_scratch_open(&matcher->scratch, err);
    for (size_t i = 0; ok && i < count; i++) {
        buf_clear(&whole);
        ok = buf_printf(&whole, "^(?:.*\\.)?(?:%s)%s$", patterns[i].pattern, more[paths]) ||
             error_no_memory(err, "method", whole.size);
        if (!ok || regex_open(&matcher->regexes[i], whole.data, whole.size, false, err)) continue;
        ok = false;
        if (err->code == ERROR_INPUT)
            error_set(err, ERROR_INPUT, "method", "\"%.80s\" is no regular expression", patterns[i].pattern);
    }
    buf_release(&whole);
    if (!ok) method_matcher_close(&matcher);
    *out = matcher;
    return ok;
}

void method_matcher_close(struct method_matcher **handle) {
    struct method_matcher *matcher = *handle;
    *handle = NULL;
    if (!matcher) return;
    for (size_t i = 0; matcher->regexes && i < matcher->count; i++) regex_close(&matcher->regexes[i]);
    mem_free(matcher->regexes);
    regex_scratch_close(&matcher->scratch);
    mem_free(matcher);
}

bool method_match(struct method_matcher *matcher, const char *path, double otherwise, double *out, bool *used,
                  struct error *err) {
    size_t size = strlen(path), first, end;
    bool any = false, found;
    *out = otherwise;
    for (size_t i = 0; i < matcher->count && (used || !any); i++) {
        regex_scratch_begin(matcher->scratch, size);
        if (!regex_find(matcher->regexes[i], matcher->scratch, path, size, 0, &first, &end, &found, err))
            return false;
        if (found && !any) *out = matcher->patterns[i].value;
        if (found && used) used[i] = true;
        any |= found;
    }
    return true;
}

bool method_bad_regex(const char *flag, struct error *err) {
    const struct error cause = *err;
    error_set(err, ERROR_USAGE, "train", "--%s: %s", flag, cause.what);
    return error_fix(err, "Escape dots as \\. and close each bracket; q_proj alone is a pattern too.");
}

/* ---- rules to parts ---- */

/* The three lists of patterns, by the flag that gives each. */
enum list { LIST_TARGETS, LIST_RANKS, LIST_ALPHAS, LIST_COUNT };
static const char *const flags[LIST_COUNT] = {"lora-targets", "lora-rank-pattern", "lora-alpha-pattern"};

struct building {
    const struct method_rules *rules;
    const struct model_config *config;
    struct method_pattern *targets;
    struct method_matcher *matchers[LIST_COUNT];
    bool *used[LIST_COUNT]; /* patterns that matched something */
};

static bool bad_target(const struct building *b, const char *pattern, struct error *err) {
    long long layers = (long long)b->rules->layers, first = (long long)b->config->layers - layers;
    if (!layers) {
        error_set(err, ERROR_USAGE, "train", "--lora-targets: there is no linear module \"%.60s\"", pattern);
        return error_fix(
            err, "Name some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, "
                 "or a regular expression that matches the end of their paths, such as "
                 "layers\\.[0-3]\\..*; all-linear means each of the layers'. embed_tokens and lm_head may "
                 "be named too.");
    }
    error_set(err, ERROR_USAGE, "train",
              "--lora-targets: there is no linear module \"%.60s\" in the last %lld %s", pattern, layers,
              text_plural((uint64_t)layers, "layer", "layers"));
    return error_fix(err,
                     "With --lora-layers only modules of model.layers.%lld and above are adapted, neither "
                     "embedding nor head. Leave it out, or name those modules.",
                     first);
}

/* One that names nothing; for a rank or alpha: nothing that is adapted. */
static bool bad_pattern(const struct building *b, enum list list, const char *pattern, struct error *err) {
    if (list == LIST_TARGETS) return bad_target(b, pattern, err);
    error_set(err, ERROR_USAGE, "train", "--%s: no module that is adapted is called \"%.60s\"", flags[list],
              pattern);
    return error_fix(
        err,
        "Adapted is what --lora-targets%s names: name one of these modules, or a regular expression "
        "that matches the end of their paths, such as layers\\.[0-3]\\..*",
        b->rules->layers ? ", in the layers of --lora-layers," : "");
}

static bool is_all(const char *pattern) { return !strcmp(pattern, "all-linear") || !strcmp(pattern, "all"); }

static bool building_open(struct building *b, struct error *err) {
    const struct method_rules *r = b->rules;
    b->targets = mem_calloc(r->target_count + 1, sizeof *b->targets);
    if (!b->targets) return error_no_memory(err, "method", r->target_count * sizeof *b->targets);
    for (size_t i = 0; i < r->target_count; i++)
        b->targets[i] = (struct method_pattern){is_all(r->targets[i]) ? "layers\\..*" : r->targets[i], 1};
    const struct method_pattern *lists[LIST_COUNT] = {b->targets, r->ranks, r->alphas};
    const size_t counts[LIST_COUNT] = {r->target_count, r->rank_count, r->alpha_count};
    for (int i = 0; i < LIST_COUNT; i++) {
        b->used[i] = mem_calloc(counts[i] + 1, sizeof *b->used[i]);
        if (!b->used[i]) return error_no_memory(err, "method", counts[i]);
        if (method_matcher_open(&b->matchers[i], lists[i], counts[i], METHOD_MODULES, err)) continue;
        if (err->code != ERROR_INPUT) return false;
        return method_bad_regex(flags[i], err);
    }
    return true;
}

static void building_close(struct building *b) {
    for (int i = 0; i < LIST_COUNT; i++) {
        method_matcher_close(&b->matchers[i]);
        mem_free(b->used[i]);
    }
    mem_free(b->targets);
}

static bool build_part(struct building *b, int64_t layer, int m, struct method_part *out, struct error *err) {
    const struct method_rules *r = b->rules;
    char path[96];
    double attached, rank, alpha;
    if (r->layers && (m >= module_count || layer < b->config->layers - r->layers)) return true;
    module_path(layer, m, path);
    if (!method_match(b->matchers[LIST_TARGETS], path, 0, &attached, b->used[LIST_TARGETS], err))
        return false;
    if (attached <= 0) return true;
    if (!method_match(b->matchers[LIST_RANKS], path, (double)r->rank, &rank, b->used[LIST_RANKS], err) ||
        !method_match(b->matchers[LIST_ALPHAS], path, r->alpha, &alpha, b->used[LIST_ALPHAS], err))
        return false;
    *out = (struct method_part){.rank = (int64_t)rank, .alpha = alpha};
    return true;
}

bool method_check(const struct method *method, const struct model_config *config, struct error *err) {
    for (size_t i = 0; i < method->count; i++) {
        int m = part_module(config, i);
        int64_t rows, columns, rank = method->parts[i].rank;
        char path[96];
        module_shape(config, m, &rows, &columns);
        int64_t side = rows < columns ? rows : columns;
        if (rank <= side) continue;
        module_path(part_layer(config, i), m, path);
        error_set(err, ERROR_USAGE, "train",
                  "a rank of %lld is above the smaller side of %s, which is [%lld, %lld]", (long long)rank,
                  path, (long long)rows, (long long)columns);
        return error_fix(err, "Lower --lora-rank, or give this module its own: --lora-rank-pattern %s=%lld.",
                         modules[m].target, (long long)side);
    }
    return true;
}

static bool build_parts(struct building *b, struct method *out, struct error *err) {
    bool any = false;
    for (size_t i = 0; i < out->count; i++) {
        if (!build_part(b, part_layer(b->config, i), part_module(b->config, i), &out->parts[i], err))
            return false;
        any |= out->parts[i].rank > 0;
    }
    for (int l = 0; l < LIST_COUNT; l++)
        for (size_t i = 0; i < b->matchers[l]->count; i++)
            if (!b->used[l][i]) return bad_pattern(b, (enum list)l, b->matchers[l]->patterns[i].pattern, err);
    return any || error_set(err, ERROR_USAGE, "train", "no target module is named");
}

bool method_build(struct method *out, const struct model_config *config, const struct method_rules *rules,
                  struct error *err) {
    struct building b = {.rules = rules, .config = config};
    out->count = method_part_count(config);
    out->parts = mem_calloc(out->count, sizeof *out->parts);
    bool ok = out->parts || error_no_memory(err, "method", out->count * sizeof *out->parts);
    if (ok && rules->layers > config->layers) {
        error_set(err, ERROR_USAGE, "train", "--lora-layers %lld is more than the model's %lld %s",
                  (long long)rules->layers, (long long)config->layers,
                  text_plural((uint64_t)config->layers, "layer", "layers"));
        ok = error_fix(err, "Leave it out to adapt every layer.");
    }
    ok = ok && building_open(&b, err) && build_parts(&b, out, err);
    building_close(&b);
    if (!ok) method_release(out);
    return ok;
}

static bool still_adapts(struct building *b, const struct method *method, struct error *err) {
    for (size_t i = 0; i < method->count; i++) {
        char path[96];
        double attached;
        if (!method->parts[i].rank) continue;
        module_path(part_layer(b->config, i), part_module(b->config, i), path);
        if (!method_match(b->matchers[LIST_TARGETS], path, 0, &attached, b->used[LIST_TARGETS], err))
            return false;
    }
    for (size_t i = 0; i < b->rules->target_count; i++) {
        if (b->used[LIST_TARGETS][i]) continue;
        error_set(err, ERROR_USAGE, "train",
                  "--lora-targets: \"%.60s\" adapts nothing that --modules-to-save does not train whole",
                  b->rules->targets[i]);
        return error_fix(err, "Name it in one of the two.");
    }
    return true;
}

bool method_check_targets(const struct method *method, const struct model_config *config,
                          const struct method_rules *rules, struct error *err) {
    struct building b = {.rules = rules, .config = config};
    bool ok = building_open(&b, err) && still_adapts(&b, method, err);
    building_close(&b);
    return ok;
}

/* ---- parts to rules ---- */

struct describing {
    const struct method *method;
    int64_t layers;
    struct arena *arena;
    struct buf text;
};

static double value_of(const struct method_part *part, bool rank) {
    return rank ? (double)part->rank : part->alpha;
}

static bool same(double a, double b) { return !(a < b) && !(a > b); }

/* The value that most attached parts have. */
static double usual(const struct method *method, bool rank) {
    double best = 0;
    size_t most = 0;
    for (size_t i = 0; i < method->count; i++) {
        size_t times = 0;
        bool seen = !method->parts[i].rank;
        for (size_t j = 0; j < i && !seen; j++)
            seen = method->parts[j].rank &&
                   same(value_of(&method->parts[j], rank), value_of(&method->parts[i], rank));
        for (size_t j = i; j < method->count && !seen; j++)
            if (method->parts[j].rank &&
                same(value_of(&method->parts[j], rank), value_of(&method->parts[i], rank)))
                times++;
        if (times <= most) continue;
        most = times;
        best = value_of(&method->parts[i], rank);
    }
    return best;
}

/* A pattern for the layers of one module kind that `wanted` has: its name where it has all that are attached.
 */
static const char *pattern_of(struct describing *d, int m, const bool *wanted, bool every) {
    const char *path = modules[m].path, *mark = strstr(path, "%d");
    const char *between = ""; /* "model." is left out: a pattern may begin after a dot */
    if (every) return modules[m].target;
    buf_clear(&d->text);
    buf_text(&d->text, "layers\\.(");
    for (int64_t layer = 0; layer < d->layers; layer++) {
        if (!wanted[layer]) continue;
        buf_printf(&d->text, "%s%lld", between, (long long)layer);
        between = "|";
    }
    buf_text(&d->text, ")");
    for (const char *c = mark + 2; *c; c++) {
        if (*c == '.') buf_byte(&d->text, '\\');
        buf_byte(&d->text, *c);
    }
    return d->text.failed ? NULL : arena_strndup(d->arena, d->text.data, d->text.size);
}

/* Those outside the layers, whose name is a pattern. */
static void describe_outer(const struct describing *d, bool rank, double base, struct method_pattern *out,
                           size_t *count) {
    for (int m = module_count; m < module_kinds; m++) {
        const struct method_part *part = &d->method->parts[d->layers * module_count + m - module_count];
        if (part->rank && !same(value_of(part, rank), base))
            out[(*count)++] = (struct method_pattern){modules[m].target, value_of(part, rank)};
    }
}

/* Patterns for the parts whose rank or alpha is not the usual one. */
static bool describe_values(struct describing *d, bool rank, double base, struct method_pattern *out,
                            size_t *count, bool *wanted) {
    const struct method_part *parts = d->method->parts;
    for (int m = 0; m < module_count; m++)
        for (int64_t first = 0; first < d->layers; first++) {
            const struct method_part *part = &parts[first * module_count + m];
            double value = value_of(part, rank);
            bool fresh = part->rank && !same(value, base), every = true;
            for (int64_t l = 0; l < first && fresh; l++)
                fresh = !parts[l * module_count + m].rank ||
                        !same(value_of(&parts[l * module_count + m], rank), value);
            if (!fresh) continue;
            for (int64_t l = 0; l < d->layers; l++) {
                const struct method_part *other = &parts[l * module_count + m];
                wanted[l] = other->rank && same(value_of(other, rank), value);
                every &= wanted[l] || !other->rank;
            }
            out[*count] = (struct method_pattern){pattern_of(d, m, wanted, every), value};
            if (!out[(*count)++].pattern) return false;
        }
    describe_outer(d, rank, base, out, count);
    return true;
}

/* Whether each module kind that is attached at all is so in exactly the last layers. */
static bool last_layers(const struct method *method, int64_t layers, int64_t *out) {
    int64_t from = layers;
    for (size_t i = 0; i < method->count; i++)
        if (method->parts[i].rank && (int64_t)(i / module_count) < from) from = (int64_t)(i / module_count);
    if (from == layers) from = 0; /* nothing within the layers */
    *out = from == 0 ? 0 : layers - from;
    for (int m = 0; m < module_count; m++) {
        bool last = method->parts[(layers - 1) * module_count + m].rank > 0;
        for (int64_t l = 0; l < layers; l++)
            if ((method->parts[l * module_count + m].rank > 0) != (last && l >= from)) return false;
    }
    return true;
}

static bool describe_targets(struct describing *d, struct method_rules *out, bool *names, bool *wanted) {
    const struct method_part *parts = d->method->parts;
    *names = last_layers(d->method, d->layers, &out->layers);
    for (size_t i = (size_t)d->layers * module_count; i < d->method->count; i++)
        if (out->layers && parts[i].rank)
            *names = false; /* the number of layers is read of all that is named */
    if (!*names) out->layers = 0;
    for (int m = 0; m < module_count; m++) {
        bool any = false;
        for (int64_t l = 0; l < d->layers; l++) any |= wanted[l] = parts[l * module_count + m].rank > 0;
        if (!any) continue;
        const char *pattern = pattern_of(d, m, wanted, *names);
        if (!pattern) return false;
        out->targets[out->target_count++] = pattern;
    }
    for (int m = module_count; m < module_kinds; m++)
        if (parts[d->layers * module_count + m - module_count].rank)
            out->targets[out->target_count++] = modules[m].target;
    return true;
}

bool method_describe(const struct method *method, const struct model_config *config, struct method_rules *out,
                     bool *names, struct arena *arena, struct error *err) {
    struct describing d = {.method = method, .layers = config->layers, .arena = arena};
    *out = (struct method_rules){.rank = (int64_t)usual(method, true), .alpha = usual(method, false)};
    bool *wanted = arena_array(arena, (size_t)config->layers, sizeof *wanted);
    out->targets = arena_array(arena, module_kinds, sizeof *out->targets);
    out->ranks = arena_array(arena, method->count, sizeof *out->ranks);
    out->alphas = arena_array(arena, method->count, sizeof *out->alphas);
    bool ok = wanted && out->targets && out->ranks && out->alphas &&
              describe_targets(&d, out, names, wanted) &&
              describe_values(&d, true, (double)out->rank, out->ranks, &out->rank_count, wanted) &&
              describe_values(&d, false, out->alpha, out->alphas, &out->alpha_count, wanted);
    buf_release(&d.text);
    return ok || error_no_memory(err, "method", method->count * sizeof *out->ranks);
}
