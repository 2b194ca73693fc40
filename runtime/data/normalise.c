/*
 * normalise.c: see normalise.h.
 */
#include "runtime/data/normalise.h"

#include <math.h>

struct range {
    double zero, unit; /* v = (stored - zero) / unit */
};

static struct range unit_range(const struct image *image) {
    size_t n = image_samples(image);
    unsigned least = UINT16_MAX, greatest = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned value = image->pixels[i];
        least = value < least ? value : least;
        greatest = value > greatest ? value : greatest;
    }
    return (struct range){least, greatest > least ? greatest - least : 1};
}

static struct range standard_range(const struct image *image) {
    size_t n = image_samples(image);
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += image->pixels[i];
    double mean = (double)sum / (double)n, squares = 0;
    for (size_t i = 0; i < n; i++) /* a second pass: no cancellation */
        squares += (image->pixels[i] - mean) * (image->pixels[i] - mean);
    double deviation = sqrt(squares / (double)n);
    return (struct range){mean, deviation > 0 ? deviation : 1};
}

void normalise_image(const struct image *image, enum plan_normalise mode, float offset, float scale,
                     float *planes) {
    struct range range = {0, image->bits == 16 ? 65535 : 255};
    if (mode == PLAN_NORMALISE_UNIT)
        range = unit_range(image);
    else if (mode == PLAN_NORMALISE_STANDARD)
        range = standard_range(image);
    size_t n_pixels = (size_t)image->width * (size_t)image->height;
    size_t channels = (size_t)image->channels;
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < n_pixels; i++) {
            double value = (image->pixels[i * channels + c] - range.zero) / range.unit;
            planes[c * n_pixels + i] = (float)((value - offset) * scale);
        }
}
