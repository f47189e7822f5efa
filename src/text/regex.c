/* Compiling and running expressions, with limits. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <pcre2.h>
#include <stdint.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

enum {
    PATTERN_LIMIT = 64 << 10,   /* bytes; the longest pattern in use has about 1 KiB */
    HEAP_LIMIT_KIB = 256 << 10, /* of the interpreter, when the JIT's stack does not do */
    JIT_STACK_START = 64 << 10,
    JIT_STACK_LIMIT = 16 << 20,
    STEPS_BASE = 10000000, /* PCRE2's own default for a match */
    STEPS_PER_BYTE = 64,   /* giving back a run costs a step or two a byte, at each step of a splitter */
    STEPS_FREE = 512,      /* of each match; the others come out of what the text may take */
    STEPS_GROWTH = 8,
    DEPTH_LIMIT = 10000000,
};

struct regex {
    pcre2_code *code;
    bool jit;
};

struct regex_scratch {
    pcre2_match_context *context;
    pcre2_match_data *match;
    pcre2_jit_stack *stack;
    uint64_t steps; /* that the matches in this text may still take */
};

static void *regex_alloc(size_t size, void *user) {
    (void)user;
    return mem_alloc(size);
}

static void regex_free(void *pointer, void *user) {
    (void)user;
    mem_free(pointer);
}

static pcre2_general_context *general_open(void) {
    return pcre2_general_context_create(regex_alloc, regex_free, NULL);
}

static bool refuse(struct error *err, const char *pattern, size_t size, int code) {
    PCRE2_UCHAR cause[160] = "";
    struct buf shown;
    pcre2_get_error_message(code, cause, sizeof cause);
    buf_init(&shown, 0);
    text_escape(&shown, pattern, size < 120 ? size : 120, false);
    error_set(err, ERROR_INPUT, "tokenizer", "the pattern %s%s does not compile",
              shown.data ? shown.data : "", size < 120 ? "" : "…");
    buf_release(&shown);
    return error_why(err, "%s", (const char *)cause);
}

bool regex_open(struct regex **out, const char *pattern, size_t size, bool literal, struct error *err) {
    bool ok = false;
    int code = 0;
    PCRE2_SIZE at = 0;
    struct buf translated;
    pcre2_compile_context *context = NULL;
    pcre2_general_context *general = NULL;
    struct regex *regex = mem_calloc(1, sizeof *regex);
    *out = NULL;
    buf_init(&translated, 4 * (size_t)PATTERN_LIMIT);
    if (!regex) goto memory;
    if (size > PATTERN_LIMIT) {
        error_set(err, ERROR_INPUT, "tokenizer", "a pattern of %zu bytes is longer than %d", size,
                  PATTERN_LIMIT);
        goto done;
    }
    if (!utf8_valid(pattern, size, NULL)) {
        error_set(err, ERROR_INPUT, "tokenizer", "a pattern is not valid UTF-8");
        goto done;
    }
    if (literal ? !buf_append(&translated, pattern, size)
                : !regex_translate(pattern, size, &translated, err)) {
        if (literal) goto memory;
        goto done;
    }
    general = general_open();
    context = general ? pcre2_compile_context_create(general) : NULL;
    if (!context) goto memory;
    /* Oniguruma: lines end with LF only, ^ and $ match at every line. */
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    uint32_t options = PCRE2_UTF | PCRE2_NO_UTF_CHECK;
    options |=
        literal ? (uint32_t)PCRE2_LITERAL : (uint32_t)(PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
    regex->code = pcre2_compile((PCRE2_SPTR)(translated.data ? translated.data : ""), translated.size,
                                options, &code, &at, context);
    if (!regex->code) {
        if (code == PCRE2_ERROR_HEAPLIMIT || code == PCRE2_ERROR_NOMEMORY || code == 121) goto memory;
        refuse(err, pattern, size, code);
        goto done;
    }
    /* Without the JIT (no executable memory, another processor) the interpreter gives the same. */
    regex->jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    *out = regex;
    regex = NULL;
    ok = true;
    goto done;
memory:
    error_no_memory(err, "tokenizer", sizeof *regex + size);
done:
    if (context) pcre2_compile_context_free(context);
    if (general) pcre2_general_context_free(general);
    buf_release(&translated);
    regex_close(&regex);
    return ok;
}

void regex_close(struct regex **regex) {
    if (!*regex) return;
    if ((*regex)->code) pcre2_code_free((*regex)->code);
    mem_free(*regex);
    *regex = NULL;
}

bool regex_scratch_open(struct regex_scratch **out, struct error *err) {
    struct regex_scratch *scratch = mem_calloc(1, sizeof *scratch);
    pcre2_general_context *general = general_open();
    *out = scratch;
    if (scratch && general) {
        scratch->context = pcre2_match_context_create(general);
        scratch->match = pcre2_match_data_create(1, general);
    }
    bool ok = scratch && scratch->context && scratch->match;
    if (ok) {
        scratch->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_LIMIT, general);
        pcre2_set_heap_limit(scratch->context, HEAP_LIMIT_KIB);
        pcre2_set_depth_limit(scratch->context, DEPTH_LIMIT);
        pcre2_jit_stack_assign(scratch->context, NULL, scratch->stack);
    } else {
        regex_scratch_close(out);
        error_no_memory(err, "tokenizer", sizeof *scratch);
    }
    if (general) pcre2_general_context_free(general);
    return ok;
}

void regex_scratch_close(struct regex_scratch **scratch) {
    struct regex_scratch *s = *scratch;
    if (!s) return;
    if (s->match) pcre2_match_data_free(s->match);
    if (s->context) pcre2_match_context_free(s->context);
    if (s->stack) pcre2_jit_stack_free(s->stack);
    mem_free(s);
    *scratch = NULL;
}

void regex_scratch_begin(struct regex_scratch *scratch, size_t size) {
    scratch->steps = STEPS_BASE + (uint64_t)size * STEPS_PER_BYTE;
}

/* PCRE2 does not tell the steps of a match, it only stops at a limit. So a match is tried within few of
 * them, again within eight times as many, and so on, and each try that failed is paid for: a match takes
 * at most some nine times what is paid for it, or the few that are free. */
static int match_within_steps(const struct regex *regex, struct regex_scratch *scratch, const char *text,
                              size_t size, size_t at) {
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    for (uint64_t limit = STEPS_FREE;; limit *= STEPS_GROWTH) {
        int rc = PCRE2_ERROR_JIT_STACKLIMIT;
        pcre2_set_match_limit(scratch->context, limit < UINT32_MAX ? (uint32_t)limit : UINT32_MAX);
        if (regex->jit)
            rc = pcre2_jit_match(regex->code, subject, size, at, 0, scratch->match, scratch->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
            rc = pcre2_match(regex->code, subject, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                             scratch->match, scratch->context);
        if (rc != PCRE2_ERROR_MATCHLIMIT || scratch->steps < limit) return rc;
        scratch->steps -= limit;
    }
}

bool regex_find(const struct regex *regex, struct regex_scratch *scratch, const char *text, size_t size,
                size_t at, size_t *first, size_t *end, bool *found, struct error *err) {
    int rc = match_within_steps(regex, scratch, text, size, at);
    *found = false;
    if (rc == PCRE2_ERROR_NOMATCH) return true;
    if (rc >= 0) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(scratch->match);
        if (range[0] < at || range[1] < range[0] || range[1] > size)
            return error_set(err, ERROR_INPUT, "tokenizer", "a pattern matches backwards");
        *first = range[0];
        *end = range[1];
        return *found = true;
    }
    if (rc == PCRE2_ERROR_NOMEMORY) return error_no_memory(err, "tokenizer", size);
    error_set(err, ERROR_INPUT, "tokenizer", "a pre-tokenizer pattern gave up on a text of %zu bytes", size);
    error_why(err, "its matches need more steps or memory than a text may take (PCRE2 error %d)", rc);
    return error_fix(err, "shorten the text, or use a tokenizer whose pattern does not backtrack");
}
