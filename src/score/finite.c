#include "score/finite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "device/operand.h"
#include "tensor/rowcodec.h"

struct watch {
    struct engine *engine;
    struct engine_program *program;
    const struct binding *binding; /* NULL: state alone is looked at */
    struct nonfinite *found;
    int64_t counts[COUNT_KINDS];
    void *copy; /* of one value or row of state */
    size_t bytes;
};

/* The first number that is not finite, and which of the elements it is. */
struct number {
    double value;
    int64_t at;
};

/* The first of `elements`; blocks of 256 at a time, which every type divides. */
static bool find_number(const void *data, enum dtype dtype, int64_t elements, struct number *out) {
    enum { piece = 256 };
    float numbers[piece];
    const struct rowcodec *codec = rowcodec(dtype);
    uint64_t bytes = 0;
    if (dtype == DTYPE_F64) {
        const double *at = data;
        for (int64_t i = 0; i < elements; i++)
            if (!isfinite((*out = (struct number){at[i], i}).value)) return true;
        return false;
    }
    if (!codec || !dtype_bytes(dtype, piece, &bytes)) return false; /* counts and indices */
    for (int64_t at = 0; at < elements; at += piece) {
        int64_t count = elements - at < piece ? elements - at : piece;
        codec->decode((const char *)data + (uint64_t)(at / piece) * bytes, numbers, count);
        for (int64_t i = 0; i < count; i++)
            if (!isfinite((*out = (struct number){(double)numbers[i], at + i}).value)) return true;
    }
    return false;
}

static int64_t elements_of(const int64_t *dim, int rank, int64_t first) {
    int64_t n = rank ? first : 1;
    for (int i = 1; i < rank; i++) n *= dim[i];
    return n;
}

/* Looks at a row of state: where it is mapped, or a copy. */
static bool look_at_row(const struct watch *w, int row, bool *bad, struct number *number, struct error *err) {
    const struct state_row *r = &w->engine->state.table.rows[row];
    const void *data = r->mapped;
    *bad = false;
    if (!data) {
        if (r->bytes > w->bytes) return error_set(err, ERROR_INTERNAL, "finite", "%s is too large", r->name);
        if (!w->engine->ops->download(w->engine->store, row, w->copy, (size_t)r->bytes, err)) return false;
        data = w->copy;
    }
    *bad = find_number(data, r->dtype, elements_of(r->dim, r->rank, r->dim[0]), number);
    return true;
}

/* What lives in a loop has `rows` rows; of other values with rows of tokens, those up to these are there. */
static bool look_at_transient(const struct watch *w, int id, int64_t first, int64_t rows, bool *bad,
                              struct number *number, struct error *err) {
    const struct graph *graph = &w->program->built.graph;
    const struct value *value = &graph->values[id];
    int64_t planned = graph_room(graph, value);
    if (value->count != COUNT_TOKENS)
        rows = op_count(value, w->counts);
    else if (!value->loop)
        rows += first;
    size_t bytes =
        planned > 0 ? (size_t)(w->program->plan.bytes[id] / (uint64_t)planned * (uint64_t)rows) : 0;
    *bad = false;
    if (w->program->plan.offset[id] == UINT64_MAX || !bytes) return true;
    if (!w->engine->ops->read(w->program->program, id, w->copy, bytes, err)) return false;
    *bad = find_number(w->copy, value->dtype, elements_of(value->dim, value->rank, rows), number);
    return true;
}

/* What of the state that the node read is no number already. */
static bool find_cause(const struct watch *w, const struct node *node, struct error *err) {
    const struct graph *graph = &w->program->built.graph;
    bool bad = false;
    struct number number;
    for (int i = 0; i < node->inputs && !bad; i++) {
        if (node->input[i] < 0 || op_row(node->op)->state_writes >> i & 1u) continue;
        const struct value *value = &graph->values[node->input[i]];
        if (value->kind != VALUE_STATE) continue;
        if (!look_at_row(w, value->which, &bad, &number, err)) return false;
        if (!bad) continue;
        const struct state_row *row = &w->engine->state.table.rows[value->which];
        w->found->frozen =
            (row->class == STATE_MAPPED || row->class == STATE_WEIGHT) && node->op != OP_EMBEDDING;
        snprintf(w->found->cause, sizeof w->found->cause, "%s", row->name);
    }
    return true;
}

/* The row of data whose token the number belongs to; -1: it is of no token alone. `first`: of the rows that
 * were looked at. */
static int64_t row_of(const struct watch *w, const struct value *value, int64_t first, int64_t at) {
    const int32_t *targets = w->binding->inputs[INPUT_ROWS];
    const uint32_t *rows = w->binding->inputs[INPUT_EXAMPLES];
    int64_t width = elements_of(value->dim, value->rank, 1), row = width > 0 ? at / width : 0;
    if (value->kind == VALUE_STATE || !rows || value->padding) return -1;
    if (value->count == COUNT_TOKENS && value->loop) row += first;
    if (value->count == COUNT_TARGETS && targets && row < w->counts[COUNT_TARGETS])
        row = targets[row];
    else if (value->count != COUNT_TOKENS)
        return -1;
    return row < w->counts[COUNT_TOKENS] ? (int64_t)rows[row] : -1;
}

static bool note(const struct watch *w, const struct node *node, int id, int64_t first, struct number number,
                 struct error *err) {
    const struct value *value = &w->program->built.graph.values[id];
    w->found->operation = op_row(node->op)->name;
    w->found->pass = node->backward ? "backward" : "forward";
    w->found->layer = node->block;
    w->found->number = number.value;
    w->found->row = row_of(w, value, first, number.at);
    snprintf(w->found->value, sizeof w->found->value, "%s", value->name);
    if (!find_cause(w, node, err)) return false;
    return error_set(err, ERROR_FAILED, "run", "%s is not finite", value->name); /* ends the run */
}

static bool look_after(void *user, int index, int64_t first, int64_t rows, struct error *err) {
    const struct watch *w = user;
    const struct node *node = &w->program->built.graph.nodes[index];
    bool bad = false;
    struct number number;
    for (int o = 0; o < node->outputs; o++) {
        if (node->output[o] < 0) continue;
        if (!look_at_transient(w, node->output[o], first, rows, &bad, &number, err)) return false;
        if (bad) return note(w, node, node->output[o], first, number, err);
    }
    for (int i = 0; i < node->inputs; i++) {
        if (node->input[i] < 0 || !(op_row(node->op)->state_writes >> i & 1u)) continue;
        if (!look_at_row(w, w->program->built.graph.values[node->input[i]].which, &bad, &number, err))
            return false;
        if (bad) return note(w, node, node->input[i], first, number, err);
    }
    return true;
}

/* Room for the largest thing that is copied: a value of the program, or a row of state that is not mapped. */
static bool watch_open(struct watch *w, struct error *err) {
    const struct state_table *table = &w->engine->state.table;
    w->bytes = 64;
    for (int v = 0; w->program && v < w->program->built.graph.value_count; v++)
        if (w->program->plan.offset[v] != UINT64_MAX && w->program->plan.bytes[v] > w->bytes)
            w->bytes = (size_t)w->program->plan.bytes[v];
    for (int r = 0; r < table->count; r++)
        if (!table->rows[r].mapped && table->rows[r].bytes > w->bytes)
            w->bytes = (size_t)table->rows[r].bytes;
    w->copy = mem_map(w->bytes, 0);
    return w->copy || error_no_memory(err, "finite", w->bytes);
}

bool finite_watch(struct nonfinite *out, struct engine *engine, struct engine_program *program,
                  const struct binding *binding, struct error *err) {
    struct watch w = {.engine = engine, .program = program, .binding = binding, .found = out};
    struct binding watched = *binding;
    *out = (struct nonfinite){.row = -1};
    binding_counts(binding, w.counts);
    if (!watch_open(&w, err)) return false;
    watched.leave = NULL;
    watched.after = look_after;
    watched.user = &w;
    bool ok =
        engine->ops->run(program->program, &watched, err) || (out->operation && err->code == ERROR_FAILED);
    mem_unmap(w.copy, w.bytes);
    return ok;
}

/* The part of a trained block, where the row is one. */
static void name_part(const struct engine *engine, const struct watch *w, int row, struct nonfinite *out) {
    const struct op_parts *parts = &engine->state.parts;
    const struct state_row *r = &engine->state.table.rows[row],
                           *block = &engine->state.table.rows[engine->state.trained];
    struct number number;
    snprintf(out->cause, sizeof out->cause, "%s", r->name);
    if (r->dtype != DTYPE_F32 || r->bytes != block->bytes) return;
    for (int i = 0; i < parts->count; i++) {
        const struct op_part *part = &parts->items[i];
        if (find_number((const float *)w->copy + part->offset, DTYPE_F32, part->rows * part->columns,
                        &number)) {
            snprintf(out->cause, sizeof out->cause, "%s", part->name);
            return;
        }
    }
}

bool finite_state(struct nonfinite *out, struct engine *engine, struct error *err) {
    struct watch w = {.engine = engine, .found = out};
    const struct model_state *state = &engine->state;
    bool ok = watch_open(&w, err), bad = false;
    struct number number;
    *out = (struct nonfinite){.row = -1};
    for (int s = -1; ok && !bad && s < optimizer_most_states; s++) {
        int row = s < 0 ? state->trained : state->moments[s];
        if (row < 0) continue;
        ok = look_at_row(&w, row, &bad, &number, err);
        if (!ok || !bad) continue;
        out->number = number.value;
        out->operation = op_row(optimizer_rows[state->optimizer.kind].op)->name;
        out->pass = "update";
        out->layer = -1;
        snprintf(out->value, sizeof out->value, "%s", state->table.rows[row].name);
        name_part(engine, &w, row, out);
    }
    mem_unmap(w.copy, w.bytes);
    return ok;
}
