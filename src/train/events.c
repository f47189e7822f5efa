#include "train/events.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"

enum {
    most_boards = 1000,    /* TensorBoard files of one second */
    most_waiting = 1 << 20 /* bytes of lines that a full disk refused */
};

/* Bytes up to and including the last newline: what a torn write left behind is cut. */
static bool whole_lines(const char *path, uint64_t *out, struct error *err) {
    struct fs_map map;
    *out = 0;
    if (fs_kind_of(path) == FS_NOTHING) return true;
    if (!fs_map_open(&map, path, err)) return false;
    *out = map.size;
    while (*out && map.data[*out - 1] != '\n') --*out;
    fs_map_close(&map);
    return true;
}

/* A file of this second that nothing stands in yet. NULL: out of memory. */
static char *board_path(const char *folder) {
    for (int n = 0;; n++) {
        char name[96];
        snprintf(name, sizeof name, "events.out.tfevents.%lld.hone.%d", (long long)clock_unix(), n);
        char *path = fs_join(folder, name);
        if (!path || fs_kind_of(path) == FS_NOTHING || n == most_boards) return path;
        mem_free(path);
    }
}

static bool open_board(struct events *events, const char *directory, struct error *err) {
    char *folder = fs_join(directory, "tensorboard"), *path = NULL;
    bool ok = folder ? fs_make_directories(folder, err) : error_no_memory(err, "events", 0);
    if (ok && !(path = board_path(folder))) ok = error_no_memory(err, "events", 0);
    ok = ok && tfevents_open(&events->board, path, clock_unix(), err);
    events->board_open = ok;
    mem_free(folder);
    mem_free(path);
    return ok;
}

/* What was refused before, in its order; it stays where the disk has no room yet. */
static bool write_waiting(struct events *events, struct error *err) {
    if (!fs_appender_write(&events->file, events->waiting.data, events->waiting.size, err)) return false;
    buf_clear(&events->waiting);
    events->disk_failed = false;
    return true;
}

bool events_open(struct events *out, const char *directory, void (*listen)(void *user, const char *line),
                 void *user, struct error *err) {
    uint64_t keep;
    memset(out, 0, sizeof *out);
    buf_init(&out->waiting, most_waiting);
    out->file.fd = -1;
    out->listen = listen;
    out->user = user;
    char *path = fs_join(directory, "events.jsonl");
    bool ok = path ? whole_lines(path, &keep, err) && fs_appender_open(&out->file, path, keep, err)
                   : error_no_memory(err, "events", 0);
    mem_free(path);
    ok = ok && open_board(out, directory, err);
    if (!ok) events_close(out);
    return ok;
}

void events_close(struct events *events) {
    struct error ignored;
    if (events->waiting.size && events->file.fd >= 0) write_waiting(events, &ignored);
    buf_release(&events->waiting);
    fs_appender_close(&events->file);
    if (events->board_open) tfevents_close(&events->board);
    events->board_open = false;
}

static void disk_failure(struct events *events, const struct error *cause) {
    char text[error_text_size];
    if (events->disk_failed) return;
    events->disk_failed = true;
    error_format(cause, text, sizeof text);
    json_t *message =
        json_pack("{s:s, s:i, s:f, s:I, s:o}", "event", "warning", "version", event_version, "time",
                  clock_unix(), "step", (json_int_t)events->step, "message", json_text(text));
    struct buf out = {0};
    struct error ignored;
    if (message && json_write(message, &out, &ignored) && events->listen)
        events->listen(events->user, out.data);
    json_decref(message);
    buf_release(&out);
}

static void write_line(struct events *events, const struct buf *line) {
    struct error cause;
    bool waits = events->waiting.size > 0,
         ok = (!waits || write_waiting(events, &cause)) &&
              fs_appender_write(&events->file, line->data, line->size, &cause);
    if (ok) return;
    disk_failure(events, &cause);
    if (line->size <= most_waiting - events->waiting.size)
        buf_append(&events->waiting, line->data, line->size);
    events->waiting.failed = false; /* without memory this line alone is lost */
}

bool events_emit(struct events *events, const char *name, json_t *fields, struct error *err) {
    struct buf line = {0};
    json_t *event = json_pack("{s:s, s:i, s:f, s:I}", "event", name, "version", event_version, "time",
                              clock_unix(), "step", (json_int_t)events->step);
    bool ok = event && fields && json_object_update(event, fields) == 0;
    if (!ok) error_no_memory(err, "events", 0);
    ok = ok && json_write(event, &line, err);
    if (ok && events->listen) events->listen(events->user, line.data);
    if (ok && events->file.fd >= 0) {
        buf_byte(&line, '\n');
        write_line(events, &line);
    }
    buf_release(&line);
    json_decref(event);
    json_decref(fields);
    return ok;
}

void events_sync(struct events *events) {
    struct error cause;
    if (events->file.fd >= 0 && !fs_appender_sync(&events->file, &cause)) disk_failure(events, &cause);
}

bool events_warn(struct events *events, const char *message, struct error *err) {
    return events_emit(events, "warning", json_pack("{s:o}", "message", json_text(message)), err);
}

void events_scalar(struct events *events, const struct tfevents_scalar *scalars, size_t count) {
    struct error cause;
    if (events->board_open &&
        !tfevents_write(&events->board, clock_unix(), events->step, scalars, count, &cause))
        disk_failure(events, &cause);
}

void events_restart(struct events *events) {
    struct error cause;
    if (events->board_open && !tfevents_restart(&events->board, clock_unix(), events->step + 1, &cause))
        disk_failure(events, &cause);
}
