/* A model directory as Hugging Face hubs lay it out: config.json, model.safetensors or shards listed by
 * model.safetensors.index.json, tokenizer.json, tokenizer_config.json, chat_template.jinja,
 * generation_config.json. Executable formats (.bin, .pt, .pkl) are refused by name. Shard names
 * must be plain file names. */
#ifndef HONE_FORMAT_HUB_H
#define HONE_FORMAT_HUB_H

#include "base/error.h"
#include "base/json.h"
#include "tensor/tensor.h"

struct hub;

bool hub_open(struct hub **out, const char *directory, struct error *err);
void hub_close(struct hub **hub);
const json_t *hub_config(const struct hub *hub);            /* never NULL */
const json_t *hub_generation_config(const struct hub *hub); /* may be NULL */
size_t hub_tensor_count(const struct hub *hub);
const struct tensor *hub_tensor(const struct hub *hub, size_t index);
const struct tensor *hub_find_tensor(const struct hub *hub, const char *name);
/* A weight as the model means it: what is stored in several tensors (bitsandbytes' nf4 and int8, MLX's types)
 * is put together, with the shape of the matrix; lives as long as the handle. Errors: ERROR_INPUT naming the
 * tensor whose parts do not fit, or the type that is not read. */
bool hub_find_weight(struct hub *hub, const char *name, struct tensor *out, bool *found, struct error *err);
uint64_t hub_file_bytes(const struct hub *hub); /* of all mapped weight files */
/* Texts; NULL when the file is absent or empty. Owned by the handle, in the mapped file: not NUL-terminated,
 * save the template, and not checked to be UTF-8. The template: chat_template.jinja, else
 * the string "chat_template" (or the entry named "default") of tokenizer_config.json. */
const char *hub_tokenizer_json(const struct hub *hub, size_t *size);
const char *hub_tokenizer_config(const struct hub *hub, size_t *size);
const char *hub_chat_template(const struct hub *hub, size_t *size);

#endif
