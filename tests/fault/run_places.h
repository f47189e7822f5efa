/* A whole training run, through the public API, in which the k-th request for memory or the k-th system call
 * on a file fails, alone or with all that follow. The run then ends with an error that says so, or does
 * without; either way what it leaves goes on, undisturbed, to the same bits. Leaks and wild accesses are
 * found by the sanitizer build. jansson's requests are counted too. */
#ifndef TESTS_FAULT_RUN_PLACES_H
#define TESTS_FAULT_RUN_PLACES_H

#include "fault/places.h"
#include "fault/scene.h"

/* What the runs have in common, and what is left of one of an adapter. */
#define RUN_STEPS                                                                          \
    {"valid-split", "0.25"}, {"batch-size", "1"}, {"max-steps", "3"}, {"save-every", "1"}, \
        {"eval-every", "2"}, {"threads", "1"}, {"compute", "f32"}, {                       \
        "resume", NULL                                                                     \
    } /* or starts */

#define RUN_ADAPTER                                                                                   \
    {                                                                                                 \
        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter/README.md",      \
            "adapter/tokenizer.json", "adapter/tokenizer_config.json", "adapter/chat_template.jinja", \
            "checkpoints/step-00000003/optimizer.safetensors",                                        \
            "checkpoints/step-00000003/adapter/adapter_model.safetensors"                             \
    }

/* `begun`: it goes on from a checkpoint. */
void run_places_fail(const struct scene_run *run, const char *device, const struct fault_kind *kind,
                     bool begun, struct place_share share);

#endif
