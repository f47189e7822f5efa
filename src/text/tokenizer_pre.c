/* The pre-tokenizers that GGUF files name in tokenizer.ggml.pre.
 *
 * The names are those that llama.cpp's converter writes; what each cuts is what the tokenizer.json of
 * the model family says. Patterns are in Oniguruma's syntax, as there. A name that is not here is refused:
 * a wrong guess would train on wrong tokens without a sign. */
#include <string.h>

#include "text/tokenizer_parts.h"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
/* Words take one other character before them; N is how digits are grouped. */
#define WORDS_DIGITS(n)                           \
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" n "| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(after, digits)                                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" after "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" after \
    "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Letters that have case, as the deepseek-llm tokenizer lists them. */
#define CASED_LETTERS                                                                                 \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"   \
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}"             \
    "\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}"   \
    "\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}"   \
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}" \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}"  \
    "\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}"  \
    "\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}" \
    "\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}"   \
    "\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"            \
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"            \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"  \
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}" \
    "\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}"                \
    "\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}"            \
    "\\x{1E900}-\\x{1E943}"

#define REGEX(text) \
    { .kind = SPLIT_REGEX, .pattern = (text), .pattern_size = sizeof(text) - 1 }
#define DIGITS \
    { .kind = SPLIT_DIGITS, .individual = true }
#define GPT2 \
    { .kind = SPLIT_BYTE_LEVEL }
#define BYTES \
    { .kind = SPLIT_BYTE_LEVEL, .plain = true }
#define END \
    { .kind = SPLIT_BYTE_LEVEL, .individual = true } /* no step */

struct pre {
    const char *names; /* each between spaces */
    bool nfc, ignore_merges;
    struct split_step steps[8];
};

static const struct pre pres[] = {
    {.names = " gpt-2 phi-2 mpt olmo jais jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum "
              "modern-bert "
              "trillion exaone4 granite-docling ",
     .steps = {GPT2, END}},
    {.names = " smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ",
     .steps = {DIGITS, GPT2, END}},
    {.names = " llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     .ignore_merges = true,
     .steps = {REGEX(CONTRACTIONS "|" WORDS_DIGITS("{1,3}")), BYTES, END}},
    {.names = " glm4 glm5 ",
     .ignore_merges = true,
     .steps = {REGEX(CONTRACTIONS "|" WORDS_DIGITS("{1,3}")), BYTES, END}},
    {.names = " dbrx smaug-bpe chatglm-bpe ",
     .steps = {REGEX(CONTRACTIONS "|" WORDS_DIGITS("{1,3}")), BYTES, END}},
    {.names = " qwen2 ", .nfc = true, .steps = {REGEX(CONTRACTIONS "|" WORDS_DIGITS("")), BYTES, END}},
    {.names = " deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2 ",
     .steps = {REGEX(CONTRACTIONS "|" WORDS_DIGITS("")), BYTES, END}},
    /* The expected ids of llama.cpp's ggml-vocab-qwen35 hold decomposed letters: no NFC. */
    {.names = " qwen35 ",
     .steps = {REGEX(CONTRACTIONS
                     "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|"
                     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
               BYTES, END}},
    {.names = " deepseek-llm ",
     .steps = {REGEX("[\\r\\n]"), REGEX("\\s?[" CASED_LETTERS "]+"), REGEX("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
               REGEX("\\s+$"), REGEX("[一-龥ࠀ-一가-퟿]+"), DIGITS, BYTES, END}},
    {.names = " deepseek-coder ",
     .steps = {REGEX("[\\r\\n]"), REGEX("\\s?\\p{L}+"), REGEX("\\s?\\p{P}+"),
               REGEX("[一-龥ࠀ-一가-퟿]+"), DIGITS, BYTES, END}},
    {.names = " deepseek-v3 hunyuan-dense joyai-llm hy_v4 ",
     .steps = {REGEX("\\p{N}{1,3}"), REGEX("[一-龥぀-ゟ゠-ヿ]+"),
               REGEX("[!\"#$%&'()*+,\\-./"
                     ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"
                     " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"),
               BYTES, END}},
    {.names = " falcon ",
     .steps = {REGEX("[\\p{P}\\$\\+<=>\\^~\\|`]+"), GPT2, REGEX("[0-9][0-9][0-9]"), END}},
    {.names = " gpt-4o llama4 kanana2 talkie minimax-m2 ",
     .steps = {REGEX(CASED(CONTRACTIONS "?", "{1,3}")), BYTES, END}},
    {.names = " tekken ", .ignore_merges = true, .steps = {REGEX(CASED("", "")), BYTES, END}},
    {.names = " seed-coder ",
     .steps = {REGEX(CONTRACTIONS
                     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|"
                     "\\s+(?!\\S)|\\s+"),
               BYTES, END}},
    {.names = " bailingmoe bailingmoe2 llada-moe ",
     .steps =
         {REGEX("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|"
                "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"),
          BYTES, END}},
    {.names = " default ",
     .steps = {REGEX("[\\p{P}\\$\\+<=>\\^~\\|]+"), GPT2, REGEX("\\p{N}+"), REGEX("[0-9][0-9][0-9]"), END}},
};

static bool is_end(const struct split_step *step) {
    return step->kind == SPLIT_BYTE_LEVEL && step->individual;
}

static bool same_step(const struct split_step *a, const struct split_step *b) {
    return a->kind == b->kind && a->behavior == b->behavior && a->invert == b->invert &&
           a->individual == b->individual && a->plain == b->plain && a->prefix_space == b->prefix_space &&
           a->pattern_size == b->pattern_size &&
           (!a->pattern_size || !memcmp(a->pattern, b->pattern, a->pattern_size));
}

static bool same_steps(const struct splitter *splitter, const struct split_step *steps) {
    int i = 0;
    while (i < splitter->count && !is_end(&steps[i]) && same_step(&splitter->steps[i], &steps[i])) i++;
    return i == splitter->count && is_end(&steps[i]);
}

bool tokenizer_pre_name(const struct tokenizer *tokenizer, char out[64]) {
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        const struct pre *pre = &pres[i];
        if (pre->nfc != tokenizer->nfc || pre->ignore_merges != tokenizer->ignore_merges ||
            !same_steps(&tokenizer->splitter, pre->steps))
            continue;
        size_t size = strcspn(pre->names + 1, " ");
        memcpy(out, pre->names + 1, size);
        out[size] = '\0';
        return true;
    }
    return false;
}

bool tokenizer_set_pre(struct tokenizer *tokenizer, const char *pre, struct error *err) {
    size_t size = strlen(pre);
    bool name = size > 0 && !strchr(pre, ' ');
    for (size_t i = 0; name && i < sizeof pres / sizeof *pres; i++) {
        const char *at = pres[i].names;
        while ((at = strstr(at, pre)) && (at == pres[i].names || at[-1] != ' ' || at[size] != ' ')) at++;
        if (!at) continue;
        tokenizer->nfc = pres[i].nfc;
        tokenizer->ignore_merges = pres[i].ignore_merges;
        for (const struct split_step *step = pres[i].steps; !is_end(step); step++)
            if (!splitter_add(&tokenizer->splitter, step, err)) return false;
        return true;
    }
    error_set(err, ERROR_INPUT, "tokenizer",
              "the pre-tokenizer \"%.64s\" (tokenizer.ggml.pre) is not supported", pre);
    return error_fix(err, "use the model's Hugging Face directory, or convert it with a known pre-tokenizer");
}
