/*
 * conv_sum.c: blocks, register tile and loops of the sums of conv_sum.h.
 *
 * The register tile is SUM_OUT outputs by SUM_VECTORS vectors of pixels. Weights are copied so that
 * a tile reads them one after the other. A block of k is as large as lets the slab's pixels under a
 * register tile stay in the first cache while all outputs of the block pass over them; slab,
 * weights and sums of a unit stay in the second (the loop structure of K. Goto and R. van de Geijn,
 * Anatomy of High-Performance Matrix Multiplication, 2008).
 *
 * Where many units use the same weights, a first phase copies all of them into shared memory;
 * where few do, every unit copies its own, while they are in its cache.
 */
#include "runtime/cpu/conv_sum.h"

#include "common/base.h"

#define SUM_OUT CONV_SUM_OUT
#if CPU_LANES == 4
#define SUM_VECTORS 2
#else
#define SUM_VECTORS 3
#endif

/* Sizes of blocks in floats or pixels: slab, weights and sums together fit a second-level cache of
   1 MiB. */
#define L1_FLOATS 6400u
#define SUMS_FLOATS (128u << 10)
#define MOST_PIXELS 4096u
#define LEAST_PIXELS 256u
#define TILE_COLS 320u
#define OUT_TAPS 1152u /* outputs of a block times taps: what a copied pixel is used for */
#define MOST_OUTS 512u
#define ENOUGH_UNITS 16u
#define FEW_OUTS 16u    /* for these a slab is not worth its copy */
#define ENOUGH_TILES 3u /* as many units of the same weights are worth a shared copy of them */

static uint32_t row_stride_of(const struct conv_sum *sum, uint32_t n_cols) {
    return n_cols + (sum->kw - 1) * sum->dilation;
}

static uint32_t in_rows_of(const struct conv_sum *sum, uint32_t n_rows) {
    return n_rows + (sum->kh - 1) * sum->dilation;
}

/* Floats of n in a slab or in the sums: whole vectors, and no multiple of a page, which would put
   all channels into the same lines of a cache. */
static size_t stride_of(size_t n) {
    size_t stride = (size_t)align_up(n, 16);
    return stride % 1024 == 0 ? stride + 16 : stride;
}

/* `count` in equal parts of at most `most`: the size of a part. */
static uint32_t even_part(uint32_t count, uint32_t most) {
    return div_up(count, div_up(count, MAX(most, 1)));
}

static void set_tile(struct conv_sum *sum, uint32_t pixels, uint32_t outs) {
    sum->tile_cols = even_part(sum->cols, sum->reads_input ? pixels : TILE_COLS);
    sum->tiles_across = div_up(sum->cols, sum->tile_cols);
    sum->tile_rows = even_part(sum->rows, pixels / sum->tile_cols);
    sum->tiles_down = div_up(sum->rows, sum->tile_rows);
    uint32_t most = MAX(outs / sum->groups, 1);
    most = most > SUM_OUT ? most / SUM_OUT * SUM_OUT : most;
    sum->out_block = MIN(most, sum->out_count);
    sum->out_blocks = div_up(sum->out_count, sum->out_block);
}

/* Tiles of pixels that need the same weights. */
static uint32_t tiles_of(const struct conv_sum *sum) {
    return sum->n * sum->tiles_down * sum->tiles_across;
}

/* So many k that the floats of a register tile's pixels and weights fill the first cache. */
static uint32_t k_block_of(const struct conv_sum *sum) {
    const uint32_t row = SUM_VECTORS * CPU_LANES + (sum->kw - 1) * sum->dilation + 16;
    const uint32_t each = sum->kh * row + sum->kh * sum->kw * SUM_OUT;
    return even_part(sum->k_count, MAX(L1_FLOATS / each, 8));
}

static void set_blocks(struct conv_sum *sum) {
    uint32_t outs = MIN(MAX(OUT_TAPS / (sum->kh * sum->kw), 4 * SUM_OUT), MOST_OUTS);
    outs = MIN(outs, sum->groups * sum->out_count);
    sum->reads_input =
        sum->x_row > 0 && sum->groups * sum->out_count <= FEW_OUTS && sum->cols <= LEAST_PIXELS * 4;
    uint32_t pixels = MIN(SUMS_FLOATS / outs, MOST_PIXELS);
    set_tile(sum, pixels, outs);
    const uint32_t least_outs = MAX(outs / 4, 4 * SUM_OUT);
    while (tiles_of(sum) * sum->out_blocks < ENOUGH_UNITS &&
           (outs > least_outs || pixels > LEAST_PIXELS)) {
        if (outs > least_outs)
            outs /= 2;
        else
            pixels /= 2;
        set_tile(sum, pixels, outs);
    }
    const size_t slab_stride =
        stride_of((size_t)in_rows_of(sum, sum->tile_rows) * row_stride_of(sum, sum->tile_cols));
    const size_t sums_stride = stride_of(
        (size_t)sum->tile_rows * row_stride_of(sum, sum->tile_cols) + SUM_VECTORS * CPU_LANES);
    sum->k_block = k_block_of(sum);
    sum->k_blocks = div_up(sum->k_count, sum->k_block);
    sum->slab_floats = stride_of(sum->k_block * slab_stride + CPU_LANES);
    const size_t out_rows = align_up((uint64_t)sum->groups * sum->out_block, SUM_OUT);
    sum->panel_floats = stride_of(out_rows * sum->k_block * sum->kh * sum->kw);
    sum->sums_floats = out_rows * sums_stride;
    sum->shares_weights = tiles_of(sum) >= ENOUGH_TILES;
}

static struct conv_sum sum_of(const struct conv_form *form, const union kernel_params *params) {
    struct conv_sum sum = form->describe(params);
    set_blocks(&sum);
    return sum;
}

uint32_t CPU_FN(conv_sum_units)(const struct conv_form *form, const union kernel_params *params,
                                uint32_t phase) {
    const struct conv_sum sum = sum_of(form, params);
    if (phase == 0)
        return sum.shares_weights ? sum.k_blocks * sum.out_blocks : 1;
    return tiles_of(&sum) * sum.out_blocks;
}

size_t CPU_FN(conv_sum_shared)(const struct conv_form *form, const union kernel_params *params) {
    const struct conv_sum sum = sum_of(form, params);
    return sum.shares_weights ? sum.panel_floats * sum.k_blocks * sum.out_blocks * sizeof(float)
                              : 0;
}

size_t CPU_FN(conv_sum_scratch)(const struct conv_form *form, const union kernel_params *params) {
    const struct conv_sum sum = sum_of(form, params);
    return (sum.slab_floats + sum.sums_floats + (sum.shares_weights ? 0 : sum.panel_floats)) *
           sizeof(float);
}

/* Tiles next to each other follow each other; with many weights and few pixels that is the block of
   outputs whose weights they share. */
static struct conv_tile tile_of(const struct conv_sum *sum, uint32_t unit) {
    struct conv_tile tile = {0};
    tile.col = unit % sum->tiles_across * sum->tile_cols;
    unit /= sum->tiles_across;
    tile.row = unit % sum->tiles_down * sum->tile_rows;
    unit /= sum->tiles_down;
    tile.image = unit % sum->n;
    tile.out = unit / sum->n * sum->out_block;
    tile.n_rows = MIN(sum->tile_rows, sum->rows - tile.row);
    tile.n_cols = MIN(sum->tile_cols, sum->cols - tile.col);
    tile.n_out = MIN(sum->out_block, sum->out_count - tile.out);
    tile.in_rows = in_rows_of(sum, tile.n_rows);
    tile.row_stride = row_stride_of(sum, tile.n_cols);
    tile.slab_stride = stride_of((size_t)tile.in_rows * tile.row_stride);
    tile.sums_stride = stride_of((size_t)tile.n_rows * tile.row_stride + SUM_VECTORS * CPU_LANES);
    return tile;
}

/* Outputs of the register tile for the last `left` outputs: a power of two up to SUM_OUT. */
static uint32_t tile_width(uint32_t left) {
    uint32_t width = 1;
    while (width < left && width < SUM_OUT)
        width *= 2;
    return width;
}

/* Weights of `count` outputs of one (k, tap) to their tiles, from output `out` of the block on.
   step: position of (k, tap); steps: how many there are. */
static void pack_row(float *panel, const float *src, uint32_t out, uint32_t count,
                     uint32_t out_rows, size_t step, size_t steps) {
    uint32_t i = 0;
    if (out % SUM_OUT == 0)
        for (float *dst = panel + out * steps + step * SUM_OUT; i + SUM_OUT <= count;
             i += SUM_OUT, dst += SUM_OUT * steps)
            memcpy(dst, src + i, SUM_OUT * sizeof(float));
    for (; i < count; i++) {
        const uint32_t row = out + i, first = row / SUM_OUT * SUM_OUT;
        panel[first * steps + step * tile_width(out_rows - first) + (row - first)] = src[i];
    }
}

struct weight_block {
    uint32_t k0, k1, out, n_out;
};

/* w[k][g][tap][o] of a block to panel[o / width][k][tap][o % width]; outputs that only fill up the
   last tile are zero. */
static void pack_weights(const struct conv_sum *sum, const struct weight_block *block,
                         const float *w, float *panel) {
    const uint32_t taps = sum->kh * sum->kw, out_rows = sum->groups * block->n_out;
    const size_t steps = (size_t)(block->k1 - block->k0) * taps;
    const uint32_t last = out_rows / SUM_OUT * SUM_OUT;
    if (last < out_rows)
        memset(panel + last * steps, 0, tile_width(out_rows - last) * steps * sizeof(float));
    const size_t row_floats = (size_t)sum->groups * taps * sum->out4; /* of one k */
    size_t step = 0;
    for (uint32_t k = block->k0; k < block->k1; k++, step += taps)
        for (uint32_t g = 0; g < sum->groups; g++)
            for (uint32_t t = 0; t < taps; t++) {
                const float *src =
                    w + (((size_t)k * sum->groups + g) * taps + t) * sum->out4 + block->out;
                if (k + 2 < block->k1) /* too far apart for the processor to foresee */
                    simd_prefetch(src + 2 * row_floats, block->n_out);
                pack_row(panel, src, g * block->n_out, block->n_out, out_rows, step + t, steps);
            }
}

struct tile_args {
    const float *slab; /* of the first pixel, first k */
    size_t slab_stride;
    uint32_t k_count, kh, kw;
    size_t row_step, col_step; /* floats from one tap to the next */
    const float *weights;
    float *sums;
    size_t sums_stride;
    bool is_first; /* start from zero, not from the sums so far */
};

CPU_INLINE void add_tap(simd_vec sums[SUM_OUT][SUM_VECTORS], const float *x, const float *weights,
                        const int outs, const int vectors) {
    simd_vec pixels[SUM_VECTORS];
    for (int v = 0; v < vectors; v++)
        pixels[v] = simd_load(x + v * CPU_LANES);
    for (int o = 0; o < outs; o++) {
        const simd_vec weight = simd_set(weights[o]);
        for (int v = 0; v < vectors; v++)
            sums[o][v] = simd_fma(pixels[v], weight, sums[o][v]);
    }
}

/* The register tile: `outs` outputs by `vectors` vectors of pixels. kw: the kernel's columns, next
   to each other, where that is known (1: it has one row as well); 0: any kernel. */
CPU_INLINE void run_tile(const struct tile_args *args, const int outs, const int vectors,
                         const int kw) {
    simd_vec sums[SUM_OUT][SUM_VECTORS];
    for (int o = 0; o < outs; o++)
        for (int v = 0; v < vectors; v++)
            sums[o][v] = args->is_first
                             ? simd_zero()
                             : simd_load(args->sums + o * args->sums_stride + v * CPU_LANES);
    const float *slab = args->slab, *weights = args->weights;
    const size_t row_step = args->row_step, slab_stride = args->slab_stride;
    uint32_t k = args->k_count;
    do {
        const float *row = slab;
        uint32_t ky = kw == 1 ? 1 : args->kh;
        do {
            for (int kx = 0; kx < kw; kx++)
                add_tap(sums, row + kx, weights + kx * outs, outs, vectors);
            weights += kw * outs;
            if (kw == 0)
                for (uint32_t kx = 0; kx < args->kw; kx++, weights += outs)
                    add_tap(sums, row + kx * args->col_step, weights, outs, vectors);
            row += row_step;
        } while (--ky > 0);
        slab += slab_stride;
    } while (--k > 0);
    for (int o = 0; o < outs; o++)
        for (int v = 0; v < vectors; v++)
            simd_store(args->sums + o * args->sums_stride + v * CPU_LANES, sums[o][v]);
}

#define TILE_FUNCTION(outs, vectors)                                                               \
    static void run_tile_any_##outs##_##vectors(const struct tile_args *args) {                    \
        run_tile(args, outs, vectors, 0);                                                          \
    }                                                                                              \
    static void run_tile_1x1_##outs##_##vectors(const struct tile_args *args) {                    \
        run_tile(args, outs, vectors, 1);                                                          \
    }                                                                                              \
    static void run_tile_3x3_##outs##_##vectors(const struct tile_args *args) {                    \
        run_tile(args, outs, vectors, 3);                                                          \
    }
#if SUM_VECTORS == 3
#define TILE_FUNCTIONS(outs) TILE_FUNCTION(outs, 1) TILE_FUNCTION(outs, 2) TILE_FUNCTION(outs, 3)
#define TILE_ROW(taps, outs)                                                                       \
    { run_tile_##taps##_##outs##_1, run_tile_##taps##_##outs##_2, run_tile_##taps##_##outs##_3 }
#else
#define TILE_FUNCTIONS(outs) TILE_FUNCTION(outs, 1) TILE_FUNCTION(outs, 2)
#define TILE_ROW(taps, outs)                                                                       \
    { run_tile_##taps##_##outs##_1, run_tile_##taps##_##outs##_2 }
#endif

TILE_FUNCTIONS(1)
TILE_FUNCTIONS(2)
TILE_FUNCTIONS(4)
#if SUM_OUT == 8
TILE_FUNCTIONS(8)
#define TILE_TABLE(taps)                                                                           \
    { TILE_ROW(taps, 1), TILE_ROW(taps, 2), TILE_ROW(taps, 4), TILE_ROW(taps, 8) }
#else
#define TILE_TABLE(taps)                                                                           \
    { TILE_ROW(taps, 1), TILE_ROW(taps, 2), TILE_ROW(taps, 4) }
#endif

typedef void tile_function(const struct tile_args *args);

enum { TAPS_ANY, TAPS_1X1, TAPS_3X3, TAPS_COUNT };

/* By the logarithm of the outputs, and the vectors less one. */
static tile_function *const tile_functions[TAPS_COUNT][SUM_OUT == 8 ? 4 : 3][SUM_VECTORS] = {
    TILE_TABLE(any), TILE_TABLE(1x1), TILE_TABLE(3x3)};

static int taps_of(const struct conv_sum *sum) {
    if (sum->kh == 1 && sum->kw == 1)
        return TAPS_1X1;
    return sum->kw == 3 && sum->dilation == 1 ? TAPS_3X3 : TAPS_ANY;
}

/* Vectors of the next register tile of `left`. None alone when it can be helped: it would wait for
   the weights. */
static uint32_t tile_vectors(uint32_t left) {
    return left == SUM_VECTORS + 1 ? (left + 1) / 2 : MIN(left, SUM_VECTORS);
}

/* Adds a block of k to the sums of a tile. */
static void add_block(const struct conv_sum *sum, const struct conv_tile *tile, uint32_t k_count,
                      const float *slab, const float *panel, float *sums, bool is_first) {
    const uint32_t out_rows = sum->groups * tile->n_out, taps = sum->kh * sum->kw;
    const uint32_t pixels = (tile->n_rows - 1) * tile->row_stride + tile->n_cols;
    tile_function *const(*functions)[SUM_VECTORS] = tile_functions[taps_of(sum)];
    uint32_t left = div_up(pixels, CPU_LANES);
    for (size_t at = 0; left > 0;) {
        const uint32_t vectors = tile_vectors(left);
        for (uint32_t o = 0; o < out_rows; o += SUM_OUT) {
            const uint32_t width = tile_width(out_rows - o);
            functions[width == 8 ? 3 : width / 2][vectors - 1](
                &(struct tile_args){.slab = slab + at,
                                    .slab_stride = tile->slab_stride,
                                    .k_count = k_count,
                                    .kh = sum->kh,
                                    .kw = sum->kw,
                                    .row_step = (size_t)tile->row_stride * sum->dilation,
                                    .col_step = sum->dilation,
                                    .weights = panel + (size_t)o * k_count * taps,
                                    .sums = sums + o * tile->sums_stride + at,
                                    .sums_stride = tile->sums_stride,
                                    .is_first = is_first});
        }
        at += vectors * CPU_LANES;
        left -= vectors;
    }
}

void CPU_FN(conv_sum_product)(const struct conv_product *product) {
    tile_function *const *functions = tile_functions[TAPS_1X1][SUM_OUT == 8 ? 3 : 2];
    uint32_t left = div_up(product->pixels, CPU_LANES);
    for (size_t at = 0; left > 0;) {
        const uint32_t vectors = tile_vectors(left);
        for (uint32_t o = 0; o < product->outs; o += SUM_OUT)
            functions[vectors - 1](
                &(struct tile_args){.slab = product->x + at,
                                    .slab_stride = product->x_stride,
                                    .k_count = product->k_count,
                                    .kh = 1,
                                    .kw = 1,
                                    .weights = product->weights + (size_t)o * product->k_count,
                                    .sums = product->sums + o * product->sums_stride + at,
                                    .sums_stride = product->sums_stride,
                                    .is_first = product->is_first});
        at += vectors * CPU_LANES;
        left -= vectors;
    }
}

/* The input in place of a slab, from k0 on; NULL when it must be copied: lanes past the end of the
   last row would read past the end of the tensor. */
static const float *input_of(const struct conv_sum *sum, const struct conv_tile *tile,
                             const float *x) {
    if (!sum->reads_input || sum->tiles_across > 1 || tile->row + tile->n_rows == sum->rows)
        return NULL;
    return x + tile->image * sum->x_image + tile->row * sum->x_row;
}

static void run_pixels(const struct conv_form *form, const struct cpu_call *call,
                       const struct conv_sum *sum, uint32_t unit) {
    struct conv_tile tile = tile_of(sum, unit);
    const float *input = input_of(sum, &tile, call->bindings[0]);
    if (input != NULL)
        tile.slab_stride = sum->x_plane;
    float *slab = call->scratch, *sums = slab + sum->slab_floats;
    float *panel =
        sum->shares_weights
            ? (float *)call->shared + tile.out / sum->out_block * sum->k_blocks * sum->panel_floats
            : sums + sum->sums_floats;
    for (uint32_t k0 = 0; k0 < sum->k_count; k0 += sum->k_block) {
        const uint32_t k1 = MIN(k0 + sum->k_block, sum->k_count);
        if (input == NULL) {
            form->pack(call, &tile, k0, k1, slab);
            memset(slab + (k1 - k0) * tile.slab_stride, 0, CPU_LANES * sizeof(float));
        }
        if (!sum->shares_weights)
            pack_weights(sum, &(struct weight_block){k0, k1, tile.out, tile.n_out},
                         call->bindings[1], panel);
        add_block(sum, &tile, k1 - k0, input == NULL ? slab : input + k0 * sum->x_plane, panel,
                  sums, k0 == 0);
        if (sum->shares_weights)
            panel += sum->panel_floats;
    }
    form->finish(call, &tile, sums);
}

/* Phase 0: a block of the shared weights, k fastest. */
static void run_weights(const struct cpu_call *call, const struct conv_sum *sum, uint32_t unit) {
    const uint32_t k0 = unit % sum->k_blocks * sum->k_block;
    const uint32_t out = unit / sum->k_blocks * sum->out_block;
    pack_weights(sum,
                 &(struct weight_block){k0, MIN(k0 + sum->k_block, sum->k_count), out,
                                        MIN(sum->out_block, sum->out_count - out)},
                 call->bindings[1], (float *)call->shared + unit * sum->panel_floats);
}

void CPU_FN(conv_sum_run)(const struct conv_form *form, const struct cpu_call *call, uint32_t phase,
                          uint32_t unit) {
    const struct conv_sum sum = sum_of(form, call->params);
    if (phase == 1)
        run_pixels(form, call, &sum, unit);
    else if (sum.shares_weights)
        run_weights(call, &sum, unit);
}

CPU_INLINE void epilogue_row(const uint32_t bits, float slope, const float *sums, float bias,
                             const float *mask, float *dst, uint32_t n) {
    const simd_vec biases = simd_set(bias), slopes = simd_set(slope), ones = simd_set(1);
    for (uint32_t i = 0; i < n; i += CPU_LANES) {
        const bool is_whole = n - i >= CPU_LANES;
        simd_vec v = simd_load(sums + i);
        if (bits & EPILOGUE_BIAS)
            v += biases;
        if (bits & EPILOGUE_ACT)
            v = simd_select(v > simd_zero(), v, slopes * v);
        if (bits & EPILOGUE_MASK) {
            simd_vec m = is_whole ? simd_load(mask + i) : simd_load_part(mask + i, 0, (int)(n - i));
            v *= simd_select(m > simd_zero(), ones, slopes);
        }
        if (is_whole)
            simd_store(dst + i, v);
        else
            simd_store_part(dst + i, v, (int)(n - i));
    }
}

void CPU_FN(conv_epilogue_row)(struct conv_epilogue epilogue, const float *sums, float bias,
                               const float *mask, float *dst, uint32_t n) {
    switch (epilogue.bits) {
    case 0:
        epilogue_row(0, 0, sums, 0, NULL, dst, n);
        break;
    case EPILOGUE_BIAS:
        epilogue_row(EPILOGUE_BIAS, 0, sums, bias, NULL, dst, n);
        break;
    case EPILOGUE_BIAS | EPILOGUE_ACT:
        epilogue_row(EPILOGUE_BIAS | EPILOGUE_ACT, epilogue.slope, sums, bias, NULL, dst, n);
        break;
    case EPILOGUE_MASK:
        epilogue_row(EPILOGUE_MASK, epilogue.slope, sums, 0, mask, dst, n);
        break;
    default:
        epilogue_row(epilogue.bits, epilogue.slope, sums, bias, mask, dst, n);
    }
}
