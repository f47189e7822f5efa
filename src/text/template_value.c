/* Values and what Python does with them: truth, equality, order, membership, length, iteration. */
#include <string.h>

#include "text/template_internal.h"

const char *jinja_type_name(struct jinja_value value) {
    static const char *const names[] = {
        [JINJA_ABSENT] = "missing",
        [JINJA_UNDEFINED] = "Undefined",
        [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",
        [JINJA_INT] = "int",
        [JINJA_FLOAT] = "float",
        [JINJA_TEXT] = "str",
        [JINJA_LIST] = "list",
        [JINJA_TUPLE] = "tuple",
        [JINJA_DICT] = "dict",
        [JINJA_VIEW] = "dict view",
        [JINJA_RANGE] = "range",
        [JINJA_GENERATOR] = "generator",
        [JINJA_NAMESPACE] = "Namespace",
        [JINJA_MACRO] = "Macro",
        [JINJA_FUNCTION] = "function",
        [JINJA_METHOD] = "method",
        [JINJA_LOOP] = "LoopContext",
        [JINJA_CYCLER] = "Cycler",
        [JINJA_JOINER] = "Joiner",
    };
    return names[value.kind];
}

bool jinja_truth(struct jinja_value v) {
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE:
    case JINJA_ABSENT: return false;
    case JINJA_BOOL: return v.boolean;
    case JINJA_INT: return v.integer != 0;
    case JINJA_FLOAT: return v.real != 0;
    case JINJA_TEXT: return v.text->size != 0;
    case JINJA_LIST:
    case JINJA_TUPLE: return v.list->count != 0;
    case JINJA_DICT: return v.dict->count != 0;
    case JINJA_VIEW: return v.view->dict->count != 0;
    case JINJA_RANGE: return v.range->count != 0;
    default: return true;
    }
}

bool jinja_undefined(struct jinja *j, const char *hint, struct jinja_value object, struct jinja_value name,
                     struct jinja_value *out) {
    struct jinja_missing *missing = jinja_alloc(j, sizeof *missing);
    if (!missing) return false;
    *missing = (struct jinja_missing){.hint = hint, .object = object, .name = name};
    *out = (struct jinja_value){.kind = JINJA_UNDEFINED, .missing = missing};
    return true;
}

bool jinja_undefined_fail(struct jinja *j, struct jinja_value value) {
    const struct jinja_missing *m = value.missing;
    if (m->hint) return jinja_fail(j, "%s", m->hint);
    struct buf name = {.limit = 200};
    jinja_write_repr(j, m->name, &name);
    const char *shown = name.data ? name.data : "";
    if (m->object.kind == JINJA_ABSENT)
        jinja_fail(j, "%s is undefined", shown);
    else if (m->name.kind != JINJA_TEXT)
        jinja_fail(j, "%s object has no element %s", jinja_type_name(m->object), shown);
    else
        jinja_fail(j, "'%s object' has no attribute %s", jinja_type_name(m->object), shown);
    buf_release(&name);
    return false;
}

/* ---- lists and dicts --------------------------------------------------------------------------- */

struct jinja_list *jinja_list_new(struct jinja *j, size_t capacity) {
    struct jinja_list *list = jinja_alloc(j, sizeof *list);
    if (!list || !capacity) return list;
    list->items = jinja_alloc_array(j, capacity, sizeof *list->items);
    list->capacity = capacity;
    return list->items ? list : NULL;
}

bool jinja_list_add(struct jinja *j, struct jinja_list *list, struct jinja_value value) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 8;
        struct jinja_value *items = jinja_alloc_array(j, capacity, sizeof *items);
        if (!items) return false;
        if (list->count) memcpy(items, list->items, list->count * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = value;
    return true;
}

struct jinja_dict *jinja_dict_new(struct jinja *j) {
    return jinja_alloc(j, sizeof(struct jinja_dict));
}

static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t hash_bytes(const char *bytes, size_t size) {
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)bytes[i]) * 1099511628211u;
    return mix(h);
}

/* Equal values have equal hashes: 1, 1.0 and True are one key. */
static bool hash_value(struct jinja *j, struct jinja_value v, uint64_t *out) {
    switch (v.kind) {
    case JINJA_TEXT: *out = hash_bytes(v.text->bytes, v.text->size); return jinja_charge(j, v.text->size / 8);
    case JINJA_BOOL:
    case JINJA_INT: *out = mix((uint64_t)jinja_number_int(v)); return true;
    case JINJA_FLOAT:
        if (v.real >= -9e18 && v.real <= 9e18 && v.real == (double)(int64_t)v.real)
            *out = mix((uint64_t)(int64_t)v.real);
        else
            *out = hash_bytes((const char *)&v.real, sizeof v.real);
        return true;
    case JINJA_TUPLE: {
        uint64_t h = v.list->count, one;
        if (!jinja_enter(j)) return false;
        for (size_t i = 0; i < v.list->count; i++) {
            if (!jinja_step(j) || !hash_value(j, v.list->items[i], &one)) return false;
            h = mix(h * 31 + one);
        }
        jinja_leave(j);
        *out = h;
        return true;
    }
    case JINJA_LIST:
    case JINJA_DICT:
    case JINJA_VIEW: return jinja_fail(j, "unhashable type: '%s'", jinja_type_name(v));
    default:
        *out = mix((uint64_t)v.kind + (v.kind > JINJA_NONE ? (uint64_t)(uintptr_t)v.list : 0));
        return true;
    }
}

enum { few_entries = 8 };

static bool dict_rehash(struct jinja *j, struct jinja_dict *d) {
    size_t slots = d->capacity * 2;
    d->slots = jinja_alloc_array(j, slots, sizeof *d->slots);
    if (!d->slots) return false;
    d->slot_count = slots;
    for (size_t i = 0; i < d->count; i++) {
        size_t at = d->entries[i].hash & (slots - 1);
        while (d->slots[at]) at = (at + 1) & (slots - 1);
        d->slots[at] = (uint32_t)i + 1;
    }
    return true;
}

static bool find_hashed(struct jinja *j, const struct jinja_dict *d, struct jinja_value key, uint64_t hash,
                        struct jinja_entry **out) {
    bool same = false;
    *out = NULL;
    size_t at = d->slots ? hash & (d->slot_count - 1) : 0;
    for (size_t n = 0; d->slots ? d->slots[at] != 0 : n < d->count; n++) {
        struct jinja_entry *e = &d->entries[d->slots ? d->slots[at] - 1 : n];
        if (e->hash == hash) {
            if (!jinja_equal(j, e->key, key, &same)) return false;
            if (same) {
                *out = e;
                return true;
            }
        }
        if (n > few_entries && !jinja_step(j)) return false;
        if (d->slots) at = (at + 1) & (d->slot_count - 1);
    }
    return true;
}

bool jinja_dict_find(struct jinja *j, const struct jinja_dict *dict, struct jinja_value key,
                     struct jinja_entry **out) {
    uint64_t hash;
    return hash_value(j, key, &hash) && find_hashed(j, dict, key, hash, out);
}

struct jinja_entry *jinja_dict_find_name(const struct jinja_dict *d, const char *bytes, size_t size) {
    uint64_t hash = d->slots ? hash_bytes(bytes, size) : 0;
    size_t at = d->slots ? hash & (d->slot_count - 1) : 0;
    for (size_t n = 0; d->slots ? d->slots[at] != 0 : n < d->count; n++) {
        struct jinja_entry *e = &d->entries[d->slots ? d->slots[at] - 1 : n];
        if (e->key.kind == JINJA_TEXT && e->key.text->size == size &&
            memcmp(e->key.text->bytes, bytes, size) == 0)
            return e;
        if (d->slots) at = (at + 1) & (d->slot_count - 1);
    }
    return NULL;
}

bool jinja_dict_set(struct jinja *j, struct jinja_dict *d, struct jinja_value key, struct jinja_value value) {
    uint64_t hash;
    struct jinja_entry *found;
    if (!hash_value(j, key, &hash) || !find_hashed(j, d, key, hash, &found)) return false;
    if (found) {
        found->value = value;
        return true;
    }
    if (d->count == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : few_entries;
        struct jinja_entry *entries = jinja_alloc_array(j, capacity, sizeof *entries);
        if (!entries) return false;
        if (d->count) memcpy(entries, d->entries, d->count * sizeof *entries);
        d->entries = entries;
        d->capacity = capacity;
        if (capacity > few_entries && !dict_rehash(j, d)) return false;
    }
    d->entries[d->count++] = (struct jinja_entry){key, value, hash};
    if (!d->slots) return true;
    size_t at = hash & (d->slot_count - 1);
    while (d->slots[at]) at = (at + 1) & (d->slot_count - 1);
    d->slots[at] = (uint32_t)d->count;
    return true;
}

/* ---- equality and order ------------------------------------------------------------------------ */

static bool lists_equal(struct jinja *j, const struct jinja_list *a, const struct jinja_list *b, bool *out) {
    *out = a->count == b->count;
    if (a == b || !*out) return true;
    if (!jinja_enter(j)) return false;
    for (size_t i = 0; i < a->count && *out; i++)
        if (!jinja_step(j) || !jinja_equal(j, a->items[i], b->items[i], out)) return false;
    jinja_leave(j);
    return true;
}

static bool dicts_equal(struct jinja *j, const struct jinja_dict *a, const struct jinja_dict *b, bool *out) {
    *out = a->count == b->count;
    if (a == b || !*out) return true;
    if (!jinja_enter(j)) return false;
    for (size_t i = 0; i < a->count && *out; i++) {
        struct jinja_entry *other;
        if (!jinja_step(j) || !find_hashed(j, b, a->entries[i].key, a->entries[i].hash, &other)) return false;
        *out = other != NULL;
        if (other && !jinja_equal(j, a->entries[i].value, other->value, out)) return false;
    }
    jinja_leave(j);
    return true;
}

static bool texts_equal(struct jinja *j, const struct jinja_text *a, const struct jinja_text *b, bool *out) {
    *out = a->size == b->size && memcmp(a->bytes, b->bytes, a->size) == 0;
    return a->size != b->size || jinja_charge(j, a->size / 64);
}

bool jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b, bool *out) {
    if (jinja_is_number(a) && jinja_is_number(b)) {
        *out = jinja_compare_numbers(a, b) == 0;
        return true;
    }
    *out = false;
    if (a.kind != b.kind) return true;
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: *out = true; return true;
    case JINJA_TEXT: return texts_equal(j, a.text, b.text, out);
    case JINJA_LIST:
    case JINJA_TUPLE: return lists_equal(j, a.list, b.list, out);
    case JINJA_DICT: return dicts_equal(j, a.dict, b.dict, out);
    case JINJA_RANGE:
        *out = a.range->count == b.range->count &&
               (!a.range->count || (a.range->start == b.range->start &&
                                    (a.range->count == 1 || a.range->step == b.range->step)));
        return true;
    case JINJA_METHOD: *out = a.bound == b.bound; return true;
    default: *out = a.list == b.list; return true;
    }
}

static bool ordered(enum jinja_op op, int sign) {
    switch (op) {
    case OP_LT: return sign < 0;
    case OP_LE: return sign <= 0;
    case OP_GT: return sign > 0;
    default: return sign >= 0;
    }
}

static const char *op_text(enum jinja_op op) {
    return op == OP_LT ? "<" : op == OP_LE ? "<=" : op == OP_GT ? ">" : ">=";
}

static bool order_lists(struct jinja *j, enum jinja_op op, const struct jinja_list *a,
                        const struct jinja_list *b, bool *out) {
    bool same = true;
    size_t i = 0;
    for (; i < a->count && i < b->count; i++) {
        if (!jinja_step(j) || !jinja_equal(j, a->items[i], b->items[i], &same)) return false;
        if (!same) break;
    }
    if (same) {
        *out = ordered(op, a->count < b->count ? -1 : a->count > b->count);
        return true;
    }
    if (!jinja_enter(j) || !jinja_order(j, op, a->items[i], b->items[i], out)) return false;
    jinja_leave(j);
    return true;
}

bool jinja_order(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b, bool *out) {
    if (jinja_is_number(a) && jinja_is_number(b)) {
        int sign = jinja_compare_numbers(a, b);
        *out = sign != 2 && ordered(op, sign);
        return true;
    }
    if (a.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, a);
    if (b.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, b);
    if (a.kind == JINJA_TEXT && b.kind == JINJA_TEXT) {
        size_t shorter = a.text->size < b.text->size ? a.text->size : b.text->size;
        int sign = memcmp(a.text->bytes, b.text->bytes, shorter);
        if (!sign) sign = a.text->size < b.text->size ? -1 : a.text->size > b.text->size;
        *out = ordered(op, sign);
        return jinja_charge(j, shorter / 64);
    }
    if (a.kind == b.kind && (a.kind == JINJA_LIST || a.kind == JINJA_TUPLE))
        return order_lists(j, op, a.list, b.list, out);
    return jinja_fail(j, "'%s' not supported between instances of '%s' and '%s'", op_text(op),
                      jinja_type_name(a), jinja_type_name(b));
}

static bool in_sequence(struct jinja *j, struct jinja_value item, struct jinja_value container, bool *out) {
    struct jinja_seq seq;
    if (!jinja_seq_open(j, container, &seq)) return false;
    for (size_t i = 0; i < seq.count && !*out; i++)
        if (!jinja_step(j) || !jinja_equal(j, jinja_seq_item(&seq, i), item, out)) return false;
    return true;
}

bool jinja_contains(struct jinja *j, struct jinja_value item, struct jinja_value container, bool *out) {
    struct jinja_entry *entry;
    *out = false;
    switch (container.kind) {
    case JINJA_TEXT:
        if (item.kind != JINJA_TEXT)
            return jinja_fail(j, "'in <string>' requires string as left operand, not %s",
                              jinja_type_name(item));
        *out = jinja_text_find(container.text->bytes, container.text->size, item.text->bytes,
                               item.text->size) != SIZE_MAX;
        return jinja_charge(j, container.text->size / 8);
    case JINJA_DICT:
        if (!jinja_dict_find(j, container.dict, item, &entry)) return false;
        *out = entry != NULL;
        return true;
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_VIEW:
    case JINJA_RANGE:
    case JINJA_GENERATOR:
    case JINJA_UNDEFINED: return in_sequence(j, item, container, out);
    default: return jinja_fail(j, "argument of type '%s' is not iterable", jinja_type_name(container));
    }
}

/* ---- length and iteration ---------------------------------------------------------------------- */

bool jinja_length(struct jinja *j, struct jinja_value v, size_t *out) {
    switch (v.kind) {
    case JINJA_UNDEFINED: *out = 0; return true;
    case JINJA_TEXT: return jinja_text_length(j, v.text, out);
    case JINJA_LIST:
    case JINJA_TUPLE: *out = v.list->count; return true;
    case JINJA_DICT: *out = v.dict->count; return true;
    case JINJA_VIEW: *out = v.view->dict->count; return true;
    case JINJA_RANGE: *out = v.range->count; return true;
    case JINJA_LOOP: *out = v.loop->seq.count; return true;
    default: return jinja_fail(j, "object of type '%s' has no len()", jinja_type_name(v));
    }
}

bool jinja_is_iterable(struct jinja_value v) {
    return v.kind == JINJA_UNDEFINED || (v.kind >= JINJA_TEXT && v.kind <= JINJA_GENERATOR) ||
           v.kind == JINJA_LOOP;
}

static struct jinja_list *view_list(struct jinja *j, const struct jinja_dict *dict,
                                    enum jinja_view_kind kind) {
    struct jinja_list *list = jinja_list_new(j, dict->count);
    if (!list || !jinja_charge(j, dict->count)) return NULL;
    for (size_t i = 0; i < dict->count; i++) {
        struct jinja_value item = kind == JINJA_VALUES ? dict->entries[i].value : dict->entries[i].key;
        if (kind == JINJA_ITEMS) {
            struct jinja_list *pair = jinja_list_new(j, 2);
            if (!pair) return NULL;
            pair->items[0] = item;
            pair->items[1] = dict->entries[i].value;
            pair->count = 2;
            item = jinja_of_list(JINJA_TUPLE, pair);
        }
        list->items[list->count++] = item;
    }
    return list;
}

bool jinja_seq_open(struct jinja *j, struct jinja_value v, struct jinja_seq *seq) {
    *seq = (struct jinja_seq){0};
    switch (v.kind) {
    case JINJA_UNDEFINED: return (seq->list = jinja_list_new(j, 0)) != NULL;
    case JINJA_RANGE:
        seq->range = v.range;
        seq->count = v.range->count;
        return true;
    case JINJA_TEXT:
        if (!jinja_text_chars(j, v.text, &seq->list)) return false;
        break;
    case JINJA_LIST:
    case JINJA_TUPLE: seq->list = v.list; break;
    case JINJA_GENERATOR:
        seq->list = v.list;
        seq->first = v.list->next;
        v.list->next = v.list->count;
        break;
    case JINJA_DICT: seq->list = view_list(j, v.dict, JINJA_KEYS); break;
    case JINJA_VIEW: seq->list = view_list(j, v.view->dict, v.view->kind); break;
    default: return jinja_fail(j, "'%s' object is not iterable", jinja_type_name(v));
    }
    if (!seq->list) return false;
    seq->count = seq->list->count - seq->first;
    return true;
}

bool jinja_list_of(struct jinja *j, struct jinja_value value, struct jinja_list **out) {
    struct jinja_seq seq;
    if (!jinja_seq_open(j, value, &seq) || !jinja_charge(j, seq.count / 4)) return false;
    if (seq.list && !seq.first && (value.kind != JINJA_GENERATOR)) {
        *out = seq.list;
        return true;
    }
    struct jinja_list *list = *out = jinja_list_new(j, seq.count);
    if (!list) return false;
    for (size_t i = 0; i < seq.count; i++) list->items[i] = jinja_seq_item(&seq, i);
    list->count = seq.count;
    return true;
}

/* ---- sorting ----------------------------------------------------------------------------------- */

/* Stable, by < alone, as Python's sort: the right item goes first only when it is strictly smaller
 * (strictly greater when `reverse`). `order` holds item numbers. */
static bool merge(struct jinja *j, const struct jinja_value *keys, const size_t *from, size_t *to, size_t a,
                  size_t b, size_t end, bool reverse) {
    size_t left = a, right = b;
    for (size_t i = a; i < end; i++) {
        bool take_right = right < end;
        if (left < b && right < end) {
            struct jinja_value x = keys[from[left]], y = keys[from[right]];
            if (!jinja_charge(j, 4) || !jinja_order(j, OP_LT, reverse ? x : y, reverse ? y : x, &take_right))
                return false;
        }
        to[i] = take_right ? from[right++] : from[left++];
    }
    return true;
}

bool jinja_sort(struct jinja *j, struct jinja_value *keys, struct jinja_value *items, size_t count,
                bool reverse) {
    size_t *order = jinja_alloc_array(j, count, sizeof *order),
           *other = jinja_alloc_array(j, count, sizeof *other);
    struct jinja_value *sorted = jinja_alloc_array(j, count, sizeof *sorted);
    if (!order || !other || !sorted || !jinja_charge(j, count)) return false;
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t a = 0; a < count; a += 2 * width) {
            size_t b = a + width < count ? a + width : count,
                   end = a + 2 * width < count ? a + 2 * width : count;
            if (!merge(j, keys, order, other, a, b, end, reverse)) return false;
        }
        size_t *swap = order;
        order = other;
        other = swap;
    }
    for (size_t i = 0; i < count; i++) sorted[i] = items[order[i]];
    if (count) memcpy(items, sorted, count * sizeof *items);
    return true;
}
