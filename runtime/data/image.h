/*
 * image.h: pictures and label pictures in and out of files. PNG and TIFF, 8 or 16 bits, grey or
 * RGB; the format is told by the first bytes of the file, never by its name.
 *
 * What a pixel value means:
 *  - 8- and 16-bit samples are delivered as stored.
 *  - 1-, 2- and 4-bit grey is widened to 0..255 as both formats define it: a 1-bit mask gives 0 and
 *    255. The stored bits never appear.
 *  - A palette whose colours are all grey gives the grey value. Any other palette gives RGB when
 *    read as a picture, and the stored index when read as labels: annotation tools write class
 *    numbers with a colour for each.
 *  - Alpha is dropped, transparency and gamma are not applied. TIFF "white is zero" is turned round
 *    so that larger is always brighter.
 *
 * A TIFF may hold many pages (a stack); reduced-resolution copies are passed over. Memory is one
 * page, whatever the file's size.
 */
#ifndef UNET_RUNTIME_IMAGE_H
#define UNET_RUNTIME_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/* Of one page: guards against hostile headers. */
#define IMAGE_MAX_PIXELS ((uint64_t)1 << 30)
#define IMAGE_MAX_SIDE (1u << 20)

struct image {
    int width, height;
    int channels;     /* 1 grey, 3 RGB */
    int bits;         /* 8: values 0..255; 16: values 0..65535 */
    uint16_t *pixels; /* rows of interleaved channels, 16-bit storage for either depth */
};

enum image_use { IMAGE_PICTURE, IMAGE_LABELS };

struct image_file;

/* Opens a file, or takes a seekable stream over (closed with the file, also on failure); name is
 * for messages. ERR_IO when unreadable, ERR_INPUT when not an image that can be read. */
bool image_file_open(const char *path, struct image_file **out, struct err *err);
bool image_file_open_stream(FILE *stream, const char *name, struct image_file **out,
                            struct err *err);
size_t image_file_pages(const struct image_file *file);
/* Reads page 0 .. pages - 1; the caller frees *out with image_free. */
bool image_file_read(struct image_file *file, size_t page, enum image_use use, struct image *out,
                     struct err *err);
void image_file_close(struct image_file *file); /* NULL-safe */

/* Reads a file that must hold exactly one page. */
bool image_load(const char *path, enum image_use use, struct image *out, struct err *err);

/* A black image; channels 1 or 3, bits 8 or 16. Ends the program when memory runs out. */
struct image image_new(int width, int height, int channels, int bits);
void image_free(struct image *image);            /* leaves it zeroed; safe on a zeroed one */
size_t image_samples(const struct image *image); /* width * height * channels */

/* Writes a PNG atomically: 8- or 16-bit grey or RGB. ERR_IO. */
bool image_write_png(const char *path, const struct image *image, struct err *err);

#endif
