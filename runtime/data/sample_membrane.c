/*
 * sample_membrane.c: a drawn section of nerve tissue (sample.h).
 *
 * Cells: the sites of a shaken lattice, joined at random into larger cells, in coordinates bent by
 * smooth random fields; a pixel belongs to the cell of its nearest site. Membranes: the pixels
 * within a varying distance of where two cells meet, with the corners of the cells rounded. Labels
 * follow from that alone, so they are exact; everything drawn later only changes grey values.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "runtime/data/memory.h"
#include "runtime/data/sample_field.h"
#include "runtime/data/sample_kinds.h"

#define SITE_SPACING 27.0  /* pixels between lattice sites */
#define BORDER_SITES 6     /* beyond the image, so that bent coordinates find sites */
#define CORNER_RADIUS 3.0f /* pixels */
#define MAX_JOINED 16      /* sites of a cell */
#define TWO_PI 6.283185307179586

struct site {
    float x, y;
    int cell;   /* the site it was joined to, after resolving: the cell's number */
    int joined; /* sites of the cell, counted at its first */
};

struct scene {
    uint64_t seed;
    uint32_t number;
    int width, height;
    int columns, rows; /* of sites */
    struct site *sites;
    int *cell;             /* of each pixel */
    struct field distance; /* to where two cells meet */
    struct field half;     /* the distance up to which membrane reaches */
    struct field faint;    /* 0 .. 1: membranes cut at a slant, wide and faint */
    struct field depth;    /* into the membrane from the nearest cell's edge; negative in cells */
    struct field value;    /* grey */
};

/* One stream of random numbers for each purpose: changing one part leaves the others alone. */
enum purpose { SITES, BEND, THICKNESS, TEXTURE, ORGANELLES, EXPOSURE };

static struct rng stream(const struct scene *scene, enum purpose purpose) {
    return rng_stream(scene->seed, scene->number, 0x6d000000u + (uint32_t)purpose);
}

static double clamp(double value, double low, double high) {
    return fmin(fmax(value, low), high);
}

/* ---------------------------------------------------------------- cells */

static int find_cell(struct scene *scene, int i) {
    while (scene->sites[i].cell != i)
        i = scene->sites[i].cell = scene->sites[scene->sites[i].cell].cell;
    return i;
}

static void join(struct scene *scene, int a, int b) {
    a = find_cell(scene, a);
    b = find_cell(scene, b);
    if (a == b || scene->sites[a].joined + scene->sites[b].joined > MAX_JOINED)
        return;
    scene->sites[a].cell = b;
    scene->sites[b].joined += scene->sites[a].joined;
}

/* Regions differ in how readily sites join: bundles of thin neurites here, large bodies there. */
static void join_sites(struct scene *scene, struct rng *rng) {
    struct field zones = field_new(scene->columns, scene->rows);
    field_add_noise(&zones, 4.5, 0.34, rng);
    for (int r = 0; r < scene->rows; r++)
        for (int c = 0; c < scene->columns; c++) {
            double readiness = clamp(0.46 + *field_at(&zones, r, c), 0.06, 0.94);
            if (c + 1 < scene->columns && rng_uniform(rng) < 0.6 * readiness)
                join(scene, r * scene->columns + c, r * scene->columns + c + 1);
            if (r + 1 < scene->rows && rng_uniform(rng) < 0.6 * readiness)
                join(scene, r * scene->columns + c, (r + 1) * scene->columns + c);
        }
    for (int i = 0; i < scene->rows * scene->columns; i++)
        scene->sites[i].cell = find_cell(scene, i);
    field_free(&zones);
}

static void place_sites(struct scene *scene, double reach) {
    struct rng rng = stream(scene, SITES);
    scene->columns = scene->rows = (int)(2 * reach / SITE_SPACING) + 1 + 2 * BORDER_SITES;
    scene->sites = memory_new((size_t)scene->columns * (size_t)scene->rows, sizeof *scene->sites);
    for (int r = 0; r < scene->rows; r++)
        for (int c = 0; c < scene->columns; c++) {
            int i = r * scene->columns + c;
            scene->sites[i].x = (float)(c + rng_range(&rng, -0.45, 0.45));
            scene->sites[i].y = (float)(r + rng_range(&rng, -0.45, 0.45));
            scene->sites[i].cell = i;
            scene->sites[i].joined = 1;
        }
    join_sites(scene, &rng);
}

/* The cell of the site nearest to a point in lattice coordinates. */
static int nearest_cell(const struct scene *scene, float x, float y) {
    int column = (int)lroundf(x), row = (int)lroundf(y), cell = 0;
    float least = INFINITY;
    for (int r = MAX(row - 1, 0); r <= MIN(row + 1, scene->rows - 1); r++)
        for (int c = MAX(column - 1, 0); c <= MIN(column + 1, scene->columns - 1); c++) {
            const struct site *site = &scene->sites[r * scene->columns + c];
            float dx = site->x - x, dy = site->y - y, square = dx * dx + dy * dy;
            if (square < least) {
                least = square;
                cell = site->cell;
            }
        }
    return cell;
}

static void assign_cells(struct scene *scene) {
    struct rng rng = stream(scene, BEND);
    struct field bend[2];
    for (int i = 0; i < 2; i++) {
        bend[i] = field_new(scene->width, scene->height);
        field_add_noise(&bend[i], 85, 15, &rng);
        field_add_noise(&bend[i], 30, 4.0, &rng);
        field_add_noise(&bend[i], 10, 0.9, &rng);
    }
    double angle = rng_range(&rng, 0, TWO_PI), stretch = rng_range(&rng, 1.0, 1.7);
    double cosine = cos(angle), sine = sin(angle);
    double middle = 0.5 * (scene->columns - 1);
    for (int y = 0; y < scene->height; y++)
        for (int x = 0; x < scene->width; x++) {
            double px = x - 0.5 * scene->width + *field_at(&bend[0], y, x);
            double py = y - 0.5 * scene->height + *field_at(&bend[1], y, x);
            double u = (cosine * px + sine * py) / (SITE_SPACING * stretch);
            double v = (cosine * py - sine * px) / SITE_SPACING;
            scene->cell[(size_t)y * (size_t)scene->width + (size_t)x] =
                nearest_cell(scene, (float)(u + middle), (float)(v + middle));
        }
    field_free(&bend[0]);
    field_free(&bend[1]);
}

static void measure_distance(struct scene *scene) {
    int w = scene->width, h = scene->height;
    uint8_t *meets = memory_new((size_t)w * (size_t)h, 1);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            size_t i = (size_t)y * (size_t)w + (size_t)x;
            if (x + 1 < w && scene->cell[i] != scene->cell[i + 1])
                meets[i] = meets[i + 1] = 1;
            if (y + 1 < h && scene->cell[i] != scene->cell[i + (size_t)w])
                meets[i] = meets[i + (size_t)w] = 1;
        }
    field_distance(meets, &scene->distance);
    free(meets);
}

/* ---------------------------------------------------------------- membranes */

/* A dark density where two cells touch, as at a synapse. */
static void add_density(struct scene *scene, struct rng *rng) {
    int cx = (int)rng_below(rng, (uint32_t)scene->width);
    int cy = (int)rng_below(rng, (uint32_t)scene->height);
    double radius = rng_range(rng, 5, 13), strength = rng_range(rng, 3, 7);
    if (*field_at(&scene->distance, cy, cx) > 6)
        return;
    int reach = (int)(3 * radius);
    for (int y = MAX(cy - reach, 0); y <= MIN(cy + reach, scene->height - 1); y++)
        for (int x = MAX(cx - reach, 0); x <= MIN(cx + reach, scene->width - 1); x++) {
            double square = (double)(x - cx) * (x - cx) + (double)(y - cy) * (y - cy);
            double bump = exp(-0.5 * square / (radius * radius));
            *field_at(&scene->half, y, x) += (float)(strength * bump);
            *field_at(&scene->faint, y, x) *= (float)(1 - bump);
        }
}

static void shape_membranes(struct scene *scene) {
    struct rng rng = stream(scene, THICKNESS);
    field_add_noise(&scene->half, 45, 0.35, &rng);
    field_add_noise(&scene->half, 9, 0.2, &rng);
    field_add_noise(&scene->faint, 55, 1.0, &rng);
    for (int y = 0; y < scene->height; y++)
        for (int x = 0; x < scene->width; x++) {
            float *faint = field_at(&scene->faint, y, x), *half = field_at(&scene->half, y, x);
            *faint = (float)smooth_step(0.9, 2.2, *faint);
            *half = (float)fmax(1.15 + *half + 2.5 * *faint, 0);
        }
    int attempts = (int)((double)scene->width * scene->height / 2600) + 1;
    for (int i = 0; i < attempts; i++)
        if (rng_uniform(&rng) < 0.22)
            add_density(scene, &rng);
}

/* Opening: a cell keeps what a disc that fits into it reaches. */
static void round_corners(struct scene *scene) {
    size_t n = (size_t)scene->width * (size_t)scene->height;
    uint8_t *inner = memory_new(n, 1);
    for (size_t i = 0; i < n; i++)
        inner[i] = scene->distance.values[i] > scene->half.values[i] + CORNER_RADIUS;
    field_distance(inner, &scene->depth);
    for (size_t i = 0; i < n; i++)
        scene->depth.values[i] -= CORNER_RADIUS;
    free(inner);
}

static void paint_cells(struct scene *scene) {
    struct rng rng = stream(scene, TEXTURE);
    struct field contrast = field_new(scene->width, scene->height);
    field_add_noise(&contrast, 28, 0.22, &rng);
    field_add_noise(&scene->value, 70, 8, &rng);
    field_add_noise(&scene->value, 16, 6, &rng);
    field_add_noise(&scene->value, 5.5, 10, &rng);
    field_add_noise(&scene->value, 2.6, 13, &rng);
    for (int y = 0; y < scene->height; y++)
        for (int x = 0; x < scene->width; x++) {
            size_t i = (size_t)y * (size_t)scene->width + (size_t)x;
            float *value = field_at(&scene->value, y, x);
            double half = scene->half.values[i], faint = scene->faint.values[i];
            struct rng tint =
                rng_stream(scene->seed, scene->number, 0x6e000000u + (uint32_t)scene->cell[i]);
            double cell = 158 + 26 * (rng_uniform(&tint) - 0.5) + *value;
            double ink = smooth_step(-1.4 - 1.5 * faint, 0.6 + 2 * faint, scene->depth.values[i]);
            ink *= clamp(0.88 + *field_at(&contrast, y, x), 0.3, 1) * (1 - 0.5 * faint);
            double dark = 52 - 3 * fmin(half, 6) + 0.8 * *value;
            *value = (float)(cell + ink * (dark - cell));
        }
    field_free(&contrast);
}

/* ---------------------------------------------------------------- organelles */

static void darken(struct scene *scene, int y, int x, double target, double cover) {
    if (y < 0 || x < 0 || y >= scene->height || x >= scene->width)
        return;
    float *value = field_at(&scene->value, y, x);
    *value += (float)(clamp(cover, 0, 1) * (target - *value));
}

static double room_at(const struct scene *scene, double y, double x) {
    if (y < 0 || x < 0 || y >= scene->height || x >= scene->width)
        return 0;
    size_t i = (size_t)y * (size_t)scene->width + (size_t)x;
    return scene->distance.values[i] - scene->half.values[i];
}

struct ellipse {
    double x, y, cosine, sine;
    double a, b;        /* half axes */
    double wave, phase; /* of the outline */
};

/* Signed distance to the outline, roughly, in pixels (negative inside); along_out: along axis a. */
static double ellipse_distance(const struct ellipse *e, int y, int x, double *along_out) {
    double dx = x - e->x, dy = y - e->y;
    double u = (e->cosine * dx + e->sine * dy) / e->a, v = (e->cosine * dy - e->sine * dx) / e->b;
    double radius = sqrt(u * u + v * v), angle = atan2(v, u);
    *along_out = u * e->a;
    return (radius - 1 - e->wave * sin(3 * angle + e->phase)) * e->b;
}

static bool choose_ellipse(const struct scene *scene, struct rng *rng, double least_b,
                           double most_b, struct ellipse *e) {
    double angle = rng_range(rng, 0, TWO_PI);
    e->x = rng_range(rng, 0, scene->width);
    e->y = rng_range(rng, 0, scene->height);
    e->cosine = cos(angle);
    e->sine = sin(angle);
    e->wave = rng_range(rng, 0.02, 0.1);
    e->phase = rng_range(rng, 0, TWO_PI);
    e->b = rng_range(rng, least_b, most_b);
    e->a = e->b * rng_range(rng, 1.1, 2.2);
    double margin = 3.5;
    return room_at(scene, e->y, e->x) > e->b + margin &&
           room_at(scene, e->y + e->sine * e->a * 0.8, e->x + e->cosine * e->a * 0.8) >
               0.5 * e->b + margin &&
           room_at(scene, e->y - e->sine * e->a * 0.8, e->x - e->cosine * e->a * 0.8) >
               0.5 * e->b + margin;
}

/* Dark, outlined, crossed by folds: inside it looks like membrane and is none. */
static void draw_mitochondrion(struct scene *scene, struct rng *rng) {
    struct ellipse e;
    if (!choose_ellipse(scene, rng, 6, 15, &e))
        return;
    double fill = rng_range(rng, 78, 112), pitch = rng_range(rng, 4.5, 7), reach = 1.2 * e.a + 4;
    double turn = rng_range(rng, 0, TWO_PI), slant = rng_range(rng, -0.5, 0.5);
    for (int y = (int)(e.y - reach); y <= (int)(e.y + reach); y++)
        for (int x = (int)(e.x - reach); x <= (int)(e.x + reach); x++) {
            double along, away = ellipse_distance(&e, y, x, &along);
            if (away > 3)
                continue;
            double across = e.cosine * (y - e.y) - e.sine * (x - e.x);
            double fold =
                sin(TWO_PI * (along + slant * across) / pitch + turn + 1.2 * sin(across * 0.35));
            darken(scene, y, x, fill + 26 * fold, 0.85 * (1 - smooth_step(-1.5, 0.5, away)));
            darken(scene, y, x, 62, 0.85 * exp(-0.5 * away * away / 1.1));
        }
}

/* A bright bubble with a dark rim. */
static void draw_vacuole(struct scene *scene, struct rng *rng) {
    struct ellipse e;
    if (!choose_ellipse(scene, rng, 3, 8, &e))
        return;
    double reach = 1.2 * e.a + 4, fill = rng_range(rng, 170, 205);
    for (int y = (int)(e.y - reach); y <= (int)(e.y + reach); y++)
        for (int x = (int)(e.x - reach); x <= (int)(e.x + reach); x++) {
            double along, away = ellipse_distance(&e, y, x, &along);
            darken(scene, y, x, fill, 0.7 * (1 - smooth_step(-1.5, 0.5, away)));
            darken(scene, y, x, 70, 0.7 * exp(-0.5 * away * away / 0.9));
        }
}

static void draw_ring(struct scene *scene, double cy, double cx, double radius, double ink) {
    int reach = (int)(radius + 3);
    for (int y = (int)cy - reach; y <= (int)cy + reach; y++)
        for (int x = (int)cx - reach; x <= (int)cx + reach; x++) {
            double away = hypot(x - cx, y - cy) - radius;
            darken(scene, y, x, 75, ink * exp(-0.5 * away * away / 0.6));
        }
}

static void draw_vesicles(struct scene *scene, struct rng *rng) {
    double cx = rng_range(rng, 0, scene->width), cy = rng_range(rng, 0, scene->height);
    double spread = rng_range(rng, 6, 18);
    int count = 6 + (int)rng_below(rng, 30);
    if (room_at(scene, cy, cx) < 6)
        return;
    for (int i = 0; i < count; i++) {
        double x = cx + spread * rng_normal(rng), y = cy + spread * rng_normal(rng);
        double radius = rng_range(rng, 1.2, 3.2), ink = rng_range(rng, 0.3, 0.7);
        if (room_at(scene, y, x) > radius + 2)
            draw_ring(scene, y, x, radius, ink);
    }
}

/* A winding thread, some as dark as a faint membrane. */
static void draw_filament(struct scene *scene, struct rng *rng) {
    double x = rng_range(rng, 0, scene->width), y = rng_range(rng, 0, scene->height);
    double angle = rng_range(rng, 0, TWO_PI), bend = 0, ink = rng_range(rng, 0.3, 0.8);
    double width = rng_range(rng, 0.5, 1.1);
    int steps = 15 + (int)rng_below(rng, 55);
    for (int i = 0; i < steps && room_at(scene, y, x) > 3; i++) {
        for (int v = (int)y - 2; v <= (int)y + 3; v++)
            for (int u = (int)x - 2; u <= (int)x + 3; u++) {
                double square = (u - x) * (u - x) + (v - y) * (v - y);
                darken(scene, v, u, 75, ink * exp(-0.5 * square / (width * width)));
            }
        bend = 0.9 * bend + 0.05 * rng_normal(rng);
        angle += bend;
        x += cos(angle);
        y += sin(angle);
    }
}

static void draw_organelles(struct scene *scene) {
    struct rng rng = stream(scene, ORGANELLES);
    double area = (double)scene->width * scene->height;
    for (int i = 0; i < (int)(area / 1700); i++)
        draw_mitochondrion(scene, &rng);
    for (int i = 0; i < (int)(area / 4000); i++)
        draw_vacuole(scene, &rng);
    for (int i = 0; i < (int)(area / 5000); i++)
        draw_vesicles(scene, &rng);
    for (int i = 0; i < (int)(area / 2600); i++)
        draw_filament(scene, &rng);
}

/* ---------------------------------------------------------------- the picture */

static void expose(struct scene *scene, struct image *image) {
    struct rng rng = stream(scene, EXPOSURE);
    struct field light = field_new(scene->width, scene->height);
    field_add_noise(&light, 260, 0.06, &rng);
    double gain = rng_range(&rng, 0.92, 1.06), angle = rng_range(&rng, 0, TWO_PI);
    double slope = rng_range(&rng, 0, 0.16) / MAX(scene->width, scene->height);
    field_blur(&scene->value, rng_range(&rng, 0.75, 1.05));
    for (int y = 0; y < scene->height; y++)
        for (int x = 0; x < scene->width; x++) {
            double tilt = slope * (cos(angle) * (x - 0.5 * scene->width) +
                                   sin(angle) * (y - 0.5 * scene->height));
            *field_at(&scene->value, y, x) *= (float)(gain * (1 + tilt + *field_at(&light, y, x)));
        }
    field_expose(&scene->value, 7, 1.1, &rng, image);
    field_free(&light);
}

void sample_membrane(uint64_t seed, uint32_t number, struct image *image, struct image *labels) {
    int w = image->width, h = image->height;
    size_t n = (size_t)w * (size_t)h;
    struct scene scene = {.seed = seed, .number = number, .width = w, .height = h};
    scene.cell = memory_new(n, sizeof *scene.cell);
    scene.distance = field_new(w, h);
    scene.half = field_new(w, h);
    scene.faint = field_new(w, h);
    scene.depth = field_new(w, h);
    scene.value = field_new(w, h);
    place_sites(&scene, 0.5 * hypot(w, h));
    assign_cells(&scene);
    measure_distance(&scene);
    shape_membranes(&scene);
    round_corners(&scene);
    for (size_t i = 0; i < n; i++)
        labels->pixels[i] = scene.depth.values[i] > 0 ? 0 : 255;
    paint_cells(&scene);
    draw_organelles(&scene);
    expose(&scene, image);
    free(scene.sites);
    free(scene.cell);
    field_free(&scene.distance);
    field_free(&scene.half);
    field_free(&scene.faint);
    field_free(&scene.depth);
    field_free(&scene.value);
}
