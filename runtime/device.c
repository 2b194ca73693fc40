/*
 * device.c: the devices of the public interface: listing what the backends offer, and choosing one
 * by number, by backend, by name or by rank.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/exec.h"

static const struct exec_backend *const backends[] = {
#if UNET_HAS_VULKAN
    &gpu_backend,
#endif
    &cpu_backend,
};

/* Devices of all backends in a row, and why a backend has none. */
struct device_list {
    struct unet_device_info *devices;
    size_t count;
    size_t firsts[ARRAY_LEN(backends)]; /* of each backend */
    struct err errs[ARRAY_LEN(backends)];
};

static bool append(struct device_list *list, const struct unet_device_info *devices, size_t count,
                   struct err *err) {
    struct unet_device_info *grown =
        realloc(list->devices, MAX(list->count + count, 1u) * sizeof(*devices));
    if (grown == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a list of devices");
    list->devices = grown;
    if (count > 0)
        memcpy(grown + list->count, devices, count * sizeof(*devices));
    list->count += count;
    return true;
}

/* A backend without a driver has no devices; anything else that goes wrong is an error. */
static bool list_backend(struct device_list *list, size_t number, struct err *err) {
    struct unet_device_info *devices = NULL;
    size_t count = 0;
    struct err *own = &list->errs[number];
    list->firsts[number] = list->count;
    if (!backends[number]->list(&devices, &count, own) && own->code != ERR_DEVICE) {
        if (err != NULL)
            *err = *own;
        return false;
    }
    const bool good = append(list, devices, count, err);
    free(devices);
    return good;
}

static bool list_open(struct device_list *list, struct err *err) {
    *list = (struct device_list){.devices = NULL};
    for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
        if (!list_backend(list, i, err)) {
            free(list->devices);
            return false;
        }
    }
    for (size_t i = 0; i < list->count; i++) {
        list->devices[i].index = (uint32_t)i;
        list->devices[i].limits.device = list->devices[i].name;
    }
    return true;
}

bool unet_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err) {
    struct device_list list;
    *devices_out = NULL;
    *count_out = 0;
    if (!list_open(&list, err))
        return false;
    *devices_out = list.devices;
    *count_out = list.count;
    return true;
}

/* ---- choosing ---- */

#define UUID_DIGITS 8 /* that stand for a uuid, at least */

static bool contains(const char *text, const char *part) {
    const size_t length = strlen(part);
    for (; strlen(text) >= length; text++) {
        size_t i = 0;
        while (i < length && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == length)
            return true;
    }
    return false;
}

static bool is_number(const char *text) {
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

/* What there is, as a hint: "0 NAME, 1 NAME". */
static bool hint_devices(const struct device_list *list, struct err *err) {
    char text[400] = "";
    for (size_t i = 0; i < list->count; i++) {
        const size_t length = strlen(text);
        snprintf(text + length, sizeof(text) - length, "%s%u %s", i > 0 ? ", " : "",
                 list->devices[i].index, list->devices[i].name);
    }
    return err_hint(err, "devices here: %s", text);
}

/* The one to use without being asked. */
static const struct unet_device_info *by_rank(const struct device_list *list, struct err *err) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const struct unet_device_info *device = &list->devices[i];
        if (device->usable && device->rank < UNET_RANK_ON_REQUEST &&
            (found == NULL || device->rank < found->rank))
            found = device;
    }
    for (size_t i = 0; found == NULL && i < list->count; i++) {
        if (list->devices[i].rank < UNET_RANK_ON_REQUEST) {
            err_set(err, ERR_DEVICE, "no device here can be used: %s lacks %s",
                    list->devices[i].name, list->devices[i].missing);
            break;
        }
    }
    return found;
}

/* The best of a backend's devices, whatever its rank; one that cannot be used says why when it is
   opened. */
static const struct unet_device_info *by_backend(const struct device_list *list, size_t number,
                                                 struct err *err) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const struct unet_device_info *device = &list->devices[i];
        if (strcmp(device->backend, backends[number]->name) != 0)
            continue;
        if (found == NULL || (device->usable && (!found->usable || device->rank < found->rank)))
            found = device;
    }
    if (found == NULL && err != NULL)
        *err = list->errs[number];
    return found;
}

/* How many digits of a uuid a text gives from its start, in any case, with dashes or without as
   other programs print it; 0: it is of another one. */
static size_t uuid_digits(const char *uuid, const char *text) {
    size_t digits = 0;
    for (; *text != '\0'; text++) {
        if (*text == '-' && digits > 0)
            continue;
        if (uuid[digits] == '\0' || tolower((unsigned char)*text) != uuid[digits])
            return 0;
        digits++;
    }
    return digits;
}

/* The device whose uuid starts so. */
static const struct unet_device_info *by_uuid(const struct device_list *list, const char *start) {
    for (size_t i = 0; i < list->count; i++) {
        if (uuid_digits(list->devices[i].uuid, start) >= UUID_DIGITS)
            return &list->devices[i];
    }
    return NULL;
}

/* The usable device of that name, else one that cannot be used. */
static const struct unet_device_info *by_name(const struct device_list *list, const char *name) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (contains(list->devices[i].name, name) && (found == NULL || !found->usable))
            found = &list->devices[i];
    }
    return found;
}

static const struct unet_device_info *choose(const struct device_list *list, const char *select,
                                             struct err *err) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
        if (strcmp(select, backends[i]->name) == 0)
            return by_backend(list, i, err);
    }
#if !UNET_HAS_VULKAN
    if (strcmp(select, "vulkan") == 0) {
        err_set(err, ERR_DEVICE, "device \"vulkan\": this build has no Vulkan");
        err_hint(err, "it was configured with -Dvulkan=disabled, or without libvulkan");
        return NULL;
    }
#endif
    found = by_uuid(list, select);
    if (found != NULL)
        return found;
    if (is_number(select)) {
        errno = 0;
        const unsigned long index = strtoul(select, NULL, 10);
        found = errno == 0 && index < list->count ? &list->devices[index] : NULL;
    } else if (select[0] != '\0') {
        found = by_name(list, select);
    }
    if (found == NULL) {
        err_set(err, ERR_DEVICE, "device \"%s\": there is none", select);
        hint_devices(list, err);
    }
    return found;
}

/* Opens a device by the number that its backend knows it under. */
static bool open_listed(const struct device_list *list, const struct unet_device_info *info,
                        uint32_t threads, struct unet_device **out, struct err *err) {
    for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
        if (strcmp(info->backend, backends[i]->name) != 0)
            continue;
        struct unet_device_info own = *info;
        own.index -= (uint32_t)list->firsts[i];
        if (!backends[i]->open_device(&own, threads, out, err))
            return false;
        (*out)->info.index = info->index;
        return true;
    }
    return err_set(err, ERR_DEVICE, "device %s: no such backend", info->name);
}

bool unet_device_open(const struct unet_device_options *options, struct unet_device **out,
                      struct err *err) {
    const char *select = options != NULL ? options->select : NULL;
    const char *preset = getenv("UNET_DEVICE");
    const bool is_preset = select == NULL && preset != NULL && preset[0] != '\0';
    struct device_list list;
    *out = NULL;
    uint32_t disabled = 0;
    if (!fast_path_parse("--disable", options != NULL ? options->disable : NULL, &disabled, err) ||
        !fast_path_parse("UNET_DISABLE", getenv("UNET_DISABLE"), &disabled, err) ||
        !fast_path_check_words(err) || !list_open(&list, err))
        return false;
    if (is_preset)
        select = preset;
    const struct unet_device_info *info =
        select == NULL ? by_rank(&list, err) : choose(&list, select, err);
    const bool done =
        info != NULL && open_listed(&list, info, options != NULL ? options->threads : 0, out, err);
    free(list.devices);
    if (done)
        (*out)->disabled = disabled;
    if (!done && is_preset)
        err_prefix(err, "UNET_DEVICE=%s", preset);
    return done;
}

void unet_device_close(struct unet_device *device) {
    if (device != NULL)
        device->backend->close_device(device);
}

bool unet_device_reopen(struct unet_device *device, struct err *err) {
    const struct exec_backend *backend = device->backend;
    if (backend->reopen_device == NULL)
        return err_set(err, ERR_DEVICE, "device %s cannot be opened again", device->info.name);
    return backend->reopen_device(device, err);
}

const struct unet_device_info *unet_device_get_info(const struct unet_device *device) {
    return &device->info;
}

struct plan_limits unet_device_plan_limits(const struct unet_device *device,
                                           const struct plan *plan) {
    return device->backend->limits(device, plan);
}

bool unet_plan_inspect(struct unet_device *device, const struct plan *plan,
                       unet_pipeline_report *report, void *user, struct err *err) {
    const struct exec_backend *backend = device->backend;
    if (backend->inspect == NULL) {
        err_set(err, ERR_DEVICE, "device %s: it runs native code, there are no pipelines",
                device->info.name);
        return err_hint(err, "--device vulkan, or a Vulkan device's number or name");
    }
    if (!plan_verify(plan, NULL, err))
        return false;
    struct plan_limits limits = backend->limits(device, plan);
    limits.max_allocation_bytes = UINT64_MAX; /* nothing is allocated */
    return plan_fits(plan, &limits, err) &&
           backend->inspect(device, plan, limits, report, user, err);
}

uint32_t unet_device_validation_count(const struct unet_device *device) {
    return device->backend->validation_count != NULL ? device->backend->validation_count(device)
                                                     : 0;
}
