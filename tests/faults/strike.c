/*
 * strike.c: see strike.h.
 */
#include "tests/faults/strike.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct fault_setting setting;
static char setting_name[64];
static bool with_report;
static uint64_t named_calls; /* of the name in the setting */
static struct fault_report report;

__attribute__((visibility("default"))) void unet_fault_set(const struct fault_setting *wanted);

void unet_fault_set(const struct fault_setting *wanted) {
    setting = *wanted;
    if (wanted->name != NULL) {
        snprintf(setting_name, sizeof(setting_name), "%s", wanted->name);
        setting.name = setting_name;
    }
    named_calls = report.calls = report.hits = 0;
    report.name = "";
}

static void set_pair(struct fault_setting *wanted, const char *key, const char *value) {
    if (strcmp(key, "call") == 0)
        wanted->call = strtoull(value, NULL, 10);
    else if (strcmp(key, "every") == 0)
        wanted->every = strtoull(value, NULL, 10);
    else if (strcmp(key, "name") == 0)
        wanted->name = value;
    else if (strcmp(key, "report") == 0)
        with_report = true;
    else if (strcmp(key, "refusals") == 0)
        wanted->refusals =
            strcmp(value, "all") == 0 ? UINT32_MAX : (uint32_t)strtoul(value, NULL, 10);
    else if (strcmp(key, "error") == 0)
        wanted->error = strcmp(value, "lost") == 0     ? FAULT_LOST
                        : strcmp(value, "never") == 0  ? FAULT_NEVER
                        : strcmp(value, "device") == 0 ? FAULT_DEVICE_MEMORY
                                                       : FAULT_HOST_MEMORY;
    else
        fprintf(stderr, "fault layer: UNET_FAULT: \"%s\" is unknown\n", key);
}

/* Once, when the library is loaded. */
__attribute__((constructor)) static void read_environment(void) {
    const char *text = getenv("UNET_FAULT");
    struct fault_setting wanted = {.call = 0};
    report.name = "";
    if (text == NULL)
        return;
    char copy[256];
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *rest = copy, *pair; (pair = strtok_r(rest, ",", &rest)) != NULL;) {
        char *equals = strchr(pair, '=');
        if (equals != NULL)
            *equals = '\0';
        set_pair(&wanted, pair, equals != NULL ? equals + 1 : "");
    }
    unet_fault_set(&wanted);
}

static VkResult result_of(enum fault_error error) {
    return error == FAULT_LOST            ? VK_ERROR_DEVICE_LOST
           : error == FAULT_DEVICE_MEMORY ? VK_ERROR_OUT_OF_DEVICE_MEMORY
                                          : VK_ERROR_OUT_OF_HOST_MEMORY;
}

static bool is_hit(const char *name) {
    if (setting.name != NULL && strcmp(setting.name, name) != 0)
        return false;
    const uint64_t number = ++named_calls;
    return setting.call > 0 && number >= setting.call &&
           (number == setting.call ||
            (setting.every > 0 && (number - setting.call) % setting.every == 0));
}

VkResult strike_call(struct strike_state *device, const char *name) {
    report.calls++;
    if (device != NULL && device->lost)
        return VK_ERROR_DEVICE_LOST;
    if (!is_hit(name))
        return VK_SUCCESS;
    if (report.hits++ == 0)
        report.name = name;
    if (setting.error == FAULT_NEVER) {
        if (device != NULL)
            device->hangs = true;
        return VK_SUCCESS;
    }
    if (setting.error != FAULT_LOST)
        return result_of(setting.error);
    if (device == NULL) /* there is nothing to lose yet */
        return VK_ERROR_INITIALIZATION_FAILED;
    device->lost = true;
    return VK_ERROR_DEVICE_LOST;
}

VkResult strike_creation(void) {
    if (report.hits > 0 && setting.refusals > 0) {
        setting.refusals -= setting.refusals != UINT32_MAX;
        return VK_ERROR_INITIALIZATION_FAILED;
    }
    return strike_call(NULL, "vkCreateDevice");
}

void strike_leak(long count, const char *what, const char *until) {
    if (count == 0)
        return;
    report.leaks++;
    fprintf(stderr, "fault layer: leak: %ld of %s left when %s\n", count, what, until);
}

struct fault_report strike_report(void) {
    return report;
}

void strike_print_report(void) {
    if (with_report)
        fprintf(stderr, "fault layer: %llu calls, %llu faults\n", (unsigned long long)report.calls,
                (unsigned long long)report.hits);
}
