/*
 * overlay.c: see overlay.h.
 */
#include "runtime/data/overlay.h"

#include <math.h>
#include <stddef.h>

#define GAP 4 /* pixels between panels */

struct colour {
    float red, green, blue; /* 0 .. 1 */
};

struct range {
    float low, scale;
};

static struct range find_range(const struct overlay *overlay) {
    size_t n = (size_t)overlay->width * (size_t)overlay->height * (size_t)overlay->channels;
    float low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        low = fminf(low, overlay->image[i]);
        high = fmaxf(high, overlay->image[i]);
    }
    return (struct range){low, high > low ? 1 / (high - low) : 0};
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

/* On the side of the higher class, so that a line is one pixel wide. */
static bool on_boundary(const struct overlay *overlay, int y, int x) {
    int w = overlay->width, h = overlay->height;
    size_t i = (size_t)y * (size_t)w + (size_t)x;
    const uint8_t *at = overlay->prediction + i;
    return (x > 0 && at[-1] < *at) || (x + 1 < w && at[1] < *at) ||
           (y > 0 && *(at - (ptrdiff_t)w) < *at) || (y + 1 < h && at[w] < *at);
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
    return on_boundary(overlay, y, x) ? mix(colour, yellow, 0.8f) : colour;
}

static void put(struct image *out, int y, int x, struct colour colour) {
    uint16_t *to = out->pixels + ((size_t)y * (size_t)out->width + (size_t)x) * 3;
    const float parts[3] = {colour.red, colour.green, colour.blue};
    for (int c = 0; c < 3; c++)
        to[c] = (uint16_t)lroundf(255 * fminf(fmaxf(parts[c], 0), 1));
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
    return out;
}

bool overlay_write(const char *path, const struct overlay *overlay, struct err *err) {
    struct image picture = overlay_draw(overlay);
    bool ok = image_write_png(path, &picture, err);
    image_free(&picture);
    return ok;
}
