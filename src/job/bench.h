/* Rates of a device: one code for `hone doctor --measure` and `hone bench`. */
#ifndef HONE_JOB_BENCH_H
#define HONE_JOB_BENCH_H

#include "device/device.h"
#include "job/job.h"

enum { bench_most_shapes = 32 };

/* The job's shapes as numbers: m, n, k. Errors: ERROR_USAGE. */
bool bench_shapes(struct job *job, int64_t (*out)[3], int *count, struct error *err);
/* Opens a device with the job's threads and mask. */
bool bench_device(struct job *job, const struct device_ops *ops, struct device **out, struct error *err);
/* device->measure at the job's shapes. */
bool bench_rates(struct job *job, const struct device_ops *ops, struct device *device, json_t **out,
                 struct error *err);

#endif
