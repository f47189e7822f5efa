/* Tokens to statement nodes: the tags of Jinja2, of its loopcontrols extension, and generation blocks. */
#include <stdio.h>
#include <string.h>

#include "text/template_internal.h"

static struct jinja_node *parse_body(struct jinja_parser *p, const char *const ends[]);

/* Parses up to `%}`, then statements up to one of the tags in `ends`; the current token is that tag's
 * name afterwards. */
static struct jinja_node *parse_block(struct jinja_parser *p, const char *const ends[]) {
    jinja_skip_op(p, OP_COLON);
    if (!jinja_expect_type(p, TOKEN_BLOCK_END) || !jinja_parse_enter(p)) return NULL;
    struct jinja_node *body = parse_body(p, ends);
    p->depth--;
    return body;
}

/* A block with one end tag, in a frame of its own: what is unknown there fails at once again. */
static struct jinja_node *parse_inner(struct jinja_parser *p, const char *end) {
    const char *const ends[] = {end, NULL};
    bool soft = p->soft;
    p->soft = false;
    struct jinja_node *body = parse_block(p, ends);
    p->soft = soft;
    if (body) p->token++;
    return body;
}

/* Inside of a for block `loop` cannot be assigned, not even in a tuple. */
static bool spares_loop(struct jinja_parser *p, const struct jinja_node *target) {
    if (!p->fors) return true;
    if (target->type == NODE_NAME && target->name == p->template->loop_name)
        return jinja_parse_fail(p, "can't assign to the special loop variable");
    for (size_t i = 0; target->type == NODE_TUPLE && i < target->count; i++)
        if (!spares_loop(p, target->items[i])) return false;
    return true;
}

static struct jinja_node *parse_set(struct jinja_parser *p) {
    int line = p->token++->line;
    struct jinja_node *target = jinja_parse_target(p, NULL, true);
    if (!target || !spares_loop(p, target)) return NULL;
    bool block = !jinja_skip_op(p, OP_ASSIGN);
    struct jinja_node *node = jinja_node_new(p, block ? NODE_SET_BLOCK : NODE_SET, line);
    if (!node) return NULL;
    node->left = target;
    if (!block) return (node->right = jinja_parse_tuple(p, true, false, NULL)) ? node : NULL;
    if (jinja_at_op(p, OP_PIPE) && !(node->right = jinja_parse_filters(p, NULL, false))) return NULL;
    return (node->body = parse_inner(p, "endset")) ? node : NULL;
}

static struct jinja_node *parse_for(struct jinja_parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
    struct jinja_node *node = jinja_node_new(p, NODE_FOR, p->token++->line);
    bool soft = p->soft;
    p->fors++;
    if (!node || !(node->left = jinja_parse_target(p, "in", false)) || !spares_loop(p, node->left))
        return NULL;
    if (!jinja_skip_name(p, "in")) {
        jinja_parse_fail(p, "expected 'in'");
        return NULL;
    }
    if (!(node->right = jinja_parse_tuple(p, false, false, "recursive"))) return NULL;
    p->soft = false;
    if (jinja_skip_name(p, "if") && !(node->third = jinja_parse_expression(p))) return NULL;
    node->recursive = jinja_skip_name(p, "recursive");
    p->loops++;
    node->body = parse_block(p, ends);
    p->loops--;
    if (!node->body) return NULL;
    if (jinja_skip_name(p, "else")) {
        struct jinja_node *otherwise = parse_block(p, end);
        if (!otherwise || !jinja_node_add(p, node, otherwise, OP_NONE)) return NULL;
    }
    p->soft = soft;
    p->fors--;
    p->token++;
    return node;
}

static struct jinja_node *parse_if(struct jinja_parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const end[] = {"endif", NULL};
    struct jinja_node *node = jinja_node_new(p, NODE_IF, p->token->line);
    bool soft = p->soft;
    p->soft = true;
    if (!node) return NULL;
    do {
        p->token++;
        struct jinja_node *condition = jinja_parse_tuple(p, false, false, NULL);
        struct jinja_node *body = condition ? parse_block(p, ends) : NULL;
        if (!body || !jinja_node_add(p, node, condition, OP_NONE) || !jinja_node_add(p, node, body, OP_NONE))
            return NULL;
    } while (jinja_at_name(p, "elif"));
    if (jinja_skip_name(p, "else") && !(node->third = parse_block(p, end))) return NULL;
    p->soft = soft;
    p->token++;
    return node;
}

static bool signature_add(struct jinja_parser *p, struct jinja_signature *s, struct jinja_node *names,
                          struct jinja_node *defaults) {
    const struct jinja_token *token = p->token;
    struct jinja_node *name = jinja_node_new(p, NODE_NAME, token->line), *value;
    if (!name || !jinja_expect_type(p, TOKEN_NAME) || !jinja_token_text(p, token, &name->value)) return false;
    if ((name->name = jinja_name_number(p, token->bytes, token->size)) < 0) return false;
    for (size_t i = 0; i < names->count; i++)
        if (names->items[i]->name == name->name) return jinja_parse_fail(p, "duplicate parameter");
    s->explicit_caller |= name->name == p->template->caller_name;
    if (jinja_skip_op(p, OP_ASSIGN)) {
        if (!(value = jinja_parse_expression(p)) || !jinja_node_add(p, defaults, value, OP_NONE))
            return false;
    } else if (defaults->count) {
        return jinja_parse_fail(p, "non-default argument follows default argument");
    }
    return names->count < 256 ? jinja_node_add(p, names, name, OP_NONE)
                              : jinja_parse_fail(p, "too many parameters");
}

static bool parse_signature(struct jinja_parser *p, struct jinja_signature *s) {
    struct jinja_node names = {0}, defaults = {0};
    if (!jinja_expect_op(p, OP_LPAREN)) return false;
    while (!jinja_at_op(p, OP_RPAREN)) {
        if (names.count && !jinja_expect_op(p, OP_COMMA)) return false;
        if (!signature_add(p, s, &names, &defaults)) return false;
    }
    s->count = names.count;
    s->default_count = defaults.count;
    s->defaults = defaults.items;
    s->names = jinja_parse_alloc(p, s->count, sizeof *s->names);
    s->texts = s->names ? jinja_parse_alloc(p, s->count, sizeof *s->texts) : NULL;
    if (!s->texts) return false;
    for (size_t i = 0; i < s->count; i++) {
        s->names[i] = names.items[i]->name;
        s->texts[i] = names.items[i]->value;
    }
    return jinja_expect_op(p, OP_RPAREN);
}

/* A parameter that has the name of a special variable takes its place; caller must have a default then. */
static bool settle_special(struct jinja_parser *p, struct jinja_signature *s) {
    for (size_t i = 0; i < s->count; i++) {
        if (s->names[i] == p->template->kwargs_name) s->uses_kwargs = false;
        if (s->names[i] == p->template->varargs_name) s->uses_varargs = false;
        if (s->names[i] == p->template->caller_name && s->uses_caller && i + s->default_count < s->count)
            return jinja_parse_fail(p, "a parameter 'caller' must be omitted or be given a default");
    }
    return true;
}

/* The body of a macro, a call block or a generation block; loops outside of it cannot be left from it. */
static bool parse_callable(struct jinja_parser *p, struct jinja_node *node, const char *end) {
    struct jinja_signature_chain link = {node->signature, p->macros};
    int loops = p->loops;
    p->macros = &link;
    p->loops = 0;
    node->body = parse_inner(p, end);
    p->loops = loops;
    p->macros = link.outer;
    return node->body && settle_special(p, node->signature);
}

static struct jinja_node *callable_new(struct jinja_parser *p, enum jinja_node_type type) {
    struct jinja_node *node = jinja_node_new(p, type, p->token++->line);
    if (!node || !(node->signature = jinja_parse_alloc(p, 1, sizeof *node->signature))) return NULL;
    return node;
}

static struct jinja_node *parse_macro(struct jinja_parser *p) {
    struct jinja_node *node = callable_new(p, NODE_MACRO);
    const struct jinja_token *name = p->token;
    if (!node || !jinja_expect_type(p, TOKEN_NAME) || !jinja_token_text(p, name, &node->value)) return NULL;
    if ((node->name = jinja_name_number(p, name->bytes, name->size)) < 0) return NULL;
    return parse_signature(p, node->signature) && parse_callable(p, node, "endmacro") ? node : NULL;
}

static struct jinja_node *parse_call_block(struct jinja_parser *p) {
    struct jinja_node *node = callable_new(p, NODE_CALL_BLOCK);
    if (!node || (jinja_at_op(p, OP_LPAREN) && !parse_signature(p, node->signature))) return NULL;
    node->name = p->template->caller_name;
    if (!(node->left = jinja_parse_expression(p))) return NULL;
    if (node->left->type != NODE_CALL) {
        jinja_parse_fail(p, "expected a call");
        return NULL;
    }
    return parse_callable(p, node, "endcall") ? node : NULL;
}

static struct jinja_node *parse_generation(struct jinja_parser *p) {
    struct jinja_node *node = callable_new(p, NODE_GENERATION);
    return node && parse_callable(p, node, "endgeneration") ? node : NULL;
}

static struct jinja_node *parse_filter_block(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_FILTER_BLOCK, p->token++->line);
    if (!node || !(node->right = jinja_parse_filters(p, NULL, true))) return NULL;
    return (node->body = parse_inner(p, "endfilter")) ? node : NULL;
}

static struct jinja_node *parse_with(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_WITH, p->token++->line);
    while (node && p->token->type != TOKEN_BLOCK_END) {
        if (node->count && !jinja_expect_op(p, OP_COMMA)) return NULL;
        struct jinja_node *target = jinja_parse_target(p, NULL, false);
        struct jinja_node *value = target && jinja_expect_op(p, OP_ASSIGN) ? jinja_parse_expression(p) : NULL;
        if (!value || !jinja_node_add(p, node, target, OP_NONE) || !jinja_node_add(p, node, value, OP_NONE))
            return NULL;
    }
    return node && (node->body = parse_inner(p, "endwith")) ? node : NULL;
}

static struct jinja_node *parse_named_block(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_BLOCK, p->token++->line);
    const struct jinja_token *name = p->token;
    if (!node || !jinja_expect_type(p, TOKEN_NAME)) return NULL;
    node->recursive = jinja_skip_name(p, "scoped");
    int loops = p->loops;
    p->loops = 0;
    node->body = parse_inner(p, "endblock");
    p->loops = loops;
    if (node->body && p->token->type == TOKEN_NAME && p->token->size == name->size &&
        memcmp(p->token->bytes, name->bytes, name->size) == 0)
        p->token++;
    return node->body ? node : NULL;
}

static struct jinja_node *parse_print(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_OUTPUT, p->token++->line);
    while (node && p->token->type != TOKEN_BLOCK_END) {
        if (node->count && !jinja_expect_op(p, OP_COMMA)) return NULL;
        struct jinja_node *value = jinja_parse_expression(p);
        if (!value || !jinja_node_add(p, node, value, OP_NONE)) return NULL;
    }
    return node;
}

static struct jinja_node *parse_leave(struct jinja_parser *p) {
    bool leaves = jinja_at_name(p, "break");
    if (!p->loops) {
        jinja_parse_fail(p, "'%s' outside of a loop", leaves ? "break" : "continue");
        return NULL;
    }
    return jinja_node_new(p, leaves ? NODE_BREAK : NODE_CONTINUE, p->token++->line);
}

static struct jinja_node *parse_refused(struct jinja_parser *p) {
    jinja_parse_fail(p, "the tag '%.*s' is not available in chat templates", (int)(p->token->size & 63),
                     p->token->bytes);
    return NULL;
}

static const struct statement_row {
    const char *name;
    struct jinja_node *(*parse)(struct jinja_parser *p);
} statements[] = {
    {"set", parse_set},
    {"for", parse_for},
    {"if", parse_if},
    {"macro", parse_macro},
    {"call", parse_call_block},
    {"filter", parse_filter_block},
    {"generation", parse_generation},
    {"with", parse_with},
    {"block", parse_named_block},
    {"print", parse_print},
    {"break", parse_leave},
    {"continue", parse_leave},
    {"include", parse_refused},
    {"import", parse_refused},
    {"from", parse_refused},
    {"extends", parse_refused},
    {"autoescape", parse_refused},
};

static bool at_end_tag(const struct jinja_parser *p, const char *const ends[]) {
    for (; ends && *ends; ends++)
        if (jinja_at_name(p, *ends)) return true;
    return false;
}

static struct jinja_node *parse_statement(struct jinja_parser *p, const char *const ends[]) {
    if (p->token->type != TOKEN_NAME) {
        jinja_parse_fail(p, "expected the name of a tag");
        return NULL;
    }
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (jinja_at_name(p, statements[i].name)) return statements[i].parse(p);
    if (ends)
        jinja_parse_fail(p, "unknown tag '%.*s' where '%s' is missing", (int)(p->token->size & 63),
                         p->token->bytes, ends[0]);
    else
        jinja_parse_fail(p, "unknown tag '%.*s'", (int)(p->token->size & 63), p->token->bytes);
    return NULL;
}

/* Text and {{ }} in a row, or one statement. */
static struct jinja_node *parse_piece(struct jinja_parser *p, const char *const ends[]) {
    struct jinja_node *node = NULL;
    if (p->token->type == TOKEN_DATA) {
        node = jinja_node_new(p, NODE_TEXT, p->token->line);
        if (!node || !jinja_token_text(p, p->token, &node->value)) return NULL;
        p->token++;
    } else if (p->token->type == TOKEN_VARIABLE_BEGIN) {
        node = jinja_node_new(p, NODE_OUTPUT, p->token++->line);
        struct jinja_node *value = node ? jinja_parse_tuple(p, true, false, NULL) : NULL;
        if (!value || !jinja_node_add(p, node, value, OP_NONE) || !jinja_expect_type(p, TOKEN_VARIABLE_END))
            return NULL;
    } else {
        node = parse_statement(p, ends);
        if (node && !jinja_expect_type(p, TOKEN_BLOCK_END)) return NULL;
    }
    return node;
}

static struct jinja_node *parse_body(struct jinja_parser *p, const char *const ends[]) {
    struct jinja_node *body = jinja_node_new(p, NODE_BODY, p->token->line);
    while (body && p->token->type != TOKEN_END) {
        if (p->token->type == TOKEN_BLOCK_BEGIN) {
            p->token++;
            if (at_end_tag(p, ends)) return body;
        }
        struct jinja_node *piece = parse_piece(p, ends);
        if (!piece || !jinja_node_add(p, body, piece, OP_NONE)) return NULL;
    }
    if (body && ends) {
        jinja_parse_fail(p, "unexpected end of the template, '%s' is missing", ends[0]);
        return NULL;
    }
    return body;
}

bool jinja_parse_template(struct jinja_parser *p) {
    p->template->body = parse_body(p, NULL);
    if (!p->template->body) return false;
    if (!p->unknown) return true;
    p->token = p->unknown;
    struct jinja_text name = {.bytes = p->unknown->bytes, .size = p->unknown->size};
    char missing[jinja_missing_size];
    jinja_filter_missing(&name, missing);
    if (!strcmp(p->unknown_what, "filter")) return jinja_parse_fail(p, "%s", missing);
    return jinja_parse_fail(p, "no %s named '%.*s'", p->unknown_what, (int)(p->unknown->size & 63),
                            p->unknown->bytes);
}
