#include "tensor/tensor.h"

#include "base/checked.h"

bool tensor_elements(const struct tensor *tensor, uint64_t *out) {
    uint64_t elements = 1;
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->dim[i] < 0 || !checked_mul(elements, (uint64_t)tensor->dim[i], &elements)) return false;
    *out = elements;
    return true;
}

bool tensor_set_bytes(struct tensor *tensor) {
    uint64_t elements;
    const struct dtype_row *row = dtype_row(tensor->dtype);
    if (tensor->rank > 0 && tensor->dim[tensor->rank - 1] % (int64_t)row->block) return false;
    return tensor_elements(tensor, &elements) && dtype_bytes(tensor->dtype, elements, &tensor->bytes);
}
