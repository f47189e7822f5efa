#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/fs.h"
#include "base/mem.h"

void test_assert_ok(int ok, const struct error *err, const char *expression, const char *file, int line) {
    char text[2048];
    if (ok) return;
    error_format(err, text, sizeof text);
    print_error("%s failed: %s\n", expression, text);
    _fail(file, line);
}

char *test_directory(void) {
    const char *root = getenv("TMPDIR"), *memory = "/dev/shm"; /* where syncing costs nothing */
    if (!root) root = fs_kind_of(memory) == FS_DIRECTORY ? memory : "/tmp";
    char *path = fs_join(root, "hone-test-XXXXXX");
    if (!path || !mkdtemp(path)) abort();
    return path;
}

void test_remove_directory(char *path) {
    struct error ignored;
    fs_remove_tree(path, &ignored);
    mem_free(path);
}
