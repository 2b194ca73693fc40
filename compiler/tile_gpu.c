/*
 * tile_gpu.c: tiles of convolutions on GPUs: products through shared memory, and on matrix units.
 * The measurements behind them are in docs/shaders.md.
 */
#include <string.h>

#include "compiler/tile_internal.h"

/* The largest divisor that is not larger than `most`. */
static uint32_t most_divisor(uint32_t value, uint32_t most) {
    uint32_t divisor = MIN(value, most);
    while (value % divisor != 0)
        divisor--;
    return divisor;
}

/*
 * conv_tile.comp: tiles of pixels x output channels, largest first, but for few channels. A large
 * one reads less for each multiply-add, but leaves a GPU idle where a layer has few of them; larger
 * ones than here gained nothing (docs/shaders.md).
 */
#define GPU_GROUPS 192u         /* workgroups that keep a GPU busy */
#define GPU_SHARED_BYTES 32768u /* the most that is used, where the device has it */
#define GPU_DEPTH 8u            /* least depth of a step */
#define GPU_UNROLL 24u          /* most depth of unrolled code */

struct conv_tile {
    uint32_t size, out_lanes, out_vecs, pixel_vecs;
};

static const struct conv_tile conv_tiles[] = {
    {128, 8, 2, 1}, /* 64 x 64 */
    {128, 4, 2, 1}, /* 128 x 32 */
    {64, 8, 1, 1},  /* 32 x 32 */
    {128, 4, 1, 1}, /* 128 x 16: few channels */
};

static uint32_t tile_pixels(const struct conv_tile *conv) {
    return conv->size / conv->out_lanes * conv->pixel_vecs * 4;
}

static uint32_t tile_vecs(const struct conv_tile *conv) {
    return conv->out_lanes * conv->out_vecs;
}

/* Rows (source channel, ky) of a step: whole channels for each of the invocations that share the
   rows of a pixel, where shared memory has room for them; else one row each; 0: no room. */
static uint32_t conv_step_rows(const struct conv_tile *conv, const struct map *map,
                               uint32_t shared_bytes) {
    uint32_t stagers = conv->out_lanes / (4 * conv->pixel_vecs);
    uint32_t row_bytes = map->kw * 4 * (tile_pixels(conv) + tile_vecs(conv) * 4);
    uint32_t whole = map->kh * stagers;
    uint32_t rows =
        whole * MIN(div_up(GPU_DEPTH, whole * map->kw), div_up(map->sources * map->kh, whole));
    if (rows * row_bytes <= shared_bytes)
        return rows;
    return stagers * row_bytes <= shared_bytes ? stagers : 0;
}

static uint64_t conv_groups(const struct conv_tile *conv, const struct map *map) {
    return map->n * tile_blocks((uint64_t)map->h * map->w, tile_pixels(conv)) *
           tile_blocks(map->columns, tile_vecs(conv));
}

/* The largest tile that is filled with channels and keeps a GPU busy; else the one with the most
   workgroups. NULL: the kernel is too wide for shared memory. */
static const struct conv_tile *conv_tile_find(const struct map *map, const struct tile *tile,
                                              uint32_t shared_bytes) {
    const struct conv_tile *most = NULL;
    for (size_t i = 0; i < ARRAY_LEN(conv_tiles); i++) {
        const struct conv_tile *conv = &conv_tiles[i];
        bool fits = conv->size <= tile_most_invocations(tile) &&
                    conv_step_rows(conv, map, shared_bytes) > 0;
        bool filled = map->columns * 4 >= tile_vecs(conv) * 3 || tile_vecs(conv) <= 4;
        if (fits && filled && conv_groups(conv, map) >= GPU_GROUPS)
            return conv;
        if (fits && (most == NULL || conv_groups(conv, map) > conv_groups(most, map)))
            most = conv;
    }
    return most;
}

bool tile_choose_conv_shared(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile) {
    struct map map = tile_map_find(kernel, p);
    const uint32_t shared_bytes = MIN(tile->limits->max_shared_bytes, GPU_SHARED_BYTES);
    const struct conv_tile *conv = conv_tile_find(&map, tile, shared_bytes);
    if (conv == NULL)
        return false;
    uint32_t step_rows = conv_step_rows(conv, &map, shared_bytes);
    tile->variant = kernel == KERNEL_ID_upconv_fwd     ? "upconv_fwd_tile"
                    : kernel == KERNEL_ID_upconv_dgrad ? "upconv_dgrad_tile"
                                                       : "conv_tile";
    tile_set_size(tile, conv->size);
    tile_add_spec(tile, map.epilogue);
    tile_add_spec(tile, conv->out_lanes);
    tile_add_spec(tile, conv->out_vecs);
    tile_add_spec(tile, conv->pixel_vecs);
    tile_add_spec(tile, step_rows);
    tile_add_spec(tile, map.kh);
    tile_add_spec(tile, map.kw);
    tile_add_spec(tile, map.padded);
    tile_add_spec(tile, map.sources * map.kh % step_rows == 0);
    tile_add_spec(tile, most_divisor(step_rows * map.kw, GPU_UNROLL));
    tile->shared_bytes = step_rows * map.kw * 4 * (tile_vecs(conv) * 4 + tile_pixels(conv));
    tile_set_groups(tile, conv_groups(conv, &map));
    return true;
}

/*
 * conv_winograd2.comp: 32 tiles x 32 output channels, 64 sums for each invocation. Twice the
 * channels take so many registers that half of a GPU's waves do not fit; half the depth of a step
 * leaves twice the instructions beside multiply-adds (docs/shaders.md).
 */
#define WINOGRAD2_SIZE 256u
#define WINOGRAD2_VECS 2u /* of output channels, and of tiles, of an invocation */
#define WINOGRAD2_TILE (16 * WINOGRAD2_VECS)
#define WINOGRAD2_STEP 8u   /* source channels */
#define WINOGRAD2_LEAST 16u /* channels */

void tile_choose_conv_winograd2(const union kernel_params *p, struct tile *tile) {
    const struct conv_params *c = &p->conv;
    uint32_t tiles = div_up(c->h_out, 2) * div_up(c->w_out, 2);
    tile->variant = "conv_winograd2";
    tile_set_size(tile, WINOGRAD2_SIZE);
    tile_add_spec(tile, c->epilogue);
    tile_add_spec(tile, WINOGRAD2_VECS);
    tile_add_spec(tile, WINOGRAD2_VECS);
    tile_add_spec(tile, WINOGRAD2_STEP);
    tile_add_spec(tile, c->pad_h > 0 || c->pad_w > 0 || c->h_out % 2 != 0 || c->w_out % 2 != 0);
    tile->shared_bytes = MAX(64 * WINOGRAD2_STEP * 2 * WINOGRAD2_TILE, 512 * WINOGRAD2_TILE);
    tile_set_groups(tile, c->n * tile_blocks(tiles, WINOGRAD2_TILE) *
                              tile_blocks(div_up(c->c_out, 4) * 4, WINOGRAD2_TILE));
}

bool tile_has_winograd2(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p = tile_read_params(kernel, params);
    const struct conv_params *c = &p.conv;
    return (kernel == KERNEL_ID_conv_fwd || kernel == KERNEL_ID_conv_dgrad) && c->kh == 3 &&
           c->kw == 3 && c->dilation == 1 && MIN(c->c_in, c->c_out) >= WINOGRAD2_LEAST;
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

void tile_choose_wgrad_shared(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile) {
    struct wgrad wgrad = tile_wgrad_find(kernel, p);
    bool up = kernel == KERNEL_ID_upconv_wgrad;
    const struct wgrad_tile *found = NULL;
    uint32_t tile_rows = 0, tile_cols = 0;
    for (size_t i = 0; i < ARRAY_LEN(wgrad_tiles); i++) {
        found = &wgrad_tiles[i];
        tile_rows = found->size / found->col_lanes * found->row_vecs * 4;
        tile_cols = found->col_lanes * found->col_vecs * 4;
        if (found->size > tile_most_invocations(tile))
            continue;
        /* Filled, or of few rows while the next ones are not smaller. */
        if (wgrad.cols >= tile_cols &&
            (wgrad.rows >= tile_rows || tile_cols < 32 || wgrad.rows <= 32))
            break;
    }
    tile->variant = up ? "upconv_wgrad_tile" : "conv_wgrad_tile";
    tile_set_size(tile, found->size);
    tile_add_spec(tile, found->col_lanes);
    tile_add_spec(tile, found->row_vecs);
    tile_add_spec(tile, found->col_vecs);
    tile_add_spec(tile, WGRAD_DEPTH);
    tile_add_spec(tile, wgrad.kh);
    tile_add_spec(tile, wgrad.kw);
    tile_add_spec(tile, wgrad.padded);
    tile_add_spec(tile, WGRAD_UNROLL);
    tile->shared_bytes = WGRAD_DEPTH * 4 * (tile_rows + 4 + tile_cols + 4);
    tile_set_groups(tile, wgrad.splits * tile_blocks(wgrad.rows, tile_rows) *
                              tile_blocks(wgrad.cols, tile_cols));
}

/*
 * conv_matrix.comp, wgrad_matrix.comp: a workgroup has 8 subgroups, each 32 x 32 of its tile. Where
 * the device differs from what is stated here, the runtime changes the constants
 * (plan_matrix_constants).
 */
#define MATRIX_ROWS 128u
#define MATRIX_COLUMNS 64u
#define MATRIX_PART 32u
#define MATRIX_PARTS (MATRIX_ROWS / MATRIX_PART * (MATRIX_COLUMNS / MATRIX_PART))
#define MATRIX_CHANNELS 16u /* depth of a step: of sums over channels, and over pixels */
#define MATRIX_PIXELS 32u

/* Constants 0 to 11. */
static void matrix_constants(struct tile *tile, uint32_t third, uint32_t depth) {
    tile_set_size(tile, MATRIX_PARTS * PLAN_MATRIX_SUBGROUP);
    tile_add_spec(tile, third);
    for (int i = 0; i < 3; i++)
        tile_add_spec(tile, PLAN_MATRIX_SIZE);
    tile_add_spec(tile, MATRIX_ROWS);
    tile_add_spec(tile, MATRIX_COLUMNS);
    tile_add_spec(tile, MATRIX_PART);
    tile_add_spec(tile, MATRIX_PART);
    tile_add_spec(tile, depth);
}

void tile_choose_conv_matrix(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile) {
    struct map map = tile_map_find(kernel, p);
    bool gradient = kernel == KERNEL_ID_conv_dgrad || kernel == KERNEL_ID_upconv_dgrad;
    tile->variant = kernel == KERNEL_ID_upconv_fwd     ? "upconv_fwd_matrix"
                    : kernel == KERNEL_ID_upconv_dgrad ? "upconv_dgrad_matrix"
                                                       : "conv_matrix";
    matrix_constants(tile, map.epilogue, MATRIX_CHANNELS);
    tile_add_spec(tile, map.padded);
    tile_add_spec(tile, map.sources % MATRIX_CHANNELS == 0);
    tile_add_spec(tile, gradient);
    tile->shared_bytes = MATRIX_CHANNELS * (MATRIX_ROWS / 2 + 4 + MATRIX_COLUMNS / 2 + 4) * 4 +
                         MATRIX_PARTS * PLAN_MATRIX_SIZE * PLAN_MATRIX_SIZE * 4;
    tile_set_groups(tile, map.n * tile_blocks((uint64_t)map.h * map.w, MATRIX_ROWS) *
                              tile_blocks((uint64_t)map.columns * 4, MATRIX_COLUMNS));
}

void tile_choose_wgrad_matrix(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile) {
    struct wgrad wgrad = tile_wgrad_find(kernel, p);
    bool up = kernel == KERNEL_ID_upconv_wgrad;
    tile->variant = up ? "upconv_wgrad_matrix" : "conv_wgrad_matrix";
    matrix_constants(tile, 0, MATRIX_PIXELS);
    tile_add_spec(tile, wgrad.padded);
    tile_add_spec(tile, wgrad.kh);
    tile_add_spec(tile, wgrad.kw);
    tile->shared_bytes = (MATRIX_ROWS + MATRIX_COLUMNS) * (MATRIX_PIXELS / 2 + 4) * 4 +
                         MATRIX_PARTS * PLAN_MATRIX_SIZE * PLAN_MATRIX_SIZE * 4;
    tile_set_groups(tile, wgrad.splits * tile_blocks(wgrad.rows, MATRIX_ROWS) *
                              tile_blocks(wgrad.cols, MATRIX_COLUMNS));
}

/* Fewer channels leave most of a matrix empty. */
bool tile_has_matrix(enum kernel_id kernel, const uint32_t *params) {
    union kernel_params p = tile_read_params(kernel, params);
    if (kernel == KERNEL_ID_conv_wgrad || kernel == KERNEL_ID_upconv_wgrad) {
        struct wgrad wgrad = tile_wgrad_find(kernel, &p);
        return wgrad.c_in >= PLAN_MATRIX_SIZE / 2 && wgrad.c_out >= PLAN_MATRIX_SIZE / 2;
    }
    struct map map = tile_map_find(kernel, &p);
    return map.sources >= PLAN_MATRIX_SIZE / 2 && map.columns * 4 >= PLAN_MATRIX_SIZE / 2;
}
