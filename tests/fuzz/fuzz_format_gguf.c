/* A GGUF file of arbitrary bytes: opens or is refused, and all that it then offers lies inside it. */
#include <stdlib.h>
#include <string.h>

#include "format/gguf.h"

static unsigned sum_of(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum += at[i];
    return sum;
}

static unsigned read_key(const struct gguf *gguf, const char *key) {
    const struct gguf_text *texts;
    const int32_t *ints;
    const float *reals;
    struct gguf_text text;
    int64_t whole;
    double real;
    bool flag;
    size_t count;
    unsigned sum = 0;
    if (!gguf_has(gguf, key)) abort();
    if (gguf_get_text(gguf, key, &text)) sum += sum_of(text.data, text.size);
    if (gguf_get_text_array(gguf, key, &texts, &count))
        for (size_t i = 0; i < count; i++) sum += sum_of(texts[i].data, texts[i].size);
    if (gguf_get_int_array(gguf, key, &ints, &count)) sum += sum_of(ints, count * sizeof *ints);
    if (gguf_get_float_array(gguf, key, &reals, &count)) sum += sum_of(reals, count * sizeof *reals);
    if (gguf_get_int(gguf, key, &whole)) sum++;
    if (gguf_get_float(gguf, key, &real)) sum++;
    if (gguf_get_bool(gguf, key, &flag)) sum += flag;
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf *gguf;
    struct error err;
    volatile unsigned sum = 0; /* keeps the reads */
    if (!gguf_open_bytes(&gguf, data, size, "fuzz", &err)) {
        if (err.code != ERROR_INPUT || !err.what[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < gguf_tensor_count(gguf); i++) {
        const struct tensor *tensor = gguf_tensor(gguf, i);
        if (gguf_find_tensor(gguf, tensor->name) != tensor) abort();
        sum += sum_of(tensor->data, (size_t)tensor->bytes);
    }
    for (size_t i = 0; i < gguf_key_count(gguf); i++) {
        enum gguf_kind kind;
        sum += read_key(gguf, gguf_key_name(gguf, i, &kind));
    }
    gguf_close(&gguf);
    (void)sum;
    return 0;
}
