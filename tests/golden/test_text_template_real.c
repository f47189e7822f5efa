/* Real chat templates, rendered by transformers' environment and by ours.
 *
 * Without arguments this is the test: it runs templates_real.py, which compares the two and counts.
 * It is skipped where the material ($HONE_TEST_FILES) or Python's transformers is not there; the Python
 * is $HONE_PYTHON, which must have it, or python3. The script fails when it finds too few templates.
 * With `--render` it is the renderer that the script talks to: each line of input is
 * {"template":, "name":, "variables":, "now":}, each line of output {"text":, "spans":} or {"error":}. */
#include "support/test.h"

#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "text/template.h"

extern char **environ;
static const char *program;

enum { nothing_to_compare_with = 77 }; /* the script's exit status without its Python packages */

static json_t *render(const json_t *job) {
    struct error err = {0};
    struct template *template = NULL;
    struct template_spans spans = {0};
    struct buf out = {0};
    const json_t *source = json_object_get(job, "template"), *now = json_object_get(job, "now");
    const char *name = json_string_value(json_object_get(job, "name"));
    bool ok = template_open(&template, json_string_value(source), json_string_length(source),
                            name ? name : "template", &err) &&
              template_render(template, json_object_get(job, "variables"), json_number_value(now), NULL, &out,
                              &spans, NULL, &err);
    json_t *answer = json_object(), *ranges = json_array();
    for (size_t i = 0; ok && i < spans.count; i++)
        json_array_append_new(
            ranges, json_pack("[I,I]", (json_int_t)spans.spans[i].first, (json_int_t)spans.spans[i].end));
    if (ok) {
        json_object_set_new(answer, "text", json_stringn(out.data ? out.data : "", out.size));
        json_object_set(answer, "spans", ranges);
    } else {
        json_object_set_new(answer, "error", json_string(err.what));
    }
    json_decref(ranges);
    mem_free(spans.spans);
    buf_release(&out);
    template_close(&template);
    return answer;
}

static int serve(void) {
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while ((size = getline(&line, &capacity, stdin)) > 0) {
        struct error err = {0};
        json_t *job = NULL;
        if (!json_read(&job, line, (size_t)size, "stdin", 1, &err)) break;
        json_t *answer = render(job);
        json_dumpf(answer, stdout, JSON_COMPACT);
        putchar('\n');
        fflush(stdout);
        json_decref(answer);
        json_decref(job);
    }
    free(line);
    return 0;
}

static void real_templates_render_as_in_transformers(void **state) {
    (void)state;
    const char *files = getenv("HONE_TEST_FILES"), *python = getenv("HONE_PYTHON");
    char script[4096];
    if (!files || !*files) {
        print_message("HONE_TEST_FILES is not set: the real templates are not compared\n");
        skip();
    }
    snprintf(script, sizeof script, "%s/golden/templates_real.py", TEST_DATA);
    char command[] = "python3";
    char *arguments[] = {python && *python ? (char *)(uintptr_t)python : command, script,
                         (char *)(uintptr_t)program, NULL};
    pid_t child;
    int status = 0;
    assert_int_equal(posix_spawnp(&child, arguments[0], NULL, NULL, arguments, environ), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == nothing_to_compare_with && !(python && *python)) skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int count, char **arguments) {
    program = arguments[0];
    if (count > 1 && strcmp(arguments[1], "--render") == 0) return serve();
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_templates_render_as_in_transformers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
