/*
 * device.h: the CPU as a device: its instruction set and threads.
 */
#ifndef UNET_CPU_DEVICE_H
#define UNET_CPU_DEVICE_H

#include "runtime/cpu/kernel.h"
#include "runtime/cpu/pool.h"
#include "runtime/exec.h"

struct cpu_device {
    struct unet_device base; /* first: the runtime's view */
    enum cpu_isa isa;
    enum cpu_conv conv;
    bool imitates_matrices; /* rounding.h */
    struct cpu_pool *pool;
};

bool cpu_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err);
bool cpu_device_open(const struct unet_device_info *info, uint32_t threads,
                     struct unet_device **out, struct err *err);
void cpu_device_close(struct unet_device *device);
struct plan_limits cpu_device_limits(const struct unet_device *device, const struct plan *plan);

#endif
