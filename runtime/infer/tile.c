/*
 * tile.c: see tile.h. Pure arithmetic; used by inference and by the tests' whole-image comparison.
 */
#include "runtime/infer/tile.h"

#include <string.h>

#include "common/base.h"
#include "runtime/data/mirror.h"

bool tile_axis_plan(int size, int core, int margin, int core_out, int stride, struct tile_axis *out,
                    struct err *err) {
    if (size < 1 || core < 1 || stride < 1 || margin < 0 || core_out < 0)
        return err_set(err, ERR_INPUT,
                       "tiles cannot be laid out: size %d, core %d, margin %d, stride %d", size,
                       core, margin, stride);
    *out = (struct tile_axis){.size = size, .core = core, .margin = margin, .core_out = core_out};
    if (size <= core) {
        out->step = core;
        out->count = 1;
        return true;
    }
    out->step = core / stride * stride;
    if (out->step == 0) {
        err_set(err, ERR_INPUT,
                "an image of %d pixels needs several tiles, but a tile gives %d exact pixels, less "
                "than the pooling stride of %d",
                size, core, stride);
        return err_hint(err, "compile the model with larger tiles");
    }
    out->count = 1 + (int)div_up((uint32_t)(size - core), (uint32_t)out->step);
    return true;
}

size_t tile_grid_count(const struct tile_grid *grid) {
    return (size_t)grid->y.count * (size_t)grid->x.count;
}

/* Where the kept part of tile k starts, and how long it is: a step, or all that is left. */
static int axis_part(const struct tile_axis *axis, int k, int *length_out) {
    int start = k * axis->step;
    *length_out = k + 1 < axis->count ? axis->step : axis->size - start;
    return start;
}

struct tile_place tile_grid_place(const struct tile_grid *grid, size_t index) {
    struct tile_place place;
    int row = (int)(index / (size_t)grid->x.count), column = (int)(index % (size_t)grid->x.count);
    place.y = axis_part(&grid->y, row, &place.h);
    place.x = axis_part(&grid->x, column, &place.w);
    place.in_y = place.y - grid->y.margin;
    place.in_x = place.x - grid->x.margin;
    place.out_y = grid->y.core_out;
    place.out_x = grid->x.core_out;
    return place;
}

static void extract_row(const float *row, int width, int in_x, int in_w, float *to) {
    int64_t begin = in_x < 0 ? -(int64_t)in_x : 0; /* of the part inside the image */
    int64_t end = MIN((int64_t)width - in_x, (int64_t)in_w);
    begin = MIN(begin, (int64_t)in_w);
    end = MAX(end, begin);
    for (int64_t x = 0; x < begin; x++)
        to[x] = row[mirror_index(in_x + x, width)];
    if (end > begin)
        memcpy(to + begin, row + in_x + begin, (size_t)(end - begin) * sizeof *to);
    for (int64_t x = end; x < in_w; x++)
        to[x] = row[mirror_index(in_x + x, width)];
}

void tile_extract(const float *planes, int channels, int height, int width, int in_y, int in_x,
                  int in_h, int in_w, float *tile) {
    for (int c = 0; c < channels; c++) {
        const float *plane = planes + (size_t)c * (size_t)height * (size_t)width;
        for (int y = 0; y < in_h; y++) {
            int from_y = mirror_index((int64_t)in_y + y, height);
            extract_row(plane + (size_t)from_y * (size_t)width, width, in_x, in_w, tile);
            tile += in_w;
        }
    }
}

void tile_keep(const float *tile_plane, int out_w, const struct tile_place *place, float *plane,
               int width) {
    for (int y = 0; y < place->h; y++)
        memcpy(plane + (size_t)(place->y + y) * (size_t)width + place->x,
               tile_plane + (size_t)(place->out_y + y) * (size_t)out_w + place->out_x,
               (size_t)place->w * sizeof *plane);
}
