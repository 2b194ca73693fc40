/*
 * profile.c: time stamps. Both stamps of a record wait for the compute work before them, and a
 * profiled program has a barrier before every record, so that each time belongs to one record.
 */
#include "runtime/gpu/profile.h"

#include <stdlib.h>

bool gpu_profile_open(struct gpu_profile *profile, const struct gpu_device *device,
                      uint32_t n_records, struct err *err) {
    *profile = (struct gpu_profile){.n_records = n_records};
    if (n_records == 0 || device->base.info.timestamp_period_ns <= 0.0f)
        return true; /* gpu_profile_read reports it */
    const VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                        .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                        .queryCount = 2 * n_records};
    profile->stamps = calloc(2 * (size_t)n_records, sizeof(uint64_t));
    if (profile->stamps == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for %u time stamps", 2 * n_records);
    return gpu_check(vkCreateQueryPool(device->handle, &info, NULL, &profile->pool), err,
                     "time stamps");
}

void gpu_profile_close(struct gpu_profile *profile, const struct gpu_device *device) {
    vkDestroyQueryPool(device->handle, profile->pool, NULL);
    free(profile->stamps);
    *profile = (struct gpu_profile){.pool = VK_NULL_HANDLE};
}

void gpu_profile_record_reset(const struct gpu_profile *profile, VkCommandBuffer commands) {
    if (profile->pool != VK_NULL_HANDLE)
        vkCmdResetQueryPool(commands, profile->pool, 0, 2 * profile->n_records);
}

static void stamp(const struct gpu_profile *profile, VkCommandBuffer commands, uint32_t query) {
    if (profile->pool != VK_NULL_HANDLE)
        vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, profile->pool, query);
}

void gpu_profile_record_start(const struct gpu_profile *profile, VkCommandBuffer commands,
                              uint32_t record) {
    stamp(profile, commands, 2 * record);
}

void gpu_profile_record_stop(const struct gpu_profile *profile, VkCommandBuffer commands,
                             uint32_t record) {
    stamp(profile, commands, 2 * record + 1);
}

/* The counter may have passed its end in between. */
static uint64_t since_start_ns(const struct gpu_profile *profile, const struct gpu_device *device,
                               uint32_t query) {
    const uint64_t mask = UINT64_MAX >> (64 - device->facts.timestamp_bits);
    const uint64_t ticks = (profile->stamps[query] - profile->stamps[0]) & mask;
    return (uint64_t)((double)ticks * (double)device->base.info.timestamp_period_ns);
}

bool gpu_profile_read(const struct gpu_profile *profile, const struct gpu_device *device,
                      struct unet_span *spans, struct err *err) {
    if (profile->pool == VK_NULL_HANDLE)
        return err_set(err, ERR_DEVICE, "device %s has no time stamps", device->base.info.name);
    if (!profile->has_run)
        return err_set(err, ERR_USAGE, "the program has not run yet, so there are no times");
    const size_t count = 2 * (size_t)profile->n_records;
    const VkResult result = vkGetQueryPoolResults(device->handle, profile->pool, 0, (uint32_t)count,
                                                  count * sizeof(uint64_t), profile->stamps,
                                                  sizeof(uint64_t), VK_QUERY_RESULT_64_BIT);
    if (!gpu_check(result, err, "time stamps"))
        return false;
    for (uint32_t i = 0; i < profile->n_records; i++) {
        spans[i].begin_ns = since_start_ns(profile, device, 2 * i);
        spans[i].end_ns = since_start_ns(profile, device, 2 * i + 1);
    }
    return true;
}
