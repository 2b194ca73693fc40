/*
 * tile_cpu.c: tiles of convolutions on Vulkan drivers that compute on the CPU: many sums of each
 * invocation, no shared memory. The measurements behind them are in docs/shaders.md.
 */
#include <string.h>

#include "compiler/tile_internal.h"

/*
 * Register tiles of shaders/meson.build. A variant has one tile for each access path, because the
 * paths stand for drivers with different costs; a record has one number of workgroups, the larger
 * one, and the shaders ignore what is too much.
 */
struct reg_tile {
    uint32_t rows, cols, vecs; /* pixels, and output channels / 4, of an invocation */
};

/* conv_lane.comp's tile of the address path; a workgroup has `size` channels. */
struct lane_tile {
    uint32_t rows, cols, chunk; /* pixels of a workgroup; source channels of a step */
};

struct reg_variant {
    const char *name;
    struct reg_tile tile[PLAN_ACCESS_COUNT]; /* descriptors, addresses */
    struct lane_tile lane;                   /* where tile has no rows */
};

static const struct reg_variant conv_k3_32 = {"conv_k3_reg_32", {{4, 4, 2}, {4, 2, 8}}, {0, 0, 0}};
static const struct reg_variant conv_k3_16 = {"conv_k3_reg_16", {{4, 4, 2}, {4, 2, 4}}, {0, 0, 0}};
static const struct reg_variant conv_k3_4 = {"conv_k3_reg_4", {{4, 4, 1}, {4, 4, 1}}, {0, 0, 0}};
static const struct reg_variant conv_k1_16 = {"conv_k1_reg_16", {{4, 1, 4}, {4, 1, 4}}, {0, 0, 0}};
static const struct reg_variant conv_k1_4 = {"conv_k1_reg_4", {{4, 2, 1}, {4, 2, 1}}, {0, 0, 0}};
static const struct reg_variant conv_any_16 = {
    "conv_any_reg_16", {{4, 1, 4}, {4, 1, 4}}, {0, 0, 0}};
static const struct reg_variant conv_any_4 = {"conv_any_reg_4", {{4, 2, 1}, {4, 2, 1}}, {0, 0, 0}};
static const struct reg_variant upconv_fwd_32 = {
    "upconv_fwd_reg_32", {{4, 1, 4}, {4, 1, 8}}, {0, 0, 0}};
static const struct reg_variant upconv_fwd_16 = {
    "upconv_fwd_reg_16", {{4, 1, 4}, {4, 1, 4}}, {0, 0, 0}};
static const struct reg_variant upconv_dgrad_k2_32 = {
    "upconv_dgrad_k2_reg_32", {{4, 1, 4}, {4, 1, 8}}, {0, 0, 0}};
static const struct reg_variant upconv_dgrad_k2_4 = {
    "upconv_dgrad_k2_reg_4", {{4, 1, 1}, {4, 1, 1}}, {0, 0, 0}};
static const struct reg_variant upconv_dgrad_any = {
    "upconv_dgrad_any_reg_16", {{4, 1, 4}, {4, 1, 4}}, {0, 0, 0}};

static const struct reg_variant conv_k3_lane = {"conv_k3_lane", {{4, 4, 2}}, {8, 16, 1}};
static const struct reg_variant conv_k3_lane_edges = {
    "conv_k3_lane_edges", {{4, 4, 2}}, {8, 16, 1}};
static const struct reg_variant upconv_fwd_lane = {"upconv_fwd_lane", {{4, 1, 4}}, {1, 128, 4}};

#define LANES 16u /* workgroup size: the widest vector of a CPU device */

/* Pixels as conv_lane.comp sees them: without taps around it, a plane is one row. */
static void lane_map(const struct map *map, uint64_t *h, uint64_t *w) {
    bool flat = map->kh == 1 && map->kw == 1;
    *h = flat ? 1 : map->h;
    *w = flat ? (uint64_t)map->h * map->w : map->w;
}

/* conv_lane.comp's variant where it applies; NULL: a register tile. */
static const struct reg_variant *lane_variant_find(enum kernel_id kernel, const struct map *map) {
    const struct reg_variant *variant = NULL;
    if (kernel == KERNEL_ID_upconv_fwd)
        variant = &upconv_fwd_lane;
    else if (kernel != KERNEL_ID_upconv_dgrad && map->dense && map->near_edges && map->kh == 3 &&
             map->kw == 3)
        variant = map->padded ? &conv_k3_lane_edges : &conv_k3_lane;
    uint64_t h, w;
    lane_map(map, &h, &w);
    if (variant == NULL || h < variant->lane.rows || w < variant->lane.cols ||
        map->sources % variant->lane.chunk != 0)
        return NULL;
    return map->columns * 4 * 4 >= LANES * 3 ? variant : NULL; /* most lanes have a channel */
}

static const struct reg_variant *reg_variant_find(enum kernel_id kernel, const struct map *map) {
    const struct reg_variant *lane = lane_variant_find(kernel, map);
    if (lane != NULL)
        return lane;
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

void tile_choose_conv_reg(enum kernel_id kernel, const union kernel_params *p,
                          enum plan_method_kind method, struct tile *tile) {
    struct map map = tile_map_find(kernel, p);
    const struct reg_variant *variant = reg_variant_find(kernel, &map);
    if (method == PLAN_METHOD_NARROW && variant == &conv_k3_32)
        variant = &conv_k3_16;
    uint32_t size = LANES; /* no lane idles that need not */
    uint64_t groups = 0;
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
        const struct reg_tile *reg = &variant->tile[access];
        uint64_t wanted;
        if (reg->rows == 0) {
            uint64_t h, w;
            lane_map(&map, &h, &w);
            wanted = map.n * tile_blocks(h, variant->lane.rows) *
                     tile_blocks(w, variant->lane.cols) * tile_blocks(map.columns * 4, size);
        } else {
            uint64_t lanes = tile_blocks(map.h, reg->rows) * tile_blocks(map.w, reg->cols);
            wanted = map.n * tile_blocks(lanes, size) * tile_blocks(map.columns, reg->vecs);
        }
        groups = MAX(groups, wanted);
    }
    tile->variant = variant->name;
    tile_set_size(tile, size);
    tile_add_spec(tile, map.epilogue);
    tile_add_spec(tile, map.padded);
    tile_set_groups(tile, groups);
}

/* Weight gradients of shaders/meson.build: channels and taps of a workgroup. */
struct wgrad_variant {
    const char *name;
    uint32_t taps; /* 1: of one tap after the other */
    struct {
        uint32_t ins, outs;
    } tile[PLAN_ACCESS_COUNT];
};

#define WGRAD_LANES 16u  /* workgroup size, and channels of it that wgrad_lane.comp has */
#define WGRAD_COLUMNS 8u /* most pixels of a step of wgrad_lane.comp */

static const struct wgrad_variant conv_k3_wgrad = {"conv_k3_wgrad", 9, {{4, 8}, {16, WGRAD_LANES}}};
static const struct wgrad_variant conv_k3_wgrad_in1 = {
    "conv_k3_wgrad_in1", 9, {{1, 8}, {1, WGRAD_LANES}}};
static const struct wgrad_variant conv_k3_wgrad_out4 = {"conv_k3_wgrad_out4", 9, {{4, 4}, {4, 4}}};
static const struct wgrad_variant conv_any_wgrad = {"conv_any_wgrad", 1, {{4, 8}, {4, 8}}};
static const struct wgrad_variant conv_any_wgrad_out4 = {
    "conv_any_wgrad_out4", 1, {{8, 4}, {8, 4}}};
static const struct wgrad_variant upconv_k2_wgrad = {
    "upconv_k2_wgrad", 4, {{16, 4}, {WGRAD_LANES, 32}}};
static const struct wgrad_variant upconv_k2_wgrad_out16 = {
    "upconv_k2_wgrad_out16", 4, {{16, 4}, {WGRAD_LANES, 16}}};
static const struct wgrad_variant upconv_any_wgrad = {"upconv_any_wgrad", 1, {{4, 8}, {4, 8}}};

static const struct wgrad_variant *wgrad_variant_find(enum kernel_id kernel,
                                                      const struct wgrad *wgrad) {
    if (kernel == KERNEL_ID_upconv_wgrad) {
        if (wgrad->kh == 2)
            return wgrad->c_out <= 16 ? &upconv_k2_wgrad_out16 : &upconv_k2_wgrad;
        return &upconv_any_wgrad;
    }
    if (wgrad->dense && wgrad->kh == 3 && wgrad->kw == 3) {
        if (wgrad->c_out <= 4)
            return &conv_k3_wgrad_out4;
        return wgrad->c_in == 1 ? &conv_k3_wgrad_in1 : &conv_k3_wgrad;
    }
    return wgrad->c_out <= 4 ? &conv_any_wgrad_out4 : &conv_any_wgrad;
}

void tile_choose_wgrad_reg(enum kernel_id kernel, const union kernel_params *p, struct tile *tile) {
    struct wgrad wgrad = tile_wgrad_find(kernel, p);
    const struct wgrad_variant *variant = wgrad_variant_find(kernel, &wgrad);
    uint64_t groups = 0;
    uint32_t most_outs = 0;
    for (int access = 0; access < PLAN_ACCESS_COUNT; access++) {
        uint64_t in_blocks = tile_blocks(wgrad.c_in, variant->tile[access].ins);
        uint64_t out_blocks = tile_blocks(div_up(wgrad.c_out, 4) * 4, variant->tile[access].outs);
        uint64_t wanted = wgrad.splits * (wgrad.taps / variant->taps) * in_blocks * out_blocks;
        groups = MAX(groups, wanted);
        most_outs = MAX(most_outs, variant->tile[access].outs);
    }
    tile->variant = variant->name;
    tile_set_size(tile, WGRAD_LANES);
    tile_add_spec(tile, wgrad.padded || wgrad.map_w < WGRAD_COLUMNS);
    tile->shared_bytes = 4 * variant->taps * most_outs * WGRAD_LANES;
    tile_set_groups(tile, groups);
}

bool tile_has_narrow(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p = tile_read_params(kernel, params);
    if (kernel != KERNEL_ID_conv_fwd && kernel != KERNEL_ID_conv_dgrad)
        return false;
    struct map map = tile_map_find(kernel, &p);
    return reg_variant_find(kernel, &map) == &conv_k3_32;
}
