/*
 * resample.c: see resample.h. The sixteen pixels of cubic convolution are read as four runs of
 * four; only where they cross the border are they collected one by one.
 */
#include "runtime/data/resample.h"

#include <stddef.h>
#include <string.h>

#include "runtime/data/mirror.h"

typedef float float4 __attribute__((vector_size(16)));

/* floor() is a library call on machines without an instruction for it. */
static inline int floor_int(double value) {
    const int whole = (int)value;
    return whole - (value < whole);
}

static inline float clamp(float value, float low, float high) {
    return value < low ? low : value > high ? high : value;
}

static inline float4 cubic_weights(float t) {
    return (float4){t * (-0.5f + t * (1.0f - 0.5f * t)), 1.0f + t * t * (1.5f * t - 2.5f),
                    t * (0.5f + t * (2.0f - 1.5f * t)), t * t * (0.5f * t - 0.5f)};
}

static inline float4 load_run(const float *from) {
    float4 run;
    memcpy(&run, from, sizeof(run));
    return run;
}

/* The four pixels from (y, x) on in a row, mirrored. */
static float4 collect_run(const struct resample_plane *plane, int64_t y, int64_t x) {
    const float *row =
        plane->pixels + (size_t)mirror_index(y, plane->height) * (size_t)plane->width;
    return (float4){row[mirror_index(x, plane->width)], row[mirror_index(x + 1, plane->width)],
                    row[mirror_index(x + 2, plane->width)], row[mirror_index(x + 3, plane->width)]};
}

static inline float cubic_value(const struct resample_plane *plane, double y, double x) {
    const int top = floor_int(y) - 1, left = floor_int(x) - 1;
    const float4 across = cubic_weights((float)(x - (left + 1)));
    const float4 down = cubic_weights((float)(y - (top + 1)));
    float4 sum;
    if (top >= 0 && left >= 0 && top + 3 < plane->height && left + 3 < plane->width) {
        const size_t width = (size_t)plane->width;
        const float *from = plane->pixels + (size_t)top * width + (size_t)left;
        sum = down[0] * load_run(from) + down[1] * load_run(from + width) +
              down[2] * load_run(from + 2 * width) + down[3] * load_run(from + 3 * width);
    } else {
        sum = down[0] * collect_run(plane, top, left);
        for (int k = 1; k < 4; k++)
            sum += down[k] * collect_run(plane, (int64_t)top + k, left);
    }
    sum *= across;
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

void resample_cubic(const struct resample_plane *plane, const double *y, const double *x, int n,
                    float low, float high, float *out) {
    for (int i = 0; i < n; i++) {
        out[i] = clamp(cubic_value(plane, y[i], x[i]), low, high);
    }
}

void resample_linear(const struct resample_plane *plane, const double *y, const double *x, int n,
                     float low, float high, float *out) {
    for (int i = 0; i < n; i++) {
        const int top = floor_int(y[i]), left = floor_int(x[i]);
        const float down = (float)(y[i] - top), across = (float)(x[i] - left);
        const float *upper =
            plane->pixels + (size_t)mirror_index(top, plane->height) * (size_t)plane->width;
        const float *lower = plane->pixels + (size_t)mirror_index((int64_t)top + 1, plane->height) *
                                                 (size_t)plane->width;
        const int first = mirror_index(left, plane->width);
        const int second = mirror_index((int64_t)left + 1, plane->width);
        /* Rounding may take the mean of two equal pixels past them. */
        out[i] = clamp((1.0f - down) * ((1.0f - across) * upper[first] + across * upper[second]) +
                           down * ((1.0f - across) * lower[first] + across * lower[second]),
                       low, high);
    }
}

void resample_nearest(int width, int height, const double *y, const double *x, int n,
                      uint32_t *pixels_out, bool *inside_out) {
    for (int i = 0; i < n; i++) {
        const int row = floor_int(y[i] + 0.5), column = floor_int(x[i] + 0.5);
        inside_out[i] = row >= 0 && row < height && column >= 0 && column < width;
        pixels_out[i] = (uint32_t)mirror_index(row, height) * (uint32_t)width +
                        (uint32_t)mirror_index(column, width);
    }
}
