/* `hone settings`: the table as JSON and as Markdown. */
#include <math.h>
#include <string.h>

#include "job/job.h"

static const struct {
    const struct setting *rows;
    const size_t *count;
} tables[] = {{recipe_rows, &recipe_row_count}, {option_rows, &option_row_count}};

/* Facts are no settings; a use of 0 takes every other row. */
static bool shown(const struct setting *row, unsigned use) {
    return !(row->uses & USE_FACT) && (!use || row->uses & use);
}

static json_t *commands_of(const struct setting *row) {
    json_t *list = json_array();
    for (size_t i = 0; list && i < job_kind_count; i++)
        if (row->uses & job_kinds[i].use) json_list_add(&list, json_string(job_kinds[i].name));
    return list;
}

json_t *job_settings_list(unsigned use) {
    json_t *list = json_array();
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        for (size_t i = 0; list && i < *tables[t].count; i++) {
            const struct setting *row = &tables[t].rows[i];
            if (!shown(row, use)) continue;
            json_t *one = setting_describe(row);
            if (one && json_object_set_new(one, "commands", commands_of(row)) == 0 &&
                json_array_append_new(list, one) == 0)
                continue;
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

/* Characters that would end or break a table cell. */
static void write_cell(struct buf *out, const char *text) {
    for (; *text; text++) {
        if (*text == '|')
            buf_text(out, "\\|");
        else
            buf_byte(out, *text);
    }
}

static void write_values(struct buf *out, const struct setting *row) {
    if (row->choices)
        write_cell(out, row->choices);
    else
        buf_text(out, setting_type_name(row->type));
    if (row->least == row->most) return;
    if (isinf(row->most))
        buf_printf(out, ", %.10g or more", row->least);
    else
        buf_printf(out, ", %.10g to %.10g", row->least, row->most);
}

static void write_row(struct buf *out, const struct setting *row) {
    static const char *const effects[] = {"refused", "allowed, said", "allowed"};
    char key[64];
    setting_key(row, key);
    buf_printf(out, "| `--%s` | ", row->name);
    if (row->uses & USE_RUN && !(row->uses & USE_INVOKE)) buf_printf(out, "`%s`", key);
    buf_text(out, " | ");
    write_values(out, row);
    if (row->unit) buf_printf(out, " (%s)", row->unit);
    buf_text(out, " | ");
    if (row->preset)
        write_cell(out, row->preset);
    else if (row->automatic)
        buf_text(out, "auto: "), write_cell(out, row->automatic);
    buf_text(out, " | ");
    write_cell(out, row->help);
    buf_printf(out, " | %s |\n",
               row->uses & USE_RUN && !(row->uses & USE_INVOKE) ? effects[row->effect] : "");
}

static void write_table(struct buf *out, const struct setting *rows, size_t count, const char *const *groups,
                        size_t group) {
    buf_printf(out, "\n### %c%s\n\n", groups[group][0] & ~0x20, groups[group] + 1);
    buf_text(out, "| flag | recipe.yaml | values | default | meaning | another value on resume "
                  "|\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++)
        if (shown(&rows[i], 0) && strcmp(rows[i].group, groups[group]) == 0) write_row(out, &rows[i]);
}

bool job_settings_markdown(struct buf *out) {
    static const char *const heads[] = {"Settings of a run", "Settings of other commands"};
    buf_text(out,
             "# Settings\n\n<!-- Written by `hone settings --markdown`; change src/train/recipe_rows.c or "
             "src/job/options.c instead. -->\n\nA flag is also a key of recipe.yaml, with underscores; "
             "`lora.` keys nest. `auto` gives a "
             "value back to its rule.\nA flag of type bool stands alone, and `--no-NAME` clears it. Which "
             "command takes which "
             "flag: `hone COMMAND --help`.\n");
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        const char *groups[16];
        size_t count = 0;
        buf_printf(out, "\n## %s\n", heads[t]);
        for (size_t i = 0; i < *tables[t].count; i++) {
            const char *group = tables[t].rows[i].group;
            size_t seen = 0;
            while (seen < count && strcmp(groups[seen], group) != 0) seen++;
            if (seen == count && count < 16 && shown(&tables[t].rows[i], 0)) groups[count++] = group;
        }
        for (size_t g = 0; g < count; g++) write_table(out, tables[t].rows, *tables[t].count, groups, g);
    }
    return !out->failed;
}

static bool page(struct job *job, struct error *err) {
    struct buf text = {0};
    if (job->options.command) {
        error_set(err, ERROR_USAGE, "settings", "--markdown is a page of all commands");
        return error_fix(err, "Leave %s out.", job->options.command);
    }
    if (job_settings_markdown(&text)) job->result = json_pack("{s:s}", "markdown", text.data);
    buf_release(&text);
    return job->result || error_no_memory(err, "settings", 0);
}

bool job_settings(struct job *job, struct error *err) {
    unsigned use = 0;
    if (job->options.markdown) return page(job, err);
    if (job->options.command) {
        const struct job_kind *kind = job_kind_find(job->options.command);
        if (!kind) return job_refuse_name(job->options.command, err);
        use = kind->use;
    }
    job->result = json_pack("{s:o}", "settings", job_settings_list(use));
    return job->result || error_no_memory(err, "settings", 0);
}
