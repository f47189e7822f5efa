#include "model/groups.h"

#include <string.h>

#include "base/mem.h"

/* Names as transformers' Trainer leaves them out of the decay (get_decay_parameter_names): biases, and the
 * weights of norms. */
static bool is_decayed(const char *name) {
    return !strstr(name, "bias") && !strstr(name, "norm.") && !strstr(name, "norm_");
}

static bool has_b_rate(const struct op_part *part) {
    return strstr(part->name, ".lora_B") || (strstr(part->name, ".lora_") && part->columns == 1);
}

/* One of the two lists of patterns, and which of them matched. */
struct list {
    const char *flag;
    struct method_matcher *matcher;
    bool *used; /* [count] */
    size_t count;
};

static bool list_open(struct list *list, const char *flag, const struct method_pattern *patterns,
                      size_t count, struct error *err) {
    *list = (struct list){.flag = flag, .count = count};
    list->used = mem_calloc(count + 1, sizeof *list->used);
    if (!list->used) return error_no_memory(err, "train", count * sizeof *list->used);
    if (method_matcher_open(&list->matcher, patterns, count, METHOD_PARTS, err)) return true;
    return err->code == ERROR_INPUT && method_bad_regex(flag, err);
}

static bool list_check_used(const struct list *list, const struct method_pattern *patterns,
                            struct error *err) {
    for (size_t i = 0; i < list->count; i++) {
        if (list->used[i]) continue;
        error_set(err, ERROR_USAGE, "train", "--%s: nothing that is trained is called \"%.60s\"", list->flag,
                  patterns[i].pattern);
        return error_fix(err,
                         "Name modules such as q_proj, tensors such as lora_B, or a regular expression that "
                         "matches the end of their paths, such as layers\\.0\\..*.");
    }
    return true;
}

static void list_close(struct list *list) {
    method_matcher_close(&list->matcher);
    mem_free(list->used);
}

/* The group's number; a new one when there is none like it. */
static int find_group(struct group *groups, int *count, struct group wanted) {
    for (int i = 0; i < *count; i++)
        if (!memcmp(&groups[i], &wanted, sizeof wanted)) return i;
    groups[*count] = wanted;
    return (*count)++;
}

static bool assign(struct op_parts *parts, const struct group_rules *rules, struct list *rates,
                   struct list *decays, struct group *groups, struct error *err) {
    parts->groups = 0;
    for (int i = 0; i < parts->count; i++) {
        struct op_part *part = &parts->items[i];
        struct group group;
        double decay = is_decayed(part->name) ? rules->decay : 0;
        if (!method_match(rates->matcher, part->name, 1, &group.rate, rates->used, err) ||
            !method_match(decays->matcher, part->name, decay, &group.decay, decays->used, err))
            return false;
        if (has_b_rate(part)) group.rate *= rules->b_ratio;
        part->group = find_group(groups, &parts->groups, group);
    }
    return list_check_used(rates, rules->rates, err) && list_check_used(decays, rules->decays, err);
}

bool groups_assign(struct op_parts *parts, const struct group_rules *rules, struct group **out,
                   struct error *err) {
    struct list rates = {0}, decays = {0};
    *out = mem_array((size_t)parts->count + 1, sizeof **out);
    bool ok = *out || error_no_memory(err, "train", (size_t)parts->count * sizeof **out);
    ok = ok && list_open(&rates, "learning-rate-pattern", rules->rates, rules->rate_count, err) &&
         list_open(&decays, "weight-decay-pattern", rules->decays, rules->decay_count, err) &&
         assign(parts, rules, &rates, &decays, *out, err);
    list_close(&rates);
    list_close(&decays);
    return ok;
}
