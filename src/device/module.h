/* Devices that are not part of the program: a library libhone_NAME.so that holds a struct device_ops under
 * the name hone_device. It is loaded by its absolute path, from the first of these folders that has it:
 *
 *   1. the program's (or libhone's) own, and hone/ and ../lib/hone beside it
 *   2. those of HONE_MODULES, absolute, with colons between them
 *   3. the folder that hone is installed to
 *
 * never from the working directory, and refused when it was built with another hone (device_abi). */
#ifndef HONE_DEVICE_MODULE_H
#define HONE_DEVICE_MODULE_H

#include "device/device.h"

/* NULL with *err filled: where it was looked for, or why it does not load. Asking again is cheap. */
const struct device_ops *device_module(const char *name, struct error *err);

#endif
