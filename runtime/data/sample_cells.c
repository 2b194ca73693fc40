/*
 * sample_cells.c: drawn nuclei under a fluorescence microscope (sample.h). Each nucleus is an
 * ellipse with a wavy outline; a nucleus is kept when it overlaps those before it by little, and
 * then gets the pixels that are still free, so that some nuclei touch and none share a pixel.
 */
#include <math.h>
#include <stdlib.h>

#include "common/base.h"
#include "runtime/data/sample_field.h"
#include "runtime/data/sample_kinds.h"

#define TWO_PI 6.283185307179586
#define HARMONICS 3

struct nucleus {
    double x, y, cosine, sine, a, b;
    double wave[HARMONICS], phase[HARMONICS]; /* of the outline, periods 2, 3, 4 */
    double brightness;
};

static double random_size(struct rng *rng) {
    return 9.5 * exp(0.28 * rng_normal(rng));
}

static struct nucleus random_nucleus(double x, double y, struct rng *rng) {
    double angle = rng_range(rng, 0, TWO_PI), size = random_size(rng);
    double stretch = rng_range(rng, 1.0, 1.35);
    struct nucleus nucleus = {.x = x,
                              .y = y,
                              .cosine = cos(angle),
                              .sine = sin(angle),
                              .a = size * stretch,
                              .b = size / stretch,
                              .brightness = 95 * exp(0.38 * rng_normal(rng))};
    for (int k = 0; k < HARMONICS; k++) {
        nucleus.wave[k] = rng_range(rng, 0, 0.09 / (k + 1));
        nucleus.phase[k] = rng_range(rng, 0, TWO_PI);
    }
    return nucleus;
}

/* 0 at the centre, 1 on the outline. */
static double nucleus_radius(const struct nucleus *nucleus, int y, int x) {
    double dx = x - nucleus->x, dy = y - nucleus->y;
    double u = (nucleus->cosine * dx + nucleus->sine * dy) / nucleus->a;
    double v = (nucleus->cosine * dy - nucleus->sine * dx) / nucleus->b;
    double angle = atan2(v, u), outline = 1;
    for (int k = 0; k < HARMONICS; k++)
        outline += nucleus->wave[k] * sin((k + 2) * angle + nucleus->phase[k]);
    return sqrt(u * u + v * v) / outline;
}

struct box {
    int x0, y0, x1, y1; /* both ends inside */
};

static struct box nucleus_box(const struct nucleus *nucleus, const struct image *labels) {
    double reach = 1.25 * nucleus->a + 2;
    return (struct box){MAX((int)(nucleus->x - reach), 0), MAX((int)(nucleus->y - reach), 0),
                        MIN((int)(nucleus->x + reach), labels->width - 1),
                        MIN((int)(nucleus->y + reach), labels->height - 1)};
}

/* True when at most a twentieth of the nucleus is taken and it has at least 30 pixels here. */
static bool has_room(const struct nucleus *nucleus, const struct image *labels) {
    struct box box = nucleus_box(nucleus, labels);
    int covered = 0, taken = 0;
    for (int y = box.y0; y <= box.y1; y++)
        for (int x = box.x0; x <= box.x1; x++)
            if (nucleus_radius(nucleus, y, x) <= 1) {
                covered++;
                taken += labels->pixels[(size_t)y * (size_t)labels->width + (size_t)x] != 0;
            }
    return covered >= 30 && 20 * taken <= covered;
}

static void draw_nucleus(const struct nucleus *nucleus, uint16_t id, const struct field *texture,
                         struct field *value, struct image *labels) {
    struct box box = nucleus_box(nucleus, labels);
    for (int y = box.y0; y <= box.y1; y++)
        for (int x = box.x0; x <= box.x1; x++) {
            uint16_t *label = &labels->pixels[(size_t)y * (size_t)labels->width + (size_t)x];
            double radius = nucleus_radius(nucleus, y, x);
            if (radius > 1 || *label != 0)
                continue;
            *label = id;
            double dome = 0.72 + 0.28 * sqrt(1 - radius * radius);
            *field_at(value, y, x) +=
                (float)(nucleus->brightness * dome * fmax(1 + *field_at(texture, y, x), 0.3));
        }
}

/* Some nuclei are placed beside the last one, at about touching distance. */
static void place_nuclei(struct rng *rng, const struct field *texture, struct field *value,
                         struct image *labels) {
    double area = (double)labels->width * labels->height, crowd = rng_range(rng, 0.35, 1.0);
    int attempts = MAX((int)(area * crowd / 750), 1), count = 0;
    double near_x = 0, near_y = 0;
    for (int i = 0; i < attempts && count < UINT16_MAX; i++) {
        double x = rng_range(rng, 0, labels->width), y = rng_range(rng, 0, labels->height);
        double angle = rng_range(rng, 0, TWO_PI), away = rng_range(rng, 15, 22);
        if (count > 0 && rng_uniform(rng) < 0.45) {
            x = near_x + away * cos(angle);
            y = near_y + away * sin(angle);
        }
        struct nucleus nucleus = random_nucleus(x, y, rng);
        if (!has_room(&nucleus, labels))
            continue;
        draw_nucleus(&nucleus, (uint16_t)++count, texture, value, labels);
        near_x = x;
        near_y = y;
    }
}

/* Specks of stain that are no nuclei. */
static void draw_debris(struct rng *rng, struct field *value) {
    int count = (int)((double)value->width * value->height / 12000) + (int)rng_below(rng, 3);
    for (int i = 0; i < count; i++) {
        double cx = rng_range(rng, 0, value->width), cy = rng_range(rng, 0, value->height);
        double radius = rng_range(rng, 0.7, 1.8), height = rng_range(rng, 25, 90);
        for (int y = MAX((int)cy - 6, 0); y <= MIN((int)cy + 6, value->height - 1); y++)
            for (int x = MAX((int)cx - 6, 0); x <= MIN((int)cx + 6, value->width - 1); x++) {
                double square = (x - cx) * (x - cx) + (y - cy) * (y - cy);
                *field_at(value, y, x) += (float)(height * exp(-0.5 * square / (radius * radius)));
            }
    }
}

/* Light from out of focus: what is drawn so far, spread wide, on top of the sharp picture. */
static void add_haze(struct field *value, double amount) {
    struct field haze = field_new(value->width, value->height);
    size_t n = (size_t)value->width * (size_t)value->height;
    for (size_t i = 0; i < n; i++)
        haze.values[i] = value->values[i];
    field_blur(&haze, 5.3);
    field_blur(&haze, 5.3);
    for (size_t i = 0; i < n; i++)
        value->values[i] += (float)(amount * haze.values[i]);
    field_free(&haze);
}

void sample_cells(uint64_t seed, uint32_t number, struct image *image, struct image *labels) {
    struct rng rng = rng_stream(seed, number, 0x63000000u);
    struct field value = field_new(image->width, image->height);
    struct field texture = field_new(image->width, image->height);
    field_add_noise(&texture, 9, 0.10, &rng);
    field_add_noise(&texture, 3.5, 0.13, &rng);
    place_nuclei(&rng, &texture, &value, labels);
    draw_debris(&rng, &value);
    struct field ground = field_new(image->width, image->height);
    field_add_noise(&ground, 120, 2.5, &rng);
    field_blur(&value, rng_range(&rng, 0.9, 1.5));
    add_haze(&value, rng_range(&rng, 0.03, 0.12));
    double level = rng_range(&rng, 9, 20);
    size_t n = image_samples(image);
    for (size_t i = 0; i < n; i++)
        value.values[i] += (float)(level + ground.values[i]);
    field_expose(&value, 2.2, 0.35, &rng, image);
    field_free(&ground);
    field_free(&texture);
    field_free(&value);
}
