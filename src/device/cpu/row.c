#include "device/cpu/row.h"

#include <string.h>

#include "device/cpu/kernel.h"
#include "tensor/rowcodec.h"
#include "tensor/stored_parts.h"

void cpu_row_load(float *out, const void *source, enum dtype dtype, int64_t elements, unsigned features) {
    if (dtype == DTYPE_F32) {
        memcpy(out, source, (size_t)elements * sizeof *out);
        return;
    }
#if defined(__x86_64__)
    if (features & CPU_AVX512) {
        row_load_avx512(out, source, dtype, elements);
        return;
    }
    if (features & CPU_AVX2) {
        row_load_avx2(out, source, dtype, elements);
        return;
    }
#endif
    (void)features;
    rowcodec(dtype)->decode(source, out, elements);
}

void cpu_stored_load(float *out, const struct stored *stored, int64_t row, int64_t column, int64_t count,
                     unsigned features) {
    if (dtype_row(stored->dtype)->form == FORM_BLOCK) {
        cpu_row_load(out, stored_codes(stored, row, column), stored->dtype, count, features);
        return;
    }
#if defined(__x86_64__)
    if (features & CPU_AVX512) {
        stored_load_avx512(out, stored, row, column, count);
        return;
    }
    if (features & CPU_AVX2) {
        stored_load_avx2(out, stored, row, column, count);
        return;
    }
#endif
    stored_decode(stored, row, column, count, out);
}

void cpu_stored_halves(uint16_t *out, const struct stored *stored, int64_t row, int64_t column, int64_t count,
                       unsigned features) {
    enum { piece = 256 }; /* every type's blocks divide it */
    float decoded[piece];
    if (stored->dtype == DTYPE_BF16) {
        memcpy(out, stored_codes(stored, row, column), (size_t)count * sizeof *out);
        return;
    }
#if defined(__x86_64__)
    bool pairs = features & CPU_AVX512BF16;
    if (pairs && stored_halves_avx512bf16(out, stored, row, column, count)) return;
#endif
    for (int64_t at = 0; at < count; at += piece) {
        int64_t some = count - at < piece ? count - at : piece;
        cpu_stored_load(decoded, stored, row, column + at, some, features);
        cpu_row_halves(out + at, decoded, some, features);
    }
}

void cpu_row_halves(uint16_t *out, const float *source, int64_t elements, unsigned features) {
#if defined(__x86_64__)
    if (features & CPU_AVX512BF16) {
        row_halves_avx512bf16(out, source, elements);
        return;
    }
#endif
    cpu_row_store(out, source, DTYPE_BF16, elements, features);
}

void cpu_row_store(void *out, const float *source, enum dtype dtype, int64_t elements, unsigned features) {
#if defined(__x86_64__)
    bool half = dtype == DTYPE_BF16 || dtype == DTYPE_F16;
    if (half && (features & CPU_AVX512)) {
        row_store_avx512(out, source, dtype, elements);
        return;
    }
    if (half && (features & CPU_AVX2)) {
        row_store_avx2(out, source, dtype, elements);
        return;
    }
#endif
    (void)features;
    rowcodec(dtype)->encode(source, out, elements);
}
