/* Calls: arguments are matched to parameters, then a function, method, macro or loop runs. Also the
 * functions that a template finds without being given them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text/template_internal.h"

/* ---- arguments --------------------------------------------------------------------------------- */

/* The parameter names in "first,!second": calls `name` n times. Returns the count. */
static size_t parameter_at(const char **spec, const char **name, bool *required) {
    *required = **spec == '!';
    *name = *spec + *required;
    size_t size = strcspn(*name, ",");
    *spec = *name + size + ((*name)[size] == ',');
    return size;
}

static bool bind(struct jinja *j, const char *what, const char *spec, const struct jinja_args *args,
                 struct jinja_call *call) {
    bool positional = *spec == '/', required;
    size_t used = 0, count = 0;
    call->raw = args;
    call->name = what;
    if (*spec == '*') return true;
    if (positional) spec++;
    if (positional && args->named_count) return jinja_fail(j, "%s() takes no keyword arguments", what);
    for (const char *name; *spec; count++) {
        size_t size = parameter_at(&spec, &name, &required);
        struct jinja_value *a = &call->a[count];
        *a = count < args->count ? args->values[count] : jinja_absent();
        for (size_t i = 0; i < args->named_count; i++) {
            const struct jinja_text *given = args->named[i].name.text;
            if (given->size != size || memcmp(given->bytes, name, size) != 0) continue;
            if (a->kind != JINJA_ABSENT)
                return jinja_fail(j, "%s() got multiple values for '%.*s'", what, (int)size, name);
            *a = args->named[i].value;
            used++;
        }
        if (required && a->kind == JINJA_ABSENT)
            return jinja_fail(j, "%s() needs '%.*s'", what, (int)size, name);
    }
    if (args->count > count)
        return jinja_fail(j, "%s() takes at most %zu argument(s), %zu given", what, count, args->count);
    return used == args->named_count || jinja_fail(j, "%s() got an unexpected keyword argument", what);
}

bool jinja_arg_int(struct jinja *j, const struct jinja_call *call, int index, int64_t otherwise,
                   int64_t *out) {
    struct jinja_value v = call->a[index];
    *out = otherwise;
    if (v.kind == JINJA_ABSENT) return true;
    if (v.kind == JINJA_UNDEFINED) return jinja_undefined_fail(j, v);
    if (!jinja_is_int(v))
        return jinja_fail(j, "%s: '%s' object cannot be interpreted as an integer", call->name,
                          jinja_type_name(v));
    *out = jinja_number_int(v);
    return true;
}

bool jinja_arg_flag(const struct jinja_call *call, int index, bool otherwise) {
    return call->a[index].kind == JINJA_ABSENT ? otherwise : jinja_truth(call->a[index]);
}

bool jinja_arg_text(struct jinja *j, const struct jinja_call *call, int index, struct jinja_text **out) {
    struct jinja_value v = call->a[index];
    if (v.kind == JINJA_TEXT) *out = v.text;
    return v.kind == JINJA_TEXT ||
           jinja_fail(j, "%s: expected a str, not %s", call->name, jinja_type_name(v));
}

/* ---- calls ------------------------------------------------------------------------------------- */

enum { steps_per_call = 20 };

static bool run_native(struct jinja *j, const char *name, jinja_native *run, const char *parameters,
                       struct jinja_value self, const struct jinja_args *args, struct jinja_value *out) {
    struct jinja_call call = {.self = self}; /* arguments that no parameter takes are absent */
    if (!jinja_charge(j, steps_per_call + args->named_count) || !bind(j, name, parameters, args, &call) ||
        !jinja_enter(j) || !run(j, &call, out))
        return false;
    jinja_leave(j);
    return true;
}

bool jinja_call_filter(struct jinja *j, const struct jinja_filter *filter, struct jinja_value self,
                       const struct jinja_args *args, struct jinja_value *out) {
    return run_native(j, filter->name, filter->run, filter->parameters, self, args, out);
}

bool jinja_call_test(struct jinja *j, const struct jinja_test *test, struct jinja_value self,
                     const struct jinja_args *args, bool *out) {
    struct jinja_value result = jinja_bool(false);
    if (!run_native(j, test->name, test->run, test->parameters, self, args, &result)) return false;
    *out = jinja_truth(result);
    return true;
}

bool jinja_call(struct jinja *j, struct jinja_value callee, const struct jinja_args *args,
                struct jinja_value *out) {
    if (!jinja_step(j)) return false;
    switch (callee.kind) {
    case JINJA_UNDEFINED: return jinja_undefined_fail(j, callee);
    case JINJA_MACRO: return jinja_call_macro(j, callee.macro, args, out);
    case JINJA_LOOP: return jinja_call_loop(j, callee.loop, args, out);
    case JINJA_FUNCTION:
        return run_native(j, callee.function->name, callee.function->run, callee.function->parameters, callee,
                          args, out);
    case JINJA_METHOD: {
        const struct jinja_method *m = callee.bound->method;
        return run_native(j, m->name, m->run, m->parameters, callee.bound->self, args, out);
    }
    case JINJA_JOINER:
        *out = callee.joiner->separator;
        if (!callee.joiner->called && !jinja_text_view(j, "", 0, out)) return false;
        callee.joiner->called = true;
        return true;
    default: return jinja_fail(j, "'%s' object is not callable", jinja_type_name(callee));
    }
}

/* ---- functions --------------------------------------------------------------------------------- */

enum { most_range = 100000 }; /* as Jinja2's sandbox */

static bool run_range(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    int64_t a, b, step;
    if (!jinja_arg_int(j, call, 0, 0, &a) || !jinja_arg_int(j, call, 1, 0, &b) ||
        !jinja_arg_int(j, call, 2, 1, &step))
        return false;
    if (call->a[1].kind == JINJA_ABSENT) {
        b = a;
        a = 0;
    }
    if (!step) return jinja_fail(j, "range() arg 3 must not be zero");
    uint64_t distance =
        step > 0 ? (b > a ? (uint64_t)b - (uint64_t)a : 0) : (a > b ? (uint64_t)a - (uint64_t)b : 0);
    uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    uint64_t count = distance / stride + (distance % stride != 0);
    if (count > most_range) return jinja_exhaust(j, "range too big: more than %d items", most_range);
    struct jinja_range *range = jinja_alloc(j, sizeof *range);
    if (!range) return false;
    *range = (struct jinja_range){a, b, step, (size_t)count};
    *out = (struct jinja_value){.kind = JINJA_RANGE, .range = range};
    return true;
}

static bool run_raise(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    struct jinja_value message;
    (void)out;
    if (!jinja_str(j, call->a[0], &message)) return false;
    size_t size = message.text->size < 400 ? message.text->size : 400;
    while (size && size < message.text->size && (message.text->bytes[size] & 0xC0) == 0x80) size--;
    return jinja_fail(j, "%.*s", (int)size, message.text->bytes);
}

/* dict(mapping or pairs, name=value …) into `dict` */
static bool fill_dict(struct jinja *j, const struct jinja_args *args, struct jinja_dict *dict) {
    struct jinja_list *pairs, *pair;
    if (args->count > 1) return jinja_fail(j, "dict expected at most 1 argument, got %zu", args->count);
    if (args->count && args->values[0].kind == JINJA_DICT) {
        const struct jinja_dict *from = args->values[0].dict;
        for (size_t i = 0; i < from->count; i++)
            if (!jinja_step(j) || !jinja_dict_set(j, dict, from->entries[i].key, from->entries[i].value))
                return false;
    } else if (args->count) {
        if (!jinja_list_of(j, args->values[0], &pairs)) return false;
        for (size_t i = 0; i < pairs->count; i++) {
            if (!jinja_list_of(j, pairs->items[i], &pair)) return false;
            if (pair->count != 2)
                return jinja_fail(j, "dictionary update sequence element #%zu has length %zu; 2 is required",
                                  i, pair->count);
            if (!jinja_dict_set(j, dict, pair->items[0], pair->items[1])) return false;
        }
    }
    for (size_t i = 0; i < args->named_count; i++)
        if (!jinja_dict_set(j, dict, args->named[i].name, args->named[i].value)) return false;
    return true;
}

static bool run_dict(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    struct jinja_dict *dict = jinja_dict_new(j);
    if (!dict || !fill_dict(j, call->raw, dict)) return false;
    *out = jinja_of_dict(dict);
    return true;
}

static bool run_namespace(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    if (!run_dict(j, call, out)) return false;
    out->kind = JINJA_NAMESPACE;
    for (size_t i = 0; i < out->dict->count; i++) {
        struct jinja_value key = out->dict->entries[i].key;
        if (key.kind == JINJA_TEXT && key.text->size && key.text->bytes[0] == '_')
            return jinja_fail(j, "names that begin with an underscore cannot be stored on a namespace");
    }
    return true;
}

static bool run_cycler(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    struct jinja_list *list = jinja_list_new(j, call->raw->count);
    if (!list) return false;
    if (!call->raw->count) return jinja_fail(j, "at least one item has to be provided");
    for (size_t i = 0; i < call->raw->count; i++) list->items[list->count++] = call->raw->values[i];
    *out = jinja_of_list(JINJA_CYCLER, list);
    return true;
}

static bool run_joiner(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    struct jinja_joiner *joiner = jinja_alloc(j, sizeof *joiner);
    if (!joiner) return false;
    joiner->separator = call->a[0];
    if (call->a[0].kind == JINJA_ABSENT && !jinja_text_view(j, ", ", 2, &joiner->separator)) return false;
    *out = (struct jinja_value){.kind = JINJA_JOINER, .joiner = joiner};
    return true;
}

/* datetime.strftime of a time without zone: %z and %Z are empty, %f is microseconds. The rest is the C
 * library's, in an area of its own, so that a width in the format cannot write far. */
static bool run_strftime(struct jinja *j, const struct jinja_call *call, struct jinja_value *out) {
    struct jinja_text *format = NULL;
    char shown[4096], item[4] = "%";
    struct buf made;
    struct tm tm;
    time_t seconds = (time_t)floor(j->now);
    if (!jinja_arg_text(j, call, 0, &format)) return false;
    if (!gmtime_r(&seconds, &tm)) return jinja_fail(j, "the time cannot be shown");
    jinja_buf(j, &made);
    for (size_t i = 0; i < format->size; i++) {
        char c = format->bytes[i];
        if (c != '%' || i + 1 >= format->size) {
            buf_byte(&made, c);
            continue;
        }
        if (!jinja_charge(j, 100)) break;
        c = format->bytes[++i];
        size_t n = 1;
        if ((c == '-' || c == '_' || c == '0' || c == '^' || c == '#' || c == 'E' || c == 'O') &&
            i + 1 < format->size) {
            item[n++] = c;
            c = format->bytes[++i];
        }
        item[n++] = c;
        item[n] = 0;
        if (c == 'f')
            buf_printf(&made, "%06d", (int)((j->now - floor(j->now)) * 1e6));
        else if (c == 'z' || c == 'Z')
            continue;
        else if (strchr("aAbBcCdDeFgGhHIjklmMnprRsStTuUVwWxXyY%P", c) && c)
            buf_append(&made, shown, strftime(shown, sizeof shown, item, &tm));
        else
            buf_append(&made, item, n);
    }
    if (j->steps <= j->limits.steps) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

static const struct jinja_function functions[] = {
    {"range", run_range, "/!start,stop,step"},
    {"dict", run_dict, "*"},
    {"namespace", run_namespace, "*"},
    {"raise_exception", run_raise, "!message"},
    {"strftime_now", run_strftime, "!format"},
    {"cycler", run_cycler, "*"},
    {"joiner", run_joiner, "sep"},
};

const struct jinja_function *jinja_function_find(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strlen(functions[i].name) == size && memcmp(functions[i].name, name, size) == 0)
            return &functions[i];
    return NULL;
}
