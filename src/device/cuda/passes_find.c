#include "device/cuda/blas.h"
#include "device/cuda/passes.h"

/* ---- products of low rank ---- */

static int64_t factors_of(int64_t rank) { return (rank + pass_ranks - 1) / pass_ranks; }

static bool is_number(const struct value *value) {
    return value->rank == 2 && (value->dtype == DTYPE_F32 || value->dtype == DTYPE_BF16);
}

bool pass_thin_node(const struct graph *graph, const struct node *node, struct thin_node *out) {
    int w = node->op == OP_LINEAR_GRAD_W ? 2 : 1;
    if ((node->op != OP_LINEAR && node->op != OP_LINEAR_GRAD_X && node->op != OP_LINEAR_GRAD_W) ||
        node->attributes.fp8 || operand_compute(graph, node) != DTYPE_BF16)
        return false;
    for (int i = 2; i < node->inputs && w == 1; i++)
        if (node->input[i] >= 0) return false; /* bias, addend or another product */
    const int64_t *dim = graph->values[node->input[w]].dim;
    bool outputs = node->op == OP_LINEAR || (w == 2 && dim[0] <= dim[1]); /* they are few */
    *out = (struct thin_node){.across = w == 2,
                              .wide = w == 2 && !outputs ? 1 : 0,
                              .factor = w == 1    ? 1
                                        : outputs ? 1
                                                  : 0,
                              .rank = dim[outputs ? 0 : 1],
                              .by_rank = outputs};
    int64_t width = dim[outputs ? 1 : 0];
    return width % 8 == 0 && 2 * out->rank <= width && factors_of(out->rank) <= pass_most &&
           is_number(&graph->values[node->input[out->wide]]) &&
           is_number(&graph->values[node->input[out->factor]]);
}

size_t passes_workspace(const struct graph *graph, const struct node *node) {
    enum { block_numbers = 384 * 256 }; /* of a sum across, in all blocks: pass.cu */
    struct thin_node thin = {.rank = pass_ranks};
    bool glu = node->op == OP_GLU || node->op == OP_GLU_GRAD;
    if (!glu && !pass_thin_node(graph, node, &thin)) return 0;
    const struct value *wide = &graph->values[node->input[thin.wide]];
    size_t rows = (size_t)wide->dim[0], width = (size_t)wide->dim[1], line = pass_ranks * sizeof(float);
    size_t bands = (width + 255) / 256, factors = (size_t)factors_of(thin.rank);
    size_t along = cuda_round(rows * line), across = cuda_round((block_numbers + width) * line);
    size_t copy = wide->dtype == DTYPE_F32 ? cuda_copy_bytes(wide, DTYPE_BF16) : 0;
    if (node->op == OP_GLU_GRAD) return blas_workspace + 2 * bands * along + 3 * across;
    if (node->op == OP_LINEAR_GRAD_X) return blas_workspace + copy + factors * (bands * along + across);
    return blas_workspace + copy + pass_most * (thin.across ? across : along);
}

/* ---- finding them ---- */

/* The node is served, or may be: nobody has claimed it. */
static bool unclaimed(const struct passes *p, int n, struct thin_node *thin) {
    const struct graph *graph = p->plan->graph;
    return n >= 0 && n < graph->node_count && p->nodes[n].role == PASS_ALONE &&
           pass_thin_node(graph, &graph->nodes[n], thin);
}

static int input_of(const struct passes *p, int n, int input) {
    return p->plan->graph->nodes[n].input[input];
}

static void claim(struct passes *p, int n, enum pass_role role) {
    p->nodes[n].role = role;
    p->nodes[n].group = p->count;
}

/* What a value has the numbers of: offloading copies some away and back. */
static int original(const struct graph *graph, int id) {
    for (int made; (made = graph->values[id].producer) >= 0 && graph->nodes[made].op == OP_COPY;)
        id = graph->nodes[made].input[0];
    return id;
}

/* Nodes of a loop run again for the next rows. */
static int last_of_loop(const struct graph *graph, int n) {
    int loop = graph->nodes[n].loop;
    while (loop && n + 1 < graph->node_count && graph->nodes[n + 1].loop == loop) n++;
    return n;
}

/* The value is there when `node` runs, having been made before `made`. */
static bool is_there(const struct passes *p, int id, int made, int node) {
    const struct plan *plan = p->plan;
    const struct value *value = &plan->graph->values[id];
    if (value->kind != VALUE_TRANSIENT) return true;
    if (value->producer >= made || plan->offset[id] == UINT64_MAX) return false;
    if (!value->loop) node = last_of_loop(plan->graph, node);
    for (int v = 0; v < plan->graph->value_count; v++) {
        const struct value *other = &plan->graph->values[v];
        if (other->kind == VALUE_TRANSIENT && !other->offloaded && other->producer > value->producer &&
            other->producer <= node && plan->offset[v] < plan->offset[id] + plan->bytes[id] &&
            plan->offset[id] < plan->offset[v] + plan->bytes[v])
            return false;
    }
    return true;
}

/* Both see the same rows of tokens at a time. */
static bool in_one_loop(const struct passes *p, int a, int b) {
    return p->plan->graph->nodes[a].loop == p->plan->graph->nodes[b].loop;
}

static void add_factors(int *list, int *count, int node, int64_t rank) {
    for (int64_t i = 0; i < factors_of(rank); i++) list[(*count)++] = node;
}

static struct pass_group *begin(struct passes *p, enum pass_kind kind, int leader) {
    struct pass_group *group = &p->groups[p->count];
    *group = (struct pass_group){.kind = kind, .leader = leader};
    for (int i = 0; i < pass_most; i++) group->along[i] = group->across[i] = -1;
    return group;
}

/* Nodes right behind that yield a product along the same rows. */
static void add_behind(struct passes *p, struct pass_group *group, int rows) {
    struct thin_node thin;
    for (int n = group->leader + 1;
         unclaimed(p, n, &thin) && !thin.across && input_of(p, n, thin.wide) == rows &&
         group->alongs + factors_of(thin.rank) <= (group->kind == PASS_GLU ? 1 : pass_most);
         n++) {
        add_factors(group->along, &group->alongs, n, thin.rank);
        claim(p, n, PASS_FOLLOWS);
    }
}

/* Nodes that add to state what is summed across the same rows, a few nodes on at most: those with as many
 * factors as there are products along the rows, or any while there is room. */
static void add_across(struct passes *p, struct pass_group *group, int rows) {
    enum { near = 8 };
    struct thin_node thin;
    for (int n = group->leader + 1; n <= group->leader + near; n++)
        if (unclaimed(p, n, &thin) && thin.across && input_of(p, n, thin.wide) == rows &&
            (group->alongs ? !group->acrosses && factors_of(thin.rank) == group->alongs
                           : group->acrosses + factors_of(thin.rank) <= pass_most) &&
            in_one_loop(p, n, group->leader) &&
            is_there(p, input_of(p, n, thin.factor), group->leader, group->leader)) {
            add_factors(group->across, &group->acrosses, n, thin.rank);
            claim(p, n, PASS_DONE);
        }
}

/* Where nothing but this pass reads a norm that is made again, and its rstd is there from before, the pass
 * makes it. */
static void add_norm(struct passes *p, struct pass_group *group, int rows) {
    const struct graph *graph = p->plan->graph;
    int made = graph->values[rows].producer, first = 0;
    if (made < 0 || graph->nodes[made].op != OP_NORM || graph->values[rows].keep) return;
    const struct node *norm = &graph->nodes[made];
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].inputs; i++) {
            int read = graph->nodes[n].input[i];
            bool here = p->nodes[n].role != PASS_ALONE && p->nodes[n].group == p->count;
            if ((read == rows && !here) || (read >= 0 && read == norm->output[1])) return;
        }
    int x = norm->input[0];
    while (first < made && (graph->nodes[first].op != OP_NORM || input_of(p, first, 1) != norm->input[1] ||
                            original(graph, input_of(p, first, 0)) != original(graph, x)))
        first++;
    int rstd = graph->nodes[first].output[1];
    if (first == made || rstd < 0 || !in_one_loop(p, made, group->leader) ||
        graph->values[x].dtype != DTYPE_F32 || !is_there(p, rstd, made, group->leader) ||
        !is_there(p, x, made, group->leader))
        return;
    group->kind = PASS_NORM;
    group->norm = made;
    group->rstd = first;
    claim(p, made, PASS_DONE);
}

static void find_rows(struct passes *p, int n, const struct thin_node *thin) {
    struct pass_group *group = begin(p, PASS_ROWS, n);
    int rows = input_of(p, n, thin->wide), factors = (int)factors_of(thin->rank);
    group->wide = thin->wide;
    claim(p, n, PASS_LEADS);
    if (thin->across) {
        add_factors(group->across, &group->acrosses, n, thin->rank);
        add_across(p, group, rows);
        add_norm(p, group, rows);
    } else {
        add_factors(group->along, &group->alongs, n, thin->rank);
        if (p->plan->graph->nodes[n].op == OP_LINEAR && p->plan->graph->values[rows].dtype == DTYPE_BF16)
            add_behind(p, group, rows);
        else if (factors < pass_most)
            add_across(p, group, rows);
    }
    if (!group->acrosses && p->plan->graph->values[rows].dtype == DTYPE_F32)
        p->nodes[n].role = PASS_ALONE;
    else
        p->count++;
}

static bool all_bf16(const struct passes *p, int n) {
    const struct graph *graph = p->plan->graph;
    const struct node *node = &graph->nodes[n];
    const struct value *values = graph->values;
    bool ok = values[node->input[0]].dim[1] % 8 == 0;
    for (int i = 0; i < node->inputs; i++) ok = ok && values[node->input[i]].dtype == DTYPE_BF16;
    for (int o = 0; o < node->outputs; o++)
        ok = ok && node->output[o] >= 0 && values[node->output[o]].dtype == DTYPE_BF16;
    return ok;
}

static void find_glu(struct passes *p, int n) {
    if (!all_bf16(p, n)) return;
    struct pass_group *group = begin(p, PASS_GLU, n);
    add_behind(p, group, p->plan->graph->nodes[n].output[0]);
    if (!group->alongs) return;
    claim(p, n, PASS_LEADS);
    p->count++;
}

/* The product across y = silu(gate) up that stands before its gradient, and the node that makes y again for
 * it alone. */
static void add_y(struct passes *p, struct pass_group *group) {
    enum { near = 8 };
    const struct graph *graph = p->plan->graph;
    const struct node *grad = &graph->nodes[group->leader];
    struct thin_node thin;
    for (int n = group->leader - 1; n > group->leader - near; n--) {
        if (!unclaimed(p, n, &thin) || !thin.across || thin.rank > pass_ranks ||
            !in_one_loop(p, n, group->leader))
            continue;
        int y = input_of(p, n, thin.wide), made = graph->values[y].producer;
        if (made < 0 || graph->nodes[made].op != OP_GLU || !in_one_loop(p, made, n) ||
            input_of(p, made, 0) != grad->input[0] || input_of(p, made, 1) != grad->input[1] ||
            !is_there(p, input_of(p, n, thin.factor), n, group->leader))
            continue;
        group->across[2] = n;
        claim(p, n, PASS_DONE);
        bool others = graph->values[y].keep;
        for (int m = 0; m < graph->node_count; m++)
            for (int i = 0; i < graph->nodes[m].inputs; i++)
                if (m != n && graph->nodes[m].input[i] == y) others = true;
        if (!others) claim(p, made, PASS_DONE);
        return;
    }
}

static void find_glu_grad(struct passes *p, int n) {
    const struct node *node = &p->plan->graph->nodes[n];
    struct thin_node thin;
    if (!all_bf16(p, n)) return;
    struct pass_group *group = begin(p, PASS_GLU_GRAD, n);
    for (int m = n + 1; unclaimed(p, m, &thin) && thin.rank <= pass_ranks; m++) {
        int rows = input_of(p, m, thin.wide), stream = rows == node->output[1];
        int *slot = thin.across ? &group->across[stream] : &group->along[stream];
        if ((rows != node->output[0] && rows != node->output[1]) || *slot >= 0) break;
        if (thin.across && !is_there(p, input_of(p, m, thin.factor), n, n)) break;
        *slot = m;
        claim(p, m, thin.across ? PASS_DONE : PASS_FOLLOWS);
        group->alongs = 2; /* what is absent is zero */
        group->acrosses = 3;
    }
    if (!group->alongs) return;
    add_y(p, group);
    claim(p, n, PASS_LEADS);
    p->count++;
}

void passes_find(struct passes *p) {
    const struct graph *graph = p->plan->graph;
    struct thin_node thin;
    for (int n = 0; n < graph->node_count; n++)
        if (graph->nodes[n].op == OP_GLU_GRAD) find_glu_grad(p, n);
    for (int n = 0; n < graph->node_count; n++) {
        if (graph->nodes[n].op == OP_GLU && p->nodes[n].role == PASS_ALONE) find_glu(p, n);
        if (unclaimed(p, n, &thin)) find_rows(p, n, &thin);
    }
}
