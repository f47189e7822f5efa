/* --trace: OUTPUT/trace.json, the first steps of a run operation by operation in Chrome's trace format (an
 * array of objects; ts and dur are microseconds), which chrome://tracing and Perfetto draw; and an event that
 * sums them up. The array's end is no part of what readers ask for, so that a run that is killed has one too.
 */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/thread.h"
#include "train/run_internal.h"

/* Lines of the drawing. */
enum lane { LANE_STEPS = 1, LANE_PASSES, LANE_OPERATIONS };

static const char file_name[] = "trace.json";

void run_trace_close(struct run *run) {
    struct run_trace *trace = &run->trace;
    if (trace->open) fs_appender_close(&trace->file);
    trace->open = false;
    timeline_release(&trace->timeline);
}

/* A drawing that the disk refuses does not end the run. */
static bool write_text(struct run *run, const struct buf *text, struct error *err) {
    struct error cause;
    char message[error_text_size];
    if (text->failed) return error_no_memory(err, "trace", text->size);
    if (fs_appender_write(&run->trace.file, text->data, text->size, &cause)) return true;
    run_trace_close(run);
    error_format(&cause, message, sizeof message);
    return events_warn(&run->events, message, err);
}

static void write_span(struct buf *out, const struct run_trace *trace, enum lane lane, double begin,
                       double end) {
    buf_printf(out, "\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%.2f,\"dur\":%.2f", (int)lane,
               (begin - trace->begun) * 1e6, (end - begin) * 1e6);
}

static void write_lane(struct buf *out, enum lane lane, const char *name) {
    buf_printf(out,
               "{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"%s\"}},\n",
               (int)lane, name);
}

bool run_trace_begin(struct run *run, struct error *err) {
    struct run_trace *trace = &run->trace;
    struct buf text = {0};
    if (!run->recipe->trace || !run_first(run)) return true;
    char *path = fs_join(run->recipe->output, file_name);
    bool ok = path || error_no_memory(err, "trace", 0);
    ok = ok && fs_appender_open(&trace->file, path, 0, err);
    mem_free(path);
    if (!ok) return false;
    trace->open = true;
    trace->begun = clock_seconds();
    buf_text(&text, "[\n");
    write_lane(&text, LANE_STEPS, "steps");
    write_lane(&text, LANE_PASSES, "micro-batches");
    write_lane(&text, LANE_OPERATIONS, "operations");
    ok = text.failed ? error_no_memory(err, "trace", 0)
                     : fs_appender_write(&trace->file, text.data, text.size, err);
    buf_release(&text);
    return ok;
}

struct timeline *run_trace_timeline(struct run *run) {
    return run->trace.open ? &run->trace.timeline : NULL;
}

/* "linear nx576 1536x576": the operation with the sizes of its first operands, n what the batch decides. */
static void write_name(const struct graph *graph, const struct node *node, struct buf *out) {
    buf_text(out, op_row(node->op)->name);
    for (int i = 0; i < 2 && i < node->inputs; i++) {
        const struct value *value = node->input[i] < 0 ? NULL : &graph->values[node->input[i]];
        for (int d = 0; value && d < value->rank; d++) {
            buf_text(out, d ? "x" : " ");
            if (d == 0 && value->count != COUNT_FIXED)
                buf_byte(out, 'n');
            else
                buf_printf(out, "%lld", (long long)value->dim[d]);
        }
    }
}

static void write_operation(const struct run_trace *trace, const struct timeline_span *span,
                            struct buf *out) {
    const struct node *node = &span->graph->nodes[span->node];
    double seconds = span->end - span->begin;
    buf_text(out, "{\"name\":\"");
    write_name(span->graph, node, out);
    if (span->nodes > 1) buf_printf(out, " and %d beside it", span->nodes - 1);
    buf_printf(out, "\",\"cat\":\"%s", op_row(node->op)->name);
    write_span(out, trace, LANE_OPERATIONS, span->begin, span->end);
    buf_printf(out, ",\"args\":{\"layer\":%d,\"pass\":\"%s\"", node->block,
               node->backward ? "backward" : "forward");
    if (span->flops > 0 && seconds > 0)
        buf_printf(out, ",\"gigaflops_per_second\":%.1f", span->flops / seconds * 1e-9);
    buf_text(out, "}},\n");
}

bool run_trace_pass(struct run *run, const char *name, struct error *err) {
    struct run_trace *trace = &run->trace;
    const struct timeline *timeline = &trace->timeline;
    struct buf text = {0};
    if (!trace->open || !timeline->count) return true;
    buf_printf(&text, "{\"name\":\"%s", name);
    write_span(&text, trace, LANE_PASSES, timeline->spans[0].begin, timeline->spans[timeline->count - 1].end);
    buf_text(&text, "},\n");
    for (size_t i = 0; i < timeline->count; i++) {
        const struct timeline_span *span = &timeline->spans[i];
        enum op_code op = span->graph->nodes[span->node].op;
        trace->seconds[op] += span->end - span->begin;
        trace->flops[op] += span->flops;
        write_operation(trace, span, &text);
    }
    timeline_clear(&trace->timeline);
    bool ok = write_text(run, &text, err);
    buf_release(&text);
    return ok;
}

/* The operations that took time, the longest first. */
static json_t *sum_up(const struct run_trace *trace) {
    double all = 0, left[OP_COUNT];
    json_t *rows = json_array();
    memcpy(left, trace->seconds, sizeof left);
    for (int op = 0; op < OP_COUNT; op++) all += left[op];
    for (;;) {
        int most = 0;
        for (int op = 1; op < OP_COUNT; op++)
            if (left[op] > left[most]) most = op;
        if (left[most] <= 0) return rows;
        json_t *row = json_pack("{s:s, s:f, s:f}", "name", op_row((enum op_code)most)->name, "seconds",
                                left[most], "share", left[most] / all);
        if (trace->flops[most] > 0)
            json_object_put(&row, "flops_per_second", json_real(trace->flops[most] / left[most]));
        json_list_add(&rows, row);
        left[most] = 0;
    }
}

bool run_trace_end(struct run *run, struct error *err) {
    struct run_trace *trace = &run->trace;
    struct buf text = {0};
    if (!trace->open) return true;
    buf_text(&text,
             "{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":1,\"args\":{\"name\":\"hone train\"}}\n]\n");
    bool ok = write_text(run, &text, err), whole = trace->open;
    buf_release(&text);
    run_trace_close(run);
    if (!ok || !whole) return ok;
    return events_emit(&run->events, "trace",
                       json_pack("{s:s, s:I, s:o}", "path", file_name, "steps", (json_int_t)trace->steps,
                                 "operations", sum_up(trace)),
                       err);
}

bool run_trace_step(struct run *run, const struct step *step, struct error *err) {
    struct run_trace *trace = &run->trace;
    struct buf text = {0};
    if (!trace->open) return true;
    buf_printf(&text, "{\"name\":\"step %lld", (long long)run->progress.step + 1);
    write_span(&text, trace, LANE_STEPS, run->patience.begun, clock_seconds());
    buf_printf(&text, ",\"args\":{\"tokens\":%zu,\"micro_batches\":%zu}},\n", step->tokens,
               step->layout.micro_batches);
    bool ok = write_text(run, &text, err);
    buf_release(&text);
    trace->steps++;
    return ok && (trace->steps < run->recipe->trace || run_trace_end(run, err));
}
