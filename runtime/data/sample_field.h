/*
 * sample_field.h: planes of numbers and what the drawn samples are made of: smooth random fields,
 * distances, blur.
 */
#ifndef UNET_RUNTIME_SAMPLE_FIELD_H
#define UNET_RUNTIME_SAMPLE_FIELD_H

#include <stdint.h>

#include "common/rng.h"
#include "runtime/data/image.h"

struct field {
    int width, height;
    float *values;
};

struct field field_new(int width, int height); /* zeros; ends the program when memory runs out */
void field_free(struct field *field);

static inline float *field_at(const struct field *field, int y, int x) {
    return field->values + (size_t)y * (size_t)field->width + x;
}

/* Adds a smooth random field: normal numbers on a lattice of the given spacing, joined by cubic
 * B-splines and scaled to the given standard deviation. */
void field_add_noise(struct field *field, double spacing, double deviation, struct rng *rng);

/* Distance of every pixel to the nearest one that is set; 1e6 and more when none is. P. F.
 * Felzenszwalb, D. P. Huttenlocher, "Distance transforms of sampled functions", 2012. */
void field_distance(const uint8_t *set, struct field *out);

/* Gaussian blur, mirrored at the borders. */
void field_blur(struct field *field, double sigma);

/* Adds noise of the given deviation at every pixel, growing with the square root of brightness
 * (photon or electron counts), and rounds to 0 .. 255. */
void field_expose(const struct field *field, double read_deviation, double shot_gain,
                  struct rng *rng, struct image *out);

/* 0 below low, 1 above high, smooth between. */
double smooth_step(double low, double high, double value);

#endif
