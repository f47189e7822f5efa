/* Merging against its definition (tokenizer_bpe.h), on vocabularies and pieces from a seeded generator:
 * tokens that no merge reaches, merges of equal results, bytes without a token. And merging window by
 * window against merging the whole. */
#include "support/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "text/tokenizer_bpe.h"

enum { LETTERS = 4, TOKENS_MOST = 200, TOKEN_SIZE = 24 };

/* A vocabulary of the first letters of the alphabet and what merges make of them. */
struct model {
    struct vocab vocab;
    struct bpe bpe;
};

static uint64_t random_next(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}
static size_t random_below(uint64_t *state, size_t limit) { return random_next(state) % limit; }

struct texts {
    char data[TOKENS_MOST][TOKEN_SIZE + 1];
    size_t count;
};

/* The merge of two tokens; the one it makes is added where it is new. False: it would be too long. */
static bool texts_merge(struct texts *texts, size_t left, size_t right, struct merge *merge) {
    char joined[2 * TOKEN_SIZE + 1];
    size_t result = 0;
    int size = snprintf(joined, sizeof joined, "%s%s", texts->data[left], texts->data[right]);
    while (result < texts->count && strcmp(texts->data[result], joined) != 0) result++;
    if (size > TOKEN_SIZE || result == TOKENS_MOST) return false;
    memcpy(texts->data[result], joined, (size_t)size + 1);
    if (result == texts->count) texts->count++;
    *merge = (struct merge){(int32_t)left, (int32_t)right, (int32_t)result};
    return true;
}

static void model_open(struct model *model, const struct texts *texts, struct merge *merges, size_t count) {
    struct vocab_entry entries[TOKENS_MOST];
    struct error err;
    for (size_t i = 0; i < texts->count; i++)
        entries[i] =
            (struct vocab_entry){.text = {texts->data[i], strlen(texts->data[i])}, .flags = VOCAB_MODEL};
    assert_ok(vocab_init(&model->vocab, entries, texts->count, false, &err), &err);
    assert_ok(bpe_init(&model->bpe, merges, count, &err), &err);
}

static void model_close(struct model *model) {
    vocab_release(&model->vocab);
    bpe_release(&model->bpe);
}

/* Merges of two random tokens each, in a random order of ranks. The letter after the last has no token. */
static void model_random(struct model *model, uint64_t *random) {
    struct texts texts = {.count = LETTERS};
    size_t wanted = 2 + random_below(random, TOKENS_MOST / 2), count = 0;
    struct merge *merges = mem_array(TOKENS_MOST, sizeof *merges);
    for (size_t i = 0; i < LETTERS; i++) texts.data[i][0] = (char)('a' + i);
    for (size_t tries = 0; count < wanted && tries < 10 * wanted; tries++) {
        size_t place = random_below(random, 3) ? count : random_below(random, count + 1);
        struct merge made;
        if (!texts_merge(&texts, random_below(random, texts.count), random_below(random, texts.count), &made))
            continue;
        merges[count] = made;
        struct merge other = merges[place];
        merges[place] = made;
        merges[count++] = other;
    }
    model_open(model, &texts, merges, count);
    model->bpe.unknown = (int32_t)random_below(random, texts.count + 1) - 1;
    model->bpe.fuse_unknown = random_below(random, 2);
}

/* A piece: random letters, a repeated word, or both; now and then a byte without a token. */
static void piece_random(char *piece, size_t size, uint64_t *random) {
    size_t period = 1 + random_below(random, 9), kind = random_below(random, 3);
    size_t letters = 1 + random_below(random, LETTERS);
    for (size_t i = 0; i < size; i++) {
        piece[i] = (char)('a' + random_below(random, letters));
        if (i >= period && (kind == 0 || (kind == 1 && random_below(random, 20))))
            piece[i] = piece[i - period];
        if (random_below(random, 50) == 0 && random_below(random, 3) == 0) piece[i] = 'a' + LETTERS;
    }
}

/* The definition, word by word. */
static void encode_defined(const struct model *model, const char *piece, size_t size, struct tokens *out) {
    const struct bpe *bpe = &model->bpe;
    bool unknown = false;
    struct error err;
    assert_ok(tokens_reserve(out, size, &err), &err);
    out->count = 0;
    for (size_t i = 0; i < size; i++) {
        int32_t id = model->vocab.byte_ids[(unsigned char)piece[i]];
        bool fused = id < 0 && unknown && bpe->fuse_unknown;
        unknown = id < 0;
        if (id < 0) id = bpe->unknown;
        if (id < 0 || fused) continue;
        out->ids[out->count] = id;
        out->starts[out->count++] = (uint32_t)i;
    }
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < out->count; i++)
            for (size_t rank = bpe->merge_count; rank-- > 0;) { /* of two merges of a pair the later counts */
                if (bpe->merges[rank].left != out->ids[i] || bpe->merges[rank].right != out->ids[i + 1])
                    continue;
                if (rank < best) best = rank, at = i;
                break;
            }
        if (best == SIZE_MAX) return;
        out->ids[at] = bpe->merges[best].result;
        out->count--;
        for (size_t i = at + 1; i < out->count; i++) {
            out->ids[i] = out->ids[i + 1];
            out->starts[i] = out->starts[i + 1];
        }
    }
}

static void assert_same(const struct tokens *a, const struct tokens *b) {
    assert_int_equal(a->count, b->count);
    for (size_t i = 0; i < a->count; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_int_equal(a->starts[i], b->starts[i]);
    }
}

static void encode(const struct model *model, struct bpe_scratch *scratch, const char *piece, size_t size,
                   struct tokens *out) {
    struct error err;
    out->count = 0;
    assert_ok(bpe_encode(&model->bpe, &model->vocab, scratch, piece, size, out, &err), &err);
}

static void merging_gives_what_its_definition_says(void **state) {
    (void)state;
    uint64_t random = 0x123456789;
    struct tokens got = {0}, wanted = {0};
    struct bpe_scratch scratch = {0};
    for (int round = 0; round < 300; round++) {
        struct model model;
        model_random(&model, &random);
        for (int i = 0; i < 4; i++) {
            char piece[150]; /* below and above the size from which a tree is used */
            size_t size = 1 + random_below(&random, sizeof piece);
            piece_random(piece, size, &random);
            encode_defined(&model, piece, size, &wanted);
            encode(&model, &scratch, piece, size, &got);
            assert_same(&got, &wanted);
        }
        model_close(&model);
    }
    tokens_release(&got);
    tokens_release(&wanted);
    bpe_scratch_release(&scratch);
}

/* Memory tells which way was taken: a tree over the whole takes three words a byte and more. */
static bool by_windows(const struct bpe_scratch *scratch, size_t size) {
    return scratch->capacity < 3 * size;
}

static void windows_give_the_tokens_of_the_whole(void **state) {
    (void)state;
    enum { MOST = 3000 };
    static const size_t windows[] = {6, 16, 40, 64, 200};
    static char piece[MOST];
    uint64_t random = 0x987654321;
    struct tokens got = {0}, whole = {0};
    struct bpe_scratch scratch = {0};
    size_t agreed = 0, fell_back = 0;
    for (int round = 0; round < 400; round++) {
        struct model model;
        model_random(&model, &random);
        size_t size = MOST / 2 + random_below(&random, MOST / 2);
        piece_random(piece, size, &random);
        encode(&model, &scratch, piece, size, &whole);
        for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
            bpe_scratch_release(&scratch);
            model.bpe.window = windows[i];
            encode(&model, &scratch, piece, size, &got);
            assert_same(&got, &whole);
            *(by_windows(&scratch, size) ? &agreed : &fell_back) += 1;
        }
        model_close(&model);
    }
    tokens_release(&got);
    tokens_release(&whole);
    bpe_scratch_release(&scratch);
    assert_true(agreed > 500);
    assert_true(fell_back > 200);
}

/* "abcdefg…" with merges de, cd, bc, ab … in this order: the last pair of the piece is merged first, and
 * from there to its beginning each pair depends on the one after it. */
static void a_piece_in_which_each_pair_depends_on_the_next_is_right(void **state) {
    (void)state;
    enum { LENGTH = 61 };
    struct texts texts = {.count = 0};
    struct merge *merges = mem_array(LENGTH, sizeof *merges);
    struct tokens got = {0}, wanted = {0};
    struct bpe_scratch scratch = {0};
    struct model model;
    char piece[LENGTH + 1];
    for (int i = 0; i < LENGTH; i++) texts.data[texts.count++][0] = piece[i] = (char)('A' + i);
    for (int i = LENGTH - 2, rank = 0; i >= 0; i--, rank++) {
        merges[rank] = (struct merge){i, i + 1, (int32_t)texts.count};
        memcpy(texts.data[texts.count++], piece + i, 2);
    }
    model_open(&model, &texts, merges, LENGTH - 1);
    for (size_t size = 50; size <= LENGTH; size++) {
        encode_defined(&model, piece, size, &wanted);
        bpe_scratch_release(&scratch);
        model.bpe.window = 16 + size % 3;
        encode(&model, &scratch, piece, size, &got);
        assert_same(&got, &wanted);
        assert_int_equal(got.count, (size + 1) / 2);
    }
    model_close(&model);
    tokens_release(&got);
    tokens_release(&wanted);
    bpe_scratch_release(&scratch);
}

/* All pairs of letters, then some pairs of pairs, as training finds them: short ones first. */
static void model_trained(struct model *model) {
    struct texts texts = {.count = LETTERS};
    struct merge *merges = mem_array(TOKENS_MOST, sizeof *merges);
    size_t count = 0;
    for (size_t i = 0; i < LETTERS; i++) texts.data[i][0] = (char)('a' + i);
    for (size_t first = 0, end = LETTERS; texts.count < 100; first = end, end = texts.count)
        for (size_t pair = 0; pair < (end - first) * (end - first) && texts.count < 100; pair++)
            count += texts_merge(&texts, first + pair / (end - first), first + pair % (end - first),
                                 &merges[count]);
    model_open(model, &texts, merges, count);
}

static void the_work_of_a_long_piece_is_linear(void **state) {
    (void)state;
    static const size_t sizes[] = {64 << 10, 1 << 20, 4 << 20};
    struct tokens tokens = {0};
    struct model model;
    uint64_t random = 77;
    model_trained(&model);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (size_t letters = 1; letters <= LETTERS; letters++) {
            struct bpe_scratch scratch = {0};
            char *piece = mem_alloc(sizes[i]);
            for (size_t k = 0; k < sizes[i]; k++) piece[k] = (char)('a' + random_below(&random, letters));
            encode(&model, &scratch, piece, sizes[i], &tokens);
            assert_true(scratch.merged >= sizes[i] && scratch.merged < sizes[i] + sizes[i] / 16);
            assert_true(scratch.capacity < 5 * model.bpe.window);
            bpe_scratch_release(&scratch);
            mem_free(piece);
        }
    }
    model_close(&model);
    tokens_release(&tokens);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merging_gives_what_its_definition_says),
        cmocka_unit_test(windows_give_the_tokens_of_the_whole),
        cmocka_unit_test(a_piece_in_which_each_pair_depends_on_the_next_is_right),
        cmocka_unit_test(the_work_of_a_long_piece_is_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
