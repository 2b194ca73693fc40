/*
 * inspect.h: statistics of the pipelines of a plan, as unet_plan_inspect (runtime.h) hands them
 * out.
 */
#ifndef UNET_GPU_INSPECT_H
#define UNET_GPU_INSPECT_H

#include "runtime/exec.h"

bool gpu_inspect(struct unet_device *device, const struct plan *plan, struct plan_limits limits,
                 unet_pipeline_report *report, void *user, struct err *err);

#endif
