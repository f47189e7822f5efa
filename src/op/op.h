/* Operations: what a model, its backward pass and its optimizer are made of.
 *
 * This folder knows shapes, derivatives, flops and a plain f64 reference of each operation. It knows no
 * model, no memory and no device. Adding an operation is: an op_code, a row in the table of its
 * file (listed in op.c), its reference; the finite-difference test makes itself from the row, and
 * devices may add faster kernels.
 *
 * Words: value (a block of numbers that a node reads or writes), node (one use of an operation), state
 * (values that outlive a program's run: weights, adapters, gradients, moments, caches), transient
 * (values that live in one run's arena), input (values bound anew at each run).
 *
 * Symbols: T tokens of the micro-batch, S segments, M targets (supervised tokens), D hidden, F feed-forward
 * width, H heads, K kv heads, d head width, V vocabulary, R rank. All activations are flat [T, width]. */
#ifndef HONE_OP_OP_H
#define HONE_OP_OP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "op/optimizer.h"
#include "op/scaling.h"
#include "tensor/dtype.h"

enum { op_max_inputs = 8, op_max_outputs = 4, op_max_rank = 4 };

enum op_code {
    OP_EMBEDDING,      /* table [V,D] any type, ids [T] → y [T,D] */
    OP_EMBEDDING_GRAD, /* dy [T,D], ids [T], state dw [V,D]: dw[ids[t]] += dy[t] */
    OP_LINEAR, /* x [T,in], w [out,in] any type, bias [out] or none, addend [T,out] or none, low [T,R] and up
                  [out,R] or neither → y = α x wᵀ + β low upᵀ + bias + addend */
    OP_LINEAR_GRAD_X, /* dy [T,out], w [out,in], addend [T,in] or none, low [T,R] and down [R,in] or neither
                         → dx = α dy w + β low down + addend */
    OP_LINEAR_GRAD_W, /* x [T,in], dy [T,out], state dw [out,in]: dw += α dyᵀ x */
    OP_BIAS_GRAD,     /* dy [T,out], state db [out]: db += Σ_t dy[t] */
    OP_NORM,          /* x [T,D], w [D] → y [T,D] = x · rstd · w, rstd [T];  rstd = (mean x² + ε)^-½ */
    OP_NORM_GRAD,     /* dy [T,D], x [T,D], w [D], rstd [T], addend [T,D] or none → dx [T,D] */
    OP_NORM_GRAD_W,   /* dy [T,D], x [T,D], rstd [T], state dw [D]: dw += Σ_t dy[t] · x[t] · rstd[t] */
    OP_ROPE_TABLE,    /* positions [T], frequencies [d/2] → table [T,d]: cos in [0,d/2), sin in [d/2,d) */
    OP_ROPE,          /* x [T,heads·d], table [T,d] → y: halves rotated; `inverse` turns back */
    OP_ATTENTION, /* q [T,H·d], k [T,K·d], v [T,K·d], segments [S+1] → y [T,H·d], lse [T,H]; causal inside a
                     segment */
    OP_ATTENTION_GRAD, /* q, k, v, y, lse, dy, segments → dq, dk, dv */
    OP_CACHE_ATTENTION, /* q, k, v, segments [S+1], slots [S], past [S], state ck, cv [slots,K,context,d] → y:
                           appends, then attends */
    OP_RESCALE,         /* z [T,out], m [out], n [out], bias [out] f32 or none, addend [T,out] or none → y =
                           z · m / n + bias + addend (dora.c) */
    OP_RESCALE_GRAD, /* dy [T,out], z [T,out], m [out], n [out], state dm [out] or none → dz = dy · m / n;
                        dm += Σ dy · z / n */
    OP_ROW_NORMS, /* w [out,in] any type, a [R,in], b [out,R], state n [out]: n = ‖w + α b a‖ of rows */
    OP_GLU,       /* gate [T,F], up [T,F] → y = silu(gate) · up */
    OP_GLU_GRAD,  /* gate, up, dy → dgate, dup */
    OP_ADD,       /* a, b → y = a + b */
    OP_COPY,    /* a, b or none → y = a: to where what is offloaded lies, and back; b is not read, but keeps
                   its place till then */
    OP_DROPOUT, /* x [T,n], positions [T], examples [T], random [4] → y = x kept / (1 - p); `inverse`: x less
                   that */
    OP_NOISE, /* x [T,D], positions [T], examples [T], random [4], segments [S+1] → y = x + u α / √(L D), u
                 uniform in [-1, 1), L tokens of the row's segment */
    OP_GATHER,    /* x [T,D], rows [M] → y [M,D] */
    OP_SCATTER,   /* dy [M,D], rows [M], like [T,D] (its count only) → dx [T,D], zero where no row points */
    OP_LIKELIEST, /* x [M,V] → ids [M] i32: the first of the largest of each row, NaN never being
                     larger; -1 where none is above -inf */
    OP_HEAD,      /* x [M,D], w [V,D], targets [M], low [M,R] and up [V,R] or neither → logp [M] =
                     log softmax(x wᵀ + β low upᵀ)[target] */
    OP_HEAD_GRAD, /* x [M,D], w [V,D], targets [M], dlogp [M], state dw [V,D] or none, low and up, state dup
                     [V,R] or none → logp [M], dx [M,D], dlow [M,R]; dw += dlᵀ x, dup += β dlᵀ low */
    OP_LOSS, /* logp [M], weights [M], state loss [1] f64, state scaling or none: loss += Σ weights · logp;
                its gradient is scaled */
    OP_GRADIENT_NORM, /* state gradients [P], state loss [1] f64 or none → norm [1] f32 = ‖gradients‖₂, not
                         finite when any entry or the loss is not */
    /* Updates: norm [1], hyper [groups, HYPER_COLUMNS], state step [1] i32, parameters [P], gradients [P],
       and their own state; attributes.parts. See optimizer.h, optimizer*.c */
    OP_ADAMW,     /* m [P], v [P] */
    OP_SGD,       /* momentum [P] or none */
    OP_LION,      /* m [P] */
    OP_ADAFACTOR, /* factors [optimizer_factors of all parts] */
    OP_ADAMW8BIT, /* codes u8 [optimizer_code_elements of all parts] or none, scales
                     [optimizer_scale_elements of all parts] */
    OP_MUON,      /* moments [optimizer_muon_elements of all parts] */
    OP_AVERAGE, /* norm [1], hyper, step [1] i32, parameters [P], state average [P]: after an update, a + (1 -
                   d) (p - a); p after the first one */
    OP_ZERO,    /* state [any] = 0 */
    /* Loss scaling (scaling.c): state scaling f32 [SCALING_COLUMNS] */
    OP_SCALE,        /* x [M], scaling → y = x · scale */
    OP_UNSCALE,      /* state x [P], scaling: x /= scale */
    OP_SCALE_UPDATE, /* norm [1], state scaling: the scale for the next step */
    OP_COUNT
};

/* What dim[0] of a value counts. dim[0] is the most that the plan allows; a run binds the actual count. */
enum count { COUNT_FIXED, COUNT_TOKENS, COUNT_TARGETS, COUNT_SEGMENTS, COUNT_SEGMENTS_AND_ONE, COUNT_KINDS };

enum value_kind { VALUE_TRANSIENT, VALUE_INPUT, VALUE_STATE };

/* What a caller binds at each run. */
enum input_name {
    INPUT_IDS,       /* i32 [T] token ids */
    INPUT_POSITIONS, /* i32 [T] position in its example, from 0 */
    INPUT_SEGMENTS,  /* i32 [S+1] where each segment begins; the last is T */
    INPUT_ROWS,      /* i32 [M] the row whose output predicts target m; ascending */
    INPUT_TARGETS,   /* i32 [M] token ids */
    INPUT_WEIGHTS,   /* f32 [M] dloss/dlogp: -1 / supervised tokens of the whole effective batch */
    INPUT_EXAMPLES,  /* u32 [T] index of the token's example in the data set, before shuffling */
    INPUT_RANDOM,    /* u32 [4] seed low, seed high, epoch, 0 */
    INPUT_HYPER,     /* f32 [groups, HYPER_COLUMNS] of optimizer.h, flat */
    INPUT_SLOTS,     /* i32 [S] which cache slot a segment uses */
    INPUT_PAST,      /* i32 [S] tokens already in that slot */
    INPUT_COUNT
};

struct value {
    enum value_kind kind;
    enum dtype dtype;
    enum count count;
    int rank;
    int64_t dim[op_max_rank];
    int padding;         /* elements behind each row that the device keeps for itself; set before the plan */
    int producer;        /* node that writes it; -1 for inputs and state */
    int which;           /* input: enum input_name; state: row of the state table */
    bool needs_gradient; /* a trained value is above it */
    int loop; /* is made and read in one loop of nodes alone: its place has room for the rows of a piece;
                 0: for all */
    bool offloaded; /* lies elsewhere (device_ops.offload) than in the arena or the store's memory; only
                       OP_COPY touches such a transient value */
    bool keep;      /* read from outside after the run: its place is never reused */
    char name[40];
};

struct attributes {
    float alpha;       /* linear, row_norms: factor of the product */
    float beta;        /* linear: factor of the product of low rank */
    float epsilon;     /* norm */
    float scale;       /* attention: factor of q·k; noise: α */
    float probability; /* dropout: p */
    int heads, kv_heads, head_dim;
    int module;                   /* dropout, noise: module number of model/method.h */
    bool inverse;                 /* rope, dropout */
    const struct op_parts *parts; /* updates: what the block is made of; outlives the graph */
    enum dtype compute; /* products: what operands are rounded to where activations are stored as f32 too */
    bool fp8;           /* products: with a weight that the device keeps in fp8 (state_row.fp8) */
    bool narrow;        /* products: the gradient of x is stored as bf16, not as f32 */
};

struct node {
    enum op_code op;
    int inputs, outputs;
    int input[op_max_inputs];   /* value ids; -1 where an optional input is absent */
    int output[op_max_outputs]; /* value ids; -1 where an output is not wanted */
    struct attributes attributes;
    int block; /* recompute unit (a layer); -1: none */
    int loop;  /* neighbours of one loop run together, for some rows at a time (graph/pieces.c); 0: for all
                  at once */
    bool backward; /* emitted by the backward pass */
};

/* A graph owns its values and nodes; nodes stand in an order in which they can run. */
struct graph {
    struct value *values;
    struct node *nodes;
    int value_count, value_capacity, node_count, node_capacity;
    int64_t piece_rows; /* the most rows of tokens that a loop takes at a time; 0: there are no loops */
    int block;          /* put into new nodes */
    bool backward;      /* put into new nodes */
    bool failed;        /* out of memory; sticks */
};

void graph_init(struct graph *graph);
void graph_release(struct graph *graph);

/* New values. Return the id, or -1 once `failed`. The name is for dumps and errors. */
int graph_input(struct graph *graph, enum input_name name, enum dtype dtype, enum count count, int64_t most);
int graph_state(struct graph *graph, int row, enum dtype dtype, int rank, const int64_t *dim,
                const char *name);
int graph_transient(struct graph *graph, enum dtype dtype, enum count count, int rank, const int64_t *dim,
                    const char *name);

/* Appends a node; its outputs are made by the row's shape rule with `dtype` (where an output has a free
 * dtype). Returns the node's index or -1. `inputs` has as many entries as the row says. */
int graph_emit(struct graph *graph, enum op_code op, const int *inputs, const struct attributes *attributes,
               enum dtype dtype, const char *name);
/* Rows (dim[0]) that a value has room for in its place. */
int64_t graph_room(const struct graph *graph, const struct value *value);
/* The value id of output `which` of the node emitted (or -1). */
int graph_output(const struct graph *graph, int node, int which);

/* The backward rule's view: the node, the gradient of each of its outputs (-1: none), and for each
 * input the gradient gathered so far (-1: none), which the rule replaces by one that has its own part
 * added. `state_gradient(user, value)` gives the state value that gathers a trained state's gradient. */
struct backward {
    struct graph *graph;
    int node; /* index; graph->nodes may move while emitting */
    int output_gradient[op_max_outputs];
    int *input_gradient[op_max_inputs];
    bool needed[op_max_inputs];
    int (*state_gradient)(void *user, int state_value);
    int (*replace)(void *user, int old_value, int new_value); /* later readers of old read new */
    void *user;
};

/* One operand of the reference: all numbers as f64, dims actual. */
struct reference_operand {
    double *data;
    int rank;
    int64_t dim[op_max_rank];
};
struct reference_call {
    const struct attributes *attributes;
    struct reference_operand
        in[op_max_inputs]; /* data NULL where absent; state operands are written in place */
    struct reference_operand out[op_max_outputs]; /* data NULL where not wanted */
};

struct op_row {
    const char *name;
    int inputs, outputs;      /* with optional ones */
    unsigned optional_inputs; /* bit i: input i may be -1 */
    bool cheap;               /* moves memory only: selective recomputation makes its outputs again */
    bool by_rows; /* a row of an output depends on that row of the inputs alone, and what is added to state is
                     a sum over rows: some rows may be done at a time */
    unsigned state_writes;         /* bit i: input i is state that the node updates in place */
    int overwrite[op_max_outputs]; /* input that output o may lie on (same size, last reader); -1: none */
    /* Fills outputs' count, rank and dims (and dtype where it is fixed; else `dtype` stays). */
    void (*shapes)(const struct graph *graph, const struct node *node, struct value *out, enum dtype dtype);
    void (*backward)(struct backward *b); /* NULL: no gradient flows */
    /* Floating-point operations for actual counts (NULL: the planned ones); NULL: none worth counting. */
    double (*flops)(const struct graph *graph, const struct node *node, const int64_t counts[COUNT_KINDS]);
    void (*reference)(const struct reference_call *call);
};

const struct op_row *op_row(enum op_code op);

/* What the row files share (op.c): helpers of shape and backward rules. */
int64_t op_count(const struct value *value,
                 const int64_t counts[COUNT_KINDS]); /* dim[0], actual or planned */
const struct value *op_input(const struct graph *graph, const struct node *node,
                             int index); /* NULL: absent */
/* Output like another value, or flat [count, width]. */
void op_shape_like(struct value *out, const struct value *like);
void op_shape_flat(struct value *out, const struct value *rows, int64_t width);
/* Adds `gradient` to what input `index` has gathered; does nothing when it needs none. */
void backward_give(struct backward *b, int index, int gradient);
/* The gradient of input `index`, a trained vector that is added to each row of output 0. */
void backward_bias(struct backward *b, int index);

/* The tables, one per file. */
extern const struct op_row op_linear_row, op_linear_grad_x_row, op_linear_grad_w_row, op_bias_grad_row;
extern const struct op_row op_norm_row, op_norm_grad_row, op_norm_grad_w_row;
extern const struct op_row op_rope_table_row, op_rope_row;
extern const struct op_row op_attention_row, op_attention_grad_row, op_cache_attention_row;
extern const struct op_row op_embedding_row, op_embedding_grad_row, op_add_row, op_copy_row, op_dropout_row,
    op_noise_row, op_gather_row, op_scatter_row, op_likeliest_row;
extern const struct op_row op_rescale_row, op_rescale_grad_row, op_row_norms_row;
extern const struct op_row op_glu_row, op_glu_grad_row;
extern const struct op_row op_head_row, op_head_grad_row, op_loss_row;
extern const struct op_row op_gradient_norm_row, op_adamw_row, op_sgd_row, op_lion_row, op_adafactor_row;
extern const struct op_row op_adamw8bit_row, op_muon_row, op_average_row, op_zero_row;
extern const struct op_row op_scale_row, op_unscale_row, op_scale_update_row;

#endif
