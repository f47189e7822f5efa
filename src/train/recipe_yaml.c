/* recipe.yaml: reading (libfyaml, bounded) and writing. */
#include "train/recipe.h"

#include <libfyaml.h>
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"

/* A recipe has at most some 60 keys; whoever needs more is not writing a recipe. Lists leave room for a value
 * of each key and a mapping of each group, since what was read is written with all of them and must be
 * read again. */
enum {
    largest_file = 1 << 20,
    deepest = 64,
    node_budget = 1000,
    item_budget = node_budget - 2 * recipe_row_limit
};

struct reader {
    struct recipe *recipe;
    const char *name; /* of the file, for messages */
    int nodes;        /* visited so far, aliases counted each time */
    struct error *err;
};

static int node_line(struct fy_node *node) {
    struct fy_token *token = fy_node_is_scalar(node) ? fy_node_get_scalar_token(node) : NULL;
    const struct fy_mark *mark = token ? fy_token_start_mark(token) : NULL;
    return mark ? mark->line + 1 : 0;
}

/* Puts "FILE:LINE: " before the message. */
static bool at_line(struct reader *reader, int line) {
    char place[200];
    if (line <= 0) return error_about(reader->err, reader->name);
    snprintf(place, sizeof place, "%.180s:%d", reader->name, line);
    return error_about(reader->err, place);
}

static bool refuse(struct reader *reader, int line, const char *what) {
    error_set(reader->err, ERROR_USAGE, "recipe", "%s", what);
    return at_line(reader, line);
}

/* Follows aliases, within the budget. NULL with the error set. */
static struct fy_node *follow(struct reader *reader, struct fy_node *node, int line) {
    for (int hops = 0; node && fy_node_is_alias(node) && hops < deepest; hops++) {
        node = fy_node_resolve_alias(node);
        reader->nodes++;
    }
    if (!node || fy_node_is_alias(node)) {
        refuse(reader, line, "an alias points nowhere");
        return NULL;
    }
    if (++reader->nodes > node_budget) {
        refuse(reader, line, "more values than a recipe can have");
        return NULL;
    }
    return node;
}

static char *node_text(struct reader *reader, struct fy_node *node) {
    size_t size = 0;
    const char *text = fy_node_get_scalar(node, &size);
    if (text && memchr(text, 0, size)) {
        refuse(reader, node_line(node), "a value holds a NUL character");
        return NULL;
    }
    char *copy = mem_strndup(text ? text : "", size);
    if (!copy) error_no_memory(reader->err, "recipe", size);
    return copy;
}

static bool is_null(struct fy_node *node) {
    size_t size = 0;
    if (!fy_node_is_scalar(node) || fy_node_get_style(node) != FYNS_PLAIN) return false;
    const char *text = fy_node_get_scalar(node, &size);
    return !text || size == 0 || (size == 1 && *text == '~') || (size == 4 && memcmp(text, "null", 4) == 0);
}

/* A setting that says how this process runs. */
static bool refuse_invocation(struct reader *reader, const char *key, int line) {
    char what[160];
    snprintf(what, sizeof what, "%.100s is no setting of a recipe", key);
    refuse(reader, line, what);
    return error_fix(reader->err, "Give it on the command line.");
}

static bool read_scalar(struct reader *reader, const char *key, struct fy_node *node, int line) {
    struct settings settings = recipe_settings(reader->recipe);
    struct settings *sets[] = {&settings};
    if (settings_find(&settings, key, USE_INVOKE) != SIZE_MAX) return refuse_invocation(reader, key, line);
    if (is_null(node)) {
        /* Not set: only the name is looked at. */
        if (settings_find(&settings, key, USE_RUN | USE_FACT) != SIZE_MAX) return true;
        settings_refuse_name(sets, 1, USE_RUN | USE_FACT, key, NULL, "", reader->err);
        return at_line(reader, line);
    }
    char *text = node_text(reader, node);
    if (!text) return false;
    bool ok =
        settings_assign(sets, 1, USE_RUN | USE_FACT, key, text, "", reader->err) || at_line(reader, line);
    mem_free(text);
    return ok;
}

static bool read_sequence(struct reader *reader, const char *key, struct fy_node *node, int line) {
    void *at = NULL;
    for (struct fy_node *item; (item = fy_node_sequence_iterate(node, &at));) {
        if (!(item = follow(reader, item, line))) return false;
        if (!fy_node_is_scalar(item))
            return refuse(reader, line, "a list holds something other than plain values");
        if (!read_scalar(reader, key, item, line)) return false;
    }
    return true;
}

static bool holds_list(const struct setting *row) {
    return row->type == SETTING_LIST || row->type == SETTING_NAMES;
}

static bool is_list(struct recipe *recipe, const char *key) {
    struct settings settings = recipe_settings(recipe);
    size_t row = settings_find(&settings, key, USE_RUN | USE_FACT);
    return row == SIZE_MAX || holds_list(&recipe_rows[row]);
}

/* Whether all lists, those left at their defaults too, can be written and read again. */
static bool lists_fit(const struct recipe *recipe, struct error *err) {
    size_t items = 0;
    for (size_t i = 0; i < recipe_row_count; i++)
        if (holds_list(&recipe_rows[i]))
            items += ((const struct text_list *)(const void *)((const char *)recipe + recipe_rows[i].offset))
                         ->count;
    if (items <= item_budget) return true;
    error_set(err, ERROR_USAGE, "recipe",
              "its lists (data, valid and others) have %zu values, a recipe holds at most %d", items,
              item_budget);
    return error_fix(err, "Join files of rows into one: cat part-*.jsonl > rows.jsonl.");
}

static bool is_nest(const char *key) {
    for (size_t i = 0; i < recipe_row_count; i++)
        if (recipe_rows[i].nest && strcmp(recipe_rows[i].nest, key) == 0) return true;
    return false;
}

static bool read_mapping(struct reader *reader, const char *nest, struct fy_node *node);

static bool read_pair(struct reader *reader, const char *nest, struct fy_node_pair *pair) {
    struct fy_node *key = fy_node_pair_key(pair), *value = fy_node_pair_value(pair);
    if (!key || !fy_node_is_scalar(key)) return refuse(reader, 0, "a key is not a plain name");
    int line = node_line(key);
    char *text = node_text(reader, key), name[128];
    if (!text) return false;
    snprintf(name, sizeof name, "%s%s%s", nest ? nest : "", nest ? "-" : "", text);
    mem_free(text);
    if (!value) return true;
    if (!(value = follow(reader, value, line))) return false;
    if (fy_node_is_scalar(value)) return read_scalar(reader, name, value, line);
    if (fy_node_is_mapping(value) && !nest && is_nest(name)) return read_mapping(reader, name, value);
    if (fy_node_is_sequence(value) && is_list(reader->recipe, name))
        return read_sequence(reader, name, value, line);
    struct buf what = {0};
    text_escape(&what, name, strlen(name), false);
    refuse(reader, line, what.data ? what.data : "");
    buf_release(&what);
    return error_why(reader->err, "it takes one value, not a %s",
                     fy_node_is_mapping(value) ? "mapping" : "list");
}

/* One level below the top at most, so the recursion is bounded by the grammar. */
static bool read_mapping(struct reader *reader, const char *nest, struct fy_node *node) {
    void *at = NULL;
    for (struct fy_node_pair *pair; (pair = fy_node_mapping_iterate(node, &at));)
        if (!read_pair(reader, nest, pair)) return false;
    return true;
}

/* Flow brackets and compact block sequences ("- - - x") nest without indentation; both are counted before
 * the parser, which recurses, sees the text. */
static bool nesting_ok(const char *text, size_t size) {
    size_t flow = 0, marks = 0;
    bool start = true;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (c == '[' || c == '{')
            flow++;
        else if ((c == ']' || c == '}') && flow)
            flow--;
        if (c == '\n') {
            start = true;
            marks = 0;
        } else if (start && (c == ' ' || c == '-' || c == '?' || c == ':')) {
            marks++; /* each level of a block costs at least one of these at the line's start */
        } else {
            start = false;
        }
        if (flow > deepest || marks > 2 * deepest) return false;
    }
    return true;
}

/* Blanks and comments alone, of which the parser makes no document. */
static bool is_blank(const char *text, size_t size) {
    bool comment = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\n')
            comment = false;
        else if (text[i] == '#')
            comment = true;
        else if (!comment && text[i] != ' ' && text[i] != '\t' && text[i] != '\r')
            return false;
    }
    return true;
}

/* The line at which a second document begins, of which the parser takes no notice; 0: there is none. A mark
 * at the beginning of a line ends a document wherever it stands, within a text in quotes or a block too. */
static int second_document(const char *text, size_t size) {
    int line = 1, ended = 0;
    bool seen = false;
    for (size_t at = utf8_mark(text, size); at < size; line++) {
        const char *begin = text + at, *newline = memchr(begin, '\n', size - at);
        size_t length = newline ? (size_t)(newline - begin) : size - at;
        bool mark = length >= 3 && (!memcmp(begin, "---", 3) || !memcmp(begin, "...", 3)) &&
                    (length == 3 || strchr(" \t\r", begin[3]));
        if (mark && seen) ended = line;
        size_t skip = mark ? 3 : 0;
        bool directive = (!seen || ended) && *begin == '%';
        if (!directive && !is_blank(begin + skip, length - skip)) {
            if (ended) return ended;
            seen = true;
        }
        at += length + 1;
    }
    return 0;
}

/* Lines and columns are counted from 1 there, those of nodes from 0. */
static void collect_cause(struct fy_diag *diag, struct error *err) {
    void *at = NULL;
    struct fy_diag_error *cause = fy_diag_errors_iterate(diag, &at);
    if (cause && cause->msg)
        error_why(err, "%s (line %d, column %d)", cause->msg, cause->line, cause->column);
}

static struct fy_document *parse(const char *text, size_t size, const char *name, struct error *err) {
    struct fy_diag_cfg quiet;
    fy_diag_cfg_default(&quiet);
    quiet.fp = NULL;
    struct fy_diag *diag = fy_diag_create(&quiet);
    if (diag) fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg config = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG, .diag = diag};
    struct fy_document *document = fy_document_build_from_string(&config, text, size);
    if (!document) {
        error_set(err, ERROR_USAGE, "recipe", "%s is not valid YAML", name);
        if (diag) collect_cause(diag, err);
    }
    fy_diag_destroy(diag);
    return document;
}

static bool read_document(struct recipe *recipe, const char *text, size_t size, const char *name,
                          struct error *err) {
    struct reader reader = {.recipe = recipe, .name = name, .err = err};
    size_t bad;
    if (!utf8_valid(text, size, &bad))
        return error_set(err, ERROR_USAGE, "recipe", "%s: invalid UTF-8 at byte %zu", name, bad);
    if (memchr(text, 0, size)) return error_set(err, ERROR_USAGE, "recipe", "%s holds a NUL byte", name);
    if (!nesting_ok(text, size))
        return error_set(err, ERROR_USAGE, "recipe", "%s: nested deeper than %d levels", name, deepest);
    if (is_blank(text, size)) return error_set(err, ERROR_USAGE, "recipe", "%s holds no settings", name);
    int second = second_document(text, size);
    if (second) return refuse(&reader, second, "a second document begins here, and a recipe is one");
    struct fy_document *document = parse(text, size, name, err);
    if (!document) return false;
    struct fy_node *root = fy_document_root(document);
    bool ok = !root || is_null(root);
    if (!ok && !fy_node_is_mapping(root))
        refuse(&reader, 0, "not a mapping of settings to values");
    else if (!ok)
        ok = read_mapping(&reader, NULL, root) && (lists_fit(recipe, err) || at_line(&reader, 0));
    fy_document_destroy(document);
    return ok;
}

bool recipe_read_text(struct recipe *recipe, const char *text, size_t size, const char *name,
                      struct error *err) {
    struct recipe fresh;
    if (!recipe_init(&fresh, err)) return false;
    struct settings to = recipe_settings(recipe), from = recipe_settings(&fresh);
    bool ok = read_document(&fresh, text, size, name, err) && settings_inherit(&to, &from, ORIGIN_GIVEN, err);
    recipe_release(&fresh);
    return ok;
}

bool recipe_read(struct recipe *recipe, const char *path, struct error *err) {
    struct buf text = {0};
    bool ok =
        fs_read(path, largest_file, &text, err) && recipe_read_text(recipe, text.data, text.size, path, err);
    buf_release(&text);
    return ok;
}

/* ---- writing ---- */

/* Where a recipe is read, brackets count as nesting in texts too (nesting_ok). */
static bool opens_much(const char *text) {
    size_t open = 0, most = 0;
    for (; *text; text++) {
        if (*text == '[' || *text == '{')
            open++;
        else if ((*text == ']' || *text == '}') && open)
            open--;
        if (open > most) most = open;
    }
    return open > 0 || most > deepest / 2;
}

/* A JSON string is a double-quoted YAML scalar. */
static void write_quoted(const char *text, struct buf *out) {
    struct buf quoted = {0};
    struct error ignored;
    json_t *value = json_string(text);
    bool escape = opens_much(text);
    if (!value || !json_write(value, &quoted, &ignored)) out->failed = true;
    for (size_t i = 0; i < quoted.size; i++)
        if (escape && (quoted.data[i] == '[' || quoted.data[i] == '{'))
            buf_text(out, quoted.data[i] == '[' ? "\\u005B" : "\\u007B");
        else
            buf_byte(out, quoted.data[i]);
    json_decref(value);
    buf_release(&quoted);
}

static void write_items(const struct text_list *list, struct buf *out) {
    buf_byte(out, '[');
    for (size_t i = 0; i < list->count; i++) {
        if (i) buf_text(out, ", ");
        write_quoted(list->items[i], out);
    }
    buf_byte(out, ']');
}

static void write_value(const struct setting *row, const struct setting_state *state,
                        const struct recipe *recipe, struct buf *out) {
    const void *slot = (const char *)recipe + row->offset;
    if (state->origin == ORIGIN_AUTO)
        buf_text(out, "auto");
    else if (!setting_is_set(row, recipe))
        buf_text(out, "null");
    else if (row->type == SETTING_TEXT || row->type == SETTING_PATH)
        write_quoted(*(char *const *)slot, out);
    else if (holds_list(row))
        write_items(slot, out);
    else
        setting_write(row, recipe, out);
    if (!state->reason || !*state->reason) return;
    buf_text(out, "  # ");
    text_escape(out, state->reason, strlen(state->reason), false);
}

bool recipe_write_text(struct recipe *recipe, struct buf *out, struct error *err) {
    const char *group = "", *nest = "";
    for (size_t i = 0; i < recipe_row_count; i++) {
        const struct setting *row = &recipe_rows[i];
        if (row->uses & USE_INVOKE || !(row->uses & (USE_RUN | USE_FACT))) continue;
        if (strcmp(group, row->group) != 0) buf_printf(out, "%s# %s\n", *group ? "\n" : "", row->group);
        group = row->group;
        char key[64];
        setting_key(row, key);
        const char *dot = strchr(key, '.'), *own = row->nest ? row->nest : "";
        if (*own && strcmp(nest, own) != 0) buf_printf(out, "%s:\n", own);
        nest = own;
        buf_printf(out, "%s%s: ", *own ? "  " : "", dot ? dot + 1 : key);
        write_value(row, &recipe->states[i], recipe, out);
        buf_byte(out, '\n');
    }
    return !out->failed || error_no_memory(err, "recipe", out->size);
}

/* What could not be read is not written. */
static bool write_readable(struct recipe *recipe, struct buf *out, struct error *err) {
    if (!lists_fit(recipe, err) || !recipe_write_text(recipe, out, err)) return false;
    if (out->size <= largest_file) return true;
    error_set(err, ERROR_USAGE, "recipe", "it would have %zu bytes, at most %d are read again", out->size,
              largest_file);
    return error_fix(err, "Name fewer files, or give them shorter paths.");
}

bool recipe_fits(struct recipe *recipe, struct error *err) {
    struct buf text = {0};
    bool ok = write_readable(recipe, &text, err);
    buf_release(&text);
    return ok;
}

bool recipe_write(struct recipe *recipe, const char *path, struct error *err) {
    struct buf text = {0};
    bool ok = write_readable(recipe, &text, err) && fs_write_atomic(path, text.data, text.size, err);
    buf_release(&text);
    return ok;
}
