/*
 * sample_field.c: see sample_field.h.
 */
#include "runtime/data/sample_field.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "runtime/data/memory.h"
#include "runtime/data/mirror.h"

struct field field_new(int width, int height) {
    float *values = memory_new((size_t)width * (size_t)height, sizeof *values);
    return (struct field){width, height, values};
}

void field_free(struct field *field) {
    free(field->values);
    memset(field, 0, sizeof *field);
}

/* The four uniform cubic B-spline weights at a fraction 0 .. 1 of a lattice cell. */
static void spline_weights(double t, float weights[4]) {
    weights[0] = (float)((1 - t) * (1 - t) * (1 - t) / 6);
    weights[1] = (float)((3 * t * t * t - 6 * t * t + 4) / 6);
    weights[2] = (float)((-3 * t * t * t + 3 * t * t + 3 * t + 1) / 6);
    weights[3] = (float)(t * t * t / 6);
}

void field_add_noise(struct field *field, double spacing, double deviation, struct rng *rng) {
    int columns = (int)(field->width / spacing) + 5, rows = (int)(field->height / spacing) + 5;
    float *lattice = memory_new((size_t)rows * (size_t)columns, sizeof *lattice);
    float *wide = memory_new((size_t)rows * (size_t)field->width, sizeof *wide);
    double phase_x = rng_uniform(rng), phase_y = rng_uniform(rng);
    /* The mean square sum of the spline's weights is 0.4794 along an axis: over both, the square
       root of 0.4794^2 of the lattice's deviation remains. */
    double scale = deviation / 0.4794;
    for (size_t i = 0; i < (size_t)rows * (size_t)columns; i++)
        lattice[i] = (float)(scale * rng_normal(rng));
    for (int x = 0; x < field->width; x++) {
        float w[4];
        double at = x / spacing + phase_x;
        int cell = (int)at;
        spline_weights(at - cell, w);
        for (int r = 0; r < rows; r++) {
            const float *from = lattice + (size_t)r * (size_t)columns + cell;
            wide[(size_t)r * (size_t)field->width + x] =
                w[0] * from[0] + w[1] * from[1] + w[2] * from[2] + w[3] * from[3];
        }
    }
    for (int y = 0; y < field->height; y++) {
        float w[4];
        double at = y / spacing + phase_y;
        int cell = (int)at;
        spline_weights(at - cell, w);
        size_t step = (size_t)field->width;
        const float *from = wide + (size_t)cell * step;
        float *to = field_at(field, y, 0);
        for (int x = 0; x < field->width; x++, from++)
            to[x] +=
                w[0] * from[0] + w[1] * from[step] + w[2] * from[2 * step] + w[3] * from[3 * step];
    }
    free(lattice);
    free(wide);
}

/* Lower envelope of the parabolas (q - i)^2 + cost[i]; n values, step apart. */
static void distance_1d(float *values, int n, size_t step, float *cost, int *place, float *bound) {
    for (int i = 0; i < n; i++)
        cost[i] = values[(size_t)i * step];
    int last = 0;
    place[0] = 0;
    bound[0] = -INFINITY;
    bound[1] = INFINITY;
    for (int q = 1; q < n; q++) {
        float meet;
        for (;; last--) {
            float i = (float)place[last], fq = (float)q;
            meet = ((cost[q] + fq * fq) - (cost[place[last]] + i * i)) / (2 * (fq - i));
            if (meet > bound[last])
                break;
        }
        place[++last] = q;
        bound[last] = meet;
        bound[last + 1] = INFINITY;
    }
    for (int q = 0, k = 0; q < n; q++) {
        while (bound[k + 1] < (float)q)
            k++;
        float away = (float)(q - place[k]);
        values[(size_t)q * step] = away * away + cost[place[k]];
    }
}

void field_distance(const uint8_t *set, struct field *out) {
    int w = out->width, h = out->height, n = w > h ? w : h;
    size_t n_pixels = (size_t)w * (size_t)h;
    float *cost = memory_new((size_t)n, sizeof *cost);
    float *bound = memory_new((size_t)n + 1, sizeof *bound);
    int *place = memory_new((size_t)n, sizeof *place);
    for (size_t i = 0; i < n_pixels; i++)
        out->values[i] = set[i] ? 0.0f : 1e12f;
    for (int x = 0; x < w; x++)
        distance_1d(out->values + x, h, (size_t)w, cost, place, bound);
    for (int y = 0; y < h; y++)
        distance_1d(field_at(out, y, 0), w, 1, cost, place, bound);
    for (size_t i = 0; i < n_pixels; i++)
        out->values[i] = sqrtf(out->values[i]);
    free(cost);
    free(bound);
    free(place);
}

static void blur_line(float *values, int n, size_t step, const float *kernel, int radius,
                      float *copy) {
    for (int i = 0; i < n; i++)
        copy[i] = values[(size_t)i * step];
    for (int i = 0; i < n; i++) {
        float sum = 0;
        if (i >= radius && i + radius < n)
            for (int k = -radius; k <= radius; k++)
                sum += kernel[k + radius] * copy[i + k];
        else
            for (int k = -radius; k <= radius; k++)
                sum += kernel[k + radius] * copy[mirror_index(i + k, n)];
        values[(size_t)i * step] = sum;
    }
}

void field_blur(struct field *field, double sigma) {
    float kernel[33];
    int radius = (int)ceil(3 * sigma), n = MAX(field->width, field->height);
    radius = MIN(radius, 16);
    double sum = 0;
    for (int k = -radius; k <= radius; k++)
        sum += exp(-0.5 * k * k / (sigma * sigma));
    for (int k = -radius; k <= radius; k++)
        kernel[k + radius] = (float)(exp(-0.5 * k * k / (sigma * sigma)) / sum);
    float *copy = memory_new((size_t)n, sizeof *copy);
    for (int y = 0; y < field->height; y++)
        blur_line(field_at(field, y, 0), field->width, 1, kernel, radius, copy);
    for (int x = 0; x < field->width; x++)
        blur_line(field->values + x, field->height, (size_t)field->width, kernel, radius, copy);
    free(copy);
}

void field_expose(const struct field *field, double read_deviation, double shot_gain,
                  struct rng *rng, struct image *out) {
    size_t n = (size_t)field->width * (size_t)field->height;
    for (size_t i = 0; i < n; i++) {
        double value = fmax(field->values[i], 0);
        double deviation = sqrt(read_deviation * read_deviation + shot_gain * value);
        value += deviation * rng_normal(rng);
        out->pixels[i] = (uint16_t)lround(fmin(fmax(value, 0), 255));
    }
}

double smooth_step(double low, double high, double value) {
    double t = fmin(fmax((value - low) / (high - low), 0), 1);
    return t * t * (3 - 2 * t);
}
