/* Flags of a command, from the library's list of its settings. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>

struct flags {
    json_t *settings;
};

bool flags_open(struct flags **out, const char *job, struct hone_error *err) {
    char *text;
    *out = NULL;
    if (!hone_settings(job, &text, err)) return false;
    struct flags *flags = calloc(1, sizeof *flags);
    if (flags) flags->settings = json_loads(text, 0, NULL);
    hone_free(text);
    if (flags && flags->settings) {
        *out = flags;
        return true;
    }
    free(flags);
    cli_refuse(err, "hone", "the list of settings cannot be read", "");
    err->code = HONE_MEMORY;
    return false;
}

void flags_close(struct flags **handle) {
    if (!*handle) return;
    json_decref((*handle)->settings);
    free(*handle);
    *handle = NULL;
}

static bool same_name(const char *a, size_t size, const char *b) {
    for (size_t i = 0; i < size; i++)
        if (!b[i] || (a[i] != b[i] && !(a[i] == '_' && b[i] == '-'))) return false;
    return b[size] == '\0';
}

/* The type of a setting; NULL when the command has none of that name. */
static const char *type_of(const struct flags *flags, const char *name, size_t size) {
    size_t i;
    json_t *row;
    json_array_foreach(
        flags->settings, i,
        row) if (same_name(name, size, json_get_text(row, "name"))) return json_get_text(row, "type");
    return NULL;
}

static bool is_list(const char *type) { return strcmp(type, "list") == 0 || strcmp(type, "names") == 0; }

struct parser {
    const struct flags *flags;
    const struct command *command;
    int argc;
    char **argv;
    bool (*take)(void *user, const char *name, const char *value, struct hone_error *err);
    void *user;
    struct hone_error *err;
    struct seen {
        char name[64];
        const char *value; /* of the command line */
    } seen[96];
    size_t seen_count;
};

/* A single value that is given twice is a slip, unless both say the same. */
static bool note_once(struct parser *parser, const char *name, const char *value) {
    char what[160];
    for (size_t i = 0; i < parser->seen_count; i++) {
        if (strcmp(parser->seen[i].name, name) != 0 || strcmp(parser->seen[i].value, value) == 0) continue;
        snprintf(what, sizeof what, "--%s is given twice, with different values", name);
        return cli_refuse(parser->err, parser->command->name, what, "Give it once.");
    }
    if (parser->seen_count < sizeof parser->seen / sizeof *parser->seen) {
        struct seen *one = &parser->seen[parser->seen_count++];
        snprintf(one->name, sizeof one->name, "%.63s", name);
        one->value = value;
    }
    return true;
}

static bool take_value(struct parser *parser, const char *name, const char *type, const char *value) {
    if (type && !is_list(type) && !note_once(parser, name, value ? value : "true")) return false;
    return parser->take(parser->user, name, value, parser->err);
}

/* Whether a word that would be the value of a flag is a flag itself: a value was forgotten. */
static bool is_flag(const struct flags *flags, const char *word) {
    if (strncmp(word, "--", 2) != 0) return false;
    size_t size = strcspn(word + 2, "=");
    return type_of(flags, word + 2, size) ||
           (strncmp(word, "--no-", 5) == 0 && size > 3 && type_of(flags, word + 5, size - 3));
}

/* One flag at argv[*at]; moves past its value. */
static bool parse_flag(struct parser *parser, int *at) {
    const char *word = parser->argv[*at] + 2, *equals = strchr(word, '=');
    size_t size = equals ? (size_t)(equals - word) : strlen(word);
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)(size < 120 ? size : 120), word);
    for (char *c = name; type_of(parser->flags, word, size) && *c; c++)
        if (*c == '_') *c = '-';
    const char *type = type_of(parser->flags, word, size), *value = equals ? equals + 1 : NULL;
    bool alone = type && strcmp(type, "bool") == 0;
    if (!type && strncmp(word, "no-", 3) == 0 && !equals) {
        const char *positive = type_of(parser->flags, word + 3, size - 3);
        if (positive && strcmp(positive, "bool") == 0) return take_value(parser, name + 3, positive, "false");
    }
    const char *next = *at + 1 < parser->argc ? parser->argv[*at + 1] : NULL;
    if (next && !alone && !equals && (type ? !is_flag(parser->flags, next) : strncmp(next, "--", 2) != 0))
        value = parser->argv[++*at];
    return take_value(parser, name, type, value);
}

static bool parse_word(struct parser *parser, const char *word, int *words) {
    const char *name = parser->command->positional;
    const char *type = name ? type_of(parser->flags, name, strlen(name)) : NULL;
    char what[200];
    if (type && (*words == 0 || is_list(type))) {
        ++*words;
        return take_value(parser, name, type, word);
    }
    char *shown = hone_escape(word, strlen(word), false);
    snprintf(what, sizeof what, "\"%.100s\" has no place here", shown ? shown : "");
    hone_free(shown);
    return cli_refuse(parser->err, parser->command->name, what, "Values follow a flag: --name value.");
}

bool flags_parse(const struct flags *flags, const struct command *command, int argc, char **argv,
                 bool (*take)(void *user, const char *name, const char *value, struct hone_error *err),
                 void *user, struct hone_error *err) {
    struct parser parser = {.flags = flags,
                            .command = command,
                            .argc = argc,
                            .argv = argv,
                            .take = take,
                            .user = user,
                            .err = err};
    bool ended = false;
    int words = 0;
    for (int i = 0; i < argc; i++) {
        bool flag = !ended && strncmp(argv[i], "--", 2) == 0;
        if (flag && !argv[i][2])
            ended = true;
        else if (flag ? !parse_flag(&parser, &i) : !parse_word(&parser, argv[i], &words))
            return false;
    }
    return true;
}
