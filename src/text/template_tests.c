/* The tests behind "is". */
#include <string.h>

#include <utf8proc.h>

#include "text/template_internal.h"

#define TEST(name) static bool name(struct jinja *j, const struct jinja_call *c, struct jinja_value *out)
#define KIND_TEST(name, condition)      \
    TEST(name) {                        \
        struct jinja_value v = c->self; \
        (void)j;                        \
        *out = jinja_bool(condition);   \
        return true;                    \
    }

KIND_TEST(is_defined, v.kind != JINJA_UNDEFINED)
KIND_TEST(is_undefined, v.kind == JINJA_UNDEFINED)
KIND_TEST(is_none, v.kind == JINJA_NONE)
KIND_TEST(is_boolean, v.kind == JINJA_BOOL)
KIND_TEST(is_true, v.kind == JINJA_BOOL && v.boolean)
KIND_TEST(is_false, v.kind == JINJA_BOOL && !v.boolean)
KIND_TEST(is_integer, v.kind == JINJA_INT)
KIND_TEST(is_float, v.kind == JINJA_FLOAT)
KIND_TEST(is_number, jinja_is_number(v))
KIND_TEST(is_string, v.kind == JINJA_TEXT)
KIND_TEST(is_mapping, v.kind == JINJA_DICT)
KIND_TEST(is_iterable, jinja_is_iterable(v))
KIND_TEST(is_escaped, v.kind == JINJA_TEXT && v.text->markup)
KIND_TEST(is_sequence, v.kind == JINJA_UNDEFINED || v.kind == JINJA_TEXT || v.kind == JINJA_LIST ||
                           v.kind == JINJA_TUPLE || v.kind == JINJA_DICT || v.kind == JINJA_RANGE)
KIND_TEST(is_callable, v.kind == JINJA_MACRO || v.kind == JINJA_FUNCTION || v.kind == JINJA_METHOD ||
                           v.kind == JINJA_LOOP || v.kind == JINJA_JOINER || v.kind == JINJA_UNDEFINED)

/* value % divisor == rest */
static bool remainder_is(struct jinja *j, struct jinja_value value, struct jinja_value divisor, int64_t rest,
                         struct jinja_value *out) {
    struct jinja_value left;
    bool same;
    if (!jinja_arithmetic(j, OP_MOD, value, divisor, &left) || !jinja_equal(j, left, jinja_int(rest), &same))
        return false;
    *out = jinja_bool(same);
    return true;
}

TEST(is_odd) { return remainder_is(j, c->self, jinja_int(2), 1, out); }
TEST(is_even) { return remainder_is(j, c->self, jinja_int(2), 0, out); }
TEST(is_divisible) { return remainder_is(j, c->self, c->a[0], 0, out); }

static bool compared(struct jinja *j, const struct jinja_call *c, enum jinja_op op, struct jinja_value *out) {
    bool holds;
    bool ok = op == OP_EQ || op == OP_NE ? jinja_equal(j, c->self, c->a[0], &holds)
              : op == OP_IN              ? jinja_contains(j, c->self, c->a[0], &holds)
                                         : jinja_order(j, op, c->self, c->a[0], &holds);
    if (ok) *out = jinja_bool(op == OP_NE ? !holds : holds);
    return ok;
}

TEST(is_eq) { return compared(j, c, OP_EQ, out); }
TEST(is_ne) { return compared(j, c, OP_NE, out); }
TEST(is_lt) { return compared(j, c, OP_LT, out); }
TEST(is_le) { return compared(j, c, OP_LE, out); }
TEST(is_gt) { return compared(j, c, OP_GT, out); }
TEST(is_ge) { return compared(j, c, OP_GE, out); }
TEST(is_in) { return compared(j, c, OP_IN, out); }

/* Python's `is`: one object. Small values that Python shares are the same object too. */
TEST(is_same) {
    struct jinja_value a = c->self, b = c->a[0];
    (void)j;
    bool same = a.kind == b.kind;
    if (same && a.kind == JINJA_BOOL)
        same = a.boolean == b.boolean;
    else if (same && a.kind == JINJA_INT)
        same = a.integer == b.integer;
    else if (same && a.kind == JINJA_FLOAT)
        same = a.real == b.real;
    else if (same && a.kind == JINJA_TEXT)
        same = a.text->size == b.text->size && memcmp(a.text->bytes, b.text->bytes, a.text->size) == 0;
    else if (same && a.kind != JINJA_NONE)
        same = a.list == b.list;
    *out = jinja_bool(same);
    return true;
}

/* Whether the text has cased letters and all are of one case. */
static bool cased(struct jinja *j, const struct jinja_call *c, bool upper, struct jinja_value *out) {
    struct jinja_value text;
    struct jinja_args none = {0};
    const struct jinja_method *method = jinja_method_find(JINJA_TEXT, upper ? "isupper" : "islower", 7);
    if (!jinja_str(j, c->self, &text)) return false;
    struct jinja_call call = {.self = text, .raw = &none, .name = method->name};
    return method->run(j, &call, out);
}

TEST(is_upper) { return cased(j, c, true, out); }
TEST(is_lower) { return cased(j, c, false, out); }

TEST(is_filter) {
    (void)j;
    *out =
        jinja_bool(c->self.kind == JINJA_TEXT && jinja_filter_find(c->self.text->bytes, c->self.text->size));
    return true;
}
TEST(is_test) {
    (void)j;
    *out = jinja_bool(c->self.kind == JINJA_TEXT && jinja_test_find(c->self.text->bytes, c->self.text->size));
    return true;
}

static const struct jinja_test tests[] = {
    {"defined", is_defined, ""},   {"undefined", is_undefined, ""},
    {"none", is_none, ""},         {"boolean", is_boolean, ""},
    {"true", is_true, ""},         {"false", is_false, ""},
    {"integer", is_integer, ""},   {"float", is_float, ""},
    {"number", is_number, ""},     {"string", is_string, ""},
    {"mapping", is_mapping, ""},   {"iterable", is_iterable, ""},
    {"sequence", is_sequence, ""}, {"callable", is_callable, ""},
    {"escaped", is_escaped, ""},   {"odd", is_odd, ""},
    {"even", is_even, ""},         {"divisibleby", is_divisible, "!num"},
    {"sameas", is_same, "!other"}, {"upper", is_upper, ""},
    {"lower", is_lower, ""},       {"filter", is_filter, ""},
    {"test", is_test, ""},         {"in", is_in, "!seq"},
    {"eq", is_eq, "/!b"},          {"equalto", is_eq, "/!b"},
    {"==", is_eq, "/!b"},          {"ne", is_ne, "/!b"},
    {"!=", is_ne, "/!b"},          {"lt", is_lt, "/!b"},
    {"lessthan", is_lt, "/!b"},    {"<", is_lt, "/!b"},
    {"le", is_le, "/!b"},          {"<=", is_le, "/!b"},
    {"gt", is_gt, "/!b"},          {"greaterthan", is_gt, "/!b"},
    {">", is_gt, "/!b"},           {"ge", is_ge, "/!b"},
    {">=", is_ge, "/!b"},
};

const struct jinja_test *jinja_test_find(const char *name, size_t size) {
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strlen(tests[i].name) == size && memcmp(tests[i].name, name, size) == 0) return &tests[i];
    return NULL;
}
