#include "device/cuda/few_join.h"

/* ---- finding them ---- */

static bool overlap(const struct plan *plan, int a, int b) {
    const struct value *values = plan->graph->values;
    if (values[a].kind != VALUE_TRANSIENT || values[b].kind != VALUE_TRANSIENT) return false;
    if (plan->offset[a] == UINT64_MAX || plan->offset[b] == UINT64_MAX) return false;
    return plan->offset[a] < plan->offset[b] + plan->bytes[b] &&
           plan->offset[b] < plan->offset[a] + plan->bytes[a];
}

/* Nodes [first, end) alone read the value, and nobody looks at it. */
static bool is_inner(const struct graph *graph, int value, int first, int end) {
    if (graph->values[value].keep || graph->values[value].kind != VALUE_TRANSIENT) return false;
    for (int n = 0; n < graph->node_count; n++)
        for (int i = 0; i < graph->nodes[n].inputs; i++)
            if (graph->nodes[n].input[i] == value && (n < first || n >= end)) return false;
    return true;
}

static bool is_made_in(const struct graph *graph, int value, int first, int end) {
    int made = graph->values[value].producer;
    return graph->values[value].kind == VALUE_TRANSIENT && made >= first && made < end;
}

/* All of a group runs at once: what one node reads must not lie where another writes. */
static bool is_apart(const struct plan *plan, int first, int end) {
    const struct graph *graph = plan->graph;
    for (int w = first; w < end; w++)
        for (int o = 0; o < graph->nodes[w].outputs; o++) {
            int out = graph->nodes[w].output[o];
            if (out < 0 || is_inner(graph, out, first, end)) continue;
            for (int r = first; r < end; r++)
                for (int i = 0; i < graph->nodes[r].inputs; i++) {
                    int in = graph->nodes[r].input[i];
                    if (in >= 0 && w != r && !is_made_in(graph, in, first, end) && overlap(plan, in, out))
                        return false;
                }
        }
    return true;
}

static bool is_product(const struct graph *graph, int n, int x) {
    const struct node *node = &graph->nodes[n];
    return n < graph->node_count && node->op == OP_LINEAR && node->input[0] == x && !node->attributes.fp8 &&
           graph->values[node->input[1]].kind == VALUE_STATE;
}

static bool is_same_product(const struct graph *graph, int a, int b) {
    const struct attributes *one = &graph->nodes[a].attributes, *other = &graph->nodes[b].attributes;
    return one->alpha == other->alpha &&
           operand_compute(graph, &graph->nodes[a]) == operand_compute(graph, &graph->nodes[b]);
}

/* An adapter's second product reads what its first one, of the same x, has made. */
static bool reads_from(const struct graph *graph, int n, int first) {
    const struct node *node = &graph->nodes[n];
    for (int i = 0; i < node->inputs; i++)
        if (node->input[i] >= 0 && is_made_in(graph, node->input[i], first, n)) return true;
    return false;
}

/* Products of value x from node n on, none of which needs another. */
static int products_from(const struct graph *graph, int n, int x) {
    int count = 0;
    while (count < few_most && is_product(graph, n + count, x) &&
           (!count || (is_same_product(graph, n, n + count) && !reads_from(graph, n + count, n))))
        count++;
    return count;
}

/* The node behind two products is the gated unit of them. */
static bool is_glu_of(const struct graph *graph, int n, int products) {
    const struct node *glu = &graph->nodes[n + products];
    if (products != 2 || n + products >= graph->node_count || glu->op != OP_GLU) return false;
    for (int p = 0; p < 2; p++)
        if (glu->input[p] != graph->nodes[n + p].output[0] || !is_inner(graph, glu->input[p], n, n + 3) ||
            graph->values[glu->input[p]].dtype != operand_compute(graph, &graph->nodes[n]))
            return false;
    return true;
}

static struct few_group products_at(const struct plan *plan, int n) {
    const struct graph *graph = plan->graph;
    const struct node *node = &graph->nodes[n];
    bool norm = node->op == OP_NORM;
    if (!norm && node->op != OP_LINEAR) return (struct few_group){.count = 1};
    int x = norm ? node->output[0] : node->input[0], first = n + norm,
        products = products_from(graph, first, x);
    bool glu = is_glu_of(graph, first, products);
    int count = norm + products + glu;
    bool joins = products > 0 && count > 1 && is_apart(plan, n, n + count);
    if (norm)
        joins = joins && is_inner(graph, x, n, n + count) &&
                (node->output[1] < 0 || is_inner(graph, node->output[1], n, n + 1));
    return joins ? (struct few_group){FEW_PRODUCTS, count, norm, glu} : (struct few_group){.count = 1};
}

static struct few_group attention_at(const struct plan *plan, int n) {
    const struct graph *graph = plan->graph;
    const struct node *q = &graph->nodes[n], *k = q + 1, *attention = q + 2;
    bool is = n + 3 <= graph->node_count && q->op == OP_ROPE && k->op == OP_ROPE &&
              attention->op == OP_CACHE_ATTENTION && attention->input[0] == q->output[0] &&
              attention->input[1] == k->output[0] && q->input[1] == k->input[1] && !q->attributes.inverse &&
              !k->attributes.inverse && is_inner(graph, q->output[0], n, n + 3) &&
              is_inner(graph, k->output[0], n, n + 3) && is_apart(plan, n, n + 3);
    return is ? (struct few_group){FEW_ATTENTION, 3, false, false} : (struct few_group){.count = 1};
}

void few_groups_find(struct few_group *groups, const struct plan *plan) {
    for (int n = 0; n < plan->graph->node_count;) {
        struct few_group group = attention_at(plan, n);
        if (group.kind == FEW_ALONE) group = products_at(plan, n);
        groups[n] = group;
        for (int i = 1; i < group.count; i++) groups[n + i] = (struct few_group){.count = 1};
        n += group.count;
    }
}

/* ---- running them ---- */

static bool run_products(const struct few_group *group, int n, struct call (*call_of)(void *user, int node),
                         void *user) {
    int first = n + group->norm, products = group->count - group->norm - group->glu, done = 0;
    struct call calls[few_most], norm = {0}, glu = {0};
    for (int i = 0; i < products; i++) {
        calls[i] = call_of(user, first + i);
        if (!cuda_is_few(&calls[i])) return false;
    }
    if (group->norm) norm = call_of(user, n);
    if (group->glu) glu = call_of(user, n + group->count - 1);
    struct few_product launches[few_most];
    int count = 0;
    for (; done < products; count++) { /* as many as fit in each launch */
        struct few_product *f = &launches[count];
        for (int most = products - done; most > 0; most--) {
            *f = cuda_few_product(calls + done, most);
            if (group->norm) {
                f->x = array_of(&norm.in[0]);
                f->norm = array_of(&norm.in[1]);
                f->epsilon = norm.node->attributes.epsilon;
            }
            if (group->glu) f->gated = array_of(&glu.out[0]);
            if (cuda_few_serves(f)) break;
            f->parts = 0;
        }
        if (!f->parts || (group->glu && f->parts < products)) return false;
        done += f->parts;
    }
    int x = norm.node ? norm.node->input[0] : calls[0].node->input[0];
    *calls[0].few = x;
    for (int i = 0; i < count; i++) {
        launches[i].start = i || calls[0].few_before == x ? FEW_BESIDE : FEW_EARLY;
        cuda_few(&launches[i], calls[0].stream);
    }
    return true;
}

bool few_group_run(const struct few_group *group, int n, struct call (*call_of)(void *user, int node),
                   void *user) {
    if (group->kind == FEW_PRODUCTS) return run_products(group, n, call_of, user);
    const struct call q = call_of(user, n), k = call_of(user, n + 1);
    struct call attention = call_of(user, n + 2);
    bool served = cuda_attend_turned(&attention, &q, &k);
    if (served) *attention.few = -1;
    return served;
}
