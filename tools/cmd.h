/*
 * cmd.h: the commands of unetrun, one table each, and what several of them share.
 */
#ifndef UNET_CMD_H
#define UNET_CMD_H

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "runtime/infer/infer.h"
#include "runtime/runtime.h"
#include "tools/cli.h"

extern const struct cli_command cmd_devices, cmd_info, cmd_train, cmd_infer, cmd_eval, cmd_bench,
    cmd_sample, cmd_augment, cmd_tune, cmd_selftest;

/* Prints one JSON object on stdout and releases it. */
bool cmd_print_json(json_t *object, struct err *err);

/* The number of elements of all parameters. */
uint64_t cmd_count_parameters(const struct plan *plan);
uint64_t cmd_count_flops(const struct plan_program *program);

const char *cmd_class_name(enum plan_class cls); /* "GPU", "CPU" */
/* How kernels reach tensors: "descriptors", "addresses"; the CPU's own: "pointers". */
const char *cmd_access_name(const struct unet_device_info *device);

/* The device that the command line asks for. */
bool cmd_device_open(const struct cli_common *common, struct unet_device **out, struct err *err);

/* "151.2 MiB" in a buffer of the caller. */
const char *cmd_format_bytes(uint64_t size_bytes, char *text, size_t room);
/* "31,030,658" in a buffer of the caller. */
const char *cmd_format_count(uint64_t count, char *text, size_t room);
/* "1 h 02 min", "3 min 20 s", "7 s" in a buffer of the caller. */
const char *cmd_format_duration(double seconds, char *text, size_t room);

/* A plan on a device with weights from a checkpoint, for inference. Zeroed: nothing open. */
struct cmd_network {
    const struct plan *plan; /* of the caller */
    const char *weights;     /* of the caller */
    uint32_t losses;         /* of the device, since an image was done */
    struct unet_device *device;
    struct unet_session *session;
};
bool cmd_network_open(const struct plan *plan, const struct cli_common *common, const char *weights,
                      struct cmd_network *network, struct err *err);
void cmd_network_close(struct cmd_network *network);
/* Probabilities of an image, as infer_image has it; when the device fails, it is opened again and
   the image repeated. progress may be NULL. */
bool cmd_network_infer(struct cmd_network *network, const float *image, uint32_t height,
                       uint32_t width, int tta, const struct infer_progress *progress, float *probs,
                       struct err *err);

/* How the driver of a device compiles a plan's shaders (cmd_pipelines.c). */
bool cmd_print_pipelines(const struct cli_common *common, const char *path, bool json,
                         struct err *err);

/* The program of a plan, or an error that lists those there are. */
const struct plan_program *cmd_find_program(const struct plan *plan, const char *name,
                                            struct err *err);

/* The fields of a limits file. */
json_t *cmd_limits_json(const struct plan_limits *limits);

#endif
