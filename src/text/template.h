/* Chat templates: an interpreter for the Jinja language as model files use it.
 *
 * It knows text and JSON values, nothing of models, tokens or files. A template is data from a
 * stranger: it cannot reach anything but the variables it is given, and steps, output, depth and
 * memory are bounded. Rendering equals Jinja2's ImmutableSandboxedEnvironment with trim_blocks,
 * lstrip_blocks and loopcontrols, as Hugging Face transformers sets it up
 * (transformers/utils/chat_template_utils.py), byte for byte.
 *
 * Words: template, variables (the context), generation block (`{% generation %}`), budget. */
#ifndef HONE_TEXT_TEMPLATE_H
#define HONE_TEXT_TEMPLATE_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"

struct template;

struct template_limits {
    uint64_t steps; /* nodes, calls, iterations and bytes, each by its cost of some 10 ns; 0: 10,000,000 */
    size_t output;  /* bytes rendered; 0: 16 MiB */
    size_t memory;  /* bytes of values made while rendering; 0: 64 MiB */
    int depth;      /* nesting of macro calls and loops, each worth five of expressions; 0: 200 */
};

/* Byte ranges [first, end) of the output that lay in generation blocks, in order. */
struct template_span {
    size_t first, end;
};
struct template_spans {
    struct template_span *spans; /* release with mem_free */
    size_t count;
};

/* Parses. `name` stands in messages ("NAME:LINE: cause"). Errors: ERROR_INPUT. */
bool template_open(struct template **out, const char *source, size_t size, const char *name,
                   struct error *err);
void template_close(struct template **template); /* takes NULL, sets NULL */

/* Renders with `variables`, a JSON object (messages, tools, bos_token, eos_token,
 * add_generation_prompt …), appended to *out. `now`: Unix seconds that strftime_now() shows, in UTC,
 * so that a render repeats. `spans` may be NULL. On failure *out may hold a part.
 * Errors: ERROR_INPUT with the template's own text for raise_exception, or naming the budget. *refused (may
 * be NULL) tells after a failure whether these variables are at fault, so that others may render: an
 * exception that the template raised, or an operation that does not go with a value. A spent budget is the
 * template's fault. */
bool template_render(const struct template *template, const json_t *variables, double now,
                     const struct template_limits *limits, struct buf *out, struct template_spans *spans,
                     bool *refused, struct error *err);

#endif
