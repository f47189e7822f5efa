/* What the files of the Jinja interpreter share. Nothing here is for other folders.
 *
 * A template's source becomes tokens (template_lexer.c), tokens become nodes (template_parser.c,
 * template_statements.c), and nodes are walked for each render (template_eval.c for expressions,
 * template_exec.c for statements). Values follow Python's rules, since that is what templates are
 * written against (template_value.c, template_number.c, template_text.c).
 *
 * Memory: nodes live in the template's arena; values made by a render live in the render's arena until
 * it ends. Lists, tuples and texts never change once made (the sandbox forbids it), so they are shared
 * freely; only namespaces, loop objects and generators have state.
 *
 * Words: text (a Python str), kind (a Python type), step (a unit of work that the budget counts),
 * generator (a sequence that can be read once), scope (names set in one block). */
#ifndef HONE_TEXT_TEMPLATE_INTERNAL_H
#define HONE_TEXT_TEMPLATE_INTERNAL_H

#include "base/arena.h"
#include "base/text.h"
#include "text/template.h"

/* ---- values ------------------------------------------------------------------------------------ */

enum jinja_kind {
    JINJA_ABSENT, /* an argument that was not given; never seen by a template */
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_TEXT,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_DICT,
    JINJA_VIEW, /* dict.items(), .keys(), .values() */
    JINJA_RANGE,
    JINJA_GENERATOR,
    JINJA_NAMESPACE,
    JINJA_MACRO,
    JINJA_FUNCTION,
    JINJA_METHOD,
    JINJA_LOOP,
    JINJA_CYCLER,
    JINJA_JOINER,
};

struct jinja_value {
    enum jinja_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        struct jinja_text *text;
        struct jinja_list *list; /* LIST, TUPLE, GENERATOR, CYCLER */
        struct jinja_dict *dict; /* DICT, NAMESPACE */
        struct jinja_view *view;
        struct jinja_range *range;
        struct jinja_macro *macro;
        struct jinja_loop *loop;
        const struct jinja_function *function;
        struct jinja_bound *bound;
        struct jinja_missing *missing;
        struct jinja_joiner *joiner;
    };
};

/* UTF-8 of `size` bytes, not terminated. `tail` lets `a + b` write behind `a` when nobody has yet, so
 * that building a long text piece by piece costs linear time and memory. */
struct jinja_text {
    const char *bytes;
    size_t size;
    size_t length; /* code points; SIZE_MAX: not counted yet */
    struct jinja_tail *tail;
    bool markup; /* marked by |safe or |escape */
};
struct jinja_tail {
    char *bytes;
    size_t used, capacity;
};

struct jinja_list {
    struct jinja_value *items;
    size_t count, capacity;
    size_t next;       /* GENERATOR: the first item not yet read; CYCLER: the current one */
    const char *maker; /* GENERATOR: the name Python would print */
    bool group;        /* TUPLE: made by |groupby, has .grouper and .list */
};

struct jinja_entry {
    struct jinja_value key, value;
    uint64_t hash;
};
struct jinja_dict {
    struct jinja_entry *entries; /* in the order of insertion */
    size_t count, capacity;
    uint32_t *slots; /* entry number + 1, open addressing; NULL while there are few entries */
    size_t slot_count;
};

enum jinja_view_kind { JINJA_KEYS, JINJA_VALUES, JINJA_ITEMS };
struct jinja_view {
    struct jinja_dict *dict;
    enum jinja_view_kind kind;
};

struct jinja_range {
    int64_t start, stop, step;
    size_t count;
};

/* Why a value is undefined; the message is made only when an operation fails on it. */
struct jinja_missing {
    const char *hint; /* the whole message, or NULL */
    struct jinja_value object, name;
};

struct jinja_macro {
    const struct jinja_node *node;
    struct jinja_scope *scope; /* where it was defined */
};

/* Gives nothing when first called, then the separator. */
struct jinja_joiner {
    bool called;
    struct jinja_value separator;
};

struct jinja_loop;

struct jinja_bound {
    struct jinja_value self;
    const struct jinja_method *method;
};

static inline struct jinja_value jinja_kind_only(enum jinja_kind kind) {
    return (struct jinja_value){.kind = kind, .integer = 0};
}
static inline struct jinja_value jinja_none(void) { return jinja_kind_only(JINJA_NONE); }
static inline struct jinja_value jinja_absent(void) { return jinja_kind_only(JINJA_ABSENT); }
static inline struct jinja_value jinja_bool(bool b) {
    return (struct jinja_value){.kind = JINJA_BOOL, .boolean = b};
}
static inline struct jinja_value jinja_int(int64_t i) {
    return (struct jinja_value){.kind = JINJA_INT, .integer = i};
}
static inline struct jinja_value jinja_real(double f) {
    return (struct jinja_value){.kind = JINJA_FLOAT, .real = f};
}
static inline struct jinja_value jinja_of_list(enum jinja_kind kind, struct jinja_list *list) {
    return (struct jinja_value){.kind = kind, .list = list};
}
static inline struct jinja_value jinja_of_dict(struct jinja_dict *dict) {
    return (struct jinja_value){.kind = JINJA_DICT, .dict = dict};
}

/* ---- calls ------------------------------------------------------------------------------------- */

struct jinja_named {
    struct jinja_value name; /* a text */
    struct jinja_value value;
};
struct jinja_args {
    struct jinja_value *values;
    size_t count;
    struct jinja_named *named;
    size_t named_count;
};
enum { jinja_most_parameters = 8 };

struct jinja; /* a render in progress, below */

/* A filter, test or method takes the value it is applied to and its arguments. `parameters` names them,
 * separated by commas: "width,first,blank" with "!" before those that must be given; then `a` holds
 * them in that order, JINJA_ABSENT where not given. A leading "/" takes them by position only. "*"
 * takes all as they came: `raw`. */
struct jinja_call {
    struct jinja_value self;
    struct jinja_value a[jinja_most_parameters];
    const struct jinja_args *raw;
    const char *name;
};
typedef bool jinja_native(struct jinja *j, const struct jinja_call *call, struct jinja_value *out);

struct jinja_filter {
    const char *name;
    jinja_native *run;
    const char *parameters;
};
struct jinja_test {
    const char *name;
    jinja_native *run; /* gives a JINJA_BOOL */
    const char *parameters;
};
struct jinja_function {
    const char *name;
    jinja_native *run;
    const char *parameters;
};
struct jinja_method {
    enum jinja_kind kind; /* of the value that has it */
    const char *name;
    jinja_native *run; /* NULL: the sandbox forbids it */
    const char *parameters;
};

/* The filters on sequences are a table of their own (template_sequences.c), ended by a NULL name. */
extern const struct jinja_filter jinja_sequence_filters[];
const struct jinja_filter *jinja_filter_find(const char *name, size_t size);
/* What to say of a filter that is not found: nobody has it, or Jinja2 alone. */
enum { jinja_missing_size = 160 };
void jinja_filter_missing(const struct jinja_text *name, char out[jinja_missing_size]);
const struct jinja_test *jinja_test_find(const char *name, size_t size);
const struct jinja_function *jinja_function_find(const char *name, size_t size);
const struct jinja_method *jinja_method_find(enum jinja_kind kind, const char *name, size_t size);

/* ---- tokens ------------------------------------------------------------------------------------ */

enum jinja_token_type {
    TOKEN_DATA,
    TOKEN_VARIABLE_BEGIN,
    TOKEN_VARIABLE_END,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_OPERATOR, /* `op` tells which */
    TOKEN_END,
};
enum jinja_op {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_TILDE,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_ASSIGN,
    OP_DOT,
    OP_COLON,
    OP_PIPE,
    OP_COMMA,
    OP_SEMICOLON,
    OP_LPAREN,
    OP_RPAREN,
    OP_LBRACKET,
    OP_RBRACKET,
    OP_LBRACE,
    OP_RBRACE,
};
struct jinja_token {
    enum jinja_token_type type;
    enum jinja_op op;
    int line;
    const char *bytes; /* DATA, NAME, STRING (unescaped), numbers */
    size_t size;
    int64_t integer;
    double real;
};
struct jinja_tokens {
    struct jinja_token *items;
    size_t count, capacity;
};

/* A template while it is read. */
struct jinja_source {
    const char *name;
    const char *text; /* newlines normalised */
    size_t size;
    struct arena *arena;
    struct error *err;
};
bool jinja_source_fail(struct jinja_source *source, int line, const char *format, ...) PRINTF_LIKE(3, 4);
bool jinja_lex(struct jinja_source *source, struct jinja_tokens *tokens);

/* ---- nodes ------------------------------------------------------------------------------------- */

enum jinja_node_type {
    /* expressions */
    NODE_CONST,
    NODE_NAME,
    NODE_LIST,
    NODE_TUPLE,
    NODE_DICT,      /* items: key, value, key, value … */
    NODE_ATTRIBUTE, /* left.value */
    NODE_ITEM,      /* left[right] */
    NODE_SLICE,     /* left[items[0]:items[1]:items[2]], each may be NULL */
    NODE_CALL,
    NODE_FILTER,
    NODE_TEST,
    NODE_CONDITION, /* left if right else third (may be NULL) */
    NODE_AND,
    NODE_OR,
    NODE_NOT,
    NODE_NEGATIVE,
    NODE_POSITIVE,
    NODE_ARITHMETIC, /* items[0] ops[1] items[1] ops[2] items[2] … from the left */
    NODE_COMPARE,    /* the same, chained as in Python */
    NODE_CONCAT,
    NODE_NAMESPACE_TARGET, /* name.value, in {% set %} */
    /* statements */
    NODE_TEXT,
    NODE_OUTPUT,
    NODE_SET,
    NODE_SET_BLOCK,
    NODE_IF, /* items: condition, body, condition, body … and else's body in third */
    NODE_FOR,
    NODE_MACRO,
    NODE_CALL_BLOCK,
    NODE_FILTER_BLOCK,
    NODE_WITH,
    NODE_BLOCK,
    NODE_BREAK,
    NODE_CONTINUE,
    NODE_GENERATION,
    NODE_BODY, /* items: statements */
};

struct jinja_arguments {
    struct jinja_node **values;
    size_t count;
    struct jinja_value *names; /* texts */
    struct jinja_node **named;
    size_t named_count;
    struct jinja_node *star, *star_star;
};

struct jinja_node {
    enum jinja_node_type type;
    int line;
    int name; /* number of the name in the template's table */
    struct jinja_value value;
    struct jinja_node *left, *right, *third;
    struct jinja_node *body;
    struct jinja_node **items;
    enum jinja_op *ops;
    size_t count;
    struct jinja_arguments *arguments;
    const struct jinja_filter *filter;
    const struct jinja_test *test;
    struct jinja_signature *signature; /* MACRO, CALL_BLOCK, GENERATION */
    bool recursive;                    /* FOR */
};

struct jinja_signature {
    int *names;
    struct jinja_value *texts;    /* the same names as texts */
    struct jinja_node **defaults; /* of the last `default_count` parameters */
    size_t count, default_count;
    bool uses_caller, uses_kwargs, uses_varargs, explicit_caller;
};

struct jinja_name {
    const char *bytes;
    size_t size;
};

struct template {
    struct arena arena;
    char *name;
    struct jinja_node *body;
    struct jinja_name *names;
    size_t name_count, name_capacity;
    uint32_t *name_slots; /* hash table: name number + 1 */
    size_t name_slot_count;
    int loop_name, caller_name, kwargs_name, varargs_name;
};

enum { jinja_parse_depth = 200 };

struct jinja_parser {
    struct jinja_source *source;
    struct template *template;
    const struct jinja_token *token; /* the current one */
    int depth;
    int loops; /* for blocks around the current statement */
    int fors;  /* the same, and those around a macro: no name in them may be `loop` */
    struct jinja_signature_chain *macros; /* macros around the current expression */
    bool soft;                            /* inside an if: unknown filters fail only when reached */
    const struct jinja_token *unknown;    /* the first unknown filter or test outside of one */
    const char *unknown_what;
};
struct jinja_signature_chain {
    struct jinja_signature *signature;
    struct jinja_signature_chain *outer;
};

/* template_parser.c: expressions. Each returns NULL after a failure. */
struct jinja_node *jinja_parse_expression(struct jinja_parser *p);
struct jinja_node *jinja_parse_tuple(struct jinja_parser *p, bool with_condition, bool parenthesised,
                                     const char *end);
struct jinja_node *jinja_parse_target(struct jinja_parser *p, const char *end, bool with_namespace);
struct jinja_node *jinja_parse_filters(struct jinja_parser *p, struct jinja_node *operand, bool inline_start);
struct jinja_node *jinja_node_new(struct jinja_parser *p, enum jinja_node_type type, int line);
bool jinja_node_add(struct jinja_parser *p, struct jinja_node *node, struct jinja_node *item,
                    enum jinja_op op);
int jinja_name_number(struct jinja_parser *p, const char *bytes, size_t size); /* -1: out of memory */
bool jinja_parse_fail(struct jinja_parser *p, const char *format, ...) PRINTF_LIKE(2, 3);
void *jinja_parse_alloc(struct jinja_parser *p, size_t count, size_t size);
bool jinja_at_name(const struct jinja_parser *p, const char *name);
bool jinja_at_op(const struct jinja_parser *p, enum jinja_op op);
bool jinja_skip_name(struct jinja_parser *p, const char *name);
bool jinja_skip_op(struct jinja_parser *p, enum jinja_op op);
bool jinja_expect_op(struct jinja_parser *p, enum jinja_op op);
bool jinja_expect_type(struct jinja_parser *p, enum jinja_token_type type);
bool jinja_token_text(struct jinja_parser *p, const struct jinja_token *token, struct jinja_value *out);
bool jinja_parse_enter(struct jinja_parser *p);
/* template_statements.c */
bool jinja_parse_template(struct jinja_parser *p);

/* ---- a render ---------------------------------------------------------------------------------- */

struct jinja_variable {
    int name;
    struct jinja_value value;
};
struct jinja_scope {
    struct jinja_scope *outer;
    struct jinja_variable *variables;
    size_t count, capacity;
    uint32_t *places; /* by name number: place in variables + 1, checked there; NULL while there are few */
};

struct jinja {
    const struct template *template;
    struct arena values; /* bounded by the memory budget */
    struct arena input;  /* the variables, as values */
    struct template_limits limits;
    uint64_t steps;
    int depth, most_depth; /* nested evaluations */
    struct buf *out;       /* where output goes now */
    struct buf *root;      /* where the whole output goes */
    size_t root_start;
    struct template_spans *spans;
    size_t span_capacity;
    struct jinja_value *globals; /* by name number */
    double now;
    int line;
    bool exhausted; /* a budget is spent */
    struct error *err;
};

/* A loop in progress, also what `loop` is. */
struct jinja_seq {
    struct jinja_list *list; /* or */
    struct jinja_range *range;
    size_t first, count;
};
struct jinja_loop {
    struct jinja_seq seq;
    size_t index0;
    int depth0;
    struct jinja_value changed; /* a tuple, or ABSENT */
    const struct jinja_node *node;
    struct jinja_scope *scope;
};

/* template.c */
bool jinja_fail(struct jinja *j, const char *format, ...) PRINTF_LIKE(2, 3);
bool jinja_exhaust(struct jinja *j, const char *format, ...) PRINTF_LIKE(2, 3); /* for a budget */
bool jinja_charge(struct jinja *j, uint64_t steps); /* false: the budget of steps is spent */
void *jinja_alloc(struct jinja *j, size_t size);    /* zeroed; NULL after an error */
void *jinja_alloc_array(struct jinja *j, size_t count, size_t size);
/* The error of values that could not be kept: `full`, they are past their limit; else there is no memory. */
bool jinja_refuse_values(struct jinja *j, bool full);
bool jinja_enter(struct jinja *j); /* one level deeper; jinja_leave after success */
static inline void jinja_leave(struct jinja *j) { j->depth--; }
static inline bool jinja_step(struct jinja *j) { return ++j->steps <= j->limits.steps || jinja_charge(j, 0); }

/* template_value.c */

const char *jinja_type_name(struct jinja_value value);
bool jinja_truth(struct jinja_value value);
bool jinja_undefined_fail(struct jinja *j, struct jinja_value value);
bool jinja_undefined(struct jinja *j, const char *hint, struct jinja_value object, struct jinja_value name,
                     struct jinja_value *out);
struct jinja_list *jinja_list_new(struct jinja *j, size_t capacity);
bool jinja_list_add(struct jinja *j, struct jinja_list *list, struct jinja_value value);
struct jinja_dict *jinja_dict_new(struct jinja *j);
bool jinja_dict_find(struct jinja *j, const struct jinja_dict *dict, struct jinja_value key,
                     struct jinja_entry **out);
bool jinja_dict_set(struct jinja *j, struct jinja_dict *dict, struct jinja_value key,
                    struct jinja_value value);
struct jinja_entry *jinja_dict_find_name(const struct jinja_dict *dict, const char *bytes, size_t size);
bool jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b, bool *out);
bool jinja_order(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b, bool *out);
bool jinja_contains(struct jinja *j, struct jinja_value item, struct jinja_value container, bool *out);
bool jinja_length(struct jinja *j, struct jinja_value value, size_t *out);
bool jinja_is_iterable(struct jinja_value value);
bool jinja_seq_open(struct jinja *j, struct jinja_value value, struct jinja_seq *seq);
/* The number at a place of a range. Its product with the step may have more than 64 bits where the sum has
 * not. */
static inline int64_t jinja_range_item(const struct jinja_range *range, size_t place) {
    return (int64_t)((uint64_t)range->start + (uint64_t)place * (uint64_t)range->step);
}
static inline struct jinja_value jinja_seq_item(const struct jinja_seq *seq, size_t i) {
    if (seq->list) return seq->list->items[seq->first + i];
    return jinja_int(jinja_range_item(seq->range, i));
}
bool jinja_list_of(struct jinja *j, struct jinja_value value, struct jinja_list **out);
bool jinja_sort(struct jinja *j, struct jinja_value *keys, struct jinja_value *items, size_t count,
                bool reverse);

/* template_show.c: str(), repr(), tojson, and values from JSON */
bool jinja_write(struct jinja *j, struct jinja_value value, struct buf *out);
bool jinja_write_repr(struct jinja *j, struct jinja_value value, struct buf *out);
bool jinja_str(struct jinja *j, struct jinja_value value, struct jinja_value *out);
bool jinja_repr(struct jinja *j, struct jinja_value value, struct jinja_value *out);
bool jinja_from_json(struct jinja *j, const json_t *json, struct jinja_value *out);
bool jinja_to_json(struct jinja *j, const struct jinja_call *call, struct jinja_value *out);

/* template_number.c */
bool jinja_arithmetic(struct jinja *j, enum jinja_op op, struct jinja_value a, struct jinja_value b,
                      struct jinja_value *out);
bool jinja_negate(struct jinja *j, struct jinja_value a, bool negative, struct jinja_value *out);
int jinja_compare_numbers(struct jinja_value a, struct jinja_value b); /* -1, 0, 1; 2 when one is NaN */
static inline bool jinja_is_number(struct jinja_value v) {
    return v.kind == JINJA_INT || v.kind == JINJA_FLOAT || v.kind == JINJA_BOOL;
}
double jinja_number_real(struct jinja_value value);
static inline bool jinja_is_int(struct jinja_value v) { return v.kind == JINJA_INT || v.kind == JINJA_BOOL; }
static inline int64_t jinja_number_int(struct jinja_value v) {
    return v.kind == JINJA_BOOL ? (int64_t)v.boolean : v.integer;
}
bool jinja_write_real(double value, struct buf *out);                         /* Python's repr */
bool jinja_parse_int(const char *bytes, size_t size, int base, int64_t *out); /* Python's int(text) */
bool jinja_parse_real(const char *bytes, size_t size, double *out);           /* Python's float(text) */

/* template_text.c */
enum { jinja_whole = -1 };
bool jinja_text(struct jinja *j, const char *bytes, size_t size, struct jinja_value *out);      /* copies */
bool jinja_text_view(struct jinja *j, const char *bytes, size_t size, struct jinja_value *out); /* shares */
bool jinja_text_take(struct jinja *j, struct buf *buf, struct jinja_value *out); /* copies and releases */
void jinja_buf(const struct jinja *j, struct buf *buf); /* empty, bounded by the memory budget */
bool jinja_text_append(struct jinja *j, struct jinja_value a, struct jinja_value b, struct jinja_value *out);
bool jinja_text_length(struct jinja *j, struct jinja_text *text, size_t *out);
bool jinja_text_at(struct jinja *j, struct jinja_text *text, size_t index, struct jinja_value *out);
bool jinja_text_slice(struct jinja *j, struct jinja_text *text, int64_t start, int64_t step, size_t count,
                      struct jinja_value *out);
bool jinja_text_chars(struct jinja *j, struct jinja_text *text, struct jinja_list **out);
bool jinja_is_space(uint32_t code);
bool jinja_is_printable(uint32_t code); /* as str.isprintable() */
void jinja_strip(const char **bytes, size_t *size, const struct jinja_text *chars, bool left, bool right);
enum jinja_case { JINJA_UPPER, JINJA_LOWER, JINJA_TITLE };
/* The code points in [from, to), seen as part of the whole: a sigma at the end of a word is another one. */
bool jinja_case_map(struct jinja *j, const struct jinja_text *text, size_t from, size_t to,
                    enum jinja_case how, struct buf *out);
bool jinja_escape(const char *bytes, size_t size, struct buf *out);
bool jinja_text_is(struct jinja_value value, const char *literal);
size_t jinja_text_find(const char *text, size_t size, const char *part,
                       size_t part_size); /* SIZE_MAX: none */
bool jinja_replace(struct jinja *j, const struct jinja_text *text, const struct jinja_text *old,
                   const struct jinja_text *with, int64_t count, struct jinja_value *out);
bool jinja_splitlines(struct jinja *j, const struct jinja_text *text, bool keep, struct jinja_list **out);

/* template_case.c: code points whose upper or title case is several code points. NULL: none. */
const char *jinja_special_case(uint32_t code, bool title);

/* template_format.c */
bool jinja_percent(struct jinja *j, struct jinja_value format, struct jinja_value arguments,
                   struct jinja_value *out);
bool jinja_format(struct jinja *j, const struct jinja_text *format, const struct jinja_args *args,
                  struct jinja_value *out);

/* template_call.c */
bool jinja_call(struct jinja *j, struct jinja_value callee, const struct jinja_args *args,
                struct jinja_value *out);
bool jinja_call_filter(struct jinja *j, const struct jinja_filter *filter, struct jinja_value self,
                       const struct jinja_args *args, struct jinja_value *out);
bool jinja_call_test(struct jinja *j, const struct jinja_test *test, struct jinja_value self,
                     const struct jinja_args *args, bool *out);
bool jinja_arg_int(struct jinja *j, const struct jinja_call *call, int index, int64_t otherwise,
                   int64_t *out);
bool jinja_arg_flag(const struct jinja_call *call, int index, bool otherwise);
bool jinja_arg_text(struct jinja *j, const struct jinja_call *call, int index, struct jinja_text **out);

/* template_eval.c */
bool jinja_eval(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *node,
                struct jinja_value *out);
bool jinja_eval_args(struct jinja *j, struct jinja_scope *scope, const struct jinja_arguments *arguments,
                     struct jinja_args *out);
bool jinja_attribute(struct jinja *j, struct jinja_value object, struct jinja_value name,
                     struct jinja_value *out);
bool jinja_item(struct jinja *j, struct jinja_value object, struct jinja_value key, struct jinja_value *out);
bool jinja_scope_set(struct jinja *j, struct jinja_scope *scope, int name, struct jinja_value value);
struct jinja_value jinja_scope_get(struct jinja *j, const struct jinja_scope *scope, int name);

/* template_exec.c */
enum jinja_flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAILED };
enum jinja_flow jinja_exec(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *body);
bool jinja_call_macro(struct jinja *j, const struct jinja_macro *macro, const struct jinja_args *args,
                      struct jinja_value *out);
bool jinja_call_loop(struct jinja *j, struct jinja_loop *loop, const struct jinja_args *args,
                     struct jinja_value *out);
bool jinja_capture(struct jinja *j, struct jinja_scope *scope, const struct jinja_node *body,
                   struct jinja_value *out);

#endif
