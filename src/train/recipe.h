/* The recipe: every setting of a run, who chose it and why. recipe.yaml in a run's directory is this struct
 * written down; the same recipe, build and device model give the same bits.
 *
 * Knows names, bounds and files of settings; knows no model and no device. What needs them (learning rate
 * from the hidden size, micro-batch from memory) is left `auto` here and resolved by the trainer through
 * recipe_resolve, which keeps the reason.
 *
 * Words: given (flag, YAML key or API), resolved (decided by rule), facts (rows that no one sets: digests).
 */
#ifndef HONE_TRAIN_RECIPE_H
#define HONE_TRAIN_RECIPE_H

#include "base/settings.h"
#include "tensor/dtype.h"

/* Commands that take a row; `uses` of the table. */
enum recipe_use {
    USE_TRAIN = 1 << 0,
    USE_PLAN = 1 << 1,
    USE_EVAL = 1 << 2,
    USE_GENERATE = 1 << 3,
    USE_CHAT = 1 << 4,
    USE_CHECK = 1 << 5,   /* data check */
    USE_STATS = 1 << 6,   /* data stats */
    USE_PREVIEW = 1 << 7, /* data preview */
    USE_DOCTOR = 1 << 8,
    USE_PULL = 1 << 9,
    USE_SETTINGS = 1 << 10,
    USE_BENCH = 1 << 11,
    USE_CONVERT = 1 << 12,
    USE_REPORT = 1 << 13,
    USE_FACT = 1 << 20,   /* stands in recipe.yaml alone */
    USE_INVOKE = 1 << 21, /* says how this process runs; not written to recipe.yaml */
    USE_RUN = USE_TRAIN | USE_PLAN,
    USE_DATA = USE_CHECK | USE_STATS | USE_PREVIEW,
    USE_EVERY = (1 << 14) - 1,
};

enum schedule {
    SCHEDULE_CONSTANT,
    SCHEDULE_LINEAR,
    SCHEDULE_COSINE,
    SCHEDULE_COSINE_RESTARTS,
    SCHEDULE_WSD,
    SCHEDULE_INVERSE_SQRT
};
enum wsd_shape { WSD_ONE_MINUS_ROOT, WSD_LINEAR, WSD_COSINE };
enum compute { COMPUTE_AUTO, COMPUTE_F32, COMPUTE_BF16, COMPUTE_F16, COMPUTE_FP8, COMPUTE_TF32 };
enum nan_policy { NAN_STOP, NAN_SKIP, NAN_ROLLBACK };
enum recompute { RECOMPUTE_AUTO, RECOMPUTE_NONE, RECOMPUTE_SELECTIVE, RECOMPUTE_BLOCK, RECOMPUTE_OFFLOAD };
enum recipe_tuning { TUNING_LORA, TUNING_QLORA, TUNING_DORA, TUNING_FULL };
enum frozen_weights { FROZEN_AUTO, FROZEN_STORED, FROZEN_DECODED };

enum { recipe_row_limit = 128 };

struct recipe {
    /* model and data */
    char *model;   /* store name or path */
    char *adapter; /* PEFT directory to start from, or NULL */
    struct text_list data;
    struct text_list valid;
    double valid_split; /* 0: none */
    char *columns;
    bool skip_bad_rows;
    char *output; /* the run's directory */
    bool resume;
    char *recipe; /* YAML that was read, or NULL */

    /* text */
    int64_t max_length;             /* tokens; 0: auto */
    int overlength;                 /* enum overlength, text/example.h */
    int train_on;                   /* enum train_on, text/example.h */
    char *chat_template;            /* file or name; NULL: the model's own */
    struct text_list template_args; /* "K=V" */
    char *system;

    /* what is trained */
    int method;              /* enum recipe_tuning */
    struct text_list freeze; /* full: patterns of weights that are not (model/method.h) */

    /* adapter */
    char *base_type; /* "as-stored" or a quantised type's name; NULL: auto (model/base_type.h) */
    int64_t lora_rank;
    double lora_alpha; /* 0: auto, = rank */
    double lora_dropout;
    double neftune_alpha;          /* 0: no noise */
    struct text_list lora_targets; /* "all-linear", or patterns of modules (model/method.h) */
    struct text_list lora_rank_pattern, lora_alpha_pattern; /* "PATTERN=NUMBER" */
    int64_t lora_layers;                                    /* the last so many; 0: all */
    bool lora_rslora;
    int lora_init; /* enum method_init, model/method.h */
    int64_t lora_init_steps;
    struct text_list modules_to_save;

    /* optimizer */
    double learning_rate;                                         /* 0: auto */
    struct text_list learning_rate_pattern, weight_decay_pattern; /* "PATTERN=NUMBER" */
    double loraplus_ratio;                                        /* B's rate in A's */
    double ema_decay;                                             /* 0: no average is kept */
    int schedule;                                                 /* enum schedule */
    double min_learning_rate_ratio;                               /* what the rate falls to, in its peak */
    int64_t cosine_cycles;                                        /* cosine-restarts */
    double wsd_decay_ratio;                                       /* share of all steps */
    int wsd_shape;                                                /* enum wsd_shape */
    double warmup_ratio, weight_decay, max_grad_norm;             /* max_grad_norm 0: no clipping */
    int nan_policy;                                               /* enum nan_policy */
    int optimizer;                                                /* enum optimizer_kind, model/optimizer.h */
    double adam_beta1, adam_beta2, adam_epsilon;
    double lion_beta1, lion_beta2;
    double momentum, dampening; /* sgd */
    bool nesterov;
    double adafactor_decay_rate, adafactor_clip;
    bool adafactor_scale;
    double muon_momentum;
    bool muon_nesterov;
    int muon_adjust; /* enum muon_adjust, op/optimizer.h */
    int64_t muon_ns_steps;
    int64_t batch_size; /* examples per optimizer step */
    int64_t epochs;
    int64_t max_steps; /* 0: no bound */
    bool shuffle;
    int64_t seed;

    /* machine */
    int64_t threads;          /* 0: auto */
    char *device;             /* "auto", "cuda:1", "cuda:0,1" */
    int64_t world_size, rank; /* processes that share the run, and which of them this is */
    struct text_list mask;    /* instruction sets to leave unused */
    int compute;              /* enum compute */
    int recompute;            /* enum recompute */
    int64_t recompute_layers; /* 0: auto */
    bool offload_optimizer;
    int frozen_weights;         /* enum frozen_weights */
    int64_t recompute_span;     /* 0: auto */
    int64_t micro_batch_tokens; /* 0: auto */
    int64_t piece_rows;         /* 0: auto or all, as its origin says */
    uint64_t memory;            /* bytes; 0: no bound */
    uint64_t memory_reserve;    /* bytes; 0: auto or off, as its origin says (train/watch.c) */

    /* measuring and saving */
    int64_t eval_every, save_every; /* steps; 0: auto */
    int64_t early_stopping;         /* evaluations without improvement; 0: off */
    double early_stopping_threshold;
    int64_t keep;  /* last checkpoints kept, besides the best */
    int64_t trace; /* steps of this process; 0: none */

    /* facts, set by the trainer before step 1 */
    char *model_digest, *adapter_digest, *data_digest, *valid_digest, *template_digest;
    double template_clock; /* Unix seconds that templates see */
    char *instruction_set; /* "avx2", … that the device chose */
    char *made_by;         /* "hone 0.1.0" */

    struct setting_state states[recipe_row_limit]; /* in the order of recipe_rows */
};

extern const struct setting recipe_rows[];
extern const size_t recipe_row_count;

/* Defaults. recipe_release frees what the struct holds; both may be called again. */
bool recipe_init(struct recipe *recipe, struct error *err);
void recipe_release(struct recipe *recipe);
struct settings recipe_settings(struct recipe *recipe);

/* Sets by name, as a flag would (`value` NULL for a flag that stands alone). */
bool recipe_set(struct recipe *recipe, unsigned uses, const char *name, const char *value, struct error *err);
/* Decides a value by rule; facts too. `reason` is shown before the run and kept as a comment in recipe.yaml.
 */
bool recipe_resolve(struct recipe *recipe, const char *name, const char *value, const char *reason,
                    struct error *err);
bool recipe_resolve_int(struct recipe *recipe, const char *name, int64_t value, const char *reason,
                        struct error *err);
bool recipe_resolve_float(struct recipe *recipe, const char *name, double value, const char *reason,
                          struct error *err);
enum setting_origin recipe_origin(struct recipe *recipe, const char *name); /* by row name, "lora-rank" */

/* What `compute` names; f32 where it is left to be decided. */
enum dtype recipe_compute(const struct recipe *recipe);
/* "auto", "cpu", "ref". */
const char *recipe_device_name(const struct recipe *recipe);
/* The device of this process, "cuda:1", from a list as "cuda:0,1"; of a plan, the first one's. */
bool recipe_own_device(const struct recipe *recipe, bool planning, char out[48], struct error *err);
/* How many processes share the run: as told, or as many as devices are named. */
int recipe_ranks(const struct recipe *recipe);
/* The most examples of a step that are one of them's, where all are as long. */
int64_t recipe_own_batch(const struct recipe *recipe);
/* The mask as struct device_options wants it, "avx512,avx512bf16"; from mem_alloc, or NULL when nothing is
 * masked. */
bool recipe_mask(const struct recipe *recipe, char **out, struct error *err);

/* Reads a YAML file: its keys count as given, except for rows that were given before. Bounded: 1 MiB, depth
 * 64, no more than 1,000 nodes reached through aliases. Unknown keys are refused with the nearest name. */
bool recipe_read(struct recipe *recipe, const char *path, struct error *err);
bool recipe_read_text(struct recipe *recipe, const char *text, size_t size, const char *name,
                      struct error *err);
/* Every value, resolved ones with their reason. Reads back to the same bits. */
bool recipe_write_text(struct recipe *recipe, struct buf *out, struct error *err);
bool recipe_write(struct recipe *recipe, const char *path, struct error *err);
/* Refuses what could be written but not be read again: lists of too many values, or a file beyond the bounds.
 * recipe_write does too. */
bool recipe_fits(struct recipe *recipe, struct error *err);

/* Conflicts between settings. Errors: ERROR_USAGE. `uses`: USE_TRAIN or USE_PLAN. */
bool recipe_check(struct recipe *recipe, unsigned uses, struct error *err);

/* For --resume: takes from `stored` every value that was not given anew. A given value that would change
 * the result is refused by its name; one that changes rounding is appended to *changed
 * ("threads 2 → 4"), a JSON array of strings. Facts are left for recipe_same_facts. */
bool recipe_continue(struct recipe *recipe, const struct recipe *stored, json_t *changed, struct error *err);
/* Compares facts that the trainer has resolved anew (digests) with those of the run. Refuses by name;
 * another instruction set is appended to *changed. */
bool recipe_same_facts(struct recipe *recipe, const struct recipe *stored, json_t *changed,
                       struct error *err);

/* Every setting as a JSON object: name → {"value","origin","reason"}, for whoever shows the run. NULL when
 * out of memory. */
json_t *recipe_describe(struct recipe *recipe);

/* 5e-4 · (2000 / hidden)^0.781, for qwen architectures ^0.0775, clamped to [2e-5, 2e-3]: the rate at which
 * LoRA with alpha = rank learned best over models of many widths (Thinking Machines, "LoRA Without Regret",
 * 2025, tinker-cookbook hyperparam_utils). */
double recipe_default_learning_rate(int64_t hidden, const char *architecture);

#endif
