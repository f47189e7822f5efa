/* README.md of an adapter: a model card with YAML front matter, as hubs read it. Every value is shown
 * with control and bidirectional characters escaped, and paths shortened to their last part. */
#include <string.h>

#include "base/fs.h"
#include "base/mem.h"
#include "base/text.h"
#include "format/peft_internal.h"

/* A double-quoted YAML scalar; JSON's escapes are YAML's too. */
static bool put_quoted(struct buf *out, const char *text, struct error *err) {
    struct buf safe = {0};
    text_escape(&safe, text, strlen(text), false);
    json_t *value = safe.failed ? NULL : json_stringn(safe.data ? safe.data : "", safe.size);
    bool ok = value ? json_write(value, out, err) : error_no_memory(err, "peft", safe.size);
    json_decref(value);
    buf_release(&safe);
    return ok;
}

/* Markdown that shows the text as it is. */
static void put_plain(struct buf *out, const char *text) {
    struct buf safe = {0};
    text_escape(&safe, text, strlen(text), false);
    if (safe.failed) out->failed = true;
    for (size_t i = 0; i < safe.size; i++) {
        if (strchr("\\`*_[]<>|#&!", safe.data[i])) buf_byte(out, '\\');
        buf_byte(out, safe.data[i]);
    }
    buf_release(&safe);
}

static bool put_value(struct buf *out, const json_t *value, struct error *err) {
    struct buf number = {0};
    if (json_is_string(value)) {
        put_plain(out, peft_published(json_string_value(value)));
        return true;
    }
    if (json_is_array(value) || json_is_object(value)) return true; /* facts are single values */
    bool ok = json_write(value, &number, err);
    if (ok) buf_append(out, number.data, number.size);
    buf_release(&number);
    return ok;
}

static bool put_facts(struct buf *out, const json_t *card, struct error *err) {
    const char *key;
    json_t *value;
    if (json_object_size(card) == 0) return true;
    buf_text(out, "\n## Facts of the run\n\n| fact | value |\n|---|---|\n");
    json_object_foreach((json_t *)(uintptr_t)card, key, value) {
        buf_text(out, "| ");
        put_plain(out, key);
        buf_text(out, " | ");
        if (!put_value(out, value, err)) return false;
        buf_text(out, " |\n");
    }
    return true;
}

bool peft_write_card(const char *directory, const struct peft_config *config, const json_t *card,
                     struct error *err) {
    struct buf text = {0};
    const char *base = config->base_model ? peft_published(config->base_model) : NULL;
    char *path = NULL;
    bool ok = true;
    buf_text(&text, "---\n");
    if (base) {
        buf_text(&text, "base_model: ");
        ok = put_quoted(&text, base, err);
        buf_text(&text, "\n");
    }
    buf_text(&text, "library_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n---\n\n# ");
    buf_text(&text, config->dora ? "DoRA adapter" : "LoRA adapter");
    if (base) {
        buf_text(&text, " for ");
        put_plain(&text, base);
    }
    buf_printf(&text, "\n\nRank %lld, alpha %g, dropout %g, on: ", (long long)config->rank, config->alpha,
               config->dropout);
    for (size_t i = 0; i < config->target_count; i++) {
        buf_text(&text, i ? ", " : "");
        put_plain(&text, config->targets[i]);
    }
    buf_text(&text, ".\n");
    ok = ok && put_facts(&text, card, err);
    if (ok && (text.failed || !(path = fs_join(directory, "README.md"))))
        ok = error_no_memory(err, "peft", text.size);
    ok = ok && fs_write_atomic(path, text.data, text.size, err);
    mem_free(path);
    buf_release(&text);
    return ok;
}
