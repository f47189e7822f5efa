/* The template language, case by case: tests/golden/template_cases.json holds what Jinja2 makes of each,
 * as transformers sets it up (template_oracle.py writes it). Where Jinja2 refuses, we must too. And what
 * is ours alone: messages, budgets, spans. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "text/template.h"

struct outcome {
    bool ok;
    struct buf text;
    struct template_spans spans;
    struct error err;
};

static void outcome_release(struct outcome *o) {
    buf_release(&o->text);
    mem_free(o->spans.spans);
}

static struct outcome render(const char *source, size_t size, const json_t *variables, double now,
                             const struct template_limits *limits) {
    struct outcome o = {0};
    struct template *template = NULL;
    o.ok = template_open(&template, source, size, "case", &o.err) &&
           template_render(template, variables, now, limits, &o.text, &o.spans, NULL, &o.err);
    template_close(&template);
    return o;
}

static struct outcome render_text(const char *source) {
    return render(source, strlen(source), NULL, 0, NULL);
}

/* ---- what Jinja2 does ---------------------------------------------------------------------------- */

static bool spans_equal(const struct template_spans *spans, const json_t *expected) {
    if (spans->count != json_array_size(expected)) return false;
    for (size_t i = 0; i < spans->count; i++) {
        const json_t *pair = json_array_get(expected, i);
        if (spans->spans[i].first != (size_t)json_integer_value(json_array_get(pair, 0)) ||
            spans->spans[i].end != (size_t)json_integer_value(json_array_get(pair, 1)))
            return false;
    }
    return true;
}

static bool case_passes(const json_t *row, const json_t *sets, double now) {
    const json_t *source = json_object_get(row, "template"), *text = json_object_get(row, "text");
    const json_t *variables = json_object_get(sets, json_string_value(json_object_get(row, "variables")));
    struct outcome o = render(json_string_value(source), json_string_length(source), variables, now, NULL);
    bool same =
        o.ok == (text != NULL) &&
        (!o.ok || (o.text.size == json_string_length(text) &&
                   memcmp(o.text.data ? o.text.data : "", json_string_value(text), o.text.size) == 0 &&
                   spans_equal(&o.spans, json_object_get(row, "spans"))));
    if (!same)
        print_message("%s: %s\n  jinja2: %s\n  ours:   %s\n", json_string_value(json_object_get(row, "name")),
                      json_string_value(source), text ? json_string_value(text) : "(an error)",
                      o.ok ? (o.text.data ? o.text.data : "") : o.err.what);
    outcome_release(&o);
    return same;
}

static void every_case_renders_as_in_jinja2(void **state) {
    (void)state;
    struct error err = {0};
    json_t *file = NULL;
    size_t failed = 0, i;
    const json_t *row;
    assert_ok(json_read_file(&file, TEST_DATA "/golden/template_cases.json", 0, &err), &err);
    const json_t *cases = json_object_get(file, "cases"), *sets = json_object_get(file, "variables");
    assert_true(json_array_size(cases) > 1000);
    json_array_foreach(cases, i, row) failed +=
        !case_passes(row, sets, json_number_value(json_object_get(file, "now")));
    if (failed) print_message("%zu of %zu cases failed\n", failed, json_array_size(cases));
    json_decref(file);
    assert_int_equal(failed, 0);
}

/* ---- messages ------------------------------------------------------------------------------------ */

static void errors_name_the_template_the_line_and_the_cause(void **state) {
    (void)state;
    static const struct {
        const char *source, *message;
    } rows[] = {
        {"a\n{{ 1 + }}", "case:2: unexpected '}}'"},
        {"\n\n{% nosuch %}", "case:3: unknown tag 'nosuch'"},
        {"{% if 1 %}\nx", "case:2: unexpected end of the template, 'elif' is missing"},
        {"x\n{{ a.b }}", "case:2: 'a' is undefined"},
        {"{{ raise_exception('roles must alternate') }}", "case:1: roles must alternate"},
        {"\n{{ 1|nosuch }}", "case:2: no filter named 'nosuch'"},
        {"\n{{ 'a b'|wordwrap(2) }}",
         "case:2: Jinja2's filter 'wordwrap' is not available in chat templates here"},
        {"{% if 1 %}\n{{ 1|pprint }}{% endif %}",
         "case:2: Jinja2's filter 'pprint' is not available in chat templates here"},
        {"\n{% filter urlize %}x{% endfilter %}",
         "case:2: Jinja2's filter 'urlize' is not available in chat templates here"},
        {"{% include 'x' %}", "case:1: the tag 'include' is not available in chat templates"},
        {"{{ 9223372036854775807 + 1 }}", "case:1: the integer is too large (64 bits)"},
        {"{{ 9223372036854775807|round(-1) }}", "case:1: the integer is too large (64 bits)"},
        {"{{ 5000000000000000001|round(-19) }}", "case:1: the integer is too large (64 bits)"},
        {"{{ range(0, 9000000000000000000, 4000000000000000000)[::3] }}",
         "case:1: the integer is too large (64 bits)"},
        {"{{ range(0, 9000000000000000000, 4000000000000000000)[1:] }}",
         "case:1: the integer is too large (64 bits)"},
        {"{% macro m() %}{% endmacro %}{{ "
         "m(a1234567890123456789012345678901234567890123456789012345678901234=1) }}",
         "case:1: the macro takes no keyword argument "
         "'a123456789012345678901234567890123456789012345678901234567890123'"},
        {"{% macro m() %}\n{{ x.y }}{% endmacro %}\n\n{{ m() }}", "case:2: 'x' is undefined"},
        {"{{ [].append(1) }}", "case:1: access to this attribute is unsafe"},
        {"{{ 'a", "case:1: unexpected char ' (a string without end)"},
        {"\xff", "case:1: the template is not UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o = render_text(rows[i].source);
        assert_false(o.ok);
        assert_string_equal(o.err.what, rows[i].message);
        assert_int_equal(o.err.code, ERROR_INPUT);
        outcome_release(&o);
    }
}

static void variables_must_be_an_object(void **state) {
    (void)state;
    json_t *list = json_array();
    struct outcome o = render("x", 1, list, 0, NULL);
    assert_false(o.ok);
    assert_int_equal(o.err.code, ERROR_INPUT);
    outcome_release(&o);
    json_decref(list);
}

/* ---- budgets ------------------------------------------------------------------------------------- */

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The processor's time, since the tests of a whole tree share two cores. The bound is 100 ms; sanitizers cost
 * a factor of ten or more, so the test allows far more; what it guards against takes hours. */
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
static const double most_seconds = 20.0;
#else
static const double most_seconds = 5.0;
#endif

static char *repeated(const char *head, const char *part, size_t count, const char *tail) {
    struct buf text = {0};
    buf_text(&text, head);
    for (size_t i = 0; i < count; i++) buf_text(&text, part);
    buf_text(&text, tail);
    return buf_detach(&text, NULL);
}

static void assert_ends_with_an_error(const char *source) {
    double start = seconds();
    struct outcome o = render_text(source);
    double took = seconds() - start;
    if (o.ok || took > most_seconds)
        print_message("%.60s: %s after %.3f s\n", source, o.ok ? "rendered" : o.err.what, took);
    assert_false(o.ok);
    assert_true(took <= most_seconds);
    outcome_release(&o);
}

static void hostile_templates_end_with_an_error(void **state) {
    (void)state;
    static const char *const sources[] = {
        "{% for x in range(10 ** 9) %}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor "
        "%}{% endfor %}",
        "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}x{% endfor %}{% "
        "endfor %}{% endfor %}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ ('a' * 10 ** 6) * 10 ** 6 }}",
        "{{ [0] * 10 ** 9 }}",
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='a') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ "
        "ns.s }}",
        "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ "
        "ns.l|tojson }}",
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ "
        "ns.l }}",
        "{% set ns = namespace(l=[], m=[]) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% set ns.m = "
        "[ns.m] %}"
        "{% endfor %}{{ ns.l == ns.m }}",
        "{% set ns = namespace(t=()) %}{% for i in range(5000) %}{% set ns.t = (ns.t,) %}{% endfor %}{{ "
        "{ns.t: 1} }}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
        "{{ {'a': 1}|tojson(indent=10 ** 9) }}",
        "{{ [[[[1]]]]|tojson(indent='x' * 10 ** 7) }}",
        "{{ range(100000)|join('x' * 10 ** 5) }}",
        "{{ ('a' * 10 ** 6)|replace('a', 'b' * 1000) }}",
        "{{ ('a' * 10 ** 6).replace('', 'b' * 1000) }}",
        "{{ ('ab' * 10 ** 5).split('a') | map('center', 10 ** 6) | list }}",
        "{% for i in range(100000) %}{% set x = range(100000)|sort %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = ('a' * 10 ** 6) == ('a' * 10 ** 6) %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(100000) %}{% set x = 'b' in s %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(100000) %}{% set x = s.count('b') %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(100000) %}{% set x = s.rfind('b') %}{% endfor %}",
        "{% set s = ' ' * 10 ** 6 %}{% for i in range(100000) %}{% set x = s.strip() %}{% endfor %}",
        "{% set s = 'é' * 10 ** 6 %}{% for i in range(100000) %}{% set x = s[-1] %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(100000) %}{% set x = s is upper %}{% endfor %}",
        "{% set s = 'a' * 10 ** 6 %}{% for i in range(100000) %}{{ s }}{% endfor %}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'|center(10 ** 9) }}",
        "{{ 'x'.zfill(10 ** 9) }}",
        "{{ 'a\nb'|indent(10 ** 9) }}",
        "{{ [1]|batch(10 ** 9, 'x')|list }}",
        "{{ [1]|slice(10 ** 9)|list }}",
        "{{ strftime_now('%1000000000d') * 100000000 }}",
        "{{ 2 ** 10 ** 9 }}",
        "{% for x in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}",
        "{% set s = 'é ' * 300000 %}{% for i in range(100000) %}{% set x = s|upper %}{% endfor %}",
        "{% set s = 'a ' * 500000 %}{% for i in range(100000) %}{% set x = s|title|wordcount %}{% endfor %}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s|replace('a', 'b') %}{% endfor "
        "%}",
        "{% set s = 'a' * 1000000 %}{% for i in range(100000) %}{% set x = s.rfind('b' + 'a' * 1000) %}{% "
        "endfor %}",
        "{% set s = [0.1234567890123456] * 100000 %}{% for i in range(100000) %}{% set x = s|tojson %}{% "
        "endfor %}",
        "{% set s = ['a'] * 100000 %}{% for i in range(100000) %}{% set x = s|join|e|urlencode %}{% endfor "
        "%}",
        "{% for i in range(100000) %}{% set x = range(100000)|map('upper')|list %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = range(100000)|select('odd')|list %}{% endfor %}",
        "{% for i in range(100000) %}{% set x = '%100000d' % 1 %}{% endfor %}",
        "{% for i in range(100000) %}{{ strftime_now('%c' * 1000) }}{% endfor %}",
        "{% for i in range(100000) %}{% for j in range(100000)|list %}{% break %}{% endfor %}{% endfor %}",
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) assert_ends_with_an_error(sources[i]);
}

static void deep_nesting_ends_with_an_error(void **state) {
    (void)state;
    static const struct {
        const char *head, *part, *tail;
    } rows[] = {
        {"{{ ", "(", "1"},           {"{{ ", "[", "1"},
        {"{{ ", "{1:", "1"},         {"{{ ", "not ", "1 }}"},
        {"{{ ", "- ", "1 }}"},       {"{{ a", "[a", " }}"},
        {"{{ a", "(a", " }}"},       {"{{ 1", "|upper", " }}"},
        {"{{ a", ".a", " }}"},       {"{{ 1 ", "if 1 else 1 ", ""},
        {"", "{% if 1 %}", ""},      {"", "{% for x in y %}", ""},
        {"", "{% set x %}", ""},     {"{% set ", "(", "x"},
        {"", "{% macro m() %}", ""}, {"{{ x is ", "eq [", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *source = repeated(rows[i].head, rows[i].part, 100000, rows[i].tail);
        assert_ends_with_an_error(source);
        mem_free(source);
    }
}

static void long_chains_are_not_deep(void **state) {
    (void)state;
    static const struct {
        const char *head, *part, *tail, *text;
    } rows[] = {
        {"{{ 1", " + 1", " }}", "10001"},
        {"{{ 'a'", " ~ ''", " }}", "a"},
        {"{{ 1", " and 1", " }}", "1"},
        {"{{ 0", " or 0", " or 5 }}", "5"},
        {"{% if 0 %}", "{% elif 0 %}", "{% else %}x{% endif %}", "x"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *source = repeated(rows[i].head, rows[i].part, 10000, rows[i].tail);
        struct outcome o = render_text(source);
        assert_ok(o.ok, &o.err);
        assert_string_equal(o.text.data, rows[i].text);
        outcome_release(&o);
        mem_free(source);
    }
}

static void each_budget_is_named_when_it_ends(void **state) {
    (void)state;
    static const struct {
        struct template_limits limits;
        const char *source, *message;
    } rows[] = {
        {{.steps = 1000},
         "{% for i in range(1000) %}{% endfor %}",
         "case:1: the template takes more than 1000 steps"},
        {{.output = 10}, "{{ 'a' * 11 }}", "case:1: the output is longer than 10 bytes"},
        {{.memory = 1000}, "{{ 'a' * 1001 }}", "case:1: the template's values take more than 1000 bytes"},
        {{.depth = 10},
         "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
         "case:1: nested deeper than 10 levels"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o = render(rows[i].source, strlen(rows[i].source), NULL, 0, &rows[i].limits);
        assert_false(o.ok);
        assert_string_equal(o.err.what, rows[i].message);
        outcome_release(&o);
    }
}

static void building_a_text_piece_by_piece_stays_within_the_budget(void **state) {
    (void)state;
    struct outcome o = render_text(
        "{% set ns = namespace(s='') %}{% for i in range(20000) %}{% set ns.s = ns.s + 'abcdefghij' %}"
        "{% endfor %}{{ ns.s|length }}");
    assert_ok(o.ok, &o.err);
    assert_string_equal(o.text.data, "200000");
    outcome_release(&o);
}

/* ---- rendering ----------------------------------------------------------------------------------- */

static void output_is_appended_and_spans_count_from_its_start(void **state) {
    (void)state;
    struct template *template = NULL;
    struct template_spans spans;
    struct error err = {0};
    struct buf out = {0};
    const char *source = "é{% generation %}ab{% endgeneration %}c";
    buf_text(&out, "before ");
    assert_ok(template_open(&template, source, strlen(source), "case", &err), &err);
    assert_ok(template_render(template, NULL, 0, NULL, &out, &spans, NULL, &err), &err);
    assert_string_equal(out.data, "before éabc");
    assert_int_equal(spans.count, 1);
    assert_int_equal(spans.spans[0].first, 2);
    assert_int_equal(spans.spans[0].end, 4);
    mem_free(spans.spans);
    template_close(&template);
    template_close(&template);
    buf_release(&out);
}

static void a_template_renders_again_with_other_variables(void **state) {
    (void)state;
    struct template *template = NULL;
    struct error err = {0};
    const char *source = "{% set x = y ~ 'é' %}{{ x[-1] }}{{ x|length }}{{ y }};";
    struct buf out = {0};
    assert_ok(template_open(&template, source, strlen(source), "case", &err), &err);
    for (int i = 0; i < 3; i++) {
        json_t *variables = json_pack("{s:i}", "y", i * 10);
        assert_ok(template_render(template, variables, 0, NULL, &out, NULL, NULL, &err), &err);
        json_decref(variables);
    }
    assert_string_equal(out.data, "é20;é310;é320;");
    template_close(&template);
    buf_release(&out);
}

static int fail_request(void *user, size_t size) {
    int *left = user;
    (void)size;
    return (*left)-- == 0;
}

static void every_failed_allocation_is_an_error(void **state) {
    (void)state;
    const char *source =
        "{% macro m(a) %}{{ a|upper }}{% endmacro %}{% for x in y %}{% generation %}{{ m(x) ~ x }}"
        "{% endgeneration %}{% endfor %}{{ {'a': [1, 2]}|tojson }}{{ 'x' * 200000 }}";
    json_t *variables = json_pack("{s:[s,s]}", "y", "ab", "cd");
    bool ok = false;
    int allowed = 0;
    for (; !ok && allowed < 1000; allowed++) {
        int left = allowed;
        mem_set_fault(fail_request, &left);
        struct outcome o = render(source, strlen(source), variables, 0, NULL);
        mem_set_fault(NULL, NULL);
        ok = o.ok;
        if (!ok) assert_true(o.err.code == ERROR_MEMORY || o.err.code == ERROR_INPUT);
        outcome_release(&o);
    }
    json_decref(variables);
    assert_true(ok);
    assert_true(allowed > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_renders_as_in_jinja2),
        cmocka_unit_test(errors_name_the_template_the_line_and_the_cause),
        cmocka_unit_test(variables_must_be_an_object),
        cmocka_unit_test(hostile_templates_end_with_an_error),
        cmocka_unit_test(deep_nesting_ends_with_an_error),
        cmocka_unit_test(long_chains_are_not_deep),
        cmocka_unit_test(each_budget_is_named_when_it_ends),
        cmocka_unit_test(building_a_text_piece_by_piece_stays_within_the_budget),
        cmocka_unit_test(output_is_appended_and_spans_count_from_its_start),
        cmocka_unit_test(a_template_renders_again_with_other_variables),
        cmocka_unit_test(every_failed_allocation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
