#include "model/save.h"

#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "format/hub.h"
#include "model/layout.h"
#include "model/save_internal.h"

/* ---- the report ---- */

/* Each weight once, whatever pieces it is written in. */
static bool is_weight_of(const struct save_list *list, size_t i) {
    return list->items[i].piece == PIECE_ALL || list->items[i].piece == PIECE_CODES;
}

static json_t *count_types(const struct save_list *list) {
    json_t *types = json_object();
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        json_int_t count = 0;
        for (size_t i = 0; i < list->count; i++)
            count += is_weight_of(list, i) && (int)list->items[i].type == dtype;
        if (count) json_object_put(&types, dtype_row((enum dtype)dtype)->name, json_integer(count));
    }
    return types;
}

static bool fell_back(const struct save_list *list, size_t i) {
    return is_weight_of(list, i) && list->items[i].wanted != list->items[i].type;
}

static bool same_fallback(const struct save_list *list, size_t a, size_t b) {
    return list->items[a].wanted == list->items[b].wanted && list->items[a].columns == list->items[b].columns;
}

/* An object for each type and length of row that it does not divide. */
static json_t *list_fallbacks(const struct save_list *list) {
    json_t *out = json_array();
    for (size_t i = 0; i < list->count; i++) {
        size_t before = 0;
        while (before < i && !(fell_back(list, before) && same_fallback(list, before, i))) before++;
        if (!fell_back(list, i) || before < i) continue;
        json_t *names = json_array();
        for (size_t j = i; j < list->count; j++)
            if (fell_back(list, j) && same_fallback(list, i, j))
                json_list_add(&names, json_string(list->tensors[j].name));
        json_list_add(&out, json_pack("{s:s, s:s, s:I, s:o}", "type", dtype_row(list->items[i].type)->name,
                                      "in_place_of", dtype_row(list->items[i].wanted)->name, "row",
                                      (json_int_t)list->items[i].columns, "tensors", names));
    }
    return out;
}

static size_t source_count(const struct model *model) {
    return model->gguf ? gguf_tensor_count(model->gguf) : model->hub ? hub_tensor_count(model->hub) : 0;
}

static bool is_weight(const struct model *model, const char *name) {
    for (size_t i = 0; i < layout_count(&model->config); i++)
        if (model->weights[i].rank &&
            (!strcmp(model->weights[i].name, name) || save_is_piece(&model->weights[i], name)))
            return true;
    return false;
}

/* Tensors of the source that the architecture has no place for. */
static json_t *list_left_out(const struct model *model) {
    json_t *out = json_array();
    size_t count = source_count(model), known = 0;
    for (size_t i = 0; i < layout_count(&model->config); i++) known += model->weights[i].rank != 0;
    for (size_t i = 0; known < count && i < count; i++) {
        const struct tensor *tensor = model->gguf ? gguf_tensor(model->gguf, i) : hub_tensor(model->hub, i);
        if (!is_weight(model, tensor->name)) json_list_add(&out, json_text(tensor->name));
    }
    return out;
}

/* Bytes of a file, or of the files of a directory. */
static bool written_bytes(const char *path, uint64_t *out, struct error *err) {
    struct fs_info info;
    struct fs_list list;
    *out = 0;
    if (!fs_stat(path, &info, err)) return false;
    if (info.kind != FS_DIRECTORY) return *out = info.size, true;
    if (!fs_list_open(&list, path, err)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < list.count; i++) {
        char *file = fs_join(path, list.names[i]);
        ok = file ? fs_stat(file, &info, err) : error_no_memory(err, "model", 0);
        if (ok) *out += info.size;
        mem_free(file);
    }
    fs_list_close(&list);
    return ok;
}

static bool make_report(const struct save *save, const struct save_list *list,
                        const struct save_stream *stream, json_t **report, struct error *err) {
    uint64_t bytes, parameters = 0;
    if (!written_bytes(save->path, &bytes, err)) return false;
    for (size_t i = 0; i < list->count; i++)
        if (is_weight_of(list, i)) parameters += (uint64_t)(list->items[i].rows * list->items[i].columns);
    *report =
        json_pack("{s:I, s:I, s:f, s:f, s:o, s:o, s:o}", "bytes", (json_int_t)bytes, "parameters",
                  (json_int_t)parameters, "bits_per_weight", 8 * (double)list->bytes / (double)parameters,
                  "relative_error", save_stream_error(stream), "types", count_types(list), "fallbacks",
                  list_fallbacks(list), "left_out", list_left_out(save->model));
    return *report || error_no_memory(err, "model", 0);
}

/* ---- the writing ---- */

/* Told before the first byte: a place that is none, or that cannot hold it. */
static bool check_room(const struct save *save, const struct save_list *list, struct error *err) {
    char *directory = fs_directory_of(save->path);
    uint64_t free_bytes = 0;
    bool ok = (directory || error_no_memory(err, "model", 0)) && fs_check_directory(save->path, "", err) &&
              fs_free_bytes(directory, &free_bytes, err);
    if (ok && free_bytes < list->bytes) {
        error_set(err, ERROR_DISK, "", "%s: the weights take %.1f MB, %.1f MB are free there", save->path,
                  (double)list->bytes * 1e-6, (double)free_bytes * 1e-6);
        error_fix(err, "Free space there, choose another place, or a smaller type.");
        ok = false;
    }
    mem_free(directory);
    return ok;
}

bool model_save(const struct save *save, json_t **report, struct error *err) {
    struct save_list list;
    struct save_stream *stream = NULL;
    struct fs_info info;
    *report = NULL;
    if (!fs_stat(save->path, &info, err)) return false;
    if (info.kind != FS_NOTHING) {
        error_set(err, ERROR_USAGE, "", "%s exists already", save->path);
        return error_fix(err, "Choose another name, or remove it.");
    }
    if (!save_list_build(&list, save, err)) return false;
    bool ok = check_room(save, &list, err) && save_stream_open(&stream, save, &list, err) &&
              (save->to == CONTAINER_GGUF ? save_gguf(save, &list, stream, err)
                                          : save_hub(save, &list, stream, err)) &&
              make_report(save, &list, stream, report, err);
    save_stream_close(&stream);
    save_list_release(&list);
    return ok;
}
