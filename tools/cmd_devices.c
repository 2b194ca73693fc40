/*
 * cmd_devices.c: unetrun devices: which devices there are, what they allow, and which one would be
 * used and why; or, with --pipelines, how the drivers compile a plan.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base.h"
#include "common/file.h"
#include "common/plan_limits.h"
#include "tools/cmd.h"

struct devices_values {
    struct cli_common common;
    const char *pipelines, *target;
    bool json;
};

static const struct cli_option devices_options[] = {
    {"pipelines", 0, CLI_TEXT, "FILE.plan", offsetof(struct devices_values, pipelines), false, NULL,
     "compile this plan's shaders for the device instead, and print what its driver tells about "
     "them: registers, spills and the like; with --json also the listings. Runs nothing"},
    {"target", 0, CLI_TEXT, "FILE", offsetof(struct devices_values, target), false, NULL,
     "write the limits of the device that would be used, or of --device, for unetc --target"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct devices_values, json), false, NULL,
     "print one JSON object"},
};

/* The device that would be opened. */
struct choice {
    int64_t index; /* -1: none can be used */
    uint32_t off;  /* fast paths that are switched off on it, a bit each */
};

static bool find_choice(const struct cli_common *common, const struct unet_device_info *devices,
                        size_t count, struct choice *choice, struct err *err) {
    bool any = common->device != NULL;
    *choice = (struct choice){.index = -1};
    for (size_t i = 0; i < count; i++)
        any = any || devices[i].usable;
    if (!any)
        return true;
    struct unet_device *device;
    if (!cmd_device_open(common, &device, err))
        return false;
    const struct unet_fast_path *paths;
    const size_t n_paths = unet_fast_paths(&paths);
    choice->index = unet_device_get_info(device)->index;
    for (size_t i = 0; i < n_paths; i++)
        choice->off |= (uint32_t)unet_fast_path_is_off(device, i) << i;
    unet_device_close(device);
    return true;
}

static json_t *describe_contract(const struct unet_device_info *device) {
    json_t *list = json_array();
    for (size_t i = 0; i < device->n_contract; i++) {
        const struct unet_contract_line *line = &device->contract[i];
        json_t *object =
            json_pack("{s:s, s:b, s:s, s:b, s:s}", "name", line->name, "required",
                      (int)line->is_required, "here", line->here,
                      line->is_required ? "met" : "used", (int)line->good, "brings", line->brings);
        json_object_set_new(object, line->is_required ? "needed" : "use",
                            json_string(line->is_required ? line->required : line->use));
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *describe_device(const struct unet_device_info *device, bool chosen) {
    json_t *object = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:f, s:o}", "index", (int)device->index,
        "backend", device->backend, "name", device->name, "driver", device->driver, "api_version",
        device->api_version, "usable", (int)device->usable, "chosen", (int)chosen, "memory_bytes",
        (json_int_t)device->memory_bytes, "timestamp_period_ns",
        (double)device->timestamp_period_ns, "limits", cmd_limits_json(&device->limits));
    if (object == NULL)
        return NULL;
    json_object_set_new(object, "uuid", json_string(device->uuid));
    json_object_set_new(object, "contract", describe_contract(device));
    json_object_set_new(object, "known_bad", json_string(device->known_bad));
    if (device->usable) {
        json_object_set_new(object, "class", json_string(cmd_class_name(device->limits.class_)));
        json_object_set_new(object, "access", json_string(cmd_access_name(device)));
        json_object_set_new(object, "choice", json_string(device->choice));
    } else {
        json_object_set_new(object, "missing", json_string(device->missing));
    }
    return object;
}

static bool print_json(const struct unet_device_info *devices, size_t count,
                       const struct choice *choice, struct err *err) {
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(
            list, describe_device(&devices[i], (int64_t)devices[i].index == choice->index));
    const struct unet_fast_path *paths;
    const size_t n_paths = unet_fast_paths(&paths);
    json_t *names = json_array(), *off = json_array();
    for (size_t i = 0; i < n_paths; i++) {
        json_array_append_new(names, json_string(paths[i].name));
        if (choice->off >> i & 1u)
            json_array_append_new(off, json_string(paths[i].name));
    }
    return cmd_print_json(
        json_pack("{s:o, s:o, s:o, s:o}", "devices", list, "chosen",
                  choice->index >= 0 ? json_integer((json_int_t)choice->index) : json_null(),
                  "fast_paths", names, "disabled", off),
        err);
}

static void print_limits(const struct plan_limits *limits) {
    char a[32];
    printf("     groups    %u x %u x %u of at most %u invocations (%u x %u x %u), %s shared\n",
           limits->max_groups[0], limits->max_groups[1], limits->max_groups[2],
           limits->max_group_invocations, limits->max_group_size[0], limits->max_group_size[1],
           limits->max_group_size[2], cmd_format_bytes(limits->max_shared_bytes, a, sizeof(a)));
}

/* Every required line against the device, then what it may offer and what becomes of it. */
static void print_contract(const struct unet_device_info *device) {
    bool was_required = false;
    for (size_t i = 0; i < device->n_contract; i++) {
        const struct unet_contract_line *line = &device->contract[i];
        if (line->is_required && !was_required)
            printf("     contract                         here              needed\n");
        if (!line->is_required && was_required)
            printf("     optional                         here              use\n");
        was_required = line->is_required;
        if (line->is_required)
            printf("       %-30s %-17s %-17s %s\n", line->name, line->here, line->required,
                   line->good ? "ok" : "MISSING");
        else
            printf("       %-30s %-17s %s\n%56s(%s)\n", line->name, line->here, line->use, "",
                   line->brings);
    }
}

/* Limits are those of drivers: the CPU itself has none but its memory. */
static void print_device(const struct unet_device_info *device, bool chosen) {
    const struct plan_limits *limits = &device->limits;
    const bool is_vulkan = strcmp(device->backend, "vulkan") == 0;
    char a[32], b[32], c[32];
    printf("%u  %s%s\n", device->index, device->name, chosen ? "   <- used" : "");
    cmd_format_bytes(device->memory_bytes, a, sizeof(a));
    if (is_vulkan) {
        printf("     driver    %s, Vulkan %s\n", device->driver, device->api_version);
        printf("     memory    %s, one allocation up to %s, one binding up to %s\n", a,
               cmd_format_bytes(limits->max_allocation_bytes, b, sizeof(b)),
               cmd_format_bytes(limits->max_binding_bytes, c, sizeof(c)));
        print_limits(limits);
    } else {
        printf("     driver    %s\n", device->driver);
        printf("     memory    %s\n", a);
    }
    if (limits->matrix_m > 0)
        printf(
            "     matrix    %u x %u x %u in half precision, added up in single; subgroups of %u\n",
            limits->matrix_m, limits->matrix_n, limits->matrix_k, limits->subgroup_size);
    if (device->uuid[0] != '\0')
        printf("     uuid      %s\n", device->uuid);
    printf("     clock     ");
    if (device->timestamp_period_ns > 0)
        printf("time stamps of %g ns\n", (double)device->timestamp_period_ns);
    else
        printf("no time stamps: no --profile\n");
    if (device->known_bad[0] != '\0')
        printf("     off       %s\n", device->known_bad);
    if (device->usable)
        printf("     use       %s\n", device->choice);
    else
        printf("     unusable  %s\n", device->missing);
    print_contract(device);
}

static void print_table(const struct unet_device_info *devices, size_t count,
                        const struct choice *choice) {
    for (size_t i = 0; i < count; i++)
        print_device(&devices[i], (int64_t)devices[i].index == choice->index);
    if (choice->index < 0)
        printf("none of these devices can be used\n");
    const struct unet_fast_path *paths;
    const size_t n_paths = unet_fast_paths(&paths);
    printf("fast paths, each off with --disable NAME\n");
    for (size_t i = 0; i < n_paths; i++)
        printf("     %-9s %s%s\n", paths[i].name, choice->off >> i & 1u ? "(off here) " : "",
               paths[i].what);
}

static bool write_limits(const struct unet_device_info *info, const char *path, struct err *err) {
    char device[300], driver[400], date[48];
    struct file_writer writer;
    if (strcmp(info->backend, "vulkan") != 0) {
        err_set(err, ERR_USAGE, "--target: %s runs native kernels, it takes any plan", info->name);
        return err_hint(err, "--device vulkan, or a Vulkan device's number or name");
    }
    const time_t now = time(NULL);
    struct tm day;
    if (gmtime_r(&now, &day) == NULL || strftime(date, sizeof(date), "written: %F", &day) == 0)
        date[0] = '\0';
    snprintf(device, sizeof(device), "device: %s", info->name);
    snprintf(driver, sizeof(driver), "driver: %s, Vulkan %s", info->driver, info->api_version);
    const char *const remarks[] = {"limits of a device, for unetc --target (docs/targets.md)",
                                   device, driver, date, NULL};
    if (!file_writer_open(&writer, path, err))
        return false;
    plan_limits_print(&info->limits, remarks, writer.stream);
    return file_writer_commit(&writer, err);
}

static bool write_target(const struct cli_common *common, const char *path, struct err *err) {
    struct unet_device *device;
    if (!cmd_device_open(common, &device, err))
        return false;
    const bool good = write_limits(unet_device_get_info(device), path, err);
    unet_device_close(device);
    return good;
}

static bool run_devices(const void *data, struct err *err) {
    const struct devices_values *values = data;
    struct unet_device_info *devices;
    size_t count;
    struct choice choice;
    if (values->pipelines != NULL)
        return cmd_print_pipelines(&values->common, values->pipelines, values->json, err);
    if (values->target != NULL)
        return write_target(&values->common, values->target, err);
    if (!unet_device_list(&devices, &count, err))
        return false;
    bool good = find_choice(&values->common, devices, count, &choice, err);
    if (good && values->json)
        good = print_json(devices, count, &choice, err);
    else if (good)
        print_table(devices, count, &choice);
    free(devices);
    return good;
}

const struct cli_command cmd_devices = {
    .name = "devices",
    .summary = "Lists devices, their limits, and which one will be used and why.",
    .operands = "",
    .options = devices_options,
    .n_options = ARRAY_LEN(devices_options),
    .values_bytes = sizeof(struct devices_values),
    .run = run_devices,
};
