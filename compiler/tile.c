/*
 * tile.c: how each kernel is laid out on each class of device: shader variant, specialisation
 * constants, workgroups. Called by the lowering's last step for every record. The measurements
 * behind the choices are in docs/shaders.md.
 */
#include <string.h>

#include "common/base.h"
#include "compiler/tile.h"

#define LANE_MARGIN 2u /* conv_lane.comp's MARGIN */

/* What convolution and up-convolution kernels have in common: pixels times columns. */
struct map {
    uint32_t n, h, w;          /* pixels that the kernel's invocations share out */
    uint32_t columns, sources; /* vec4 of output channels; source channels */
    uint32_t kh, kw;
    bool padded, dense; /* dense: dilation 1 */
    bool near_edges;    /* taps lie at most LANE_MARGIN outside the source */
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

/* The largest divisor that is not larger than `most`. */
static uint32_t most_divisor(uint32_t value, uint32_t most) {
    uint32_t divisor = MIN(value, most);
    while (value % divisor != 0)
        divisor--;
    return divisor;
}

static struct map map_find(enum kernel_id kernel, const union kernel_params *p) {
    if (kernel == KERNEL_ID_upconv_fwd) {
        const struct upconv_params *u = &p->upconv;
        return (struct map){.n = u->n,
                            .h = u->h_in,
                            .w = u->w_in,
                            .columns = u->k * u->k * div_up(u->c_out, 4),
                            .sources = u->c_in,
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
                            .sources = u->c_out,
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
                        .sources = c->c_in,
                        .kh = c->kh,
                        .kw = c->kw,
                        .padded = c->pad_h > 0 || c->pad_w > 0,
                        .dense = c->dilation == 1,
                        .near_edges = c->pad_h <= LANE_MARGIN && c->pad_w <= LANE_MARGIN &&
                                      c->h_out + c->kh <= c->h_in + 2 * c->pad_h + 1 &&
                                      c->w_out + c->kw <= c->w_in + 2 * c->pad_w + 1,
                        .epilogue = c->epilogue};
}

/*
 * conv_tile.comp: tiles of pixels x output channels, largest first. A large one reads less for each
 * multiply-add, but leaves a GPU idle where a layer has few of them; larger ones than here gained
 * nothing (docs/shaders.md).
 */
#define GPU_GROUPS 192u /* workgroups that keep a GPU busy */
#define GPU_SHARED_BYTES 32768u
#define GPU_DEPTH 8u   /* least depth of a step */
#define GPU_UNROLL 24u /* most depth of unrolled code */

struct conv_tile {
    uint32_t size, out_lanes, out_vecs, pixel_vecs;
};

static const struct conv_tile conv_tiles[] = {
    {128, 8, 2, 1}, /* 64 x 64 */
    {128, 4, 2, 1}, /* 128 x 32 */
    {128, 4, 1, 1}, /* 128 x 16 */
    {64, 8, 1, 1},  /* 32 x 32 */
};

static uint32_t tile_pixels(const struct conv_tile *conv) {
    return conv->size / conv->out_lanes * conv->pixel_vecs * 4;
}

static uint32_t tile_vecs(const struct conv_tile *conv) {
    return conv->out_lanes * conv->out_vecs;
}

/* Rows (source channel, ky) of a step: whole channels for each of the invocations that share the
   rows of a pixel, where shared memory has room for them; else one row each; 0: no room. */
static uint32_t conv_step_rows(const struct conv_tile *conv, const struct map *map) {
    uint32_t stagers = conv->out_lanes / (4 * conv->pixel_vecs);
    uint32_t row_bytes = map->kw * 4 * (tile_pixels(conv) + tile_vecs(conv) * 4);
    uint32_t whole = map->kh * stagers;
    uint32_t rows =
        whole * MIN(div_up(GPU_DEPTH, whole * map->kw), div_up(map->sources * map->kh, whole));
    if (rows * row_bytes <= GPU_SHARED_BYTES)
        return rows;
    return stagers * row_bytes <= GPU_SHARED_BYTES ? stagers : 0;
}

static uint64_t conv_groups(const struct conv_tile *conv, const struct map *map) {
    return map->n * blocks((uint64_t)map->h * map->w, tile_pixels(conv)) *
           blocks(map->columns, tile_vecs(conv));
}

/* The largest tile that is filled with channels and keeps a GPU busy; else the one with the most
   workgroups. NULL: the kernel is too wide for shared memory. */
static const struct conv_tile *conv_tile_find(const struct map *map) {
    const struct conv_tile *most = NULL;
    for (size_t i = 0; i < ARRAY_LEN(conv_tiles); i++) {
        const struct conv_tile *conv = &conv_tiles[i];
        bool fits = conv_step_rows(conv, map) > 0;
        bool filled = map->columns * 4 >= tile_vecs(conv) * 3 || tile_vecs(conv) <= 4;
        if (fits && filled && conv_groups(conv, map) >= GPU_GROUPS)
            return conv;
        if (fits && (most == NULL || conv_groups(conv, map) > conv_groups(most, map)))
            most = conv;
    }
    return most;
}

static bool choose_conv_tile(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile) {
    struct map map = map_find(kernel, p);
    const struct conv_tile *conv = conv_tile_find(&map);
    if (conv == NULL)
        return false;
    uint32_t step_rows = conv_step_rows(conv, &map);
    tile->variant = kernel == KERNEL_ID_upconv_fwd     ? "upconv_fwd_tile"
                    : kernel == KERNEL_ID_upconv_dgrad ? "upconv_dgrad_tile"
                                                       : "conv_tile";
    set_size(tile, conv->size);
    add_spec(tile, map.epilogue);
    add_spec(tile, conv->out_lanes);
    add_spec(tile, conv->out_vecs);
    add_spec(tile, conv->pixel_vecs);
    add_spec(tile, step_rows);
    add_spec(tile, map.kh);
    add_spec(tile, map.kw);
    add_spec(tile, map.padded);
    add_spec(tile, map.sources * map.kh % step_rows == 0);
    add_spec(tile, most_divisor(step_rows * map.kw, GPU_UNROLL));
    tile->shared_bytes = step_rows * map.kw * 4 * (tile_vecs(conv) * 4 + tile_pixels(conv));
    set_groups(tile, conv_groups(conv, &map));
    return true;
}

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

static void choose_conv_reg(enum kernel_id kernel, const union kernel_params *p,
                            enum plan_method_kind method, struct tile *tile) {
    struct map map = map_find(kernel, p);
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
            wanted = map.n * blocks(h, variant->lane.rows) * blocks(w, variant->lane.cols) *
                     blocks(map.columns * 4, size);
        } else {
            uint64_t lanes = blocks(map.h, reg->rows) * blocks(map.w, reg->cols);
            wanted = map.n * blocks(lanes, size) * blocks(map.columns, reg->vecs);
        }
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
    uint32_t c_in, c_out, taps, kh, kw, map_rows, map_w, splits;
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
                              .map_w = u->w_in,
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
                          .map_w = c->w_out,
                          .splits = c->splits,
                          .padded = c->pad_h > 0 || c->pad_w > 0,
                          .dense = c->dilation == 1};
}

/* wgrad_tile.comp: tiles of rows (input channel, tap) x columns, widest first. */
#define WGRAD_DEPTH 16u
#define WGRAD_UNROLL 4u

struct wgrad_tile {
    uint32_t size, col_lanes, row_vecs, col_vecs;
};

static const struct wgrad_tile wgrad_tiles[] = {
    {128, 8, 2, 1}, /* 128 x 32 */
    {64, 8, 1, 1},  /* 32 x 32 */
    {64, 4, 1, 1},  /* 64 x 16 */
    {64, 2, 1, 1},  /* 128 x 8 */
};

static void choose_wgrad_tile(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile) {
    struct wgrad wgrad = wgrad_find(kernel, p);
    bool up = kernel == KERNEL_ID_upconv_wgrad;
    uint32_t pitch = div_up(wgrad.c_out, 4) * 4;
    uint64_t rows = up ? wgrad.c_in : (uint64_t)wgrad.c_in * wgrad.taps;
    uint64_t cols = up ? (uint64_t)pitch * wgrad.taps : pitch;
    const struct wgrad_tile *found = NULL;
    uint32_t tile_rows = 0, tile_cols = 0;
    for (size_t i = 0; i < ARRAY_LEN(wgrad_tiles); i++) {
        found = &wgrad_tiles[i];
        tile_rows = found->size / found->col_lanes * found->row_vecs * 4;
        tile_cols = found->col_lanes * found->col_vecs * 4;
        /* Filled, or of few rows while the next ones are not smaller. */
        if (cols >= tile_cols && (rows >= tile_rows || tile_cols < 32 || rows <= 32))
            break;
    }
    tile->variant = up ? "upconv_wgrad_tile" : "conv_wgrad_tile";
    set_size(tile, found->size);
    add_spec(tile, found->col_lanes);
    add_spec(tile, found->row_vecs);
    add_spec(tile, found->col_vecs);
    add_spec(tile, WGRAD_DEPTH);
    add_spec(tile, wgrad.kh);
    add_spec(tile, wgrad.kw);
    add_spec(tile, wgrad.padded);
    add_spec(tile, WGRAD_UNROLL);
    tile->shared_bytes = WGRAD_DEPTH * 4 * (tile_rows + 4 + tile_cols + 4);
    set_groups(tile, wgrad.splits * blocks(rows, tile_rows) * blocks(cols, tile_cols));
}

/*
 * conv_matrix.comp, wgrad_matrix.comp: a workgroup has 8 subgroups, each 32 x 32 of its tile. Where
 * the device differs from what is stated here, the runtime changes the constants
 * (plan_matrix_constants).
 */
#define MATRIX_SIZE 16u
#define MATRIX_ROWS 128u
#define MATRIX_COLUMNS 64u
#define MATRIX_PART 32u
#define MATRIX_PARTS (MATRIX_ROWS / MATRIX_PART * (MATRIX_COLUMNS / MATRIX_PART))
#define MATRIX_CHANNELS 16u /* depth of a step: of sums over channels, and over pixels */
#define MATRIX_PIXELS 32u
/* Gradients of a mean over some hundred thousand pixels, towards the middle of half precision. */
#define MATRIX_EXPONENT 14u

/* Constants 0 to 11. */
static void matrix_constants(struct tile *tile, uint32_t third, uint32_t depth) {
    set_size(tile, MATRIX_PARTS * PLAN_MATRIX_SUBGROUP);
    add_spec(tile, third);
    for (int i = 0; i < 3; i++)
        add_spec(tile, MATRIX_SIZE);
    add_spec(tile, MATRIX_ROWS);
    add_spec(tile, MATRIX_COLUMNS);
    add_spec(tile, MATRIX_PART);
    add_spec(tile, MATRIX_PART);
    add_spec(tile, depth);
}

static void choose_conv_matrix(enum kernel_id kernel, const union kernel_params *p,
                               struct tile *tile) {
    struct map map = map_find(kernel, p);
    bool gradient = kernel == KERNEL_ID_conv_dgrad || kernel == KERNEL_ID_upconv_dgrad;
    tile->variant = kernel == KERNEL_ID_upconv_fwd     ? "upconv_fwd_matrix"
                    : kernel == KERNEL_ID_upconv_dgrad ? "upconv_dgrad_matrix"
                                                       : "conv_matrix";
    matrix_constants(tile, map.epilogue, MATRIX_CHANNELS);
    add_spec(tile, map.padded);
    add_spec(tile, map.sources % MATRIX_CHANNELS == 0);
    add_spec(tile, gradient ? MATRIX_EXPONENT : 0);
    tile->shared_bytes = MATRIX_CHANNELS * (MATRIX_ROWS / 2 + 4 + MATRIX_COLUMNS / 2 + 4) * 4 +
                         MATRIX_PARTS * MATRIX_SIZE * MATRIX_SIZE * 4;
    set_groups(tile, map.n * blocks((uint64_t)map.h * map.w, MATRIX_ROWS) *
                         blocks((uint64_t)map.columns * 4, MATRIX_COLUMNS));
}

static void choose_wgrad_matrix(enum kernel_id kernel, const union kernel_params *p,
                                struct tile *tile) {
    struct wgrad wgrad = wgrad_find(kernel, p);
    bool up = kernel == KERNEL_ID_upconv_wgrad;
    uint32_t pitch = div_up(wgrad.c_out, 4) * 4;
    uint64_t rows = up ? wgrad.c_in : (uint64_t)wgrad.c_in * wgrad.taps;
    uint64_t cols = up ? (uint64_t)pitch * wgrad.taps : pitch;
    tile->variant = up ? "upconv_wgrad_matrix" : "conv_wgrad_matrix";
    matrix_constants(tile, MATRIX_EXPONENT, MATRIX_PIXELS);
    add_spec(tile, wgrad.padded);
    add_spec(tile, wgrad.kh);
    add_spec(tile, wgrad.kw);
    tile->shared_bytes = (MATRIX_ROWS + MATRIX_COLUMNS) * (MATRIX_PIXELS / 2 + 4) * 4 +
                         MATRIX_PARTS * MATRIX_SIZE * MATRIX_SIZE * 4;
    set_groups(tile, wgrad.splits * blocks(rows, MATRIX_ROWS) * blocks(cols, MATRIX_COLUMNS));
}

/* Fewer channels leave most of a matrix empty. */
bool tile_has_matrix(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    if (kernel == KERNEL_ID_conv_wgrad || kernel == KERNEL_ID_upconv_wgrad) {
        struct wgrad wgrad = wgrad_find(kernel, &p);
        return wgrad.c_in >= MATRIX_SIZE / 2 && wgrad.c_out >= MATRIX_SIZE / 2;
    }
    struct map map = map_find(kernel, &p);
    return map.sources >= MATRIX_SIZE / 2 && map.columns * 4 >= MATRIX_SIZE / 2;
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
    add_spec(tile, wgrad.padded || wgrad.map_w < WGRAD_COLUMNS);
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
        choose_sum(variant, p->bias_grad.c, cpu ? 16 : 256, 4, tile);
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

/* The steps of Winograd's algorithm: workgroups of a block of tiles, whatever the device. */
static void choose_winograd(enum kernel_id kernel, const union kernel_params *p,
                            enum plan_class cls, struct tile *tile) {
    if (kernel == KERNEL_ID_winograd_weights) {
        const struct winograd_weights_params *w = &p->winograd_weights;
        choose_each("winograd_weights", 1,
                    blocks(w->c_in, WINOGRAD_CHUNK) * WINOGRAD_CHUNK * blocks(w->n_channels, 4) * 4,
                    cls, tile);
        return;
    }
    set_size(tile, WINOGRAD_LANES);
    if (kernel == KERNEL_ID_winograd_input) {
        const struct winograd_input_params *x = &p->winograd_input;
        tile->variant = "winograd_input";
        set_groups(tile, kernel_winograd_blocks(x->n, x->n_rows, x->w_out) *
                             blocks(x->c_in, WINOGRAD_CHUNK));
        return;
    }
    const struct winograd_product_params *y = &p->winograd_product;
    tile->variant = "winograd_product";
    add_spec(tile, y->epilogue);
    set_groups(tile, kernel_winograd_blocks(y->n, y->n_rows, y->w_out) * blocks(y->n_channels, 4));
}

bool tile_has_narrow(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    if (kernel != KERNEL_ID_conv_fwd && kernel != KERNEL_ID_conv_dgrad)
        return false;
    struct map map = map_find(kernel, &p);
    return reg_variant_find(kernel, &map) == &conv_k3_32;
}

void tile_choose(enum kernel_id kernel, const uint32_t *params, enum plan_class cls,
                 enum plan_method_kind method, struct tile *tile) {
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
        if (method == PLAN_METHOD_MATRIX)
            choose_conv_matrix(kernel, &p, tile);
        else if (cpu || !choose_conv_tile(kernel, &p, tile))
            choose_conv_reg(kernel, &p, method, tile);
        break;
    case KERNEL_ID_winograd_weights:
    case KERNEL_ID_winograd_input:
    case KERNEL_ID_winograd_product:
        choose_winograd(kernel, &p, cls, tile);
        break;
    case KERNEL_ID_conv_wgrad:
    case KERNEL_ID_upconv_wgrad:
        if (method == PLAN_METHOD_MATRIX)
            choose_wgrad_matrix(kernel, &p, tile);
        else
            cpu ? choose_wgrad_reg(kernel, &p, tile) : choose_wgrad_tile(kernel, &p, tile);
        break;
    default:
        choose_simple(kernel, &p, cls, tile);
        break;
    }
}

static struct wgrad wgrad_read(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p;
    memset(&p, 0, sizeof p);
    memcpy(&p, params, kernel_table[kernel].n_params * sizeof *params);
    return wgrad_find(kernel, &p);
}

/* What one partial sum of a weight gradient has: float32, padded to four output channels. */
static uint64_t wgrad_results(const struct wgrad *wgrad) {
    return (uint64_t)wgrad->c_in * wgrad->taps * div_up(wgrad->c_out, 4) * 4;
}

/*
 * Enough splits that the outermost layers, with few channels and many pixels, still fill a device
 * (about 256 workgroups of 32 x 32 results), at least 8 rows each, and at most 4 MiB of partial
 * sums beyond the first.
 */
uint32_t tile_wgrad_splits(enum kernel_id kernel, const uint32_t *params) {
    struct wgrad wgrad = wgrad_read(kernel, params);
    uint64_t results = wgrad_results(&wgrad);
    uint64_t splits = blocks(256, blocks(results, 1024));
    splits = MIN(splits, MAX(1, wgrad.map_rows / 8));
    splits = MIN(splits, MAX(1, (4u << 20) / (results * 4)));
    return (uint32_t)MAX(splits, 1);
}

/* About 1000 workgroups of the largest tile (4096 results, 16 MiB in all), 512 pixels each. */
uint32_t tile_wgrad_most_splits(enum kernel_id kernel, const uint32_t *params,
                                uint64_t room_bytes) {
    struct wgrad wgrad = wgrad_read(kernel, params);
    uint64_t results = wgrad_results(&wgrad);
    uint64_t splits = MIN(blocks(1000, blocks(results, 4096)), room_bytes / (results * 4));
    splits = MIN(splits, (uint64_t)wgrad.map_rows * wgrad.map_w / 512);
    return (uint32_t)MIN(splits, wgrad.map_rows);
}
