#include "model/stops.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"

enum { most_stops = 256, largest_config = 16 << 20 };

bool stops_hold(const struct stops *stops, int32_t id) {
    for (size_t i = 0; i < stops->count; i++)
        if (stops->ids[i] == id) return true;
    return false;
}

bool stops_add(struct stops *stops, int32_t id, struct error *err) {
    if (stops_hold(stops, id)) return true;
    int32_t *grown = mem_realloc(stops->ids, (stops->count + 1) * sizeof *grown);
    if (!grown) return error_no_memory(err, "model", (stops->count + 1) * sizeof *grown);
    stops->ids = grown;
    stops->ids[stops->count++] = id;
    return true;
}

static bool add_number(struct stops *stops, const json_t *value, const char *file, int64_t vocabulary,
                       struct error *err) {
    int64_t id = json_is_integer(value) ? (int64_t)json_integer_value(value) : -2;
    if (id == -1) return true;
    if (!json_is_integer(value))
        return error_set(err, ERROR_INPUT, "model",
                         "%s: eos_token_id is neither a token nor a list of tokens", file);
    if (id < 0 || id >= vocabulary || id > INT32_MAX)
        return error_set(err, ERROR_INPUT, "model",
                         "%s: eos_token_id has %lld, which is outside of the vocabulary of %lld tokens", file,
                         (long long)id, (long long)vocabulary);
    return stops_add(stops, (int32_t)id, err);
}

bool stops_add_config(struct stops *stops, const json_t *config, const char *file, int64_t vocabulary,
                      struct error *err) {
    const json_t *value = json_object_get(config, "eos_token_id");
    if (!value || json_is_null(value)) return true;
    if (!json_is_array(value)) return add_number(stops, value, file, vocabulary, err);
    if (json_array_size(value) > most_stops)
        return error_set(err, ERROR_INPUT, "model", "%s: eos_token_id has more than %d tokens", file,
                         most_stops);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!add_number(stops, json_array_get(value, i), file, vocabulary, err)) return false;
    return true;
}

bool stops_add_directory(struct stops *stops, const char *directory, int64_t vocabulary, struct error *err) {
    char *path = fs_join(directory, "generation_config.json");
    json_t *config = NULL;
    if (!path) return error_no_memory(err, "model", 0);
    bool ok = fs_kind_of(path) == FS_NOTHING || (json_read_file(&config, path, largest_config, err) &&
                                                 stops_add_config(stops, config, path, vocabulary, err));
    json_decref(config);
    mem_free(path);
    return ok;
}

bool stops_write(const struct stops *stops, int32_t eos, struct buf *out, struct error *err) {
    json_t *list = json_array();
    if (eos >= 0) json_array_append_new(list, json_integer(eos));
    for (size_t i = 0; i < stops->count; i++)
        if (stops->ids[i] != eos) json_array_append_new(list, json_integer(stops->ids[i]));
    json_t *root = json_pack("{s:o}", "eos_token_id", list);
    bool ok = (root || error_no_memory(err, "model", 0)) && json_write(root, out, err);
    json_decref(root);
    return ok;
}

void stops_release(struct stops *stops) {
    mem_free(stops->ids);
    memset(stops, 0, sizeof *stops);
}
