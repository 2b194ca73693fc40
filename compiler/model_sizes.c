/*
 * model_sizes.c: the sizes that a tile has all through a net, whether the tile is legal, and how
 * tiles are put side by side.
 *
 * Height and width are looked at one after the other. Along each, a layer's map has a size, a
 * resolution (pixels of the input from one of its pixels to the next: pooling multiplies it,
 * up-convolution divides it) and a number of pixels at its ends that zero padding has reached.
 *
 * Tiling. The output sits in the middle of the input: margin = (in - out) / 2. Without zero padding
 * every output pixel is what it would be in a larger tile, so all of the output is kept. With it,
 * the pixels that padding reached are thrown away (but at most a quarter of the tile on each side,
 * or input: margin:). Steps from tile to tile that are multiples of the grid, the least common
 * multiple of all resolutions, give every pixel the same place in the pooling windows.
 */
#include <stdlib.h>

#include "compiler/model_reader.h"

#define SIZE_MAX_PIXELS (1 << 24)
#define RATIO_MAX (1 << 20)
#define SEARCH_RANGE 2048 /* pixels up and down when looking for legal tiles */

/* A layer's map along one axis. */
struct extent {
    int64_t size;
    int64_t step, per; /* resolution: step / per input pixels, reduced */
    int64_t dirty;     /* pixels at each end that depend on zero padding */
};

enum failure {
    FAIL_NONE,
    FAIL_SMALL,      /* the map is smaller than the window */
    FAIL_ODD,        /* windows do not cover the map */
    FAIL_RESOLUTION, /* joined maps differ in resolution */
    FAIL_LARGE
};

struct verdict {
    enum failure failure;
    int layer;
    int64_t seen; /* the size of its input */
};

static int64_t greatest_divisor(int64_t a, int64_t b) {
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void scale_resolution(struct extent *extent, int64_t multiply, int64_t divide) {
    extent->step *= multiply;
    extent->per *= divide;
    const int64_t common = greatest_divisor(extent->step, extent->per);
    extent->step /= common;
    extent->per /= common;
}

static enum failure conv_extent(const struct layer *layer, int kernel, struct extent *extent) {
    const int64_t reach = (int64_t)layer->dilation * (kernel - 1);
    const int64_t pad = layer->same ? reach / 2 : 0;
    extent->size += 2 * pad - reach;
    extent->dirty += pad;
    return extent->size < 1 ? FAIL_SMALL : FAIL_NONE;
}

static enum failure pool_extent(const struct layer *layer, struct extent *extent) {
    const int64_t rest = extent->size - 1 - (int64_t)layer->dilation * (layer->kernel_h - 1);
    if (rest < 0)
        return FAIL_SMALL;
    if (rest % layer->stride != 0)
        return FAIL_ODD;
    extent->size = rest / layer->stride + 1;
    extent->dirty = (extent->dirty + layer->stride - 1) / layer->stride;
    scale_resolution(extent, layer->stride, 1);
    return FAIL_NONE;
}

/* Maps that meet are cropped to the smallest. */
static enum failure join_extent(const struct layer *layer, const struct extent *extents,
                                struct extent *extent) {
    for (int i = 1; i < layer->n_inputs; i++) {
        const struct extent *other = &extents[layer->inputs[i]];
        if (other->step != extent->step || other->per != extent->per)
            return FAIL_RESOLUTION;
        extent->size = MIN(extent->size, other->size);
    }
    int64_t dirty = 0;
    for (int i = 0; i < layer->n_inputs; i++) {
        const struct extent *other = &extents[layer->inputs[i]];
        dirty = MAX(dirty, other->dirty - (other->size - extent->size) / 2);
    }
    extent->dirty = dirty;
    return FAIL_NONE;
}

static enum failure layer_extent(const struct layer *layer, bool height,
                                 const struct extent *extents, struct extent *extent) {
    *extent = extents[layer->inputs[0]];
    switch (layer->kind) {
    case LAYER_CONV:
        return conv_extent(layer, height ? layer->kernel_h : layer->kernel_w, extent);
    case LAYER_MAXPOOL:
        return pool_extent(layer, extent);
    case LAYER_UPCONV:
        extent->size *= layer->kernel_h;
        extent->dirty *= layer->kernel_h;
        scale_resolution(extent, 1, layer->kernel_h);
        return FAIL_NONE;
    case LAYER_CONCAT:
    case LAYER_ADD:
        return join_extent(layer, extents, extent);
    default:
        return FAIL_NONE;
    }
}

/* The extents of all layers along one axis. */
static struct verdict run_axis(const struct model *model, bool height, int64_t tile,
                               struct extent *extents) {
    extents[0] = (struct extent){.size = tile, .step = 1, .per = 1};
    for (size_t i = 1; i < model->layers.count; i++) {
        const struct layer *layer = &model->layers.items[i];
        enum failure failure = layer_extent(layer, height, extents, &extents[i]);
        if (failure == FAIL_NONE && (extents[i].size > SIZE_MAX_PIXELS ||
                                     extents[i].step > RATIO_MAX || extents[i].per > RATIO_MAX))
            failure = FAIL_LARGE;
        if (failure != FAIL_NONE)
            return (struct verdict){failure, (int)i, extents[layer->inputs[0]].size};
    }
    return (struct verdict){FAIL_NONE, -1, 0};
}

/* The nearest legal tile in one direction (-1 or 1); 0: none within the range. */
static int64_t nearest_legal(const struct model *model, bool height, int64_t tile, int direction,
                             struct extent *extents) {
    for (int64_t i = 1; i <= SEARCH_RANGE && tile + direction * i >= 1; i++)
        if (run_axis(model, height, tile + direction * i, extents).failure == FAIL_NONE)
            return tile + direction * i;
    return 0;
}

static void hint_legal(const struct model *model, bool height, int64_t tile, struct extent *extents,
                       struct diag *diag) {
    const int64_t below = nearest_legal(model, height, tile, -1, extents);
    const int64_t above = nearest_legal(model, height, tile, 1, extents);
    if (below > 0 && above > 0)
        diag_hint(diag, "the nearest legal sizes are %lld and %lld", (long long)below,
                  (long long)above);
    else if (below > 0 || above > 0)
        diag_hint(diag, "the nearest legal size is %lld", (long long)(below > 0 ? below : above));
    else
        diag_hint(diag, "no size up to %d pixels from it is legal either", SEARCH_RANGE);
}

/* "the tile 571", or of which side when they differ. */
static const char *tile_text(struct model *model, bool height, int64_t tile) {
    if (model->tile_h == model->tile_w)
        return arena_printf(&model->arena, "the tile %lld", (long long)tile);
    return arena_printf(&model->arena, "the tile's %s %lld", height ? "height" : "width",
                        (long long)tile);
}

static void report_resolution(const struct model *model, const struct layer *layer,
                              const struct extent *extents, struct diag *diag) {
    const struct extent *first = &extents[layer->inputs[0]], *other = first;
    int i = 0;
    while (other->step == first->step && other->per == first->per)
        other = &extents[layer->inputs[++i]];
    const double ratio = (double)(other->step * first->per) / (double)(other->per * first->step);
    diag_error(diag, layer->pos,
               "%s joins maps of different resolution: %s is %.4g times %s than %s", layer->name,
               model->layers.items[layer->inputs[i]].name, ratio > 1 ? ratio : 1 / ratio,
               ratio > 1 ? "coarser" : "finer", model->layers.items[layer->inputs[0]].name);
    diag_hint(diag, "maxpool makes a map coarser, upconv makes it finer");
}

static void report(struct model *model, bool height, int64_t tile, struct verdict verdict,
                   struct extent *extents, struct diag *diag) {
    const struct layer *layer = &model->layers.items[verdict.layer];
    const char *text = tile_text(model, height, tile);
    const char *sees = arena_printf(&model->arena, "the %s \"%s\" in line %d sees %lld pixel%s",
                                    layer_kind_name(layer->kind), layer->name, layer->pos.line,
                                    (long long)verdict.seen, verdict.seen == 1 ? "" : "s");
    const int kernel = height ? layer->kernel_h : layer->kernel_w;
    const long long window = 1 + (long long)layer->dilation * (kernel - 1);
    if (verdict.failure == FAIL_RESOLUTION) {
        report_resolution(model, layer, extents, diag);
        return;
    }
    if (verdict.failure == FAIL_LARGE) {
        diag_error(diag, layer->pos, "with %s, the maps of %s grow past every limit", text,
                   layer->name);
        return;
    }
    if (verdict.failure == FAIL_SMALL)
        diag_error(diag, model->tile_pos, "%s is too small: %s, its window is %lld wide", text,
                   sees, window);
    else if (layer->stride == 2 && window == 2)
        diag_error(diag, model->tile_pos, "%s does not fit: %s, an odd number", text, sees);
    else
        diag_error(diag, model->tile_pos,
                   "%s does not fit: %s, and windows of %lld every %d leave %lld over", text, sees,
                   window, layer->stride, ((long long)verdict.seen - window) % layer->stride);
    hint_legal(model, height, tile, extents, diag);
}

/* Every map and weight must be countable in the kernels' 32-bit words. */
static bool check_elements(const struct model *model, const struct extent *heights,
                           const struct extent *widths, struct diag *diag) {
    for (size_t i = 0; i < model->layers.count; i++) {
        const struct layer *layer = &model->layers.items[i];
        const double map = (double)model->settings.batch * layer->channels *
                           (double)heights[i].size * (double)widths[i].size;
        if (map > INT32_MAX) {
            diag_error(diag, layer->pos.line > 0 ? layer->pos : model->tile_pos,
                       "%s has %.0f values, more than 2^31 - 1", layer->name, map);
            diag_hint(diag, "make the tile, the batch or the number of channels smaller");
            return false;
        }
        if (layer->kind != LAYER_CONV && layer->kind != LAYER_UPCONV)
            continue;
        const int inputs = model->layers.items[layer->inputs[0]].channels;
        const double weights =
            (double)inputs * layer->kernel_h * layer->kernel_w * ((double)layer->channels + 3);
        if (weights > INT32_MAX) {
            diag_error(diag, layer->pos, "%s has %.0f weights, more than 2^31 - 1", layer->name,
                       weights);
            return false;
        }
    }
    return true;
}

/* Least common multiple of the resolutions, so that shifting by it shifts every map by whole
 * pixels. */
static int64_t grid(const struct extent *extents, size_t count) {
    int64_t result = 1;
    for (size_t i = 0; i < count; i++) {
        const int64_t step = extents[i].step;
        if (result / greatest_divisor(result, step) > RATIO_MAX / step)
            return RATIO_MAX; /* no tile is that large: tiles will not be seamless */
        result = result / greatest_divisor(result, step) * step;
    }
    return result;
}

struct tiling {
    uint32_t in, out, margin, core, stride;
};

/* Output pixels thrown away at each end. */
static int64_t discarded(const struct model *model, const struct extent *last, int64_t tile,
                         int64_t step) {
    if (model->margin >= 0)
        return model->margin;
    const int64_t exact = (last->dirty + step - 1) / step * step;
    return MIN(exact, tile / 4 / step * step);
}

static struct tiling make_tiling(const struct model *model, const struct extent *extents,
                                 int64_t tile) {
    const struct extent *last = &extents[model->layers.count - 1];
    const int64_t step = grid(extents, model->layers.count);
    const int64_t discard = discarded(model, last, tile, step);
    return (struct tiling){
        .in = (uint32_t)tile,
        .out = (uint32_t)last->size,
        .margin = (uint32_t)((tile - last->size) / 2 + discard),
        .core = last->size > 2 * discard ? (uint32_t)(last->size - 2 * discard) : 0,
        .stride = (uint32_t)step,
    };
}

static bool check_output(const struct model *model, const struct extent *extents,
                         struct diag *diag) {
    const struct layer *end = &model->layers.items[model->layers.count - 1];
    const struct extent *last = &extents[model->layers.count - 1];
    if (last->step == last->per)
        return true;
    const double ratio = (double)last->step / (double)last->per;
    diag_error(diag, end->pos, "the output is %.4g times %s than the input",
               ratio > 1 ? ratio : 1 / ratio, ratio > 1 ? "coarser" : "finer");
    diag_hint(diag, last->step > last->per
                        ? "add an upconv for every maxpool (or let the pools have "
                          "stride 1 and dilation)"
                        : "there are more upconvs than maxpools");
    return false;
}

static void fill_settings(struct model *model, struct tiling h, struct tiling w) {
    struct plan_model *settings = &model->settings;
    settings->in_h = h.in;
    settings->in_w = w.in;
    settings->out_h = h.out;
    settings->out_w = w.out;
    settings->margin_top = h.margin;
    settings->margin_left = w.margin;
    settings->core_h = h.core;
    settings->core_w = w.core;
    settings->stride_h = h.stride;
    settings->stride_w = w.stride;
}

static bool check_axes(struct model *model, struct extent *heights, struct extent *widths,
                       struct diag *diag) {
    const struct verdict h = run_axis(model, true, model->tile_h, heights);
    if (h.failure != FAIL_NONE)
        report(model, true, model->tile_h, h, heights, diag);
    const struct verdict w = run_axis(model, false, model->tile_w, widths);
    const bool same = h.failure == w.failure && h.layer == w.layer && h.seen == w.seen;
    if (w.failure != FAIL_NONE && !same)
        report(model, false, model->tile_w, w, widths, diag);
    return h.failure == FAIL_NONE && w.failure == FAIL_NONE;
}

bool model_check_sizes(struct model *model, struct diag *diag) {
    struct extent *heights = ARENA_ARRAY(&model->arena, struct extent, model->layers.count);
    struct extent *widths = ARENA_ARRAY(&model->arena, struct extent, model->layers.count);
    if (!check_axes(model, heights, widths, diag) || !check_output(model, heights, diag) ||
        !check_elements(model, heights, widths, diag))
        return false;
    const struct tiling h = make_tiling(model, heights, model->tile_h);
    const struct tiling w = make_tiling(model, widths, model->tile_w);
    if (h.core == 0 || w.core == 0) {
        diag_error(diag, model->tile_pos, "a margin of %d leaves nothing of the output of %ux%u",
                   model->margin, h.out, w.out);
        return false;
    }
    fill_settings(model, h, w);
    return true;
}

bool model_tile_is_legal(const struct model *model, uint32_t tile) {
    const size_t count = model->layers.count;
    struct extent *extents = calloc(count, sizeof(*extents));
    bool legal = extents != NULL;
    for (int axis = 0; legal && axis < 2; axis++)
        legal = run_axis(model, axis == 0, tile, extents).failure == FAIL_NONE &&
                make_tiling(model, extents, tile).core > 0;
    free(extents);
    return legal;
}
