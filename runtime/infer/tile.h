/*
 * tile.h: overlap-tile arithmetic (Ronneberger, Fischer, Brox 2015, figure 2). An image of any size
 * is covered by tiles of the one size a plan is compiled for. Only the core of a tile's output is
 * exact (it saw all the context it needs); the tiles step by the largest multiple of the pooling
 * stride that the core allows, so that every tile meets the pooling grid at the same phase and the
 * joined result equals that of one tile over the whole image. Each pixel is kept from exactly one
 * tile.
 *
 * Rows and columns are independent; struct tile_axis does one of them.
 */
#ifndef UNET_RUNTIME_TILE_H
#define UNET_RUNTIME_TILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct tile_axis {
    int size;     /* of the image */
    int core;     /* exact output pixels of a tile */
    int margin;   /* input pixels before the first core pixel */
    int core_out; /* output pixels before the first core pixel (0 for valid convolution) */
    int step;     /* from one tile to the next */
    int count;    /* of tiles */
};

struct tile_grid {
    struct tile_axis y, x;
};

/* One tile: where its input lies in the image and which part of its output is kept. */
struct tile_place {
    int in_y, in_x;   /* of the input's first pixel in the image; negative in the margin */
    int out_y, out_x; /* of the first kept pixel in the tile's output */
    int y, x;         /* of the first kept pixel in the image */
    int h, w;         /* of the kept part */
};

/*
 * Plans an axis. stride: the product of the pooling strides along it. ERR_INPUT when the core is
 * smaller than the stride and more than one tile is needed, as no step would keep the phase.
 */
bool tile_axis_plan(int size, int core, int margin, int core_out, int stride, struct tile_axis *out,
                    struct err *err);

size_t tile_grid_count(const struct tile_grid *grid);
/* Tile 0 .. count - 1, row by row. */
struct tile_place tile_grid_place(const struct tile_grid *grid, size_t index);

/*
 * Cuts the input of a tile out of image planes [channels][height][width], mirrored at the borders
 * (runtime/data/mirror.h), into tile[channels][in_h][in_w].
 */
void tile_extract(const float *planes, int channels, int height, int width, int in_y, int in_x,
                  int in_h, int in_w, float *tile);

/* Copies the kept part of one plane of a tile's output, out_w wide, into a plane of the image. */
void tile_keep(const float *tile_plane, int out_w, const struct tile_place *place, float *plane,
               int width);

#endif
