#include "text/csv.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"

char csv_separator(const char *text, size_t size) {
    static const char candidates[] = {',', ';', '\t'};
    size_t counts[sizeof candidates] = {0}, best = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"') quoted = !quoted;
        if (quoted) continue;
        if (text[i] == '\n') break;
        for (size_t c = 0; c < sizeof candidates; c++) counts[c] += text[i] == candidates[c];
    }
    for (size_t c = 1; c < sizeof candidates; c++)
        if (counts[c] > counts[best]) best = c;
    return candidates[best];
}

static bool mark_field(struct csv_record *record) {
    if (record->count + 1 >= record->capacity) {
        size_t capacity = record->capacity ? record->capacity * 2 : 16, bytes;
        if (!checked_size_mul(capacity, sizeof *record->starts, &bytes)) return false;
        size_t *starts = mem_realloc(record->starts, bytes);
        if (!starts) return false;
        record->starts = starts;
        record->capacity = capacity;
    }
    record->starts[record->count] = record->text.size;
    return true;
}

/* One field from *at on; stops on the separator, the line end or the end of the text. */
static bool read_field(struct csv *csv, struct csv_record *record, size_t *at) {
    const char *text = csv->text;
    size_t i = *at, size = csv->size;
    if (i < size && text[i] == '"') {
        for (i++; i < size; i++) {
            size_t from = i;
            while (i < size && text[i] != '"') csv->line += text[i++] == '\n';
            buf_append(&record->text, text + from, i - from);
            if (i + 1 >= size || text[i + 1] != '"') break;
            buf_byte(&record->text, '"');
            i++;
        }
        if (i >= size)
            record->broken = "a quote is opened and never closed";
        else
            i++;
        size_t after = i;
        while (i < size && text[i] != csv->separator && text[i] != '\n') i++;
        bool only_return = i == after + 1 && text[after] == '\r' && (i >= size || text[i] == '\n');
        if (i > after && !only_return) record->broken = "text stands behind a closing quote";
    } else {
        size_t from = i;
        while (i < size && text[i] != csv->separator && text[i] != '\n') i++;
        size_t end = i;
        if (end > from && text[end - 1] == '\r' && (i >= size || text[i] == '\n')) end--;
        buf_append(&record->text, text + from, end - from);
    }
    *at = i;
    return buf_byte(&record->text, '\0');
}

static bool skip_blank_lines(struct csv *csv) {
    while (csv->at < csv->size) {
        size_t i = csv->at;
        while (i < csv->size && (csv->text[i] == '\r' || csv->text[i] == ' ')) i++;
        if (i < csv->size && csv->text[i] != '\n') return true;
        if (i >= csv->size) break;
        csv->at = i + 1;
        csv->line++;
    }
    csv->at = csv->size;
    return false;
}

enum csv_result csv_next(struct csv *csv, struct csv_record *record) {
    buf_clear(&record->text);
    record->count = 0;
    record->broken = NULL;
    if (!skip_blank_lines(csv)) return CSV_END;
    record->line = csv->line;
    record->first = csv->at;
    size_t at = csv->at;
    for (;;) {
        if (!mark_field(record) || !read_field(csv, record, &at)) return CSV_NO_MEMORY;
        record->count++;
        if (at >= csv->size || csv->text[at] == '\n') break;
        at++;
    }
    record->starts[record->count] = record->text.size;
    record->end = at;
    if (at < csv->size) {
        at++;
        csv->line++;
    }
    csv->at = at;
    return CSV_RECORD;
}

const char *csv_field(const struct csv_record *record, size_t index, size_t *size) {
    *size = record->starts[index + 1] - record->starts[index] - 1;
    return record->text.data + record->starts[index];
}

void csv_record_release(struct csv_record *record) {
    buf_release(&record->text);
    mem_free(record->starts);
    memset(record, 0, sizeof *record);
}
