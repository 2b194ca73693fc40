/*
 * peak.h: the ceilings of a Vulkan device, through two shaders of the runtime's own.
 */
#ifndef UNET_GPU_PEAK_H
#define UNET_GPU_PEAK_H

#include "runtime/exec.h"

/* As struct exec_backend has it. */
bool gpu_peak_open(struct unet_device *device, struct exec_peak **out, struct err *err);

#endif
