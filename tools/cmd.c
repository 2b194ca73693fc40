/*
 * cmd.c: what several commands of unetrun share: numbers for people, JSON, plan and weights.
 */
#include "tools/cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "common/plan_limits.h"
#include "runtime/train/recover.h"

bool cmd_print_json(json_t *object, struct err *err) {
    char *text =
        object != NULL ? json_dumps(object, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    if (text == NULL)
        return err_set(err, ERR_INPUT, "the result cannot be written as JSON");
    printf("%s\n", text);
    free(text);
    return true;
}

uint64_t cmd_count_parameters(const struct plan *plan) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < plan->n_params; i++) {
        uint64_t count = 1;
        for (uint32_t k = 0; k < plan->params[i].rank; k++)
            count *= plan->params[i].dims[k];
        total += count;
    }
    return total;
}

uint64_t cmd_count_flops(const struct plan_program *program) {
    uint64_t flops = 0;
    for (uint32_t i = 0; i < program->n_records; i++)
        flops += plan_record_counts(&program->records[i]) ? program->records[i].flops : 0;
    return flops;
}

const char *cmd_class_name(enum plan_class cls) {
    return cls == PLAN_CLASS_GPU ? "GPU" : "CPU";
}

const char *cmd_access_name(const struct unet_device_info *device) {
    if (strcmp(device->backend, "cpu") == 0)
        return "pointers";
    return device->limits.access == PLAN_ACCESS_DESCRIPTOR ? "descriptors" : "addresses";
}

const char *cmd_format_bytes(uint64_t size_bytes, char *text, size_t room) {
    if (size_bytes < 1024)
        snprintf(text, room, "%u B", (unsigned)size_bytes);
    else if (size_bytes < 1024 * 1024)
        snprintf(text, room, "%.1f KiB", (double)size_bytes / 1024);
    else
        snprintf(text, room, "%.1f MiB", (double)size_bytes / (1024 * 1024));
    return text;
}

const char *cmd_format_count(uint64_t count, char *text, size_t room) {
    char digits[24];
    const int n = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)count);
    size_t used = 0;
    for (int i = 0; i < n && used + 2 < room; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

const char *cmd_format_duration(double seconds, char *text, size_t room) {
    const unsigned long total = seconds < 0 ? 0 : (unsigned long)(seconds + 0.5);
    if (total >= 3600)
        snprintf(text, room, "%lu h %02lu min", total / 3600, total / 60 % 60);
    else if (total >= 60)
        snprintf(text, room, "%lu min %02lu s", total / 60, total % 60);
    else
        snprintf(text, room, "%lu s", total);
    return text;
}

bool cmd_device_open(const struct cli_common *common, struct unet_device **out, struct err *err) {
    char disable[256] = "";
    for (size_t i = 0; i < common->disable.count; i++) {
        const size_t used = strlen(disable);
        const int length = snprintf(disable + used, sizeof(disable) - used, "%s%s",
                                    i > 0 ? "," : "", common->disable.items[i]);
        if ((size_t)length >= sizeof(disable) - used)
            return err_set(err, ERR_USAGE, "--disable: too many names");
    }
    const struct unet_device_options options = {
        .select = common->device, .threads = common->threads, .disable = disable};
    return unet_device_open(&options, out, err);
}

static bool open_weights(struct cmd_network *network, struct err *err) {
    static const char *const programs[] = {"infer"};
    const struct unet_session_options options = {.programs = programs,
                                                 .n_programs = ARRAY_LEN(programs)};
    return unet_session_open(network->device, network->plan, &options, &network->session, err) &&
           unet_checkpoint_load(network->session, network->weights, false, NULL, err);
}

bool cmd_network_open(const struct plan *plan, const struct cli_common *common, const char *weights,
                      struct cmd_network *network, struct err *err) {
    network->plan = plan;
    network->weights = weights;
    if (cmd_find_program(plan, "infer", err) != NULL &&
        cmd_device_open(common, &network->device, err) && open_weights(network, err))
        return true;
    cmd_network_close(network);
    return false;
}

/* After an error of the device. */
static bool open_again(struct cmd_network *network, const struct err *err) {
    struct err why = *err;
    while (why.code == ERR_DEVICE && !why.device_hangs && ++network->losses < RECOVER_LOSSES) {
        unet_session_close(network->session);
        network->session = NULL;
        log_print(LOG_WARNING, "%s; opening the device again", why.text);
        if (!recover_reopen(network->device, &why))
            return false;
        if (open_weights(network, &why))
            return true;
    }
    return false;
}

bool cmd_network_infer(struct cmd_network *network, const float *image, uint32_t height,
                       uint32_t width, int tta, const struct infer_progress *progress, float *probs,
                       struct err *err) {
    while (!infer_image(network->session, image, height, width, tta, progress, probs, err))
        if (!open_again(network, err))
            return false;
    network->losses = 0;
    return true;
}

void cmd_network_close(struct cmd_network *network) {
    unet_session_close(network->session);
    unet_device_close(network->device);
    *network = (struct cmd_network){0};
}

const struct plan_program *cmd_find_program(const struct plan *plan, const char *name,
                                            struct err *err) {
    const struct plan_program *program = plan_program_find(plan, name);
    if (program != NULL)
        return program;
    char list[256] = "";
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                 plan->programs[i].name);
    }
    err_set(err, ERR_USAGE, "the plan has no program \"%s\"", name);
    err_hint(err, "its programs: %s", list);
    return NULL;
}

static json_t *describe_field(const struct plan_limits *limits,
                              const struct plan_limits_field *field) {
    json_t *list = json_array();
    for (uint32_t i = 0; i < field->count; i++) {
        const uint64_t value = plan_limits_get(limits, field, i);
        json_array_append_new(list, field->words != NULL ? json_string(field->words[value])
                                                         : json_integer((json_int_t)value));
    }
    if (field->count > 1)
        return list;
    json_t *only = json_incref(json_array_get(list, 0));
    json_decref(list);
    return only;
}

json_t *cmd_limits_json(const struct plan_limits *limits) {
    const struct plan_limits_field *fields;
    const size_t n_fields = plan_limits_fields(&fields);
    json_t *object = json_object();
    for (size_t i = 0; i < n_fields; i++)
        json_object_set_new(object, fields[i].name, describe_field(limits, &fields[i]));
    return object;
}
