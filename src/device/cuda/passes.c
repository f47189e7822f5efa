#include "device/cuda/passes.h"

#include "base/mem.h"
#include "device/cuda/blas.h"

bool passes_open(struct passes **out, const struct plan *plan, struct error *err) {
    size_t nodes = (size_t)plan->graph->node_count;
    struct passes *p = mem_calloc(1, sizeof *p);
    *out = p;
    if (!p) return error_no_memory(err, "cuda", sizeof *p);
    p->plan = plan;
    p->nodes = mem_calloc(nodes + 1, sizeof *p->nodes);
    p->groups = mem_calloc(nodes + 1, sizeof *p->groups);
    if (!p->nodes || !p->groups) {
        passes_close(out);
        return error_no_memory(err, "cuda", nodes * sizeof *p->groups);
    }
    passes_find(p);
    return true;
}

void passes_close(struct passes **handle) {
    struct passes *p = *handle;
    if (!p) return;
    mem_free(p->nodes);
    mem_free(p->groups);
    mem_free(p);
    *handle = NULL;
}

bool passes_cross(const struct passes *p, int n) {
    for (int i = n; i < p->plan->graph->node_count; i++)
        if (p->nodes[i].role != PASS_ALONE && p->groups[p->nodes[i].group].leader < n) return true;
    return false;
}

struct run {
    struct passes *passes;
    struct pass_group *group;
    struct call (*call_of)(void *user, int node);
    void *user;
};

/* The numbers of a list's factor i, and where its sum goes. */
static void fill_factor(const struct run *run, const int *list, int i, struct pass_factor *factor,
                        struct pass_sum *sum) {
    *factor = (struct pass_factor){.column = 1};
    if (list[i] < 0) return;
    const struct graph *graph = run->passes->plan->graph;
    const struct call call = run->call_of(run->user, list[i]);
    struct thin_node thin;
    int64_t first = 0;
    pass_thin_node(graph, call.node, &thin);
    while (i > 0 && list[i - 1] == list[i]) i--, first += pass_ranks; /* -1 does not come here */
    const struct operand *numbers = &call.in[thin.factor], *state = &call.in[2];
    int64_t rank = thin.rank - first < pass_ranks ? thin.rank - first : pass_ranks;
    bool turned = !thin.across && thin.by_rank; /* numbers [rank, width] */
    factor->numbers = array_of(numbers);
    factor->numbers.stride = turned ? 1 : numbers->stride;
    factor->column = turned ? numbers->stride : 1;
    factor->numbers.data =
        (char *)numbers->data + first * factor->column * (int64_t)dtype_row(numbers->dtype)->bytes;
    factor->rank = (int)rank;
    const struct operand *y = thin.across ? state : &call.out[0];
    *sum = (struct pass_sum){.rank = (int)rank,
                             .y = array_of(y),
                             .row = thin.across && thin.by_rank ? 1 : y->stride,
                             .column = thin.across && thin.by_rank ? y->stride : 1,
                             .factor = call.node->attributes.alpha,
                             .adds = thin.across};
    sum->y.data = (char *)y->data + first * sum->column * (int64_t)dtype_row(y->dtype)->bytes;
}

static void fill_rows(const struct run *run, struct call *call, struct pass *pass) {
    const struct pass_group *group = run->group;
    const struct operand *rows = &call->in[group->wide];
    pass->rows = rows->dim[0];
    pass->width = rows->dim[1];
    if (group->kind == PASS_NORM) {
        struct call norm = run->call_of(run->user, group->norm);
        pass->in[0] = array_of(&norm.in[0]);
        pass->weight = array_of(&norm.in[1]);
        pass->rstd = run->call_of(run->user, group->rstd).out[1].data;
        return;
    }
    if (group->kind == PASS_ROWS) {
        pass->in[0] = array_of(rows);
        return;
    }
    for (int i = 0; i < call->node->inputs; i++) pass->in[i] = array_of(&call->in[i]);
    for (int o = 0; o < call->node->outputs; o++) pass->out[o] = array_of(&call->out[o]);
}

/* Behind the room of the library, so that products find the copy of f32 rows; sums alone lie in that room
 * where they fit, and the copy that a node before has left stays. */
static void place_copy(struct call *call, const struct pass_group *group, struct pass *pass, size_t sums) {
    struct array copy;
    bool copied = group->kind == PASS_ROWS && pass->in[0].type == DTYPE_F32;
    if (copied || sums > blas_workspace) call_scratch(call, blas_workspace);
    if (!copied) return;
    if (cuda_copy_place(call, call->node->input[group->wide], &call->in[group->wide], &copy))
        pass->in[0] = copy;
    else
        pass->out[0] = copy;
}

static void lead(const struct run *run) {
    struct pass_group *group = run->group;
    struct call call = run->call_of(run->user, group->leader);
    struct pass *pass = &group->pass;
    struct pass_sum sums[pass_most + 1], sum;
    int count = 0;
    *pass = (struct pass){.kind = group->kind, .alongs = group->alongs, .acrosses = group->acrosses};
    fill_rows(run, &call, pass);
    int64_t along = cuda_pass_along_parts(pass), across = cuda_pass_across_parts(pass);
    size_t line = pass_ranks * sizeof(float), along_bytes = cuda_round((size_t)(along * pass->rows) * line),
           across_bytes = cuda_round((size_t)(across * pass->width) * line);
    place_copy(&call, group, pass,
               (size_t)pass->alongs * along_bytes + (size_t)pass->acrosses * across_bytes);
    for (int i = 0; i < pass->alongs; i++) {
        fill_factor(run, group->along, i, &pass->along[i], &sum);
        if (group->along[i] < 0) continue;
        sum.sums = pass->along[i].sums = call_scratch(&call, along_bytes);
        sum.parts = along;
        sum.rows = pass->rows;
        if (group->along[i] == group->leader) sums[count++] = sum;
    }
    for (int i = 0; i < pass->acrosses; i++) {
        fill_factor(run, group->across, i, &pass->across[i], &sum);
        if (group->across[i] < 0) continue;
        sum.sums = pass->across[i].sums = call_scratch(&call, across_bytes);
        sum.parts = across;
        sum.rows = pass->width;
        sums[count++] = sum;
    }
    cuda_pass(pass, call.stream);
    cuda_pass_sums(sums, count, call.stream);
}

/* Its own result, of parts that wait in the workspace. */
static void follow(const struct run *run, int n) {
    const struct pass_group *group = run->group;
    struct pass_sum sums[pass_most + 1];
    struct pass_factor factor;
    int count = 0;
    for (int i = 0; i < group->alongs; i++) {
        if (group->along[i] != n) continue;
        fill_factor(run, group->along, i, &factor, &sums[count]);
        sums[count].sums = group->pass.along[i].sums;
        sums[count].parts = cuda_pass_along_parts(&group->pass);
        sums[count++].rows = group->pass.rows;
    }
    cuda_pass_sums(sums, count, run->call_of(run->user, n).stream);
}

int passes_reads_at(const struct passes *passes, int n) {
    int leader = passes->nodes[n].role == PASS_ALONE ? n : passes->groups[passes->nodes[n].group].leader;
    return leader < n ? leader : n;
}

bool passes_claim(const struct passes *passes, int first, int end, int64_t rows) {
    for (int n = first; passes && rows > cuda_few_rows && n < end; n++)
        if (passes->nodes[n].role != PASS_ALONE) return true;
    return false;
}

bool passes_run(struct passes *passes, int n, int64_t rows, struct call (*call_of)(void *user, int node),
                void *user, bool *served, struct error *err) {
    struct run run = {passes, &passes->groups[passes->nodes[n].group], call_of, user};
    enum pass_role role = passes->nodes[n].role;
    *served = passes_claim(passes, n, n + 1, rows);
    if (!*served || role == PASS_DONE) return true;
    if (role == PASS_LEADS)
        lead(&run);
    else
        follow(&run, n);
    return cuda_check(cudaGetLastError(), "multiply on the GPU", err);
}
