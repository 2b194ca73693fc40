/*
 * cmd_sample.c: unetrun sample: labelled pictures made by the project.
 */
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "runtime/data/sample.h"
#include "tools/cmd.h"

struct sample_values {
    struct cli_common common;
    uint32_t count;
    struct cli_size size;
    const char *kind;
    uint64_t seed;
};

static const struct cli_option sample_options[] = {
    {"count", 0, CLI_COUNT, "N", offsetof(struct sample_values, count), false, "24",
     "pairs of image and labels"},
    {"size", 0, CLI_SIZE, "WxH", offsetof(struct sample_values, size), false, "512x512",
     "of each, in pixels"},
    {"kind", 0, CLI_CHOICE, "membrane|cells", offsetof(struct sample_values, kind), false,
     "membrane", "dark membranes between textured cells, or bright nuclei with instance numbers"},
    {"seed", 0, CLI_SEED, "N", offsetof(struct sample_values, seed), false, "1",
     "the same seed gives the same files"},
};

static bool run_sample(const void *data, struct err *err) {
    const struct sample_values *values = data;
    const char *directory = values->common.operands.items[0];
    const struct sample_options options = {
        .kind = strcmp(values->kind, "cells") == 0 ? SAMPLE_CELLS : SAMPLE_MEMBRANE,
        .count = (int)MIN(values->count, (uint32_t)INT32_MAX),
        .width = (int)values->size.width,
        .height = (int)values->size.height,
        .seed = values->seed,
    };
    if (!sample_write(directory, &options, err))
        return false;
    log_print(LOG_INFO, "%s: %u images of %ux%u pixels in images/, their labels in labels/",
              directory, values->count, values->size.width, values->size.height);
    return true;
}

const struct cli_command cmd_sample = {
    .name = "sample",
    .summary = "Writes labelled images made by the program, for trying things out.",
    .details = "Writes DIR/images/NN.png and DIR/labels/NN.png. Labels of membrane: 255 cell, 0 "
               "membrane;\nof cells: 16 bits, 0 background, 1, 2, ... one number per nucleus.",
    .operands = "DIR",
    .options = sample_options,
    .n_options = ARRAY_LEN(sample_options),
    .values_bytes = sizeof(struct sample_values),
    .run = run_sample,
};
