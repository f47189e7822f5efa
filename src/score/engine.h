/* A model on a device: state, store and programs. What training, evaluation and inference share.
 *
 * Knows models and devices; knows no loop. Order of use: engine_open; program_plan for each graph (figures
 * only, nothing is allocated); engine_start (allocates store and arena, fills weights); program_compile;
 * adapter in and out. */
#ifndef HONE_SCORE_ENGINE_H
#define HONE_SCORE_ENGINE_H

#include "device/device.h"
#include "format/peft.h"
#include "model/build.h"

/* How the weights came to the device, in the last engine_start: those that are read where their file is
 * mapped, copied to a device with memory of its own; and those that the host made of them. */
struct engine_load {
    uint64_t copied_bytes, made_bytes;
    double copied_seconds, made_seconds;
    double done; /* on the clock of clock_seconds */
};

struct engine {
    const struct device_ops *ops;
    struct device *device;     /* borrowed */
    const struct model *model; /* borrowed */
    struct model_state state;
    struct store *store;
    struct engine_load load;
    void (*held)(void *user); /* called while the whole of an adapter that is written is held; may be NULL */
    void *held_user;
};

struct engine_program {
    struct built_graph built;
    struct plan plan;
    struct program *program;
};

bool engine_open(struct engine *out, const struct device_ops *ops, struct device *device,
                 const struct model *model, const struct method *method, const struct state_options *options,
                 struct error *err);
void engine_close(struct engine *engine);

/* What `--compute auto` means: bf16 where the device says that it multiplies it faster than f32, elsewhere
 * f32. A property of the processor and not of a measurement, so that the same command makes the same run on a
 * busy machine. */
bool engine_auto_compute(const struct device_ops *ops, struct device *device, enum dtype *out,
                         struct error *err);

/* Graph and plan; every operation is checked against the device. */
bool program_plan(struct engine_program *out, const struct engine *engine, enum graph_kind kind,
                  const struct graph_sizes *sizes, struct error *err);
/* Arena and workspace of the plan. */
uint64_t program_bytes(const struct engine_program *program);
/* Floating-point operations of one run with these counts. */
double program_flops(const struct engine_program *program, const int64_t counts[COUNT_KINDS]);
/* The same in flops that products do in that time: attention's count for more where the device is slower at
 * it. */
double program_work(const struct engine_program *program, const struct device_ops *ops,
                    const int64_t counts[COUNT_KINDS]);
/* The store, filled, and an arena of at least `arena` bytes. */
bool engine_start(struct engine *engine, uint64_t arena, struct error *err);
/* A row of state (no mapped one) that the host works on: where it lies, if the device's memory is the host's,
 * else a copy. Opened with what stands there (`read`) or for something new; `put` gives back what was
 * written. Release takes one that did not open. */
struct engine_row {
    const struct engine *engine;
    int row;
    void *data;
    size_t bytes;
    bool copied;
};
bool engine_row_open(struct engine_row *out, const struct engine *engine, int row, bool read,
                     struct error *err);
bool engine_row_put(const struct engine_row *row, struct error *err);
void engine_row_release(struct engine_row *row);
/* Zeros in a row of state; in all that is trained, its gradients and the optimizer's state. */
bool engine_clear(struct engine *engine, int row, struct error *err);
bool engine_reset(struct engine *engine, struct error *err);
/* The loss is scaled as at the start of a run, where it is at all; its scale, or 1. */
bool engine_init_scaling(struct engine *engine, struct error *err);
bool engine_loss_scale(const struct engine *engine, float *out, struct error *err);
bool program_compile(struct engine_program *program, struct engine *engine, struct error *err);
void program_release(struct engine_program *program, const struct engine *engine);

/* What a PEFT adapter asks for: modules and ranks from its tensors, alphas from its configuration, dropout 0.
 * To be released. Refuses an adapter whose modules or shapes are not this model's. */
bool engine_method_of(const struct peft *peft, const struct model *model, struct method *out,
                      struct error *err);
/* The base type by its name as a setting (NULL: the adapter's, else as stored); `adapter` may be NULL. */
bool engine_base_of(const struct peft *adapter, const char *name, const struct model *model, enum dtype *out,
                    struct error *err);
/* Whether the adapter says that it was trained on other weights than this model's, as hone's adapters can,
 * with a sentence for the user. That is no error: the weights may be the same ones, stored in another type.
 */
enum { engine_sentence = 240 };
bool engine_other_base(const struct peft *adapter, const struct model *model, char out[engine_sentence]);
/* Puts the adapter's numbers into the store, and computes what follows from them (GRAPH_DERIVE); writes the
 * store's into a directory. */
bool engine_load_adapter(struct engine *engine, const struct peft *peft, struct error *err);
/* Where training begins: PEFT's initial adapter for `seed`, or the one that its method makes of the weights
 * (model/method_init.h), and the model's weights as f32 where they are
 * trained whole. */
bool engine_init_trained(struct engine *engine, uint64_t seed, struct error *err);
/* `average`: the moving average's numbers where one is kept, which is what the run's result is. */
bool engine_save_adapter(struct engine *engine, const char *directory, bool average, const char *base_model,
                         const json_t *card, struct error *err);
/* The most that engine_save_adapter copies of what is trained. */
uint64_t engine_save_copies(const struct engine *engine);
/* The moving average, if one is kept, begins at the trained values. */
bool engine_init_average(struct engine *engine, struct error *err);
/* Computes what follows from the moving average (GRAPH_DERIVE_AVERAGE); before it is measured, as updates
 * leave that out. */
bool engine_derive_average(struct engine *engine, struct error *err);

/* The model whose weights are trained, into a directory that is not there yet, in the container of the one
 * that it began as. `masters`: trained weights as f32, from which engine_load_model restores every bit; else
 * in the type that they were stored in, quantised ones as bf16, and their moving average where one is kept.
 */
bool engine_save_model(struct engine *engine, const char *directory, bool masters, struct error *err);
bool engine_load_model(struct engine *engine, const char *directory, struct error *err);

#endif
