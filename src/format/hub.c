#include "format/hub.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/hub_internal.h"
#include "format/names_internal.h"
#include "format/safetensors.h"

enum { largest_config = 16 << 20, largest_index = 64 << 20, largest_template = 4 << 20, most_shards = 4096 };

struct hub {
    const char *directory;
    struct arena arena;
    json_t *config, *generation;
    struct fs_map tokenizer, tokenizer_config;
    struct buf template;
    bool has_template;
    struct safetensors **shards;
    size_t shard_count;
    const char **shard_names;
    const struct tensor **tensors; /* of all shards, in their order */
    struct name *names;
    size_t tensor_count;
    struct name_index by_name;
};

static bool refuse(const struct hub *hub, const char *name, const char *cause, struct error *err) {
    struct shown shown;
    return error_set(err, ERROR_INPUT, "hub", "%s: %s: %s", hub->directory,
                     shown_text(&shown, name, strlen(name)), cause);
}

static char *join(struct hub *hub, const char *name) {
    char *path = fs_join(hub->directory, name), *kept = path ? arena_strdup(&hub->arena, path) : NULL;
    mem_free(path);
    return kept;
}

/* An optional file: absent leaves *out NULL. */
static bool read_object(struct hub *hub, const char *name, size_t limit, json_t **out, struct error *err) {
    const char *path = join(hub, name);
    *out = NULL;
    if (!path) return error_no_memory(err, "hub", strlen(name));
    if (fs_kind_of(path) == FS_NOTHING) return true;
    if (!json_read_file(out, path, limit, err)) return false;
    return json_is_object(*out) || error_set(err, ERROR_INPUT, "hub", "%s: not a JSON object", path);
}

static bool map_text(struct hub *hub, const char *name, struct fs_map *map, struct error *err) {
    const char *path = join(hub, name);
    if (!path) return error_no_memory(err, "hub", strlen(name));
    if (fs_kind_of(path) == FS_NOTHING) return true;
    if (!fs_map_open(map, path, err)) return false;
    return map->size || error_set(err, ERROR_INPUT, "hub", "%s is empty", path);
}

/* "chat_template" is a text, or a list of {"name", "template"} of which "default" counts. */
static const json_t *template_in(const json_t *config) {
    const json_t *value = json_object_get(config, "chat_template");
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && !strcmp(name, "default")) return json_object_get(entry, "template");
    }
    return value;
}

static bool read_template(struct hub *hub, struct error *err) {
    const char *path = join(hub, "chat_template.jinja");
    json_t *config;
    if (!path) return error_no_memory(err, "hub", 0);
    if (fs_kind_of(path) != FS_NOTHING) {
        hub->has_template = true;
        return fs_read(path, largest_template, &hub->template, err);
    }
    if (!read_object(hub, "tokenizer_config.json", largest_config, &config, err)) {
        json_decref(config);
        return false;
    }
    const json_t *text = template_in(config);
    bool ok = true;
    if (json_is_string(text)) {
        hub->has_template = true;
        ok = buf_append(&hub->template, json_string_value(text), json_string_length(text)) ||
             error_no_memory(err, "hub", json_string_length(text));
    }
    json_decref(config);
    return ok;
}

static bool ends_with(const char *text, const char *end) {
    size_t size = strlen(text), tail = strlen(end);
    return size >= tail && !strcmp(text + size - tail, end);
}

/* Formats that are programs: loading one runs it. */
static bool is_executable_format(const char *name) {
    static const char *const ends[] = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (ends_with(name, ends[i])) return true;
    return false;
}

static bool no_weights(const struct hub *hub, struct error *err) {
    struct fs_list list;
    if (!fs_list_open(&list, hub->directory, err)) return false;
    const char *found = NULL;
    for (size_t i = 0; i < list.count && !found; i++)
        if (is_executable_format(list.names[i])) found = list.names[i];
    if (found) {
        refuse(hub, found, "this format can run code when it is loaded and is not read", err);
        error_fix(err, "Convert the weights to safetensors.");
    } else {
        error_set(err, ERROR_INPUT, "hub",
                  "%s holds neither model.safetensors nor model.safetensors.index.json", hub->directory);
    }
    fs_list_close(&list);
    return false;
}

static bool check_shard_name(const struct hub *hub, const char *name, struct error *err) {
    if (!name)
        return refuse(hub, "model.safetensors.index.json", "weight_map holds something other than file names",
                      err);
    if (is_executable_format(name))
        return refuse(hub, name, "this format can run code when it is loaded and is not read", err);
    if (!*name || *name == '.' || strpbrk(name, "/\\:") || !ends_with(name, ".safetensors"))
        return refuse(hub, name, "not a plain name of a safetensors file", err);
    return true;
}

static bool open_shard(struct hub *hub, const char *name, struct error *err) {
    const char *path = join(hub, name);
    if (!path) return error_no_memory(err, "hub", strlen(name));
    hub->shard_names[hub->shard_count] = path + strlen(path) - strlen(name);
    if (!safetensors_open(&hub->shards[hub->shard_count], path, err)) return false;
    hub->shard_count++;
    return true;
}

static size_t find_shard(const struct hub *hub, const char *name) {
    size_t at = 0;
    /* Maps list a shard's tensors together, most often: look at the newest first. */
    if (hub->shard_count && !strcmp(hub->shard_names[hub->shard_count - 1], name))
        return hub->shard_count - 1;
    while (at < hub->shard_count && strcmp(hub->shard_names[at], name)) at++;
    return at;
}

static bool open_listed(struct hub *hub, const json_t *map, struct error *err) {
    const char *tensor;
    json_t *value;
    if (!json_is_object(map) || json_object_size(map) == 0)
        return refuse(hub, "model.safetensors.index.json", "no \"weight_map\"", err);
    json_object_foreach((json_t *)(uintptr_t)map, tensor, value) {
        const char *name = json_string_value(value);
        if (!check_shard_name(hub, name, err)) return false;
        size_t at = find_shard(hub, name);
        if (at == most_shards)
            return refuse(hub, "model.safetensors.index.json", "more than 4,096 shards", err);
        if (at == hub->shard_count && !open_shard(hub, name, err)) return false;
        if (!safetensors_find(hub->shards[at], tensor))
            return refuse(hub, tensor, "the index names a shard that does not hold this tensor", err);
    }
    return true;
}

static bool open_weights(struct hub *hub, struct error *err) {
    const char *single = join(hub, "model.safetensors");
    json_t *index;
    hub->shards = arena_array(&hub->arena, most_shards, sizeof *hub->shards);
    hub->shard_names = arena_array(&hub->arena, most_shards, sizeof *hub->shard_names);
    if (!single || !hub->shards || !hub->shard_names) return error_no_memory(err, "hub", 0);
    if (fs_kind_of(single) != FS_NOTHING) return open_shard(hub, "model.safetensors", err);
    bool ok = read_object(hub, "model.safetensors.index.json", largest_index, &index, err);
    if (ok) ok = index ? open_listed(hub, json_object_get(index, "weight_map"), err) : no_weights(hub, err);
    json_decref(index);
    return ok;
}

static bool index_tensors(struct hub *hub, struct error *err) {
    size_t count = 0, duplicate;
    for (size_t i = 0; i < hub->shard_count; i++) count += safetensors_count(hub->shards[i]);
    hub->tensors = arena_array(&hub->arena, count, sizeof *hub->tensors);
    hub->names = arena_array(&hub->arena, count, sizeof *hub->names);
    if (!hub->tensors || !hub->names) return error_no_memory(err, "hub", count * sizeof *hub->names);
    for (size_t i = 0; i < hub->shard_count; i++)
        for (size_t j = 0; j < safetensors_count(hub->shards[i]); j++) {
            const struct tensor *tensor = safetensors_tensor(hub->shards[i], j);
            hub->names[hub->tensor_count] = (struct name){tensor->name, strlen(tensor->name)};
            hub->tensors[hub->tensor_count++] = tensor;
        }
    if (!name_index_build(&hub->by_name, hub->names, count, &duplicate))
        return error_no_memory(err, "hub", 4 * count);
    return duplicate == count ||
           refuse(hub, hub->names[duplicate].data, "this tensor stands in two shards", err);
}

static bool open_files(struct hub *hub, const char *directory, struct error *err) {
    if (fs_kind_of(directory) != FS_DIRECTORY)
        return error_set(err, ERROR_INPUT, "hub", "%s is not a directory", directory);
    hub->directory = arena_strdup(&hub->arena, directory);
    if (!hub->directory) return error_no_memory(err, "hub", strlen(directory));
    if (!read_object(hub, "config.json", largest_config, &hub->config, err)) return false;
    if (!hub->config) {
        error_set(err, ERROR_INPUT, "hub", "%s has no config.json", directory);
        return error_fix(err,
                         "Give the directory of a model as Hugging Face hubs lay it out, or a .gguf file.");
    }
    return read_object(hub, "generation_config.json", largest_config, &hub->generation, err) &&
           map_text(hub, "tokenizer.json", &hub->tokenizer, err) &&
           map_text(hub, "tokenizer_config.json", &hub->tokenizer_config, err) && read_template(hub, err) &&
           hub_check_quantised(hub, err) && open_weights(hub, err) && index_tensors(hub, err);
}

bool hub_open(struct hub **out, const char *directory, struct error *err) {
    struct hub *hub = mem_calloc(1, sizeof *hub);
    *out = NULL;
    if (!hub) return error_no_memory(err, "hub", sizeof *hub);
    bool ok = open_files(hub, directory, err);
    if (ok)
        *out = hub;
    else
        hub_close(&hub);
    return ok;
}

void hub_close(struct hub **hub) {
    struct hub *closing = *hub;
    *hub = NULL;
    if (!closing) return;
    name_index_release(&closing->by_name);
    for (size_t i = 0; i < closing->shard_count; i++) safetensors_close(&closing->shards[i]);
    fs_map_close(&closing->tokenizer);
    fs_map_close(&closing->tokenizer_config);
    buf_release(&closing->template);
    json_decref(closing->config);
    json_decref(closing->generation);
    arena_release(&closing->arena);
    mem_free(closing);
}

const char *hub_directory(const struct hub *hub) { return hub->directory; }

struct arena *hub_arena(struct hub *hub) {
    return &hub->arena;
}

const json_t *hub_config(const struct hub *hub) { return hub->config; }

const json_t *hub_generation_config(const struct hub *hub) { return hub->generation; }

size_t hub_tensor_count(const struct hub *hub) { return hub->tensor_count; }

const struct tensor *hub_tensor(const struct hub *hub, size_t index) { return hub->tensors[index]; }

const struct tensor *hub_find_tensor(const struct hub *hub, const char *name) {
    size_t at = name_index_find(&hub->by_name, name);
    return at < hub->tensor_count ? hub->tensors[at] : NULL;
}

uint64_t hub_file_bytes(const struct hub *hub) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < hub->shard_count; i++) bytes += safetensors_file_bytes(hub->shards[i]);
    return bytes;
}

static const char *mapped_text(const struct fs_map *map, size_t *size) {
    *size = map->size;
    return map->size ? (const char *)map->data : NULL;
}

const char *hub_tokenizer_json(const struct hub *hub, size_t *size) {
    return mapped_text(&hub->tokenizer, size);
}

const char *hub_tokenizer_config(const struct hub *hub, size_t *size) {
    return mapped_text(&hub->tokenizer_config, size);
}

const char *hub_chat_template(const struct hub *hub, size_t *size) {
    *size = hub->template.size;
    return hub->has_template ? hub->template.data : NULL;
}
