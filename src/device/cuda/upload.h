/* Large copies from the host's memory, mapped files among it, to the device: threads copy pieces into
 * page-locked memory while pieces before them are on the bus. A copy from memory that is not page-locked goes
 * through the driver's own such pieces, one after the other. */
#ifndef HONE_DEVICE_CUDA_UPLOAD_H
#define HONE_DEVICE_CUDA_UPLOAD_H

#include "device/cuda/cuda.h"

struct upload;

/* `rows` of `width` bytes each, side by side on the host, `pitch` bytes apart on the device; what lies
 * between them there becomes zeros. */
struct upload_range {
    const unsigned char *from;
    unsigned char *to;
    size_t rows, width, pitch;
};

/* Takes page-locked memory and threads until it is closed. */
bool upload_open(struct upload **out, struct device *device, struct error *err);
void upload_close(struct upload **upload);
/* Returns when the sources have been read; the copies are behind all that the device's stream had before. */
bool upload_copy(struct upload *upload, const struct upload_range *ranges, size_t count, struct error *err);

#endif
