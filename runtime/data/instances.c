/*
 * instances.c: see instances.h. Separation follows the gap insertion of T. Falk et al., "U-Net:
 * deep learning for cell counting, detection, and morphometry", Nature Methods 16, 2019.
 */
#include "runtime/data/instances.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"

#define VISITED UINT32_MAX /* no id: pictures have fewer pixels */

/* ---------------------------------------------------------------- separation */

/* A neighbour that was cut is of another class by then. */
static bool touches_other(const uint32_t *ids, const uint8_t *classes, int width, int y, int x) {
    static const int steps[4][2] = {{0, -1}, {-1, -1}, {-1, 0}, {-1, 1}};
    const size_t here = (size_t)y * (size_t)width + (size_t)x;
    for (int k = 0; k < 4; k++) {
        const int to_y = y + steps[k][0], to_x = x + steps[k][1];
        if (to_y < 0 || to_x < 0 || to_x >= width)
            continue;
        const size_t there = (size_t)to_y * (size_t)width + (size_t)to_x;
        if (ids[there] != 0 && ids[there] != ids[here] && classes[there] == classes[here])
            return true;
    }
    return false;
}

void instances_separate(const uint32_t *ids, uint8_t *classes, int width, int height,
                        uint8_t background) {
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            const size_t here = (size_t)y * (size_t)width + (size_t)x;
            if (ids[here] != 0 && touches_other(ids, classes, width, y, x))
                classes[here] = background;
        }
}

/* ---------------------------------------------------------------- components */

/* A part of a picture while it is collected: its pixels, in the order in which they were reached.
 */
struct region {
    int width, height;
    size_t count;
    uint32_t *pixels; /* room for the whole picture */
};

static struct region region_new(int width, int height) {
    return (struct region){
        .width = width,
        .height = height,
        .pixels = memory_new((size_t)width * (size_t)height, sizeof(uint32_t)),
    };
}

/* Steps to neighbours: the first four share a side. */
static const int neighbours[8][2] = {{0, -1},  {0, 1},  {-1, 0}, {1, 0},
                                     {-1, -1}, {-1, 1}, {1, -1}, {1, 1}};

/* False outside the picture. */
static bool neighbour(const struct region *region, uint32_t pixel, int k, size_t *out) {
    const int y = (int)(pixel / (uint32_t)region->width) + neighbours[k][0];
    const int x = (int)(pixel % (uint32_t)region->width) + neighbours[k][1];
    *out = (size_t)y * (size_t)region->width + (size_t)x;
    return y >= 0 && y < region->height && x >= 0 && x < region->width;
}

static void region_write(const struct region *region, uint32_t id, uint32_t *ids) {
    for (size_t i = 0; i < region->count; i++)
        ids[region->pixels[i]] = id;
}

/* The component of equal class around a pixel; marks it VISITED. */
static void collect_object(struct region *region, const uint8_t *classes, uint32_t start,
                           uint32_t *ids) {
    region->count = 0;
    region->pixels[region->count++] = start;
    ids[start] = VISITED;
    for (size_t i = 0; i < region->count; i++)
        for (int k = 0; k < 4; k++) {
            size_t there;
            if (!neighbour(region, region->pixels[i], k, &there) || ids[there] != 0 ||
                classes[there] != classes[start])
                continue;
            ids[there] = VISITED;
            region->pixels[region->count++] = (uint32_t)there;
        }
}

/*
 * The part without objects around a pixel; marks it VISITED. Returns the object that encloses it,
 * or 0 when it reaches the border or touches several.
 */
static uint32_t collect_hole(struct region *region, uint32_t start, uint32_t *ids) {
    uint32_t owner = 0;
    bool open = false;
    region->count = 0;
    region->pixels[region->count++] = start;
    ids[start] = VISITED;
    for (size_t i = 0; i < region->count; i++)
        for (int k = 0; k < 8; k++) {
            size_t there;
            if (!neighbour(region, region->pixels[i], k, &there)) {
                open = true;
            } else if (ids[there] == 0) {
                ids[there] = VISITED;
                region->pixels[region->count++] = (uint32_t)there;
            } else if (ids[there] != VISITED && k < 4) {
                open = open || (owner != 0 && owner != ids[there]);
                owner = ids[there];
            }
        }
    return open ? 0 : owner;
}

static void fill_holes(struct region *region, uint32_t *ids) {
    const size_t n = (size_t)region->width * (size_t)region->height;
    for (size_t i = 0; i < n; i++)
        if (ids[i] == 0) {
            const uint32_t owner = collect_hole(region, (uint32_t)i, ids);
            if (owner != 0)
                region_write(region, owner, ids);
        }
    for (size_t i = 0; i < n; i++)
        if (ids[i] == VISITED)
            ids[i] = 0;
}

/* What is dropped stays VISITED until all objects are found; filling does not change which of an
 * object's pixels is first, so the numbers are final at once. */
uint32_t instances_label(const uint8_t *classes, int width, int height,
                         const struct instances_options *options, uint32_t *ids_out) {
    const size_t n = (size_t)width * (size_t)height;
    struct region region = region_new(width, height);
    uint32_t count = 0;
    memset(ids_out, 0, n * sizeof(*ids_out));
    for (size_t i = 0; i < n; i++) {
        if (classes[i] == options->background || ids_out[i] != 0)
            continue;
        collect_object(&region, classes, (uint32_t)i, ids_out);
        if (region.count >= options->min_pixels)
            region_write(&region, ++count, ids_out);
    }
    for (size_t i = 0; i < n; i++)
        if (ids_out[i] == VISITED)
            ids_out[i] = 0;
    if (options->fill_holes)
        fill_holes(&region, ids_out);
    free(region.pixels);
    return count;
}
