#include "infer/session.h"

#include <string.h>

#include "base/mem.h"
#include "base/process.h"
#include "base/text.h"
#include "base/thread.h"

enum {
    prefill_tokens = 512,
    most_slots = 64,
    host_slots = 8,         /* where products of more rows are no cheaper a row */
    host_cached = 8 * 2048, /* tokens of all slots there: long requests get fewer slots */
};

struct sequence { /* a request while it is being answered */
    const struct request *request;
    struct answer *answer;
    int32_t *ids;                /* prompt, then what was generated */
    size_t count, cached, shown; /* tokens; tokens in the cache; bytes of text given out */
    double start;
    bool live;
};

struct session {
    struct model *model;
    struct peft *adapter;
    struct stops stops; /* the adapter's */
    struct method method;
    enum dtype compute, base;
    bool compute_auto, fp8;
    uint64_t memory; /* bytes that the plan may take; 0: no bound */
    struct render render;
    const struct device_ops *ops;
    struct device *device;
    struct engine engine;
    struct engine_program prefill, decode;
    struct batch batch;
    int32_t slots[most_slots], past[most_slots];
    struct sequence sequences[most_slots];
    int64_t slot_count, context;
    float *logits;                 /* [slots, vocabulary] */
    int32_t likeliest[most_slots]; /* [slots] */
    struct candidate *candidates;  /* [vocabulary] */
};

static bool open_device(struct session *s, const struct session_options *options, struct error *err) {
    if (options->adapter && (!peft_open(&s->adapter, options->adapter, err) ||
                             !engine_method_of(s->adapter, s->model, &s->method, err)))
        return false;
    if (!engine_base_of(s->adapter, options->base_type, s->model, &s->base, err)) return false;
    struct device_options device = {.name = options->device ? options->device : "auto",
                                    .threads = options->threads,
                                    .mask = options->mask,
                                    .tf32 = options->tf32};
    s->ops = device_find(device.name, err);
    return s->ops && device_open(s->ops, &s->device, &device, err);
}

/* Unless the user names a type: a GPU computes as in training; a processor in f32, with the cache in f16,
 * whose reading a long text's decoding waits for. */
static bool choose_types(struct session *s, enum dtype *cache, struct error *err) {
    *cache = s->compute;
    if (!s->compute_auto) return true;
    if (s->ops->memory && !engine_auto_compute(s->ops, s->device, &s->compute, err)) return false;
    *cache = s->compute == DTYPE_F32 ? DTYPE_F16 : s->compute;
    return true;
}

static bool start_engine(struct session *s, struct error *err) {
    struct state_options state = {
        .fp8 = s->fp8, .base = s->base, .slots = s->slot_count, .context = s->context};
    if (!choose_types(s, &state.cache, err)) return false;
    state.compute = s->compute;
    int64_t tokens = s->context < prefill_tokens ? s->context : prefill_tokens;
    if (tokens < s->slot_count) tokens = s->slot_count;
    struct graph_sizes prefill = {.tokens = tokens, .targets = s->slot_count, .segments = s->slot_count};
    struct graph_sizes decode = {
        .tokens = s->slot_count, .targets = s->slot_count, .segments = s->slot_count};
    if (!engine_open(&s->engine, s->ops, s->device, s->model, &s->method, &state, err) ||
        !program_plan(&s->prefill, &s->engine, GRAPH_INFER, &prefill, err) ||
        !program_plan(&s->decode, &s->engine, GRAPH_INFER, &decode, err))
        return false;
    uint64_t arena = program_bytes(&s->prefill) > program_bytes(&s->decode) ? program_bytes(&s->prefill)
                                                                            : program_bytes(&s->decode),
             need = arena;
    for (int c = STATE_WEIGHT; c < STATE_CLASSES; c++)
        need += state_class_bytes(&s->engine.state.table, (enum state_class)c);
    if (s->memory && need > s->memory) {
        char want[32], have[32];
        error_set(err, ERROR_MEMORY, "generate", "generation needs %s, --memory is %s",
                  text_bytes(need, want), text_bytes(s->memory, have));
        return error_fix(err, "Raise --memory, or lower --max-tokens.");
    }
    return engine_start(&s->engine, arena, err) && program_compile(&s->prefill, &s->engine, err) &&
           program_compile(&s->decode, &s->engine, err) &&
           batch_open(&s->batch, tokens, s->slot_count, err) &&
           (!s->adapter || engine_load_adapter(&s->engine, s->adapter, err));
}

bool session_open(struct session **out, const char *model_path, const struct session_options *options,
                  struct error *err) {
    struct session *s = mem_calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return error_no_memory(err, "generate", sizeof *s);
    s->compute = options->compute;
    s->compute_auto = options->compute_auto;
    s->fp8 = options->fp8;
    s->memory = options->memory;
    bool ok = model_open(&s->model, model_path, err) &&
              (!options->adapter ||
               stops_add_directory(&s->stops, options->adapter, s->model->config.vocabulary, err)) &&
              render_open(&s->render, s->model, &options->render, err) && open_device(s, options, err);
    if (!ok) session_close(&s);
    *out = s;
    return ok;
}

/* Tokens whose keys and values may be kept: in a device's own memory, half of what the weights leave. */
static int64_t cached_tokens(const struct session *s) {
    const struct model_config *c = &s->model->config;
    struct device_memory memory;
    struct error ignored;
    uint64_t weights = model_token_bytes(s->model),
             token = (uint64_t)(c->layers * c->kv_heads * c->head_dim) * 2 *
                     (s->compute_auto || s->compute != DTYPE_F32 ? 2 : 4);
    if (!s->ops->memory || !s->ops->memory(s->device, &memory, &ignored)) return host_cached;
    uint64_t free = s->memory && s->memory < memory.available ? s->memory : memory.available;
    return free > weights ? (int64_t)((free - weights) / 2 / token) : 0;
}

int64_t session_slots(const struct session *s, int64_t wanted, int64_t context) {
    int64_t most = s->ops->memory ? most_slots : host_slots,
            fit = cached_tokens(s) / (context > 0 ? context : 1);
    if (wanted < most) most = wanted;
    if (fit < most) most = fit;
    return most > 1 ? most : 1;
}

bool session_start(struct session *s, int64_t slots, int64_t context, struct error *err) {
    int64_t most = s->model->config.context;
    size_t vocabulary = (size_t)s->model->config.vocabulary;
    s->slot_count = slots < 1 ? 1 : slots > most_slots ? most_slots : slots;
    s->context = context > 0 ? context : most < 2048 ? most : 2048;
    if (!start_engine(s, err)) return false;
    s->logits = mem_array(vocabulary * (size_t)s->slot_count, sizeof *s->logits);
    s->candidates = mem_calloc(vocabulary, sizeof *s->candidates);
    return (s->logits && s->candidates) || error_no_memory(err, "generate", vocabulary * sizeof(float));
}

void session_close(struct session **handle) {
    struct session *s = *handle;
    if (!s) return;
    batch_close(&s->batch);
    if (s->ops) {
        program_release(&s->prefill, &s->engine);
        program_release(&s->decode, &s->engine);
        engine_close(&s->engine);
        if (s->device) s->ops->close(&s->device);
    }
    method_release(&s->method);
    peft_close(&s->adapter);
    stops_release(&s->stops);
    render_close(&s->render);
    model_close(&s->model);
    mem_free(s->logits);
    mem_free(s->candidates);
    mem_free(s);
    *handle = NULL;
}

bool session_other_base(const struct session *session, char out[engine_sentence]) {
    return session->adapter && engine_other_base(session->adapter, session->model, out);
}

const struct model *session_model(const struct session *session) { return session->model; }
const struct renderer *session_renderer(const struct session *session) { return &session->render.renderer; }

/* Adds tokens [from, to) of a sequence as one segment; its last row's logits are wanted when `predict`. */
static void add_segment(struct session *s, int slot, size_t from, size_t to, bool predict) {
    struct batch *b = &s->batch;
    struct binding *bind = &b->binding;
    const struct sequence *sequence = &s->sequences[slot];
    for (size_t i = from; i < to; i++) {
        b->ids[bind->tokens] = sequence->ids[i];
        b->positions[bind->tokens++] = (int32_t)i;
    }
    if (predict) b->rows[bind->targets++] = (int32_t)(bind->tokens - 1);
    s->slots[bind->segments] = slot;
    s->past[bind->segments] = (int32_t)from;
    b->segments[++bind->segments] = (int32_t)bind->tokens;
    if ((int64_t)(to - from) > bind->longest_segment) bind->longest_segment = (int64_t)(to - from);
}

static bool run(struct session *s, struct engine_program *program, const atomic_int *stop,
                struct error *err) {
    struct binding *bind = &s->batch.binding;
    bind->inputs[INPUT_SLOTS] = s->slots;
    bind->inputs[INPUT_PAST] = s->past;
    bind->stop = stop;
    return s->ops->run(program->program, bind, err);
}

/* Whether the likeliest token is the one to take. */
static bool is_certain(const struct sequence *q) {
    return q->request->sampling.temperature <= 0 && q->request->sampling.repetition_penalty == 1;
}

static bool ends(const struct session *s, int32_t id) {
    if (id == tokenizer_eos(s->model->tokenizer) || stops_hold(&s->model->stops, id) ||
        stops_hold(&s->stops, id))
        return true;
    /* Chat templates end turns by a control token of their own where the end token is another. */
    static const char *const marks[] = {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>",
                                        "<|end|>"};
    if (tokenizer_kind(s->model->tokenizer, id) != TOKEN_CONTROL) return false;
    size_t size;
    const char *text = tokenizer_token(s->model->tokenizer, id, &size);
    for (size_t i = 0; text && i < sizeof marks / sizeof *marks; i++)
        if (strlen(marks[i]) == size && !memcmp(marks[i], text, size)) return true;
    return false;
}

/* Gives out what is new, whole characters but at the end, as one may be spread over several tokens; false
 * when the listener wants no more. */
static bool show(struct sequence *q, bool last) {
    struct buf *text = &q->answer->text;
    size_t whole = last ? text->size : q->shown + utf8_whole(text->data + q->shown, text->size - q->shown);
    bool more = true;
    if (q->request->text && whole > q->shown)
        more = q->request->text(q->request->user, text->data + q->shown, whole - q->shown);
    q->shown = whole;
    return more;
}

static void finish(struct sequence *q, const char *reason) {
    show(q, true);
    q->answer->finish_reason = reason;
    q->answer->seconds = clock_seconds() - q->start;
    q->live = false;
    mem_free(q->ids);
    q->ids = NULL;
}

/* The next token of a sequence, from a row of logits. */
static int32_t draw(struct session *s, const struct sequence *q, float *logits) {
    return sampler_next(&q->request->sampling, logits, s->model->config.vocabulary, q->ids, q->count,
                        (uint32_t)q->count, s->candidates);
}

static bool no_token(const struct session *s, struct error *err) {
    error_set(err, ERROR_FAILED, "generate", "no logit of the next token is a number");
    if (s->compute == DTYPE_F16) return error_fix(err, "f16 ends at 65,504: take --compute f32.");
    return error_fix(err, "The model or its adapter holds numbers that are too large, or none: take an "
                          "earlier checkpoint.");
}

static bool take_token(struct session *s, struct sequence *q, int32_t id, struct error *err) {
    if (id < 0) return no_token(s, err);
    if (ends(s, id)) {
        finish(q, "stop");
        return true;
    }
    q->ids[q->count++] = id;
    q->answer->generated_tokens++;
    if (!tokenizer_decode(s->model->tokenizer, &id, 1, false, &q->answer->text, err)) return false;
    if (!show(q, false))
        finish(q, "stop");
    else if ((int64_t)q->answer->generated_tokens >= q->request->max_tokens ||
             (int64_t)q->count >= s->context)
        finish(q, "length");
    return true;
}

bool session_accepts(const struct session *s, const struct request *request, int64_t context,
                     struct error *err) {
    int64_t most = s->model->config.context;
    if (!request->count) return error_set(err, ERROR_INPUT, "generate", "the prompt is empty");
    if ((int64_t)request->count < context) return true;
    error_set(err, ERROR_INPUT, "generate", "the prompt has %zu %s, the context %lld", request->count,
              text_plural(request->count, "token", "tokens"), (long long)context);
    if (context < most)
        return error_fix(err, "Shorten the prompt, or give a larger --context; the model has %lld.",
                         (long long)most);
    error_why(err, "the model %.200s has no more", s->model->path);
    return error_fix(err, "Shorten the prompt.");
}

static bool start_sequence(struct session *s, int slot, const struct request *request, struct answer *answer,
                           struct error *err) {
    struct sequence *q = &s->sequences[slot];
    if (!session_accepts(s, request, s->context, err)) return false;
    *q = (struct sequence){.request = request, .answer = answer, .start = clock_seconds(), .live = true};
    *answer = (struct answer){.prompt_tokens = request->count, .finish_reason = "length"};
    q->ids = mem_array((size_t)s->context + 1, sizeof *q->ids);
    if (!q->ids || !buf_append(&answer->text, "", 0))
        return error_no_memory(err, "generate", (size_t)s->context * sizeof *q->ids);
    memcpy(q->ids, request->ids, request->count * sizeof *q->ids);
    q->count = request->count;
    if (request->max_tokens <= 0) finish(q, "length");
    return true;
}

/* Takes the tokens after a run: target t belongs to the t-th slot in `asked`. Logits, which are many, are
 * read only where one of them is drawn by chance. */
static bool take_tokens(struct session *s, const struct engine_program *program, const int *asked, int count,
                        struct error *err) {
    size_t vocabulary = (size_t)s->model->config.vocabulary;
    bool certain = true;
    for (int t = 0; t < count; t++) certain = certain && is_certain(&s->sequences[asked[t]]);
    bool ok = !count || (certain ? s->ops->read(program->program, program->built.likeliest, s->likeliest,
                                                (size_t)count * sizeof *s->likeliest, err)
                                 : s->ops->read(program->program, program->built.logits, s->logits,
                                                (size_t)count * vocabulary * sizeof *s->logits, err));
    for (int t = 0; ok && t < count; t++) {
        struct sequence *q = &s->sequences[asked[t]];
        int32_t id = certain ? s->likeliest[t] : draw(s, q, s->logits + (size_t)t * vocabulary);
        ok = take_token(s, q, id, err);
    }
    return ok;
}

/* One flat run over what prompts still wait, up to the planned tokens. */
static bool prefill(struct session *s, const atomic_int *stop, bool *worked, struct error *err) {
    int asked[most_slots], count = 0;
    batch_clear(&s->batch);
    for (int slot = 0; slot < s->slot_count; slot++) {
        struct sequence *q = &s->sequences[slot];
        size_t room = (size_t)(s->batch.capacity - s->batch.binding.tokens);
        if (!q->live || q->cached + 1 > q->request->count || !room || q->answer->generated_tokens) continue;
        size_t end = q->count - q->cached > room ? q->cached + room : q->count;
        add_segment(s, slot, q->cached, end, end == q->count);
        q->cached = end;
        if (end == q->count) asked[count++] = slot;
    }
    *worked = s->batch.binding.tokens > 0;
    return !*worked || (run(s, &s->prefill, stop, err) && take_tokens(s, &s->prefill, asked, count, err));
}

static bool decode(struct session *s, const atomic_int *stop, bool *worked, struct error *err) {
    int asked[most_slots], count = 0;
    batch_clear(&s->batch);
    for (int slot = 0; slot < s->slot_count; slot++) {
        struct sequence *q = &s->sequences[slot];
        if (!q->live || !q->answer->generated_tokens) continue;
        add_segment(s, slot, q->cached, q->count, true);
        q->cached = q->count;
        asked[count++] = slot;
    }
    *worked = count > 0;
    return !*worked || (run(s, &s->decode, stop, err) && take_tokens(s, &s->decode, asked, count, err));
}

bool session_generate(struct session *s, const struct request *requests, struct answer *answers, size_t count,
                      const atomic_int *stop, struct error *err) {
    size_t next = 0;
    bool ok = true, prefilled = false, decoded = false;
    memset(answers, 0, count * sizeof *answers);
    memset(s->sequences, 0, sizeof s->sequences);
    do {
        for (int slot = 0; ok && slot < s->slot_count && next < count; slot++)
            if (!s->sequences[slot].live) {
                ok = start_sequence(s, slot, &requests[next], &answers[next], err);
                next++;
            }
        ok = ok && prefill(s, stop, &prefilled, err) && decode(s, stop, &decoded, err);
    } while (ok && (next < count || prefilled || decoded));
    for (int slot = 0; slot < s->slot_count; slot++) mem_free(s->sequences[slot].ids);
    for (size_t i = 0; !ok && i < count; i++) buf_release(&answers[i].text);
    memset(s->sequences, 0, sizeof s->sequences);
    return ok;
}
