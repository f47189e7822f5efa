#include "fault/disk_log.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "fault/disk_log_calls.h"

enum { most_files = 1024, most_nodes = 4096, block = 512 };

static void require(bool holds) {
    if (!holds) abort();
}

/* ---- a tree of files in memory ---- */

struct entry {
    char *name;
    int node;
};

struct node {
    bool directory;
    struct entry *entries;
    size_t count; /* of entries */
    unsigned char *bytes;
    size_t size;
};

struct tree {
    struct node nodes[most_nodes]; /* 0: the root */
};

static struct entry *find_entry(struct node *directory, const char *name) {
    for (size_t i = 0; i < directory->count; i++)
        if (!strcmp(directory->entries[i].name, name)) return &directory->entries[i];
    return NULL;
}

static void drop_entry(struct node *directory, struct entry *entry) {
    if (!entry) return;
    free(entry->name);
    *entry = directory->entries[--directory->count];
}

static void put_entry(struct node *directory, const char *name, int node) {
    struct entry *entry = find_entry(directory, name);
    if (!entry) {
        directory->entries = realloc(directory->entries, (directory->count + 1) * sizeof *directory->entries);
        entry = &directory->entries[directory->count++];
        entry->name = strdup(name);
    }
    entry->node = node;
}

static void set_size(struct node *file, size_t size) {
    file->bytes = realloc(file->bytes, size + 1);
    if (size > file->size) memset(file->bytes + file->size, 0, size - file->size);
    file->size = size;
}

static void tree_release(struct tree *tree) {
    for (size_t n = 0; n < most_nodes; n++) {
        struct node *node = &tree->nodes[n];
        for (size_t i = 0; i < node->count; i++) free(node->entries[i].name);
        free(node->entries);
        free(node->bytes);
    }
    free(tree);
}

/* ---- the log ---- */

struct step {
    enum kind { ENTER, LEAVE, RENAME, EXCHANGE, WRITE, CUT, SYNC } kind;
    int target;        /* node: the directory whose entries change, or the file whose bytes do */
    int node;          /* that is named: ENTER, RENAME, EXCHANGE */
    int other;         /* that gets the old name: EXCHANGE */
    bool directory;    /* what is made */
    char *name, *from; /* in the directory */
    size_t at, size;   /* of bytes */
    unsigned char *bytes;
};

static struct {
    char root[PATH_MAX];
    bool recording;
    struct step *steps;
    size_t count;
    struct tree *now;      /* as the program sees it */
    int used;              /* nodes */
    int files[most_files]; /* the node behind a descriptor; -1: none */
} self;

static void write_bytes(struct node *file, const struct step *step) {
    if (step->at + step->size > file->size) set_size(file, step->at + step->size);
    memcpy(file->bytes + step->at, step->bytes, step->size);
}

static void apply(struct tree *tree, const struct step *step) {
    struct node *target = &tree->nodes[step->target];
    struct entry *old;
    switch (step->kind) {
    case ENTER:
        tree->nodes[step->node].directory = step->directory;
        put_entry(target, step->name, step->node);
        break;
    case LEAVE: drop_entry(target, find_entry(target, step->name)); break;
    case RENAME:
        old = find_entry(target, step->from);
        if (old && old->node == step->node) drop_entry(target, old);
        put_entry(target, step->name, step->node);
        break;
    case EXCHANGE:
        put_entry(target, step->name, step->node);
        put_entry(target, step->from, step->other);
        break;
    case WRITE: write_bytes(target, step); break;
    case CUT: set_size(target, step->size); break;
    case SYNC: break;
    }
}

static void record(struct step step) {
    if (step.name) step.name = strdup(step.name);
    if (step.from) step.from = strdup(step.from);
    if (step.bytes) {
        unsigned char *copy = malloc(step.size + 1);
        memcpy(copy, step.bytes, step.size);
        step.bytes = copy;
    }
    self.steps = realloc(self.steps, (self.count + 1) * sizeof *self.steps);
    self.steps[self.count++] = step;
    apply(self.now, &step);
}

void disk_log_begin(const char *root) {
    disk_log_release();
    require(realpath(root, self.root));
    self.now = calloc(1, sizeof *self.now);
    self.now->nodes[0].directory = true;
    self.used = 1;
    for (int i = 0; i < most_files; i++) self.files[i] = -1;
    self.recording = true;
}

void disk_log_end(void) { self.recording = false; }

void disk_log_release(void) {
    for (size_t i = 0; i < self.count; i++) {
        free(self.steps[i].name);
        free(self.steps[i].from);
        free(self.steps[i].bytes);
    }
    free(self.steps);
    if (self.now) tree_release(self.now);
    memset(&self, 0, sizeof self);
}

size_t disk_log_count(void) { return self.count; }

const char *disk_log_step(size_t index) {
    static const char *const kinds[] = {"making", "removal", "rename", "exchange", "write", "cut", "sync"};
    static char text[300];
    const struct step *step = &self.steps[index];
    snprintf(text, sizeof text, "%s of %s (%d, %zu bytes)", kinds[step->kind],
             step->name ? step->name : "a file", step->target, step->size);
    return text;
}

/* ---- what the calls do ---- */

/* Where a path leads: the node of its directory and its last name, within the path. False: not below the
 * root. */
static bool place(const char *path, int *directory, const char **name) {
    size_t size = strlen(self.root);
    if (!self.recording || strncmp(path, self.root, size) || path[size] != '/') return false;
    *directory = 0;
    for (*name = path + size + 1;;) {
        const char *slash = strchr(*name, '/');
        if (!slash) return true;
        char part[NAME_MAX + 1];
        snprintf(part, sizeof part, "%.*s", (int)(slash - *name), *name);
        const struct entry *entry = find_entry(&self.now->nodes[*directory], part);
        if (!entry) return false;
        *directory = entry->node;
        *name = slash + 1;
    }
}

static int node_at(int directory, const char *name) {
    const struct entry *entry = find_entry(&self.now->nodes[directory], name);
    return entry ? entry->node : -1;
}

static int enter(int directory, const char *name, bool is_directory) {
    require(self.used < most_nodes);
    int node = self.used++;
    record((struct step){
        .kind = ENTER, .target = directory, .node = node, .directory = is_directory, .name = (char *)name});
    return node;
}

void disk_log_opened(int fd, const char *path, int flags) {
    int directory;
    const char *name;
    if (fd < 0 || fd >= most_files) return;
    if (self.recording && !strcmp(path, self.root)) self.files[fd] = 0;
    if (!place(path, &directory, &name)) return;
    int node = *name ? node_at(directory, name) : directory;
    if (node < 0) node = enter(directory, name, false);
    if (flags & O_TRUNC && self.now->nodes[node].size) record((struct step){.kind = CUT, .target = node});
    self.files[fd] = node;
}

void disk_log_closed(int fd) {
    if (fd >= 0 && fd < most_files) self.files[fd] = -1;
}

static int node_of(int fd) { return self.recording && fd >= 0 && fd < most_files ? self.files[fd] : -1; }

void disk_log_written(int fd, const void *bytes, size_t size, size_t at) {
    int node = node_of(fd);
    if (node >= 0)
        record((struct step){
            .kind = WRITE, .target = node, .at = at, .size = size, .bytes = (void *)(uintptr_t)bytes});
}

void disk_log_cut(int fd, size_t size) {
    int node = node_of(fd);
    if (node >= 0) record((struct step){.kind = CUT, .target = node, .size = size});
}

void disk_log_synced(int fd) {
    int node = node_of(fd);
    if (node >= 0) record((struct step){.kind = SYNC, .target = node});
}

void disk_log_made(const char *path) {
    int directory;
    const char *name;
    if (place(path, &directory, &name)) enter(directory, name, true);
}

void disk_log_left(const char *path) {
    int directory;
    const char *name;
    if (place(path, &directory, &name))
        record((struct step){.kind = LEAVE, .target = directory, .name = (char *)(uintptr_t)name});
}

void disk_log_renamed(const char *from, const char *to, bool exchanged) {
    int directory, other;
    const char *name, *old;
    if (!place(to, &directory, &name)) return;
    require(place(from, &other, &old) && other == directory); /* others would need two directories synced */
    record((struct step){.kind = exchanged ? EXCHANGE : RENAME,
                         .target = directory,
                         .node = node_at(directory, old),
                         .other = node_at(directory, name),
                         .name = (char *)(uintptr_t)name,
                         .from = (char *)(uintptr_t)old});
}

/* ---- after a failure of power ---- */

static bool is_synced(size_t index, size_t count) {
    for (size_t i = index + 1; i < count; i++)
        if (self.steps[i].kind == SYNC && self.steps[i].target == self.steps[index].target) return true;
    return false;
}

static bool draws(uint64_t seed, size_t step, size_t piece) {
    uint32_t words[4];
    philox(seed, (uint32_t[4]){(uint32_t)step, (uint32_t)piece, 0, 0}, words);
    return words[0] & 1;
}

/* A write of which only some bytes have come to the disk. */
static void apply_lossy(struct tree *tree, const struct step *step, size_t index, enum disk_loss loss,
                        uint64_t seed) {
    struct step left = *step;
    left.bytes = malloc(step->size + 1);
    memcpy(left.bytes, step->bytes, step->size);
    if (loss == DISK_DATA_LOST) memset(left.bytes, 0, left.size);
    if (loss == DISK_DATA_TORN) left.size /= 2;
    for (size_t at = 0; loss == DISK_SOME_LOST && at < left.size; at += block)
        if (draws(seed, index, at / block + 1))
            memset(left.bytes + at, 0, left.size - at < block ? left.size - at : block);
    apply(tree, &left);
    free(left.bytes);
}

static void apply_unsynced(struct tree *tree, size_t index, enum disk_loss loss, uint64_t seed) {
    const struct step *step = &self.steps[index];
    if (loss == DISK_ALL_LOST || (loss == DISK_SOME_LOST && draws(seed, index, 0))) return;
    if (step->kind == WRITE)
        apply_lossy(tree, step, index, loss, seed);
    else
        apply(tree, step);
}

static void lay_node(const struct tree *tree, const struct node *node, const char *path) {
    char below[PATH_MAX];
    if (!node->directory) {
        FILE *file = fopen(path, "wb");
        require(file &&
                fwrite(node->size ? node->bytes : (const void *)"", 1, node->size, file) == node->size);
        fclose(file);
        return;
    }
    require(mkdir(path, 0755) == 0);
    for (size_t i = 0; i < node->count; i++) {
        snprintf(below, sizeof below, "%s/%s", path, node->entries[i].name);
        lay_node(tree, &tree->nodes[node->entries[i].node], below);
    }
}

void disk_log_lay(size_t count, enum disk_loss loss, uint64_t seed, const char *directory) {
    struct tree *tree = calloc(1, sizeof *tree);
    tree->nodes[0].directory = true;
    for (size_t i = 0; i < count; i++) {
        const struct step *step = &self.steps[i];
        if (step->kind == ENTER)
            tree->nodes[step->node].directory = step->directory; /* even where it has no name */
        if (loss == DISK_NOTHING_LOST || is_synced(i, count))
            apply(tree, step);
        else
            apply_unsynced(tree, i, loss, seed);
    }
    lay_node(tree, &tree->nodes[0], directory);
    tree_release(tree);
}
