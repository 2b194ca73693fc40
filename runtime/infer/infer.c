/*
 * infer.c: class probabilities of an image of any size: overlapping tiles (tile.h) through a plan's
 * "infer" program, as many at once as its batch holds, and the average over mirrored and turned
 * copies of the image. The sum over the copies is taken in a fixed order, so that results repeat
 * bit for bit.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "runtime/infer/infer.h"
#include "runtime/infer/tile.h"
#include "runtime/runtime.h"

/* Symmetries of the square, as bits; the coordinates change in this order. */
enum { TRANSPOSE = 1, FLIP_Y = 2, FLIP_X = 4 };

/* The copies of each choice of tta, in the order in which they are summed. */
static const unsigned mirrors[] = {0, FLIP_X, FLIP_Y, FLIP_Y | FLIP_X};

struct tiler {
    struct unet_session *session;
    const struct plan_model *model;
    float *input, *output;          /* of one run: batch tiles */
    size_t input_tile, output_tile; /* floats of one tile */
    const struct infer_progress *progress;
    int copy, n_copies;
};

static bool plan_axis(uint32_t size, uint32_t in, uint32_t out, uint32_t margin, uint32_t core,
                      uint32_t stride, struct tile_axis *axis, struct err *err) {
    /* The margin counts input pixels; what of it is not lost to valid convolution is output that
       saw the zero padding and is discarded. */
    const int64_t core_out = (int64_t)margin - ((int64_t)in - out) / 2;
    if (core_out < 0 || core_out + core > out)
        return err_set(err, ERR_INPUT,
                       "the plan's tile sizes do not fit together: %u -> %u, margin %u, core %u",
                       in, out, margin, core);
    if (size > INT32_MAX)
        return err_set(err, ERR_INPUT, "an image side of %u pixels is too long", size);
    return tile_axis_plan((int)size, (int)core, (int)margin, (int)core_out, (int)stride, axis, err);
}

bool infer_plan_grid(const struct plan_model *model, uint32_t height, uint32_t width,
                     struct tile_grid *grid, struct err *err) {
    return plan_axis(height, model->in_h, model->out_h, model->margin_top, model->core_h,
                     model->stride_h, &grid->y, err) &&
           plan_axis(width, model->in_w, model->out_w, model->margin_left, model->core_w,
                     model->stride_w, &grid->x, err);
}

/* Runs tiles first .. first + count - 1 of the grid and keeps their parts of probs. */
static bool run_tiles(struct tiler *tiler, const struct tile_grid *grid, const float *image,
                      size_t first, size_t count, float *probs, struct err *err) {
    const struct plan_model *model = tiler->model;
    const int height = grid->y.size, width = grid->x.size;
    for (size_t i = 0; i < model->batch; i++) {
        /* Places of the batch that are left over repeat its last tile. */
        const size_t index = first + MIN(i, count - 1);
        const struct tile_place place = tile_grid_place(grid, index);
        tile_extract(image, (int)model->channels, height, width, place.in_y, place.in_x,
                     (int)model->in_h, (int)model->in_w, tiler->input + i * tiler->input_tile);
    }
    const size_t batch = model->batch;
    if (!unet_session_write(tiler->session, "infer", "image", tiler->input,
                            batch * tiler->input_tile * sizeof(float), err) ||
        !unet_session_run(tiler->session, "infer", err) ||
        !unet_session_read(tiler->session, "infer", "probs", tiler->output,
                           batch * tiler->output_tile * sizeof(float), err))
        return false;
    const size_t plane = (size_t)height * (size_t)width;
    const size_t tile_plane = (size_t)model->out_h * model->out_w;
    for (size_t i = 0; i < count; i++) {
        const struct tile_place place = tile_grid_place(grid, first + i);
        for (size_t k = 0; k < model->n_classes; k++)
            tile_keep(tiler->output + i * tiler->output_tile + k * tile_plane, (int)model->out_w,
                      &place, probs + k * plane, width);
    }
    return true;
}

static bool run_image(struct tiler *tiler, const float *image, uint32_t height, uint32_t width,
                      float *probs, struct err *err) {
    struct tile_grid grid;
    if (!infer_plan_grid(tiler->model, height, width, &grid, err))
        return false;
    const size_t n_tiles = tile_grid_count(&grid), batch = tiler->model->batch;
    for (size_t first = 0; first < n_tiles; first += batch) {
        const size_t count = MIN(batch, n_tiles - first);
        if (!run_tiles(tiler, &grid, image, first, count, probs, err))
            return false;
        if (tiler->progress != NULL)
            tiler->progress->report((tiler->copy + (double)(first + count) / (double)n_tiles) /
                                        tiler->n_copies,
                                    tiler->progress->user);
    }
    return true;
}

/* Where pixel (y, x) of a copy lies in the image of height x width it was made from. */
static size_t locate(unsigned symmetry, uint32_t height, uint32_t width, uint32_t y, uint32_t x) {
    if (symmetry & TRANSPOSE) {
        const uint32_t swapped = y;
        y = x;
        x = swapped;
    }
    if (symmetry & FLIP_Y)
        y = height - 1 - y;
    if (symmetry & FLIP_X)
        x = width - 1 - x;
    return (size_t)y * width + x;
}

static void make_copy(unsigned symmetry, const float *image, uint32_t planes, uint32_t height,
                      uint32_t width, float *copy) {
    const bool turned = symmetry & TRANSPOSE;
    const uint32_t copy_h = turned ? width : height, copy_w = turned ? height : width;
    const size_t plane = (size_t)height * width;
    for (uint32_t c = 0; c < planes; c++)
        for (uint32_t y = 0; y < copy_h; y++)
            for (uint32_t x = 0; x < copy_w; x++)
                copy[c * plane + (size_t)y * copy_w + x] =
                    image[c * plane + locate(symmetry, height, width, y, x)];
}

static void add_copy(unsigned symmetry, const float *copy, uint32_t planes, uint32_t height,
                     uint32_t width, float *sum) {
    const bool turned = symmetry & TRANSPOSE;
    const uint32_t copy_h = turned ? width : height, copy_w = turned ? height : width;
    const size_t plane = (size_t)height * width;
    for (uint32_t c = 0; c < planes; c++)
        for (uint32_t y = 0; y < copy_h; y++)
            for (uint32_t x = 0; x < copy_w; x++)
                sum[c * plane + locate(symmetry, height, width, y, x)] +=
                    copy[c * plane + (size_t)y * copy_w + x];
}

static bool run_copies(struct tiler *tiler, const float *image, uint32_t height, uint32_t width,
                       float *probs, struct err *err) {
    const struct plan_model *model = tiler->model;
    const size_t plane = (size_t)height * width, n_probs = plane * model->n_classes;
    float *copy = malloc(plane * model->channels * sizeof(float));
    float *copy_probs = malloc(n_probs * sizeof(float));
    bool good = copy != NULL && copy_probs != NULL;
    if (!good)
        err_set(err, ERR_INPUT, "no memory for turned copies of an image of %ux%u", width, height);
    for (size_t i = 0; good && i < n_probs; i++)
        probs[i] = 0;
    for (int i = 0; good && i < tiler->n_copies; i++) {
        tiler->copy = i;
        const unsigned symmetry = mirrors[i % 4] | (i >= 4 ? TRANSPOSE : 0u);
        const bool turned = symmetry & TRANSPOSE;
        make_copy(symmetry, image, model->channels, height, width, copy);
        good = run_image(tiler, copy, turned ? width : height, turned ? height : width, copy_probs,
                         err);
        if (good)
            add_copy(symmetry, copy_probs, model->n_classes, height, width, probs);
    }
    for (size_t i = 0; good && i < n_probs; i++)
        probs[i] /= (float)tiler->n_copies;
    free(copy);
    free(copy_probs);
    return good;
}

bool infer_image(struct unet_session *session, const float *image, uint32_t height, uint32_t width,
                 int tta, const struct infer_progress *progress, float *probs, struct err *err) {
    const struct plan_model *model = &unet_session_plan(session)->model;
    if (tta != 1 && tta != 4 && tta != 8)
        return err_set(err, ERR_USAGE, "%d copies for averaging: there are 1, 4 and 8", tta);
    if (height == 0 || width == 0)
        return err_set(err, ERR_INPUT, "an image of %ux%u pixels holds nothing", width, height);
    struct tiler tiler = {
        .session = session,
        .model = model,
        .input_tile = (size_t)model->channels * model->in_h * model->in_w,
        .output_tile = (size_t)model->n_classes * model->out_h * model->out_w,
        .progress = progress,
        .n_copies = tta,
    };
    tiler.input = malloc(model->batch * tiler.input_tile * sizeof(float));
    tiler.output = malloc(model->batch * tiler.output_tile * sizeof(float));
    bool good = tiler.input != NULL && tiler.output != NULL;
    if (!good)
        err_set(err, ERR_INPUT, "no memory for tiles of %ux%u", model->in_w, model->in_h);
    else if (tta == 1)
        good = run_image(&tiler, image, height, width, probs, err);
    else
        good = run_copies(&tiler, image, height, width, probs, err);
    free(tiler.input);
    free(tiler.output);
    return good;
}

bool unet_infer(struct unet_session *session, const float *image, uint32_t height, uint32_t width,
                int tta, float *probs, struct err *err) {
    return infer_image(session, image, height, width, tta, NULL, probs, err);
}

/* zero and unit of v = (stored - zero) / unit, as in runtime/data/normalise.h; for whole numbers
   the sums are exact, so both give the same result. */
static void find_range(const float *image, size_t count, enum plan_normalise mode, double *zero,
                       double *unit) {
    double least = INFINITY, greatest = -INFINITY, sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) {
        const double value = image[i];
        least = MIN(least, value);
        greatest = MAX(greatest, value);
        sum += value;
        squares += value * value;
    }
    if (mode == PLAN_NORMALISE_UNIT) {
        *zero = least;
        *unit = greatest > least ? greatest - least : 1;
        return;
    }
    const double mean = sum / (double)count;
    const double variance = (squares - mean * sum) / (double)count;
    *zero = mean;
    *unit = variance > 1e-6 ? sqrt(variance) : 1;
}

void unet_normalise(const struct plan *plan, float *image, uint32_t channels, size_t pixels,
                    float max_value) {
    const struct plan_model *model = &plan->model;
    const size_t count = channels * pixels;
    double zero = 0, unit = max_value;
    if (count > 0 && model->normalise != PLAN_NORMALISE_NONE)
        find_range(image, count, model->normalise, &zero, &unit);
    for (size_t i = 0; i < count; i++)
        image[i] = (float)(((image[i] - zero) / unit - model->input_offset) * model->input_scale);
}
