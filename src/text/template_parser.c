/* Tokens to expression nodes: a recursive descent in the order of Jinja2's precedence, with a bound on
 * nesting. Operators of one level become one node with many operands, so that a long sum is not deep. */
#include <stdio.h>
#include <string.h>

#include "text/template_internal.h"

static struct jinja_node *parse_or(struct jinja_parser *p);
static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters);

/* ---- tokens and nodes -------------------------------------------------------------------------- */

bool jinja_source_fail(struct jinja_source *source, int line, const char *format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return error_set(source->err, ERROR_INPUT, "template", "%.200s:%d: %s", source->name, line, text);
}

bool jinja_parse_fail(struct jinja_parser *p, const char *format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return jinja_source_fail(p->source, p->token->line, "%s", text);
}

void *jinja_parse_alloc(struct jinja_parser *p, size_t count, size_t size) {
    void *block = arena_array(&p->template->arena, count ? count : 1, size);
    if (!block) error_no_memory(p->source->err, "template", count * size);
    return block;
}

bool jinja_parse_enter(struct jinja_parser *p) {
    if (p->depth >= jinja_parse_depth)
        return jinja_parse_fail(p, "nested deeper than %d levels", jinja_parse_depth);
    p->depth++;
    return true;
}

static bool token_is(const struct jinja_token *token, enum jinja_token_type type, const char *name) {
    return token->type == type && token->size == strlen(name) && memcmp(token->bytes, name, token->size) == 0;
}

bool jinja_at_name(const struct jinja_parser *p, const char *name) {
    return token_is(p->token, TOKEN_NAME, name);
}

bool jinja_at_op(const struct jinja_parser *p, enum jinja_op op) {
    return p->token->type == TOKEN_OPERATOR && p->token->op == op;
}

bool jinja_skip_name(struct jinja_parser *p, const char *name) {
    if (!jinja_at_name(p, name)) return false;
    p->token++;
    return true;
}

bool jinja_skip_op(struct jinja_parser *p, enum jinja_op op) {
    if (!jinja_at_op(p, op)) return false;
    p->token++;
    return true;
}

static bool unexpected(struct jinja_parser *p, const char *wanted) {
    static const char *const names[] = {
        "template text",          "'{{'", "'}}'", "'{%'", "'%}'", "", "a string", "a number", "a number", "",
        "the end of the template"};
    const struct jinja_token *t = p->token;
    char seen[64];
    if (t->type == TOKEN_NAME || t->type == TOKEN_OPERATOR)
        snprintf(seen, sizeof seen, "'%.*s'", (int)(t->size < 40 ? t->size : 40), t->bytes);
    else
        snprintf(seen, sizeof seen, "%s", names[t->type]);
    if (wanted) return jinja_parse_fail(p, "expected %s, got %s", wanted, seen);
    return jinja_parse_fail(p, "unexpected %s", seen);
}

bool jinja_expect_op(struct jinja_parser *p, enum jinja_op op) {
    static const char *const shown[OP_RBRACE + 1] = {
        [OP_COMMA] = "','",  [OP_COLON] = "':'",    [OP_RPAREN] = "')'",
        [OP_LPAREN] = "'('", [OP_RBRACKET] = "']'", [OP_RBRACE] = "'}'",
        [OP_ASSIGN] = "'='", [OP_LBRACKET] = "'['", [OP_LBRACE] = "'{'"};
    return jinja_skip_op(p, op) || unexpected(p, shown[op] ? shown[op] : "an operator");
}

bool jinja_expect_type(struct jinja_parser *p, enum jinja_token_type type) {
    if (p->token->type != type)
        return unexpected(p, type == TOKEN_VARIABLE_END ? "'}}'"
                             : type == TOKEN_BLOCK_END  ? "'%}'"
                                                        : "a name");
    p->token++;
    return true;
}

struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_type type, int line) {
    struct jinja_node *node = jinja_parse_alloc(p, 1, sizeof *node);
    if (node) {
        node->type = type;
        node->line = line;
    }
    return node;
}

bool jinja_node_add(struct jinja_parser *p, struct jinja_node *node, struct jinja_node *item,
                    enum jinja_op op) {
    size_t n = node->count;
    if (n == 0 || (n >= 4 && (n & (n - 1)) == 0)) { /* full: room for 4, 8, 16 … */
        size_t capacity = n ? n * 2 : 4;
        struct jinja_node **items = jinja_parse_alloc(p, capacity, sizeof *items);
        enum jinja_op *ops = items ? jinja_parse_alloc(p, capacity, sizeof *ops) : NULL;
        if (!ops) return false;
        if (n) memcpy(items, node->items, n * sizeof *items);
        if (n) memcpy(ops, node->ops, n * sizeof *ops);
        node->items = items;
        node->ops = ops;
    }
    node->items[n] = item;
    node->ops[n] = op;
    node->count++;
    return true;
}

bool jinja_token_text(struct jinja_parser *p, const struct jinja_token *token, struct jinja_value *out) {
    struct jinja_text *text = jinja_parse_alloc(p, 1, sizeof *text);
    if (!text) return false;
    size_t length = 0; /* counted here, since nodes must not change while they are walked */
    for (size_t i = 0; i < token->size; i++) length += (token->bytes[i] & 0xC0) != 0x80;
    *text = (struct jinja_text){.bytes = token->bytes, .size = token->size, .length = length};
    *out = (struct jinja_value){.kind = JINJA_TEXT, .text = text};
    return true;
}

static uint32_t name_hash(const char *bytes, size_t size) {
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < size; i++) h = (h ^ (unsigned char)bytes[i]) * 16777619u;
    return h;
}

static bool names_grow(struct jinja_parser *p) {
    struct template *t = p->template;
    size_t capacity = t->name_capacity ? t->name_capacity * 2 : 64, slots = capacity * 2;
    struct jinja_name *names = jinja_parse_alloc(p, capacity, sizeof *names);
    uint32_t *table = names ? jinja_parse_alloc(p, slots, sizeof *table) : NULL;
    if (!table) return false;
    if (t->name_count) memcpy(names, t->names, t->name_count * sizeof *names);
    for (size_t i = 0; i < t->name_count; i++) {
        size_t at = name_hash(names[i].bytes, names[i].size) & (slots - 1);
        while (table[at]) at = (at + 1) & (slots - 1);
        table[at] = (uint32_t)i + 1;
    }
    t->names = names;
    t->name_capacity = capacity;
    t->name_slots = table;
    t->name_slot_count = slots;
    return true;
}

/* Real templates use some hundred names. The bound keeps names that were made to collide in the table cheap.
 */
enum { most_names = 10000 };

int jinja_name_number(struct jinja_parser *p, const char *bytes, size_t size) {
    struct template *t = p->template;
    if (t->name_count == most_names) {
        jinja_parse_fail(p, "more than %d names", most_names);
        return -1;
    }
    if (t->name_count == t->name_capacity && !names_grow(p)) return -1;
    size_t at = name_hash(bytes, size) & (t->name_slot_count - 1);
    for (; t->name_slots[at]; at = (at + 1) & (t->name_slot_count - 1)) {
        const struct jinja_name *name = &t->names[t->name_slots[at] - 1];
        if (name->size == size && memcmp(name->bytes, bytes, size) == 0) return (int)t->name_slots[at] - 1;
    }
    t->names[t->name_count] = (struct jinja_name){bytes, size};
    t->name_slots[at] = (uint32_t)++t->name_count;
    return (int)t->name_count - 1;
}

/* ---- primaries --------------------------------------------------------------------------------- */

/* A name that reads caller, kwargs or varargs tells every macro around it to provide them. */
static void note_special_name(struct jinja_parser *p, int name) {
    const struct template *t = p->template;
    for (struct jinja_signature_chain *m = p->macros; m; m = m->outer) {
        m->signature->uses_caller |= name == t->caller_name;
        m->signature->uses_kwargs |= name == t->kwargs_name;
        m->signature->uses_varargs |= name == t->varargs_name;
    }
}

static struct jinja_node *constant(struct jinja_parser *p, int line, struct jinja_value value) {
    struct jinja_node *node = jinja_node_new(p, NODE_CONST, line);
    if (node) node->value = value;
    return node;
}

static struct jinja_node *parse_name(struct jinja_parser *p, bool target, bool with_namespace) {
    const struct jinja_token *t = p->token++;
    if (token_is(t, TOKEN_NAME, "true") || token_is(t, TOKEN_NAME, "True"))
        return constant(p, t->line, jinja_bool(true));
    if (token_is(t, TOKEN_NAME, "false") || token_is(t, TOKEN_NAME, "False"))
        return constant(p, t->line, jinja_bool(false));
    if (token_is(t, TOKEN_NAME, "none") || token_is(t, TOKEN_NAME, "None"))
        return constant(p, t->line, jinja_none());
    bool attribute = with_namespace && jinja_skip_op(p, OP_DOT);
    struct jinja_node *node = jinja_node_new(p, attribute ? NODE_NAMESPACE_TARGET : NODE_NAME, t->line);
    if (!node || (node->name = jinja_name_number(p, t->bytes, t->size)) < 0) return NULL;
    if (!target) note_special_name(p, node->name);
    if (attribute) {
        const struct jinja_token *name = p->token;
        if (!jinja_expect_type(p, TOKEN_NAME) || !jinja_token_text(p, name, &node->value)) return NULL;
    }
    return node;
}

static struct jinja_node *parse_string(struct jinja_parser *p) {
    const struct jinja_token *first = p->token;
    struct jinja_token joined = *first;
    size_t total = 0, count = 0;
    for (; p->token->type == TOKEN_STRING; p->token++, count++) total += p->token->size;
    if (count > 1) {
        char *bytes = jinja_parse_alloc(p, total, 1);
        if (!bytes) return NULL;
        joined.bytes = bytes;
        joined.size = total;
        for (const struct jinja_token *t = first; t != p->token; bytes += t->size, t++)
            memcpy(bytes, t->bytes, t->size);
    }
    struct jinja_node *node = jinja_node_new(p, NODE_CONST, first->line);
    return node && jinja_token_text(p, &joined, &node->value) ? node : NULL;
}

static struct jinja_node *parse_list(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_LIST, p->token++->line);
    if (!node) return NULL;
    while (!jinja_at_op(p, OP_RBRACKET)) {
        if (node->count && !jinja_expect_op(p, OP_COMMA)) return NULL;
        if (jinja_at_op(p, OP_RBRACKET)) break;
        struct jinja_node *item = jinja_parse_expression(p);
        if (!item || !jinja_node_add(p, node, item, OP_NONE)) return NULL;
    }
    return jinja_expect_op(p, OP_RBRACKET) ? node : NULL;
}

static struct jinja_node *parse_dict(struct jinja_parser *p) {
    struct jinja_node *node = jinja_node_new(p, NODE_DICT, p->token++->line);
    if (!node) return NULL;
    while (!jinja_at_op(p, OP_RBRACE)) {
        if (node->count && !jinja_expect_op(p, OP_COMMA)) return NULL;
        if (jinja_at_op(p, OP_RBRACE)) break;
        struct jinja_node *key = jinja_parse_expression(p);
        if (!key || !jinja_expect_op(p, OP_COLON)) return NULL;
        struct jinja_node *value = jinja_parse_expression(p);
        if (!value || !jinja_node_add(p, node, key, OP_NONE) || !jinja_node_add(p, node, value, OP_NONE))
            return NULL;
    }
    return jinja_expect_op(p, OP_RBRACE) ? node : NULL;
}

static struct jinja_node *parse_primary(struct jinja_parser *p, bool target, bool with_namespace) {
    const struct jinja_token *t = p->token;
    struct jinja_node *node = NULL;
    switch (t->type) {
    case TOKEN_NAME: return parse_name(p, target, with_namespace);
    case TOKEN_STRING: return parse_string(p);
    case TOKEN_INTEGER: p->token++; return constant(p, t->line, jinja_int(t->integer));
    case TOKEN_FLOAT: p->token++; return constant(p, t->line, jinja_real(t->real));
    default: break;
    }
    if (!jinja_parse_enter(p)) return NULL;
    if (jinja_skip_op(p, OP_LPAREN)) {
        node = jinja_parse_tuple(p, true, true, NULL);
        if (node && !jinja_expect_op(p, OP_RPAREN)) node = NULL;
    } else if (jinja_at_op(p, OP_LBRACKET)) {
        node = parse_list(p);
    } else if (jinja_at_op(p, OP_LBRACE)) {
        node = parse_dict(p);
    } else {
        unexpected(p, NULL);
    }
    p->depth--;
    return node;
}

static bool tuple_ends(const struct jinja_parser *p, const char *end) {
    return p->token->type == TOKEN_VARIABLE_END || p->token->type == TOKEN_BLOCK_END ||
           jinja_at_op(p, OP_RPAREN) || (end && jinja_at_name(p, end));
}

enum tuple_of { TUPLE_OF_EXPRESSIONS, TUPLE_OF_PLAIN, TUPLE_OF_TARGETS, TUPLE_OF_SET_TARGETS };

static struct jinja_node *tuple_item(struct jinja_parser *p, enum tuple_of what) {
    if (what == TUPLE_OF_EXPRESSIONS) return jinja_parse_expression(p);
    if (what == TUPLE_OF_PLAIN) return parse_or(p);
    return parse_primary(p, true, what == TUPLE_OF_SET_TARGETS);
}

static struct jinja_node *parse_items(struct jinja_parser *p, enum tuple_of what, bool parenthesised,
                                      const char *end) {
    int line = p->token->line;
    struct jinja_node *tuple = NULL, *item = NULL;
    if (!tuple_ends(p, end)) {
        item = tuple_item(p, what);
        if (!item || !jinja_at_op(p, OP_COMMA)) return item;
    } else if (!parenthesised) {
        unexpected(p, "an expression");
        return NULL;
    }
    tuple = jinja_node_new(p, NODE_TUPLE, line);
    if (!tuple || (item && !jinja_node_add(p, tuple, item, OP_NONE))) return NULL;
    while (jinja_at_op(p, OP_COMMA)) {
        p->token++;
        if (tuple_ends(p, end)) break;
        item = tuple_item(p, what);
        if (!item || !jinja_node_add(p, tuple, item, OP_NONE)) return NULL;
    }
    return tuple;
}

struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_condition, bool parenthesised,
                                     const char *end) {
    return parse_items(p, with_condition ? TUPLE_OF_EXPRESSIONS : TUPLE_OF_PLAIN, parenthesised, end);
}

static bool assignable(struct jinja_parser *p, const struct jinja_node *node) {
    if (node->type == NODE_NAME || node->type == NODE_NAMESPACE_TARGET) return true;
    if (node->type != NODE_TUPLE) return jinja_parse_fail(p, "this cannot be assigned to");
    for (size_t i = 0; i < node->count; i++) {
        const struct jinja_node *item = node->items[i];
        if (item->type == NODE_TUPLE && p->depth >= jinja_parse_depth)
            return jinja_parse_fail(p, "nested too deeply");
        p->depth++;
        bool ok = assignable(p, item);
        p->depth--;
        if (!ok) return false;
    }
    return true;
}

struct jinja_node *jinja_parse_target(struct jinja_parser *p, const char *end, bool with_namespace) {
    struct jinja_node *node =
        parse_items(p, with_namespace ? TUPLE_OF_SET_TARGETS : TUPLE_OF_TARGETS, false, end);
    return node && assignable(p, node) ? node : NULL;
}

/* ---- what follows a primary -------------------------------------------------------------------- */

static bool add_named(struct jinja_parser *p, struct jinja_arguments *a, struct jinja_node *names) {
    const struct jinja_token *name = p->token;
    p->token += 2;
    struct jinja_node *key = jinja_node_new(p, NODE_CONST, name->line);
    struct jinja_node *value =
        key && jinja_token_text(p, name, &key->value) ? jinja_parse_expression(p) : NULL;
    (void)a;
    return value && jinja_node_add(p, names, key, OP_NONE) && jinja_node_add(p, names, value, OP_NONE);
}

static bool parse_argument(struct jinja_parser *p, struct jinja_arguments *a, struct jinja_node *values,
                           struct jinja_node *names) {
    if (jinja_at_op(p, OP_MUL)) {
        if (a->star || a->star_star)
            return jinja_parse_fail(p, "invalid syntax for function call expression");
        p->token++;
        return (a->star = jinja_parse_expression(p)) != NULL;
    }
    if (jinja_at_op(p, OP_POW)) {
        if (a->star_star) return jinja_parse_fail(p, "invalid syntax for function call expression");
        p->token++;
        return (a->star_star = jinja_parse_expression(p)) != NULL;
    }
    if (p->token->type == TOKEN_NAME && p->token[1].type == TOKEN_OPERATOR && p->token[1].op == OP_ASSIGN) {
        if (a->star_star) return jinja_parse_fail(p, "invalid syntax for function call expression");
        return add_named(p, a, names);
    }
    if (a->star || a->star_star || names->count)
        return jinja_parse_fail(p, "invalid syntax for function call expression");
    struct jinja_node *value = jinja_parse_expression(p);
    return value && jinja_node_add(p, values, value, OP_NONE);
}

static bool arguments_finish(struct jinja_parser *p, struct jinja_arguments *a,
                             const struct jinja_node *values, const struct jinja_node *names) {
    a->values = values->items;
    a->count = values->count;
    a->named_count = names->count / 2;
    a->names = jinja_parse_alloc(p, a->named_count, sizeof *a->names);
    a->named = a->names ? jinja_parse_alloc(p, a->named_count, sizeof(struct jinja_node *)) : NULL;
    if (!a->named) return false;
    for (size_t i = 0; i < a->named_count; i++) {
        struct jinja_value name = names->items[2 * i]->value;
        for (size_t k = 0; k < i; k++)
            if (a->names[k].text->size == name.text->size &&
                memcmp(a->names[k].text->bytes, name.text->bytes, name.text->size) == 0)
                return jinja_parse_fail(p, "keyword argument repeated: %.*s", (int)(name.text->size & 63),
                                        name.text->bytes);
        a->names[i] = name;
        a->named[i] = names->items[2 * i + 1];
    }
    return true;
}

static struct jinja_arguments *parse_arguments(struct jinja_parser *p) {
    struct jinja_arguments *a = jinja_parse_alloc(p, 1, sizeof *a);
    struct jinja_node values = {0}, names = {0};
    if (!a || !jinja_expect_op(p, OP_LPAREN)) return NULL;
    for (bool comma = false; !jinja_at_op(p, OP_RPAREN); comma = true) {
        if (comma && !jinja_expect_op(p, OP_COMMA)) return NULL;
        if (comma && jinja_at_op(p, OP_RPAREN)) break;
        if (names.count > 256) {
            jinja_parse_fail(p, "too many named arguments");
            return NULL;
        }
        if (!parse_argument(p, a, &values, &names)) return NULL;
    }
    return jinja_expect_op(p, OP_RPAREN) && arguments_finish(p, a, &values, &names) ? a : NULL;
}

static struct jinja_node *parse_call(struct jinja_parser *p, struct jinja_node *callee) {
    struct jinja_node *node = jinja_node_new(p, NODE_CALL, p->token->line);
    if (!node) return NULL;
    node->left = callee;
    return (node->arguments = parse_arguments(p)) ? node : NULL;
}

/* [a], [a:b:c] */
static struct jinja_node *parse_bracket(struct jinja_parser *p, struct jinja_node *object, int line) {
    struct jinja_node *part[3] = {NULL, NULL, NULL};
    bool slice = false;
    for (int i = 0; i < 3; i++) {
        if (!jinja_at_op(p, OP_COLON) && !jinja_at_op(p, OP_RBRACKET) &&
            !(part[i] = jinja_parse_expression(p)))
            return NULL;
        if (i == 2 || !jinja_skip_op(p, OP_COLON)) break;
        slice = true;
    }
    struct jinja_node *node = jinja_node_new(p, slice ? NODE_SLICE : NODE_ITEM, line);
    if (!node) return NULL;
    node->left = object;
    if (slice) {
        for (int i = 0; i < 3; i++)
            if (!jinja_node_add(p, node, part[i], OP_NONE)) return NULL;
    } else if (!part[0]) {
        unexpected(p, "an expression");
        return NULL;
    } else if (jinja_at_op(p, OP_COMMA)) { /* a tuple as key */
        struct jinja_node *tuple = jinja_node_new(p, NODE_TUPLE, line);
        if (!tuple || !jinja_node_add(p, tuple, part[0], OP_NONE)) return NULL;
        while (jinja_skip_op(p, OP_COMMA)) {
            struct jinja_node *item = jinja_parse_expression(p);
            if (!item || !jinja_node_add(p, tuple, item, OP_NONE)) return NULL;
        }
        part[0] = tuple;
    }
    node->right = part[0];
    return jinja_expect_op(p, OP_RBRACKET) ? node : NULL;
}

static struct jinja_node *parse_subscript(struct jinja_parser *p, struct jinja_node *object) {
    int line = p->token->line;
    if (jinja_skip_op(p, OP_LBRACKET)) {
        if (!jinja_parse_enter(p)) return NULL;
        struct jinja_node *node = parse_bracket(p, object, line);
        p->depth--;
        return node;
    }
    p->token++;
    const struct jinja_token *t = p->token++;
    struct jinja_node *node = jinja_node_new(p, t->type == TOKEN_NAME ? NODE_ATTRIBUTE : NODE_ITEM, line);
    if (!node) return NULL;
    node->left = object;
    if (t->type == TOKEN_NAME) return jinja_token_text(p, t, &node->value) ? node : NULL;
    if (t->type != TOKEN_INTEGER) {
        p->token--;
        unexpected(p, "a name or a number");
        return NULL;
    }
    return (node->right = constant(p, t->line, jinja_int(t->integer))) ? node : NULL;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p, struct jinja_node *node) {
    while (node) {
        if (jinja_at_op(p, OP_DOT) || jinja_at_op(p, OP_LBRACKET))
            node = parse_subscript(p, node);
        else if (jinja_at_op(p, OP_LPAREN))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* Jinja2 refuses an unknown filter or test when it compiles, unless an if stands around it. */
static void note_unknown(struct jinja_parser *p, const struct jinja_token *token, const char *what) {
    if (p->soft || p->unknown) return;
    p->unknown = token;
    p->unknown_what = what;
}

/* The name behind "|" or "is", dots included, as one token. */
static bool parse_dotted(struct jinja_parser *p, struct jinja_token *name) {
    *name = *p->token;
    if (!jinja_expect_type(p, TOKEN_NAME)) return false;
    while (jinja_skip_op(p, OP_DOT)) {
        const struct jinja_token *part = p->token;
        if (!jinja_expect_type(p, TOKEN_NAME)) return false;
        name->size = (size_t)(part->bytes + part->size - name->bytes);
    }
    return true;
}

struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *operand,
                                       bool inline_start) {
    while (inline_start || jinja_at_op(p, OP_PIPE)) {
        if (!inline_start) p->token++;
        inline_start = false;
        const struct jinja_token *token = p->token;
        struct jinja_token name;
        struct jinja_node *node = jinja_node_new(p, NODE_FILTER, token->line);
        if (!node || !parse_dotted(p, &name) || !jinja_token_text(p, &name, &node->value)) return NULL;
        node->left = operand;
        node->filter = jinja_filter_find(name.bytes, name.size);
        if (!node->filter) note_unknown(p, token, "filter");
        if (jinja_at_op(p, OP_LPAREN) && !(node->arguments = parse_arguments(p))) return NULL;
        operand = node;
    }
    return operand;
}

static bool test_argument_follows(const struct jinja_parser *p) {
    switch (p->token->type) {
    case TOKEN_NAME: return !jinja_at_name(p, "else") && !jinja_at_name(p, "or") && !jinja_at_name(p, "and");
    case TOKEN_STRING:
    case TOKEN_INTEGER:
    case TOKEN_FLOAT: return true;
    default: return jinja_at_op(p, OP_LBRACKET) || jinja_at_op(p, OP_LBRACE);
    }
}

static struct jinja_node *parse_test(struct jinja_parser *p, struct jinja_node *operand) {
    int line = p->token++->line;
    bool negated = jinja_skip_name(p, "not");
    const struct jinja_token *token = p->token;
    struct jinja_token name;
    struct jinja_node *node = jinja_node_new(p, NODE_TEST, line), *argument;
    if (!node || !parse_dotted(p, &name) || !jinja_token_text(p, &name, &node->value)) return NULL;
    node->left = operand;
    node->test = jinja_test_find(name.bytes, name.size);
    if (!node->test) note_unknown(p, token, "test");
    if (jinja_at_op(p, OP_LPAREN)) {
        if (!(node->arguments = parse_arguments(p))) return NULL;
    } else if (test_argument_follows(p)) {
        if (jinja_at_name(p, "is")) {
            jinja_parse_fail(p, "tests cannot be chained with is");
            return NULL;
        }
        if (!(argument = parse_postfix(p, parse_primary(p, false, false)))) return NULL;
        struct jinja_arguments *a = node->arguments = jinja_parse_alloc(p, 1, sizeof *a);
        if (!a || !(a->values = jinja_parse_alloc(p, 1, sizeof(struct jinja_node *)))) return NULL;
        a->values[0] = argument;
        a->count = 1;
    }
    if (!negated) return node;
    struct jinja_node *not = jinja_node_new(p, NODE_NOT, line);
    if (not ) not ->left = node;
    return not ;
}

static struct jinja_node *parse_suffixes(struct jinja_parser *p, struct jinja_node *node) {
    while (node) {
        if (jinja_at_op(p, OP_PIPE))
            node = jinja_parse_filters(p, node, false);
        else if (jinja_at_name(p, "is"))
            node = parse_test(p, node);
        else if (jinja_at_op(p, OP_LPAREN))
            node = parse_call(p, node);
        else
            break;
    }
    return node;
}

/* ---- operators --------------------------------------------------------------------------------- */

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filters) {
    struct jinja_node *node;
    bool negative = jinja_at_op(p, OP_SUB);
    if (negative || jinja_at_op(p, OP_ADD)) {
        node = jinja_node_new(p, negative ? NODE_NEGATIVE : NODE_POSITIVE, p->token++->line);
        if (!node || !jinja_parse_enter(p)) return NULL;
        node->left = parse_unary(p, false);
        p->depth--;
        if (!node->left) return NULL;
    } else {
        node = parse_primary(p, false, false);
    }
    node = parse_postfix(p, node);
    return with_filters ? parse_suffixes(p, node) : node;
}

/* The binary operators from the tightest level on. */
static const struct level {
    enum jinja_node_type type;
    enum jinja_op ops[5]; /* ended by OP_NONE */
} levels[] = {
    {NODE_ARITHMETIC, {OP_ADD, OP_SUB}},
    {NODE_CONCAT, {OP_TILDE}},
    {NODE_ARITHMETIC, {OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD}},
    {NODE_ARITHMETIC, {OP_POW}},
};
enum { level_count = sizeof levels / sizeof *levels };

static enum jinja_op op_of_level(const struct jinja_parser *p, int level) {
    if (p->token->type != TOKEN_OPERATOR) return OP_NONE;
    for (const enum jinja_op *op = levels[level].ops; *op; op++)
        if (p->token->op == *op) return *op;
    return OP_NONE;
}

static struct jinja_node *parse_level(struct jinja_parser *p, int level) {
    if (level == level_count) return parse_unary(p, true);
    int line = p->token->line;
    struct jinja_node *first = parse_level(p, level + 1), *node = NULL;
    enum jinja_op op;
    while (first && (op = op_of_level(p, level))) {
        if (!node) {
            node = jinja_node_new(p, levels[level].type, line);
            if (!node || !jinja_node_add(p, node, first, OP_NONE)) return NULL;
        }
        p->token++;
        struct jinja_node *next = parse_level(p, level + 1);
        if (!next || !jinja_node_add(p, node, next, op)) return NULL;
    }
    return node ? node : first;
}

static enum jinja_op comparison_at(struct jinja_parser *p) {
    if (p->token->type == TOKEN_OPERATOR && p->token->op >= OP_EQ && p->token->op <= OP_GE)
        return p->token++->op;
    if (jinja_skip_name(p, "in")) return OP_IN;
    if (jinja_at_name(p, "not") && token_is(p->token + 1, TOKEN_NAME, "in")) {
        p->token += 2;
        return OP_NOT_IN;
    }
    return OP_NONE;
}

static struct jinja_node *parse_compare(struct jinja_parser *p) {
    int line = p->token->line;
    struct jinja_node *first = parse_level(p, 0), *node = NULL;
    enum jinja_op op;
    while (first && (op = comparison_at(p))) {
        if (!node) {
            node = jinja_node_new(p, NODE_COMPARE, line);
            if (!node || !jinja_node_add(p, node, first, OP_NONE)) return NULL;
        }
        struct jinja_node *next = parse_level(p, 0);
        if (!next || !jinja_node_add(p, node, next, op)) return NULL;
    }
    return node ? node : first;
}

static struct jinja_node *parse_not(struct jinja_parser *p) {
    if (!jinja_at_name(p, "not")) return parse_compare(p);
    struct jinja_node *node = jinja_node_new(p, NODE_NOT, p->token++->line);
    if (!node || !jinja_parse_enter(p)) return NULL;
    node->left = parse_not(p);
    p->depth--;
    return node->left ? node : NULL;
}

static struct jinja_node *parse_logic(struct jinja_parser *p, bool is_or) {
    int line = p->token->line;
    struct jinja_node *first = is_or ? parse_logic(p, false) : parse_not(p), *node = NULL;
    while (first && jinja_skip_name(p, is_or ? "or" : "and")) {
        if (!node) {
            node = jinja_node_new(p, is_or ? NODE_OR : NODE_AND, line);
            if (!node || !jinja_node_add(p, node, first, OP_NONE)) return NULL;
        }
        struct jinja_node *next = is_or ? parse_logic(p, false) : parse_not(p);
        if (!next || !jinja_node_add(p, node, next, OP_NONE)) return NULL;
    }
    return node ? node : first;
}

static struct jinja_node *parse_or(struct jinja_parser *p) { return parse_logic(p, true); }

/* a if b else c if d else e: a chain through `third`, made without recursion. What stands in it fails only
 * when reached, so an unknown filter noted since the start is forgotten. */
static struct jinja_node *parse_condition(struct jinja_parser *p) {
    const struct jinja_token *unknown = p->unknown;
    bool soft = p->soft;
    struct jinja_node *root = parse_or(p), **slot = &root;
    while (*slot && jinja_at_name(p, "if")) {
        struct jinja_node *condition = jinja_node_new(p, NODE_CONDITION, p->token++->line);
        if (!condition) return NULL;
        p->unknown = unknown;
        p->soft = true;
        condition->left = *slot;
        if (!(condition->right = parse_or(p))) return NULL;
        *slot = condition;
        if (!jinja_skip_name(p, "else")) continue;
        slot = &condition->third;
        *slot = parse_or(p);
    }
    p->soft = soft;
    return *slot ? root : NULL;
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p) {
    if (!jinja_parse_enter(p)) return NULL;
    struct jinja_node *node = parse_condition(p);
    p->depth--;
    return node;
}
