/*
 * facts.h: asks a physical device what it is and decides whether and how it can be used.
 */
#ifndef UNET_GPU_FACTS_H
#define UNET_GPU_FACTS_H

#include "runtime/gpu/device.h"

/* Fills facts and everything in info but its index; info->usable says whether all requirements are
 * met. ERR_USAGE only when UNET_ACCESS holds nonsense. */
bool gpu_facts_query(const struct gpu_instance *instance, VkPhysicalDevice physical,
                     struct gpu_facts *facts, struct unet_device_info *info, struct err *err);

#endif
