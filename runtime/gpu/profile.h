/*
 * profile.h: time stamps before and after every record, only when a session asks for them.
 */
#ifndef UNET_GPU_PROFILE_H
#define UNET_GPU_PROFILE_H

#include "runtime/gpu/device.h"

struct gpu_profile {
    VkQueryPool pool; /* two queries per record; VK_NULL_HANDLE: off */
    uint32_t n_records;
    uint64_t *stamps; /* room for all of them */
    bool has_run;
};

bool gpu_profile_open(struct gpu_profile *profile, const struct gpu_device *device,
                      uint32_t n_records, struct err *err);
void gpu_profile_close(struct gpu_profile *profile, const struct gpu_device *device);

/* Recorded into a program; all do nothing when profiling is off. */
void gpu_profile_record_reset(const struct gpu_profile *profile, VkCommandBuffer commands);
void gpu_profile_record_start(const struct gpu_profile *profile, VkCommandBuffer commands,
                              uint32_t record);
void gpu_profile_record_stop(const struct gpu_profile *profile, VkCommandBuffer commands,
                             uint32_t record);

/* Time of each record of the last run, from the start of the first. */
bool gpu_profile_read(const struct gpu_profile *profile, const struct gpu_device *device,
                      struct unet_span *spans, struct err *err);

#endif
