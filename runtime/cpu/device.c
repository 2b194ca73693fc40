/*
 * device.c: the native CPU device: what it is called, how many threads it has.
 */
#ifdef __linux__
#define _GNU_SOURCE /* sched_getaffinity */
#include <sched.h>
#endif

#include "runtime/cpu/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cpu/rounding.h"

/* Cores that this process may run on. */
static uint32_t count_cores(void) {
    long count = 0;
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        count = CPU_COUNT(&set);
#endif
    if (count < 1)
        count = sysconf(_SC_NPROCESSORS_ONLN);
    return (uint32_t)MAX(1L, MIN(count, (long)CPU_POOL_MAX_THREADS));
}

static bool count_threads(uint32_t wanted, uint32_t *threads_out, struct err *err) {
    const char *text = getenv("UNET_THREADS");
    const bool from_environment = wanted == 0 && text != NULL && text[0] != '\0';
    *threads_out = wanted > 0 ? wanted : count_cores();
    if (from_environment) {
        char *end;
        const unsigned long number = strtoul(text, &end, 10);
        if (*end != '\0' || number == 0 || number > CPU_POOL_MAX_THREADS)
            return err_set(err, ERR_USAGE, "UNET_THREADS=%s: not a whole number from 1 to %u", text,
                           CPU_POOL_MAX_THREADS);
        *threads_out = (uint32_t)number;
    }
    return *threads_out <= CPU_POOL_MAX_THREADS ||
           err_set(err, ERR_USAGE, "%u threads: at most %u are possible", *threads_out,
                   CPU_POOL_MAX_THREADS);
}

static uint64_t memory_bytes(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_bytes > 0 ? (uint64_t)pages * (uint64_t)page_bytes : UINT64_MAX;
}

/* Plans are verified against these: everything that only concerns shaders is without limit. */
static struct plan_limits native_limits(const struct cpu_device *device) {
    struct plan_limits limits = plan_limits_minimum(PLAN_CLASS_CPU);
    if (device->imitates_matrices)
        limits.matrix_m = limits.matrix_n = limits.matrix_k = PLAN_MATRIX_SIZE;
    limits.max_binding_bytes = limits.max_allocation_bytes = memory_bytes();
    for (int i = 0; i < 3; i++)
        limits.max_group_size[i] = INT32_MAX;
    limits.max_group_invocations = INT32_MAX;
    limits.max_shared_bytes = INT32_MAX;
    return limits;
}

static const char *const conv_names[] = {
    [CPU_CONV_DIRECT] = "direct convolution", [CPU_CONV_WINOGRAD] = "Winograd convolution"};

/* Everything that results depend on, but not the threads: the name is kept in checkpoints. */
static void write_name(const struct cpu_device *device, struct unet_device_info *info) {
    const char *conv = conv_names[device->conv];
    snprintf(info->name, sizeof(info->name), "CPU (%s%s%s%s)", cpu_isa_name(device->isa),
             conv != NULL ? ", " : "", conv != NULL ? conv : "",
             device->imitates_matrices ? ", matrix units imitated" : "");
}

static void write_choice(const struct cpu_device *device, uint32_t n_threads,
                         struct unet_device_info *info) {
    const char *wanted = getenv("UNET_CPU");
    const bool is_wanted = wanted != NULL && wanted[0] != '\0';
    char conv[80] = "convolutions direct or Winograd, whichever is faster";
    if (conv_names[device->conv] != NULL)
        snprintf(conv, sizeof(conv), "%s, because of UNET_CPU_CONV", conv_names[device->conv]);
    snprintf(info->choice, sizeof(info->choice), "native kernels for %s, %s; %s%s; %u thread%s",
             cpu_isa_name(device->isa),
             is_wanted ? "because of UNET_CPU" : "the best instruction set of this machine", conv,
             device->imitates_matrices
                 ? "; factors of mixed precision rounded as by matrix units, because of UNET_PREFER"
                 : "",
             n_threads, n_threads == 1 ? "" : "s");
}

static bool describe(uint32_t threads, struct cpu_device *device, struct unet_device_info *info,
                     struct err *err) {
    uint32_t n_threads;
    if (!cpu_isa_choose(&device->isa, err) || !cpu_conv_choose(&device->conv, err) ||
        !count_threads(threads, &n_threads, err))
        return false;
    device->imitates_matrices = cpu_rounding_wanted();
    *info = (struct unet_device_info){.backend = "cpu",
                                      .rank = UNET_RANK_NATIVE,
                                      .limits = native_limits(device),
                                      .memory_bytes = memory_bytes(),
                                      .timestamp_period_ns = 1.0f};
    snprintf(info->driver, sizeof(info->driver), "unet native kernels");
    write_name(device, info);
    if (device->isa > cpu_isa_detect())
        snprintf(info->missing, sizeof(info->missing),
                 "the instruction set %s, which UNET_CPU asks for", cpu_isa_name(device->isa));
    else
        write_choice(device, n_threads, info);
    info->usable = info->missing[0] == '\0';
    return true;
}

bool cpu_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err) {
    struct cpu_device unopened = {0};
    struct unet_device_info *device = malloc(sizeof(*device));
    if (device == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a list of devices");
    if (!describe(0, &unopened, device, err)) {
        free(device);
        return false;
    }
    *devices_out = device;
    *count_out = 1;
    return true;
}

bool cpu_device_open(const struct unet_device_info *info, uint32_t threads,
                     struct unet_device **out, struct err *err) {
    uint32_t n_threads;
    *out = NULL;
    struct cpu_device *device = calloc(1, sizeof(*device));
    if (device == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a device");
    bool good = count_threads(threads, &n_threads, err) &&
                describe(n_threads, device, &device->base.info, err);
    if (good && !device->base.info.usable)
        good = err_set(err, ERR_DEVICE, "device %s cannot be used: it lacks %s",
                       device->base.info.name, device->base.info.missing);
    if (!good || !cpu_pool_open(n_threads, &device->pool, err)) {
        free(device);
        return false;
    }
    device->base.backend = &cpu_backend;
    device->base.info.index = info->index;
    *out = &device->base;
    return true;
}

void cpu_device_close(struct unet_device *base) {
    struct cpu_device *device = (struct cpu_device *)base;
    cpu_pool_close(device->pool);
    free(device);
}

struct plan_limits cpu_device_limits(const struct unet_device *device, const struct plan *plan) {
    (void)plan;
    struct plan_limits limits = device->info.limits;
    limits.device = device->info.name;
    return limits;
}
