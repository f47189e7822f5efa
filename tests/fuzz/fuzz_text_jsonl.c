/* Bytes as a JSON or JSON Lines data file: read, refused, split and reported. */
#include "fuzz_text_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    fuzz_data(bytes, size, ".jsonl");
    return 0;
}
