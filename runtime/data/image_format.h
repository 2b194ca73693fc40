/*
 * image_format.h: what a file format provides to image.c. A new format is a file of its own with
 * these functions, and one row in image.c.
 */
#ifndef UNET_RUNTIME_IMAGE_FORMAT_H
#define UNET_RUNTIME_IMAGE_FORMAT_H

#include "runtime/data/image.h"

struct image_format {
    const char *name;
    bool (*recognise)(const uint8_t *head, size_t n_bytes); /* the first bytes of a file */
    /* Opens a rewound stream; *state_out is handed to the others. Errors do not name the file. */
    bool (*open)(FILE *stream, void **state_out, size_t *n_pages_out, struct err *err);
    bool (*read)(void *state, size_t page, enum image_use use, struct image *out, struct err *err);
    void (*close)(void *state);
};

extern const struct image_format image_format_png;
extern const struct image_format image_format_tiff;

/* Checks a size from a header and allocates the pixels. ERR_INPUT when it is zero or past
 * the limits in image.h, ERR_IO when memory runs out. */
bool image_allocate(uint64_t width, uint64_t height, int channels, int bits, struct image *out,
                    struct err *err);

#endif
