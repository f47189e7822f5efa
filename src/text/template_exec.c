/* Walks statement nodes, writes output, calls macros. A block that Jinja2 gives a frame of its own gets
 * a scope: what is set there does not leave it. */
#include <string.h>

#include "base/mem.h"
#include "text/template_internal.h"

static bool emit(struct jinja *j, const char *bytes, size_t size) {
    size_t start = j->out == j->root ? j->root_start : 0;
    if (size > j->limits.output || j->out->size - start > j->limits.output - size)
        return jinja_exhaust(j, "the output is longer than %zu bytes", j->limits.output);
    if (!jinja_charge(j, size / 64)) return false;
    return buf_append(j->out, bytes, size) || error_no_memory(j->err, "template", j->out->size + size);
}

static bool emit_value(struct jinja *j, struct jinja_value value) {
    if (value.kind == JINJA_UNDEFINED) return true;
    if (!jinja_str(j, value, &value)) return false;
    return emit(j, value.text->bytes, value.text->size);
}

/* Runs a body with its output going to a text. */
bool jinja_capture(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *body,
                   struct jinja_value *out) {
    struct buf made, *before = j->out;
    jinja_buf(j, &made);
    j->out = &made;
    bool ok = jinja_exec(j, scope, body) != FLOW_FAILED;
    j->out = before;
    if (ok) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

/* Scopes live as long as the render, since a macro that was made in one may outlive the block. */
static struct jinja_scope *scope_new(struct jinja *j, struct jinja_scope *outer) {
    struct jinja_scope *scope = jinja_alloc(j, sizeof *scope);
    if (scope) scope->outer = outer;
    return scope;
}

/* ---- assignment -------------------------------------------------------------------------------- */

static bool assign(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *target,
                   struct jinja_value value);

static bool unpack(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *target,
                   struct jinja_value value) {
    struct jinja_seq seq;
    if (!jinja_seq_open(j, value, &seq)) return false;
    if (seq.count != target->count)
        return jinja_fail(j, "expected %zu values to unpack, got %zu", target->count, seq.count);
    if (!jinja_enter(j)) return false;
    for (size_t i = 0; i < seq.count; i++)
        if (!assign(j, scope, target->items[i], jinja_seq_item(&seq, i))) return false;
    jinja_leave(j);
    return true;
}

static bool assign(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *target,
                   struct jinja_value value) {
    if (target->type == NODE_NAME) return jinja_scope_set(j, scope, target->name, value);
    if (target->type == NODE_TUPLE) return unpack(j, scope, target, value);
    struct jinja_value space = jinja_scope_get(j, scope, target->name);
    if (space.kind != JINJA_NAMESPACE)
        return jinja_fail(j, "cannot assign attribute on non-namespace object");
    if (target->value.text->size && target->value.text->bytes[0] == '_')
        return jinja_fail(j, "names that begin with an underscore cannot be stored on a namespace");
    return jinja_dict_set(j, space.dict, target->value, value);
}

static bool exec_set(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_value value;
    return jinja_eval(j, scope, node->right, &value) && assign(j, scope, node->left, value);
}

/* A chain of filters whose innermost operand is `value`. */
static bool filter_chain(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *chain,
                         struct jinja_value value, struct jinja_value *out) {
    struct jinja_args args;
    char missing[jinja_missing_size];
    *out = value;
    if (!chain) return true;
    if (!jinja_enter(j) || !filter_chain(j, scope, chain->left, value, out)) return false;
    jinja_leave(j);
    j->line = chain->line;
    if (!chain->filter) {
        jinja_filter_missing(chain->value.text, missing);
        return jinja_fail(j, "%s", missing);
    }
    return jinja_eval_args(j, scope, chain->arguments, &args) &&
           jinja_call_filter(j, chain->filter, *out, &args, out);
}

static bool exec_set_block(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_scope *inner = scope_new(j, scope);
    struct jinja_value value;
    return inner && jinja_capture(j, inner, node->body, &value) &&
           filter_chain(j, inner, node->right, value, &value) && assign(j, scope, node->left, value);
}

static bool exec_filter_block(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_scope *inner = scope_new(j, scope);
    struct jinja_value value;
    return inner && jinja_capture(j, inner, node->body, &value) &&
           filter_chain(j, inner, node->right, value, &value) && emit_value(j, value);
}

/* ---- macros ------------------------------------------------------------------------------------ */

static bool macro_new(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                      struct jinja_value *out) {
    struct jinja_macro *macro = jinja_alloc(j, sizeof *macro);
    if (!macro) return false;
    *macro = (struct jinja_macro){node, scope};
    *out = (struct jinja_value){.kind = JINJA_MACRO, .macro = macro};
    return true;
}

/* The named argument `name`, or ABSENT; it is marked as taken. */
static struct jinja_value take_named(const struct jinja_args *args, bool *taken, struct jinja_value name) {
    for (size_t i = 0; i < args->named_count; i++) {
        const struct jinja_text *n = args->named[i].name.text;
        if (taken[i] || n->size != name.text->size || memcmp(n->bytes, name.text->bytes, n->size) != 0)
            continue;
        taken[i] = true;
        return args->named[i].value;
    }
    return jinja_absent();
}

static bool bind_parameters(struct jinja *j, const struct jinja_signature *s, const struct jinja_args *args,
                            bool *taken, struct jinja_scope *scope) {
    size_t first_default = s->count - s->default_count;
    for (size_t i = 0; i < s->count; i++) {
        struct jinja_value value = i < args->count ? args->values[i] : take_named(args, taken, s->texts[i]);
        if (value.kind == JINJA_ABSENT && i >= first_default) {
            if (!jinja_eval(j, scope, s->defaults[i - first_default], &value)) return false;
        } else if (value.kind == JINJA_ABSENT) {
            if (!jinja_undefined(j, "a parameter of the macro was not provided", jinja_absent(), s->texts[i],
                                 &value))
                return false;
        }
        if (!jinja_scope_set(j, scope, s->names[i], value)) return false;
    }
    return true;
}

/* caller, kwargs and varargs, for a macro that reads them; what is left over is an error otherwise. */
static bool bind_rest(struct jinja *j, const struct jinja_macro *macro, const struct jinja_args *args,
                      bool *taken, struct jinja_scope *scope) {
    const struct jinja_signature *s = macro->node->signature;
    static const struct jinja_text caller_text = {.bytes = "caller", .size = 6, .length = 6};
    struct jinja_value caller = {.kind = JINJA_TEXT, .text = (struct jinja_text *)(uintptr_t)&caller_text};
    if (s->uses_caller && !s->explicit_caller) {
        struct jinja_value value = take_named(args, taken, caller);
        if (value.kind == JINJA_ABSENT &&
            !jinja_undefined(j, "No caller defined", jinja_absent(), caller, &value))
            return false;
        if (!jinja_scope_set(j, scope, j->template->caller_name, value)) return false;
    }
    struct jinja_dict *rest = s->uses_kwargs ? jinja_dict_new(j) : NULL;
    if (s->uses_kwargs &&
        (!rest || !jinja_scope_set(j, scope, j->template->kwargs_name, jinja_of_dict(rest))))
        return false;
    for (size_t i = 0; i < args->named_count; i++) {
        const struct jinja_text *name = args->named[i].name.text;
        if (taken[i]) continue;
        if (!rest)
            return jinja_fail(j, "the macro takes no keyword argument '%.*s'",
                              (int)(name->size < 64 ? name->size : 64), name->bytes);
        if (!jinja_dict_set(j, rest, args->named[i].name, args->named[i].value)) return false;
    }
    size_t extra = args->count > s->count ? args->count - s->count : 0;
    if (!s->uses_varargs)
        return !extra || jinja_fail(j, "the macro takes not more than %zu argument(s)", s->count);
    struct jinja_list *list = jinja_list_new(j, extra);
    if (!list) return false;
    if (extra) memcpy(list->items, args->values + s->count, extra * sizeof *list->items);
    list->count = extra;
    return jinja_scope_set(j, scope, j->template->varargs_name, jinja_of_list(JINJA_TUPLE, list));
}

bool jinja_call_macro(struct jinja *j, const struct jinja_macro *macro, const struct jinja_args *args,
                      struct jinja_value *out) {
    struct jinja_scope *scope = scope_new(j, macro->scope);
    bool *taken = jinja_alloc(j, args->named_count);
    int line = j->line;
    if (!scope || !taken || !jinja_charge(j, args->named_count * (1 + macro->node->signature->count)) ||
        !jinja_enter(j))
        return false;
    bool ok = bind_parameters(j, macro->node->signature, args, taken, scope) &&
              bind_rest(j, macro, args, taken, scope) && jinja_capture(j, scope, macro->node->body, out);
    if (ok) jinja_leave(j);
    if (ok) j->line = line;
    return ok;
}

static bool exec_call_block(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_value callee, value;
    struct jinja_args args;
    const struct jinja_node *call = node->left;
    if (!jinja_eval(j, scope, call->left, &callee) || !jinja_eval_args(j, scope, call->arguments, &args))
        return false;
    struct jinja_named *named = jinja_alloc_array(j, args.named_count + 1, sizeof *named);
    if (!named || !jinja_text_view(j, "caller", 6, &named[args.named_count].name)) return false;
    if (!macro_new(j, scope, node, &named[args.named_count].value)) return false;
    if (args.named_count) memcpy(named, args.named, args.named_count * sizeof *named);
    args.named = named;
    args.named_count++;
    return jinja_call(j, callee, &args, &value) && emit_value(j, value);
}

static bool span_add(struct jinja *j, size_t first, size_t end) {
    struct template_spans *s = j->spans;
    if (!s) return true;
    if (s->count == j->span_capacity) {
        size_t capacity = j->span_capacity ? j->span_capacity * 2 : 8;
        struct template_span *grown = mem_realloc(s->spans, capacity * sizeof *grown);
        if (!grown) return error_no_memory(j->err, "template", capacity * sizeof *grown);
        s->spans = grown;
        j->span_capacity = capacity;
    }
    s->spans[s->count++] = (struct template_span){first, end};
    return true;
}

/* The span begins at the end of what the template itself has written so far, also when the block stands
 * in a macro whose text comes later: so does transformers' tracker. */
static bool exec_generation(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_scope *inner = scope_new(j, scope);
    struct jinja_value value;
    size_t first = j->root->size - j->root_start;
    if (!inner || !jinja_capture(j, inner, node->body, &value) ||
        !span_add(j, first, first + value.text->size))
        return false;
    return emit(j, value.text->bytes, value.text->size);
}

/* ---- blocks ------------------------------------------------------------------------------------ */

static enum jinja_flow exec_with(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_scope *inner = scope_new(j, scope);
    if (!inner) return FLOW_FAILED;
    for (size_t i = 0; i < node->count; i += 2) {
        struct jinja_value value;
        if (!jinja_eval(j, scope, node->items[i + 1], &value) || !assign(j, inner, node->items[i], value))
            return FLOW_FAILED;
    }
    return jinja_exec(j, inner, node->body);
}

static enum jinja_flow exec_if(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    for (size_t i = 0; i < node->count; i += 2) {
        struct jinja_value test;
        if (!jinja_eval(j, scope, node->items[i], &test)) return FLOW_FAILED;
        if (jinja_truth(test)) return jinja_exec(j, scope, node->items[i + 1]);
    }
    return node->third ? jinja_exec(j, scope, node->third) : FLOW_NEXT;
}

/* {% for x in xs if test %}: the items that pass. */
static bool loop_filter(struct jinja *j, struct jinja_scope *outer, const struct jinja_node *node,
                        struct jinja_seq *seq) {
    struct jinja_list *kept = jinja_list_new(j, 0);
    struct jinja_scope scope = {.outer = outer};
    struct jinja_value loop, test;
    if (!kept || !jinja_undefined(j, "'loop' is undefined: it is not available in the loop's filter",
                                  jinja_absent(), jinja_none(), &loop))
        return false;
    for (size_t i = 0; i < seq->count; i++) {
        struct jinja_value item = jinja_seq_item(seq, i);
        scope.count = 0;
        if (!jinja_scope_set(j, &scope, j->template->loop_name, loop) ||
            !assign(j, &scope, node->left, item) || !jinja_eval(j, &scope, node->third, &test))
            return false;
        if (jinja_truth(test) && !jinja_list_add(j, kept, item)) return false;
    }
    *seq = (struct jinja_seq){.list = kept, .count = kept->count};
    return true;
}

enum { steps_per_iteration = 8 };

static enum jinja_flow run_loop(struct jinja *j, struct jinja_scope *outer, const struct jinja_node *node,
                                struct jinja_value over, int depth0) {
    struct jinja_loop *loop = jinja_alloc(j, sizeof *loop);
    struct jinja_scope *scope = scope_new(j, outer);
    enum jinja_flow flow = FLOW_NEXT;
    bool completed = false; /* an iteration ran to its end; else's body runs when none did, as in Jinja2 */
    if (!loop || !scope || !jinja_seq_open(j, over, &loop->seq)) return FLOW_FAILED;
    if (node->third && !loop_filter(j, outer, node, &loop->seq)) return FLOW_FAILED;
    loop->depth0 = depth0;
    loop->node = node;
    loop->scope = outer;
    struct jinja_value value = {.kind = JINJA_LOOP, .loop = loop};
    for (size_t i = 0; i < loop->seq.count && flow != FLOW_BREAK; i++) {
        scope->count = 0;
        loop->index0 = i;
        if (!jinja_charge(j, steps_per_iteration) ||
            !jinja_scope_set(j, scope, j->template->loop_name, value) ||
            !assign(j, scope, node->left, jinja_seq_item(&loop->seq, i)))
            return FLOW_FAILED;
        flow = jinja_exec(j, scope, node->body);
        if (flow == FLOW_FAILED) return flow;
        completed |= flow == FLOW_NEXT;
    }
    if (completed || !node->count) return FLOW_NEXT;
    scope->count = 0;
    return jinja_exec(j, scope, node->items[0]);
}

static enum jinja_flow exec_for(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_value over;
    if (!jinja_eval(j, scope, node->right, &over)) return FLOW_FAILED;
    return run_loop(j, scope, node, over, 0);
}

/* loop(items), in a loop marked recursive: the body rendered over other items. */
bool jinja_call_loop(struct jinja *j, struct jinja_loop *loop, const struct jinja_args *args,
                     struct jinja_value *out) {
    struct buf made, *before = j->out;
    if (!loop->node->recursive)
        return jinja_fail(j, "the loop must have the 'recursive' marker to be called recursively");
    if (args->count != 1 || args->named_count) return jinja_fail(j, "loop() takes one argument");
    if (!jinja_enter(j)) return false;
    jinja_buf(j, &made);
    j->out = &made;
    bool ok = run_loop(j, loop->scope, loop->node, args->values[0], loop->depth0 + 1) != FLOW_FAILED;
    j->out = before;
    jinja_leave(j);
    if (ok) return jinja_text_take(j, &made, out);
    buf_release(&made);
    return false;
}

/* {% block %}: without inheritance it is printed where it stands, but sees only what the template's
 * outermost level has set, unless it is scoped. */
static enum jinja_flow exec_block(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    struct jinja_scope *outer = scope;
    while (!node->recursive && outer->outer) outer = outer->outer;
    struct jinja_scope *inner = scope_new(j, outer);
    return inner ? jinja_exec(j, inner, node->body) : FLOW_FAILED;
}

static bool exec_output(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node) {
    for (size_t i = 0; i < node->count; i++) {
        struct jinja_value value;
        if (!jinja_eval(j, scope, node->items[i], &value) || !emit_value(j, value)) return false;
    }
    return true;
}

static enum jinja_flow exec_statement(struct jinja *j, struct jinja_scope *scope,
                                      const struct jinja_node *node) {
    struct jinja_value value;
    bool ok = false;
    switch (node->type) {
    case NODE_TEXT: ok = emit(j, node->value.text->bytes, node->value.text->size); break;
    case NODE_OUTPUT: ok = exec_output(j, scope, node); break;
    case NODE_SET: ok = exec_set(j, scope, node); break;
    case NODE_SET_BLOCK: ok = exec_set_block(j, scope, node); break;
    case NODE_IF: return exec_if(j, scope, node);
    case NODE_FOR: return exec_for(j, scope, node);
    case NODE_MACRO:
        ok = macro_new(j, scope, node, &value) && jinja_scope_set(j, scope, node->name, value);
        break;
    case NODE_CALL_BLOCK: ok = exec_call_block(j, scope, node); break;
    case NODE_FILTER_BLOCK: ok = exec_filter_block(j, scope, node); break;
    case NODE_WITH: return exec_with(j, scope, node);
    case NODE_BLOCK: return exec_block(j, scope, node);
    case NODE_BREAK: return FLOW_BREAK;
    case NODE_CONTINUE: return FLOW_CONTINUE;
    case NODE_GENERATION: ok = exec_generation(j, scope, node); break;
    default: error_set(j->err, ERROR_INTERNAL, "template", "an expression stands where a statement should");
    }
    return ok ? FLOW_NEXT : FLOW_FAILED;
}

enum jinja_flow jinja_exec(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *body) {
    enum jinja_flow flow = FLOW_NEXT;
    if (!jinja_enter(j)) return FLOW_FAILED;
    for (size_t i = 0; i < body->count && flow == FLOW_NEXT; i++) {
        if (!jinja_step(j)) return FLOW_FAILED;
        j->line = body->items[i]->line;
        flow = exec_statement(j, scope, body->items[i]);
    }
    jinja_leave(j);
    return flow;
}
