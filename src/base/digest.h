/* 128-bit XXH3 digests, as 32 hex digits. They find changed and damaged files; they are no
 * protection against a forger, and nothing relies on that. */
#ifndef HONE_BASE_DIGEST_H
#define HONE_BASE_DIGEST_H

#include <stddef.h>

#include "base/error.h"

struct digest {
    char hex[33];
};

void digest_bytes(const void *data, size_t size, struct digest *out);
bool digest_file(const char *path, struct digest *out, struct error *err);

#endif
