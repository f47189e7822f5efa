/* How a row of a stored type becomes f32 and back, in plain C: the reference that every device's own
 * decoder is tested against. Decoding is exact as the formats define it. */
#ifndef HONE_TENSOR_ROWCODEC_H
#define HONE_TENSOR_ROWCODEC_H

#include "base/error.h"
#include "tensor/dtype.h"

/* `elements` is a multiple of the type's block; source and out do not overlap; any alignment. */
typedef void (*row_decode)(const void *source, float *out, int64_t elements);
typedef void (*row_encode)(const float *source, void *out, int64_t elements);

struct rowcodec {
    row_decode decode; /* never NULL for float and quantised types */
    row_encode encode; /* NULL where nothing writes this type */
};

/* NULL for i32 and u32. */
const struct rowcodec *rowcodec(enum dtype dtype);

#endif
