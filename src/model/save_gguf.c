/* A GGUF file: the metadata that llama.cpp reads, then the tensors. Keys: ggml's docs/gguf.md. */
#include <stdio.h>
#include <string.h>

#include "base/fs.h"
#include "format/gguf_writer.h"
#include "model/layout.h"
#include "model/save_internal.h"

struct keys {
    struct gguf_writer writer;
    const struct model *model;
    char name[96];
};

static const char *key(struct keys *keys, const char *suffix) {
    snprintf(keys->name, sizeof keys->name, "%s.%s", keys->model->family->architecture, suffix);
    return keys->name;
}

static void put_text(struct keys *keys, const char *name, const char *text) {
    gguf_put_text(&keys->writer, name, text, strlen(text));
}

static void put_size(struct keys *keys, const char *suffix, int64_t value) {
    gguf_put_u32(&keys->writer, key(keys, suffix), (uint32_t)value);
}

static void put_configuration(struct keys *keys) {
    const struct model_config *c = &keys->model->config;
    put_size(keys, "block_count", c->layers);
    put_size(keys, "context_length", c->context);
    put_size(keys, "embedding_length", c->hidden);
    put_size(keys, "feed_forward_length", c->ffn);
    put_size(keys, "attention.head_count", c->heads);
    put_size(keys, "attention.head_count_kv", c->kv_heads);
    put_size(keys, "attention.key_length", c->head_dim);
    put_size(keys, "attention.value_length", c->head_dim);
    gguf_put_f32(&keys->writer, key(keys, "attention.layer_norm_rms_epsilon"), (float)c->norm_epsilon);
    put_size(keys, "rope.dimension_count", c->head_dim);
    gguf_put_f32(&keys->writer, key(keys, "rope.freq_base"), (float)c->rope_theta);
    put_size(keys, "vocab_size", c->vocabulary);
    if (c->rope_scaling != ROPE_LINEAR) return;
    put_text(keys, key(keys, "rope.scaling.type"), "linear");
    gguf_put_f32(&keys->writer, key(keys, "rope.scaling.factor"), (float)c->rope_factor);
}

static void put_id(struct keys *keys, const char *name, int32_t id) {
    char text[64];
    snprintf(text, sizeof text, "tokenizer.ggml.%s_token_id", name);
    if (id >= 0) gguf_put_u32(&keys->writer, text, (uint32_t)id);
}

/* The end of text is the tokenizer's; what else ends an answer is the end of a turn and of a message. */
static bool put_stops(struct keys *keys, int32_t eos, struct error *err) {
    static const char *const names[] = {"eot", "eom"};
    const struct stops *stops = &keys->model->stops;
    size_t put = 0;
    for (size_t i = 0; i < stops->count; i++) {
        if (stops->ids[i] == eos) continue;
        if (put == sizeof names / sizeof *names) {
            error_set(err, ERROR_INPUT, "model",
                      "%s: a GGUF has no place for more than 3 tokens that end an answer", keys->model->path);
            return error_fix(
                err, "Take tokens out of eos_token_id in generation_config.json, or write safetensors.");
        }
        put_id(keys, names[put++], stops->ids[i]);
    }
    return true;
}

/* llama.cpp takes the size of the vocabulary from its list: rows of the embedding beyond it get unused
 * tokens. */
static bool pad(const struct model *model, struct arena *arena, const struct tokenizer_tables *tables,
                struct gguf_text *tokens, int32_t *kinds, struct error *err) {
    for (size_t id = 0; id < (size_t)model->config.vocabulary; id++) {
        char text[tokenizer_padding_size];
        if (id < tables->token_count) {
            tokens[id] = (struct gguf_text){tables->tokens[id].data, tables->tokens[id].size};
            kinds[id] = tables->kinds[id];
            continue;
        }
        tokenizer_padding((int64_t)id, text);
        if (tokenizer_find(model->tokenizer, text) >= 0)
            return error_set(err, ERROR_INPUT, "model", "%s: the token %s stands where only padding may",
                             model->path, text);
        tokens[id] = (struct gguf_text){arena_strdup(arena, text), strlen(text)};
        kinds[id] = tokenizer_kind_unused;
        if (!tokens[id].data) return error_no_memory(err, "model", sizeof text);
    }
    return true;
}

static bool put_tokenizer(struct keys *keys, struct arena *arena, struct error *err) {
    const struct model *model = keys->model;
    struct gguf_writer *writer = &keys->writer;
    struct tokenizer_tables tables;
    size_t count = (size_t)model->config.vocabulary;
    if (!tokenizer_write_tables(model->tokenizer, arena, &tables, err)) return error_about(err, model->path);
    struct gguf_text *tokens = arena_array(arena, count, sizeof *tokens),
                     *merges = arena_array(arena, tables.merge_count + 1, sizeof *merges);
    int32_t *kinds = arena_array(arena, count, sizeof *kinds);
    if (!tokens || !merges || !kinds) return error_no_memory(err, "model", count * sizeof *tokens);
    if (!pad(model, arena, &tables, tokens, kinds, err)) return false;
    for (size_t i = 0; i < tables.merge_count; i++)
        merges[i] = (struct gguf_text){tables.merges[i].data, tables.merges[i].size};
    put_text(keys, "tokenizer.ggml.model", "gpt2");
    put_text(keys, "tokenizer.ggml.pre", tables.pre);
    gguf_put_array(writer, "tokenizer.ggml.tokens", GGUF_TEXT, tokens, count);
    gguf_put_array(writer, "tokenizer.ggml.token_type", GGUF_I32, kinds, count);
    gguf_put_array(writer, "tokenizer.ggml.merges", GGUF_TEXT, merges, tables.merge_count);
    put_id(keys, "bos", tables.bos);
    put_id(keys, "eos", tables.eos);
    put_id(keys, "unknown", tables.unknown);
    put_id(keys, "padding", tables.padding);
    gguf_put_bool(writer, "tokenizer.ggml.add_bos_token", tables.add_bos);
    gguf_put_bool(writer, "tokenizer.ggml.add_eos_token", tables.add_eos);
    if (model->chat_template)
        gguf_put_text(writer, "tokenizer.chat_template", model->chat_template, model->chat_template_size);
    return put_stops(keys, tables.eos, err);
}

/* Keys about the file rather than the model. */
static bool is_of_the_file(const char *name) {
    static const char *const names[] = {"general.file_type", "general.quantization_version",
                                        "general.alignment"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) return true;
    return !strncmp(name, "split.", 6) || !strncmp(name, "quantize.", 9);
}

static void copy_keys(struct keys *keys) {
    const struct gguf *from = keys->model->gguf;
    enum gguf_kind kind;
    for (size_t i = 0; i < gguf_key_count(from); i++)
        if (!is_of_the_file(gguf_key_name(from, i, &kind))) gguf_put_copy(&keys->writer, from, i);
}

static void put_file_type(struct keys *keys, const struct save *save, const struct save_list *list) {
    int64_t kept;
    bool quantised = false;
    if (save->type)
        gguf_put_u32(&keys->writer, "general.file_type", save->type->file_type);
    else if (save->model->gguf && gguf_get_int(save->model->gguf, "general.file_type", &kept))
        gguf_put_u32(&keys->writer, "general.file_type", (uint32_t)kept);
    for (size_t i = 0; i < list->count; i++)
        quantised = quantised || dtype_row(list->tensors[i].dtype)->quantised;
    if (quantised)
        gguf_put_u32(&keys->writer, "general.quantization_version", 2); /* ggml's GGML_QNT_VERSION */
}

static bool put_all(struct keys *keys, const struct save *save, struct arena *arena, struct error *err) {
    if (save->model->gguf) {
        copy_keys(keys);
        return true;
    }
    put_text(keys, "general.architecture", save->model->family->architecture);
    put_text(keys, "general.type", "model");
    put_text(keys, "general.name", save->model->sketched ? "random" : fs_base_name(save->model->path));
    put_configuration(keys);
    return put_tokenizer(keys, arena, err);
}

/* Qwen 2 in GGUF has no place for divisors. */
static bool check_scaling(const struct save *save, struct error *err) {
    const struct model *model = save->model;
    if (model->config.rope_scaling != ROPE_LLAMA3 || layout_row(model->family, WEIGHT_ROPE_FACTORS))
        return true;
    error_set(err, ERROR_INPUT, "model",
              "%s: a GGUF of the architecture %s cannot hold the rope scaling \"llama3\"", model->path,
              model->family->architecture);
    return error_fix(err, "Write the model as safetensors.");
}

bool save_gguf(const struct save *save, const struct save_list *list, struct save_stream *stream,
               struct error *err) {
    struct keys keys = {.model = save->model};
    struct arena arena = {0};
    struct save_part part = {stream, 0};
    bool ok = check_scaling(save, err) && put_all(&keys, save, &arena, err);
    if (ok) put_file_type(&keys, save, list);
    arena_release(&arena);
    ok = ok && gguf_writer_save(&keys.writer, save->path, list->tensors, list->count, save_emit, &part, err);
    gguf_writer_release(&keys.writer);
    return ok;
}
