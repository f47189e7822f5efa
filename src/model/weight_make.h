/* A weight as a program reads it, from the weight as the file has it: rows in another order, numbers rounded
 * to a base type, kept in a third. */
#ifndef HONE_MODEL_WEIGHT_MAKE_H
#define HONE_MODEL_WEIGHT_MAKE_H

#include "base/thread.h"
#include "tensor/stored.h"

struct weight_work {
    const struct tensor *source;
    enum dtype base;  /* what the numbers are rounded to; the source's own: nothing */
    enum dtype dtype; /* of the result: the base, or what it is decoded to */
    int64_t head_dim; /* rows lie as GGUF's llama has them, in heads of so many; 0: as they are */
};

/* `pool` may be NULL. Fills the bytes of a row of blocks, or of all pieces of a stored_layout. */
bool weight_make(const struct weight_work *work, void *out, struct pool *pool, struct error *err);

#endif
