#include "format/names_internal.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

enum { shown_bytes = 100 }; /* of the original text */

static int compare(const struct name *a, const struct name *b) {
    if (a->size != b->size) return a->size < b->size ? -1 : 1;
    return a->size ? memcmp(a->data, b->data, a->size) : 0;
}

/* Heapsort: n log n for every input, in place, and, unlike qsort, with a context. */
static void sift(const struct name *names, uint32_t *order, size_t root, size_t count) {
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(&names[order[child]], &names[order[child + 1]]) < 0) child++;
        if (compare(&names[order[root]], &names[order[child]]) >= 0) return;
        uint32_t held = order[root];
        order[root] = order[child];
        order[child] = held;
    }
}

bool name_index_build(struct name_index *index, const struct name *names, size_t count, size_t *duplicate) {
    memset(index, 0, sizeof *index);
    *duplicate = count;
    if (count > UINT32_MAX) return false;
    uint32_t *order = mem_array(count, sizeof *order);
    if (!order) return false;
    for (size_t i = 0; i < count; i++) order[i] = (uint32_t)i;
    for (size_t i = count / 2; i-- > 0;) sift(names, order, i, count);
    for (size_t end = count; end > 1; end--) {
        uint32_t held = order[0];
        order[0] = order[end - 1];
        order[end - 1] = held;
        sift(names, order, 0, end - 1);
    }
    for (size_t i = 1; i < count && *duplicate == count; i++)
        if (compare(&names[order[i - 1]], &names[order[i]]) == 0) *duplicate = order[i];
    index->names = names;
    index->order = order;
    index->count = count;
    return true;
}

void name_index_release(struct name_index *index) {
    mem_free(index->order);
    memset(index, 0, sizeof *index);
}

size_t name_index_find(const struct name_index *index, const char *name) {
    struct name wanted = {name, strlen(name)};
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare(&index->names[index->order[middle]], &wanted);
        if (order == 0) return index->order[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return index->count;
}

const char *shown_text(struct shown *shown, const char *text, size_t size) {
    struct buf escaped = {0};
    bool cut = size > shown_bytes;
    text_escape(&escaped, text, cut ? shown_bytes : size, false);
    size_t used = escaped.failed ? 0 : escaped.size;
    if (used > sizeof shown->text - 4) {
        used = sizeof shown->text - 4;
        cut = true;
    }
    if (used) memcpy(shown->text, escaped.data, used);
    memcpy(shown->text + used, cut ? "..." : "", cut ? 4 : 1);
    buf_release(&escaped);
    return shown->text;
}
