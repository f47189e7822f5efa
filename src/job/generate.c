/* `hone generate`: one prompt, one conversation, or a file of them answered together. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "base/thread.h"
#include "job/place.h"
#include "job/talk.h"

enum {
    largest_messages = 16 << 20,
    largest_batch = 1 << 30,
};

struct batch_row {
    struct talk talk;
    json_t *id;  /* as the row gives it, or NULL */
    size_t line; /* of the file, from 1 */
};

struct batch_file {
    struct batch_row *rows;
    size_t count, capacity;
};

static bool check_sources(const struct options *options, struct error *err) {
    int sources = (options->prompt != NULL) + (options->messages != NULL) + (options->batch != NULL);
    if (sources != 1) {
        error_set(err, ERROR_USAGE, "generate",
                  sources ? "--prompt, --messages and --batch exclude each other"
                          : "there is nothing to answer");
        return error_fix(err, "Give one of --prompt TEXT, --messages FILE and --batch FILE.");
    }
    if (options->batch && !options->output) {
        error_set(err, ERROR_USAGE, "generate", "--output is missing");
        return error_fix(err, "Name the file for the answers: --output answers.jsonl.");
    }
    if (!options->batch && options->output) {
        error_set(err, ERROR_USAGE, "generate", "--output belongs to --batch");
        return error_fix(err, "Leave it out, or give the requests as --batch FILE.");
    }
    return true;
}

static bool warn(const struct session *session, struct job *job, struct error *err) {
    char text[talk_warning_size];
    return !talk_warning(session, job, text) || job_warn(job, text, err);
}

/* Starts the session with room for these requests and no more, since each slot holds keys and values. */
static bool start_for(struct session *session, struct job *job, const struct request *requests, size_t count,
                      struct error *err) {
    int64_t most = session_model(session)->config.context, context = job->options.context;
    int64_t longest = 0;
    for (size_t i = 0; i < count; i++)
        if ((int64_t)requests[i].count > longest) longest = (int64_t)requests[i].count;
    if (!context)
        context = longest + job->options.max_tokens < most ? longest + job->options.max_tokens : most;
    return session_start(session, session_slots(session, (int64_t)count, context), context, err) &&
           warn(session, job, err);
}

/* ---- one request ---- */

static bool on_piece(void *user, const char *piece, size_t size) {
    struct error ignored;
    struct job *job = user;
    json_t *text =
        json_stringn(piece, size); /* NULL for a torn character at the end: the result has it replaced */
    if (text) job_emit_json(job, json_pack("{s:s, s:o}", "event", "text", "text", text), &ignored);
    return true;
}

static bool read_talk(struct talk *out, const struct options *options, struct error *err) {
    json_t *value = NULL;
    memset(out, 0, sizeof *out);
    if (options->prompt) return talk_prompt(out, options->prompt, err);
    bool ok = json_read_file(&value, options->messages, largest_messages, err) &&
              talk_value(out, value, options->messages, err);
    json_decref(value);
    return ok;
}

static bool answer_one(struct job *job, struct error *err) {
    struct talk talk;
    struct session *session = NULL;
    struct request request;
    struct answer answer = {0};
    bool ok = read_talk(&talk, &job->options, err) && talk_open(&session, job, NULL, err) &&
              talk_request(&talk, session, job, &request, err) && start_for(session, job, &request, 1, err);
    if (ok && job->on_event) {
        request.text = on_piece;
        request.user = job;
    }
    ok = ok && session_generate(session, &request, &answer, 1, &job->stop, err);
    if (ok) {
        job->result = talk_answer(&answer);
        ok = job->result || error_no_memory(err, "generate", answer.text.size);
        buf_release(&answer.text);
    }
    session_close(&session);
    talk_release(&talk);
    return ok;
}

/* ---- many ---- */

static bool add_line(struct batch_file *file, const char *line, size_t size, const char *path, size_t number,
                     struct error *err) {
    json_t *value;
    char name[240];
    if (file->count == file->capacity) {
        size_t capacity = file->capacity ? file->capacity * 2 : 64;
        struct batch_row *rows = mem_realloc(file->rows, capacity * sizeof *rows);
        if (!rows) return error_no_memory(err, "generate", capacity * sizeof *rows);
        file->rows = rows;
        file->capacity = capacity;
    }
    if (!json_read(&value, line, size, path, number, err)) return false;
    snprintf(name, sizeof name, "%.200s:%zu", path, number);
    struct batch_row row = {.line = number};
    bool ok = talk_value(&row.talk, value, name, err);
    if (ok) {
        row.id = json_incref(json_object_get(value, "id"));
        file->rows[file->count++] = row;
    }
    json_decref(value);
    return ok;
}

static bool read_batch(struct batch_file *file, const char *path, struct error *err) {
    struct buf text = {0};
    bool ok = fs_read(path, largest_batch, &text, err);
    size_t number = 0;
    for (size_t at = ok ? utf8_mark(text.data, text.size) : 0; ok && at < text.size;) {
        const char *end = memchr(text.data + at, '\n', text.size - at);
        size_t size = end ? (size_t)(end - text.data) - at : text.size - at;
        number++;
        if (strspn(text.data + at, " \t\r") < size)
            ok = add_line(file, text.data + at, size, path, number, err);
        at += size + 1;
    }
    buf_release(&text);
    if (ok && !file->count) ok = error_set(err, ERROR_INPUT, "generate", "%.200s has no requests", path);
    return ok;
}

static void release_batch(struct batch_file *file) {
    for (size_t i = 0; i < file->count; i++) {
        talk_release(&file->rows[i].talk);
        json_decref(file->rows[i].id);
    }
    mem_free(file->rows);
}

/* Refused before the first is answered, by its line. */
static bool check_lengths(const struct batch_file *file, const struct session *session, const struct job *job,
                          const struct request *requests, struct error *err) {
    int64_t most = session_model(session)->config.context;
    int64_t context = job->options.context ? job->options.context : most;
    char name[240];
    for (size_t i = 0; i < file->count; i++) {
        if (session_accepts(session, &requests[i], context, err)) continue;
        snprintf(name, sizeof name, "%.200s:%zu", job->options.batch, file->rows[i].line);
        return error_about(err, name);
    }
    return true;
}

/* With the request's `id` where it has one; NULL: out of memory. */
static json_t *batch_answer(const struct answer *answer, json_t *id) {
    json_t *value = talk_answer(answer);
    if (value && id) json_object_put(&value, "id", json_incref(id));
    return value;
}

/* One line per request, in order. */
static bool write_answers(const char *path, const struct answer *answers, const struct batch_row *rows,
                          size_t count, struct error *err) {
    struct fs_writer writer;
    struct buf line = {0};
    if (!fs_writer_open(&writer, path, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        json_t *value = batch_answer(&answers[i], rows[i].id);
        buf_clear(&line);
        ok = (value || error_no_memory(err, "generate", 0)) && json_write(value, &line, err) &&
             (buf_byte(&line, '\n') || error_no_memory(err, "generate", line.size)) &&
             fs_writer_write(&writer, line.data, line.size, err);
        json_decref(value);
    }
    buf_release(&line);
    if (ok) return fs_writer_commit(&writer, err);
    fs_writer_drop(&writer);
    return false;
}

static bool run_batch(struct job *job, struct batch_file *file, struct session *session, struct error *err) {
    struct request *requests = mem_calloc(file->count, sizeof *requests);
    struct answer *answers = mem_calloc(file->count, sizeof *answers);
    double start = clock_seconds();
    size_t prompt = 0, generated = 0;
    bool ok = (requests && answers) || error_no_memory(err, "generate", file->count * sizeof *answers);
    for (size_t i = 0; ok && i < file->count; i++)
        ok = talk_request(&file->rows[i].talk, session, job, &requests[i], err);
    ok = ok && check_lengths(file, session, job, requests, err) &&
         start_for(session, job, requests, file->count, err);
    bool answered = ok && session_generate(session, requests, answers, file->count, &job->stop, err);
    ok = answered && write_answers(job->options.output, answers, file->rows, file->count, err);
    for (size_t i = 0; ok && i < file->count; i++) {
        prompt += answers[i].prompt_tokens;
        generated += answers[i].generated_tokens;
    }
    if (ok) {
        job->result =
            json_pack("{s:I, s:o, s:I, s:I, s:f}", "answers", (json_int_t)file->count, "output",
                      json_text(job->options.output), "prompt_tokens", (json_int_t)prompt, "generated_tokens",
                      (json_int_t)generated, "seconds", clock_seconds() - start);
        ok = job->result || error_no_memory(err, "generate", 0);
    }
    for (size_t i = 0; answered && i < file->count; i++) buf_release(&answers[i].text);
    mem_free(requests);
    mem_free(answers);
    return ok;
}

static bool answer_many(struct job *job, struct error *err) {
    struct batch_file file = {0};
    struct session *session = NULL;
    bool ok = place_check(job->options.output, job->options.batch, "generate", err) &&
              read_batch(&file, job->options.batch, err) && talk_open(&session, job, NULL, err) &&
              run_batch(job, &file, session, err);
    session_close(&session);
    release_batch(&file);
    return ok;
}

bool job_generate(struct job *job, struct error *err) {
    if (!check_sources(&job->options, err)) return false;
    return job->options.batch ? answer_many(job, err) : answer_one(job, err);
}
