/*
 * device.c: the devices of the public interface: listing, and choosing one by number, by name or by
 * rank.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/exec.h"

/* All of them; the Vulkan executor is the only one. */
static const struct exec_backend *const backend = &gpu_backend;

bool unet_device_list(struct unet_device_info **devices_out, size_t *count_out, struct err *err) {
    *devices_out = NULL;
    *count_out = 0;
    if (!backend->list(devices_out, count_out, err))
        return false;
    for (size_t i = 0; i < *count_out; i++)
        (*devices_out)[i].limits.device = (*devices_out)[i].name;
    return true;
}

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
static bool hint_devices(const struct unet_device_info *devices, size_t count, struct err *err) {
    char list[400] = "";
    for (size_t i = 0; i < count; i++) {
        const size_t length = strlen(list);
        snprintf(list + length, sizeof(list) - length, "%s%u %s", i > 0 ? ", " : "",
                 devices[i].index, devices[i].name);
    }
    return err_hint(err, "devices here: %s", list);
}

static const struct unet_device_info *best(const struct unet_device_info *devices, size_t count) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (devices[i].usable && (found == NULL || devices[i].rank < found->rank))
            found = &devices[i];
    }
    return found;
}

/* The usable device of that name, else one that cannot be used (so that opening it says why). */
static const struct unet_device_info *by_name(const struct unet_device_info *devices, size_t count,
                                              const char *name) {
    const struct unet_device_info *found = NULL;
    for (size_t i = 0; i < count; i++) {
        if (contains(devices[i].name, name) && (found == NULL || !found->usable))
            found = &devices[i];
    }
    return found;
}

static const struct unet_device_info *choose(const struct unet_device_info *devices, size_t count,
                                             const char *select, struct err *err) {
    const struct unet_device_info *found = NULL;
    if (select == NULL) {
        found = best(devices, count);
        if (found == NULL)
            err_set(err, ERR_DEVICE, "no device here can be used: %s lacks %s", devices[0].name,
                    devices[0].missing);
        return found;
    }
    if (is_number(select)) {
        errno = 0;
        const unsigned long index = strtoul(select, NULL, 10);
        found = errno == 0 && index < count ? &devices[index] : NULL;
    } else if (select[0] != '\0') {
        found = by_name(devices, count, select);
    }
    if (found == NULL) {
        err_set(err, ERR_DEVICE, "device \"%s\": there is none", select);
        hint_devices(devices, count, err);
    }
    return found;
}

bool unet_device_open(const char *select, struct unet_device **out, struct err *err) {
    struct unet_device_info *devices;
    size_t count;
    *out = NULL;
    if (!unet_device_list(&devices, &count, err))
        return false;
    const struct unet_device_info *info = choose(devices, count, select, err);
    const bool done = info != NULL && backend->open_device(info, out, err);
    free(devices);
    return done;
}

void unet_device_close(struct unet_device *device) {
    if (device != NULL)
        device->backend->close_device(device);
}

const struct unet_device_info *unet_device_get_info(const struct unet_device *device) {
    return &device->info;
}

uint32_t unet_device_validation_count(const struct unet_device *device) {
    return device->backend->validation_count(device);
}
