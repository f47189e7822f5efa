/* The template interpreter on arbitrary bytes: the source, then a line of "\n---\n", then the variables as
 * JSON; without that line the whole is a source. Small budgets keep each run short. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char mark[] = "\n---\n";
    static const struct template_limits limits = {
        .steps = 20000, .output = 1 << 16, .memory = 1 << 20, .depth = 100};
    const char *text = (const char *)data;
    const char *split = memmem(text, size, mark, sizeof mark - 1);
    size_t source = split ? (size_t)(split - text) : size;
    struct error err = {0};
    struct template *template = NULL;
    struct template_spans spans = {0};
    struct buf out = {0};
    json_t *variables = NULL;
    if (split) {
        const char *json = split + sizeof mark - 1;
        if (!json_read(&variables, json, size - (size_t)(json - text), "fuzz", 1, &err)) variables = NULL;
        err = (struct error){0};
    }
    if (template_open(&template, text, source, "fuzz", &err)) {
        bool ok = template_render(template, variables, 1735787045.25, &limits, &out, &spans, NULL, &err);
        if (ok && out.size > limits.output) abort();
        for (size_t i = 0; i < spans.count; i++)
            if (spans.spans[i].first > spans.spans[i].end) abort();
    } else if (err.code == ERROR_NONE || err.code == ERROR_INTERNAL) {
        abort();
    }
    if (err.code == ERROR_INTERNAL) abort();
    mem_free(spans.spans);
    buf_release(&out);
    template_close(&template);
    json_decref(variables);
    return 0;
}
