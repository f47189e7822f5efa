#include "base/digest.h"

#include <stdio.h>
#include <xxhash.h>

#include "base/fs.h"

void digest_bytes(const void *data, size_t size, struct digest *out) {
    XXH128_hash_t hash = XXH3_128bits(data, size);
    snprintf(out->hex, sizeof out->hex, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

bool digest_file(const char *path, struct digest *out, struct error *err) {
    struct fs_map map;
    if (!fs_map_open(&map, path, err)) return false;
    digest_bytes(map.data, map.size, out);
    fs_map_close(&map);
    return true;
}
