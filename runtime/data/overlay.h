/*
 * overlay.h: pictures for people: the input, the labels and the prediction side by side, as an
 * 8-bit RGB image.
 *
 *   panel 1  the input, stretched to its own range
 *   panel 2  the labels, classes from black (0) to white (the last); ignored pixels mid blue. Left
 *            out when there are no labels.
 *   panel 3  the input, darker, with the prediction: yellow lines around predicted regions; with
 *            labels also red where the last class (foreground) was predicted wrongly, blue where it
 *            was missed, magenta where other classes were confused.
 */
#ifndef UNET_RUNTIME_OVERLAY_H
#define UNET_RUNTIME_OVERLAY_H

#include "runtime/data/image.h"

struct overlay {
    int width, height, channels; /* channels 1 or 3 */
    const float *image;          /* [channels][height][width], in any range */
    const uint8_t *labels;       /* [height][width]; NULL: none */
    const float *weights;        /* [height][width], 0 ignored; NULL: all count */
    const uint8_t *prediction;   /* [height][width] */
    uint32_t n_classes;
};

/* The picture, freed by the caller; panels are 4 pixels apart. */
struct image overlay_draw(const struct overlay *overlay);
bool overlay_write(const char *path, const struct overlay *overlay, struct err *err);

#endif
