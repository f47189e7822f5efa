/* The public functions: what they promise about handles, errors and texts. */
#include "support/test.h"

#include <hone/hone.h>
#include <jansson.h>
#include <locale.h>
#include <string.h>

static const char tiny_model[] = TEST_DATA "/golden/data/llama-tied";

static void a_job_is_opened_by_name(void **state) {
    (void)state;
    struct hone_job *job;
    struct hone_error err;
    assert_false(hone_job_open(&job, "trian", &err));
    assert_null(job);
    assert_int_equal(err.code, HONE_USAGE);
    assert_non_null(strstr(err.fix, "train"));
    assert_false(hone_job_open(&job, "trian", NULL)); /* the cause may be unwanted */
    hone_job_close(&job);
    assert_true(hone_job_open(&job, "settings", &err));
    hone_job_close(&job);
    assert_null(job);
}

static void an_error_leaves_the_job_as_it_was(void **state) {
    (void)state;
    struct hone_job *job;
    struct hone_error err;
    assert_true(hone_job_open(&job, "settings", &err));
    assert_true(hone_job_set(job, "command", "doctor", &err));
    assert_false(hone_job_set(job, "comand", "x", &err));
    assert_string_equal(err.where, "settings");
    assert_null(hone_job_result(job));
    assert_true(hone_job_run(job, &err));
    json_t *result = json_loads(hone_job_result(job), 0, NULL);
    assert_true(json_array_size(json_object_get(result, "settings")) > 3);
    json_decref(result);
    assert_false(hone_job_run(job, &err)); /* a job runs once */
    hone_job_close(&job);
}

static void a_cancelled_job_does_not_start(void **state) {
    (void)state;
    struct hone_job *job;
    struct hone_error err;
    assert_true(hone_job_open(&job, "doctor", &err));
    hone_job_cancel(job);
    assert_false(hone_job_run(job, &err));
    assert_int_equal(err.code, HONE_INTERRUPTED);
    assert_int_equal(hone_exit_status(err.code), 130);
    hone_job_close(&job);
}

static void errors_become_json_whatever_they_hold(void **state) {
    (void)state;
    struct hone_error err = {
        .code = HONE_INPUT, .where = "data", .what = "a \"b\"\n\xff", .why = "", .fix = "fix"};
    char *text = hone_error_json(&err);
    json_t *value = json_loads(text, 0, NULL);
    const json_t *error = json_object_get(value, "error");
    assert_string_equal(json_string_value(json_object_get(error, "code")), "input");
    assert_string_equal(json_string_value(json_object_get(error, "what")), "a \"b\"\n\\xff");
    json_decref(value);
    hone_free(text);
    text = hone_error_text(&err);
    assert_non_null(strstr(text, "fix"));
    hone_free(text);
}

static void every_code_has_its_exit_status(void **state) {
    (void)state;
    static const struct {
        enum hone_code code;
        int status;
        const char *name;
    } cases[] = {{HONE_OK, 0, "none"},           {HONE_FAILED, 1, "failed"},
                 {HONE_INTERNAL, 1, "internal"}, {HONE_USAGE, 2, "usage"},
                 {HONE_INPUT, 3, "input"},       {HONE_MEMORY, 4, "memory"},
                 {HONE_DISK, 4, "disk"},         {HONE_INTERRUPTED, 130, "interrupted"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(hone_exit_status(cases[i].code), cases[i].status);
        assert_string_equal(hone_code_name(cases[i].code), cases[i].name);
    }
}

static void text_of_strangers_is_escaped(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool lines;
        const char *escaped;
    } cases[] = {{"plain ü", true, "plain ü"},
                 {"\033[2J", true, "\\x1b[2J"},
                 {"a\nb", true, "a\nb"},
                 {"a\nb", false, "a\\nb"},
                 {"\xe2\x80\xae", true, "\\u{202e}"},
                 {"\xff", true, "\\xff"},
                 {"", true, ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = hone_escape(cases[i].text, strlen(cases[i].text), cases[i].lines);
        assert_string_equal(text, cases[i].escaped);
        hone_free(text);
    }
}

static void settings_are_listed_for_each_command(void **state) {
    (void)state;
    struct hone_error err;
    char *all, *some;
    assert_true(hone_settings(NULL, &all, &err));
    assert_true(hone_settings("doctor", &some, &err));
    json_t *whole = json_loads(all, 0, NULL), *part = json_loads(some, 0, NULL);
    assert_true(json_array_size(part) > 0 && json_array_size(part) < json_array_size(whole));
    size_t i;
    json_t *row;
    json_array_foreach(whole, i, row) {
        const char *name = json_string_value(json_object_get(row, "name"));
        const char *help = json_string_value(json_object_get(row, "help"));
        if (!help || strlen(help) < 5) fail_msg("%s has no help", name);
        if (json_array_size(json_object_get(row, "commands")) == 0) fail_msg("no command takes %s", name);
    }
    json_decref(whole);
    json_decref(part);
    hone_free(all);
    hone_free(some);
    assert_false(hone_settings("nothing", &all, &err));
    assert_null(all);
}

static bool count_bytes(void *user, const char *text, size_t size) {
    (void)text;
    *(size_t *)user += size;
    return true;
}

/* The cache of keys and values has no place for a token more. */
static void an_answer_ends_where_the_context_does(void **state) {
    (void)state;
    struct hone_session *session;
    struct hone_error err;
    char *json;
    if (!hone_session_open(&session, tiny_model, NULL,
                           "{\"device\":\"ref\",\"max-tokens\":1000,\"context\":24}", &err))
        fail_msg("%s", err.what);
    if (!hone_session_generate(session, "a", NULL, NULL, NULL, &json, &err)) fail_msg("%s", err.what);
    json_t *answer = json_loads(json, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(answer, "finish_reason")), "length");
    assert_int_equal(json_integer_value(json_object_get(answer, "prompt_tokens")) +
                         json_integer_value(json_object_get(answer, "generated_tokens")),
                     24);
    json_decref(answer);
    hone_free(json);
    hone_session_close(&session);
}

static void a_session_answers_and_stays_usable(void **state) {
    (void)state;
    static const struct {
        const char *request, *options, *text;
    } refused[] = {{"", NULL, "empty"},
                   {"a", "{\"model\":\"x\"}", "whole session"},
                   {"a", "{\"context\":64}", "whole session"},
                   {"a", "{\"top_p\":2}", "out of range"},
                   {"a", "[1]", "not a JSON object"},
                   {"a", "{", "broken JSON"},
                   {"a", "{\"seed\":{}}", "not a plain value"},
                   {"[]", NULL, "no messages"},
                   {"\xff", NULL, "UTF-8"}};
    struct hone_session *session;
    struct hone_error err;
    char *json, *again;
    size_t bytes = 0;
    assert_false(hone_session_open(&session, "/nowhere", NULL, NULL, &err));
    assert_null(session);
    if (!hone_session_open(&session, tiny_model, NULL, "{\"device\":\"ref\",\"max-tokens\":4}", &err))
        fail_msg("%s", err.what);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_false(
            hone_session_generate(session, refused[i].request, refused[i].options, NULL, NULL, &json, &err));
        assert_null(json);
        if (!strstr(err.what, refused[i].text)) fail_msg("%s: %s", refused[i].request, err.what);
        if (refused[i].options) assert_int_equal(err.code, HONE_USAGE);
        assert_null(strstr(err.fix, "file"));
    }
    assert_true(hone_session_generate(session, "[a", "{\"seed\":1}", count_bytes, &bytes, &json, &err));
    assert_true(hone_session_generate(session, "[a", "{\"seed\":1}", NULL, NULL, &again, &err));
    json_t *one = json_loads(json, 0, NULL), *two = json_loads(again, 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(one, "generated_tokens")), 4);
    assert_string_equal(json_string_value(json_object_get(one, "text")),
                        json_string_value(json_object_get(two, "text")));
    assert_true(bytes > 0);
    json_decref(one);
    json_decref(two);
    hone_free(json);
    hone_free(again);
    hone_session_close(&session);
    assert_null(session);
    hone_session_close(&session);
}

static void expect_null_refused(bool ok, const struct hone_error *err, const char *name) {
    if (ok || err->code != HONE_USAGE || !strstr(err->what, "is NULL") || !strstr(err->what, name))
        fail_msg("%s: %s", name, ok ? "taken" : err->what);
}

static void what_is_null_and_must_not_be_is_refused(void **state) {
    (void)state;
    struct hone_job *job;
    struct hone_session *session;
    struct hone_error err;
    expect_null_refused(hone_settings(NULL, NULL, &err), &err, "json");
    expect_null_refused(hone_job_open(NULL, "train", &err), &err, "out");
    expect_null_refused(hone_job_open(&job, NULL, &err), &err, "command");
    assert_null(job);
    expect_null_refused(hone_job_set(NULL, "model", "x", &err), &err, "job");
    expect_null_refused(hone_job_run(NULL, &err), &err, "job");
    assert_true(hone_job_open(&job, "train", NULL));
    expect_null_refused(hone_job_set(job, NULL, "x", &err), &err, "name");
    hone_job_close(&job);
    hone_job_close(NULL);
    hone_job_cancel(NULL);
    hone_job_on_event(NULL, NULL, NULL);
    assert_null(hone_job_result(NULL));
    expect_null_refused(hone_session_open(NULL, tiny_model, NULL, NULL, &err), &err, "out");
    expect_null_refused(hone_session_generate(NULL, "a", NULL, NULL, NULL, NULL, &err), &err, "session");
    assert_true(hone_session_open(&session, tiny_model, NULL, NULL, NULL));
    expect_null_refused(hone_session_generate(session, NULL, NULL, NULL, NULL, NULL, &err), &err, "request");
    hone_session_close(&session);
    hone_session_close(NULL);
    hone_session_cancel(NULL);
    assert_null(hone_session_warning(NULL));
    hone_free(NULL);
    char *texts[] = {hone_error_text(NULL), hone_error_json(NULL), hone_escape(NULL, 3, true)};
    assert_non_null(strstr(texts[1], "\"none\""));
    assert_string_equal(texts[2], "");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) hone_free(texts[i]);
}

struct meddler {
    struct hone_job *job;
    bool set, run;
};

static void set_and_run(void *user, const char *line) {
    struct meddler *meddler = user;
    (void)line;
    meddler->set |= hone_job_set(meddler->job, "seed", "5", NULL);
    meddler->run |= hone_job_run(meddler->job, NULL);
}

static void a_job_takes_no_settings_once_it_runs(void **state) {
    (void)state;
    struct meddler meddler = {0};
    struct hone_error err;
    assert_true(hone_job_open(&meddler.job, "plan", &err));
    assert_true(hone_job_set(meddler.job, "model", tiny_model, &err));
    assert_true(hone_job_set(meddler.job, "data", TEST_DATA "/golden/data/llama-untied/rows.jsonl", &err));
    hone_job_on_event(meddler.job, set_and_run, &meddler);
    if (!hone_job_run(meddler.job, &err)) fail_msg("%s %s", err.what, err.why);
    assert_false(meddler.set || meddler.run);
    assert_false(hone_job_set(meddler.job, "seed", "5", &err));
    assert_int_equal(err.code, HONE_USAGE);
    hone_job_close(&meddler.job);
}

static bool generate_again(void *user, const char *text, size_t size) {
    (void)text;
    (void)size;
    struct hone_error err;
    assert_false(hone_session_generate(user, "b", NULL, NULL, NULL, NULL, &err));
    assert_int_equal(err.code, HONE_USAGE);
    return false;
}

static void a_session_that_answers_takes_no_second_request(void **state) {
    (void)state;
    struct hone_session *session;
    char *json;
    assert_true(hone_session_open(&session, tiny_model, NULL, "{\"max-tokens\":4}", NULL));
    assert_true(hone_session_generate(session, "a", NULL, generate_again, session, NULL, NULL));
    assert_true(hone_session_generate(session, "a", NULL, NULL, NULL, &json, NULL));
    hone_free(json);
    hone_session_close(&session);
}

static bool cancel_session(void *user, const char *text, size_t size) {
    (void)text;
    (void)size;
    hone_session_cancel(user);
    return true;
}

static void a_cancelled_answer_says_so_and_the_next_one_starts_fresh(void **state) {
    (void)state;
    struct hone_session *session;
    struct hone_error err;
    char *json;
    assert_true(hone_session_open(&session, tiny_model, NULL, "{\"max-tokens\":100}", NULL));
    assert_false(hone_session_generate(session, "a", NULL, cancel_session, session, &json, &err));
    assert_null(json);
    assert_int_equal(err.code, HONE_INTERRUPTED);
    assert_string_equal(err.where, "chat");
    assert_true(hone_session_generate(session, "a", NULL, NULL, NULL, &json, NULL));
    hone_free(json);
    hone_session_close(&session);
}

static char decimal_mark(void) {
    char text[8];
    snprintf(text, sizeof text, "%.1f", 0.5);
    return text[1];
}

static void look_at_mark(void *user, const char *line) {
    (void)line;
    *(char *)user = decimal_mark();
}

/* Names that systems have for locales in which one half is 0,5. */
static void numbers_have_a_point_in_every_locale(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "fr_FR.utf8", "de_DE"};
    struct hone_job *job;
    struct hone_error err;
    char mark = 0, *plain, *there;
    assert_true(hone_settings(NULL, &plain, &err));
    for (size_t i = 0; i < sizeof names / sizeof *names && decimal_mark() != ','; i++)
        setlocale(LC_ALL, names[i]);
    if (decimal_mark() != ',') {
        hone_free(plain);
        skip(); /* none of them is installed */
    }
    assert_true(hone_settings(NULL, &there, &err));
    assert_string_equal(there, plain);
    assert_true(hone_job_open(&job, "plan", &err));
    assert_true(hone_job_set(job, "model", tiny_model, &err));
    assert_true(hone_job_set(job, "data", TEST_DATA "/golden/data/llama-untied/rows.jsonl", &err));
    if (!hone_job_set(job, "learning-rate", "0.0125", &err)) fail_msg("%s", err.what);
    assert_false(hone_job_set(job, "learning-rate", "0,0125", &err));
    hone_job_on_event(job, look_at_mark, &mark);
    if (!hone_job_run(job, &err)) fail_msg("%s %s", err.what, err.why);
    assert_int_equal(mark, ',');
    assert_int_equal(decimal_mark(), ',');
    hone_job_close(&job);
    hone_free(plain);
    hone_free(there);
    setlocale(LC_ALL, "C");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_is_opened_by_name),
        cmocka_unit_test(an_error_leaves_the_job_as_it_was),
        cmocka_unit_test(a_cancelled_job_does_not_start),
        cmocka_unit_test(errors_become_json_whatever_they_hold),
        cmocka_unit_test(every_code_has_its_exit_status),
        cmocka_unit_test(text_of_strangers_is_escaped),
        cmocka_unit_test(settings_are_listed_for_each_command),
        cmocka_unit_test(an_answer_ends_where_the_context_does),
        cmocka_unit_test(a_session_answers_and_stays_usable),
        cmocka_unit_test(what_is_null_and_must_not_be_is_refused),
        cmocka_unit_test(a_job_takes_no_settings_once_it_runs),
        cmocka_unit_test(a_session_that_answers_takes_no_second_request),
        cmocka_unit_test(a_cancelled_answer_says_so_and_the_next_one_starts_fresh),
        cmocka_unit_test(numbers_have_a_point_in_every_locale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
