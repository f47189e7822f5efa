/* Devices by name, and the module of one: where it is looked for, and what is refused. */
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "device/device.h"

static const struct device_ops *find_in(const char *folders, const char *name, struct error *err) {
    assert_int_equal(setenv("HONE_MODULES", folders, 1), 0);
    const struct device_ops *ops = device_find(name, err);
    unsetenv("HONE_MODULES");
    return ops;
}

static void names_are_exact(void **state) {
    static const char *const wrong[] = {"gpu",   "cuda:", "cuda:x", "cuda:1x", "cuda:12345",
                                        "cpu:1", "cud",   "cudas",  ""};
    struct error err;
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_null(device_find(wrong[i], &err));
        assert_int_equal(err.code, ERROR_USAGE);
        assert_non_null(strstr(err.fix, "--device"));
    }
    assert_string_equal(device_find("cpu", &err)->name, "cpu");
    assert_string_equal(device_find("ref", &err)->name, "ref");
    assert_non_null(device_find("auto", &err));
}

/* The folders are told, a relative one is not even looked into. */
static void a_missing_module_is_told(void **state) {
    char *folder = test_directory();
    struct error err;
    (void)state;
    assert_null(find_in(folder, "cuda", &err));
    assert_int_equal(err.code, ERROR_FAILED);
    assert_non_null(strstr(err.what, "libhone_cuda.so"));
    assert_non_null(strstr(err.why, folder));
    assert_null(find_in("relative", "cuda", &err));
    assert_null(strstr(err.why, "relative"));
    test_remove_directory(folder);
}

static void what_is_no_module_is_refused(void **state) {
    char *folder = test_directory(), *path = fs_join(folder, "libhone_cuda.so");
    struct error err;
    (void)state;
    assert_ok(fs_write_atomic(path, "text", 4, &err), &err);
    assert_null(find_in(folder, "cuda", &err));
    assert_non_null(strstr(err.what, "does not load"));
    test_remove_directory(folder);
    mem_free(path);
}

static void another_version_is_refused(void **state) {
    struct error err;
    (void)state;
    assert_null(find_in(TEST_BUILD "/tests/other", "cuda", &err));
    assert_non_null(strstr(err.what, "another version"));
    assert_non_null(strstr(err.fix, "together"));
}

/* Where it was built: it loads, and says in one sentence when there is no GPU or no driver. */
static void the_module_loads_without_a_gpu(void **state) {
    struct error err;
    struct device *device = NULL;
    (void)state;
    if (fs_kind_of(TEST_BUILD "/libhone_cuda.so") != FS_FILE) skip();
    const struct device_ops *ops = find_in(TEST_BUILD, "cuda:0", &err);
    assert_ok(ops != NULL, &err);
    assert_string_equal(ops->name, "cuda");
    assert_int_equal(ops->abi, device_abi);
    if (ops->present(&err)) return; /* the tests of label gpu go on from here */
    assert_true(strstr(err.what, "driver") || strstr(err.what, "GPU"));
    assert_true(err.fix[0]);
    struct device_options options = {.name = "cuda:0"};
    assert_false(ops->open(&device, &options, &err));
    assert_null(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_exact),
        cmocka_unit_test(a_missing_module_is_told),
        cmocka_unit_test(what_is_no_module_is_refused),
        cmocka_unit_test(another_version_is_refused),
        cmocka_unit_test(the_module_loads_without_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
