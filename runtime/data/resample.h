/*
 * resample.h: values of a picture between its pixels, for rows of positions. A position is (y, x)
 * in pixels, whole numbers at pixel centres; beyond the border lies the mirrored picture
 * (mirror.h).
 *
 *   cubic   cubic convolution with a = -1/2 (R. G. Keys, "Cubic convolution interpolation for
 *           digital image processing", IEEE ASSP 29, 1981): reproduces quadratic pictures, and at
 *           pixel centres the pixels, bit for bit. It overshoots at edges.
 *   linear  bilinear
 *
 * Values are clamped to the range given.
 */
#ifndef UNET_RUNTIME_RESAMPLE_H
#define UNET_RUNTIME_RESAMPLE_H

#include <stdbool.h>
#include <stdint.h>

struct resample_plane {
    const float *pixels; /* [height][width] */
    int width, height;
};

/* n positions y[i], x[i] of at most 1e9 px from the picture. */
void resample_cubic(const struct resample_plane *plane, const double *y, const double *x, int n,
                    float low, float high, float *out);
void resample_linear(const struct resample_plane *plane, const double *y, const double *x, int n,
                     float low, float high, float *out);

/* The nearest pixel, as its number y * width + x, and whether the position is nearest to a pixel of
 * the picture itself rather than to one of its mirror images. */
void resample_nearest(int width, int height, const double *y, const double *x, int n,
                      uint32_t *pixels_out, bool *inside_out);

#endif
