/*
 * instances.h: objects in label pictures and predictions: maps of ids, [height][width], 0 where
 * there is no object.
 */
#ifndef UNET_RUNTIME_INSTANCES_H
#define UNET_RUNTIME_INSTANCES_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Cuts lines of background, one pixel wide, between objects of one class that touch, so that
 * classes alone still tell them apart: in raster order, a pixel becomes background when one of the
 * neighbours before it (left, and the three above) belongs to another object of its class and has
 * not been cut itself. Afterwards no two objects of a class touch, not even at corners. ids stay as
 * they are; classes changes. Pixels of id 0 are left alone.
 */
void instances_separate(const uint32_t *ids, uint8_t *classes, int width, int height,
                        uint8_t background);

struct instances_options {
    uint8_t background;  /* the class that is no object */
    uint32_t min_pixels; /* smaller objects are dropped; 0 or 1: none */
    bool fill_holes;     /* background that an object encloses becomes part of it */
};

/*
 * Objects of a prediction: the 4-connected components of equal class other than background,
 * numbered 1, 2, ... in raster order of their first pixels after dropping and filling, in this
 * order: sizes are those before holes are filled, and what is dropped is background. Holes are
 * 8-connected parts of the background with sides to one object only and none to the border of the
 * picture. Returns the number of objects.
 */
uint32_t instances_label(const uint8_t *classes, int width, int height,
                         const struct instances_options *options, uint32_t *ids_out);

#endif
