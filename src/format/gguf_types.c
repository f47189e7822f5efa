/* The two tables of numbers that stand in GGUF files. Sources: ggml's docs/gguf.md (value kinds) and
 * ggml.h, enum ggml_type (tensor types; 4, 5, 31 to 33 and 36 to 38 were withdrawn). */
#include "format/gguf_internal.h"

static const struct gguf_kind_row kinds[GGUF_KIND_COUNT] = {
    [GGUF_U8] = {"u8", 1},       [GGUF_I8] = {"i8", 1},     [GGUF_U16] = {"u16", 2},
    [GGUF_I16] = {"i16", 2},     [GGUF_U32] = {"u32", 4},   [GGUF_I32] = {"i32", 4},
    [GGUF_F32] = {"f32", 4},     [GGUF_BOOL] = {"bool", 1}, [GGUF_TEXT] = {"text", 0},
    [GGUF_ARRAY] = {"array", 0}, [GGUF_U64] = {"u64", 8},   [GGUF_I64] = {"i64", 8},
    [GGUF_F64] = {"f64", 8},
};

static const struct gguf_type_row types[] = {
    [0] = {"f32", true, DTYPE_F32},
    [1] = {"f16", true, DTYPE_F16},
    [2] = {"q4_0", true, DTYPE_Q4_0},
    [3] = {"q4_1", true, DTYPE_Q4_1},
    [6] = {"q5_0", true, DTYPE_Q5_0},
    [7] = {"q5_1", true, DTYPE_Q5_1},
    [8] = {"q8_0", true, DTYPE_Q8_0},
    [9] = {.name = "q8_1"},
    [10] = {"q2_k", true, DTYPE_Q2_K},
    [11] = {"q3_k", true, DTYPE_Q3_K},
    [12] = {"q4_k", true, DTYPE_Q4_K},
    [13] = {"q5_k", true, DTYPE_Q5_K},
    [14] = {"q6_k", true, DTYPE_Q6_K},
    [15] = {.name = "q8_k"},
    [16] = {.name = "iq2_xxs"},
    [17] = {.name = "iq2_xs"},
    [18] = {.name = "iq3_xxs"},
    [19] = {.name = "iq1_s"},
    [20] = {"iq4_nl", true, DTYPE_IQ4_NL},
    [21] = {.name = "iq3_s"},
    [22] = {.name = "iq2_s"},
    [23] = {"iq4_xs", true, DTYPE_IQ4_XS},
    [24] = {.name = "i8"},
    [25] = {.name = "i16"},
    [26] = {.name = "i32"},
    [27] = {.name = "i64"},
    [28] = {.name = "f64"},
    [29] = {.name = "iq1_m"},
    [30] = {"bf16", true, DTYPE_BF16},
    [34] = {.name = "tq1_0"},
    [35] = {.name = "tq2_0"},
    [39] = {"mxfp4", true, DTYPE_MXFP4},
    [40] = {.name = "nvfp4"},
    [41] = {.name = "q1_0"},
    [42] = {.name = "q2_0"},
};
enum { type_count = sizeof types / sizeof *types };

const struct gguf_kind_row *gguf_kind_row(uint32_t kind) {
    return kind < GGUF_KIND_COUNT ? &kinds[kind] : NULL;
}

const struct gguf_type_row *gguf_type_row(uint32_t type) {
    return type < type_count && types[type].name ? &types[type] : NULL;
}

bool gguf_type_of(enum dtype dtype, uint32_t *type) {
    for (uint32_t i = 0; i < type_count; i++) {
        if (!types[i].readable || types[i].dtype != dtype) continue;
        *type = i;
        return true;
    }
    return false;
}
