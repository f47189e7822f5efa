#include "format/peft.h"

#include <string.h>

#include "base/arena.h"
#include "base/fs.h"
#include "base/mem.h"
#include "format/names_internal.h"
#include "format/peft_internal.h"
#include "format/safetensors.h"

enum { largest_config = 1 << 20 };

static const char base_type_key[] = "base_type", base_weights_key[] = "base_weights";
static const char prefix[] = "base_model.model.", suffix_a[] = ".lora_A.weight",
                  suffix_b[] = ".lora_B.weight", suffix_magnitude[] = ".lora_magnitude_vector",
                  suffix_embedding_a[] = ".lora_embedding_A", suffix_embedding_b[] = ".lora_embedding_B",
                  suffix_base[] = ".base_layer.weight"; /* PEFT keeps the weights of adapted embeddings */

struct peft {
    struct peft_config config;
    struct arena arena;
    struct safetensors *file;
    struct peft_pair *pairs; /* in the order of their A tensors in the file */
    size_t count;
    struct peft_weight *weights;
    size_t weight_count;
    struct name *modules;
    struct name_index by_module;
};

static bool refuse(const char *directory, const struct tensor *tensor, const char *cause, struct error *err) {
    struct shown shown;
    return error_set(err, ERROR_INPUT, "peft", "%s: tensor %s %s", directory,
                     shown_text(&shown, tensor->name, strlen(tensor->name)), cause);
}

/* The length of the module path inside a tensor's name, 0 when the name does not end so. */
static size_t module_size(const char *name, const char *suffix) {
    size_t size = strlen(name), before = sizeof prefix - 1, after = strlen(suffix);
    if (size <= before + after || strncmp(name, prefix, before) || strcmp(name + size - after, suffix))
        return 0;
    return size - before - after;
}

static bool check_type(const char *directory, const struct tensor *tensor, struct error *err) {
    return tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_F16 || tensor->dtype == DTYPE_BF16 ||
           refuse(directory, tensor, "is not of type f32, f16 or bf16", err);
}

/* `rank`: what the other tensor or the configuration says; 0: any. */
static bool check_tensor(const char *directory, const struct tensor *tensor, int rank_dim, int64_t rank,
                         struct error *err) {
    if (!check_type(directory, tensor, err)) return false;
    if (tensor->rank != 2) return refuse(directory, tensor, "is not a matrix", err);
    if (rank ? tensor->dim[rank_dim] == rank : tensor->dim[rank_dim] > 0) return true;
    return refuse(directory, tensor, "disagrees with the rank r of adapter_config.json", err);
}

/* The tensor of a module that ends in `suffix`; *out NULL: there is none. */
static bool find_other(const struct peft *peft, const char *module, const char *suffix,
                       const struct tensor **out, struct error *err) {
    struct buf name = {0};
    buf_printf(&name, "%s%s%s", prefix, module, suffix);
    bool ok = !name.failed || error_no_memory(err, "peft", name.size);
    if (ok) *out = safetensors_find(peft->file, name.data);
    buf_release(&name);
    return ok;
}

static bool read_magnitude(const struct peft *peft, const char *directory, const struct tensor *a,
                           struct peft_pair *pair, struct error *err) {
    const struct tensor *magnitude;
    if (!find_other(peft, pair->module, suffix_magnitude, &magnitude, err)) return false;
    if (!magnitude != !peft->config.dora)
        return refuse(directory, a,
                      magnitude ? "has a lora_magnitude_vector beside it, but use_dora is not true"
                                : "has no lora_magnitude_vector beside it, but use_dora is true",
                      err);
    if (!magnitude) return true;
    pair->magnitude = *magnitude;
    if (!check_type(directory, magnitude, err)) return false;
    if (magnitude->rank == 1 && magnitude->dim[0] == pair->b.dim[0]) return true;
    return refuse(directory, magnitude, "is not one number for each row of its lora_B", err);
}

/* Fills one pair from its A tensor. */
static bool read_pair(struct peft *peft, const char *directory, const struct tensor *a,
                      struct peft_pair *pair, struct error *err) {
    size_t size = module_size(a->name, suffix_a);
    const struct tensor *b;
    pair->embedding = !size;
    if (pair->embedding) size = module_size(a->name, suffix_embedding_a);
    pair->module = arena_strndup(&peft->arena, a->name + sizeof prefix - 1, size);
    if (!pair->module) return error_no_memory(err, "peft", size);
    if (!find_other(peft, pair->module, pair->embedding ? suffix_embedding_b : suffix_b, &b, err))
        return false;
    if (!b) return refuse(directory, a, "has no lora_B beside it", err);
    pair->a = *a;
    pair->b = *b;
    return check_tensor(directory, a, 0, peft->config.rank_count ? 0 : peft->config.rank, err) &&
           check_tensor(directory, b, 1, a->dim[0], err) && read_magnitude(peft, directory, a, pair, err);
}

/* A tensor of a module that modules_to_save names. *taken false: it is none. */
static bool read_weight(struct peft *peft, const char *directory, const struct tensor *tensor, bool *taken,
                        struct error *err) {
    const struct peft_config *config = &peft->config;
    const char *name = tensor->name + sizeof prefix - 1, *dot = strrchr(tensor->name, '.');
    *taken = false;
    if (strncmp(tensor->name, prefix, sizeof prefix - 1) || !dot || dot < name) return true;
    size_t size = (size_t)(dot - name);
    for (size_t i = 0; i < config->saved_count && !*taken; i++) {
        size_t end = strlen(config->saved[i]);
        *taken = end <= size && !strncmp(name + size - end, config->saved[i], end);
    }
    if (!*taken) return true;
    if (!check_type(directory, tensor, err)) return false;
    if (tensor->rank > 2) return refuse(directory, tensor, "is neither a matrix nor a vector", err);
    peft->weights[peft->weight_count++] = (struct peft_weight){name, *tensor};
    return true;
}

/* The distinct last parts of the module paths, in the order of the file. */
static bool find_targets(struct peft *peft, struct error *err) {
    struct peft_config *config = &peft->config;
    config->targets = arena_array(&peft->arena, peft->count, sizeof *config->targets);
    if (!config->targets) return error_no_memory(err, "peft", peft->count * sizeof *config->targets);
    for (size_t i = 0; i < peft->count; i++) {
        const char *dot = strrchr(peft->pairs[i].module, '.'), *last = dot ? dot + 1 : peft->pairs[i].module;
        bool known = false;
        for (size_t j = 0; j < config->target_count && !known; j++) known = !strcmp(config->targets[j], last);
        if (known) continue;
        if (config->target_count == 256)
            return error_set(err, ERROR_INPUT, "peft", "the adapter names more than 256 kinds of modules");
        config->targets[config->target_count] = arena_strdup(&peft->arena, last);
        if (!config->targets[config->target_count++]) return error_no_memory(err, "peft", strlen(last));
    }
    return true;
}

static bool read_pairs(struct peft *peft, const char *directory, struct error *err) {
    size_t tensors = safetensors_count(peft->file), others = 0, magnitudes = 0, duplicate;
    peft->pairs = arena_array(&peft->arena, tensors, sizeof *peft->pairs);
    peft->modules = arena_array(&peft->arena, tensors, sizeof *peft->modules);
    peft->weights = arena_array(&peft->arena, tensors, sizeof *peft->weights);
    if (!peft->pairs || !peft->modules || !peft->weights)
        return error_no_memory(err, "peft", tensors * sizeof *peft->pairs);
    for (size_t i = 0; i < tensors; i++) {
        const struct tensor *tensor = safetensors_tensor(peft->file, i);
        if (module_size(tensor->name, suffix_base)) continue;
        if (module_size(tensor->name, suffix_b) || module_size(tensor->name, suffix_embedding_b)) {
            others++;
            continue;
        }
        if (module_size(tensor->name, suffix_magnitude)) {
            magnitudes++;
            continue;
        }
        if (!module_size(tensor->name, suffix_a) && !module_size(tensor->name, suffix_embedding_a)) {
            bool taken;
            if (!read_weight(peft, directory, tensor, &taken, err)) return false;
            if (taken) continue;
            return refuse(directory, tensor,
                          "is no lora_A or lora_B of a linear, and of no module that modules_to_save names",
                          err);
        }
        struct peft_pair *pair = &peft->pairs[peft->count];
        if (!read_pair(peft, directory, tensor, pair, err)) return false;
        peft->modules[peft->count++] = (struct name){pair->module, strlen(pair->module)};
    }
    if (others != peft->count || (magnitudes && magnitudes != peft->count))
        return error_set(err, ERROR_INPUT, "peft", "%s: a lora_%s without its lora_A", directory,
                         others != peft->count ? "B" : "magnitude_vector");
    if (!peft->count)
        return error_set(err, ERROR_INPUT, "peft", "%s: the adapter holds no tensors", directory);
    if (!name_index_build(&peft->by_module, peft->modules, peft->count, &duplicate))
        return error_no_memory(err, "peft", 4 * peft->count);
    return find_targets(peft, err);
}

static bool read_fact(struct peft *peft, const char *key, const char **out, struct error *err) {
    const char *text = json_string_value(json_object_get(safetensors_metadata(peft->file), key));
    if (!text) return true;
    *out = arena_strdup(&peft->arena, text);
    return *out || error_no_memory(err, "peft", strlen(text));
}

/* Who names a run, or one of its checkpoints, is told where the adapter in it lies. */
static bool refuse_directory(const char *directory, struct error *err) {
    char *inner = fs_join(directory, "adapter"),
         *config = inner ? fs_join(inner, "adapter_config.json") : NULL;
    bool inside = config && fs_kind_of(config) != FS_NOTHING;
    error_set(err, ERROR_INPUT, "peft", "%s has no adapter_config.json", directory);
    if (inside)
        error_fix(err, "The adapter lies in %s.", inner);
    else
        error_fix(err, "Give the directory of an adapter, as hone or PEFT wrote it.");
    mem_free(inner);
    mem_free(config);
    return false;
}

static bool open_files(struct peft *peft, const char *directory, struct error *err) {
    char *config = fs_join(directory, "adapter_config.json"),
         *weights = fs_join(directory, "adapter_model.safetensors");
    char *pickled = fs_join(directory, "adapter_model.bin");
    json_t *json = NULL;
    bool ok = false;
    if (!config || !weights || !pickled) {
        error_no_memory(err, "peft", strlen(directory));
    } else if (fs_kind_of(config) == FS_NOTHING) {
        refuse_directory(directory, err);
    } else if (fs_kind_of(weights) == FS_NOTHING && fs_kind_of(pickled) != FS_NOTHING) {
        error_set(err, ERROR_INPUT, "peft",
                  "%s: adapter_model.bin can run code when it is loaded and is not read", directory);
        error_fix(err, "Save the adapter as adapter_model.safetensors.");
    } else {
        ok = json_read_file(&json, config, largest_config, err) &&
             peft_read_config(&peft->config, json, config, &peft->arena, err) &&
             safetensors_open(&peft->file, weights, err) &&
             read_fact(peft, base_type_key, &peft->config.base_type, err) &&
             read_fact(peft, base_weights_key, &peft->config.base_weights, err) &&
             read_pairs(peft, directory, err);
    }
    json_decref(json);
    mem_free(config);
    mem_free(weights);
    mem_free(pickled);
    return ok;
}

bool peft_open(struct peft **out, const char *directory, struct error *err) {
    struct peft *peft = mem_calloc(1, sizeof *peft);
    *out = NULL;
    if (!peft) return error_no_memory(err, "peft", sizeof *peft);
    bool ok = open_files(peft, directory, err);
    if (ok)
        *out = peft;
    else
        peft_close(&peft);
    return ok;
}

void peft_close(struct peft **peft) {
    struct peft *closing = *peft;
    *peft = NULL;
    if (!closing) return;
    name_index_release(&closing->by_module);
    safetensors_close(&closing->file);
    arena_release(&closing->arena);
    mem_free(closing);
}

const struct peft_config *peft_config(const struct peft *peft) { return &peft->config; }

size_t peft_pair_count(const struct peft *peft) { return peft->count; }

const struct peft_pair *peft_pair(const struct peft *peft, size_t index) { return &peft->pairs[index]; }

size_t peft_weight_count(const struct peft *peft) { return peft->weight_count; }

const struct peft_weight *peft_weight(const struct peft *peft, size_t index) { return &peft->weights[index]; }

const struct peft_pair *peft_find(const struct peft *peft, const char *module) {
    size_t at = name_index_find(&peft->by_module, module);
    return at < peft->count ? &peft->pairs[at] : NULL;
}

static const char *tensor_name(struct arena *arena, const char *module, const char *suffix) {
    size_t before = sizeof prefix - 1, size = strlen(module), after = strlen(suffix);
    char *name = arena_alloc(arena, before + size + after + 1);
    if (!name) return NULL;
    memcpy(name, prefix, before);
    memcpy(name + before, module, size);
    memcpy(name + before + size, suffix, after + 1);
    return name;
}

/* jansson's "s*" leaves out a text whose copy found no memory, too. */
static void write_fact(json_t **metadata, const char *key, const char *text) {
    if (text) json_object_put(metadata, key, json_string(text));
}

bool peft_write(const char *directory, const struct peft_config *config, const struct peft_content *content,
                const json_t *card, struct error *err) {
    const struct peft_pair *pairs = content->pairs;
    size_t count = content->count;
    struct arena arena = {0};
    struct tensor *tensors = arena_array(&arena, 3 * count + content->weight_count, sizeof *tensors);
    size_t written = 0;
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    write_fact(&metadata, base_type_key, config->base_type);
    write_fact(&metadata, base_weights_key, config->base_weights);
    char *path = fs_join(directory, "adapter_model.safetensors");
    bool ok = tensors && metadata && path;
    for (size_t i = 0; ok && i < count; i++) {
        const struct tensor *parts[] = {&pairs[i].a, &pairs[i].b, &pairs[i].magnitude};
        const char *const suffixes[] = {pairs[i].embedding ? suffix_embedding_a : suffix_a,
                                        pairs[i].embedding ? suffix_embedding_b : suffix_b, suffix_magnitude};
        for (int p = 0; ok && p < 3 && parts[p]->rank; p++) {
            tensors[written] = *parts[p];
            tensors[written].name = tensor_name(&arena, pairs[i].module, suffixes[p]);
            ok = tensors[written++].name;
        }
    }
    for (size_t i = 0; ok && i < content->weight_count; i++) {
        tensors[written] = content->weights[i].tensor;
        tensors[written].name = tensor_name(&arena, content->weights[i].name, "");
        ok = tensors[written++].name;
    }
    if (!ok) error_no_memory(err, "peft", count * sizeof *tensors);
    /* The weights last: a directory that holds them is whole. */
    ok = ok && peft_write_config(directory, config, err) && peft_write_card(directory, config, card, err) &&
         safetensors_write(path, tensors, written, metadata, err);
    mem_free(path);
    json_decref(metadata);
    arena_release(&arena);
    return ok;
}
