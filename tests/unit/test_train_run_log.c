/* events.jsonl read back: whole runs, resumed ones, ones that broke off. */
#include "support/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "train/run_log.h"

static void write_events(const char *directory, const char *text) {
    struct error err;
    char *path = fs_join(directory, "events.jsonl");
    assert_ok(fs_write_atomic(path, text, strlen(text), &err), &err);
    mem_free(path);
}

static void open_text(struct run_log *log, const char *text) {
    struct error err;
    char *directory = test_directory();
    write_events(directory, text);
    assert_ok(run_log_open(log, directory, &err), &err);
    test_remove_directory(directory);
}

static const char begun[] =
    "{\"event\":\"plan\",\"step\":0,\"peak_bytes\":100}\n"
    "{\"event\":\"step\",\"step\":1,\"loss\":3.5,\"memory_bytes\":80,\"mapped_bytes\":7}\n"
    "{\"event\":\"eval\",\"step\":1,\"loss\":3.25}\n"
    "{\"event\":\"step\",\"step\":2,\"loss\":3,\"memory_bytes\":90,\"mapped_bytes\":6}\n";

static void steps_evaluations_and_the_peak_are_read(void **state) {
    (void)state;
    struct run_log log;
    open_text(&log, begun);
    assert_int_equal(log.step_count, 2);
    assert_true(log.steps[1].loss == 3 && log.evals[0].loss == 3.25);
    assert_true(log.peak_bytes == 90 && log.mapped_bytes == 7);
    assert_false(log.torn);
    assert_null(log.done);
    run_log_close(&log);
}

static void a_torn_last_line_is_left_out(void **state) {
    (void)state;
    struct run_log log;
    char text[600];
    snprintf(text, sizeof text, "%s{\"event\":\"step\",\"st", begun);
    open_text(&log, text);
    assert_true(log.torn);
    assert_int_equal(log.step_count, 2);
    assert_int_equal(log.damaged, 0);
    run_log_close(&log);
}

static void a_damaged_line_is_counted_and_passed_over(void **state) {
    (void)state;
    struct run_log log;
    char text[600];
    snprintf(text, sizeof text, "%s\x01\x02\n[1]\n{\"event\":\"step\",\"step\":3,\"loss\":2}\n", begun);
    open_text(&log, text);
    assert_int_equal(log.damaged, 2);
    assert_int_equal(log.step_count, 3);
    run_log_close(&log);
}

static void the_later_line_of_a_step_counts_and_a_resume_measures_anew(void **state) {
    (void)state;
    struct run_log log;
    char text[900];
    snprintf(text, sizeof text,
             "%s{\"event\":\"done\",\"step\":2}\n{\"event\":\"plan\",\"step\":0,\"peak_bytes\":60}\n"
             "{\"event\":\"resume\",\"step\":1,\"from_step\":1}\n"
             "{\"event\":\"step\",\"step\":2,\"loss\":2.5,\"memory_bytes\":50}\n",
             begun);
    open_text(&log, text);
    assert_int_equal(log.step_count, 2);
    assert_true(log.steps[1].loss == 2.5);
    assert_true(log.peak_bytes == 50);
    assert_null(log.done);
    assert_int_equal(log.note_count, 1);
    run_log_close(&log);
}

static void a_resume_that_does_no_step_leaves_plan_and_peak(void **state) {
    (void)state;
    struct run_log log;
    char text[900];
    snprintf(text, sizeof text,
             "%s{\"event\":\"done\",\"step\":2}\n{\"event\":\"plan\",\"step\":0,\"peak_bytes\":60}\n"
             "{\"event\":\"resume\",\"step\":2,\"from_step\":2}\n{\"event\":\"done\",\"step\":2}\n",
             begun);
    open_text(&log, text);
    assert_true(log.peak_bytes == 90 && log.mapped_bytes == 7);
    assert_int_equal(json_integer_value(json_object_get(log.plan, "peak_bytes")), 100);
    assert_non_null(log.done);
    run_log_close(&log);
}

static void the_later_line_of_an_evaluation_counts(void **state) {
    (void)state;
    struct run_log log;
    char text[900];
    snprintf(text, sizeof text,
             "%s{\"event\":\"eval\",\"step\":2,\"loss\":3}\n{\"event\":\"eval\",\"step\":2,\"loss\":2.75}\n"
             "{\"event\":\"eval\",\"step\":3,\"loss\":null}\n",
             begun);
    open_text(&log, text);
    assert_int_equal(log.eval_count, 3);
    assert_true(log.evals[0].loss == 3.25 && log.evals[1].loss == 2.75);
    assert_true(isnan(log.evals[2].loss)); /* it was not finite */
    run_log_close(&log);
}

static void a_thousand_notes_are_kept_and_the_rest_counted(void **state) {
    (void)state;
    struct run_log log;
    struct buf text = {0};
    for (int i = 0; i < 1003; i++)
        buf_printf(&text, "{\"event\":\"warning\",\"step\":%d,\"message\":\"m\"}\n", i);
    open_text(&log, text.data);
    assert_int_equal(log.note_count, 1000);
    assert_int_equal(log.notes_left_out, 3);
    assert_int_equal(log.notes[999].step, 999);
    run_log_close(&log);
    buf_release(&text);
}

static void what_is_no_run_is_refused(void **state) {
    (void)state;
    struct run_log log;
    struct error err;
    char *directory = test_directory();
    assert_false(run_log_open(&log, directory, &err));
    assert_non_null(strstr(err.what, "events.jsonl"));
    write_events(directory, "{\"event\"");
    assert_false(run_log_open(&log, directory, &err));
    assert_non_null(strstr(err.what, "no event"));
    test_remove_directory(directory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_evaluations_and_the_peak_are_read),
        cmocka_unit_test(a_torn_last_line_is_left_out),
        cmocka_unit_test(a_damaged_line_is_counted_and_passed_over),
        cmocka_unit_test(the_later_line_of_a_step_counts_and_a_resume_measures_anew),
        cmocka_unit_test(a_resume_that_does_no_step_leaves_plan_and_peak),
        cmocka_unit_test(the_later_line_of_an_evaluation_counts),
        cmocka_unit_test(a_thousand_notes_are_kept_and_the_rest_counted),
        cmocka_unit_test(what_is_no_run_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
