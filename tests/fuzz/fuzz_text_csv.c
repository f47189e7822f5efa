/* Bytes as a CSV data file, as recognised and with its first column named as the text. */
#include "fuzz_text_data.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    fuzz_data(bytes, size, ".csv");
    return 0;
}
