/*
 * overlay.c: see overlay.h.
 */
#include "runtime/data/overlay.h"

#include <math.h>
#include <stdlib.h>

#include "runtime/data/contour.h"
#include "runtime/data/memory.h"

#define GAP 4         /* pixels between panels */
#define REACH 8       /* px that objects grow; those that meet then are neighbours */
#define BINS 65536    /* of the histogram of the image */
#define CLIPPED 0.001 /* share of the values that may be cut off at either end */

struct colour {
    float red, green, blue; /* 0 .. 1 */
};

struct range {
    float low, scale;
};

/* Bright enough to be seen on black and strong enough to be seen on white. */
static const struct colour palette[CONTOUR_COLOURS] = {
    {1, 0.9f, 0},        /* yellow */
    {0, 0.85f, 1},       /* cyan */
    {1, 0.25f, 0.85f},   /* magenta */
    {0.25f, 0.9f, 0.2f}, /* green */
    {1, 0.5f, 0},        /* orange */
    {0.3f, 0.5f, 1},     /* blue */
    {1, 0.2f, 0.2f},     /* red */
    {0.7f, 0.4f, 1},     /* violet */
};

static struct range full_range(const float *values, size_t count) {
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        low = fminf(low, values[i]);
        high = fmaxf(high, values[i]);
    }
    return (struct range){low, high > low ? 1 / (high - low) : 0};
}

/* The bin that is reached after so many values, counted from one end. */
static long find_bin(const size_t *bins, bool from_top, size_t values) {
    long bin = from_top ? BINS - 1 : 0;
    for (size_t seen = bins[bin]; seen <= values; seen += bins[bin])
        bin += from_top ? -1 : 1;
    return bin;
}

/* Where nearly all values lie; all of them when these few are all the contrast there is. */
static struct range find_range(const struct overlay *overlay) {
    const size_t count =
        (size_t)overlay->width * (size_t)overlay->height * (size_t)overlay->channels;
    const struct range range = full_range(overlay->image, count);
    size_t *bins = memory_new(BINS, sizeof(*bins));
    for (size_t i = 0; i < count; i++)
        bins[(size_t)((overlay->image[i] - range.low) * range.scale * (BINS - 1))]++;
    const size_t clipped = (size_t)(CLIPPED * (double)count);
    const long low = find_bin(bins, false, clipped), high = find_bin(bins, true, clipped);
    free(bins);
    if (low >= high)
        return range;
    return (struct range){range.low + (float)low / (BINS - 1) / range.scale,
                          range.scale * (BINS - 1) / (float)(high - low)};
}

static struct colour input_colour(const struct overlay *overlay, struct range range, size_t i) {
    size_t plane = (size_t)overlay->width * (size_t)overlay->height;
    size_t step = overlay->channels == 3 ? plane : 0;
    return (struct colour){(overlay->image[i] - range.low) * range.scale,
                           (overlay->image[i + step] - range.low) * range.scale,
                           (overlay->image[i + 2 * step] - range.low) * range.scale};
}

static bool counts(const struct overlay *overlay, size_t i) {
    return overlay->labels && (!overlay->weights || overlay->weights[i] != 0);
}

static struct colour label_colour(const struct overlay *overlay, size_t i) {
    if (!counts(overlay, i))
        return (struct colour){0.2f, 0.3f, 0.6f};
    float top = overlay->n_classes > 1 ? (float)(overlay->n_classes - 1) : 1;
    float grey = (float)overlay->labels[i] / top;
    return (struct colour){grey, grey, grey};
}

static struct colour mix(struct colour under, struct colour over, float cover) {
    return (struct colour){under.red + cover * (over.red - under.red),
                           under.green + cover * (over.green - under.green),
                           under.blue + cover * (over.blue - under.blue)};
}

static struct colour prediction_colour(const struct overlay *overlay, struct range range, int y,
                                       int x) {
    static const struct colour black = {0, 0, 0}, red = {1, 0.15f, 0.1f}, blue = {0.15f, 0.4f, 1},
                               magenta = {1, 0, 1}, yellow = {1, 0.9f, 0};
    size_t i = (size_t)y * (size_t)overlay->width + (size_t)x;
    struct colour colour = mix(input_colour(overlay, range, i), black, 0.25f);
    uint32_t last = overlay->n_classes - 1, predicted = overlay->prediction[i];
    if (counts(overlay, i) && overlay->labels[i] != predicted)
        colour = mix(colour,
                     predicted == last            ? red
                     : overlay->labels[i] == last ? blue
                                                  : magenta,
                     0.65f);
    return contour_of_class(overlay->prediction, overlay->width, overlay->height, y, x,
                            contour_thickness(overlay->width, overlay->height))
               ? mix(colour, yellow, 0.8f)
               : colour;
}

static void put(struct image *out, int y, int x, struct colour colour) {
    uint16_t *to = out->pixels + ((size_t)y * (size_t)out->width + (size_t)x) * 3;
    const float parts[3] = {colour.red, colour.green, colour.blue};
    for (int c = 0; c < 3; c++)
        to[c] = (uint16_t)lroundf(255 * fminf(fmaxf(parts[c], 0), 1));
}

/* Outlines of objects, each in its colour, into a picture from column left on. */
static void put_objects(const struct overlay *overlay, const uint32_t *objects, int left,
                        struct image *out) {
    const int w = overlay->width, h = overlay->height, thickness = contour_thickness(w, h);
    uint8_t *colours = contour_colours(objects, w, h, REACH);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (contour_of_region(objects, w, h, y, x, thickness))
                put(out, y, left + x, palette[colours[objects[(size_t)y * (size_t)w + (size_t)x]]]);
    free(colours);
}

static void put_classes(const struct overlay *overlay, struct image *out) {
    const int w = overlay->width, h = overlay->height, thickness = contour_thickness(w, h);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            if (contour_of_class(overlay->prediction, w, h, y, x, thickness)) {
                const uint32_t class_ = overlay->prediction[(size_t)y * (size_t)w + (size_t)x];
                put(out, y, x, palette[(class_ - 1) % CONTOUR_COLOURS]);
            }
}

struct image overlay_draw_contours(const struct overlay *overlay) {
    struct image out = image_new(overlay->width, overlay->height, 3, 8);
    const struct range range = find_range(overlay);
    for (int y = 0; y < overlay->height; y++)
        for (int x = 0; x < overlay->width; x++)
            put(&out, y, x,
                input_colour(overlay, range, (size_t)y * (size_t)overlay->width + (size_t)x));
    if (overlay->predicted_objects != NULL)
        put_objects(overlay, overlay->predicted_objects, 0, &out);
    else
        put_classes(overlay, &out);
    return out;
}

struct image overlay_draw(const struct overlay *overlay) {
    int n_panels = overlay->labels ? 3 : 2, step = overlay->width + GAP;
    struct image out = image_new(n_panels * step - GAP, overlay->height, 3, 8);
    struct range range = find_range(overlay);
    for (int y = 0; y < overlay->height; y++)
        for (int x = 0; x < overlay->width; x++) {
            size_t i = (size_t)y * (size_t)overlay->width + (size_t)x;
            put(&out, y, x, input_colour(overlay, range, i));
            if (overlay->labels)
                put(&out, y, step + x, label_colour(overlay, i));
            put(&out, y, (n_panels - 1) * step + x, prediction_colour(overlay, range, y, x));
        }
    if (overlay->labels && overlay->label_objects)
        put_objects(overlay, overlay->label_objects, step, &out);
    return out;
}

static bool write_and_free(const char *path, struct image picture, struct err *err) {
    const bool good = image_write_png(path, &picture, err);
    image_free(&picture);
    return good;
}

bool overlay_write(const char *path, const struct overlay *overlay, struct err *err) {
    return write_and_free(path, overlay_draw(overlay), err);
}

bool overlay_write_contours(const char *path, const struct overlay *overlay, struct err *err) {
    return write_and_free(path, overlay_draw_contours(overlay), err);
}
