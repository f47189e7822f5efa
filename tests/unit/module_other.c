/* A module of another version: only the number that is looked at first. */
__attribute__((visibility("default"))) extern const int hone_device[64];
const int hone_device[64] = {-1};
