/* Rows to examples, with the real template interpreter and a tokenizer of one token a byte, so that a
 * token's index is its byte and the trained flags can be written under the text. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "support/test.h"
#include "text/example.h"
#include "text/report.h"
#include "text/template_names.h"

enum { bos_id = 256, eos_id = 257 };

static struct tokenizer *byte_tokenizer(bool add_bos) {
    char texts[258][16];
    struct tokenizer_text tokens[258];
    int32_t kinds[258];
    uint32_t next = 256;
    struct tokenizer *out = NULL;
    struct error err;
    for (uint32_t b = 0; b < 256; b++) {
        bool shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        int size = utf8_encode(shown ? b : next++, texts[b]);
        tokens[b] = (struct tokenizer_text){texts[b], (size_t)size};
        kinds[b] = 1;
    }
    tokens[bos_id] = (struct tokenizer_text){"<s>", 3};
    tokens[eos_id] = (struct tokenizer_text){"</s>", 4};
    kinds[bos_id] = kinds[eos_id] = 3;
    struct tokenizer_tables tables = {.tokens = tokens,
                                      .kinds = kinds,
                                      .token_count = 258,
                                      .pre = "gpt-2",
                                      .bos = bos_id,
                                      .eos = eos_id,
                                      .unknown = -1,
                                      .padding = eos_id,
                                      .add_bos = add_bos};
    assert_ok(tokenizer_open(&out, &tables, &err), &err);
    return out;
}

/* As transformers 5 does with a tokenizer.json: it alone says what a text gets. */
static void the_post_processor_says_whether_a_text_gets_the_bos(void **state) {
    (void)state;
    static const char *const configs[] = {
        "{\"bos_token\":\"<s>\"}",
        "{\"bos_token\":\"<s>\",\"add_bos_token\":true}",
        "{\"bos_token\":\"<s>\",\"add_bos_token\":false,\"add_eos_token\":true}",
    };
    for (int adds = 0; adds < 2; adds++) {
        struct tokenizer *made = byte_tokenizer(adds), *read = NULL;
        struct buf json = {0};
        struct error err;
        assert_ok(tokenizer_write_json(made, &json, &err), &err);
        for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
            assert_ok(tokenizer_open_json(&read, json.data, json.size, configs[i], strlen(configs[i]), &err),
                      &err);
            assert_int_equal(tokenizer_adds_bos(read), adds);
            tokenizer_close(&read);
        }
        buf_release(&json);
        tokenizer_close(&made);
    }
}

struct bench {
    char *directory, *path;
    struct dataset data;
    struct tokenizer *tokenizer;
    struct template *template;
    struct renderer renderer;
    struct examples examples;
    struct error err;
};

static void bench_init(struct bench *bench, const char *rows, const char *source, bool add_bos) {
    memset(bench, 0, sizeof *bench);
    bench->directory = test_directory();
    bench->path = fs_join(bench->directory, "rows.jsonl");
    assert_ok(fs_write_atomic(bench->path, rows, strlen(rows), &bench->err), &bench->err);
    const char *files[] = {bench->path};
    assert_ok(dataset_open(&bench->data, files, 1, NULL, &bench->err), &bench->err);
    bench->tokenizer = byte_tokenizer(add_bos);
    if (source)
        assert_ok(template_open(&bench->template, source, strlen(source), "test", &bench->err), &bench->err);
    bench->renderer = (struct renderer){.tokenizer = bench->tokenizer, .template = bench->template};
}

static bool build(struct bench *bench) {
    examples_release(&bench->examples);
    return examples_build(&bench->examples, NULL, &bench->renderer, &bench->data, NULL, false, &bench->err);
}

static void bench_release(struct bench *bench) {
    examples_release(&bench->examples);
    template_close(&bench->template);
    tokenizer_close(&bench->tokenizer);
    dataset_close(&bench->data);
    mem_free(bench->path);
    test_remove_directory(bench->directory);
}

/* The example as text, what is trained in [ ]; BOS is ^, end-of-text $. */
static void assert_example(const struct example *example, const char *expected) {
    struct buf shown = {0};
    bool inside = false;
    uint32_t supervised = 0;
    for (uint32_t i = 0; i < example->count; i++) {
        if (example->trained[i] != inside) buf_byte(&shown, inside ? ']' : '[');
        inside = example->trained[i];
        supervised += i > 0 && inside;
        if (example->ids[i] == bos_id)
            buf_byte(&shown, '^');
        else if (example->ids[i] == eos_id)
            buf_byte(&shown, '$');
        else
            buf_byte(&shown, (char)example->ids[i]);
    }
    if (inside) buf_byte(&shown, ']');
    assert_string_equal(shown.data, expected);
    assert_int_equal(example->supervised, supervised);
    buf_release(&shown);
}

static const char marked[] = "{% for m in messages %}({{ m.role[0] }}:{{ m.content }}){% endfor %}"
                             "{% if add_generation_prompt %}(a:{% endif %}";
#define TURNS                                                                           \
    "{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"A\"}," \
    "{\"role\":\"user\",\"content\":\"R\"},{\"role\":\"assistant\",\"content\":\"B\"}"
#define ROW "{\"messages\":[" TURNS "]}\n"

static void what_an_answer_adds_after_the_prompt_is_trained(void **state) {
    (void)state;
    static const struct {
        const char *row, *source, *system, *expected;
        enum train_on train_on;
    } cases[] = {
        {ROW, marked, NULL, "(u:Q)(a:[A)](u:R)(a:[B)]", TRAIN_ON_ASSISTANT},
        {ROW, marked, NULL, "(u:Q)(a:A)(u:R)(a:[B)]", TRAIN_ON_LAST},
        {ROW, marked, NULL, "[(u:Q)(a:A)(u:R)(a:B)]", TRAIN_ON_ALL},
        {ROW, marked, "S", "(s:S)(u:Q)(a:[A)](u:R)(a:[B)]", TRAIN_ON_ASSISTANT},
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"own\"}," TURNS "]}", marked, "S",
         "(s:own)(u:Q)(a:[A)](u:R)(a:[B)]", TRAIN_ON_ASSISTANT},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"A\","
         "\"weight\":0},"
         "{\"role\":\"assistant\",\"content\":\"B\",\"weight\":1}]}",
         marked, NULL, "(u:Q)(a:A)(a:[B)]", TRAIN_ON_ASSISTANT},
        {"{\"messages\":[" TURNS ",{\"role\":\"user\",\"content\":\"E\"}]}", marked, NULL,
         "(u:Q)(a:[A)](u:R)(a:[B)](u:E)", TRAIN_ON_ASSISTANT},
        {"{\"prompt\":\"Q\",\"completion\":\"A\"}", marked, NULL, "(u:Q)(a:[A)]", TRAIN_ON_ASSISTANT},
        {"{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"A\"}", marked, NULL, "(u:I\nX)(a:[A)]",
         TRAIN_ON_ASSISTANT},
        {"{\"prompt\":[" TURNS ",{\"role\":\"user\",\"content\":\"E\"}],\"completion\":"
         "[{\"role\":\"assistant\",\"content\":\"C\"}]}",
         marked, NULL, "(u:Q)(a:A)(u:R)(a:B)(u:E)(a:[C)]", TRAIN_ON_ASSISTANT},
        {"{\"text\":\"words\"}", marked, NULL, "[words$]", TRAIN_ON_ASSISTANT},
        /* The generation prompt opens a thought that the rendered turn does not have. */
        {"{\"prompt\":\"Q\",\"completion\":\"<A\"}",
         "{% for m in messages %}({{ m.role[0] }}:{{ m.content }}){% endfor %}"
         "{% if add_generation_prompt %}(a:<think>{% endif %}",
         NULL, "(u:Q)(a:[<A)]", TRAIN_ON_ASSISTANT},
        /* Nothing can be rendered before the turn. */
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\"}]}",
         "{% if not messages %}{{ raise_exception('empty') }}{% endif %}(a:{{ messages[0].content }})", NULL,
         "(a:[A)]", TRAIN_ON_ASSISTANT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        bench_init(&bench, cases[i].row, cases[i].source, false);
        bench.renderer.system = cases[i].system;
        bench.renderer.train_on = cases[i].train_on;
        assert_ok(build(&bench), &bench.err);
        assert_int_equal(bench.examples.count, 1);
        assert_example(&bench.examples.items[0], cases[i].expected);
        bench_release(&bench);
    }
}

static void a_row_whose_past_is_rendered_otherwise_becomes_one_example_a_turn(void **state) {
    (void)state;
    static const char strips[] =
        "{% for m in messages %}({{ m.role[0] }}:"
        "{% if m.role == 'assistant' and not loop.last %}-{% else %}{{ m.content }}{% endif %})"
        "{% endfor %}{% if add_generation_prompt %}(a:{% endif %}";
    struct bench bench;
    bench_init(&bench, ROW, strips, false);
    assert_ok(build(&bench), &bench.err);
    assert_int_equal(bench.examples.count, 2);
    assert_example(&bench.examples.items[0], "(u:Q)(a:[A)]");
    assert_example(&bench.examples.items[1], "(u:Q)(a:-)(u:R)(a:[B)]");
    assert_int_equal(bench.examples.items[1].row, 0);
    assert_int_equal(bench.examples.counts.rows, 1);
    bench.renderer.train_on = TRAIN_ON_LAST;
    assert_ok(build(&bench), &bench.err);
    assert_int_equal(bench.examples.count, 1);
    assert_example(&bench.examples.items[0], "(u:Q)(a:-)(u:R)(a:[B)]");
    bench_release(&bench);
}

static void templates_see_what_transformers_passes(void **state) {
    (void)state;
    static const char source[] =
        "{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}"
        "{{ unk_token is defined }}{{ pad_token }}{{ extra }}{{ messages[1].weight is defined }}|"
        "{{ messages[-1].content }}";
    struct bench bench;
    bench_init(&bench,
               "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},"
               "{\"role\":\"assistant\",\"content\":\"A\",\"weight\":1}]}",
               source, true);
    bench.renderer.arguments = json_pack("{s:s, s:s}", "extra", "E", "bos_token", "<mine>");
    struct buf text = {0};
    struct template_spans spans = {0};
    assert_ok(renderer_row(&bench.renderer, &bench.data, &bench.data.rows[0], &text, &spans, &bench.err),
              &bench.err);
    assert_string_equal(text.data, "<mine></s>TrueTrueFalse</s>EFalse|A");
    assert_int_equal(spans.count, 1);
    assert_int_equal(spans.spans[0].first, text.size - 1);
    assert_int_equal(spans.spans[0].end, text.size);
    mem_free(spans.spans);
    buf_release(&text);
    json_decref((json_t *)bench.renderer.arguments);
    bench_release(&bench);
}

static void messages_are_seen_as_transformers_passes_them(void **state) {
    (void)state;
    static const char source[] = "{{ messages[1]|tojson }}";
    static const struct {
        const char *given, *seen;
    } cases[] = {
        {"\"reasoning\":\"T\"",
         "\"thinking\": \"T\", \"role\": \"assistant\", \"content\": \"A\", \"reasoning\": \"T\", "
         "\"reasoning_content\": \"T\""},
        {"\"thinking\":\"T\",\"weight\":1",
         "\"thinking\": \"T\", \"role\": \"assistant\", \"content\": \"A\", "
         "\"reasoning_content\": \"T\""},
        {"\"thinking\":\"T\",\"reasoning_content\":\"R\"",
         "\"thinking\": \"T\", \"role\": \"assistant\", \"content\": \"A\", \"reasoning_content\": \"R\""},
        {"\"reasoning\":null,\"tool_calls\":null,\"extra\":{\"kept\":null}",
         "\"role\": \"assistant\", \"content\": \"A\", \"extra\": {\"kept\": null}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        struct buf text = {0};
        struct template_spans spans = {0};
        char row[512], seen[512];
        snprintf(row, sizeof row,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},"
                 "{\"role\":\"assistant\",\"content\":\"A\",%s}]}",
                 cases[i].given);
        snprintf(seen, sizeof seen, "{%s}", cases[i].seen);
        bench_init(&bench, row, source, false);
        assert_ok(renderer_row(&bench.renderer, &bench.data, &bench.data.rows[0], &text, &spans, &bench.err),
                  &bench.err);
        assert_string_equal(text.data, seen);
        mem_free(spans.spans);
        buf_release(&text);
        bench_release(&bench);
    }
}

/* The first reads texts alone, the second parts alone, the third both, each in a way of its own; of the last
 * the user's turn reads both and the others texts. */
static void content_comes_in_the_form_that_the_template_reads(void **state) {
    (void)state;
    static const struct {
        const char *source, *text, *parts;
    } cases[] = {
        {"{% for m in messages %}{{ '[' + m.content + ']' }}{% endfor %}", "[ab][AB]", "[ab][AB]"},
        {"{% for m in messages %}[{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }};{% endif %}"
         "{% endfor %}]{% endfor %}",
         "[ab;][AB;]", "[a;b;][A;B;]"},
        {"{% for m in messages %}[{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content "
         "%}"
         "{{ p['text'] }};{% endfor %}{% endif %}]{% endfor %}",
         "[ab][AB]", "[a;b;][A;B;]"},
        {"{% for m in messages %}[{% if m.role == 'user' and m.content is not string %}{% for p in m.content "
         "%}"
         "{{ p['text'] }};{% endfor %}{% else %}{{ m.content }}{% endif %}]{% endfor %}",
         "[ab][AB]", "[a;b;][AB]"},
        {"{% for m in messages %}{{ m.content|tojson }}{% endfor %}", "\"ab\"\"AB\"", "\"ab\"\"AB\""},
    };
    static const char *const rows[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"},"
        "{\"role\":\"assistant\",\"content\":\"AB\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},\"b\"]},"
        "{\"role\":\"assistant\",\"content\":[{\"text\":\"A\"},{\"type\":\"text\",\"text\":\"B\"}]}]}",
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        struct buf text = {0};
        struct template_spans spans = {0};
        bench_init(&bench, rows[i % 2], cases[i / 2].source, false);
        assert_ok(renderer_find_content_forms(&bench.renderer, &bench.err), &bench.err);
        assert_ok(renderer_row(&bench.renderer, &bench.data, &bench.data.rows[0], &text, &spans, &bench.err),
                  &bench.err);
        assert_string_equal(text.data, i % 2 ? cases[i / 2].parts : cases[i / 2].text);
        mem_free(spans.spans);
        buf_release(&text);
        bench_release(&bench);
    }
}

static void a_row_too_long_to_render_is_a_bad_row_of_its_own(void **state) {
    (void)state;
    struct bench bench;
    struct buf rows = {0};
    buf_text(&rows, ROW "{\"messages\":[{\"role\":\"assistant\",\"content\":\"");
    for (size_t i = 0; i < (size_t)17 << 16; i++) buf_text(&rows, "sixteen letters ");
    buf_text(&rows, "\"}]}\n" ROW);
    bench_init(&bench, rows.data, marked, false);
    assert_false(build(&bench));
    assert_non_null(strstr(bench.err.what,
                           "rows.jsonl:2: the template refuses it: its 17.0 MiB of text are more "
                           "than a template can render: test:1: the output is longer than"));
    assert_non_null(strstr(bench.err.what, "(1 bad row of 3)"));
    assert_ok(examples_build(&bench.examples, NULL, &bench.renderer, &bench.data, NULL, true, &bench.err),
              &bench.err);
    assert_int_equal(bench.examples.count, 2);
    bench_release(&bench);
    buf_release(&rows);
}

static void rows_without_a_template_get_bos_and_end_of_text(void **state) {
    (void)state;
    static const struct {
        const char *row, *expected;
        bool add_bos;
        enum train_on train_on;
    } cases[] = {
        {"{\"text\":\"words\"}", "[words$]", false, TRAIN_ON_ASSISTANT},
        {"{\"text\":\"words\"}", "[^words$]", true, TRAIN_ON_ASSISTANT},
        {"{\"text\":\"<s>words</s>\"}", "[^words$]", true, TRAIN_ON_ASSISTANT},
        {"{\"prompt\":\"Q\",\"completion\":\"A\"}", "^Q[A$]", true, TRAIN_ON_ASSISTANT},
        {"{\"prompt\":\"Q\",\"completion\":\"\"}", "Q[$]", false, TRAIN_ON_ASSISTANT},
        {"{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"A\"}", "I\nX[A$]", false, TRAIN_ON_LAST},
        {"{\"prompt\":\"Q\",\"completion\":\"A\"}", "[^QA$]", true, TRAIN_ON_ALL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        bench_init(&bench, cases[i].row, NULL, cases[i].add_bos);
        bench.renderer.train_on = cases[i].train_on;
        assert_ok(build(&bench), &bench.err);
        assert_example(&bench.examples.items[0], cases[i].expected);
        bench_release(&bench);
    }
}

static void messages_without_a_template_are_refused_with_the_remedy(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, ROW, NULL, false);
    assert_false(build(&bench));
    assert_int_equal(bench.err.code, ERROR_INPUT);
    assert_non_null(strstr(bench.err.what, "rows.jsonl:1: "));
    assert_non_null(strstr(bench.err.fix, "--chat-template chatml"));
    bench_release(&bench);
}

/* Refuses an answer "no", the second row of three. */
static const char choosy[] =
    "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('never no') }}{% endif %}"
    "{{ m.content }}{% endfor %}";
static const char choosy_rows[] = ROW "{\"messages\":[{\"role\":\"assistant\",\"content\":\"no\"}]}\n"
                                      "{\"messages\":7}\n" ROW;

static void rows_that_the_template_refuses_are_bad_rows(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, choosy_rows, choosy, false);
    assert_false(build(&bench));
    assert_int_equal(bench.err.code, ERROR_INPUT);
    assert_non_null(
        strstr(bench.err.what, "rows.jsonl:2: the template refuses it: test:1: never no (2 bad rows of 4)"));
    assert_string_equal(bench.err.why, "line 3: `messages` is a number, not a list");
    assert_non_null(strstr(bench.err.fix, "--skip-bad-rows"));
    assert_ok(examples_build(&bench.examples, NULL, &bench.renderer, &bench.data, NULL, true, &bench.err),
              &bench.err);
    assert_int_equal(bench.examples.count, 2);
    assert_int_equal(bench.examples.counts.rows, 2);
    assert_int_equal(bench.examples.items[1].row, 2); /* it keeps its place */
    assert_int_equal(bench.data.problem_count, 2);    /* asked twice, told once */
    bench_release(&bench);
}

static void reports_tell_the_rows_that_the_template_refuses(void **state) {
    (void)state;
    struct bench bench;
    json_t *report;
    bench_init(&bench, choosy_rows, choosy, false);
    assert_ok(data_report_check(&report, &bench.data, NULL, &bench.renderer, &bench.err), &bench.err);
    assert_int_equal(json_integer_value(json_object_get(report, "rows")), 2);
    assert_int_equal(json_integer_value(json_object_get(report, "bad_rows")), 2);
    const json_t *first = json_array_get(json_object_get(report, "problems"), 0);
    assert_int_equal(json_integer_value(json_object_get(first, "line")), 2);
    json_decref(report);
    assert_false(data_report_preview(&report, &bench.data, &bench.renderer, 0, 1, false, &bench.err));
    assert_non_null(strstr(bench.err.what, "2 bad rows of 4"));
    assert_ok(data_report_preview(&report, &bench.data, &bench.renderer, 0, 2, true, &bench.err), &bench.err);
    assert_int_equal(json_array_size(json_object_get(report, "examples")), 2);
    json_decref(report);
    bench_release(&bench);
}

static void tool_calls_that_the_template_leaves_out_are_counted(void **state) {
    (void)state;
#define CALLS                                                                                            \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":%s\"tool_" \
    "calls\":"                                                                                           \
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{}}}]%s}]}\n"
    static const char shows[] =
        "{% for m in messages %}{{ m.content or '' }}{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}"
        "{% endif %}.{% endfor %}",
                      ignores[] = "{% for m in messages %}{{ m.content or '' }}.{% endfor %}";
    static const struct {
        const char *template;
        size_t ignored, first;
    } cases[] = {{shows, 0, 0}, {ignores, 2, 1}};
    char rows[2048];
    int used = snprintf(rows, sizeof rows, ROW);
    const char *contents[] = {"null,", "\"yes\",", "null,"}, *weights[] = {"", "", ",\"weight\":0"};
    for (int i = 0; i < 3; i++)
        used += snprintf(rows + used, sizeof rows - (size_t)used, CALLS, contents[i], weights[i]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        json_t *report;
        bench_init(&bench, rows, cases[i].template, false);
        assert_ok(build(&bench), &bench.err);
        assert_int_equal(bench.examples.counts.calls_ignored, cases[i].ignored);
        assert_int_equal(bench.examples.counts.first_calls_ignored, cases[i].first);
        assert_ok(data_report_check(&report, &bench.data, NULL, &bench.renderer, &bench.err), &bench.err);
        assert_int_equal(json_integer_value(json_object_get(report, "tool_calls_ignored")), cases[i].ignored);
        const json_t *first = json_object_get(report, "tool_calls_ignored_first");
        assert_int_equal(json_integer_value(json_object_get(first, "line")), cases[i].ignored ? 2 : 0);
        json_decref(report);
        bench_release(&bench);
    }
}

static void a_template_that_refuses_every_row_or_never_ends_is_an_error(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, "\n\n" ROW ROW, "{{ raise_exception('roles must alternate') }}", false);
    assert_false(examples_build(&bench.examples, NULL, &bench.renderer, &bench.data, NULL, true, &bench.err));
    assert_non_null(
        strstr(bench.err.what,
               "rows.jsonl:3: the template refuses it: test:1: roles must alternate (2 bad rows of 2)"));
    assert_non_null(strstr(bench.err.fix, "No row is left"));
    bench_release(&bench);
    static const char *const endless[] = {
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999999) %}{% endfor %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(100000) %}{{ 'x' * 100000 }}{% endfor %}",
        "{% set n = namespace(s='x') %}{% for a in range(99999) %}{% set n.s = n.s + n.s %}{% endfor %}"};
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
        bench_init(&bench, ROW ROW, endless[i], false);
        assert_false(
            examples_build(&bench.examples, NULL, &bench.renderer, &bench.data, NULL, true, &bench.err));
        assert_int_equal(bench.err.code, ERROR_INPUT);
        if (bench.data.problem_count || !strstr(bench.err.what, "rows.jsonl:1: test:1: "))
            fail_msg("%s: %s", endless[i], bench.err.what);
        bench_release(&bench);
    }
}

/* Rows of 2, 5 and 9 tokens with end-of-text. */
static const char texts[] = "{\"text\":\"a\"}\n{\"text\":\"abcd\"}\n{\"text\":\"abcdefgh\"}\n";

static void over_long_rows_are_cut_dropped_split_or_refused(void **state) {
    (void)state;
    static const struct {
        enum overlength overlength;
        size_t examples, truncated, dropped, split, tokens, supervised;
        uint32_t last;
    } cases[] = {
        {OVERLENGTH_TRUNCATE, 3, 2, 0, 0, 10, 7, 4},
        {OVERLENGTH_DROP, 1, 0, 2, 0, 2, 1, 2},
        {OVERLENGTH_SPLIT, 4, 0, 0, 2, 14, 10, 4}, /* 2; 4 (+1 without a target); 4, 4 (+1) */
    };
    struct bench bench;
    bench_init(&bench, texts, NULL, false);
    bench.renderer.max_length = 4;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench.renderer.overlength = cases[i].overlength;
        assert_ok(build(&bench), &bench.err);
        const struct example_counts *counts = &bench.examples.counts;
        assert_int_equal(bench.examples.count, cases[i].examples);
        assert_int_equal(counts->rows, 3);
        assert_int_equal(counts->truncated, cases[i].truncated);
        assert_int_equal(counts->dropped, cases[i].dropped);
        assert_int_equal(counts->split, cases[i].split);
        assert_int_equal(counts->tokens, cases[i].tokens);
        assert_int_equal(counts->supervised, cases[i].supervised);
        assert_int_equal(bench.examples.items[cases[i].examples - 1].count, cases[i].last);
    }
    bench.renderer.overlength = OVERLENGTH_REFUSE;
    assert_false(build(&bench));
    assert_non_null(strstr(bench.err.what, "rows.jsonl:2: the row has 5 tokens, --max-length is 4"));
    assert_non_null(strstr(bench.err.why, "2 examples are longer, the longest has 9 tokens"));
    assert_non_null(strstr(bench.err.fix, "--max-length 9"));
    bench.renderer.max_length = 9;
    assert_ok(build(&bench), &bench.err);
    bench_release(&bench);
}

static void rows_without_a_trained_token_are_counted_and_none_left_is_refused(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench,
               ROW "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"weight\":0}]}\n"
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"a long question\"},"
                   "{\"role\":\"assistant\",\"content\":\"A\"}]}\n",
               marked, false);
    bench.renderer.max_length = 12;
    assert_ok(build(&bench), &bench.err);
    assert_int_equal(bench.examples.count, 1);
    assert_int_equal(bench.examples.counts.skipped_untrained, 2);
    assert_int_equal(bench.examples.counts.truncated, 2);
    bench.renderer.max_length = 3;
    assert_false(build(&bench));
    assert_int_equal(bench.err.code, ERROR_INPUT);
    bench_release(&bench);
}

static void held_out_rows_are_chosen(void **state) {
    (void)state;
    struct bench bench;
    bool held[3] = {false, true, false};
    bench_init(&bench, texts, NULL, false);
    struct examples held_out;
    assert_ok(
        examples_build(&bench.examples, &held_out, &bench.renderer, &bench.data, held, false, &bench.err),
        &bench.err);
    assert_int_equal(bench.examples.count, 2);
    assert_int_equal(bench.examples.items[0].row, 0);
    assert_int_equal(held_out.count, 1);
    assert_int_equal(held_out.items[0].row, 1);
    examples_release(&held_out);
    bench_release(&bench);
}

static void prompts_for_generation_end_with_the_generation_prompt(void **state) {
    (void)state;
    struct bench bench;
    struct tokens tokens = {0};
    struct buf text = {0};
    json_t *one = json_pack("[{s:s, s:s}]", "role", "user", "content", "Q");
    bench_init(&bench, ROW, marked, true);
    assert_ok(renderer_prompt(&bench.renderer, one, NULL, &text, &bench.err), &bench.err);
    assert_string_equal(text.data, "(u:Q)(a:");
    assert_ok(renderer_prompt_tokens(&bench.renderer, one, NULL, &tokens, &bench.err), &bench.err);
    assert_int_equal(tokens.count, 8);
    bench.renderer.template = NULL;
    tokens.count = 0;
    assert_ok(renderer_prompt_tokens(&bench.renderer, one, NULL, &tokens, &bench.err), &bench.err);
    assert_int_equal(tokens.count, 2);
    assert_int_equal(tokens.ids[0], bos_id);
    assert_int_equal(tokens.ids[1], 'Q');
    assert_false(renderer_prompt(&bench.renderer, bench.data.rows[0].messages, NULL, &text, &bench.err));
    assert_int_equal(bench.err.code, ERROR_INPUT);
    tokens_release(&tokens);
    buf_release(&text);
    json_decref(one);
    bench_release(&bench);
}

static void every_named_template_trains_the_answer_alone(void **state) {
    (void)state;
    static const struct {
        const char *name, *expected;
    } cases[] = {
        {"chatml", "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n[A<|im_end|>\n]"},
        {"llama3", "^<|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\n[A<|eot_id|>]"},
        {"alpaca", "### Instruction:\nQ\n\n### Response:\n[A$\n\n]"},
        {"zephyr", "<|user|>\nQ$\n<|assistant|>\n[A$\n]"},
        {"plain", "User: Q\nAssistant: [A$\n]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bench bench;
        assert_string_equal(template_name_at(i), cases[i].name);
        bench_init(&bench, "{\"prompt\":\"Q\",\"completion\":\"A\"}", template_by_name(cases[i].name), false);
        assert_ok(build(&bench), &bench.err);
        assert_example(&bench.examples.items[0], cases[i].expected);
        bench_release(&bench);
    }
    assert_null(template_name_at(sizeof cases / sizeof *cases));
    assert_null(template_by_name("none of these"));
}

static json_int_t number(const json_t *report, const char *key) {
    assert_true(json_is_integer(json_object_get(report, key)));
    return json_integer_value(json_object_get(report, key));
}

static void reports_count_lengths_duplicates_overlap_and_empty_answers(void **state) {
    (void)state;
    struct bench bench;
    json_t *report = NULL;
    bench_init(&bench,
               "{\"prompt\":\"Q\",\"completion\":\"A\"}\n{\"prompt\":\"Q\",\"completion\":\"A\"}\n"
               "{\"prompt\":\"Q\",\"completion\":\" \"}\n{\"prompt\":\"Q\"}\n"
               "{\"prompt\":\"Q\",\"completion\":\"0123456789012345678\"}\n",
               NULL, false);
    bench.renderer.max_length = 8;
    assert_ok(data_report_stats(&report, &bench.data, &bench.data, &bench.renderer, &bench.err), &bench.err);
    assert_int_equal(number(report, "rows"), 4);
    assert_int_equal(number(report, "bad_rows"), 1);
    assert_int_equal(number(report, "duplicates"), 1);
    assert_int_equal(number(report, "overlap"), 4);
    assert_int_equal(number(report, "empty_answers"), 1);
    assert_int_equal(number(report, "over_length"), 1);
    assert_int_equal(number(report, "untrained"), 0);
    const json_t *tokens = json_object_get(report, "tokens");
    assert_int_equal(number(tokens, "min"), 3);
    assert_int_equal(number(tokens, "p50"), 3);
    assert_int_equal(number(tokens, "p90"), 21);
    assert_int_equal(number(tokens, "max"), 21);
    assert_int_equal(number(tokens, "total"), 30);
    assert_int_equal(number(tokens, "supervised"), 26);
    assert_int_equal(json_array_size(json_object_get(tokens, "histogram")), 2);
    json_decref(report);
    assert_ok(data_report_check(&report, &bench.data, NULL, NULL, &bench.err), &bench.err);
    assert_true(json_is_null(json_object_get(report, "overlap")));
    json_decref(report);
    bench_release(&bench);
}

static void a_preview_marks_what_is_trained_and_escapes_the_rest(void **state) {
    (void)state;
    struct bench bench;
    json_t *preview = NULL;
    struct buf text = {0};
    bench_init(&bench, "{\"prompt\":\"\\u001b[31mQ\",\"completion\":\"A\\u202e\"}\n", marked, false);
    assert_ok(data_report_preview(&preview, &bench.data, &bench.renderer, 0, 5, false, &bench.err),
              &bench.err);
    const json_t *example = json_array_get(json_object_get(preview, "examples"), 0);
    assert_int_equal(json_array_size(json_object_get(example, "ids")),
                     json_array_size(json_object_get(example, "flags")));
    assert_ok(data_preview_text(preview, false, &text, &bench.err), &bench.err);
    assert_string_equal(text.data, "row 0, line 1\n(u:\\x1b[31mQ)(a:\u27e6A\\u{202e})\u27e7\n\n");
    json_decref(preview);
    assert_false(data_report_preview(&preview, &bench.data, &bench.renderer, 1, 1, false, &bench.err));
    buf_release(&text);
    bench_release(&bench);
}

static void what_the_cut_leaves_is_what_reports_tell(void **state) {
    (void)state;
    struct bench bench;
    json_t *preview = NULL, *report = NULL;
    bench_init(&bench, "{\"prompt\":\"Question\",\"completion\":\"A\"}\n", marked, false);
    bench.renderer.max_length = 4;
    assert_ok(data_report_preview(&preview, &bench.data, &bench.renderer, 0, 5, false, &bench.err),
              &bench.err);
    const json_t *example = json_array_get(json_object_get(preview, "examples"), 0);
    size_t i;
    json_t *flag;
    assert_int_equal(number(example, "kept"), 4);
    json_array_foreach(json_object_get(example, "flags"), i, flag)
        assert_int_equal(json_integer_value(flag), 0);
    assert_ok(data_report_check(&report, &bench.data, NULL, &bench.renderer, &bench.err), &bench.err);
    assert_int_equal(number(report, "over_length"), 1);
    assert_int_equal(number(report, "untrained"), 1);
    json_decref(report);
    json_object_set_new(json_array_get(bench.data.rows[0].messages, 1), "weight", json_integer(0));
    bench.renderer.overlength = OVERLENGTH_DROP; /* counted once, as the run counts it */
    assert_ok(data_report_check(&report, &bench.data, NULL, &bench.renderer, &bench.err), &bench.err);
    assert_int_equal(number(report, "over_length"), 1);
    assert_int_equal(number(report, "untrained"), 0);
    json_decref(report);
    json_decref(preview);
    bench_release(&bench);
}

static void a_preview_marks_no_token_that_a_piece_of_a_split_row_begins_with(void **state) {
    (void)state;
    struct bench bench;
    json_t *preview = NULL;
    bench_init(&bench, "{\"prompt\":\"Q\",\"completion\":\"An answer of many tokens\"}\n", marked, false);
    bench.renderer.max_length = 4;
    bench.renderer.overlength = OVERLENGTH_SPLIT;
    assert_ok(data_report_preview(&preview, &bench.data, &bench.renderer, 0, 5, false, &bench.err),
              &bench.err);
    assert_ok(build(&bench), &bench.err);
    const json_t *flag,
        *flags = json_object_get(json_array_get(json_object_get(preview, "examples"), 0), "flags");
    size_t i, shown = 0;
    json_array_foreach(flags, i, flag) {
        shown += json_integer_value(flag) != 0;
        if (i % 4 == 0) assert_int_equal(json_integer_value(flag), 0);
    }
    assert_true(shown > 4);
    assert_int_equal(shown, bench.examples.counts.supervised);
    json_decref(preview);
    bench_release(&bench);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_post_processor_says_whether_a_text_gets_the_bos),
        cmocka_unit_test(what_an_answer_adds_after_the_prompt_is_trained),
        cmocka_unit_test(a_row_whose_past_is_rendered_otherwise_becomes_one_example_a_turn),
        cmocka_unit_test(templates_see_what_transformers_passes),
        cmocka_unit_test(messages_are_seen_as_transformers_passes_them),
        cmocka_unit_test(content_comes_in_the_form_that_the_template_reads),
        cmocka_unit_test(a_row_too_long_to_render_is_a_bad_row_of_its_own),
        cmocka_unit_test(rows_without_a_template_get_bos_and_end_of_text),
        cmocka_unit_test(messages_without_a_template_are_refused_with_the_remedy),
        cmocka_unit_test(rows_that_the_template_refuses_are_bad_rows),
        cmocka_unit_test(reports_tell_the_rows_that_the_template_refuses),
        cmocka_unit_test(tool_calls_that_the_template_leaves_out_are_counted),
        cmocka_unit_test(a_template_that_refuses_every_row_or_never_ends_is_an_error),
        cmocka_unit_test(over_long_rows_are_cut_dropped_split_or_refused),
        cmocka_unit_test(rows_without_a_trained_token_are_counted_and_none_left_is_refused),
        cmocka_unit_test(held_out_rows_are_chosen),
        cmocka_unit_test(prompts_for_generation_end_with_the_generation_prompt),
        cmocka_unit_test(every_named_template_trains_the_answer_alone),
        cmocka_unit_test(reports_count_lengths_duplicates_overlap_and_empty_answers),
        cmocka_unit_test(a_preview_marks_what_is_trained_and_escapes_the_rest),
        cmocka_unit_test(what_the_cut_leaves_is_what_reports_tell),
        cmocka_unit_test(a_preview_marks_no_token_that_a_piece_of_a_split_row_begins_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
