#include "text/example.h"

#include <string.h>

#include "base/checked.h"
#include "base/mem.h"
#include "base/text.h"
#include "text/example_internal.h"

/* ---- tokens of a rendering ---- */

static bool reserve_tokens(struct tokens *tokens, size_t extra, struct error *err) {
    size_t wanted = tokens->count + extra;
    if (wanted <= tokens->capacity) return true;
    if (wanted < 64) wanted = 64; /* room for what the tokenizer appends */
    int32_t *ids = mem_realloc(tokens->ids, wanted * sizeof *ids);
    if (ids) tokens->ids = ids;
    uint32_t *starts = mem_realloc(tokens->starts, wanted * sizeof *starts);
    if (starts) tokens->starts = starts;
    if (!ids || !starts) return error_no_memory(err, "data", wanted * sizeof *ids);
    tokens->capacity = wanted;
    return true;
}

static bool push_token(struct tokens *tokens, int32_t id, size_t start, struct error *err) {
    if (!reserve_tokens(tokens, 1, err)) return false;
    tokens->ids[tokens->count] = id;
    tokens->starts[tokens->count++] = (uint32_t)start;
    return true;
}

/* BOS before text that no template made, where the tokenizer asks; not twice. */
static bool encode_bare(const struct tokenizer *tokenizer, const char *text, size_t size, struct tokens *out,
                        struct error *err) {
    int32_t bos = tokenizer_bos(tokenizer);
    bool ask = tokenizer_adds_bos(tokenizer) && bos >= 0;
    size_t at = out->count;
    if (ask && !push_token(out, bos, 0, err)) return false;
    if (!tokenizer_encode(tokenizer, text, size, true, out, err)) return false;
    if (!ask || out->count < at + 2 || out->ids[at + 1] != bos) return true;
    memmove(out->ids + at, out->ids + at + 1, (out->count - at - 1) * sizeof *out->ids);
    memmove(out->starts + at, out->starts + at + 1, (out->count - at - 1) * sizeof *out->starts);
    out->count--;
    return true;
}

static bool mark(struct marked_tokens *out, const struct rendering *rendering, struct error *err) {
    const struct tokens *tokens = &out->tokens;
    if (tokens->count > out->trained_capacity) {
        uint8_t *trained = mem_realloc(out->trained, tokens->count);
        if (!trained) return error_no_memory(err, "data", tokens->count);
        out->trained = trained;
        out->trained_capacity = tokens->count;
    }
    size_t span = 0;
    out->supervised = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        size_t start = tokens->starts[i];
        while (span < rendering->trained.count && rendering->trained.spans[span].end <= start) span++;
        bool inside = span < rendering->trained.count && rendering->trained.spans[span].first <= start;
        out->trained[i] = inside || (rendering->bare && start == rendering->text.size);
        out->supervised += i > 0 && out->trained[i];
    }
    return true;
}

bool rendering_tokens(struct marked_tokens *out, const struct renderer *renderer,
                      const struct rendering *rendering, struct error *err) {
    const struct tokenizer *tokenizer = renderer->tokenizer;
    const char *text = rendering->text.data ? rendering->text.data : "";
    size_t size = rendering->text.size;
    int32_t eos = tokenizer_eos(tokenizer);
    out->tokens.count = 0;
    if (size >= UINT32_MAX) return error_set(err, ERROR_INPUT, "data", "a text of %zu bytes", size);
    if (!rendering->bare)
        return tokenizer_encode(tokenizer, text, size, true, &out->tokens, err) && mark(out, rendering, err);
    if (!encode_bare(tokenizer, text, size, &out->tokens, err)) return false;
    bool ended = out->tokens.count > 0 && out->tokens.ids[out->tokens.count - 1] == eos && size > 0;
    if (eos >= 0 && !ended && !push_token(&out->tokens, eos, size, err)) return false;
    return mark(out, rendering, err);
}

void marked_tokens_release(struct marked_tokens *marked) {
    tokens_release(&marked->tokens);
    mem_free(marked->trained);
    memset(marked, 0, sizeof *marked);
}

bool renderer_prompt_tokens(const struct renderer *renderer, const json_t *messages, const json_t *tools,
                            struct tokens *out, struct error *err) {
    struct buf text = {0};
    bool ok = renderer_prompt(renderer, messages, tools, &text, err);
    const char *bytes = text.data ? text.data : "";
    if (ok && renderer->template)
        ok = tokenizer_encode(renderer->tokenizer, bytes, text.size, true, out, err);
    else if (ok)
        ok = encode_bare(renderer->tokenizer, bytes, text.size, out, err);
    buf_release(&text);
    return ok;
}

/* ---- examples ---- */

struct builder {
    struct examples *out;
    const struct renderer *renderer;
    struct dataset *dataset;
    size_t capacity;
    struct marked_tokens marked; /* of the rendering at hand */
    /* --overlength refuse */
    size_t over, longest, first_over, first_length; /* rows, tokens, row index, tokens */
};

static bool add_example(struct builder *builder, const struct dataset_row *row, size_t first, size_t count,
                        struct error *err) {
    struct examples *out = builder->out;
    if (out->count == builder->capacity) {
        size_t capacity = builder->capacity ? builder->capacity * 2 : 64, bytes;
        if (!checked_size_mul(capacity, sizeof *out->items, &bytes)) return error_no_memory(err, "data", 0);
        struct example *grown = mem_realloc(out->items, bytes);
        if (!grown) return error_no_memory(err, "data", bytes);
        out->items = grown;
        builder->capacity = capacity;
    }
    int32_t *ids = arena_array(&out->arena, count, sizeof *ids);
    uint8_t *trained = arena_alloc(&out->arena, count);
    if (!ids || !trained) return error_no_memory(err, "data", count * sizeof *ids);
    memcpy(ids, builder->marked.tokens.ids + first, count * sizeof *ids);
    memcpy(trained, builder->marked.trained + first, count);
    uint32_t supervised = 0;
    for (size_t i = 1; i < count; i++) supervised += trained[i];
    out->items[out->count++] = (struct example){.row = (uint32_t)row->index,
                                                .count = (uint32_t)count,
                                                .supervised = supervised,
                                                .ids = ids,
                                                .trained = trained};
    out->counts.tokens += count;
    out->counts.supervised += supervised;
    return true;
}

static bool any_trained(const struct builder *builder, size_t first, size_t count) {
    for (size_t i = first + 1; i < first + count; i++)
        if (builder->marked.trained[i]) return true;
    return false;
}

/* What happened to the examples of one row, so that the row is counted once. */
struct row_fate {
    bool truncated, dropped, split, kept;
};

static bool add_pieces(struct builder *builder, const struct dataset_row *row, struct row_fate *fate,
                       struct error *err) {
    size_t count = builder->marked.tokens.count, most = builder->renderer->max_length;
    bool over = most && count > most, split = over && builder->renderer->overlength == OVERLENGTH_SPLIT;
    if (over && builder->renderer->overlength == OVERLENGTH_DROP) {
        fate->dropped = true;
        return true;
    }
    if (over && builder->renderer->overlength == OVERLENGTH_REFUSE) {
        if (!builder->over++) {
            builder->first_over = row->index;
            builder->first_length = count;
        }
        if (count > builder->longest) builder->longest = count;
    }
    fate->split |= split;
    fate->truncated |= over && !split;
    for (size_t first = 0; first < count; first += most) {
        size_t size = over && count - first > most ? most : count - first;
        if (any_trained(builder, first, size)) {
            fate->kept = true;
            if (!add_example(builder, row, first, size, err)) return false;
        }
        if (!split) break;
    }
    return true;
}

static bool add_row(struct builder *builder, const struct dataset_row *row, struct error *err) {
    const char *name = builder->dataset->files[row->file];
    struct example_counts *counts = &builder->out->counts;
    struct renderings renderings;
    struct row_fate fate = {0};
    bool ok = true, refused;
    if (!row_render(&renderings, builder->renderer, name, row, &refused, err))
        return refused ? dataset_refuse_row(builder->dataset, row->index, err->what, err) : false;
    for (size_t i = 0; ok && i < renderings.count; i++) {
        ok = rendering_tokens(&builder->marked, builder->renderer, &renderings.items[i], err) ||
             row_error(err, name, row);
        ok = ok && add_pieces(builder, row, &fate, err);
    }
    if (renderings.calls_ignored && !counts->calls_ignored++) counts->first_calls_ignored = row->index;
    renderings_release(&renderings);
    counts->rows++;
    counts->truncated += fate.truncated;
    counts->dropped += fate.dropped;
    counts->split += fate.split;
    counts->skipped_untrained += !fate.kept && !fate.dropped;
    return ok;
}

static bool refuse_length(const struct builder *builder, struct error *err) {
    const struct dataset_row *row = &builder->dataset->rows[builder->first_over];
    error_set(err, ERROR_INPUT, "data", "%s:%zu: the row has %zu tokens, --max-length is %zu",
              builder->dataset->files[row->file], row->line, builder->first_length,
              builder->renderer->max_length);
    error_why(err, "%zu %s longer, the longest has %zu tokens", builder->over,
              text_plural(builder->over, "example is", "examples are"), builder->longest);
    return error_fix(err, "--max-length %zu fits them all; or choose --overlength truncate, drop or split.",
                     builder->longest);
}

static bool refuse_untrained(const struct examples *examples, struct error *err) {
    const struct example_counts *counts = &examples->counts;
    error_set(err, ERROR_INPUT, "data", "no row has a token to train");
    error_why(err, "of %zu %s %zu %s no trained token within --max-length and %zu %s dropped as too long",
              counts->rows, text_plural(counts->rows, "row", "rows"), counts->skipped_untrained,
              text_plural(counts->skipped_untrained, "has", "have"), counts->dropped,
              text_plural(counts->dropped, "was", "were"));
    return error_fix(err,
                     "`hone data preview` shows what is trained; --max-length, --train-on and the messages' "
                     "weight decide it.");
}

bool examples_build(struct examples *out, struct examples *held_out, const struct renderer *renderer,
                    struct dataset *dataset, const bool *held, bool skip_bad_rows, struct error *err) {
    struct builder sides[] = {{.out = out, .renderer = renderer, .dataset = dataset},
                              {.out = held_out, .renderer = renderer, .dataset = dataset}};
    bool ok = true;
    for (int side = 0; side < 2; side++)
        if (sides[side].out) memset(sides[side].out, 0, sizeof *out);
    for (size_t i = 0; ok && i < dataset->row_count; i++)
        ok = add_row(&sides[held && held[i]], &dataset->rows[i], err);
    dataset_order_problems(dataset);
    bool none = dataset->refused_count == dataset->row_count;
    if (ok && dataset->problem_count && (none || !skip_bad_rows)) ok = dataset_refuse(dataset, err);
    for (int side = 0; side < 2; side++) {
        struct builder *builder = &sides[side];
        if (!builder->out) continue;
        if (ok && builder->over) ok = refuse_length(builder, err);
        if (ok && !builder->out->count) ok = refuse_untrained(builder->out, err);
        marked_tokens_release(&builder->marked);
    }
    for (int side = 0; side < 2 && !ok; side++)
        if (sides[side].out) examples_release(sides[side].out);
    return ok;
}

void examples_release(struct examples *examples) {
    mem_free(examples->items);
    arena_release(&examples->arena);
    memset(examples, 0, sizeof *examples);
}
