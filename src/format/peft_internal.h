/* Inside the PEFT format: the configuration file, apart from the tensors. */
#ifndef HONE_FORMAT_PEFT_INTERNAL_H
#define HONE_FORMAT_PEFT_INTERNAL_H

#include "base/arena.h"
#include "format/peft.h"

/* Reads everything but the targets, which are left to the tensors.
 * `path` stands in messages. Refuses by name what changes the meaning of the adapter. */
bool peft_read_config(struct peft_config *out, const json_t *json, const char *path, struct arena *arena,
                      struct error *err);

/* adapter_config.json and README.md into a directory. */
bool peft_write_config(const char *directory, const struct peft_config *config, struct error *err);
bool peft_write_card(const char *directory, const struct peft_config *config, const json_t *card,
                     struct error *err);

/* Where a path would give away a machine, only its last part is published. */
const char *peft_published(const char *text);

#endif
