/*
 * sample.h: labelled pictures made by arithmetic, for trying things out where no data is at hand:
 * "unetrun sample". The same options give the same bytes.
 *
 * MEMBRANE looks like a section of nerve tissue in the electron microscope: grey cells in all sizes
 * between dark membranes that vary in thickness and contrast, with mitochondria, vesicles and
 * filaments that are as dark as membranes but are none. Labels: 8-bit, 255 cell, 0 membrane.
 *
 * CELLS looks like stained nuclei in the fluorescence microscope: bright textured blobs, some
 * touching, on a dark uneven ground. Labels: 16-bit, 0 ground, 1, 2, ... one number per nucleus.
 */
#ifndef UNET_RUNTIME_SAMPLE_H
#define UNET_RUNTIME_SAMPLE_H

#include <stdint.h>

#include "runtime/data/image.h"

#define SAMPLE_MIN_SIZE 32
#define SAMPLE_MAX_SIZE 8192

enum sample_kind { SAMPLE_MEMBRANE, SAMPLE_CELLS };

struct sample_options {
    enum sample_kind kind;
    int count;         /* 1 .. 9999 */
    int width, height; /* SAMPLE_MIN_SIZE .. SAMPLE_MAX_SIZE */
    uint64_t seed;
};

/* The picture with a number, 0 .. count - 1, and its labels; freed by the caller. */
void sample_draw(const struct sample_options *options, int number, struct image *image,
                 struct image *labels);

/* Writes directory/images/NN.png and directory/labels/NN.png. ERR_USAGE for options out of range,
 * ERR_IO. */
bool sample_write(const char *directory, const struct sample_options *options, struct err *err);

#endif
