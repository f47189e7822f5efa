/* What a recipe says of devices: one, or a list of them that as many processes share. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "device/device.h"
#include "train/recipe.h"

const char *recipe_device_name(const struct recipe *recipe) {
    return recipe->device ? recipe->device : "auto";
}

/* Item `wanted` of "cuda:0,1" or "cpu,cpu": a number alone is one more of the kind before it. Returns how
 * many there are. */
static int device_item(const char *list, int wanted, char out[48]) {
    const char *kind = list;
    int count = 0;
    for (const char *at = list;; count++) {
        int size = (int)strcspn(at, ",");
        bool number = size > 0 && (int)strspn(at, "0123456789") == size;
        if (!number) kind = at;
        if (count == wanted && number)
            snprintf(out, 48, "%.*s:%.*s", (int)strcspn(kind, ":,"), kind, size, at);
        else if (count == wanted)
            snprintf(out, 48, "%.*s", size, at);
        if (!at[size]) return count + 1;
        at += size + 1;
    }
}

/* A GPU each, where only the kind was named. */
static bool one_each(const char *name) {
    struct error ignored;
    const struct device_ops *ops = device_find(name, &ignored);
    return ops && !strcmp(ops->name, "cuda") && (!strcmp(name, "cuda") || !strcmp(name, "auto"));
}

/* Its number, where the device is a GPU; the kind alone is the first one. */
static const char *gpu_number(const char *name) {
    const char *number = strchr(name, ':');
    return strncmp(name, "cuda", 4) != 0 ? NULL : number ? number + 1 : "0";
}

/* A GPU has room for one process of a run: NCCL refuses a second. */
static bool check_twice(const char *list, int items, struct error *err) {
    char name[48], other[48];
    for (int i = 1; i < items; i++) {
        device_item(list, i, name);
        const char *number = gpu_number(name);
        for (int j = 0; number && j < i; j++) {
            device_item(list, j, other);
            if (!gpu_number(other) || strcmp(number, gpu_number(other)) != 0) continue;
            error_set(err, ERROR_USAGE, "train", "--device %s names %s twice", list, name);
            return error_fix(err, "Give each process a GPU of its own, as in cuda:0,1.");
        }
    }
    return true;
}

/* A plan is of the first device alone, and a run of all: neither begins where one of them is none. */
static bool check_items(const char *list, int items, struct error *err) {
    char name[48];
    if (!check_twice(list, items, err)) return false;
    for (int i = 0; i < items; i++) {
        device_item(list, i, name);
        if (!device_find(name, err)) return false;
    }
    return true;
}

bool recipe_own_device(const struct recipe *recipe, bool planning, char out[48], struct error *err) {
    const char *name = recipe_device_name(recipe);
    int ranks = (int)recipe->world_size, rank = (int)recipe->rank, items = device_item(name, 0, out);
    if (rank >= ranks) {
        error_set(err, ERROR_USAGE, "train", "there is no rank %d among %d %s", rank, ranks,
                  text_plural((uint64_t)ranks, "process", "processes"));
        return error_fix(err,
                         "Ranks are counted from 0; give each process its own, and --world-size to all.");
    }
    if (items > 1 && !check_items(name, items, err)) return false;
    if (items == 1 && ranks > 1 && one_each(name)) snprintf(out, 48, "cuda:%d", rank);
    if (items == 1 || (planning && ranks == 1)) return true;
    if (items == ranks) return device_item(name, rank, out) == items;
    error_set(err, ERROR_USAGE, "train", "--device %s names %d devices, --world-size is %d", name, items,
              ranks);
    return error_fix(err,
                     "hone train starts a process for each where --device is given on its command line.");
}

/* How many processes there will be: a plan is one of them's. */
int recipe_ranks(const struct recipe *recipe) {
    char first[48];
    return recipe->world_size > 1 ? (int)recipe->world_size
                                  : device_item(recipe_device_name(recipe), 0, first);
}

int64_t recipe_own_batch(const struct recipe *recipe) {
    return (recipe->batch_size - 1) / recipe_ranks(recipe) + 1;
}
