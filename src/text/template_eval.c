/* Walks expression nodes. Names, attributes and items are looked up as Jinja2's sandbox does. */
#include <string.h>

#include "text/template_internal.h"

/* ---- scopes ------------------------------------------------------------------------------------ */

/* A scope of few names is searched; one of many has an index. */
enum { few_names = 16 };

static struct jinja_variable *scope_find(const struct jinja_scope *scope, int name) {
    if (scope->places) {
        size_t place = scope->places[name];
        bool valid = place && place <= scope->count && scope->variables[place - 1].name == name;
        return valid ? &scope->variables[place - 1] : NULL;
    }
    for (size_t i = 0; i < scope->count; i++)
        if (scope->variables[i].name == name) return &scope->variables[i];
    return NULL;
}

static bool scope_grow(struct jinja *j, struct jinja_scope *scope) {
    size_t capacity = scope->capacity ? scope->capacity * 2 : 4;
    struct jinja_variable *grown = jinja_alloc_array(j, capacity, sizeof *grown);
    if (!grown) return false;
    if (scope->count) memcpy(grown, scope->variables, scope->count * sizeof *grown);
    scope->variables = grown;
    scope->capacity = capacity;
    if (capacity <= few_names || scope->places) return true;
    scope->places = jinja_alloc_array(j, j->template->name_count, sizeof *scope->places);
    if (!scope->places) return false;
    for (size_t i = 0; i < scope->count; i++) scope->places[grown[i].name] = (uint32_t)i + 1;
    return true;
}

bool jinja_scope_set(struct jinja *j, struct jinja_scope *scope, int name, struct jinja_value value) {
    struct jinja_variable *found = scope_find(scope, name);
    if (found) {
        found->value = value;
        return true;
    }
    if (scope->count == scope->capacity && !scope_grow(j, scope)) return false;
    scope->variables[scope->count++] = (struct jinja_variable){name, value};
    if (scope->places) scope->places[name] = (uint32_t)scope->count;
    return true;
}

struct jinja_value jinja_scope_get(struct jinja *j, const struct jinja_scope *scope, int name) {
    for (; scope; scope = scope->outer, j->steps++) {
        const struct jinja_variable *found = scope_find(scope, name);
        if (found) return found->value;
    }
    return j->globals[name];
}

static bool eval_name(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_value name;
    *out = jinja_scope_get(j, scope, node->name);
    if (out->kind != JINJA_ABSENT) return true;
    const struct jinja_name *n = &j->template->names[node->name];
    return jinja_text_view(j, n->bytes, n->size, &name) &&
           jinja_undefined(j, NULL, jinja_absent(), name, out);
}

/* ---- attributes and items ---------------------------------------------------------------------- */

static bool undefined_of(struct jinja *j, struct jinja_value object, struct jinja_value name,
                         struct jinja_value *out) {
    return jinja_undefined(j, NULL, object, name, out);
}

static bool forbidden(struct jinja *j, struct jinja_value name, struct jinja_value *out) {
    return jinja_undefined(j, "access to this attribute is unsafe", jinja_absent(), name, out);
}

static bool loop_attribute(struct jinja *j, struct jinja_loop *l, struct jinja_value name,
                           struct jinja_value *out) {
    const struct jinja_seq *seq = &l->seq;
    size_t i = l->index0;
    if (jinja_text_is(name, "index"))
        *out = jinja_int((int64_t)i + 1);
    else if (jinja_text_is(name, "index0"))
        *out = jinja_int((int64_t)i);
    else if (jinja_text_is(name, "first"))
        *out = jinja_bool(i == 0);
    else if (jinja_text_is(name, "last"))
        *out = jinja_bool(i + 1 >= seq->count);
    else if (jinja_text_is(name, "length"))
        *out = jinja_int((int64_t)seq->count);
    else if (jinja_text_is(name, "revindex"))
        *out = jinja_int((int64_t)seq->count - (int64_t)i);
    else if (jinja_text_is(name, "revindex0"))
        *out = jinja_int((int64_t)seq->count - (int64_t)i - 1);
    else if (jinja_text_is(name, "depth"))
        *out = jinja_int(l->depth0 + 1);
    else if (jinja_text_is(name, "depth0"))
        *out = jinja_int(l->depth0);
    else if (jinja_text_is(name, "previtem")) {
        if (!i) return jinja_undefined(j, "there is no previous item", jinja_absent(), name, out);
        *out = jinja_seq_item(seq, i - 1);
    } else if (jinja_text_is(name, "nextitem")) {
        if (i + 1 >= seq->count)
            return jinja_undefined(j, "there is no next item", jinja_absent(), name, out);
        *out = jinja_seq_item(seq, i + 1);
    } else
        return false;
    return true;
}

static bool macro_attribute(struct jinja *j, const struct jinja_macro *m, struct jinja_value name,
                            struct jinja_value *out) {
    const struct jinja_signature *s = m->node->signature;
    if (jinja_text_is(name, "name"))
        *out = m->node->value.kind == JINJA_TEXT ? m->node->value : jinja_none();
    else if (jinja_text_is(name, "catch_kwargs"))
        *out = jinja_bool(s->uses_kwargs);
    else if (jinja_text_is(name, "catch_varargs"))
        *out = jinja_bool(s->uses_varargs);
    else if (jinja_text_is(name, "caller"))
        *out = jinja_bool(s->uses_caller);
    else if (jinja_text_is(name, "arguments")) {
        struct jinja_list *list = jinja_list_new(j, s->count);
        for (size_t i = 0; list && i < s->count; i++) list->items[list->count++] = s->texts[i];
        *out = list ? jinja_of_list(JINJA_TUPLE, list) : jinja_none();
    } else
        return false;
    return true;
}

/* What getattr() finds on the Python object: methods and fields, not items. *found tells. */
static bool python_attribute(struct jinja *j, struct jinja_value object, struct jinja_value name, bool *found,
                             struct jinja_value *out) {
    const struct jinja_text *n = name.text;
    *found = true;
    if (n->size >= 4 && memcmp(n->bytes, "__", 2) == 0 && memcmp(n->bytes + n->size - 2, "__", 2) == 0)
        return forbidden(j, name, out);
    const struct jinja_method *method = jinja_method_find(object.kind, n->bytes, n->size);
    if (method && !method->run) return forbidden(j, name, out);
    if (method) {
        struct jinja_bound *bound = jinja_alloc(j, sizeof *bound);
        if (!bound) return false;
        *bound = (struct jinja_bound){object, method};
        *out = (struct jinja_value){.kind = JINJA_METHOD, .bound = bound};
        return true;
    }
    switch (object.kind) {
    case JINJA_LOOP: *found = loop_attribute(j, object.loop, name, out); break;
    case JINJA_MACRO: *found = macro_attribute(j, object.macro, name, out); break;
    case JINJA_NAMESPACE: {
        struct jinja_entry *entry = jinja_dict_find_name(object.dict, n->bytes, n->size);
        *found = entry != NULL;
        if (entry) *out = entry->value;
        break;
    }
    case JINJA_TUPLE:
        *found = object.list->group && (jinja_text_is(name, "grouper") || jinja_text_is(name, "list"));
        if (*found) *out = object.list->items[jinja_text_is(name, "list")];
        break;
    case JINJA_RANGE:
        if (jinja_text_is(name, "start"))
            *out = jinja_int(object.range->start);
        else if (jinja_text_is(name, "stop"))
            *out = jinja_int(object.range->stop);
        else if (jinja_text_is(name, "step"))
            *out = jinja_int(object.range->step);
        else
            *found = false;
        break;
    case JINJA_CYCLER:
        *found = jinja_text_is(name, "current");
        if (*found) *out = object.list->items[object.list->next];
        break;
    default: *found = false;
    }
    return true;
}

/* obj[key]; *found is false where Python raises TypeError or LookupError. */
static bool python_item(struct jinja *j, struct jinja_value object, struct jinja_value key, bool *found,
                        struct jinja_value *out) {
    size_t length;
    *found = false;
    if (object.kind == JINJA_DICT) {
        struct jinja_entry *entry;
        if (key.kind == JINJA_LIST || key.kind == JINJA_DICT) return true;
        if (!jinja_dict_find(j, object.dict, key, &entry)) return false;
        *found = entry != NULL;
        if (entry) *out = entry->value;
        return true;
    }
    bool sequence = object.kind == JINJA_LIST || object.kind == JINJA_TUPLE || object.kind == JINJA_TEXT ||
                    object.kind == JINJA_RANGE;
    if (!sequence || !jinja_is_int(key)) return true;
    if (!jinja_length(j, object, &length)) return false;
    int64_t index = jinja_number_int(key);
    if (index < 0) index += (int64_t)length;
    if (index < 0 || (uint64_t)index >= length) return true;
    *found = true;
    if (object.kind == JINJA_TEXT) return jinja_text_at(j, object.text, (size_t)index, out);
    *out = object.kind == JINJA_RANGE ? jinja_int(jinja_range_item(object.range, (size_t)index))
                                      : object.list->items[index];
    return true;
}

bool jinja_attribute(struct jinja *j, struct jinja_value object, struct jinja_value name,
                     struct jinja_value *out) {
    bool found;
    if (object.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, object);
    if (!python_attribute(j, object, name, &found, out)) return false;
    if (!found && !python_item(j, object, name, &found, out)) return false;
    return found || undefined_of(j, object, name, out);
}

bool jinja_item(struct jinja *j, struct jinja_value object, struct jinja_value key, struct jinja_value *out) {
    bool found;
    if (object.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, object);
    if (!python_item(j, object, key, &found, out)) return false;
    if (!found && key.kind == JINJA_TEXT && !python_attribute(j, object, key, &found, out)) return false;
    return found || undefined_of(j, object, key, out);
}

/* ---- slices ------------------------------------------------------------------------------------ */

static bool slice_index(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                        bool *given, int64_t *out) {
    struct jinja_value value;
    *given = false;
    if (!node) return true;
    if (!jinja_eval(j, scope, node, &value)) return false;
    if (value.kind == JINJA_NONE) return true;
    if (!jinja_is_int(value)) return jinja_fail(j, "slice indices must be integers or None");
    *given = true;
    *out = jinja_number_int(value);
    return true;
}

static int64_t clamp(int64_t index, int64_t length, int64_t low, int64_t high) {
    if (index < 0) index = index < -length - 1 ? -1 : index + length;
    return index < low ? low : index > high ? high : index;
}

static bool slice_list(struct jinja *j, struct jinja_value object, int64_t start, int64_t step, size_t count,
                       struct jinja_value *out) {
    struct jinja_list *list = jinja_list_new(j, count);
    if (!list || !jinja_charge(j, count / 4)) return false;
    for (size_t i = 0; i < count; i++, start += step) list->items[i] = object.list->items[start];
    list->count = count;
    *out = jinja_of_list(object.kind, list);
    return true;
}

/* The number at a place from -1 to the count: one of the two ends lies beyond the range, and may not fit. */
static bool range_place(const struct jinja_range *range, int64_t place, int64_t *out) {
    int64_t last = (int64_t)range->count - 1, inside = place > last ? last : place, beyond;
    if (inside < 0) inside = 0;
    return !__builtin_mul_overflow(place - inside, range->step, &beyond) &&
           !__builtin_add_overflow(jinja_range_item(range, (size_t)inside), beyond, out);
}

static bool slice_range(struct jinja *j, const struct jinja_range *from, int64_t start, int64_t stop,
                        int64_t step, size_t count, struct jinja_value *out) {
    struct jinja_range *range = jinja_alloc(j, sizeof *range);
    if (!range) return false;
    *range = (struct jinja_range){.count = count};
    if (__builtin_mul_overflow(from->step, step, &range->step) || !range_place(from, start, &range->start) ||
        !range_place(from, stop, &range->stop))
        return jinja_fail(j, "the integer is too large (64 bits)");
    *out = (struct jinja_value){.kind = JINJA_RANGE, .range = range};
    return true;
}

static bool eval_slice(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                       struct jinja_value *out) {
    struct jinja_value object;
    bool has[3];
    int64_t at[3] = {0, 0, 1};
    size_t size;
    if (!jinja_eval(j, scope, node->left, &object)) return false;
    for (int i = 0; i < 3; i++)
        if (!slice_index(j, scope, node->items[i], &has[i], &at[i])) return false;
    if (object.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, object);
    if (object.kind != JINJA_TEXT && object.kind != JINJA_LIST && object.kind != JINJA_TUPLE &&
        object.kind != JINJA_RANGE)
        return jinja_fail(j, "'%s' object cannot be sliced", jinja_type_name(object));
    if (!jinja_length(j, object, &size)) return false;
    int64_t length = (int64_t)size, step = has[2] ? at[2] : 1;
    if (!step) return jinja_fail(j, "slice step cannot be zero");
    if (step > length + 1) step = length + 1;
    if (step < -length - 1) step = -length - 1;
    int64_t low = step > 0 ? 0 : -1, high = step > 0 ? length : length - 1;
    int64_t start = has[0] ? clamp(at[0], length, low, high) : step > 0 ? 0 : length - 1;
    int64_t stop = has[1] ? clamp(at[1], length, low, high) : step > 0 ? length : -1;
    size_t count = step > 0 ? (stop > start ? (size_t)((stop - start - 1) / step + 1) : 0)
                            : (start > stop ? (size_t)((start - stop - 1) / -step + 1) : 0);
    if (object.kind == JINJA_TEXT) return jinja_text_slice(j, object.text, start, step, count, out);
    if (object.kind == JINJA_RANGE) return slice_range(j, object.range, start, stop, step, count, out);
    return slice_list(j, object, start, step, count, out);
}

/* ---- the rest of the expressions --------------------------------------------------------------- */

static bool eval_list(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_list *list = jinja_list_new(j, node->count);
    if (!list) return false;
    for (size_t i = 0; i < node->count; i++) {
        struct jinja_value item;
        if (!jinja_eval(j, scope, node->items[i], &item)) return false;
        list->items[list->count++] = item;
    }
    *out = jinja_of_list(node->type == NODE_LIST ? JINJA_LIST : JINJA_TUPLE, list);
    return true;
}

static bool eval_dict(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_dict *dict = jinja_dict_new(j);
    if (!dict) return false;
    for (size_t i = 0; i < node->count; i += 2) {
        struct jinja_value key, value;
        if (!jinja_eval(j, scope, node->items[i], &key) ||
            !jinja_eval(j, scope, node->items[i + 1], &value) || !jinja_dict_set(j, dict, key, value))
            return false;
    }
    *out = jinja_of_dict(dict);
    return true;
}

static bool eval_compare(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                         struct jinja_value *out) {
    struct jinja_value left, right;
    bool holds = true;
    if (!jinja_eval(j, scope, node->items[0], &left)) return false;
    for (size_t i = 1; i < node->count && holds; i++, left = right) {
        enum jinja_op op = node->ops[i];
        if (!jinja_eval(j, scope, node->items[i], &right)) return false;
        bool ok = op == OP_EQ || op == OP_NE       ? jinja_equal(j, left, right, &holds)
                  : op == OP_IN || op == OP_NOT_IN ? jinja_contains(j, left, right, &holds)
                                                   : jinja_order(j, op, left, right, &holds);
        if (!ok) return false;
        if (op == OP_NE || op == OP_NOT_IN) holds = !holds;
    }
    *out = jinja_bool(holds);
    return true;
}

static bool eval_concat(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                        struct jinja_value *out) {
    struct jinja_value joined, next;
    if (!jinja_eval(j, scope, node->items[0], &joined) || !jinja_str(j, joined, &joined)) return false;
    for (size_t i = 1; i < node->count; i++) {
        if (!jinja_eval(j, scope, node->items[i], &next) || !jinja_str(j, next, &next) ||
            !jinja_text_append(j, joined, next, &joined))
            return false;
    }
    if (joined.text->markup) { /* "".join() gives a plain text */
        struct jinja_text *tail = joined.text;
        if (!jinja_text_view(j, tail->bytes, tail->size, &joined)) return false;
    }
    *out = joined;
    return true;
}

static bool eval_arithmetic(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                            struct jinja_value *out) {
    struct jinja_value left, right;
    if (!jinja_eval(j, scope, node->items[0], &left)) return false;
    for (size_t i = 1; i < node->count; i++) {
        if (!jinja_eval(j, scope, node->items[i], &right)) return false;
        if (!jinja_arithmetic(j, node->ops[i], left, right, &left)) return false;
    }
    *out = left;
    return true;
}

static bool eval_logic(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                       struct jinja_value *out) {
    for (size_t i = 0; i < node->count; i++) {
        if (!jinja_eval(j, scope, node->items[i], out)) return false;
        if (jinja_truth(*out) == (node->type == NODE_OR)) break;
    }
    return true;
}

static bool eval_condition(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                           struct jinja_value *out) {
    struct jinja_value test;
    while (node->type == NODE_CONDITION) {
        if (!jinja_step(j) || !jinja_eval(j, scope, node->right, &test)) return false;
        if (jinja_truth(test)) return jinja_eval(j, scope, node->left, out);
        if (!node->third)
            return jinja_undefined(
                j, "the inline if-expression evaluated to false and no else section was defined",
                jinja_absent(), jinja_none(), out);
        node = node->third;
    }
    return jinja_eval(j, scope, node, out);
}

static bool star_args(struct jinja *j, struct jinja_value star, struct jinja_args *out) {
    struct jinja_list *list;
    if (!jinja_list_of(j, star, &list)) return false;
    struct jinja_value *values = jinja_alloc_array(j, out->count + list->count, sizeof *values);
    if (!values) return false;
    if (out->count) memcpy(values, out->values, out->count * sizeof *values);
    if (list->count) memcpy(values + out->count, list->items, list->count * sizeof *values);
    out->values = values;
    out->count += list->count;
    return true;
}

static bool star_named(struct jinja *j, struct jinja_value star, struct jinja_args *out) {
    if (star.kind != JINJA_DICT)
        return jinja_fail(j, "the argument behind ** must be a mapping, not %s", jinja_type_name(star));
    struct jinja_named *named = jinja_alloc_array(j, out->named_count + star.dict->count, sizeof *named);
    if (!named || !jinja_charge(j, star.dict->count * (1 + out->named_count))) return false;
    if (out->named_count) memcpy(named, out->named, out->named_count * sizeof *named);
    for (size_t i = 0; i < star.dict->count; i++) {
        const struct jinja_entry *entry = &star.dict->entries[i];
        bool same = false;
        if (entry->key.kind != JINJA_TEXT) return jinja_fail(j, "keywords must be strings");
        for (size_t k = 0; k < out->named_count && !same; k++)
            if (!jinja_equal(j, out->named[k].name, entry->key, &same)) return false;
        if (same) return jinja_fail(j, "got multiple values for a keyword argument");
        named[out->named_count + i] = (struct jinja_named){entry->key, entry->value};
    }
    out->named = named;
    out->named_count += star.dict->count;
    return true;
}

bool jinja_eval_args(struct jinja *j, struct jinja_scope *scope, const struct jinja_arguments *a,
                     struct jinja_args *out) {
    struct jinja_value star;
    *out = (struct jinja_args){0};
    if (!a) return true;
    out->values = a->count ? jinja_alloc_array(j, a->count, sizeof *out->values) : NULL;
    out->named = a->named_count ? jinja_alloc_array(j, a->named_count, sizeof *out->named) : NULL;
    if ((a->count && !out->values) || (a->named_count && !out->named)) return false;
    for (; out->count < a->count; out->count++)
        if (!jinja_eval(j, scope, a->values[out->count], &out->values[out->count])) return false;
    for (; out->named_count < a->named_count; out->named_count++) {
        out->named[out->named_count].name = a->names[out->named_count];
        if (!jinja_eval(j, scope, a->named[out->named_count], &out->named[out->named_count].value))
            return false;
    }
    if (a->star && (!jinja_eval(j, scope, a->star, &star) || !star_args(j, star, out))) return false;
    return !a->star_star || (jinja_eval(j, scope, a->star_star, &star) && star_named(j, star, out));
}

static bool eval_call(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_value callee;
    struct jinja_args args;
    if (!jinja_eval(j, scope, node->left, &callee) || !jinja_eval_args(j, scope, node->arguments, &args))
        return false;
    j->line = node->line;
    return jinja_call(j, callee, &args, out);
}

static bool eval_filter(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                        struct jinja_value *out) {
    struct jinja_value self;
    struct jinja_args args;
    char missing[jinja_missing_size];
    if (!node->filter) {
        j->line = node->line;
        jinja_filter_missing(node->value.text, missing);
        return jinja_fail(j, "%s", missing);
    }
    if (!jinja_eval(j, scope, node->left, &self) || !jinja_eval_args(j, scope, node->arguments, &args))
        return false;
    j->line = node->line;
    return jinja_call_filter(j, node->filter, self, &args, out);
}

static bool eval_test(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_value self;
    struct jinja_args args;
    bool holds;
    if (!node->test) {
        j->line = node->line;
        return jinja_fail(j, "no test named '%.*s'", (int)(node->value.text->size & 63),
                          node->value.text->bytes);
    }
    if (!jinja_eval(j, scope, node->left, &self) || !jinja_eval_args(j, scope, node->arguments, &args))
        return false;
    j->line = node->line;
    if (!jinja_call_test(j, node->test, self, &args, &holds)) return false;
    *out = jinja_bool(holds);
    return true;
}

static bool eval_node(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_value left, right;
    switch (node->type) {
    case NODE_LIST:
    case NODE_TUPLE: return eval_list(j, scope, node, out);
    case NODE_DICT: return eval_dict(j, scope, node, out);
    case NODE_ATTRIBUTE:
        return jinja_eval(j, scope, node->left, &left) && jinja_attribute(j, left, node->value, out);
    case NODE_ITEM:
        return jinja_eval(j, scope, node->left, &left) && jinja_eval(j, scope, node->right, &right) &&
               jinja_item(j, left, right, out);
    case NODE_SLICE: return eval_slice(j, scope, node, out);
    case NODE_CALL: return eval_call(j, scope, node, out);
    case NODE_FILTER: return eval_filter(j, scope, node, out);
    case NODE_TEST: return eval_test(j, scope, node, out);
    case NODE_CONDITION: return eval_condition(j, scope, node, out);
    case NODE_AND:
    case NODE_OR: return eval_logic(j, scope, node, out);
    case NODE_NOT:
        if (!jinja_eval(j, scope, node->left, &left)) return false;
        *out = jinja_bool(!jinja_truth(left));
        return true;
    case NODE_NEGATIVE:
    case NODE_POSITIVE:
        return jinja_eval(j, scope, node->left, &left) &&
               jinja_negate(j, left, node->type == NODE_NEGATIVE, out);
    case NODE_ARITHMETIC: return eval_arithmetic(j, scope, node, out);
    case NODE_COMPARE: return eval_compare(j, scope, node, out);
    case NODE_CONCAT: return eval_concat(j, scope, node, out);
    default:
        return error_set(j->err, ERROR_INTERNAL, "template", "a statement stands where an expression should");
    }
}

bool jinja_eval(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                struct jinja_value *out) {
    if (!jinja_step(j)) return false;
    if (node->type == NODE_CONST) {
        *out = node->value;
        return true;
    }
    j->line = node->line;
    if (node->type == NODE_NAME) return eval_name(j, scope, node, out);
    if (!jinja_enter(j) || !eval_node(j, scope, node, out)) return false;
    jinja_leave(j);
    return true;
}
