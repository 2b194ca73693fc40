/*
 * overlay.h: pictures for people, 8-bit RGB. The image in them is stretched to its own range, less
 * one pixel in a thousand at either end, so that a few hot pixels do not make the rest dark.
 *
 * overlay_draw_contours: one picture of the image's size: the image with what was predicted
 * outlined in colour. Given objects, each has an outline of its own in a colour other than that of
 * its neighbours; otherwise regions of classes have, inside the higher of two classes, a colour for
 * each class. Lines lie inside the object, 1 px wide, 2 px in pictures of more than 1000 px a side.
 *
 * overlay_draw: panels side by side, 4 pixels apart:
 *   panel 1  the image
 *   panel 2  the labels, classes from black (0) to white (the last); ignored pixels mid blue. With
 *            objects, each is outlined in colour. Left out when there are no labels.
 *   panel 3  the image, darker, with the prediction: yellow lines around predicted regions; with
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
    const uint32_t *label_objects;     /* ids, [height][width], 0 none; NULL: not told apart */
    const uint32_t *predicted_objects; /* the same of the prediction */
};

/* The pictures, freed by the caller. */
struct image overlay_draw(const struct overlay *overlay);
struct image overlay_draw_contours(const struct overlay *overlay);
bool overlay_write(const char *path, const struct overlay *overlay, struct err *err);
bool overlay_write_contours(const char *path, const struct overlay *overlay, struct err *err);

#endif
