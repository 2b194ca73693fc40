/*
 * normalise.h: from stored grey values to the numbers a network sees. Every image is treated by
 * itself, all its channels together, so that colours keep their proportions:
 *
 *   NONE      v = stored / 255 or 65535, by the file's depth
 *   UNIT      v = (stored - least) / (greatest - least), 0 for an image of one value
 *   STANDARD  v = (stored - mean) / standard deviation (1 for an image of one value)
 *
 * and then x = (v - offset) * scale.
 */
#ifndef UNET_RUNTIME_NORMALISE_H
#define UNET_RUNTIME_NORMALISE_H

#include "common/plan.h"
#include "runtime/data/image.h"

/* Writes planes[channel][y][x]. */
void normalise_image(const struct image *image, enum plan_normalise mode, float offset, float scale,
                     float *planes);

#endif
