#include "tensor/dtype.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"

static const struct dtype_row rows[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 1, 4, false},
    [DTYPE_F16] = {"f16", 1, 2, false},
    [DTYPE_BF16] = {"bf16", 1, 2, false},
    [DTYPE_F64] = {"f64", 1, 8, false},
    [DTYPE_I32] = {"i32", 1, 4, false},
    [DTYPE_U32] = {"u32", 1, 4, false},
    [DTYPE_Q4_0] = {"q4_0", 32, 18, true},
    [DTYPE_Q4_1] = {"q4_1", 32, 20, true},
    [DTYPE_Q5_0] = {"q5_0", 32, 22, true},
    [DTYPE_Q5_1] = {"q5_1", 32, 24, true},
    [DTYPE_Q8_0] = {"q8_0", 32, 34, true},
    [DTYPE_Q2_K] = {"q2_k", 256, 84, true},
    [DTYPE_Q3_K] = {"q3_k", 256, 110, true},
    [DTYPE_Q4_K] = {"q4_k", 256, 144, true},
    [DTYPE_Q5_K] = {"q5_k", 256, 176, true},
    [DTYPE_Q6_K] = {"q6_k", 256, 210, true},
    [DTYPE_IQ4_NL] = {"iq4_nl", 32, 18, true},
    [DTYPE_IQ4_XS] = {"iq4_xs", 256, 136, true},
    [DTYPE_MXFP4] = {"mxfp4", 32, 17, true},
    [DTYPE_U8] = {"u8", 1, 1, false},
    [DTYPE_I8] = {"i8", 1, 1, false},
    [DTYPE_NF4] = {"nf4", 2, 1, true, FORM_LEVELS},
    [DTYPE_INT8] = {"int8", 1, 1, true, FORM_ROWS},
#define MLX(bits)                                                                        \
    [DTYPE_MLX##bits##_G32] = {"mlx-" #bits "bit-g32", 32, 4 * bits, true, FORM_AFFINE}, \
    [DTYPE_MLX##bits##_G64] = {"mlx-" #bits "bit", 64, 8 * bits, true, FORM_AFFINE},     \
    [DTYPE_MLX##bits##_G128] = {"mlx-" #bits "bit-g128", 128, 16 * bits, true, FORM_AFFINE}
    MLX(2),
    MLX(3),
    MLX(4),
    MLX(5),
    MLX(6),
    MLX(8),
#undef MLX
    [DTYPE_MLX_MXFP4] = {"mlx-mxfp4", 32, 16, true, FORM_MICRO},
};

const struct dtype_row *dtype_row(enum dtype dtype) { return &rows[dtype]; }

bool dtype_bytes(enum dtype dtype, uint64_t elements, uint64_t *bytes) {
    const struct dtype_row *row = &rows[dtype];
    return elements % row->block == 0 && checked_mul(elements / row->block, row->bytes, bytes);
}

bool dtype_from_name(const char *name, enum dtype *out) {
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(rows[i].name, name)) continue;
        *out = (enum dtype)i;
        return true;
    }
    return false;
}

bool dtype_quantised_from_name(const char *name, const char *flag, enum dtype *out, struct error *err) {
    char all[512] = ""; /* error.fix holds no more */
    size_t size = 0;
    if (dtype_from_name(name, out) && rows[*out].quantised) return true;
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (rows[i].quantised && !strstr(rows[i].name, "-g"))
            size += (size_t)snprintf(all + size, sizeof all - size, "%s%s", size ? ", " : "", rows[i].name);
    error_set(err, ERROR_USAGE, "settings", "%s: \"%.80s\" is no quantised type", flag, name);
    return error_fix(err, "Choose one of: %s; mlx types also with -g32 or -g128.", all);
}

float f16_to_f32(uint16_t bits) {
    union {
        uint32_t u;
        float f;
    } out;
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
    if (exponent == 31) {
        out.u = sign | 0x7f800000u | fraction << 13;
    } else if (exponent) {
        out.u = sign | (exponent + 112) << 23 | fraction << 13;
    } else { /* subnormal: fraction × 2^-24 is exact in f32 */
        out.f = (float)fraction * 0x1p-24f;
        out.u |= sign;
    }
    return out.f;
}

uint16_t f32_to_f16(float value) {
    union {
        float f;
        uint32_t u;
    } in = {.f = value};
    uint32_t sign = in.u >> 16 & 0x8000u, magnitude = in.u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds past 65504 */
    if (magnitude < 0x38800000u) { /* subnormal: add 0.5 to align the bits */
        union {
            float f;
            uint32_t u;
        } aligned = {.u = magnitude};
        aligned.f += 0.5f;
        return (uint16_t)(sign | (aligned.u - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}
