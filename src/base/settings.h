/* Settings as a table: one row says the name, type, bounds, default, unit, help and place of a value.
 * From the rows come flags, YAML keys, help, docs, the listing for forms and the search space.
 *
 * Knows rows and the struct that they point into; knows no command and no file format. A table may serve
 * several commands: `uses` is a set of bits whose meaning belongs to the table's owner.
 *
 * Words: row (struct setting), slot (where a row's value lies in its struct), origin (who chose the value).
 */
#ifndef HONE_BASE_SETTINGS_H
#define HONE_BASE_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"

/* Type of a row, and what its slot holds. */
enum setting_type {
    SETTING_TEXT,   /* char *, from mem_alloc; NULL: not set */
    SETTING_PATH,   /* the same; shown as a path */
    SETTING_INT,    /* int64_t */
    SETTING_FLOAT,  /* double */
    SETTING_BOOL,   /* bool; the flag stands alone, `--no-NAME` clears it */
    SETTING_CHOICE, /* int, index into `choices` */
    SETTING_BYTES,  /* uint64_t */
    SETTING_LIST,   /* struct text_list; one item each time the flag is given */
    SETTING_NAMES,  /* struct text_list; items separated by commas */
};

struct text_list {
    char **items; /* each from mem_alloc */
    size_t count;
};

/* What another value does to a run that is resumed. */
enum setting_effect {
    SETTING_RESULT,   /* another result: refused on resume */
    SETTING_ROUNDING, /* the same result to rounding: allowed on resume, and said */
    SETTING_HARMLESS, /* no effect on the result */
};

/* Where the value comes from. */
enum setting_origin {
    ORIGIN_DEFAULT,  /* the row's default */
    ORIGIN_AUTO,     /* not decided yet: the row's `automatic` rule will */
    ORIGIN_RESOLVED, /* decided by that rule; the reason stands beside */
    ORIGIN_GIVEN,    /* flag, YAML or API */
    ORIGIN_STORED,   /* taken from the run that is resumed */
};

struct setting {
    const char *name; /* "learning-rate"; YAML: "learning_rate", or nested below `nest` */
    enum setting_type type;
    unsigned uses; /* commands that take it; the owner's bits */
    enum setting_effect effect;
    const char *nest;      /* "lora": the row "lora-rank" is `rank` below `lora` in YAML; or NULL */
    const char *argument;  /* "FILE", "N"; NULL: by the type */
    double least, most;    /* bounds of numbers, both included; equal: none */
    const char *choices;   /* "auto|cpu|ref", for SETTING_CHOICE */
    const char *preset;    /* default, as a flag would say it; NULL: not set, or automatic */
    const char *automatic; /* how "auto" is decided; NULL: "auto" is no value of this row */
    const char *unit;      /* "steps", "tokens"; or NULL */
    const char *help;      /* one line */
    const char *group;     /* heading in help and forms */
    const char *search;    /* "log 2e-5 2e-3", "int 4 128 power of two", "choice …"; NULL: not searched */
    size_t offset;         /* of the slot in the struct */
};

struct setting_state {
    enum setting_origin origin;
    char *reason; /* for ORIGIN_RESOLVED: "hidden size 576"; from mem_alloc or NULL */
};

/* A struct of values with its rows. `values` and `states` belong to the caller. */
struct settings {
    const struct setting *rows;
    size_t count;
    void *values;
    struct setting_state *states; /* [count] */
};

void text_list_release(struct text_list *list);
bool text_list_add(struct text_list *list, const char *item, struct error *err);

/* Fills a zeroed struct with the defaults. */
bool settings_init(struct settings *settings, struct error *err);
void settings_release(struct settings *settings); /* the values' memory; the struct is zeroed */

/* Index of a row by name (`-` and `_` count as the same) among those with a bit of `uses`; SIZE_MAX: none. */
size_t settings_find(const struct settings *settings, const char *name, unsigned uses);

/* Sets a row from text; ORIGIN_GIVEN. A list that was given before grows, any other value is replaced.
 * `value` NULL: a flag without a value (SETTING_BOOL only). Errors: ERROR_USAGE with bounds or choices. */
bool settings_set(struct settings *settings, size_t row, const char *value, struct error *err);
/* The same for a value that was decided by rule; `reason` is shown to the user. */
bool settings_resolve(struct settings *settings, size_t row, const char *value, const char *reason,
                      struct error *err);
/* Copies rows that `from` has (given, stored or resolved) and `to` was not given. Both have the same rows. */
bool settings_inherit(struct settings *to, const struct settings *from, enum setting_origin origin,
                      struct error *err);

/* Looks a name up in several sets at once and sets it; refuses an unknown one with the nearest name, and
 * the names of other tools with ours and the converted value. `prefix` stands before names in messages:
 * "--" for flags, "" for keys. */
bool settings_assign(struct settings *const *sets, size_t set_count, unsigned uses, const char *name,
                     const char *value, const char *prefix, struct error *err);
/* Only the refusal. Always returns false. `value` may be NULL. */
bool settings_refuse_name(struct settings *const *sets, size_t set_count, unsigned uses, const char *name,
                          const char *value, const char *prefix, struct error *err);

/* The value as a flag would say it ("q_proj,v_proj", "0.1", "true"); nothing for a value that is not set.
 * Numbers read back to the same bits. */
bool setting_write(const struct setting *row, const void *values, struct buf *out);
/* The choice at `index` of SETTING_CHOICE. */
bool setting_write_choice(const struct setting *row, int index, struct buf *out);
bool setting_is_set(const struct setting *row, const void *values); /* false: NULL text, empty list */
bool setting_equal(const struct setting *row, const void *a, const void *b);
const char *setting_type_name(enum setting_type type);
const char *
setting_argument(const struct setting *row); /* "FILE", "N", "auto|cpu|ref"; "" for SETTING_BOOL */
const char *setting_origin_name(enum setting_origin origin);

/* The row as an object for help and forms: name, key, type, choices, least, most, default, automatic, unit,
 * help, group, search, effect. NULL when out of memory. */
json_t *setting_describe(const struct setting *row);
/* "learning_rate" or "lora.rank", into out. */
void setting_key(const struct setting *row, char out[64]);

#endif
