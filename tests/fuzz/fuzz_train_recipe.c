/* recipe.yaml is a file of a stranger: reading it must refuse or accept, within its bounds; what was accepted
 * must be written so that it reads back to the same values. */
#include <stdint.h>
#include <stdlib.h>

#include "train/recipe.h"

/* libfyaml 0.7 loses a buffer of its own for the text of some block scalars. Ours are watched by the unit
 * tests under AddressSanitizer. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libfyaml\n"; }

static void check_round_trip(struct recipe *recipe) {
    struct recipe again;
    struct buf text = {0};
    struct error err;
    if (!recipe_init(&again, &err) || !recipe_write_text(recipe, &text, &err)) abort();
    if (!recipe_read_text(&again, text.data, text.size, "again", &err)) abort();
    for (size_t i = 0; i < recipe_row_count; i++)
        if (!setting_equal(&recipe_rows[i], recipe, &again) && recipe->states[i].origin != ORIGIN_AUTO)
            abort();
    buf_release(&text);
    recipe_release(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct recipe recipe;
    struct error err;
    if (!recipe_init(&recipe, &err)) return 0;
    if (recipe_read_text(&recipe, (const char *)data, size, "fuzz", &err)) check_round_trip(&recipe);
    recipe_release(&recipe);
    return 0;
}
