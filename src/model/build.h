/* From a model and a method to state and graphs: the one place where the forward pass is written. */
#ifndef HONE_MODEL_BUILD_H
#define HONE_MODEL_BUILD_H

#include "base/thread.h"
#include "graph/graph.h"
#include "graph/state.h"
#include "model/groups.h"
#include "model/method.h"
#include "model/optimizer.h"

/* What a part of the trained block is. Those of a module come first: A [rank, in], B [out, rank], and with
 * DoRA the lengths [out] of the adapted weight's rows. Then weights that are trained whole, in Hugging Face's
 * order of rows. */
enum part_kind { PART_LORA_A, PART_LORA_B, PART_MAGNITUDE, PART_WEIGHT, PART_KINDS };

/* One trained tensor. All of them lie side by side in one block, their gradients in another of the same
 * layout: where, and how it is called, says the entry of `parts` with the same number. */
struct trained_part {
    enum part_kind kind;
    size_t of;         /* the module, as method->parts; PART_WEIGHT: as model->weights */
    int rank;          /* 1: a vector */
    int row, gradient; /* of the state table; gradient is -1 unless training */
};

/* Where an adapter began, when that is taken from the base (method_is_subtracted): rows of A0 [rank, in] and
 * B0 [out, rank]; -1: there are none. */
struct start_pair {
    int a, b;
};

/* Rows of the state table by what they are. */
struct model_state {
    struct state_table table;
    const struct model *model;
    struct method method; /* a copy */
    int *weights;         /* as model->weights; -1: absent */
    int frequencies;
    int trained, gradient; /* the contiguous blocks; -1 where there are none */
    int average;           /* the block of the moving average, its parts' rows behind it as behind `trained`;
                              -1: none is kept */
    struct op_parts parts; /* of the blocks */
    struct group *groups;  /* [parts.groups] when training */
    struct trained_part *list; /* [parts.count] */
    int *first; /* [modules + 1]: a module's parts are list[first[m]] to list[first[m + 1] - 1] */
    int *norms; /* [modules] with DoRA: norms [out] of the rows of W + s B A, GRAPH_DERIVE's; -1: none */
    int *average_norms;        /* [modules] those of the moving average, GRAPH_DERIVE_AVERAGE's; -1: none */
    struct start_pair *starts; /* [modules] */
    int moments[optimizer_most_states]; /* the optimizer's, as its row names them; -1: none */
    struct optimizer optimizer;
    int scaling;            /* of the loss, op/scaling.h, when training in f16; -1: none */
    int step, loss;         /* i32 [1] optimizer steps taken; f64 [1] loss summed since it was zeroed */
    int *cache_k, *cache_v; /* [layers] when inferring */
    enum dtype compute;
    bool decoded;    /* linears are kept decoded in the compute type */
    bool fp8;        /* frozen linears of layers are kept in fp8 */
    enum dtype base; /* as in state_options */
    bool offload_optimizer;
};

struct state_options {
    enum dtype compute; /* f32, bf16 or f16 */
    bool decoded;       /* keep decoded copies of quantised linears */
    bool fp8;           /* keep frozen linears of layers in fp8, where that is possible (state_row.fp8) */
    enum dtype base; /* a quantised type: what float linears of layers become; else they stay as they are */
    bool train;      /* gradients and the optimizer's state too */
    struct optimizer optimizer;
    bool offload_optimizer;           /* its state lies in a file */
    const struct group_rules *groups; /* when training; NULL: one group, as the run's numbers say */
    bool average;                     /* keep a moving average of the trained values */
    int64_t slots, context;           /* > 0: a cache of this many sequences and tokens each */
    enum dtype cache;                 /* what it holds keys and values in: f32, bf16 or f16 */
};

/* The method may be all zero: the plain model. Model must outlive the state. */
bool model_state_build(struct model_state *out, const struct model *model, const struct method *method,
                       const struct state_options *options, struct error *err);
void model_state_release(struct model_state *state);
/* The row of the average of a trained row; the row itself when no average is kept. */
int model_state_average(const struct model_state *state, int row);
/* A module's part of this kind; NULL: it has none. `module`: as method->parts. */
const struct trained_part *model_state_part(const struct model_state *state, size_t module,
                                            enum part_kind kind);
/* What a weight's numbers are rounded to before anything reads them; its stored type: not at all. */
enum dtype model_state_base(const struct model_state *state, size_t index);
/* The bytes of a row of class STATE_WEIGHT that is no part of another (frequencies; quantised, decoded,
 * un-permuted or widened copies) or of a weight that is trained, as many as the row says. */
bool model_state_make(const struct model_state *state, int row, void *out, struct pool *pool,
                      struct error *err);

/* A weight's numbers rounded to `base` (its stored type: not at all), as `dtype`: a float, or one of the two;
 * rows in Hugging Face's order. `pool` may be NULL. */
bool model_weight_make(const struct model *model, size_t index, enum dtype base, enum dtype dtype, void *out,
                       struct pool *pool, struct error *err);

enum graph_kind {
    GRAPH_TRAIN,          /* loss and gradients of a micro-batch, added to state */
    GRAPH_SCORE,          /* log-probability of each target */
    GRAPH_INFER,          /* logits of chosen rows, with the cache */
    GRAPH_UPDATE,         /* norm, clip, optimizer, zero; then what GRAPH_DERIVE computes */
    GRAPH_DERIVE,         /* state that follows from what is trained: DoRA's row norms. May be empty */
    GRAPH_DERIVE_AVERAGE, /* the same of the moving average, for GRAPH_SCORE */
};

struct graph_sizes {
    int64_t tokens, targets, segments; /* the most of one run */
    enum graph_keep keep;              /* what of the forward pass is kept for the backward one (train) */
    int layers;         /* of the first so many layers, the rest as GRAPH_KEEP_COSTLY does; 0: of all */
    int span;           /* layers that are computed again together (graph_recompute); 0: one */
    int64_t piece_rows; /* the most rows that operations between attentions take at a time (graph_cut); 0: all
                           (train, score) */
    bool narrow;        /* with bf16: gradients between operations are stored in it too, but for the residual
                           stream's */
};

enum { built_state_norms = 1 + optimizer_most_states };

struct built_graph {
    struct graph graph;
    int logp;      /* score: value to read, [M] */
    int logits;    /* infer: [M, V] f32 */
    int likeliest; /* infer: [M] i32, the token of each row's largest logit */
    int norm;      /* update: gradient norm [1] */
    /* update: norms [1] of what is trained and of the optimizer's state, after it; -1: there is none */
    int state_norms[built_state_norms];
};

bool model_graph_build(struct built_graph *out, const struct model_state *state, enum graph_kind kind,
                       const struct graph_sizes *sizes, struct error *err);

#endif
