/* What every test includes: cmocka with the headers it wants before it. */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"

/* Fails with the error's text when `ok` is false. */
#define assert_ok(ok, err) test_assert_ok((ok), (err), #ok, __FILE__, __LINE__)
void test_assert_ok(int ok, const struct error *err, const char *expression, const char *file, int line);

/* A fresh directory for this test, below $TMPDIR, or in memory where the system has such a place; removed by
 * test_remove_directory. */
char *test_directory(void);
void test_remove_directory(char *path);

#endif
