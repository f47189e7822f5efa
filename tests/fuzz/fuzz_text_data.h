/* What both targets for data files do: the bytes as a file in memory, then everything that reads rows.
 * The invariants are those that a user relies on: lines within the file, text that can be shown. */
#ifndef TESTS_FUZZ_TEXT_DATA_H
#define TESTS_FUZZ_TEXT_DATA_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/text.h"
#include "text/dataset.h"
#include "text/report.h"

static void require(bool ok) {
    if (!ok) abort();
}

static void fuzz_rows(struct dataset *data, size_t lines) {
    struct error err;
    json_t *report = NULL;
    require(data->row_count > 0);
    for (size_t i = 0; i < data->row_count; i++) {
        const struct dataset_row *row = &data->rows[i];
        require(row->index == i && row->line >= 1 && row->line <= lines);
        require((row->text != NULL) != (row->messages != NULL));
    }
    for (size_t i = 0; i < data->problem_count; i++) {
        const char *cause = data->problems[i].cause;
        require(data->problems[i].line >= 1 && data->problems[i].line <= lines && *cause);
        require(utf8_valid(cause, strlen(cause), NULL));
        for (; *cause; cause++) require((unsigned char)*cause >= 0x20);
    }
    if (data->problem_count)
        require(!dataset_refuse(data, &err) && utf8_valid(err.why, strlen(err.why), NULL));
    require(data_report_check(&report, data, data, NULL, &err));
    json_decref(report);
    bool *held = mem_array(data->row_count, sizeof *held);
    require(held != NULL);
    dataset_split(data, 0.5, 1, held, &err);
    mem_free(held);
}

static void fuzz_data(const uint8_t *bytes, size_t size, const char *suffix) {
    static const struct dataset_options options[] = {
        {0}, {.answers_optional = true}, {.columns = "text=a"}, {.columns = "messages=a,system=b"}};
    char path[64], name[16];
    struct error err;
    snprintf(name, sizeof name, "data%s", suffix);
    int file = memfd_create(name, 0);
    require(file >= 0 && write(file, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    size_t lines = 1;
    for (size_t i = 0; i < size; i++) lines += bytes[i] == '\n';
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        struct dataset data;
        const char *files[] = {path};
        if (!dataset_open(&data, files, 1, &options[i], &err)) continue;
        fuzz_rows(&data, lines);
        dataset_close(&data);
    }
    close(file);
}

#endif
