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
#define CASED_LETTERS                                                                                                                                                                                                                        \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-"                                                                     \
    "ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-" \
    "ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"

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
    {.names = " qwen35 ",
     .nfc = true,
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

bool tokenizer_set_pre(struct tokenizer *tokenizer, const char *pre, struct error *err) {
    size_t size = strlen(pre);
    for (size_t i = 0; i < sizeof pres / sizeof *pres; i++) {
        const char *at = pres[i].names;
        while ((at = strstr(at, pre)) && (at == pres[i].names || at[-1] != ' ' || at[size] != ' ')) at++;
        if (!at || size == 0 || strchr(pre, ' ')) continue;
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
