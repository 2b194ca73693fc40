/*
 * err.h: how fallible functions report: they return false and fill a struct err once, with the
 * object, the cause and, where a next step exists, a hint. Nothing below main exits. The code
 * becomes the exit status of the tools.
 */
#ifndef UNET_ERR_H
#define UNET_ERR_H

#include <stdbool.h>

enum err_code { ERR_NONE = 0, ERR_INPUT = 1, ERR_USAGE = 2, ERR_DEVICE = 3, ERR_IO = 4 };

struct err {
    enum err_code code;
    char text[1024];   /* one line, "object: cause" */
    char hint[512];    /* what to do next; empty when there is nothing to say */
    bool device_lost;  /* with ERR_DEVICE: what ran on the device is gone, but it may come back */
    bool device_hangs; /* with ERR_DEVICE: it gives no answer; it is not opened again */
};

/* Fills *err (which may be NULL) and returns false, so that a caller can write "return
 * err_set(...)". */
bool err_set(struct err *err, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Adds a hint to an error already set and returns false. */
bool err_hint(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the text of an error already set (a file or tensor name) and returns
 * false. */
bool err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
