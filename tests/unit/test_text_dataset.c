#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "support/test.h"
#include "text/dataset.h"

struct box {
    char *directory, *path;
    struct dataset data;
    struct error err;
};

static bool open_bytes(struct box *box, const char *name, const void *bytes, size_t size,
                       const struct dataset_options *options) {
    memset(box, 0, sizeof *box);
    box->directory = test_directory();
    box->path = fs_join(box->directory, name);
    assert_ok(fs_write_atomic(box->path, bytes, size, &box->err), &box->err);
    const char *files[] = {box->path};
    return dataset_open(&box->data, files, 1, options, &box->err);
}

static bool open_text(struct box *box, const char *text, const char *columns) {
    struct dataset_options options = {.columns = columns};
    return open_bytes(box, "data", text, strlen(text), &options);
}

static void box_release(struct box *box) {
    dataset_close(&box->data);
    mem_free(box->path);
    test_remove_directory(box->directory);
}

static const char *content(const struct dataset_row *row, size_t turn) {
    return json_string_value(json_object_get(json_array_get(row->messages, turn), "content"));
}

static const char *role(const struct dataset_row *row, size_t turn) {
    return json_string_value(json_object_get(json_array_get(row->messages, turn), "role"));
}

#define PAIR "[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"A\"}]"

static void each_container_and_layout_is_recognised_from_its_content(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum dataset_container container;
        enum dataset_layout layout;
        size_t rows;
    } cases[] = {
        {"{\"messages\":" PAIR "}\n", CONTAINER_JSONL, LAYOUT_MESSAGES, 1},
        {"{\"messages\":" PAIR "}\r\n\r\n  \n{\"messages\":" PAIR "}", CONTAINER_JSONL, LAYOUT_MESSAGES, 2},
        {"\xef\xbb\xbf{\"messages\":" PAIR "}\n", CONTAINER_JSONL, LAYOUT_MESSAGES, 1},
        {"[{\"messages\":" PAIR "},\n {\"messages\":" PAIR "}]", CONTAINER_JSON, LAYOUT_MESSAGES, 2},
        {"{\"version\": [1, {\"a\": \"]\"}],\n \"data\": [{\"messages\":" PAIR "}]}\n", CONTAINER_JSON,
         LAYOUT_MESSAGES, 1},
        {"{\"train\": [{\"prompt\":\"Q\",\"completion\":\"A\"}], \"more\": 1}", CONTAINER_JSON, LAYOUT_PROMPT,
         1},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]}",
         CONTAINER_JSONL, LAYOUT_SHAREGPT, 1},
        {"{\"conversations\":" PAIR "}", CONTAINER_JSONL, LAYOUT_MESSAGES, 1},
        {"{\"instruction\":\"Q\",\"input\":\"\",\"output\":\"A\"}", CONTAINER_JSONL, LAYOUT_ALPACA, 1},
        {"{\"prompt\":\"Q\",\"completion\":\"A\"}", CONTAINER_JSONL, LAYOUT_PROMPT, 1},
        {"{\"prompt\":[{\"role\":\"user\",\"content\":\"Q\"}],\"completion\":[{\"role\":\"assistant\","
         "\"content\":\"A\"}]}",
         CONTAINER_JSONL, LAYOUT_PROMPT, 1},
        {"{\"text\":\"words\"}", CONTAINER_JSONL, LAYOUT_TEXT, 1},
        {"{\n  \"prompt\": \"Q\",\n  \"completion\": \"A\"\n}\n", CONTAINER_JSON, LAYOUT_PROMPT, 1},
        {" {\"messages\":\n" PAIR "}", CONTAINER_JSON, LAYOUT_MESSAGES, 1},
        {"{\n \"text\": \"words\"\n}\n{\n \"text\": \"more {\"\n}\n\n{\"text\":\"end\"}\n", CONTAINER_JSON,
         LAYOUT_TEXT, 3},
        {"prompt,completion\nQ,A\n", CONTAINER_CSV, LAYOUT_PROMPT, 1},
        {"prompt;completion\r\nQ;A\r\n", CONTAINER_CSV, LAYOUT_PROMPT, 1},
        {"prompt\tcompletion\nQ\tA", CONTAINER_CSV, LAYOUT_PROMPT, 1},
        {"\xef\xbb\xbftext\nwords\nmore words\n", CONTAINER_CSV, LAYOUT_TEXT, 2},
        {"messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"Q\"\"},{\"\"role\"\":\"\"assistant\"\","
         "\"\"content\"\":\"\"A\"\"}]\"\n",
         CONTAINER_CSV, LAYOUT_MESSAGES, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct box box;
        assert_ok(open_text(&box, cases[i].text, NULL), &box.err);
        if (box.data.problem_count) fail_msg("%s: %s", cases[i].text, box.data.problems[0].cause);
        assert_int_equal(box.data.container, cases[i].container);
        assert_int_equal(box.data.layout, cases[i].layout);
        assert_int_equal(box.data.row_count, cases[i].rows);
        const struct dataset_row *row = &box.data.rows[0];
        if (cases[i].layout == LAYOUT_TEXT) {
            assert_string_equal(row->text, "words");
        } else {
            assert_string_equal(role(row, 0), "user");
            assert_string_equal(content(row, 0), "Q");
            assert_string_equal(role(row, 1), "assistant");
            assert_string_equal(content(row, 1), "A");
        }
        box_release(&box);
    }
}

static void each_bad_row_is_named_with_line_and_cause(void **state) {
    (void)state;
    static const char good[] = "{\"messages\":" PAIR "}\n";
    static const struct {
        const char *row, *cause;
    } cases[] = {
        {"{\"messages\":[}", "broken JSON"},
        {"{\"messages\":[],\"id\":1e400}", "a number is out of range: real number overflow near '1e400'"},
        {"{\"messages\":" PAIR ",\"a\":1,\"a\":2}", "duplicate"},
        {"{\"messages\":\"\xff\"}", "invalid UTF-8: byte 0xff at offset "},
        {"[1]", "not an object but a list"},
        {"{\"other\":1}", "missing column `messages`"},
        {"{\"messages\":\"hello\"}", "`messages` is text, not a list"},
        {"{\"messages\":[]}", "the list of messages is empty"},
        {"{\"messages\":[7]}", "message 1 is a number, not an object"},
        {"{\"messages\":[{\"content\":\"Q\"}]}", "message 1: role is missing"},
        {"{\"messages\":[{\"role\":\"User\",\"content\":\"Q\"}]}",
         "message 1: unknown role `User`; roles are system, developer, user, assistant, tool"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "message 1: content is a number, not text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":null}]}", "message 1: content is null"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "content part 1 is not text but image_url"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"a\",{\"type\":\"text\"}]}]}",
         "message 1: the `text` of content part 2 is missing"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"text\":7}]}]}",
         "message 1: the `text` of content part 1 is a number"},
        {"{'messages': [{'role': 'user'}]}", "broken JSON: single quotes, as Python prints a value"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"weight\":0.5}]}",
         "message 1: weight is not 0 or 1"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"weight\":true}]}",
         "message 1: weight is not 0 or 1"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\",\"tool_calls\":[{\"function\":{\"name\":"
         "\"f\",\"arguments\":"
         "{\"wei\":18446744073709551616}}}]}]}",
         "`messages` has an integer of more than 64 bits, which would be rounded"},
        {"{\"messages\":" PAIR ",\"tools\":\"[{\\\"maximum\\\":-9223372036854775809}]\"}",
         "`tools` has an integer of more than 64 bits"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"}]}", "no assistant turn"},
        {"{\"messages\":[{\"from\":\"human\",\"value\":null}]}", "message 1: value is null, not text"},
        {"{\"messages\":[{\"from\":\"human\"}]}", "message 1: value is missing"},
        {"{\"messages\":" PAIR ",\"tools\":3}", "`tools` is a number, not a list"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}", "NUL"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}", "broken JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf text = {0};
        struct box box;
        buf_text(&text, good);
        buf_byte(&text, '\n');
        buf_text(&text, cases[i].row);
        buf_byte(&text, '\n');
        buf_text(&text, good);
        assert_ok(open_text(&box, text.data, NULL), &box.err);
        assert_int_equal(box.data.row_count, 2);
        assert_int_equal(box.data.problem_count, 1);
        assert_int_equal(box.data.problems[0].line, 3);
        if (!strstr(box.data.problems[0].cause, cases[i].cause))
            fail_msg("%s\n  gives: %s\n  not: %s", cases[i].row, box.data.problems[0].cause, cases[i].cause);
        assert_int_equal(box.data.rows[1].line, 4);
        assert_int_equal(box.data.rows[1].index, 1);
        box_release(&box);
        buf_release(&text);
    }
}

static void deep_nesting_and_escapes_stay_harmless(void **state) {
    (void)state;
    struct buf text = {0};
    struct box box;
    buf_text(&text, "{\"text\":\"fine\"}\n");
    for (int i = 0; i < 100000; i++) buf_byte(&text, '[');
    buf_text(&text, "\n{\"text\": \x1b[31m}\n");
    assert_ok(open_text(&box, text.data, NULL), &box.err);
    assert_int_equal(box.data.problem_count, 2);
    assert_non_null(strstr(box.data.problems[0].cause, "nested deeper than 256"));
    assert_null(strchr(box.data.problems[1].cause, 0x1b));
    box_release(&box);
    buf_release(&text);
}

static void broken_lists_and_records_are_told_with_their_line(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t rows, line;
        const char *cause;
    } cases[] = {
        {"[{\"text\":\"a\"},{\"text\":7},{\"text\":\"b\"}]", 2, 1, "row 2: `text` is a number"},
        {"[{\"text\":\"a\"},\n{\"text\":}\n,{\"text\":\"b\"}]", 2, 2, "broken JSON"},
        {"[{\"text\":\"a\"},\n{\"text\":\"b\"}", 1, 2, "the list is never closed"},
        {"[{\"text\":\"a\"},\n{\"text\":\n\"b\" \"c\"}]", 1, 3, "broken JSON"},
        {"[{\"text\":\"a\"},\n{\"text\":\"b\"}] x", 1, 2, "text behind the end"},
        {"[{\"text\":\"a\"},\n]", 1, 2, "row 2: broken JSON: a comma stands behind the last row"},
        {"[{\"text\":\"a\"},\n,{\"text\":\"b\"}]", 2, 2,
         "row 2: broken JSON: no row stands before the comma"},
        {"{\"text\":\"a\"}\n{\"text\":\"b\"},\n{\"text\":\"c\"}\n", 2, 2, "end of file expected near ','"},
        {"{\"text\":\"a\"},\n{\"text\":\"b\"}\n{\"text\":\"c\"}\n", 2, 1, "row 1: a comma behind the object"},
        {"{\n\"text\":\"a\"\n}\n,\n{\n\"text\":\"b\"\n}", 1, 1, "row 1: a comma behind the object"},
        {"{\"prompt\":\"a\",\"completion\":\"b\"}\n{\"prompt\":[\"a\",\"b\"],\"completion\":[\"c\"]}", 1, 2,
         "`prompt`: message 1 is text, not an object"},
        {"messages\n\"[{\"\"role\"\":\"\"user\"\",\"\"content\"\":\"\"q\"\"},{\"\"role\"\":\"\"assistant\"\","
         "\"\"content\"\":"
         "\"\"a\"\"}]\"\n\"[{'role': 'user', 'content': 'q'}]\"\n",
         1, 3, "`messages` holds broken JSON: single quotes, as Python prints a value"},
        {"{\n\"text\":\"a\"\n}\n{\n\"text\":\n}\n{\"text\":\"b\"}", 2, 6, "broken JSON"},
        {"{\n\"text\":\"a\"\n}\n{\n\"text\":\"b\"", 1, 5, "broken JSON"},
        {"{\n\"text\":\"a\"\n}\n]\n\n# {}\n{\n\"text\":\"b\"\n}\n{\"text\":\"c\"}", 3, 4,
         "row 2: broken JSON: text that is no object stands between the rows"},
        {"{\n\"text\":\"a\"\n}\n{\n\"text\":\"b\"\n}\n}", 2, 7, "row 3: broken JSON: text that is no object"},
        {"{\"text\": [\n{\"text\":\"a\"}\n", 1, 1, "broken JSON"}, /* a broken row of JSONL */
        {"text,other\na,b\nc\n", 1, 3, "1 field where the header has 2"},
        {"text,other\n\"a\nb\",c\nd,\"e", 1, 4, "never closed"},
        {"text,other\na,b\nc,\"d\"e\n", 1, 3, "behind a closing quote"},
        {"text,other\na,b\nc,\xfe\n", 1, 3, "invalid UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct box box;
        assert_ok(open_text(&box, cases[i].text, NULL), &box.err);
        assert_int_equal(box.data.row_count, cases[i].rows);
        assert_int_equal(box.data.problem_count, 1);
        if (!strstr(box.data.problems[0].cause, cases[i].cause) || box.data.problems[0].line != cases[i].line)
            fail_msg("%s gives %zu: %s", cases[i].text, box.data.problems[0].line,
                     box.data.problems[0].cause);
        box_release(&box);
    }
}

static void an_object_with_a_list_of_rows_tells_what_it_does_not_read(void **state) {
    (void)state;
    struct box box;
    assert_ok(
        open_text(&box,
                  "{\"version\":1,\"train\":[{\"text\":\"a\"}],\n\"test\":[{\"text\":\"b\"}],\"rows\":[3]}",
                  NULL),
        &box.err);
    assert_int_equal(box.data.row_count, 1);
    assert_non_null(
        strstr(box.data.evidence.data, "a list of rows, \"train\"; not read: \"test\", \"rows\""));
    box_release(&box);
    assert_false(open_text(&box, "{\"train\":[{\"text\":\"a\"}],\n\"rows\": [ {\"text\":\"b\"}]}", NULL));
    assert_int_equal(box.err.code, ERROR_INPUT);
    assert_non_null(strstr(box.err.what, ":2: the object holds two lists of rows, \"train\" and \"rows\""));
    box_release(&box);
}

static void what_no_row_has_is_named_with_the_columns_there_are(void **state) {
    (void)state;
    static const struct {
        const char *text, *what, *why, *fix;
    } cases[] = {
        {"{\"prompt\":\"q\",\"chosen\":\"a\"}\n{\"prompt\":\"q\",\"chosen\":\"a\"}",
         "rows of prompt/completion need `completion`, which is not in the first 2 rows", "prompt, chosen",
         "--columns completion=COLUMN"},
        {"{\"input\":\"q\",\"output\":\"a\"}",
         "rows of alpaca need `instruction`, which is not in the first row", "input, output",
         "--columns prompt=COLUMN,completion=COLUMN"},
        {"{\"version\":1,\"examples\":[{\"text\":\"a\"}]}", "the layout of the rows cannot be recognised",
         "a list of rows would be looked for in `data`, `train` or `rows`", "--columns prompt=COLUMN"},
        {"# A title\n\ntext, more, and more\n", "the layout of the rows cannot be recognised", "# A title",
         "{\"text\": "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct box box;
        assert_false(open_text(&box, cases[i].text, NULL));
        if (!strstr(box.err.what, cases[i].what) || !strstr(box.err.why, cases[i].why) ||
            !strstr(box.err.fix, cases[i].fix))
            fail_msg("%s: %s; %s; %s", cases[i].text, box.err.what, box.err.why, box.err.fix);
        box_release(&box);
    }
}

static void csv_keeps_quotes_newlines_and_separators_in_cells(void **state) {
    (void)state;
    struct box box;
    assert_ok(open_text(&box, "prompt,completion\r\n\"a \"\"b\"\", c\",\"x\r\ny\"\r\n\"\", z \r\n", NULL),
              &box.err);
    assert_int_equal(box.data.row_count, 2);
    assert_string_equal(box.data.rows[0].prompt, "a \"b\", c");
    assert_string_equal(box.data.rows[0].completion, "x\r\ny");
    assert_string_equal(box.data.rows[1].prompt, "");
    assert_string_equal(box.data.rows[1].completion, " z ");
    assert_int_equal(box.data.rows[1].line, 4);
    box_release(&box);
}

static void two_columns_of_one_name_are_refused_wherever_they_stand(void **state) {
    (void)state;
    static const int between[] = {0, 1, 61, 62, 63, 64, 200};
    for (size_t i = 0; i < sizeof between / sizeof *between; i++) {
        struct box box;
        struct buf text = {0};
        char where[64];
        buf_text(&text, "prompt,completion");
        for (int c = 0; c < between[i]; c++) buf_printf(&text, ",c%d", c);
        buf_text(&text, ",completion\np,right");
        for (int c = 0; c < between[i]; c++) buf_text(&text, ",x");
        buf_text(&text, ",wrong\n");
        assert_false(text.failed);
        assert_false(open_text(&box, text.data, NULL));
        snprintf(where, sizeof where, "two columns of one name (2 and %d)", between[i] + 3);
        if (!strstr(box.err.what, where)) fail_msg("%s", box.err.what);
        box_release(&box);
        buf_release(&text);
    }
}

static void columns_can_be_named(void **state) {
    (void)state;
    static const char text[] = "question,answer,voice\nQ,A,S\n";
    static const struct {
        const char *columns;
        enum error_code code;
    } refused[] = {
        {"prompt", ERROR_USAGE},
        {"prompt=", ERROR_USAGE},
        {"query=question", ERROR_USAGE},
        {"prompt=nothing", ERROR_INPUT},
        {"prompt=question,text=answer", ERROR_USAGE},
        {"prompt=question,prompt=answer", ERROR_USAGE},
        {NULL, ERROR_INPUT},
    };
    struct box box;
    assert_ok(open_text(&box, text, "prompt=question,completion=answer,system=voice"), &box.err);
    assert_int_equal(box.data.layout, LAYOUT_PROMPT);
    assert_string_equal(role(&box.data.rows[0], 0), "system");
    assert_string_equal(box.data.rows[0].prompt, "S\nQ");
    assert_string_equal(box.data.rows[0].completion, "A");
    box_release(&box);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_false(open_text(&box, text, refused[i].columns));
        assert_int_equal(box.err.code, refused[i].code);
        box_release(&box);
    }
    assert_false(open_text(&box, text, NULL));
    assert_non_null(strstr(box.err.why, "question, answer, voice"));
    box_release(&box);
}

static void sharegpt_roles_and_alpaca_inputs_become_turns(void **state) {
    (void)state;
    struct box box;
    assert_ok(
        open_text(
            &box,
            "{\"system\":\"S\",\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},"
            "{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},"
            "{\"from\":\"observation\",\"value\":\"O\"},{\"from\":\"gpt\",\"value\":\"A\",\"weight\":0}]}",
            NULL),
        &box.err);
    static const char *const roles[] = {"system", "user", "assistant", "tool", "assistant"};
    for (size_t i = 0; i < 5; i++) assert_string_equal(role(&box.data.rows[0], i), roles[i]);
    assert_non_null(json_object_get(json_array_get(box.data.rows[0].messages, 2), "tool_calls"));
    assert_int_equal(
        json_integer_value(json_object_get(json_array_get(box.data.rows[0].messages, 4), "weight")), 0);
    box_release(&box);
    assert_ok(open_text(&box,
                        "{\"instruction\":\"I\",\"input\":\"X\",\"output\":\"A\"}\n"
                        "{\"instruction\":\"I\",\"input\":null,\"output\":\"\"}",
                        NULL),
              &box.err);
    assert_string_equal(box.data.rows[0].prompt, "I\nX");
    assert_string_equal(content(&box.data.rows[0], 0), "I\nX");
    assert_string_equal(box.data.rows[1].prompt, "I");
    assert_string_equal(box.data.rows[1].completion, "");
    box_release(&box);
}

static void roles_of_tools_answers_reach_the_template_as_they_stand(void **state) {
    (void)state;
    static const char *const roles[] = {"tool", "ipython", "function", "observation"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        struct box box;
        char row[256];
        snprintf(
            row, sizeof row,
            "{\"messages\":[{\"role\":\"%s\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"A\"}]}",
            roles[i]);
        assert_ok(open_text(&box, row, NULL), &box.err);
        assert_int_equal(box.data.row_count, 1);
        assert_string_equal(role(&box.data.rows[0], 0), roles[i]);
        box_release(&box);
    }
}

static void parts_of_text_are_kept_and_tool_calls_need_no_content(void **state) {
    (void)state;
    struct box box;
    assert_ok(open_text(&box,
                        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                        "\"b\"]},{\"role\":\"assistant\",\"content\":null,"
                        "\"tool_calls\":[{\"id\":\"1\"}]}],\"tools\":[{\"type\":\"function\"}]}",
                        NULL),
              &box.err);
    const json_t *parts = json_object_get(json_array_get(box.data.rows[0].messages, 0), "content");
    assert_int_equal(json_array_size(parts), 2);
    for (size_t i = 0; i < 2; i++) {
        const json_t *part = json_array_get(parts, i);
        assert_string_equal(json_string_value(json_object_get(part, "type")), "text");
        assert_string_equal(json_string_value(json_object_get(part, "text")), i ? "b" : "a");
    }
    assert_int_equal(json_array_size(box.data.rows[0].tools), 1);
    box_release(&box);
}

/* Beside the conversation, and in numbers that are not written as integers. */
static void numbers_that_no_template_rounds_are_no_problem(void **state) {
    (void)state;
    static const char *const rows[] = {
        "{\"id\":123456789012345678901234567890,\"messages\":" PAIR "}",
        "{\"messages\":" PAIR ",\"tools\":[{\"maximum\":1e300,\"minimum\":9223372036854775807}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"18446744073709551616 \\\" 18446744073709551616\"},"
        "{\"role\":\"assistant\",\"content\":\"A\"}]}",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct box box;
        assert_ok(open_text(&box, rows[i], NULL), &box.err);
        assert_int_equal(box.data.row_count, 1);
        assert_int_equal(box.data.problem_count, 0);
        box_release(&box);
    }
}

static void the_refusal_names_ten_lines_and_counts_all(void **state) {
    (void)state;
    struct buf text = {0};
    struct box box;
    buf_text(&text, "{\"text\":\"fine\"}\n");
    for (int i = 0; i < 25; i++) buf_text(&text, "{\"wrong\":1}\n");
    assert_ok(open_text(&box, text.data, NULL), &box.err);
    assert_false(dataset_refuse(&box.data, &box.err));
    assert_int_equal(box.err.code, ERROR_INPUT);
    assert_non_null(strstr(box.err.what, ":2: missing column `text` (25 bad rows of 26)"));
    for (int line = 3; line <= 11; line++) {
        char named[32];
        snprintf(named, sizeof named, "line %d: ", line);
        assert_non_null(strstr(box.err.why, named));
    }
    assert_null(strstr(box.err.why, "line 12"));
    box_release(&box);
    buf_release(&text);
}

static void long_causes_end_with_a_whole_word(void **state) {
    (void)state;
    struct buf text = {0};
    struct box box;
    buf_text(&text, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\"}]}\n");
    for (int i = 0; i < 10; i++) {
        buf_text(&text, "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"");
        for (int k = 0; k < 60; k++) buf_text(&text, "größer ");
        buf_text(&text, "\",\"text\":\"x\"}]}]}\n");
    }
    assert_ok(open_text(&box, text.data, NULL), &box.err);
    assert_int_equal(box.data.problem_count, 10);
    const char *cause = box.data.problems[0].cause;
    assert_string_equal(cause + strlen(cause) - strlen(" größer…"), " größer…");
    assert_false(dataset_refuse(&box.data, &box.err));
    assert_non_null(strstr(box.err.what, " größer… (10 bad rows of 11)"));
    size_t ends = 0;
    for (const char *at = box.err.why; (at = strstr(at, " größer…")) != NULL; at++) ends++;
    assert_int_equal(ends, 9);
    assert_non_null(strstr(box.err.why, "line 11: "));
    box_release(&box);
    buf_release(&text);
}

static void files_without_rows_are_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "", "\n\n", "[]", "{\"data\": []}", "text\n", "[", "{\"text\"\n", "\xff\xfe{\0}\0", "{}\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct box box;
        assert_false(open_text(&box, texts[i], NULL));
        assert_int_equal(box.err.code, ERROR_INPUT);
        box_release(&box);
    }
    struct dataset data;
    struct error err;
    const char *files[] = {"/nonexistent/data.jsonl"};
    assert_false(dataset_open(&data, files, 1, NULL, &err));
    assert_int_equal(err.code, ERROR_INPUT);
}

static void prompts_without_answers_are_read_when_asked(void **state) {
    (void)state;
    static const char *const texts[] = {"{\"prompt\":\"Q\"}\n",
                                        "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"}]}\n",
                                        "{\"instruction\":\"Q\"}\n"};
    struct dataset_options options = {.answers_optional = true};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct box box;
        assert_ok(open_bytes(&box, "data", texts[i], strlen(texts[i]), &options), &box.err);
        assert_int_equal(box.data.row_count, 1);
        assert_int_equal(json_array_size(box.data.rows[0].messages), 1);
        assert_string_equal(content(&box.data.rows[0], 0), "Q");
        box_release(&box);
    }
}

static void a_split_holds_out_the_lowest_words_whatever_the_order(void **state) {
    (void)state;
    struct buf text = {0};
    struct box box;
    bool held[40], again[40];
    size_t count = 0;
    for (int i = 0; i < 40; i++) buf_printf(&text, "{\"text\":\"row %d\"}\n", i);
    assert_ok(open_text(&box, text.data, NULL), &box.err);
    assert_ok(dataset_split(&box.data, 0.1, 7, held, &box.err), &box.err);
    for (size_t i = 0; i < 40; i++) count += held[i];
    assert_int_equal(count, 4);
    /* The formula of docs/data.md, worked out apart. */
    assert_true(held[17] && held[24] && held[31] && held[34]);
    assert_ok(dataset_split(&box.data, 0.1, 0x123456789abcdef, again, &box.err), &box.err);
    assert_true(again[2] && again[3] && again[11] && again[30]);
    /* A larger share contains the smaller one; another seed draws other rows. */
    assert_ok(dataset_split(&box.data, 0.5, 7, again, &box.err), &box.err);
    for (size_t i = 0; i < 40; i++) assert_true(!held[i] || again[i]);
    assert_ok(dataset_split(&box.data, 0.1, 8, again, &box.err), &box.err);
    assert_memory_not_equal(held, again, sizeof held);
    assert_false(dataset_split(&box.data, 0.001, 7, held, &box.err));
    assert_false(dataset_split(&box.data, 1.5, 7, held, &box.err));
    box_release(&box);
    buf_release(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_container_and_layout_is_recognised_from_its_content),
        cmocka_unit_test(each_bad_row_is_named_with_line_and_cause),
        cmocka_unit_test(deep_nesting_and_escapes_stay_harmless),
        cmocka_unit_test(broken_lists_and_records_are_told_with_their_line),
        cmocka_unit_test(an_object_with_a_list_of_rows_tells_what_it_does_not_read),
        cmocka_unit_test(what_no_row_has_is_named_with_the_columns_there_are),
        cmocka_unit_test(csv_keeps_quotes_newlines_and_separators_in_cells),
        cmocka_unit_test(two_columns_of_one_name_are_refused_wherever_they_stand),
        cmocka_unit_test(columns_can_be_named),
        cmocka_unit_test(sharegpt_roles_and_alpaca_inputs_become_turns),
        cmocka_unit_test(roles_of_tools_answers_reach_the_template_as_they_stand),
        cmocka_unit_test(parts_of_text_are_kept_and_tool_calls_need_no_content),
        cmocka_unit_test(numbers_that_no_template_rounds_are_no_problem),
        cmocka_unit_test(the_refusal_names_ten_lines_and_counts_all),
        cmocka_unit_test(long_causes_end_with_a_whole_word),
        cmocka_unit_test(files_without_rows_are_refused),
        cmocka_unit_test(prompts_without_answers_are_read_when_asked),
        cmocka_unit_test(a_split_holds_out_the_lowest_words_whatever_the_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
