/*
 * tile.c: how each kernel is laid out on each class of device: shader variant, specialisation
 * constants, workgroups. Called by the lowering's last step for every record. The measurements
 * behind the choices are in docs/shaders.md.
 */
#include <string.h>

#include "common/base.h"
#include "compiler/tile.h"

/* What convolution and up-convolution kernels have in common: pixels times columns. */
struct map {
    uint32_t n, h, w; /* pixels that the kernel's invocations share out */
    uint32_t columns;
    uint32_t kh, kw;
    bool padded, dense; /* dense: dilation 1 */
    uint32_t epilogue;
};

static void set_size(struct tile *tile, uint32_t size) {
    tile->spec[0] = size;
    tile->spec[1] = 1;
    tile->spec[2] = 1;
    tile->n_spec = 3;
}

static void add_spec(struct tile *tile, uint32_t value) {
    tile->spec[tile->n_spec++] = value;
}

/* Folds a number of workgroups over two axes; shaders undo it with flat_group(). */
static void set_groups(struct tile *tile, uint64_t groups) {
    uint32_t rows = (uint32_t)((groups + PLAN_MAX_GROUPS - 1) / PLAN_MAX_GROUPS);
    rows = MAX(rows, 1);
    tile->groups[0] = (uint32_t)((groups + rows - 1) / rows);
    tile->groups[1] = rows;
    tile->groups[2] = 1;
}

static uint64_t blocks(uint64_t value, uint64_t block) {
    return (value + block - 1) / block;
}

static struct map map_find(enum kernel_id kernel, const union kernel_params *p) {
    if (kernel == KERNEL_ID_upconv_fwd) {
        const struct upconv_params *u = &p->upconv;
        return (struct map){.n = u->n,
                            .h = u->h_in,
                            .w = u->w_in,
                            .columns = u->k * u->k * div_up(u->c_out, 4),
                            .kh = 1,
                            .kw = 1,
                            .dense = true,
                            .epilogue = u->epilogue};
    }
    if (kernel == KERNEL_ID_upconv_dgrad) {
        const struct upconv_dgrad_params *u = &p->upconv_dgrad;
        return (struct map){.n = u->n,
                            .h = u->h_in,
                            .w = u->w_in,
                            .columns = div_up(u->c_in, 4),
                            .kh = u->k,
                            .kw = u->k,
                            .dense = true,
                            .epilogue = u->epilogue};
    }
    const struct conv_params *c = &p->conv;
    return (struct map){.n = c->n,
                        .h = c->h_out,
                        .w = c->w_out,
                        .columns = div_up(c->c_out, 4),
                        .kh = c->kh,
                        .kw = c->kw,
                        .padded = c->pad_h > 0 || c->pad_w > 0,
                        .dense = c->dilation == 1,
                        .epilogue = c->epilogue};
}

/* conv_tile.comp: narrow tiles of columns for few channels, small tiles for small maps. */
static void choose_conv_tile(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile) {
    struct map map = map_find(kernel, p);
    uint32_t out_lanes = map.columns >= 16 ? 8 : 4;
    uint32_t out_vecs = map.columns >= 8 ? 2 : 1;
    uint32_t pixels = 4, depth = 8, size = 128;
    uint32_t tile_pixels = size / out_lanes * pixels;
    uint32_t tile_vecs = out_lanes * out_vecs;
    tile->variant = kernel == KERNEL_ID_upconv_fwd     ? "upconv_fwd_tile"
                    : kernel == KERNEL_ID_upconv_dgrad ? "upconv_dgrad_tile"
                                                       : "conv_tile";
    set_size(tile, size);
    add_spec(tile, map.epilogue);
    add_spec(tile, out_lanes);
    add_spec(tile, out_vecs);
    add_spec(tile, pixels);
    add_spec(tile, depth);
    add_spec(tile, map.kh);
    add_spec(tile, map.kw);
    tile->shared_bytes = depth * 4 * (tile_vecs * 4 + tile_pixels);
    set_groups(tile, map.n * blocks((uint64_t)map.h * map.w, tile_pixels) *
                         blocks(map.columns, tile_vecs));
}

/*
 * Register tiles of shaders/meson.build. A variant has one tile for each access path, because the
 * paths stand for drivers with different costs; a record has one number of workgroups, the larger
 * one, and the shaders ignore what is too much.
 */
struct reg_tile {
    uint32_t rows, cols, vecs; /* pixels, and output channels / 4, of an invocation */
};

struct reg_variant {
    const char *name;
    struct reg_tile tile[PLAN_ACCESS_COUNT]; /* descriptors, addresses */
};

static const struct reg_variant conv_k3_32 = {"conv_k3_reg_32", {{4, 4, 2}, {4, 2, 8}}};
static const struct reg_variant conv_k3_16 = {"conv_k3_reg_16", {{4, 4, 2}, {4, 2, 4}}};
static const struct reg_variant conv_k3_4 = {"conv_k3_reg_4", {{4, 4, 1}, {4, 4, 1}}};
static const struct reg_variant conv_k1_16 = {"conv_k1_reg_16", {{4, 1, 4}, {4, 1, 4}}};
static const struct reg_variant conv_k1_4 = {"conv_k1_reg_4", {{4, 2, 1}, {4, 2, 1}}};
static const struct reg_variant conv_any_16 = {"conv_any_reg_16", {{4, 1, 4}, {4, 1, 4}}};
static const struct reg_variant conv_any_4 = {"conv_any_reg_4", {{4, 2, 1}, {4, 2, 1}}};
static const struct reg_variant upconv_fwd_32 = {"upconv_fwd_reg_32", {{4, 1, 4}, {4, 1, 8}}};
static const struct reg_variant upconv_fwd_16 = {"upconv_fwd_reg_16", {{4, 1, 4}, {4, 1, 4}}};
static const struct reg_variant upconv_dgrad_k2_32 = {"upconv_dgrad_k2_reg_32",
                                                      {{4, 1, 4}, {4, 1, 8}}};
static const struct reg_variant upconv_dgrad_k2_4 = {"upconv_dgrad_k2_reg_4",
                                                     {{4, 1, 1}, {4, 1, 1}}};
static const struct reg_variant upconv_dgrad_any = {"upconv_dgrad_any_reg_16",
                                                    {{4, 1, 4}, {4, 1, 4}}};

static const struct reg_variant *reg_variant_find(enum kernel_id kernel, const struct map *map) {
    bool one = map->columns == 1;
    /* Blocks of 32 channels where they fit, or where the last one's padding hardly matters. */
    bool wide = map->columns % 8 == 0 || map->columns >= 24;
    if (kernel == KERNEL_ID_upconv_fwd)
        return wide ? &upconv_fwd_32 : &upconv_fwd_16;
    if (kernel == KERNEL_ID_upconv_dgrad) {
        if (map->kh != 2)
            return &upconv_dgrad_any;
        return one ? &upconv_dgrad_k2_4 : &upconv_dgrad_k2_32;
    }
    if (map->dense && map->kh == 3 && map->kw == 3)
        return wide ? &conv_k3_32 : one ? &conv_k3_4 : &conv_k3_16;
    if (map->kh == 1 && map->kw == 1)
        return one ? &conv_k1_4 : &conv_k1_16;
    return one ? &conv_any_4 : &conv_any_16;
}

static void choose_conv_reg(enum kernel_id kernel, const union kernel_params *p,
                            struct tile *tile) {
    struct map map = map_find(kernel, p);
    const struct reg_variant *variant = reg_variant_find(kernel, &map);
    uint32_t size = 16; /* the widest vector of a CPU device: no lane idles that need not */
    uint64_t groups = 0;
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
        const struct reg_tile *reg = &variant->tile[access];
        uint64_t lanes = blocks(map.h, reg->rows) * blocks(map.w, reg->cols);
        uint64_t wanted = map.n * blocks(lanes, size) * blocks(map.columns, reg->vecs);
        groups = MAX(groups, wanted);
    }
    tile->variant = variant->name;
    set_size(tile, size);
    add_spec(tile, map.epilogue);
    add_spec(tile, map.padded);
    set_groups(tile, groups);
}

/* What the two weight gradients have in common. */
struct wgrad {
    uint32_t c_in, c_out, taps, kh, kw, map_rows, splits;
    bool padded, dense;
};

static struct wgrad wgrad_find(enum kernel_id kernel, const union kernel_params *p) {
    if (kernel == KERNEL_ID_upconv_wgrad) {
        const struct upconv_wgrad_params *u = &p->upconv_wgrad;
        return (struct wgrad){.c_in = u->c_in,
                              .c_out = u->c_out,
                              .taps = u->k * u->k,
                              .kh = u->k,
                              .kw = u->k,
                              .map_rows = u->n * u->h_in,
                              .splits = u->splits,
                              .dense = true};
    }
    const struct conv_wgrad_params *c = &p->conv_wgrad;
    return (struct wgrad){.c_in = c->c_in,
                          .c_out = c->c_out,
                          .taps = c->kh * c->kw,
                          .kh = c->kh,
                          .kw = c->kw,
                          .map_rows = c->n * c->h_out,
                          .splits = c->splits,
                          .padded = c->pad_h > 0 || c->pad_w > 0,
                          .dense = c->dilation == 1};
}

static void choose_wgrad_tile(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile) {
    struct wgrad wgrad = wgrad_find(kernel, p);
    bool up = kernel == KERNEL_ID_upconv_wgrad;
    uint32_t pitch = div_up(wgrad.c_out, 4) * 4;
    uint64_t rows = up ? wgrad.c_in : (uint64_t)wgrad.c_in * wgrad.taps;
    uint64_t cols = up ? (uint64_t)pitch * wgrad.taps : pitch;
    uint32_t size = 64, col_lanes = cols >= 32 ? 8 : cols >= 16 ? 4 : 2, depth = 16;
    tile->variant = up ? "upconv_wgrad_tile" : "conv_wgrad_tile";
    set_size(tile, size);
    add_spec(tile, col_lanes);
    add_spec(tile, depth);
    add_spec(tile, wgrad.kh);
    add_spec(tile, wgrad.kw);
    uint32_t tile_rows = size / col_lanes * 4, tile_cols = col_lanes * 4;
    tile->shared_bytes = depth * 4 * (tile_rows + tile_cols);
    set_groups(tile, wgrad.splits * blocks(rows, tile_rows) * blocks(cols, tile_cols));
}

/* Weight gradients of shaders/meson.build: channels and taps of a workgroup. */
struct wgrad_variant {
    const char *name;
    uint32_t taps; /* 1: of one tap after the other */
    struct {
        uint32_t ins, outs;
    } tile[PLAN_ACCESS_COUNT];
};

#define WGRAD_LANES 16u /* workgroup size: wgrad_lane.comp has as many output channels */

static const struct wgrad_variant conv_k3_wgrad = {"conv_k3_wgrad", 9, {{2, 8}, {8, WGRAD_LANES}}};
static const struct wgrad_variant conv_k3_wgrad_in1 = {"conv_k3_wgrad_in1", 9, {{1, 8}, {1, 16}}};
static const struct wgrad_variant conv_k3_wgrad_out4 = {"conv_k3_wgrad_out4", 9, {{4, 4}, {4, 4}}};
static const struct wgrad_variant conv_any_wgrad = {"conv_any_wgrad", 1, {{4, 8}, {4, 8}}};
static const struct wgrad_variant conv_any_wgrad_out4 = {
    "conv_any_wgrad_out4", 1, {{8, 4}, {8, 4}}};
static const struct wgrad_variant upconv_k2_wgrad = {
    "upconv_k2_wgrad", 4, {{8, 4}, {16, WGRAD_LANES}}};
static const struct wgrad_variant upconv_any_wgrad = {"upconv_any_wgrad", 1, {{4, 8}, {4, 8}}};

static const struct wgrad_variant *wgrad_variant_find(enum kernel_id kernel,
                                                      const struct wgrad *wgrad) {
    if (kernel == KERNEL_ID_upconv_wgrad)
        return wgrad->kh == 2 ? &upconv_k2_wgrad : &upconv_any_wgrad;
    if (wgrad->dense && wgrad->kh == 3 && wgrad->kw == 3) {
        if (wgrad->c_out <= 4)
            return &conv_k3_wgrad_out4;
        return wgrad->c_in == 1 ? &conv_k3_wgrad_in1 : &conv_k3_wgrad;
    }
    return wgrad->c_out <= 4 ? &conv_any_wgrad_out4 : &conv_any_wgrad;
}

static void choose_wgrad_reg(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile) {
    struct wgrad wgrad = wgrad_find(kernel, p);
    const struct wgrad_variant *variant = wgrad_variant_find(kernel, &wgrad);
    uint64_t groups = 0;
    uint32_t most_outs = 0;
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
        uint64_t in_blocks = blocks(wgrad.c_in, variant->tile[access].ins);
        uint64_t out_blocks = blocks(div_up(wgrad.c_out, 4) * 4, variant->tile[access].outs);
        uint64_t wanted = wgrad.splits * (wgrad.taps / variant->taps) * in_blocks * out_blocks;
        groups = MAX(groups, wanted);
        most_outs = MAX(most_outs, variant->tile[access].outs);
    }
    tile->variant = variant->name;
    set_size(tile, WGRAD_LANES);
    add_spec(tile, wgrad.padded);
    tile->shared_bytes = 4 * variant->taps * most_outs * WGRAD_LANES;
    set_groups(tile, groups);
}

/* Kernels that share out the pixels of planes (plane.glsl), or the elements of images (each.glsl):
   `parts` planes or images of `elements` each. */
static void choose_each(const char *variant, uint64_t parts, uint64_t elements, enum plan_class cls,
                        struct tile *tile) {
    uint32_t size = 64, items = cls == PLAN_CLASS_CPU ? 8 : 1;
    tile->variant = variant;
    set_size(tile, size);
    add_spec(tile, items);
    set_groups(tile, parts * blocks(elements, (uint64_t)size * items));
}

/* Kernels whose workgroups add up in shared memory. */
static void choose_sum(const char *variant, uint64_t groups, uint32_t size, uint32_t lane_bytes,
                       struct tile *tile) {
    tile->variant = variant;
    set_size(tile, size);
    tile->shared_bytes = size * lane_bytes;
    set_groups(tile, groups);
}

static void choose_maxpool_bwd(const struct maxpool_bwd_params *pool, enum plan_class cls,
                               struct tile *tile) {
    uint64_t planes = (uint64_t)pool->n * pool->c;
    if (pool->stride == pool->kernel && pool->dilation == 1 && pool->kernel <= 4) {
        uint64_t cells = blocks(pool->h_in, pool->kernel) * blocks(pool->w_in, pool->kernel);
        choose_each("maxpool_bwd_tight", planes, cells, cls, tile);
        add_spec(tile, pool->kernel);
    } else {
        choose_each("maxpool_bwd", planes, (uint64_t)pool->h_in * pool->w_in, cls, tile);
    }
}

/* The kernels without a tile of their own. */
static void choose_simple(enum kernel_id kernel, const union kernel_params *p, enum plan_class cls,
                          struct tile *tile) {
    const char *variant = kernel_table[kernel].name;
    bool cpu = cls == PLAN_CLASS_CPU;
    switch (kernel) {
    case KERNEL_ID_wgrad_reduce:
        choose_each(variant, 1, p->wgrad_reduce.count, cls, tile);
        break;
    case KERNEL_ID_weights_transpose:
        choose_each(variant, 1,
                    (uint64_t)p->weights_transpose.out_count * p->weights_transpose.taps *
                        div_up(p->weights_transpose.in_count, 4),
                    cls, tile);
        break;
    case KERNEL_ID_bias_grad:
        choose_sum(variant, p->bias_grad.c, cpu ? 16 : 128, 4, tile);
        break;
    case KERNEL_ID_maxpool_fwd:
        choose_each(variant, (uint64_t)p->maxpool.n * p->maxpool.c,
                    (uint64_t)p->maxpool.h_out * p->maxpool.w_out, cls, tile);
        add_spec(tile, p->maxpool.kernel <= 4 ? p->maxpool.kernel : 0);
        break;
    case KERNEL_ID_maxpool_bwd:
        choose_maxpool_bwd(&p->maxpool_bwd, cls, tile);
        break;
    case KERNEL_ID_maxpool_index:
        tile->variant = variant;
        set_size(tile, POOL_INDEX_LANES);
        set_groups(tile, (uint64_t)p->maxpool_index.n * p->maxpool_index.c *
                             blocks((uint64_t)p->maxpool_index.h_out * p->maxpool_index.w_out,
                                    POOL_INDEX_WINDOWS));
        break;
    case KERNEL_ID_maxpool_unpool:
        choose_each(variant, (uint64_t)p->maxpool_unpool.n * p->maxpool_unpool.c,
                    blocks(p->maxpool_unpool.h_in, 2) * blocks(p->maxpool_unpool.w_in, 2), cls,
                    tile);
        break;
    case KERNEL_ID_copy_region:
    case KERNEL_ID_add_region:
        choose_each(variant, (uint64_t)p->copy_region.n * p->copy_region.c,
                    (uint64_t)p->copy_region.h * p->copy_region.w, cls, tile);
        break;
    case KERNEL_ID_embed_region:
        choose_each(variant, (uint64_t)p->embed_region.n * p->embed_region.c,
                    (uint64_t)p->embed_region.dst_h * p->embed_region.dst_w, cls, tile);
        break;
    case KERNEL_ID_dropout:
        choose_each(variant, 1, blocks((uint64_t)p->dropout.n * p->dropout.count, 4), cls, tile);
        break;
    case KERNEL_ID_softmax:
        choose_each(variant, p->softmax.n, p->softmax.hw, cls, tile);
        break;
    case KERNEL_ID_softmax_loss:
        choose_sum(variant,
                   blocks((uint64_t)p->softmax_loss.n * p->softmax_loss.hw, LOSS_PIXELS_PER_GROUP),
                   cpu ? 16 : 128, 16, tile);
        break;
    case KERNEL_ID_loss_reduce:
        choose_sum(variant, 1, cpu ? 16 : 128, 16, tile);
        break;
    case KERNEL_ID_softmax_loss_grad:
        choose_each(variant, p->softmax_loss_grad.n, p->softmax_loss_grad.hw, cls, tile);
        break;
    case KERNEL_ID_sgd:
        choose_each(variant, 1, p->sgd.count, cls, tile);
        break;
    case KERNEL_ID_adam:
        choose_each(variant, 1, p->adam.count, cls, tile);
        break;
    case KERNEL_ID_accumulate:
        choose_each(variant, 1, p->accumulate.count, cls, tile);
        break;
    default: /* act_fwd, act_bwd, add: n and count come first */
        choose_each(variant, p->act_fwd.n, p->act_fwd.count, cls, tile);
        break;
    }
}

void tile_choose(enum kernel_id kernel, const uint32_t *params, enum plan_class cls,
                 struct tile *tile) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    memset(tile, 0, sizeof *tile);
    bool cpu = cls == PLAN_CLASS_CPU;
    switch (kernel) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
    case KERNEL_ID_upconv_fwd:
    case KERNEL_ID_upconv_dgrad:
        cpu ? choose_conv_reg(kernel, &p, tile) : choose_conv_tile(kernel, &p, tile);
        break;
    case KERNEL_ID_conv_wgrad:
    case KERNEL_ID_upconv_wgrad:
        cpu ? choose_wgrad_reg(kernel, &p, tile) : choose_wgrad_tile(kernel, &p, tile);
        break;
    default:
        choose_simple(kernel, &p, cls, tile);
        break;
    }
}

/*
 * Enough splits that the outermost layers, with few channels and many pixels, still fill a device
 * (about 256 workgroups of 32 x 32 results), at least 8 rows each, and at most 4 MiB of partial
 * sums beyond the first.
 */
uint32_t tile_wgrad_splits(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    struct wgrad wgrad = wgrad_find(kernel, &p);
    uint64_t results = (uint64_t)wgrad.c_in * wgrad.taps * div_up(wgrad.c_out, 4) * 4;
    uint64_t splits = blocks(256, blocks(results, 1024));
    splits = MIN(splits, MAX(1, wgrad.map_rows / 8));
    splits = MIN(splits, MAX(1, (4u << 20) / (results * 4)));
    return (uint32_t)MAX(splits, 1);
}
