/* Values as text: str(), repr(), json.dumps(); and JSON as values. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <utf8proc.h>

#include "text/template_internal.h"

/* Steps that writing one value costs, beside those for the bytes of texts. */
enum { item_cost = 4, int_cost = 8, real_cost = 100 };

bool jinja_is_printable(uint32_t c) {
    if (c < 0x7F) return c >= 0x20;
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k != UTF8PROC_CATEGORY_CN && (k < UTF8PROC_CATEGORY_ZS || k > UTF8PROC_CATEGORY_CO);
}

static void repr_text(const struct jinja_text *text, struct buf *out) {
    bool single = memchr(text->bytes, '\'', text->size) && !memchr(text->bytes, '"', text->size);
    char quote = single ? '"' : '\'';
    if (text->markup) buf_text(out, "Markup(");
    buf_byte(out, quote);
    for (size_t i = 0; i < text->size;) {
        uint32_t c = 0;
        int n = utf8_decode(text->bytes + i, text->size - i, &c);
        if (c == (unsigned char)quote || c == '\\')
            buf_printf(out, "\\%c", (char)c);
        else if (c == '\n')
            buf_text(out, "\\n");
        else if (c == '\r')
            buf_text(out, "\\r");
        else if (c == '\t')
            buf_text(out, "\\t");
        else if (jinja_is_printable(c))
            buf_append(out, text->bytes + i, (size_t)n);
        else
            buf_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        i += (size_t)n;
    }
    buf_byte(out, quote);
    if (text->markup) buf_byte(out, ')');
}

static bool repr_items(struct jinja *j, const struct jinja_value *items, size_t count, const char *open,
                       const char *close, struct buf *out) {
    if (!jinja_enter(j)) return false;
    buf_text(out, open);
    for (size_t i = 0; i < count; i++) {
        if (i) buf_text(out, ", ");
        if (!jinja_charge(j, item_cost) || !jinja_write_repr(j, items[i], out)) return false;
    }
    buf_text(out, close);
    jinja_leave(j);
    return true;
}

static bool repr_dict(struct jinja *j, const struct jinja_dict *dict, struct buf *out) {
    if (!jinja_enter(j)) return false;
    buf_byte(out, '{');
    for (size_t i = 0; i < dict->count; i++) {
        if (i) buf_text(out, ", ");
        if (!jinja_charge(j, item_cost) || !jinja_write_repr(j, dict->entries[i].key, out)) return false;
        buf_text(out, ": ");
        if (!jinja_write_repr(j, dict->entries[i].value, out)) return false;
    }
    buf_byte(out, '}');
    jinja_leave(j);
    return true;
}

static bool repr_view(struct jinja *j, struct jinja_value view, struct buf *out) {
    static const char *const names[] = {"dict_keys([", "dict_values([", "dict_items(["};
    struct jinja_seq seq;
    if (!jinja_seq_open(j, view, &seq)) return false;
    return repr_items(j, seq.list->items, seq.count, names[view.view->kind], "])", out);
}

static bool repr_range(const struct jinja_range *range, struct buf *out) {
    buf_printf(out, "range(%lld, %lld", (long long)range->start, (long long)range->stop);
    if (range->step != 1) buf_printf(out, ", %lld", (long long)range->step);
    return buf_byte(out, ')');
}

/* Output that grows past its bound is noticed early, so that a huge value costs little. */
static bool fits(struct jinja *j, const struct buf *out) {
    return !out->failed || jinja_refuse_values(j, out->full);
}

bool jinja_write_repr(struct jinja *j, struct jinja_value v, struct buf *out) {
    if (!fits(j, out)) return false;
    switch (v.kind) {
    case JINJA_NONE: buf_text(out, "None"); return true;
    case JINJA_UNDEFINED: buf_text(out, "Undefined"); return true;
    case JINJA_BOOL: buf_text(out, v.boolean ? "True" : "False"); return true;
    case JINJA_INT: buf_printf(out, "%lld", (long long)v.integer); return jinja_charge(j, int_cost);
    case JINJA_FLOAT: jinja_write_real(v.real, out); return jinja_charge(j, real_cost);
    case JINJA_TEXT: repr_text(v.text, out); return jinja_charge(j, v.text->size / 2);
    case JINJA_LIST: return repr_items(j, v.list->items, v.list->count, "[", "]", out);
    case JINJA_TUPLE:
        return repr_items(j, v.list->items, v.list->count, "(", v.list->count == 1 ? ",)" : ")", out);
    case JINJA_DICT: return repr_dict(j, v.dict, out);
    case JINJA_VIEW: return repr_view(j, v, out);
    case JINJA_RANGE: repr_range(v.range, out); return true;
    case JINJA_NAMESPACE:
        buf_text(out, "<Namespace ");
        if (!repr_dict(j, v.dict, out)) return false;
        buf_byte(out, '>');
        return true;
    case JINJA_GENERATOR:
        buf_printf(out, "<%s object at 0x0>", v.list->maker ? v.list->maker : "generator");
        return true;
    case JINJA_MACRO: {
        struct jinja_value name = v.macro->node->value;
        buf_text(out, "<Macro ");
        if (name.kind == JINJA_TEXT)
            repr_text(name.text, out);
        else
            buf_text(out, "anonymous");
        buf_byte(out, '>');
        return true;
    }
    case JINJA_LOOP:
        buf_printf(out, "<LoopContext %zu/%zu>", v.loop->index0 + 1, v.loop->seq.count);
        return true;
    default: buf_printf(out, "<%s>", jinja_type_name(v)); return true;
    }
}

bool jinja_write(struct jinja *j, struct jinja_value v, struct buf *out) {
    if (v.kind == JINJA_UNDEFINED) return true;
    if (v.kind != JINJA_TEXT) return jinja_write_repr(j, v, out);
    buf_append(out, v.text->bytes, v.text->size);
    return jinja_charge(j, v.text->size / 64);
}

bool jinja_str(struct jinja *j, struct jinja_value v, struct jinja_value *out) {
    struct buf made;
    if (v.kind == JINJA_TEXT) {
        *out = v;
        return true;
    }
    jinja_buf(j, &made);
    if (jinja_write(j, v, &made)) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

bool jinja_repr(struct jinja *j, struct jinja_value v, struct jinja_value *out) {
    struct buf made;
    jinja_buf(j, &made);
    if (jinja_write_repr(j, v, &made)) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

/* ---- json.dumps -------------------------------------------------------------------------------- */

struct dumper {
    struct jinja *j;
    struct buf *out;
    bool ascii, sort, pretty;
    const struct jinja_text *item, *colon, *indent; /* separators, and one level of indentation */
    int level;
};

static bool dump(struct dumper *d, struct jinja_value v);

/* Bytes that json.dumps may write otherwise. */
static bool is_json_special(char c) { return c == '"' || c == '\\' || (unsigned char)c < 0x20 || (c & 0x80); }

static void dump_text(struct dumper *d, const struct jinja_text *text) {
    static const char plain[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    struct buf *out = d->out;
    buf_byte(out, '"');
    for (size_t i = 0; i < text->size;) {
        size_t plain_end = i;
        while (plain_end < text->size && !is_json_special(text->bytes[plain_end])) plain_end++;
        if (plain_end > i) {
            buf_append(out, text->bytes + i, plain_end - i);
            i = plain_end;
            continue;
        }
        uint32_t c = (unsigned char)text->bytes[i];
        int n = 1;
        const char *found = c && c < 0x80 ? strchr(plain, (char)c) : NULL;
        if (c >= 0x80) n = utf8_decode(text->bytes + i, text->size - i, &c);
        if (found)
            buf_printf(out, "\\%c", letters[found - plain]);
        else if (c >= 0x10000 && d->ascii)
            buf_printf(out, "\\u%04x\\u%04x", 0xD800u + ((c - 0x10000) >> 10),
                       0xDC00u + ((c - 0x10000) & 0x3FF));
        else if (c < 0x20 || (c >= 0x7F && d->ascii && c != 0x7F))
            buf_printf(out, "\\u%04x", (unsigned)c);
        else
            buf_append(out, text->bytes + i, (size_t)n);
        i += (size_t)n;
    }
    buf_byte(out, '"');
}

static void dump_newline(struct dumper *d) {
    if (!d->pretty) return;
    buf_byte(d->out, '\n');
    for (int i = 0; i < d->level; i++) buf_append(d->out, d->indent->bytes, d->indent->size);
}

static void dump_real(struct dumper *d, double f) {
    if (isnan(f))
        buf_text(d->out, "NaN");
    else if (isinf(f))
        buf_text(d->out, f < 0 ? "-Infinity" : "Infinity");
    else
        jinja_write_real(f, d->out);
}

static bool dump_list(struct dumper *d, const struct jinja_list *list) {
    if (!list->count) return buf_text(d->out, "[]") || fits(d->j, d->out);
    if (!jinja_enter(d->j)) return false;
    buf_byte(d->out, '[');
    d->level++;
    for (size_t i = 0; i < list->count; i++) {
        if (i) buf_append(d->out, d->item->bytes, d->item->size);
        dump_newline(d);
        if (!dump(d, list->items[i])) return false;
    }
    d->level--;
    dump_newline(d);
    buf_byte(d->out, ']');
    jinja_leave(d->j);
    return true;
}

static bool dump_key(struct dumper *d, struct jinja_value key) {
    switch (key.kind) {
    case JINJA_TEXT: dump_text(d, key.text); return true;
    case JINJA_NONE: buf_text(d->out, "\"null\""); return true;
    case JINJA_BOOL: buf_text(d->out, key.boolean ? "\"true\"" : "\"false\""); return true;
    case JINJA_INT: buf_printf(d->out, "\"%lld\"", (long long)key.integer); return true;
    case JINJA_FLOAT:
        buf_byte(d->out, '"');
        dump_real(d, key.real);
        buf_byte(d->out, '"');
        return jinja_charge(d->j, real_cost);
    default:
        return jinja_fail(d->j, "keys must be str, int, float, bool or None, not %s", jinja_type_name(key));
    }
}

/* The values of a dict and their keys, in the order to write them. */
static bool dict_order(struct dumper *d, const struct jinja_dict *dict, struct jinja_value **order) {
    struct jinja_value *keys = jinja_alloc_array(d->j, dict->count, sizeof *keys);
    *order = jinja_alloc_array(d->j, dict->count, sizeof **order);
    if (!keys || !*order) return false;
    for (size_t i = 0; i < dict->count; i++) (*order)[i] = keys[i] = dict->entries[i].key;
    return jinja_sort(d->j, keys, *order, dict->count, false);
}

static bool dump_dict(struct dumper *d, const struct jinja_dict *dict) {
    struct jinja_value *order = NULL;
    if (!dict->count) return buf_text(d->out, "{}") || fits(d->j, d->out);
    if (!jinja_enter(d->j) || (d->sort && !dict_order(d, dict, &order))) return false;
    buf_byte(d->out, '{');
    d->level++;
    for (size_t i = 0; i < dict->count; i++) {
        struct jinja_entry *entry = &dict->entries[i];
        if (order && !jinja_dict_find(d->j, dict, order[i], &entry)) return false;
        if (i) buf_append(d->out, d->item->bytes, d->item->size);
        dump_newline(d);
        if (!dump_key(d, entry->key)) return false;
        buf_append(d->out, d->colon->bytes, d->colon->size);
        if (!dump(d, entry->value)) return false;
    }
    d->level--;
    dump_newline(d);
    buf_byte(d->out, '}');
    jinja_leave(d->j);
    return true;
}

static bool dump(struct dumper *d, struct jinja_value v) {
    if (!jinja_charge(d->j, item_cost) || !fits(d->j, d->out)) return false;
    switch (v.kind) {
    case JINJA_NONE: buf_text(d->out, "null"); return true;
    case JINJA_BOOL: buf_text(d->out, v.boolean ? "true" : "false"); return true;
    case JINJA_INT: buf_printf(d->out, "%lld", (long long)v.integer); return jinja_charge(d->j, int_cost);
    case JINJA_FLOAT: dump_real(d, v.real); return jinja_charge(d->j, real_cost);
    case JINJA_TEXT: dump_text(d, v.text); return jinja_charge(d->j, v.text->size / 2);
    case JINJA_LIST:
    case JINJA_TUPLE: return dump_list(d, v.list);
    case JINJA_DICT: return dump_dict(d, v.dict);
    default: return jinja_fail(d->j, "Object of type %s is not JSON serializable", jinja_type_name(v));
    }
}

static bool dump_indent(struct dumper *d, struct jinja_value indent, struct jinja_value *spaces) {
    if (indent.kind == JINJA_ABSENT || indent.kind == JINJA_NONE) return true;
    d->pretty = true;
    *spaces = indent;
    if (jinja_is_int(indent)) {
        int64_t n = jinja_number_int(indent);
        if (n > 4096) return jinja_fail(d->j, "an indent of %lld is too large", (long long)n);
        if (!jinja_text(d->j, " ", 1, spaces)) return false;
        if (!jinja_arithmetic(d->j, OP_MUL, *spaces, jinja_int(n), spaces)) return false;
    }
    if (spaces->kind != JINJA_TEXT) return jinja_fail(d->j, "indent must be a number or a text");
    d->indent = spaces->text;
    return true;
}

/* tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False), as transformers has it. */
bool jinja_to_json(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    static const struct jinja_text comma = {.bytes = ", ", .size = 2}, tight = {.bytes = ",", .size = 1},
                                   colon = {.bytes = ": ", .size = 2};
    struct buf made;
    struct jinja_value spaces, separators = call->a[2];
    struct dumper d = {.j = j, .out = &made, .item = &comma, .colon = &colon};
    d.ascii = jinja_arg_flag(call, 0, false);
    d.sort = jinja_arg_flag(call, 3, false);
    if (!dump_indent(&d, call->a[1], &spaces)) return false;
    if (d.pretty) d.item = &tight;
    if (separators.kind != JINJA_ABSENT && separators.kind != JINJA_NONE) {
        if ((separators.kind != JINJA_TUPLE && separators.kind != JINJA_LIST) ||
            separators.list->count != 2 || separators.list->items[0].kind != JINJA_TEXT ||
            separators.list->items[1].kind != JINJA_TEXT)
            return jinja_fail(j, "separators must be two texts");
        d.item = separators.list->items[0].text;
        d.colon = separators.list->items[1].text;
    }
    jinja_buf(j, &made);
    if (dump(&d, call->self)) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

/* ---- JSON to values ---------------------------------------------------------------------------- */

/* The variables are the caller's: they are not bounded by the template's budget, but by their nesting. */
static bool input_text(struct jinja *j, const char *bytes, size_t size, struct jinja_value *out) {
    if (!utf8_valid(bytes, size, NULL)) return jinja_fail(j, "a text among the variables is not UTF-8");
    struct jinja_text *text = arena_alloc(&j->input, sizeof *text);
    if (!text) return error_no_memory(j->err, "template", sizeof *text);
    *text = (struct jinja_text){.bytes = bytes, .size = size, .length = SIZE_MAX};
    *out = (struct jinja_value){.kind = JINJA_TEXT, .text = text};
    return true;
}

static bool input_list(struct jinja *j, const json_t *json, struct jinja_value *out) {
    size_t count = json_array_size(json);
    struct jinja_list *list = arena_alloc(&j->input, sizeof *list);
    if (list) list->items = arena_array(&j->input, count, sizeof *list->items);
    if (!list || !list->items) return error_no_memory(j->err, "template", count * sizeof *list->items);
    if (!jinja_enter(j)) return false;
    list->count = list->capacity = count;
    for (size_t i = 0; i < count; i++)
        if (!jinja_from_json(j, json_array_get(json, i), &list->items[i])) return false;
    jinja_leave(j);
    *out = jinja_of_list(JINJA_LIST, list);
    return true;
}

static bool input_dict(struct jinja *j, const json_t *json, struct jinja_value *out) {
    struct arena values = j->values; /* the dict's tables go to the input's arena */
    struct jinja_dict *dict = arena_alloc(&j->input, sizeof *dict);
    if (!dict) return error_no_memory(j->err, "template", sizeof *dict);
    if (!jinja_enter(j)) return false;
    bool ok = true;
    for (void *at = json_object_iter((json_t *)(uintptr_t)json); at && ok;
         at = json_object_iter_next((json_t *)(uintptr_t)json, at)) {
        struct jinja_value key, value;
        ok = input_text(j, json_object_iter_key(at), json_object_iter_key_len(at), &key) &&
             jinja_from_json(j, json_object_iter_value(at), &value);
        if (!ok) break;
        values = j->values;
        j->values = j->input;
        ok = jinja_dict_set(j, dict, key, value);
        j->input = j->values;
        j->values = values;
    }
    if (!ok) return false;
    jinja_leave(j);
    *out = jinja_of_dict(dict);
    return true;
}

bool jinja_from_json(struct jinja *j, const json_t *json, struct jinja_value *out) {
    switch (json_typeof(json)) {
    case JSON_NULL: *out = jinja_none(); return true;
    case JSON_TRUE: *out = jinja_bool(true); return true;
    case JSON_FALSE: *out = jinja_bool(false); return true;
    case JSON_INTEGER: *out = jinja_int((int64_t)json_integer_value(json)); return true;
    case JSON_REAL: *out = jinja_real(json_real_value(json)); return true;
    case JSON_STRING: return input_text(j, json_string_value(json), json_string_length(json), out);
    case JSON_ARRAY: return input_list(j, json, out);
    default: return input_dict(j, json, out);
    }
}
