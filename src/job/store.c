#include "job/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/digest.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"

enum { longest_name = 100, largest_record = 1 << 20 };

bool store_directory(char **out, struct error *err) {
    const char *own = getenv("HONE_HOME"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    struct buf path = {0};
    *out = NULL;
    if (own && *own)
        buf_printf(&path, "%s/models", own);
    else if (data && *data == '/')
        buf_printf(&path, "%s/hone/models", data);
    else if (home && *home)
        buf_printf(&path, "%s/.local/share/hone/models", home);
    else {
        error_set(err, ERROR_FAILED, "store", "there is no place for the store");
        error_why(err, "neither HONE_HOME nor HOME is set");
        return error_fix(err, "Set HONE_HOME to a directory.");
    }
    *out = buf_detach(&path, NULL);
    return *out || error_no_memory(err, "store", 0);
}

bool store_name_ok(const char *name) {
    size_t size = strlen(name);
    if (!size || size > longest_name || *name == '.') return false;
    if (size > 5 && strcmp(name + size - 5, ".json") == 0) return false; /* the records' own names */
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == size;
}

bool store_name_from(const char *path, char **out, struct error *err) {
    struct buf name = {0};
    const char *base = fs_base_name(path), *dot = strrchr(base, '.');
    size_t size = dot && strcmp(dot, ".gguf") == 0 ? (size_t)(dot - base) : strlen(base);
    for (size_t i = 0; i < size && i < longest_name; i++) {
        char c = base[i];
        if (c >= 'A' && c <= 'Z') c = (char)(c | 0x20);
        bool legal = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        buf_byte(&name, legal && !(i == 0 && c == '.') ? c : '-');
    }
    *out = buf_detach(&name, NULL);
    if (!*out) return error_no_memory(err, "store", size);
    if (store_name_ok(*out)) return true;
    mem_free(*out);
    *out = NULL;
    error_set(err, ERROR_USAGE, "pull", "no name can be made from %s", path);
    return error_fix(err, "Give one: --name my-model.");
}

/* directory/NAME and directory/NAME.json, from mem_alloc. */
static bool entry_paths(const char *name, char **link, char **record, struct error *err) {
    char *directory = NULL;
    struct buf file = {0};
    if (!store_directory(&directory, err)) return false;
    buf_printf(&file, "%s/%s.json", directory, name);
    *link = fs_join(directory, name);
    *record = buf_detach(&file, NULL);
    mem_free(directory);
    if (*link && *record) return true;
    mem_free(*link);
    mem_free(*record);
    return error_no_memory(err, "store", 0);
}

static bool put_file(struct buf *out, const char *path, struct error *err) {
    struct fs_info info;
    if (!fs_stat(path, &info, err)) return false;
    if (info.kind == FS_FILE)
        buf_printf(out, "%s %llu %lld\n", fs_base_name(path), (unsigned long long)info.size,
                   (long long)info.modified_ns);
    return true;
}

/* What a look at the file, or at each one of the directory, shows without reading it, as a digest. */
static bool look_at(const char *path, struct digest *out, struct error *err) {
    struct buf seen = {0};
    struct fs_list list = {0};
    bool directory = fs_kind_of(path) == FS_DIRECTORY;
    bool ok = directory ? fs_list_open(&list, path, err) : put_file(&seen, path, err);
    for (size_t i = 0; ok && i < list.count; i++) {
        char *file = fs_join(path, list.names[i]);
        ok = file ? put_file(&seen, file, err) : error_no_memory(err, "store", 0);
        mem_free(file);
    }
    fs_list_close(&list);
    if (ok && seen.failed) ok = error_no_memory(err, "store", seen.size);
    if (ok) digest_bytes(seen.data ? seen.data : "", seen.size, out);
    buf_release(&seen);
    return ok;
}

static bool write_record(const json_t *record, const char *path, const char *file, struct error *err) {
    struct digest seen;
    json_t *whole = json_copy((json_t *)record);
    if (whole && fs_kind_of(path) != FS_NOTHING) {
        if (!look_at(path, &seen, err)) {
            json_decref(whole);
            return false;
        }
        json_object_put(&whole, "files", json_string(seen.hex));
    }
    bool ok = whole ? json_write_file(whole, file, true, err) : error_no_memory(err, "store", 0);
    json_decref(whole);
    return ok;
}

bool store_put(const char *name, const char *absolute_path, const json_t *record, struct error *err) {
    char *directory = NULL, *link = NULL, *file = NULL;
    struct error ignored;
    bool ok = store_directory(&directory, err) && fs_make_directories(directory, err) &&
              entry_paths(name, &link, &file, err) && write_record(record, absolute_path, file, err);
    /* A record without its link would name a model that is not there. */
    if (ok && !fs_symlink(absolute_path, link, err)) {
        fs_remove(file, &ignored);
        ok = false;
    }
    mem_free(directory);
    mem_free(link);
    mem_free(file);
    return ok;
}

static bool refuse_missing(const char *name, struct error *err) {
    struct buf names = {0};
    json_t *list = NULL, *one;
    size_t i;
    struct error ignored;
    if (store_list(&list, &ignored))
        json_array_foreach(list, i, one)
            buf_printf(&names, "%s%s", i ? ", " : "", json_string_value(json_object_get(one, "name")));
    error_set(err, ERROR_INPUT, "model", "%.300s is neither a file, a directory nor a name in the store",
              name);
    if (names.size)
        error_fix(err, "The store holds: %.400s.", names.data);
    else
        error_fix(err, "The store is empty; `hone pull PATH --name NAME` fills it.");
    json_decref(list);
    buf_release(&names);
    return false;
}

bool store_resolve(const char *name, char **out, struct error *err) {
    char *link = NULL, *record = NULL;
    *out = NULL;
    if (store_name_ok(name)) {
        if (!entry_paths(name, &link, &record, err)) return false;
        bool entry = fs_kind_of(record) != FS_NOTHING, there = fs_kind_of(link) != FS_NOTHING;
        mem_free(record);
        if (entry && there) {
            *out = link;
            return true;
        }
        mem_free(link);
        if (entry && fs_kind_of(name) == FS_NOTHING) {
            error_set(err, ERROR_INPUT, "model", "the store's %s points to a place where nothing is any more",
                      name);
            return error_fix(err, "Pull it again: hone pull PATH --name %s.", name);
        }
    }
    if (fs_kind_of(name) == FS_NOTHING) return refuse_missing(name, err);
    *out = mem_strdup(name);
    return *out || error_no_memory(err, "store", strlen(name));
}

bool store_differs(const char *name, json_t **record, struct error *err) {
    char *link = NULL, *file = NULL;
    struct digest seen;
    struct error broken;
    *record = NULL;
    if (!store_name_ok(name)) return true;
    if (!entry_paths(name, &link, &file, err)) return false;
    bool ok = true, same = true;
    if (fs_kind_of(file) != FS_NOTHING && fs_kind_of(link) != FS_NOTHING &&
        json_read_file(record, file, largest_record, &broken)) {
        const char *then = json_string_value(json_object_get(*record, "files"));
        ok = look_at(link, &seen, err);
        same = !json_is_string(json_object_get(*record, "digest")) || (ok && then && !strcmp(then, seen.hex));
    }
    mem_free(link);
    mem_free(file);
    if (ok && !same) return true;
    json_decref(*record);
    *record = NULL;
    return ok;
}

bool store_list(json_t **out, struct error *err) {
    char *directory = NULL;
    struct fs_list names = {0};
    *out = json_array();
    bool ok = *out || error_no_memory(err, "store", 0);
    ok = ok && store_directory(&directory, err);
    if (ok && fs_kind_of(directory) != FS_NOTHING) ok = fs_list_open(&names, directory, err);
    for (size_t i = 0; ok && i < names.count; i++) {
        size_t size = strlen(names.names[i]);
        if (size < 6 || strcmp(names.names[i] + size - 5, ".json") != 0) continue;
        char *path = fs_join(directory, names.names[i]);
        json_t *record = NULL;
        struct error broken; /* a damaged record hides its model, not the others */
        bool read = path && json_read_file(&record, path, largest_record, &broken) &&
                    json_is_string(json_object_get(record, "name"));
        if (read) json_object_del(record, "files");
        const char *model = json_string_value(json_object_get(record, "path"));
        if (read) json_object_put(&record, "there", json_boolean(model && fs_kind_of(model) != FS_NOTHING));
        if (read) ok = json_array_append(*out, record) == 0 || error_no_memory(err, "store", 0);
        json_decref(record);
        mem_free(path);
    }
    fs_list_close(&names);
    mem_free(directory);
    if (!ok) {
        json_decref(*out);
        *out = NULL;
    }
    return ok;
}
