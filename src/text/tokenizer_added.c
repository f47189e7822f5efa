/* The tree of added tokens, and the rules about what stands beside a match. */
#include "text/tokenizer_added.h"

#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/text.h"

enum {
    TOKEN_SIZE_LIMIT = 512, /* bytes; bounds the time that a place in the text can cost */
    NODES_LIMIT = 1 << 24,
};

struct added_node {
    uint32_t child, sibling; /* 0: none */
    uint32_t token;          /* index + 1, 0: none ends here */
    unsigned char byte;
};

static uint32_t child_of(const struct added *added, uint32_t node, unsigned char byte) {
    if (node < 2) return added->first[node][byte];
    uint32_t child = added->nodes[node].child;
    while (child && added->nodes[child].byte != byte) child = added->nodes[child].sibling;
    return child;
}

static uint32_t make_child(struct added *added, uint32_t node, unsigned char byte) {
    uint32_t child = child_of(added, node, byte);
    if (child) return child;
    child = added->node_count++;
    added->nodes[child] = (struct added_node){.byte = byte, .sibling = added->nodes[node].child};
    added->nodes[node].child = child;
    if (node < 2) added->first[node][byte] = child;
    return child;
}

bool added_init(struct added *added, const struct added_token *tokens, size_t count, struct error *err) {
    size_t total = 0;
    memset(added, 0, sizeof *added);
    for (size_t i = 0; i < count; i++) {
        size_t size = tokens[i].content.size;
        if (size == 0 || size > TOKEN_SIZE_LIMIT)
            return error_set(err, ERROR_INPUT, "tokenizer",
                             "the added token %d has %zu bytes; 1 to %d are possible", tokens[i].id, size,
                             TOKEN_SIZE_LIMIT);
        total += size;
        if (total > NODES_LIMIT)
            return error_set(err, ERROR_INPUT, "tokenizer", "the added tokens have more than %d bytes",
                             NODES_LIMIT);
    }
    added->count = count;
    added->tokens = mem_array(count, sizeof *added->tokens);
    added->texts = mem_alloc(total);
    added->nodes = mem_calloc(total + 2, sizeof *added->nodes);
    added->node_count = 2;
    if (!added->tokens || !added->texts || !added->nodes) {
        added_release(added);
        return error_no_memory(err, "tokenizer", (total + 2) * sizeof *added->nodes);
    }
    char *text = added->texts;
    for (size_t i = 0; i < count; i++) {
        struct added_token *token = &added->tokens[i];
        *token = tokens[i];
        memcpy(text, token->content.data, token->content.size);
        token->content.data = text;
        text += token->content.size;
        uint32_t node = token->normalized;
        for (size_t k = 0; k < token->content.size; k++)
            node = make_child(added, node, (unsigned char)token->content.data[k]);
        if (!added->nodes[node].token) added->nodes[node].token = (uint32_t)i + 1;
    }
    return true;
}

void added_release(struct added *added) {
    mem_free(added->tokens);
    mem_free(added->texts);
    mem_free(added->nodes);
    memset(added, 0, sizeof *added);
}

bool added_any(const struct added *added, bool normalized) {
    return added->count && added->nodes[normalized].child;
}

/* The longest token that begins at text[at]. */
static const struct added_token *longest(const struct added *added, uint32_t node, const char *text,
                                         size_t size, size_t at) {
    const struct added_token *best = NULL;
    for (; at < size; at++) {
        node = child_of(added, node, (unsigned char)text[at]);
        if (!node) break;
        if (added->nodes[node].token) best = &added->tokens[added->nodes[node].token - 1];
    }
    return best;
}

/* Unicode's White_Space. */
static bool is_space(uint32_t code) {
    if (code < 0x80) return code == ' ' || (code >= '\t' && code <= '\r');
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    return code == 0x85 || category == UTF8PROC_CATEGORY_ZS || category == UTF8PROC_CATEGORY_ZL ||
           category == UTF8PROC_CATEGORY_ZP;
}

/* Letters in circles and squares: symbols that Unicode counts as alphabetic. */
static bool is_enclosed_letter(uint32_t code) {
    return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
           (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

/* \w of Rust's regex crate. */
static bool is_word(uint32_t code) {
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return code == 0x200C || code == 0x200D /* Join_Control */ || is_enclosed_letter(code);
    }
}

static size_t character_before(const char *text, size_t at, uint32_t *code) {
    size_t first = at - 1;
    while (first > 0 && ((unsigned char)text[first] & 0xC0) == 0x80) first--;
    utf8_decode(text + first, at - first, code);
    return first;
}

static bool stands_alone(const char *text, size_t size, size_t first, size_t end) {
    uint32_t code;
    if (first > 0) {
        character_before(text, first, &code);
        if (is_word(code)) return false;
    }
    return end == size || !utf8_decode(text + end, size - end, &code) || !is_word(code);
}

/* The end of the white space at `at`. A run that an earlier match was widened over is not walked again, so
 * that the time stays linear. */
static size_t space_end(const char *text, size_t size, size_t at, struct added_match *match) {
    uint32_t code;
    if (at >= match->space_first && at < match->space_end) return match->space_end;
    match->space_first = at;
    for (int length; at < size; at += (size_t)length) {
        length = utf8_decode(text + at, size - at, &code);
        if (length <= 0 || !is_space(code)) break;
    }
    return match->space_end = at;
}

/* Where the white space in front of `at` begins, not before `least`. */
static size_t space_begin(const char *text, size_t at, size_t least) {
    uint32_t code;
    while (at > least) {
        size_t before = character_before(text, at, &code);
        if (!is_space(code)) break;
        at = before;
    }
    return at > least ? at : least;
}

bool added_find(const struct added *added, bool normalized, bool special, const char *text, size_t size,
                struct added_match *match) {
    const uint32_t *first = added->first[normalized];
    for (size_t at = match->behind; at < size; at++) {
        if (!first[(unsigned char)text[at]]) continue;
        const struct added_token *token = longest(added, normalized, text, size, at);
        if (!token) continue;
        size_t end = at + token->content.size;
        if ((token->special && !special) || (token->single_word && !stands_alone(text, size, at, end))) {
            at = end - 1;
            continue;
        }
        match->token = token;
        match->behind = end;
        match->first = token->lstrip ? space_begin(text, at, match->end) : at;
        match->end = token->rstrip ? space_end(text, size, end, match) : end;
        if (match->first < match->end) return true;
        at = end - 1; /* all of it belongs to the match before it */
    }
    return false;
}
