/* What control groups leave, from files as the kernel shows them. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cgroup.h"
#include "base/fs.h"

static const uint64_t MiB = 1 << 20;

static void put(const char *root, const char *path, const char *content) {
    char name[512];
    struct error err;
    snprintf(name, sizeof name, "%s/%s", root, path);
    *strrchr(name, '/') = '\0';
    assert_ok(fs_make_directories(name, &err), &err);
    snprintf(name, sizeof name, "%s/%s", root, path);
    FILE *file = fopen(name, "w");
    assert_non_null(file);
    fputs(content, file);
    assert_int_equal(fclose(file), 0);
}

static struct cgroup_memory look(const char *root) {
    struct cgroup_memory found;
    char self[512];
    snprintf(self, sizeof self, "%s/self", root);
    cgroup_memory(&found, root, self);
    return found;
}

static int open_directory(void **state) {
    *state = test_directory();
    return *state == NULL;
}

static int remove_directory(void **state) {
    test_remove_directory(*state);
    return 0;
}

static void the_second_version_counts_file_pages_as_free(void **state) {
    char *root = *state;
    put(root, "self", "0::/jobs/one\n");
    put(root, "jobs/one/memory.max", "1073741824\n");
    put(root, "jobs/one/memory.current", "943718400\n"); /* 900 MiB, 500 of them file pages */
    put(root, "jobs/one/memory.stat",
        "anon 419430400\nfile 524288000\ninactive_file 419430400\nactive_file 104857600\n");
    put(root, "jobs/memory.max", "max\n");
    struct cgroup_memory found = look(root);
    assert_int_equal(found.limit, 1024 * MiB);
    assert_int_equal(found.available, 624 * MiB);
}

static void the_group_above_bounds_too(void **state) {
    char *root = *state;
    put(root, "self", "0::/jobs/one\n");
    put(root, "jobs/one/memory.max", "max\n");
    put(root, "jobs/memory.max", "536870912\n");
    put(root, "jobs/memory.current", "524288000\n");
    struct cgroup_memory found = look(root);
    assert_int_equal(found.limit, 512 * MiB);
    assert_int_equal(found.available, 12 * MiB);
}

static void the_first_version_is_read(void **state) {
    char *root = *state;
    put(root, "self", "9:name=systemd:/\n4:cpu,memory:/box\n0::/\n");
    put(root, "memory/box/memory.limit_in_bytes", "209715200\n");
    put(root, "memory/box/memory.usage_in_bytes", "188743680\n");
    put(root, "memory/box/memory.stat",
        "cache 1\ninactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 0\n");
    put(root, "memory/memory.limit_in_bytes", "9223372036854771712\n");
    struct cgroup_memory found = look(root);
    assert_int_equal(found.limit, 200 * MiB);
    assert_int_equal(found.available, 30 * MiB);
}

static void a_container_sees_its_group_as_the_root(void **state) {
    char *root = *state;
    put(root, "self", "0::/../not/there\n");
    put(root, "memory.max", "104857600\n");
    put(root, "memory.current", "209715200\n"); /* over its limit for a moment */
    struct cgroup_memory found = look(root);
    assert_int_equal(found.limit, 100 * MiB);
    assert_int_equal(found.available, 0);
}

static void without_groups_nothing_is_bounded(void **state) {
    struct cgroup_memory found = look(*state);
    assert_true(found.limit == UINT64_MAX && found.available == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_second_version_counts_file_pages_as_free, open_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(the_group_above_bounds_too, open_directory, remove_directory),
        cmocka_unit_test_setup_teardown(the_first_version_is_read, open_directory, remove_directory),
        cmocka_unit_test_setup_teardown(a_container_sees_its_group_as_the_root, open_directory,
                                        remove_directory),
        cmocka_unit_test_setup_teardown(without_groups_nothing_is_bounded, open_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
