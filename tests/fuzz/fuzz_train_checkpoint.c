/* A checkpoint of a stranger, read as a resume reads it. What is damaged is passed over as a whole: the state
 * is then that of the older checkpoint beside it, to the bit.
 *
 * Input: a line of six letters, then the five files in the order of `files`, with "\n====\n" between them.
 *   letters 1 to 5   f: a file, d: a directory, p: a pipe, anything else: not there. For MANIFEST also m: not
 * taken from the input but made here, so that every size and digest holds letter 6         o: an older good
 * checkpoint stands beside it
 *
 * The engine is that of tests/golden/data/llama-tied with an adapter of rank 1 on q_proj. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/digest.h"
#include "base/fs.h"
#include "base/mem.h"
#include "fuzz_folder.h"
#include "train/checkpoint.h"

static const char *const files[] = {"adapter/adapter_config.json", "adapter/adapter_model.safetensors",
                                    "optimizer.safetensors", "state.json", "MANIFEST"};
enum { file_count = sizeof files / sizeof *files, manifest = file_count - 1, letters = file_count + 1 };
static const char divider[] = "\n====\n";

struct part {
    char kind;
    const char *data;
    size_t size;
};

static struct {
    char folder[160];           /* of the checkpoint that is read */
    char alone[96], beside[96]; /* a run with that one, and one with an older one too */
    struct engine engine;
    unsigned char *expected[3]; /* adapter and moments as the older one has them */
} fixture;

static int state_row(int i) {
    const struct model_state *state = &fixture.engine.state;
    const int rows[3] = {state->trained, state->moments[0], state->moments[1]};
    return rows[i];
}

static size_t state_bytes(int i) { return (size_t)fixture.engine.state.table.rows[state_row(i)].bytes; }

static unsigned char *state_copy(int i) {
    struct error err;
    unsigned char *copy = malloc(state_bytes(i));
    require(copy &&
            fixture.engine.ops->download(fixture.engine.store, state_row(i), copy, state_bytes(i), &err));
    return copy;
}

static void open_engine(void) {
    static struct model *model;
    static struct device *device;
    const struct device_options threads = {.threads = 1};
    const struct state_options options = {.compute = DTYPE_F32, .train = true};
    const char *targets[] = {"q_proj"};
    const struct method_rules rules = {.targets = targets, .target_count = 1, .rank = 1, .alpha = 2};
    struct method method = {0};
    struct error err;
    const struct device_ops *ops = device_find("ref", &err);
    require(ops && ops->open(&device, &threads, &err));
    require(model_open(&model, TEST_DATA "/golden/data/llama-tied", &err));
    require(method_build(&method, &model->config, &rules, &err));
    require(engine_open(&fixture.engine, ops, device, model, &method, &options, &err));
    method_release(&method); /* the engine has its own */
    require(engine_start(&fixture.engine, 64, &err) && engine_init_trained(&fixture.engine, 7, &err));
}

static void make_folders(void) {
    static const char step[] = "checkpoints/step-00000002";
    char link[160], target[64];
    struct error err;
    make_fuzz_folder();
    snprintf(fixture.alone, sizeof fixture.alone, "%s/alone", fuzz_folder);
    snprintf(fixture.beside, sizeof fixture.beside, "%s/beside", fuzz_folder);
    snprintf(fixture.folder, sizeof fixture.folder, "%s/%s", fixture.alone, step);
    snprintf(link, sizeof link, "%s/%s", fixture.beside, step);
    snprintf(target, sizeof target, "../../alone/%s", step);
    struct progress progress = {.step = 1, .loss = 2, .eval_loss = NAN, .best_loss = NAN};
    char path[64];
    require(checkpoint_save(&fixture.engine, fixture.beside, &progress, "model", path, &err));
    require(symlink(target, link) == 0);
}

static void set_up(void) {
    struct error err;
    open_engine();
    for (int i = 1; i < 3; i++) { /* moments unlike those of a fresh store */
        unsigned char *bytes = calloc(1, state_bytes(i));
        require(bytes);
        bytes[3] = (unsigned char)(60 + i);
        require(fixture.engine.ops->upload(fixture.engine.store, state_row(i), bytes, state_bytes(i), &err));
        free(bytes);
    }
    make_folders();
    for (int i = 0; i < 3; i++) fixture.expected[i] = state_copy(i);
}

static void put_file(const char *name, const void *data, size_t size) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fixture.folder, name);
    FILE *file = fopen(path, "wb");
    require(file && (size == 0 || fwrite(data, 1, size, file) == size) && fclose(file) == 0);
}

static void put_manifest(const struct part *parts) {
    struct buf text = {0};
    struct digest digest;
    buf_text(&text, "{\"version\": 1, \"files\": {");
    for (int i = 0; i < manifest; i++) {
        digest_bytes(parts[i].size ? parts[i].data : "", parts[i].size, &digest);
        buf_printf(&text, "%s\"%s\": {\"bytes\": %zu, \"digest\": \"%s\"}", i ? ", " : "", files[i],
                   parts[i].size, digest.hex);
    }
    require(buf_text(&text, "}}"));
    put_file(files[manifest], text.data, text.size);
    buf_release(&text);
}

static void put_checkpoint(const struct part *parts) {
    char path[256];
    struct error err;
    snprintf(path, sizeof path, "%s/adapter", fixture.folder);
    require(fs_remove_tree(fixture.folder, &err) && fs_make_directories(path, &err));
    for (int i = 0; i < file_count; i++) {
        snprintf(path, sizeof path, "%s/%s", fixture.folder, files[i]);
        if (parts[i].kind == 'f')
            put_file(files[i], parts[i].data, parts[i].size);
        else if (parts[i].kind == 'd')
            require(mkdir(path, 0755) == 0);
        else if (parts[i].kind == 'p')
            require(mkfifo(path, 0644) == 0);
    }
    if (parts[manifest].kind == 'm') put_manifest(parts);
}

static void divide(const char *text, size_t size, struct part *parts) {
    for (int i = 0; i < file_count; i++) {
        const char *end = i < manifest ? memmem(text, size, divider, sizeof divider - 1) : NULL;
        parts[i].data = text;
        parts[i].size = end ? (size_t)(end - text) : size;
        size_t passed = end ? parts[i].size + sizeof divider - 1 : size;
        text += passed;
        size -= passed;
    }
}

static void count_skipped(void *user, const char *message) {
    require(strstr(message, "step-00000002") != NULL);
    ++*(int *)user;
}

/* What was taken is within the bounds that training relies on, and the store's counter agrees. */
static void check_taken(const struct progress *p) {
    struct error err;
    int32_t step;
    require(p->step >= 0 && p->step <= INT32_MAX && p->cursor >= 0 && p->tokens >= 0);
    require(p->epoch >= 0 && p->epoch <= INT32_MAX && p->best_step >= 0);
    require(!isinf(p->loss) && !isinf(p->eval_loss) && !isinf(p->best_loss) && isfinite(p->seconds));
    require(fixture.engine.ops->download(fixture.engine.store, fixture.engine.state.step, &step, sizeof step,
                                         &err) &&
            step == p->step);
}

static void check_older(const struct progress *p) {
    require(p->step == 1 && p->loss == 2 && isnan(p->eval_loss) && isnan(p->best_loss) && p->best_step == 0);
    for (int i = 0; i < 3; i++) {
        unsigned char *copy = state_copy(i);
        require(memcmp(copy, fixture.expected[i], state_bytes(i)) == 0);
        free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct part parts[file_count];
    struct progress progress = {.eval_loss = NAN, .best_loss = NAN, .loss = NAN};
    struct error err;
    int skipped = 0;
    bool found;
    if (size <= letters) return 0;
    if (!fuzz_folder[0]) set_up();
    divide((const char *)data + letters + 1, size - letters - 1, parts);
    for (int i = 0; i < file_count; i++) parts[i].kind = (char)data[i];
    put_checkpoint(parts);
    bool older = data[file_count] == 'o';
    bool ok = checkpoint_load(&fixture.engine, older ? fixture.beside : fixture.alone, &progress, &found,
                              count_skipped, &skipped, &err);
    bool later = !ok && err.code == ERROR_USAGE; /* of a later version: not passed over */
    require(ok == found &&
            (ok || later || (!older && skipped == 1 && err.code == ERROR_INPUT && err.what[0])));
    if (ok) check_taken(&progress);
    if (ok && skipped) check_older(&progress);
    return 0;
}
