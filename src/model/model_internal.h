/* Closed to other folders: the two ways in which a model's configuration and text are read. */
#ifndef HONE_MODEL_MODEL_INTERNAL_H
#define HONE_MODEL_MODEL_INTERNAL_H

#include "model/model.h"

/* Fill family, config and permuted. */
bool model_config_gguf(struct model *model, struct error *err);
bool model_config_hub(struct model *model, const json_t *config, struct error *err);
/* Bounds that keep every later product of sizes far from overflow. */
bool model_config_check(const struct model *model, struct error *err);
/* Fill tokenizer, stops and chat_template. */
bool model_text_gguf(struct model *model, struct error *err);
bool model_text_hub(struct model *model, struct error *err);

#endif
