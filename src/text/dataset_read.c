/* The records of a file: which container it is, where each record begins and ends, and the record as
 * a JSON object. A list in a JSON file is cut into its elements by a scan for brackets and quotes, so
 * that each element is read, refused and numbered by itself and the file is never one huge value. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "text/dataset_internal.h"

static const size_t longest_record = (size_t)64 << 20;

bool dataset_cause_set(struct dataset_cause *cause, const char *format, ...) {
    char plain[512];
    struct buf shown = {0};
    va_list args;
    va_start(args, format);
    int length = vsnprintf(plain, sizeof plain, format, args);
    va_end(args);
    if (length >= (int)sizeof plain) text_ellipsis(plain, sizeof plain);
    text_escape(&shown, plain, strlen(plain), false);
    length = snprintf(cause->text, sizeof cause->text, "%s", shown.data ? shown.data : "");
    if (length >= (int)sizeof cause->text) text_ellipsis(cause->text, sizeof cause->text);
    buf_release(&shown);
    return false;
}

const char *json_mistake(const char *text, size_t size) {
    size_t at = 0;
    while (at < size && memchr(" \t\r\n[{", text[at], 6)) at++;
    bool python = at && at < size && text[at] == '\'' && memchr("[{", text[at - 1], 2);
    return python ? "single quotes, as Python prints a value; json.dumps writes double ones" : NULL;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static size_t skip_space(const struct dataset_reader *reader, size_t at, size_t *line) {
    while (at < reader->size && is_space(reader->text[at])) *line += reader->text[at++] == '\n';
    return at;
}

/* The end of the JSON value at `at`: the first `,`, `]` or `}` outside of it, or the end of the text. */
static size_t value_end(const struct dataset_reader *reader, size_t at, size_t *line) {
    size_t depth = 0;
    bool quoted = false;
    for (; at < reader->size; at++) {
        char c = reader->text[at];
        *line += c == '\n';
        if (quoted) {
            if (c == '\\' && at + 1 < reader->size)
                *line += reader->text[++at] == '\n';
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if (c == ']' || c == '}' || c == ',') {
            if (!depth) return at;
            if (c != ',') depth--;
        }
    }
    return at;
}

static bool key_is_list_of_rows(const char *key, size_t size) {
    static const char *const keys[] = {"\"data\"", "\"train\"", "\"rows\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (size == strlen(keys[i]) && !memcmp(key, keys[i], size)) return true;
    return false;
}

/* A member of an object. */
struct member {
    const char *key; /* with its quotes */
    size_t key_size;
    size_t value, line; /* where its value begins */
};

/* The member behind the `{` or `,` at *at, which comes to stand behind it. */
static bool next_member(const struct dataset_reader *reader, size_t *at, size_t *line, struct member *out) {
    size_t i = skip_space(reader, *at + 1, line);
    if (i >= reader->size || reader->text[i] != '"') return false;
    size_t key = i++;
    while (i < reader->size && reader->text[i] != '"') i += reader->text[i] == '\\' ? 2 : 1;
    if (i >= reader->size) return false;
    *out = (struct member){.key = reader->text + key, .key_size = ++i - key};
    i = skip_space(reader, i, line);
    if (i >= reader->size || reader->text[i] != ':') return false;
    out->value = skip_space(reader, i + 1, line);
    out->line = *line;
    *at = value_end(reader, out->value, line);
    return true;
}

static bool holds_objects(const struct dataset_reader *reader, const struct member *member) {
    size_t ignored = 0, at = skip_space(reader, member->value + 1, &ignored);
    return at < reader->size && reader->text[at] == '{';
}

static bool refuse_second(const struct dataset_reader *reader, const struct member *first,
                          const struct member *second, struct error *err) {
    error_set(err, ERROR_INPUT, "data", "%s:%zu: the object holds two lists of rows, %.*s and %.*s",
              reader->path, second->line, (int)first->key_size, first->key, (int)second->key_size,
              second->key);
    return error_fix(err, "Write each into a file of its own, and name both.");
}

/* Finds `"data": [` among the members of the object at `at`; key NULL: there is none. Other lists are told,
 * and a second one of rows is refused: it must not be passed over in silence. */
static bool find_list_member(struct dataset_reader *reader, size_t at, size_t line, struct member *out,
                             struct error *err) {
    struct member member;
    struct buf unread = {0};
    bool ok = true;
    memset(out, 0, sizeof *out);
    while (ok && next_member(reader, &at, &line, &member)) {
        bool list = member.value < reader->size && reader->text[member.value] == '[';
        bool rows = list && key_is_list_of_rows(member.key, member.key_size);
        if (rows && !out->key) {
            *out = member;
        } else if (rows && holds_objects(reader, &member)) {
            ok = refuse_second(reader, out, &member, err);
        } else if (list && unread.size < 80) {
            buf_text(&unread, unread.size ? ", " : "; not read: ");
            text_escape(&unread, member.key, member.key_size < 40 ? member.key_size : 40, false);
        }
        if (at >= reader->size || reader->text[at] != ',') break;
    }
    ok = ok && (!unread.failed || error_no_memory(err, "data", unread.size));
    if (ok && out->key)
        snprintf(reader->told, sizeof reader->told, "the file is a JSON object with a list of rows, %.*s%s",
                 (int)out->key_size, out->key, unread.size ? unread.data : "");
    buf_release(&unread);
    return ok;
}

/* Behind the bracket that closes the object at `at`; 0 where none does. */
static size_t object_end(const struct dataset_reader *reader, size_t at, size_t *line) {
    size_t depth = 0;
    bool quoted = false;
    for (; at < reader->size; at++) {
        char c = reader->text[at];
        *line += c == '\n';
        if (quoted) {
            if (c == '\\' && at + 1 < reader->size)
                *line += reader->text[++at] == '\n';
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            depth++;
        } else if ((c == ']' || c == '}') && --depth == 0) {
            return at + 1;
        }
    }
    return 0;
}

/* The first line alone, as if the file ended there. */
static struct dataset_reader first_line_of(const struct dataset_reader *reader, size_t at) {
    const char *newline = memchr(reader->text + at, '\n', reader->size - at);
    struct dataset_reader line = *reader;
    if (newline) line.size = (size_t)(newline - reader->text);
    return line;
}

/* True when the first line is a whole JSON value by itself. */
static bool first_line_is_whole(const struct dataset_reader *reader, size_t at) {
    struct dataset_reader line = first_line_of(reader, at);
    size_t ignored = 0, end = object_end(&line, at, &ignored);
    return end && skip_space(&line, end, &ignored) >= line.size;
}

/* Whether the object at `at`, whose first line is not whole, is written over several lines: it reads as JSON,
 * or its bracket stands alone in the first line. Else the first line is a broken row. */
static bool is_spread(const struct dataset_reader *reader, size_t at, size_t end) {
    struct dataset_reader line = first_line_of(reader, at);
    struct error ignored_error;
    size_t ignored = 0;
    json_t *value = NULL;
    if (skip_space(&line, at + 1, &ignored) >= line.size) return true;
    bool reads = end && end - at <= longest_record &&
                 json_read(&value, reader->text + at, end - at, "", 1, &ignored_error);
    json_decref(value);
    return reads;
}

static bool has_suffix(const char *path, const char *suffix) {
    size_t a = strlen(path), b = strlen(suffix);
    return a >= b && !strcmp(path + a - b, suffix);
}

bool reader_is_named_csv(const struct dataset_reader *reader) {
    return has_suffix(reader->path, ".csv") || has_suffix(reader->path, ".tsv");
}

static void set_container(struct dataset_reader *reader, enum dataset_container container,
                          const char *evidence) {
    reader->container = container;
    reader->evidence = evidence;
}

/* From the content; the name decides only where the first character tells nothing. */
static bool recognise_container(struct dataset_reader *reader, struct error *err) {
    struct member list = {0};
    size_t line = 1, at = skip_space(reader, 0, &line);
    char c = at < reader->size ? reader->text[at] : '\0';
    reader->first = 0;
    reader->first_line = 1;
    if (c == '[') {
        reader->first = at + 1;
        reader->first_line = line;
        set_container(reader, CONTAINER_JSON, "the file begins with a JSON list");
        return true;
    }
    if (c == '{') {
        bool whole = first_line_is_whole(reader, at);
        size_t ignored = 0;
        const char *newline = memchr(reader->text + at, '\n', reader->size - at);
        bool more = newline && skip_space(reader, (size_t)(newline - reader->text), &ignored) < reader->size;
        if (!(whole && more) && !find_list_member(reader, at, line, &list, err)) return false;
        if (list.key) {
            reader->first = list.value + 1;
            reader->first_line = list.line;
            reader->in_object = true;
            set_container(reader, CONTAINER_JSON, reader->told);
            return true;
        }
        size_t end = whole ? 0 : object_end(reader, at, &ignored);
        if (!whole && is_spread(reader, at, end)) {
            bool one = !end || skip_space(reader, end, &ignored) >= reader->size;
            reader->first = at;
            reader->first_line = line;
            reader->in_sequence = true;
            set_container(reader, CONTAINER_JSON,
                          one ? "the file is one JSON object, one row"
                              : "the file is JSON objects one behind the other, over several lines");
            return true;
        }
    }
    if (c == '{')
        set_container(reader, CONTAINER_JSONL, "lines are JSON objects");
    else if (has_suffix(reader->path, ".jsonl") || has_suffix(reader->path, ".ndjson"))
        set_container(reader, CONTAINER_JSONL, "the name ends in .jsonl");
    else if (has_suffix(reader->path, ".json"))
        set_container(reader, CONTAINER_JSONL, "the name ends in .json");
    else
        set_container(reader, CONTAINER_CSV, "the first line is no JSON");
    return true;
}

/* A row's fields are kept by name: the second of one name would stand in the place of the first. */
static bool check_names(const struct dataset_reader *reader, struct error *err) {
    const struct csv_record *header = &reader->header;
    json_t *seen = json_object();
    bool ok = seen || error_no_memory(err, "data", header->count);
    for (size_t i = 0; ok && i < header->count; i++) {
        size_t size;
        const char *name = csv_field(header, i, &size);
        const json_t *first = json_object_getn(seen, name, size);
        if (first)
            ok = error_set(err, ERROR_INPUT, "data",
                           "%s:1: the header has two columns of one name (%zu and %zu)", reader->path,
                           (size_t)json_integer_value(first) + 1, i + 1);
        else if (json_object_setn_new_nocheck(seen, name, size, json_integer((json_int_t)i)) != 0)
            ok = error_no_memory(err, "data", size);
    }
    json_decref(seen);
    return ok;
}

static bool read_header(struct dataset_reader *reader, struct error *err) {
    struct csv_record *header = &reader->header;
    reader->csv = (struct csv){.text = reader->text,
                               .size = reader->size,
                               .line = 1,
                               .separator = csv_separator(reader->text, reader->size)};
    enum csv_result result = csv_next(&reader->csv, header);
    if (result == CSV_NO_MEMORY) return error_no_memory(err, "data", reader->size);
    reader->first = reader->csv.at;
    reader->first_line = reader->csv.line;
    if (result == CSV_END) return true;
    size_t bad = 0;
    if (!utf8_valid(reader->text + header->first, header->end - header->first, &bad))
        return error_set(err, ERROR_INPUT, "data", "%s:1: the header is not UTF-8 (byte %zu)", reader->path,
                         bad + 1);
    if (header->broken) {
        error_set(err, ERROR_INPUT, "data", "%s:1: the header cannot be read", reader->path);
        return error_why(err, "%s", header->broken);
    }
    for (size_t i = 0; i < header->count; i++) {
        size_t size;
        const char *name = csv_field(header, i, &size);
        if (memchr(name, '\0', size))
            return error_set(err, ERROR_INPUT, "data", "%s:1: column %zu has a NUL in its name", reader->path,
                             i + 1);
    }
    return check_names(reader, err);
}

/* Files that people have and that are not text: what they begin with, and what makes rows of them. */
static const struct {
    const char *mark;
    size_t size;
    const char *what, *fix;
} foreign[] = {
    {"\xff\xfe", 2, "UTF-16, not UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8."},
    {"\xfe\xff", 2, "UTF-16, not UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8."},
    {"\x1f\x8b", 2, "packed by gzip", "Unpack it: gunzip --keep."},
    {"\x28\xb5\x2f\xfd", 4, "packed by zstd", "Unpack it: zstd --decompress."},
    {"\xfd"
     "7zXZ",
     5, "packed by xz", "Unpack it: xz --decompress --keep."},
    {"PK\x03\x04", 4, "a zip archive or a spreadsheet", "Unpack it, or save the sheet as CSV in UTF-8."},
    {"PAR1", 4, "Parquet",
     "Write it as JSONL: pandas.read_parquet(…).to_json(…, orient=\"records\", lines=True)."},
    {"ARROW1", 6, "Arrow", "Write it as JSONL: datasets.Dataset.from_file(…).to_json(…)."},
    {"SQLite format 3", 15, "a SQLite database",
     "Write its rows as CSV: sqlite3 -csv -header FILE \"select …\"."},
    {"%PDF-", 5, "PDF", "Give its text as JSONL or CSV."},
};

static bool refuse_foreign(const char *path, const char *text, size_t size, struct error *err) {
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        if (size < foreign[i].size || memcmp(text, foreign[i].mark, foreign[i].size) != 0) continue;
        error_set(err, ERROR_INPUT, "data", "%s:1: the file is %s", path, foreign[i].what);
        return error_fix(err, "%s", foreign[i].fix);
    }
    return true;
}

bool reader_open(struct dataset_reader *reader, const char *path, struct error *err) {
    memset(reader, 0, sizeof *reader);
    reader->path = path;
    if (!fs_map_open(&reader->map, path, err)) return false;
    const char *text = (const char *)reader->map.data;
    size_t size = reader->map.size;
    if (!refuse_foreign(path, text, size, err)) {
        reader_close(reader);
        return false;
    }
    size_t mark = utf8_mark(text, size);
    reader->text = text + mark;
    reader->size = size - mark;
    bool ok = recognise_container(reader, err);
    if (!ok || (reader->container == CONTAINER_CSV && !read_header(reader, err))) {
        reader_close(reader);
        return false;
    }
    reader_rewind(reader);
    return true;
}

void reader_close(struct dataset_reader *reader) {
    csv_record_release(&reader->header);
    csv_record_release(&reader->record);
    fs_map_close(&reader->map);
}

void reader_rewind(struct dataset_reader *reader) {
    reader->at = reader->first;
    reader->line = reader->first_line;
    reader->done = false;
    reader->row_number = 0;
    reader->csv.at = reader->first;
    reader->csv.line = reader->first_line;
}

static enum reader_result bad_record(struct dataset_reader *reader, const char *cause) {
    dataset_cause_set(&reader->cause, "%s", cause);
    return READER_BAD;
}

/* The checks that every record passes before it is parsed. */
static bool bytes_ok(struct dataset_reader *reader, size_t first, size_t end) {
    size_t bad = 0;
    if (end - first > longest_record) return dataset_cause_set(&reader->cause, "longer than 64 MiB");
    if (utf8_valid(reader->text + first, end - first, &bad)) return true;
    size_t offset = (size_t)(reader->text - (const char *)reader->map.data) + first + bad;
    return dataset_cause_set(&reader->cause, "invalid UTF-8: byte 0x%02x at offset %zu of the file",
                             (unsigned char)reader->text[first + bad], offset);
}

static enum reader_result parse_object(struct dataset_reader *reader, size_t first, size_t end, json_t **row,
                                       struct error *err) {
    struct error cause = {0};
    if (!bytes_ok(reader, first, end)) return READER_BAD;
    if (!json_read(row, reader->text + first, end - first, "", reader->row_line, &cause)) {
        if (cause.code == ERROR_MEMORY) {
            *err = cause;
            return READER_FAILED;
        }
        /* The message begins with ":LINE: "; in a list the line inside the element is worth showing. */
        char *behind = cause.what;
        unsigned long long line = cause.what[0] == ':' ? strtoull(cause.what + 1, &behind, 10) : 0;
        if (line > reader->row_line) reader->row_line = (size_t)line;
        const char *mistake = json_mistake(reader->text + first, end - first);
        const char *what = behind[0] == ':' && behind[1] ? behind + 2 : cause.what,
                   *why = mistake && cause.why[0] ? mistake : cause.why;
        dataset_cause_set(&reader->cause, "%s%s%s", what, *why ? ": " : "", why);
        return READER_BAD;
    }
    reader->row_text = reader->text + first;
    reader->row_size = end - first;
    if (json_is_object(*row)) return READER_ROW;
    dataset_cause_set(&reader->cause, "not an object but %s", json_kind_name(*row));
    json_decref(*row);
    *row = NULL;
    return READER_BAD;
}

static enum reader_result next_line(struct dataset_reader *reader, json_t **row, struct error *err) {
    for (;;) {
        if (reader->at >= reader->size) return READER_END;
        size_t first = reader->at, ignored = 0;
        const char *newline = memchr(reader->text + first, '\n', reader->size - first);
        size_t end = newline ? (size_t)(newline - reader->text) : reader->size;
        reader->at = newline ? end + 1 : end;
        reader->row_line = reader->line++;
        struct dataset_reader line = {.text = reader->text, .size = end};
        if (skip_space(&line, first, &ignored) < end) return parse_object(reader, first, end, row, err);
    }
}

static enum reader_result next_element(struct dataset_reader *reader, json_t **row, struct error *err) {
    if (reader->done) return READER_END;
    size_t at = skip_space(reader, reader->at, &reader->line);
    reader->row_line = reader->line;
    bool begins = reader->at == reader->first;
    if (at < reader->size && reader->text[at] == ']' && begins) {
        reader->done = true;
        return READER_END;
    }
    size_t end = value_end(reader, at, &reader->line);
    char stop = end < reader->size ? reader->text[end] : '\0';
    reader->at = end + 1;
    reader->done = stop != ',';
    if (stop == '}') return bad_record(reader, "broken JSON: } where the list should go on or end");
    if (stop == '\0') return bad_record(reader, "broken JSON: the list is never closed");
    enum reader_result result =
        end > at ? parse_object(reader, at, end, row, err)
                 : bad_record(reader, stop == ']' ? "broken JSON: a comma stands behind the last row"
                                                  : "broken JSON: no row stands before the comma");
    if (stop != ']' || result == READER_FAILED) return result;
    size_t line = reader->line, behind = skip_space(reader, end + 1, &line);
    /* Behind a list that is the whole file nothing may follow; behind a member, the object's end. */
    bool ends = reader->in_object ? behind < reader->size : behind >= reader->size;
    if (ends || result == READER_BAD) return result;
    json_decref(*row);
    *row = NULL;
    reader->row_line = line;
    return bad_record(reader, reader->in_object ? "broken JSON: the object around the list is never closed"
                                                : "broken JSON: text behind the end of the list");
}

/* Behind what is no object: the next line that begins with one, or the end. */
static size_t next_brace(const struct dataset_reader *reader, size_t at, size_t *line) {
    while (at < reader->size) {
        const char *newline = memchr(reader->text + at, '\n', reader->size - at);
        if (!newline) break;
        at = skip_space(reader, (size_t)(newline - reader->text), line);
        if (at < reader->size && reader->text[at] == '{') return at;
    }
    return reader->size;
}

/* Objects one behind the other; one that is never closed reaches to the end. */
static enum reader_result next_object(struct dataset_reader *reader, json_t **row, struct error *err) {
    size_t at = skip_space(reader, reader->at, &reader->line);
    if (at >= reader->size) return READER_END;
    reader->row_line = reader->line;
    if (reader->text[at] != '{') {
        reader->at = next_brace(reader, at, &reader->line);
        return bad_record(reader, "broken JSON: text that is no object stands between the rows");
    }
    size_t end = object_end(reader, at, &reader->line);
    reader->at = end ? end : reader->size;
    size_t lines = 0, behind = end ? skip_space(reader, end, &lines) : reader->size;
    if (behind >= reader->size || reader->text[behind] != ',')
        return parse_object(reader, at, reader->at, row, err);
    reader->at = behind + 1;
    reader->line += lines;
    return bad_record(reader, "a comma behind the object: lines of JSON have none, and a list begins with [");
}

static enum reader_result next_csv(struct dataset_reader *reader, json_t **row, struct error *err) {
    struct csv_record *record = &reader->record;
    enum csv_result result = csv_next(&reader->csv, record);
    if (result == CSV_END) return READER_END;
    if (result == CSV_NO_MEMORY) {
        error_no_memory(err, "data", reader->size);
        return READER_FAILED;
    }
    reader->row_line = record->line;
    if (!bytes_ok(reader, record->first, record->end)) return READER_BAD;
    if (record->broken) return bad_record(reader, record->broken);
    if (record->count != reader->header.count) {
        dataset_cause_set(&reader->cause, "%zu %s where the header has %zu", record->count,
                          text_plural(record->count, "field", "fields"), reader->header.count);
        return READER_BAD;
    }
    *row = json_object();
    for (size_t i = 0; *row && i < record->count; i++) {
        size_t name_size, size;
        const char *name = csv_field(&reader->header, i, &name_size), *text = csv_field(record, i, &size);
        if (json_object_setn_new_nocheck(*row, name, name_size, json_stringn_nocheck(text, size)) == 0)
            continue;
        json_decref(*row);
        *row = NULL;
    }
    if (*row) return READER_ROW;
    error_no_memory(err, "data", record->text.size);
    return READER_FAILED;
}

enum reader_result reader_next(struct dataset_reader *reader, json_t **row, struct error *err) {
    *row = NULL;
    reader->row_number += reader->container == CONTAINER_JSON;
    switch (reader->container) {
    case CONTAINER_JSON:
        return reader->in_sequence ? next_object(reader, row, err) : next_element(reader, row, err);
    case CONTAINER_CSV: return next_csv(reader, row, err);
    default: return next_line(reader, row, err);
    }
}
