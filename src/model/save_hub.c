/* A directory as Hugging Face lays it out, which MLX reads too: config.json, the tokenizer's files, one file
 * of weights or several with an index. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/safetensors.h"
#include "model/layout.h"
#include "model/rope.h"
#include "model/save_internal.h"
#include "tensor/rowcodec.h"

enum { usual_shard = 5, largest_text = 64 << 20 };

/* ---- config.json ---- */

/* The shortest decimal that rounds to the same f32, since that is what a GGUF holds: 1e-05, not
 * 9.99999974737875e-06. */
static json_t *short_real(double value) {
    char text[32];
    for (int digits = 1; digits < 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if ((float)strtod(text, NULL) == (float)value) break;
    }
    return json_real(strtod(text, NULL));
}

static json_t *rope_json(const struct model_config *c) {
    if (c->rope_scaling == ROPE_LINEAR)
        return json_pack("{s:s, s:o}", "rope_type", "linear", "factor", short_real(c->rope_factor));
    if (c->rope_scaling == ROPE_LLAMA3)
        return json_pack("{s:s, s:o, s:o, s:o, s:I}", "rope_type", "llama3", "factor",
                         short_real(c->rope_factor), "low_freq_factor", short_real(c->rope_low),
                         "high_freq_factor", short_real(c->rope_high), "original_max_position_embeddings",
                         (json_int_t)c->rope_original);
    return json_null();
}

/* Divisors that the file holds become the parameters that they were made from. */
static bool resolve_scaling(const struct model *model, struct model_config *c, struct error *err) {
    const struct tensor *factors = model_weight(model, WEIGHT_ROPE_FACTORS, 0);
    *c = model->config;
    if (!factors) return true;
    float *numbers = mem_array((size_t)c->head_dim / 2, sizeof *numbers);
    if (!numbers) return error_no_memory(err, "model", (uint64_t)c->head_dim * sizeof *numbers);
    rowcodec(factors->dtype)->decode(factors->data, numbers, c->head_dim / 2);
    bool ok = rope_scaling_from(c, numbers);
    mem_free(numbers);
    if (ok) return true;
    error_set(err, ERROR_INPUT, "model", "%s: the tensor %s is of no rope scaling that config.json can name",
              model->path, factors->name);
    return error_fix(err, "Llama 3's and linear scaling are known; write the model as gguf.");
}

static bool make_config(const struct model *model, json_t **out, struct error *err) {
    struct model_config c;
    if (!resolve_scaling(model, &c, err)) return false;
    json_t *config = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:o, s:o, s:o}", "architectures",
        model->family->hub_class, "model_type", model->family->architecture, "hidden_size",
        (json_int_t)c.hidden, "intermediate_size", (json_int_t)c.ffn, "num_hidden_layers",
        (json_int_t)c.layers, "num_attention_heads", (json_int_t)c.heads, "num_key_value_heads",
        (json_int_t)c.kv_heads, "head_dim", (json_int_t)c.head_dim, "vocab_size", (json_int_t)c.vocabulary,
        "max_position_embeddings", (json_int_t)c.context, "hidden_act", "silu", "rms_norm_eps",
        short_real(c.norm_epsilon), "rope_theta", short_real(c.rope_theta), "rope_scaling", rope_json(&c));
    if (c.attention_bias && !strcmp(c.architecture, "llama"))
        json_object_put(&config, "attention_bias", json_true());
    if (c.mlp_bias && !strcmp(c.architecture, "llama")) json_object_put(&config, "mlp_bias", json_true());
    *out = config;
    return config || error_no_memory(err, "model", 0);
}

/* From the source's own where there is one; what this file differs in is set anew. */
static bool write_config(const struct save *save, const struct save_list *list, const char *directory,
                         struct error *err) {
    const struct model *model = save->model;
    const json_t *source = model_hub_config(model);
    json_t *config = NULL;
    if (source)
        config = json_deep_copy(source);
    else if (!make_config(model, &config, err))
        return false;
    int32_t bos = tokenizer_bos(model->tokenizer), eos = tokenizer_eos(model->tokenizer);
    json_object_del(config, "_name_or_path"); /* a path of whoever trained it */
    json_object_del(config, "dtype");
    json_object_put(&config, "torch_dtype", json_string(save_torch_type(list)));
    json_object_put(&config, "tie_word_embeddings", json_boolean(model->config.tied));
    save_quantisation(save, list, &config);
    if (!model->hub) {
        json_object_put(&config, "bos_token_id", bos < 0 ? json_null() : json_integer(bos));
        json_object_put(&config, "eos_token_id", eos < 0 ? json_null() : json_integer(eos));
    }
    char *path = fs_join(directory, "config.json");
    bool ok = (config && path) || error_no_memory(err, "model", 0);
    ok = ok && json_write_file(config, path, true, err);
    json_decref(config);
    mem_free(path);
    return ok;
}

/* ---- text ---- */

static bool write_file(const char *directory, const char *name, const void *data, size_t size,
                       struct error *err) {
    char *path = fs_join(directory, name);
    bool ok = path ? fs_write_atomic(path, data, size, err) : error_no_memory(err, "model", 0);
    mem_free(path);
    return ok;
}

bool model_write_text(const struct model *model, const char *source, size_t source_size,
                      const char *directory, struct error *err) {
    struct buf json = {0}, config = {0}, ends = {0};
    bool ok = tokenizer_write_json(model->tokenizer, &json, err) &&
              write_file(directory, "tokenizer.json", json.data, json.size, err) &&
              tokenizer_write_config(model->tokenizer, model->config.context, &config, err) &&
              write_file(directory, "tokenizer_config.json", config.data, config.size, err) &&
              (!source || write_file(directory, "chat_template.jinja", source, source_size, err));
    int32_t eos = tokenizer_eos(model->tokenizer);
    if (ok && model->stops.count > stops_hold(&model->stops, eos))
        ok = stops_write(&model->stops, eos, &ends, err) &&
             write_file(directory, "generation_config.json", ends.data, ends.size, err);
    buf_release(&json);
    buf_release(&config);
    buf_release(&ends);
    return ok;
}

static bool copy_file(const char *from, const char *to, const char *name, struct error *err) {
    char *path = fs_join(from, name);
    struct buf content = {0};
    struct fs_info info;
    bool ok = path ? fs_stat(path, &info, err) : error_no_memory(err, "model", 0);
    if (ok && info.kind == FS_FILE)
        ok = fs_read(path, largest_text, &content, err) &&
             write_file(to, name, content.data, content.size, err);
    buf_release(&content);
    mem_free(path);
    return ok;
}

/* The files that lie beside a directory's weights, as they are. */
static bool copy_text(const struct model *model, const char *directory, struct error *err) {
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "chat_template.jinja",
                                        "generation_config.json",
                                        "LICENSE",
                                        "NOTICE"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!copy_file(model->path, directory, names[i], err)) return false;
    return true;
}

/* ---- weights ---- */

/* Tensors of one file: as many as fit, at least one. */
static size_t shard_end(const struct save *save, const struct save_list *list, size_t begin) {
    uint64_t limit = save->shard_bytes ? save->shard_bytes : usual_shard * UINT64_C(1000000000), bytes = 0;
    size_t end = begin;
    do bytes += list->tensors[end++].bytes;
    while (end < list->count && list->tensors[end].bytes <= limit &&
           bytes <= limit - list->tensors[end].bytes);
    return end;
}

static bool write_shard(const struct save *save, const struct save_list *list, struct save_stream *stream,
                        size_t begin, size_t end, const char *directory, const char *name,
                        struct error *err) {
    struct save_part part = {stream, begin};
    json_t *metadata = json_pack("{s:s}", "format", save->to == CONTAINER_MLX ? "mlx" : "pt");
    char *path = fs_join(directory, name);
    bool ok = (metadata && path) || error_no_memory(err, "model", 0);
    ok = ok &&
         safetensors_write_each(path, list->tensors + begin, end - begin, metadata, save_emit, &part, err);
    json_decref(metadata);
    mem_free(path);
    return ok;
}

static bool write_index(const struct save_list *list, json_t *map, const char *directory, struct error *err) {
    json_t *index = map ? json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)list->bytes,
                                    "weight_map", map)
                        : NULL;
    char *path = fs_join(directory, "model.safetensors.index.json");
    bool ok = (index && path) || error_no_memory(err, "model", 0);
    ok = ok && json_write_file(index, path, true, err);
    json_decref(index);
    mem_free(path);
    return ok;
}

static bool write_weights(const struct save *save, const struct save_list *list, struct save_stream *stream,
                          const char *directory, struct error *err) {
    size_t shards = 0, number = 0;
    for (size_t at = 0; at < list->count; at = shard_end(save, list, at)) shards++;
    if (shards == 1)
        return write_shard(save, list, stream, 0, list->count, directory, "model.safetensors", err);
    json_t *map = json_object();
    bool ok = true;
    for (size_t at = 0, end; ok && at < list->count; at = end) {
        char name[64];
        end = shard_end(save, list, at);
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", ++number, shards);
        for (size_t i = at; i < end; i++) json_object_put(&map, list->tensors[i].name, json_string(name));
        ok = write_shard(save, list, stream, at, end, directory, name, err);
    }
    ok = ok && write_index(list, map, directory, err);
    json_decref(map);
    return ok;
}

bool save_hub(const struct save *save, const struct save_list *list, struct save_stream *stream,
              struct error *err) {
    const struct model *model = save->model;
    struct error ignored;
    char *partial = fs_partial(save->path);
    bool ok = partial != NULL || error_no_memory(err, "model", 0);
    ok = ok && fs_remove_tree(partial, err) && fs_make_directories(partial, err) &&
         write_config(save, list, partial, err) &&
         (model->hub
              ? copy_text(model, partial, err)
              : model_write_text(model, model->chat_template, model->chat_template_size, partial, err)) &&
         write_weights(save, list, stream, partial, err) && fs_rename(partial, save->path, err);
    if (!ok && partial) fs_remove_tree(partial, &ignored);
    mem_free(partial);
    return ok;
}
