/*
 * warping.c: see warping.h. Everything happens on a map with a border of background, one pixel
 * wide, so that every pixel has eight neighbours.
 */
#include "runtime/train/warping.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"
#include "runtime/train/regions.h"

#define LOCAL_RADIUS 20

/* A map [height][width] with its border; around[] leads to the neighbours, clockwise from the left:
 * even ones share an edge with the pixel. */
struct map {
    int width, height;
    size_t n_pixels;
    ptrdiff_t around[8];
    uint8_t *set; /* the truth, while it is warped */
};

/* A pixel that differs. */
struct mismatch {
    float confidence; /* |p - t| */
    uint32_t turn;    /* order among equals: column by column */
    uint32_t pixel;
};

struct mismatches {
    struct mismatch *list;
    size_t count;
};

static struct map new_map(const uint8_t *truth, int width, int height) {
    const ptrdiff_t row = width + 2;
    struct map map = {
        .width = width + 2,
        .height = height + 2,
        .n_pixels = ((size_t)width + 2) * ((size_t)height + 2),
        .around = {-1, -row - 1, -row, -row + 1, 1, row + 1, row, row - 1},
    };
    map.set = memory_new(map.n_pixels, 1);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            map.set[(size_t)(y + 1) * (size_t)row + (size_t)x + 1] =
                truth[(size_t)y * (size_t)width + (size_t)x] != 0;
    return map;
}

/* Whether flipping the pixel keeps the topology: its foreground neighbours that share an edge with
 * it hang together within the eight neighbours, and not all eight are foreground (Yokoi's crossing
 * number, 4-connected, is 1). */
static bool is_simple(const struct map *map, size_t pixel) {
    bool set[8];
    int crossings = 0;
    for (int k = 0; k < 8; k++)
        set[k] = map->set[(size_t)((ptrdiff_t)pixel + map->around[k])] != 0;
    for (int k = 0; k < 8; k += 2)
        crossings += set[k] && !(set[k + 1] && set[(k + 2) % 8]);
    return crossings == 1;
}

static int most_confident_first(const void *a, const void *b) {
    const struct mismatch *left = a, *right = b;
    if (left->confidence != right->confidence)
        return left->confidence > right->confidence ? -1 : 1;
    return (left->turn > right->turn) - (left->turn < right->turn);
}

static struct mismatches find_mismatches(const struct map *map, const float *foreground,
                                         const float *weights, double threshold) {
    const int width = map->width - 2, height = map->height - 2;
    struct mismatches found = {memory_new(map->n_pixels, sizeof *found.list), 0};
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++) {
            size_t at = (size_t)y * (size_t)width + (size_t)x;
            size_t pixel = (size_t)(y + 1) * (size_t)map->width + (size_t)x + 1;
            bool wanted = (double)foreground[at] > threshold;
            if (wanted == (map->set[pixel] != 0) || (weights && weights[at] == 0))
                continue;
            float confidence = fabsf((float)((double)foreground[at] - threshold));
            found.list[found.count] = (struct mismatch){isnan(confidence) ? 0 : confidence,
                                                        (uint32_t)found.count, (uint32_t)pixel};
            found.count++;
        }
    qsort(found.list, found.count, sizeof *found.list, most_confident_first);
    return found;
}

/* Flips what can be flipped; what remains stays in the list. */
static void warp(struct map *map, struct mismatches *mismatches) {
    size_t before;
    do {
        before = mismatches->count;
        mismatches->count = 0;
        for (size_t i = 0; i < before; i++) {
            const struct mismatch *mismatch = &mismatches->list[i];
            if (is_simple(map, mismatch->pixel))
                map->set[mismatch->pixel] ^= 1;
            else
                mismatches->list[mismatches->count++] = *mismatch;
        }
    } while (mismatches->count < before);
}

/* ---------------------------------------------------------------- classification */

/* Depth-first numbering of the foreground (R. Tarjan, 1972): a pixel cuts its object in two when a
 * branch below it reaches nothing above it. */
struct search {
    const struct map *map;
    uint32_t *number, *low, *parent;
    uint8_t *turn; /* neighbours tried, in steps of 2 */
    uint8_t *cuts; /* out: 1 where removing the pixel disconnects its object */
    uint32_t visited;
};

static void enter(struct search *search, uint32_t pixel, uint32_t parent) {
    search->number[pixel] = search->low[pixel] = ++search->visited;
    search->parent[pixel] = parent;
}

/* Goes back from a finished pixel to its parent. */
static void leave(struct search *search, uint32_t pixel, uint32_t root, uint32_t *branches) {
    uint32_t parent = search->parent[pixel];
    if (search->low[pixel] < search->low[parent])
        search->low[parent] = search->low[pixel];
    if (parent == root)
        ++*branches;
    else if (search->low[pixel] >= search->number[parent])
        search->cuts[parent] = 1;
}

static void search_object(struct search *search, uint32_t root) {
    uint32_t pixel = root, branches = 0;
    enter(search, root, 0);
    for (;;) {
        if (search->turn[pixel] < 8) {
            ptrdiff_t step = search->map->around[search->turn[pixel]];
            uint32_t next = (uint32_t)((ptrdiff_t)pixel + step);
            search->turn[pixel] += 2;
            if (!search->map->set[next])
                continue;
            if (search->number[next] == 0) {
                enter(search, next, pixel);
                pixel = next;
            } else if (next != search->parent[pixel] && search->number[next] < search->low[pixel]) {
                search->low[pixel] = search->number[next];
            }
        } else if (pixel == root) {
            break;
        } else {
            leave(search, pixel, root, &branches);
            pixel = search->parent[pixel];
        }
    }
    search->cuts[root] = branches > 1;
}

static uint8_t *find_cuts(const struct map *map) {
    struct search search = {
        .map = map,
        .number = memory_new(map->n_pixels, sizeof(uint32_t)),
        .low = memory_new(map->n_pixels, sizeof(uint32_t)),
        .parent = memory_new(map->n_pixels, sizeof(uint32_t)),
        .turn = memory_new(map->n_pixels, 1),
        .cuts = memory_new(map->n_pixels, 1),
    };
    for (uint32_t i = 0; i < map->n_pixels; i++)
        if (map->set[i] && search.number[i] == 0)
            search_object(&search, i);
    free(search.number);
    free(search.low);
    free(search.parent);
    free(search.turn);
    return search.cuts;
}

/* Pieces that the foreground among the eight neighbours falls into, each sharing edges in itself; 0
 * also when all eight are foreground. */
static int count_pieces(const struct map *map, size_t pixel) {
    int pieces = 0;
    for (int k = 0; k < 8; k++)
        pieces += map->set[(size_t)((ptrdiff_t)pixel + map->around[k])] &&
                  !map->set[(size_t)((ptrdiff_t)pixel + map->around[(k + 1) % 8])];
    return pieces;
}

/* Whether the objects around a pixel, looking no farther than the square, fall apart without it. */
static bool splits_locally(const struct map *map, size_t pixel) {
    enum { SIDE = 2 * LOCAL_RADIUS + 1 };
    static const int dx[4] = {-1, 0, 1, 0}, dy[4] = {0, -1, 0, 1};
    const int x0 = (int)(pixel % (size_t)map->width) - LOCAL_RADIUS;
    const int y0 = (int)(pixel / (size_t)map->width) - LOCAL_RADIUS;
    if (count_pieces(map, pixel) < 2)
        return false;
    bool open[SIDE][SIDE] = {{false}}; /* foreground that was not reached yet */
    int stack[SIDE * SIDE], depth = 0;
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            open[y][x] = x0 + x >= 0 && x0 + x < map->width && y0 + y >= 0 &&
                         y0 + y < map->height &&
                         map->set[(size_t)(y0 + y) * (size_t)map->width + (size_t)(x0 + x)];
    open[LOCAL_RADIUS][LOCAL_RADIUS] = false;
    for (int k = 0; k < 9 && depth == 0; k++) { /* from the first neighbour there is */
        int y = LOCAL_RADIUS - 1 + k / 3, x = LOCAL_RADIUS - 1 + k % 3;
        if (open[y][x]) {
            open[y][x] = false;
            stack[depth++] = y * SIDE + x;
        }
    }
    while (depth > 0) {
        int at = stack[--depth];
        for (int k = 0; k < 4; k++) {
            int y = at / SIDE + dy[k], x = at % SIDE + dx[k];
            if (y >= 0 && y < SIDE && x >= 0 && x < SIDE && open[y][x]) {
                open[y][x] = false;
                stack[depth++] = y * SIDE + x;
            }
        }
    }
    for (int k = 0; k < 9; k++)
        if (open[LOCAL_RADIUS - 1 + k / 3][LOCAL_RADIUS - 1 + k % 3])
            return true;
    return false;
}

/* Two of the eight neighbours belong to different objects. */
static bool has_two_objects(const struct map *map, const uint32_t *objects, size_t pixel) {
    uint32_t first = 0;
    for (int k = 0; k < 8; k++) {
        uint32_t object = objects[(size_t)((ptrdiff_t)pixel + map->around[k])];
        if (object != 0 && first != 0 && object != first)
            return true;
        first = object != 0 ? object : first;
    }
    return false;
}

static struct warping_count classify(const struct map *map, const struct mismatches *mismatches) {
    struct warping_count count = {0};
    if (mismatches->count == 0)
        return count;
    uint32_t *objects = memory_new(map->n_pixels, sizeof *objects);
    uint8_t *cuts = find_cuts(map);
    /* The challenge's script looks at the whole image when the square is larger than that. */
    bool local = map->width - 2 >= LOCAL_RADIUS && map->height - 2 >= LOCAL_RADIUS;
    regions_components(map->set, map->width, map->height, objects);
    for (size_t i = 0; i < mismatches->count; i++) {
        size_t pixel = mismatches->list[i].pixel;
        bool several = has_two_objects(map, objects, pixel);
        bool split = map->set[pixel] && (several || cuts[pixel]);
        count.mergers += !map->set[pixel] && several;
        count.splits += split;
        count.local_splits += split || (local && map->set[pixel] && splits_locally(map, pixel));
        count.others += !split && !(several && !map->set[pixel]);
    }
    free(objects);
    free(cuts);
    return count;
}

struct warping_count warping_compare(const uint8_t *truth, const float *foreground,
                                     const float *weights, int width, int height,
                                     double threshold) {
    struct map map = new_map(truth, width, height);
    struct mismatches mismatches = find_mismatches(&map, foreground, weights, threshold);
    warp(&map, &mismatches);
    struct warping_count count = classify(&map, &mismatches);
    free(mismatches.list);
    free(map.set);
    return count;
}
