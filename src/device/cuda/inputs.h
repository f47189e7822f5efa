/* What a run binds, on its way to the GPU: copied to page-locked memory at once, so that the caller may go
 * on. A micro-batch goes from there to a landing place by a stream of its own, while the one before it is
 * computed, and at its turn to where the kernels read, which is always the same place. Other programs' inputs
 * are few: they go there at their turn.
 *
 * A micro-batch's tokens are rounded up, so that its launches are those of many others and can be recorded
 * (replay.h). A token past its count is its first token once more, in a segment of its own: the first one
 * sees itself alone too, so both are the same numbers (but for NEFTune's noise, which knows the length), and
 * as nothing is predicted from the copy, it adds exact zeros to every gradient. Targets are not rounded. */
#ifndef HONE_DEVICE_CUDA_INPUTS_H
#define HONE_DEVICE_CUDA_INPUTS_H

#include "device/cuda/cuda.h"

enum { input_slots = 2 }; /* runs whose inputs may be on their way */

/* The ranges of the tokens lie behind the inputs. */
enum range { RANGE_START, RANGE_END, RANGE_SEGMENT, RANGE_COUNT };

struct inputs {
    struct device *device;
    size_t offset[INPUT_COUNT + RANGE_COUNT], bytes[INPUT_COUNT + RANGE_COUNT]; /* bytes 0: not read */
    const struct value *values[INPUT_COUNT]; /* of the graph, which must outlive this */
    size_t total;
    int64_t tokens; /* that were planned for */
    bool rounds;
    unsigned char *data; /* on the device */
    cudaStream_t stream; /* of the copies to landing places; NULL: there are none */
    struct input_slot {
        unsigned char *staging, *landing; /* page-locked; on the device */
        cudaEvent_t sent, taken;          /* staging, landing can be written again */
    } slots[input_slots];
    unsigned runs;
};

bool inputs_open(struct inputs *out, struct device *device, const struct graph *graph, struct error *err);
void inputs_close(struct inputs *inputs);

/* The most tokens that the graph is planned for; 0 where its runs' tokens are not rounded. */
int64_t cuda_rounded_tokens(const struct graph *graph);
/* Tokens rounded up the ladder: a function of their number alone, but never above `most`. */
int64_t cuda_rung(int64_t tokens, int64_t most);
/* The binding with the counts that its run has here. */
struct binding inputs_rounded(const struct inputs *inputs, const struct binding *binding);
/* Queues the copies of a run that has `tokens` tokens here. */
bool inputs_copy(struct inputs *inputs, const struct binding *binding, int64_t tokens, struct error *err);
void *inputs_at(const struct inputs *inputs, int input);
struct ranges inputs_ranges(const struct inputs *inputs);

#endif
