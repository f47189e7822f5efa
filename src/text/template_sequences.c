/* The filters that take or give sequences. Those that are generators in Jinja2 give generators here:
 * always true, read once, without a length. Their items are made at once, though, so that an error in
 * an item nobody reads is an error here and not there. */
#include <string.h>

#include "text/template_internal.h"

#define FILTER(name) static bool name(struct jinja *j, const struct jinja_call *c, struct jinja_value *out)

static struct jinja_value generator(struct jinja_list *list, const char *maker) {
    list->maker = maker;
    return jinja_of_list(JINJA_GENERATOR, list);
}

/* ---- keys ---------------------------------------------------------------------------------------- */

/* "a.b.0": items of items, as the attribute= of filters takes them. Absent or None: the value itself. */
static bool path_get(struct jinja *j, struct jinja_value item, struct jinja_value path,
                     struct jinja_value otherwise, struct jinja_value *out) {
    *out = item;
    if (path.kind == JINJA_ABSENT || path.kind == JINJA_NONE) return true;
    if (path.kind != JINJA_TEXT) {
        if (!jinja_item(j, item, path, out)) return false;
        if (out->kind == JINJA_UNDEFINED && otherwise.kind != JINJA_ABSENT) *out = otherwise;
        return true;
    }
    const char *at = path.text->bytes, *end = at + path.text->size;
    for (bool more = true; more;) {
        const char *dot = memchr(at, '.', (size_t)(end - at)), *stop = dot ? dot : end;
        struct jinja_value key;
        int64_t number;
        bool digits = stop > at;
        for (const char *d = at; d < stop; d++) digits &= *d >= '0' && *d <= '9';
        if (digits && jinja_parse_int(at, (size_t)(stop - at), 10, &number))
            key = jinja_int(number);
        else if (!jinja_text_view(j, at, (size_t)(stop - at), &key))
            return false;
        if (!jinja_step(j) || !jinja_item(j, *out, key, out)) return false;
        if (out->kind == JINJA_UNDEFINED && otherwise.kind != JINJA_ABSENT && otherwise.kind != JINJA_NONE)
            *out = otherwise;
        more = dot != NULL;
        at = stop + 1;
    }
    return true;
}

static bool fold(struct jinja *j, struct jinja_value *v) {
    struct buf made;
    if (v->kind != JINJA_TEXT) return true;
    jinja_buf(j, &made);
    if (jinja_case_map(j, v->text, 0, v->text->size, JINJA_LOWER, &made)) return jinja_text_take(j, &made, v);
    buf_release(&made);
    return false;
}

/* The key that an item is sorted, grouped or compared by. */
static bool key_of(struct jinja *j, struct jinja_value item, struct jinja_value path,
                   struct jinja_value otherwise, bool case_sensitive, struct jinja_value *out) {
    return path_get(j, item, path, otherwise, out) && (case_sensitive || fold(j, out));
}

static bool keys_of(struct jinja *j, const struct jinja_list *list, struct jinja_value path,
                    struct jinja_value otherwise, bool case_sensitive, struct jinja_value **out) {
    struct jinja_value *keys = *out = jinja_alloc_array(j, list->count, sizeof *keys);
    if (!keys) return false;
    for (size_t i = 0; i < list->count; i++)
        if (!jinja_step(j) || !key_of(j, list->items[i], path, otherwise, case_sensitive, &keys[i]))
            return false;
    return true;
}

/* A list of its own, that may be changed while it is made. */
static bool copy_of(struct jinja *j, struct jinja_value value, struct jinja_list **out) {
    struct jinja_list *from;
    if (!jinja_list_of(j, value, &from)) return false;
    struct jinja_list *list = *out = jinja_list_new(j, from->count);
    if (!list || !jinja_charge(j, from->count / 4)) return false;
    if (from->count) memcpy(list->items, from->items, from->count * sizeof *list->items);
    list->count = from->count;
    return true;
}

/* ---- order ------------------------------------------------------------------------------------- */

/* attribute="a,b" sorts by several. The key is a list even of one: equal keys are then never ordered, so
 * that those without an order, as undefined, do not fail. */
static bool sort_key(struct jinja *j, struct jinja_value item, struct jinja_value path, bool case_sensitive,
                     struct jinja_value *out) {
    struct jinja_list *parts = jinja_list_new(j, 1);
    struct jinja_value key, part = path;
    bool several = path.kind == JINJA_TEXT;
    const char *at = several ? path.text->bytes : "", *end = at + (several ? path.text->size : 0);
    if (!parts) return false;
    for (bool more = true; more;) {
        const char *comma = several ? memchr(at, ',', (size_t)(end - at)) : NULL, *stop = comma ? comma : end;
        if (several && !jinja_text_view(j, at, (size_t)(stop - at), &part)) return false;
        if (!key_of(j, item, part, jinja_absent(), case_sensitive, &key) || !jinja_list_add(j, parts, key))
            return false;
        more = comma != NULL;
        at = stop + 1;
    }
    *out = jinja_of_list(JINJA_LIST, parts);
    return true;
}

static bool sort_keys(struct jinja *j, const struct jinja_list *list, struct jinja_value path,
                      bool case_sensitive, struct jinja_value **out) {
    struct jinja_value *keys = *out = jinja_alloc_array(j, list->count, sizeof *keys);
    if (!keys) return false;
    for (size_t i = 0; i < list->count; i++)
        if (!jinja_step(j) || !sort_key(j, list->items[i], path, case_sensitive, &keys[i])) return false;
    return true;
}

FILTER(run_sort) { /* reverse, case_sensitive, attribute */
    struct jinja_list *list;
    struct jinja_value *keys;
    if (!copy_of(j, c->self, &list) || !sort_keys(j, list, c->a[2], jinja_arg_flag(c, 1, false), &keys))
        return false;
    if (!jinja_sort(j, keys, list->items, list->count, jinja_arg_flag(c, 0, false))) return false;
    *out = jinja_of_list(JINJA_LIST, list);
    return true;
}

FILTER(run_dictsort) { /* case_sensitive, by, reverse */
    struct jinja_list *list;
    struct jinja_value *keys, by = c->a[1];
    bool values = jinja_text_is(by, "value");
    if (by.kind != JINJA_ABSENT && !values && !jinja_text_is(by, "key"))
        return jinja_fail(j, "dictsort: you can only sort by either \"key\" or \"value\"");
    if (c->self.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, c->self);
    if (c->self.kind != JINJA_DICT)
        return jinja_fail(j, "dictsort: '%s' object is no mapping", jinja_type_name(c->self));
    struct jinja_view view = {c->self.dict, JINJA_ITEMS};
    if (!jinja_list_of(j, (struct jinja_value){.kind = JINJA_VIEW, .view = &view}, &list)) return false;
    if (!keys_of(j, list, jinja_int(values), jinja_absent(), jinja_arg_flag(c, 0, false), &keys))
        return false;
    if (!jinja_sort(j, keys, list->items, list->count, jinja_arg_flag(c, 2, false))) return false;
    *out = jinja_of_list(JINJA_LIST, list);
    return true;
}

FILTER(run_unique) { /* case_sensitive, attribute */
    struct jinja_list *list, *kept = jinja_list_new(j, 0);
    struct jinja_value *keys;
    struct jinja_dict *seen = jinja_dict_new(j);
    if (!kept || !seen || !jinja_list_of(j, c->self, &list)) return false;
    if (!keys_of(j, list, c->a[1], jinja_absent(), jinja_arg_flag(c, 0, false), &keys)) return false;
    for (size_t i = 0; i < list->count; i++) {
        struct jinja_entry *entry;
        if (!jinja_step(j) || !jinja_dict_find(j, seen, keys[i], &entry)) return false;
        if (entry) continue;
        if (!jinja_dict_set(j, seen, keys[i], jinja_none()) || !jinja_list_add(j, kept, list->items[i]))
            return false;
    }
    *out = generator(kept, "generator object sync_do_unique");
    return true;
}

static bool extreme(struct jinja *j, const struct jinja_call *c, enum jinja_op op, struct jinja_value *out) {
    struct jinja_list *list;
    struct jinja_value *keys;
    size_t best = 0;
    if (!jinja_list_of(j, c->self, &list)) return false;
    if (!list->count)
        return jinja_undefined(j, "No aggregated item, sequence was empty.", jinja_absent(), jinja_none(),
                               out);
    if (!keys_of(j, list, c->a[1], jinja_absent(), jinja_arg_flag(c, 0, false), &keys)) return false;
    for (size_t i = 1; i < list->count; i++) {
        bool better;
        if (!jinja_order(j, op, keys[i], keys[best], &better)) return false;
        if (better) best = i;
    }
    *out = list->items[best];
    return true;
}

FILTER(run_min) { return extreme(j, c, OP_LT, out); }
FILTER(run_max) { return extreme(j, c, OP_GT, out); }

FILTER(run_groupby) { /* attribute, default, case_sensitive */
    struct jinja_list *list, *groups = jinja_list_new(j, 0), *members = NULL;
    struct jinja_value *keys, last = jinja_absent(), *sorted;
    bool sensitive = jinja_arg_flag(c, 2, false);
    if (!groups || !copy_of(j, c->self, &list) || !keys_of(j, list, c->a[0], c->a[1], sensitive, &keys))
        return false;
    if (!jinja_sort(j, keys, list->items, list->count, false)) return false;
    if (!keys_of(j, list, c->a[0], c->a[1], sensitive, &sorted)) return false;
    for (size_t i = 0; i < list->count; i++) {
        bool same = false;
        if (members && !jinja_equal(j, sorted[i], last, &same)) return false;
        if (!same) {
            struct jinja_list *group = jinja_list_new(j, 2);
            if (!group || !(members = jinja_list_new(j, 0))) return false;
            group->group = true;
            group->count = 2;
            if (!path_get(j, list->items[i], c->a[0], c->a[1], &group->items[0])) return false;
            group->items[1] = jinja_of_list(JINJA_LIST, members);
            if (!jinja_list_add(j, groups, jinja_of_list(JINJA_TUPLE, group))) return false;
            last = sorted[i];
        }
        if (!jinja_list_add(j, members, list->items[i])) return false;
    }
    *out = jinja_of_list(JINJA_LIST, groups);
    return true;
}

/* ---- choosing ---------------------------------------------------------------------------------- */

static struct jinja_args args_from(const struct jinja_args *args, size_t first) {
    struct jinja_args rest = *args;
    size_t skip = first < args->count ? first : args->count;
    if (skip) rest.values += skip;
    rest.count -= skip;
    return rest;
}

/* select, reject, selectattr, rejectattr: the items whose test, or own truth, is `wanted`. */
static bool choose(struct jinja *j, const struct jinja_call *c, bool attribute, bool wanted,
                   const char *maker, struct jinja_value *out) {
    struct jinja_list *kept = jinja_list_new(j, 0);
    struct jinja_seq seq;
    const struct jinja_args *raw = c->raw;
    const struct jinja_test *test = NULL;
    size_t skip = attribute ? 1 : 0;
    if (!kept) return false;
    *out = generator(kept, maker);
    if (!jinja_truth(c->self)) return true;
    if (raw->count < skip) return jinja_fail(j, "%s: missing parameter for attribute name", c->name);
    if (raw->count > skip) {
        struct jinja_value name = raw->values[skip];
        test = name.kind == JINJA_TEXT ? jinja_test_find(name.text->bytes, name.text->size) : NULL;
    }
    struct jinja_args rest = args_from(raw, skip + 1);
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (seq.count && raw->count > skip && !test) return jinja_fail(j, "%s: no such test", c->name);
    for (size_t i = 0; i < seq.count; i++) {
        struct jinja_value item = jinja_seq_item(&seq, i), value = item;
        if (!jinja_step(j) || (attribute && !path_get(j, item, raw->values[0], jinja_absent(), &value)))
            return false;
        bool holds = jinja_truth(value);
        if (test && !jinja_call_test(j, test, value, &rest, &holds)) return false;
        if (holds == wanted && !jinja_list_add(j, kept, item)) return false;
    }
    return true;
}

FILTER(run_select) { return choose(j, c, false, true, "generator object select_or_reject", out); }
FILTER(run_reject) { return choose(j, c, false, false, "generator object select_or_reject", out); }
FILTER(run_selectattr) { return choose(j, c, true, true, "generator object select_or_reject", out); }
FILTER(run_rejectattr) { return choose(j, c, true, false, "generator object select_or_reject", out); }

/* map(attribute=…, default=…) */
static bool map_attribute(struct jinja *j, const struct jinja_args *raw, struct jinja_value *path,
                          struct jinja_value *otherwise) {
    for (size_t i = 0; i < raw->named_count; i++) {
        if (jinja_text_is(raw->named[i].name, "attribute"))
            *path = raw->named[i].value;
        else if (jinja_text_is(raw->named[i].name, "default"))
            *otherwise = raw->named[i].value;
        else
            return jinja_fail(j, "map: unexpected keyword argument");
    }
    return true;
}

FILTER(run_map) {
    struct jinja_list *made = jinja_list_new(j, 0);
    struct jinja_value path = jinja_absent(), otherwise = jinja_absent();
    const struct jinja_filter *filter = NULL;
    struct jinja_seq seq;
    if (!made) return false;
    *out = generator(made, "generator object sync_do_map");
    if (!jinja_truth(c->self)) return true;
    if (c->raw->count) {
        struct jinja_value name = c->raw->values[0];
        filter = name.kind == JINJA_TEXT ? jinja_filter_find(name.text->bytes, name.text->size) : NULL;
    } else if (!map_attribute(j, c->raw, &path, &otherwise)) {
        return false;
    } else if (path.kind == JINJA_ABSENT) {
        return jinja_fail(j, "map requires a filter argument");
    }
    struct jinja_args rest = args_from(c->raw, 1);
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (seq.count && c->raw->count && !filter) return jinja_fail(j, "map: no such filter");
    for (size_t i = 0; i < seq.count; i++) {
        struct jinja_value item = jinja_seq_item(&seq, i);
        bool ok = filter ? jinja_call_filter(j, filter, item, &rest, &item)
                         : path_get(j, item, path, otherwise, &item);
        if (!ok || !jinja_step(j) || !jinja_list_add(j, made, item)) return false;
    }
    return true;
}

/* ---- the ends, and whole sequences --------------------------------------------------------------- */

FILTER(run_first) {
    if (c->self.kind == JINJA_GENERATOR && c->self.list->next < c->self.list->count) {
        *out = c->self.list->items[c->self.list->next++];
        return true;
    }
    struct jinja_seq seq;
    if (c->self.kind == JINJA_TEXT && c->self.text->size) return jinja_text_at(j, c->self.text, 0, out);
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (!seq.count)
        return jinja_undefined(j, "No first item, sequence was empty.", jinja_absent(), jinja_none(), out);
    *out = jinja_seq_item(&seq, 0);
    return true;
}

FILTER(run_last) {
    struct jinja_seq seq;
    if (c->self.kind == JINJA_GENERATOR) return jinja_fail(j, "'generator' object is not reversible");
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (!seq.count)
        return jinja_undefined(j, "No last item, sequence was empty.", jinja_absent(), jinja_none(), out);
    *out = jinja_seq_item(&seq, seq.count - 1);
    return true;
}

FILTER(run_length) {
    size_t length;
    if (!jinja_length(j, c->self, &length)) return false;
    *out = jinja_int((int64_t)length);
    return true;
}

FILTER(run_list) {
    struct jinja_list *list;
    if (!jinja_list_of(j, c->self, &list)) return false;
    *out = jinja_of_list(JINJA_LIST, list);
    return true;
}

FILTER(run_items) {
    struct jinja_list *list;
    if (c->self.kind == JINJA_UNDEFINED) {
        if (!(list = jinja_list_new(j, 0))) return false;
    } else if (c->self.kind != JINJA_DICT) {
        return jinja_fail(j, "Can only get item pairs from a mapping.");
    } else {
        struct jinja_view view = {c->self.dict, JINJA_ITEMS};
        if (!jinja_list_of(j, (struct jinja_value){.kind = JINJA_VIEW, .view = &view}, &list)) return false;
    }
    *out = generator(list, "generator object do_items");
    return true;
}

FILTER(run_reverse) {
    struct jinja_list *list, *turned;
    if (c->self.kind == JINJA_TEXT) {
        size_t length;
        if (!jinja_text_length(j, c->self.text, &length)) return false;
        return jinja_text_slice(j, c->self.text, (int64_t)length - 1, -1, length, out);
    }
    if (!jinja_list_of(j, c->self, &list) || !(turned = jinja_list_new(j, list->count))) return false;
    for (size_t i = 0; i < list->count; i++) turned->items[i] = list->items[list->count - 1 - i];
    turned->count = list->count;
    *out = c->self.kind == JINJA_GENERATOR ? jinja_of_list(JINJA_LIST, turned)
                                           : generator(turned, "list_reverseiterator");
    return jinja_charge(j, list->count / 4);
}

FILTER(run_join) { /* d, attribute */
    struct jinja_seq seq;
    struct jinja_value between;
    struct buf made;
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    if (c->a[0].kind == JINJA_ABSENT ? !jinja_text_view(j, "", 0, &between)
                                     : !jinja_str(j, c->a[0], &between))
        return false;
    jinja_buf(j, &made);
    bool ok = true;
    for (size_t i = 0; i < seq.count && ok && !made.failed; i++) {
        struct jinja_value item;
        if (i) buf_append(&made, between.text->bytes, between.text->size);
        ok = jinja_charge(j, 8) && path_get(j, jinja_seq_item(&seq, i), c->a[1], jinja_absent(), &item) &&
             jinja_write(j, item, &made);
    }
    if (ok) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

FILTER(run_sum) { /* attribute, start */
    struct jinja_seq seq;
    struct jinja_value total = c->a[1].kind == JINJA_ABSENT ? jinja_int(0) : c->a[1], item;
    if (total.kind == JINJA_TEXT) return jinja_fail(j, "sum() can't sum strings");
    if (!jinja_seq_open(j, c->self, &seq)) return false;
    for (size_t i = 0; i < seq.count; i++)
        if (!jinja_step(j) || !path_get(j, jinja_seq_item(&seq, i), c->a[0], jinja_absent(), &item) ||
            !jinja_arithmetic(j, OP_ADD, total, item, &total))
            return false;
    *out = total;
    return true;
}

static bool add_slice(struct jinja *j, struct jinja_list *to, const struct jinja_list *from, size_t start,
                      size_t end, size_t filled, struct jinja_value fill) {
    struct jinja_list *part = jinja_list_new(j, filled > end - start ? filled : end - start);
    if (!part) return false;
    for (size_t i = start; i < end; i++) part->items[part->count++] = from->items[i];
    while (part->count < filled) part->items[part->count++] = fill;
    return jinja_list_add(j, to, jinja_of_list(JINJA_LIST, part));
}

FILTER(run_batch) { /* linecount, fill_with */
    struct jinja_list *list, *made = jinja_list_new(j, 0);
    int64_t size;
    bool fills = c->a[1].kind != JINJA_ABSENT && c->a[1].kind != JINJA_NONE;
    if (!made || !jinja_arg_int(j, c, 0, 1, &size) || !jinja_list_of(j, c->self, &list)) return false;
    if (size < 0) fills = false; /* nothing is as short as that */
    if (size < 0 || (uint64_t)size > j->limits.memory) size = (int64_t)j->limits.memory;
    size_t width = (size_t)size;
    if (!width) { /* Jinja2 gives an empty list, then everything, when the width is 0 */
        if (list->count && (!add_slice(j, made, list, 0, 0, 0, c->a[1]) ||
                            !add_slice(j, made, list, 0, list->count, 0, c->a[1])))
            return false;
        *out = generator(made, "generator object do_batch");
        return true;
    }
    for (size_t i = 0; i < list->count; i += width) {
        size_t end = list->count - i < width ? list->count : i + width;
        if (!add_slice(j, made, list, i, end, fills ? width : 0, c->a[1])) return false;
    }
    *out = generator(made, "generator object do_batch");
    return true;
}

FILTER(run_slice) { /* slices, fill_with */
    struct jinja_list *list, *made = jinja_list_new(j, 0);
    int64_t slices;
    bool fills = c->a[1].kind != JINJA_ABSENT && c->a[1].kind != JINJA_NONE;
    if (!made || !jinja_arg_int(j, c, 0, 1, &slices) || !jinja_list_of(j, c->self, &list)) return false;
    if (!slices) return jinja_fail(j, "integer division or modulo by zero");
    size_t count = slices > 0 ? (size_t)slices : 0, offset = 0;
    for (size_t i = 0; i < count; i++) {
        size_t each = list->count / count, extra = list->count % count, start = offset + i * each;
        if (i < extra) offset++;
        size_t end = offset + (i + 1) * each;
        if (!jinja_step(j) ||
            !add_slice(j, made, list, start, end, fills && i >= extra ? end - start + 1 : 0, c->a[1]))
            return false;
    }
    *out = generator(made, "generator object sync_do_slice");
    return true;
}

const struct jinja_filter jinja_sequence_filters[] = {
    {"sort", run_sort, "reverse,case_sensitive,attribute"},
    {"dictsort", run_dictsort, "case_sensitive,by,reverse"},
    {"unique", run_unique, "case_sensitive,attribute"},
    {"min", run_min, "case_sensitive,attribute"},
    {"max", run_max, "case_sensitive,attribute"},
    {"groupby", run_groupby, "!attribute,default,case_sensitive"},
    {"select", run_select, "*"},
    {"reject", run_reject, "*"},
    {"selectattr", run_selectattr, "*"},
    {"rejectattr", run_rejectattr, "*"},
    {"map", run_map, "*"},
    {"first", run_first, ""},
    {"last", run_last, ""},
    {"length", run_length, ""},
    {"count", run_length, ""},
    {"list", run_list, ""},
    {"items", run_items, ""},
    {"reverse", run_reverse, ""},
    {"join", run_join, "d,attribute"},
    {"sum", run_sum, "attribute,start"},
    {"batch", run_batch, "!linecount,fill_with"},
    {"slice", run_slice, "!slices,fill_with"},
    {NULL, NULL, NULL},
};
