/*
 * tune.h: the file of unetrun tune: which method computes a shape fastest, as measured, for each
 * device and driver version. A text file, so that it can be read, edited and copied; format and
 * place are in docs/runtime.md.
 */
#ifndef UNET_TUNE_H
#define UNET_TUNE_H

#include "common/vec.h"
#include "runtime/exec.h"

struct tune_line {
    const char *device; /* tune_key of what it was measured on */
    const char *shape;  /* plan_choice_shape */
    enum plan_method_kind kind;
    const char *note; /* after #; "" */
};

struct tune {
    struct arena arena;
    VEC(struct tune_line) lines;
};

#define TUNE_KEY_TEXT 640
/* "NAME | DRIVER | CPU driver, addresses"; returns text. */
const char *tune_key(const struct unet_device *device, enum plan_device kind,
                     char text[TUNE_KEY_TEXT]);

/* Reads a file (NULL: unet_tune_path). None there is none read; what makes no sense is reported
   line by line and passed over. */
void tune_load(struct tune *tune, const char *path);
void tune_free(struct tune *tune);
/* NULL: there is no such line. */
const struct tune_line *tune_find(const struct tune *tune, const char *device, const char *shape);

/* What a device is for the preferences of plans, with these limits. */
enum plan_device exec_device_kind(const struct unet_device *device,
                                  const struct plan_limits *limits);

#endif
