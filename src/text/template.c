/* Opening, closing and rendering a template, and the budgets of a render. */
#include "text/template.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/template_internal.h"

static const struct template_limits usual = {
    .steps = 10000000, .output = 16u << 20, .memory = 64u << 20, .depth = 200};

/* What a parse may take: some thousand times the size of real templates. */
enum { parse_memory = 256 << 20 };

/* A macro call or a loop costs several levels of evaluation: the statement, its body, the expressions
 * around. The depth is given in the former and counted in the latter. */
enum { levels_per_depth = 5, most_levels = 2000 };

static bool fail(struct jinja *j, const char *format, va_list list) {
    char text[512];
    vsnprintf(text, sizeof text, format, list);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 && *c != '\n') *c = ' ';
    return error_set(j->err, ERROR_INPUT, "template", "%.200s:%d: %s", j->template->name, j->line, text);
}

bool jinja_fail(struct jinja *j, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail(j, format, list);
    va_end(list);
    return false;
}

bool jinja_exhaust(struct jinja *j, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail(j, format, list);
    va_end(list);
    j->exhausted = true;
    return error_fix(j->err, "Correct the template, or give another one: --chat-template chatml, or "
                             "--chat-template FILE.");
}

bool jinja_charge(struct jinja *j, uint64_t steps) {
    j->steps += steps;
    if (j->steps <= j->limits.steps) return true;
    return jinja_exhaust(j, "the template takes more than %llu steps", (unsigned long long)j->limits.steps);
}

bool jinja_enter(struct jinja *j) {
    if (j->depth >= j->most_depth) return jinja_exhaust(j, "nested deeper than %d levels", j->limits.depth);
    j->depth++;
    return true;
}

bool jinja_refuse_values(struct jinja *j, bool full) {
    if (!full) return error_no_memory(j->err, "template", j->values.used);
    return jinja_exhaust(j, "the template's values take more than %zu bytes", j->limits.memory);
}

void *jinja_alloc(struct jinja *j, size_t size) {
    void *block = arena_alloc(&j->values, size);
    if (!block) jinja_refuse_values(j, j->values.full);
    return block;
}

void *jinja_alloc_array(struct jinja *j, size_t count, size_t size) {
    void *block = arena_array(&j->values, count, size);
    if (!block) jinja_refuse_values(j, j->values.full);
    return block;
}

bool template_open(struct template **out, const char *source, size_t size, const char *name,
                   struct error *err) {
    *out = NULL;
    struct template *t = mem_calloc(1, sizeof *t);
    if (!t) return error_no_memory(err, "template", sizeof *t);
    arena_init(&t->arena, parse_memory);
    struct jinja_source text = {.name = name, .text = source, .size = size, .arena = &t->arena, .err = err};
    struct jinja_tokens tokens = {0};
    struct jinja_parser p = {.source = &text, .template = t};
    bool ok = (t->name = mem_strdup(name)) || error_no_memory(err, "template", strlen(name));
    ok = ok && jinja_lex(&text, &tokens);
    p.token = tokens.items;
    ok = ok && (t->loop_name = jinja_name_number(&p, "loop", 4)) >= 0 &&
         (t->caller_name = jinja_name_number(&p, "caller", 6)) >= 0 &&
         (t->kwargs_name = jinja_name_number(&p, "kwargs", 6)) >= 0 &&
         (t->varargs_name = jinja_name_number(&p, "varargs", 7)) >= 0 && jinja_parse_template(&p);
    if (ok)
        *out = t;
    else
        template_close(&t);
    return ok;
}

void template_close(struct template **template) {
    if (!*template) return;
    arena_release(&(*template)->arena);
    mem_free((*template)->name);
    mem_free(*template);
    *template = NULL;
}

/* Each name that the template uses: a variable, a function, or nothing yet (JINJA_ABSENT). */
static bool globals_fill(struct jinja *j, const json_t *variables) {
    const struct template *t = j->template;
    j->globals = arena_array(&j->input, t->name_count + 1, sizeof *j->globals);
    if (!j->globals) return error_no_memory(j->err, "template", t->name_count * sizeof *j->globals);
    for (size_t i = 0; i < t->name_count; i++) {
        const json_t *value =
            variables ? json_object_getn(variables, t->names[i].bytes, t->names[i].size) : NULL;
        const struct jinja_function *function = jinja_function_find(t->names[i].bytes, t->names[i].size);
        if (value) {
            if (!jinja_from_json(j, value, &j->globals[i])) return false;
        } else if (function) {
            j->globals[i] = (struct jinja_value){.kind = JINJA_FUNCTION, .function = function};
        }
    }
    return true;
}

bool template_render(const struct template *template, const json_t *variables, double now,
                     const struct template_limits *limits, struct buf *out, struct template_spans *spans,
                     bool *refused, struct error *err) {
    struct jinja j = {.template = template,
                      .out = out,
                      .root = out,
                      .root_start = out->size,
                      .spans = spans,
                      .now = now,
                      .line = 1,
                      .err = err};
    if (limits) j.limits = *limits;
    if (!j.limits.steps) j.limits.steps = usual.steps;
    if (!j.limits.output) j.limits.output = usual.output;
    if (!j.limits.memory) j.limits.memory = usual.memory;
    if (j.limits.depth <= 0) j.limits.depth = usual.depth;
    j.most_depth = j.limits.depth < 400 ? j.limits.depth * levels_per_depth : most_levels;
    arena_init(&j.values, j.limits.memory);
    arena_init(&j.input, 0);
    if (spans) *spans = (struct template_spans){NULL, 0};
    struct jinja_scope scope = {0};
    bool ok = !variables || json_is_object(variables) ||
              error_set(err, ERROR_INPUT, "template", "%s: the variables are no object", template->name);
    ok = ok && globals_fill(&j, variables) && jinja_exec(&j, &scope, template->body) != FLOW_FAILED;
    arena_release(&j.values);
    arena_release(&j.input);
    if (refused) *refused = !ok && !j.exhausted && err->code == ERROR_INPUT;
    if (!ok && spans) {
        mem_free(spans->spans);
        *spans = (struct template_spans){NULL, 0};
    }
    return ok;
}
