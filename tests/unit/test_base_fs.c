/* Files beside what the program around the library does with its own. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"

/* What a program prints that has closed its standard output must not get into a file of ours. */
static void files_take_no_number_of_a_standard_stream(void **state) {
    (void)state;
    struct fs_appender log;
    struct fs_writer writer;
    struct error err;
    int lock, kept[3];
    bool taken;
    char *folder = test_directory(), *path = fs_join(folder, "log"), *other = fs_join(folder, "file"),
         *locked = fs_join(folder, "lock");
    fflush(stdout);
    for (int i = 0; i < 3; i++) kept[i] = dup(i);
    for (int i = 0; i < 3; i++) close(i);
    bool ok = fs_appender_open(&log, path, 0, &err) && fs_writer_open(&writer, other, &err) &&
              fs_lock_open(&lock, locked, &taken, &err);
    for (int i = 0; i < 3; i++) dup2(kept[i], i);
    for (int i = 0; i < 3; i++) close(kept[i]);
    assert_ok(ok, &err);
    assert_true(log.fd > 2 && writer.fd > 2 && lock > 2);
    assert_ok(fs_appender_write(&log, "a", 1, &err), &err); /* it is open still */
    fs_appender_close(&log);
    fs_writer_drop(&writer);
    fs_lock_close(&lock);
    mem_free(path);
    mem_free(other);
    mem_free(locked);
    test_remove_directory(folder);
}

static void a_pipe_that_nobody_writes_to_is_refused_at_once(void **state) {
    (void)state;
    struct fs_map map;
    struct error err;
    char *folder = test_directory(), *path = fs_join(folder, "rows.jsonl");
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(20); /* where open waits, this ends the test */
    assert_false(fs_map_open(&map, path, &err));
    alarm(0);
    assert_non_null(strstr(err.what, "is not a regular file"));
    mem_free(path);
    test_remove_directory(folder);
}

static void a_half_written_name_is_one_that_we_write(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool partial;
    } rows[] = {{"adapter.partial", true},
                {"step-00000010.partial", true},
                {"recipe.yaml.partial-4711", true},
                {".offloaded.partial-aB3xyz", true},
                {"notes.partial.txt", false},
                {"notes.partial-draft", false},
                {"a.partial-1-2", false},
                {"partial", false},
                {".partial", false},
                {"run-12", false},
                {"-", false},
                {"", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(fs_is_partial(rows[i].name), rows[i].partial);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(files_take_no_number_of_a_standard_stream),
                                       cmocka_unit_test(a_pipe_that_nobody_writes_to_is_refused_at_once),
                                       cmocka_unit_test(a_half_written_name_is_one_that_we_write)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
