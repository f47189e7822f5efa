/* What is alive at each operation of a step: a micro-batch (forward and backward), then the update. What lies
 * in the store lives throughout and stands in the plan as a number. */
#include "train/run_profile.h"

enum { sampled_points = 120 };

struct point {
    int position; /* operations before it */
    const struct engine_program *program;
    int node;
};

static uint64_t bytes_at(const struct point *p) {
    return p->program->plan.live[p->node] + p->program->plan.workspace[p->node];
}

static struct point point_at(const struct run_programs *programs, int position) {
    int train = programs->train.built.graph.node_count;
    return position < train ? (struct point){position, &programs->train, position}
                            : (struct point){position, &programs->update, position - train};
}

/* The fullest operation of [first, end). */
static struct point fullest(const struct run_programs *programs, int first, int end) {
    struct point best = point_at(programs, first);
    for (int i = first + 1; i < end; i++) {
        struct point other = point_at(programs, i);
        if (bytes_at(&other) > bytes_at(&best)) best = other;
    }
    return best;
}

static int backward_from(const struct graph *graph) {
    int n = 0;
    while (n < graph->node_count && !graph->nodes[n].backward) n++;
    return n;
}

/* The columns; each json_t is NULL once it has failed. */
struct columns {
    json_t *position, *activation, *workspace, *operation, *layer;
};

static void add_point(struct columns *out, const struct point *p, bool named) {
    const struct node *node = &p->program->built.graph.nodes[p->node];
    json_list_add(&out->position, json_integer(p->position));
    json_list_add(&out->activation, json_integer((json_int_t)p->program->plan.live[p->node]));
    json_list_add(&out->workspace, json_integer((json_int_t)p->program->plan.workspace[p->node]));
    if (!named) return;
    json_list_add(&out->operation, json_string(op_row(node->op)->name));
    json_list_add(&out->layer, json_integer(node->block));
}

json_t *run_profile(const struct run_programs *programs, bool every) {
    int train = programs->train.built.graph.node_count,
        count = train + programs->update.built.graph.node_count;
    int points = every || count < sampled_points ? count : sampled_points;
    struct columns out = {json_array(), json_array(), json_array(), json_array(), json_array()};
    for (int i = 0; i < points; i++) {
        int first = (int)((int64_t)count * i / points), end = (int)((int64_t)count * (i + 1) / points);
        struct point p = fullest(programs, first, end);
        add_point(&out, &p, every);
    }
    json_t *profile =
        json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "operations", count, "backward_from",
                  backward_from(&programs->train.built.graph), "update_from", train, "position", out.position,
                  "activation_bytes", out.activation, "workspace_bytes", out.workspace);
    if (every) {
        json_object_put(&profile, "operation", out.operation);
        json_object_put(&profile, "layer", out.layer);
    } else {
        json_decref(out.operation);
        json_decref(out.layer);
    }
    return profile;
}
