/*
 * conv_sum.h: the sum that conv_fwd, conv_dgrad, upconv_fwd and upconv_dgrad have in common, and
 * how it is cut into units and blocks.
 *
 *     sums[g][o][row][col] = sum over k, ky, kx of
 *         slab[k][row + ky * dilation][col + kx * dilation] * w[k][g][ky * kw + kx][o]
 *
 * The kernels differ in what they copy into the slab (zero padding; the pixels of a k x k block
 * taken apart) and in where the finished sums go (epilogue; put together again). Lanes run over a
 * slab's columns, rows one after the other without a gap, so that narrow maps fill vectors as well;
 * sums between the end of a row and the start of the next are computed and dropped.
 *
 * Every sum is one chain of multiply-adds in the order k, ky, kx, whatever the block or the lane it
 * falls into: a pixel's value does not depend on its position.
 *
 * A unit is a tile of output rows and columns of one image, for a block of outputs. It walks over
 * blocks of k: copy the slab, add to the sums.
 */
#ifndef UNET_CPU_CONV_SUM_H
#define UNET_CPU_CONV_SUM_H

#include <stdbool.h>

#include "runtime/cpu/kernel.h"
#include "runtime/cpu/simd.h"

struct conv_sum {
    uint32_t n, k_count, kh, kw, dilation;
    uint32_t groups, out_count, out4; /* out4: outputs in a row of weights, padding included */
    uint32_t rows, cols;
    /* The input as it lies, when it is just what the slab would hold (no padding): floats from row
       to row, from k to k and from image to image; x_row 0: it is not. */
    size_t x_row, x_plane, x_image;
    /* Blocks, chosen by conv_sum_block. */
    uint32_t tile_rows, tile_cols, tiles_down, tiles_across;
    uint32_t out_block, out_blocks, k_block, k_blocks;
    size_t slab_floats, sums_floats, panel_floats; /* panel: a block's weights */
    bool shares_weights;                           /* copied once, in phase 0 */
    bool reads_input;                              /* in place of slabs, where it can */
};

struct conv_tile {
    uint32_t image, row, col, n_rows, n_cols; /* of the output grid */
    uint32_t out, n_out;
    uint32_t in_rows, row_stride; /* of one k in the slab; row_stride also in the sums */
    size_t slab_stride;           /* floats from one k to the next */
    size_t sums_stride;           /* floats from one (g, o) to the next: o fastest */
};

struct conv_form {
    struct conv_sum (*describe)(const union kernel_params *params);
    /* Rows [row, row + in_rows) and row_stride columns from col of k0 <= k < k1 into the slab. */
    void (*pack)(const struct cpu_call *call, const struct conv_tile *tile, uint32_t k0,
                 uint32_t k1, float *slab);
    /* The finished sums of the tile to y. */
    void (*finish)(const struct cpu_call *call, const struct conv_tile *tile, const float *sums);
};

/* The functions of a struct cpu_kernel with CONV_SUM_PHASES phases. */
#define CONV_SUM_PHASES 2
uint32_t CPU_FN(conv_sum_units)(const struct conv_form *form, const union kernel_params *params,
                                uint32_t phase);
size_t CPU_FN(conv_sum_shared)(const struct conv_form *form, const union kernel_params *params);
size_t CPU_FN(conv_sum_scratch)(const struct conv_form *form, const union kernel_params *params);
void CPU_FN(conv_sum_run)(const struct conv_form *form, const struct cpu_call *call, uint32_t phase,
                          uint32_t unit);

/* The kernel cpu_<name>_<isa> of a form. */
#define CONV_SUM_KERNEL(name, form)                                                                \
    static uint32_t name##_units(const union kernel_params *params, uint32_t phase) {              \
        return CPU_FN(conv_sum_units)(&(form), params, phase);                                     \
    }                                                                                              \
    static size_t name##_shared(const union kernel_params *params) {                               \
        return CPU_FN(conv_sum_shared)(&(form), params);                                           \
    }                                                                                              \
    static size_t name##_scratch(const union kernel_params *params) {                              \
        return CPU_FN(conv_sum_scratch)(&(form), params);                                          \
    }                                                                                              \
    static void name##_run(const struct cpu_call *call, uint32_t phase, uint32_t unit) {           \
        CPU_FN(conv_sum_run)(&(form), call, phase, unit);                                          \
    }                                                                                              \
    const struct cpu_kernel CPU_FN(cpu_##name) = {.id = KERNEL_ID_##name,                          \
                                                  .n_phases = CONV_SUM_PHASES,                     \
                                                  .units = name##_units,                           \
                                                  .shared_bytes = name##_shared,                   \
                                                  .scratch_bytes = name##_scratch,                 \
                                                  .run = name##_run};

/*
 * The sum with one tap, of matrices: sums[o][p] (+)= sum over k of x[k][p] * w[k][o], for p <
 * pixels, o < outs, in the order of k. What lies after the last p up to a whole vector is read and
 * written too. The weights are in tiles: weights[o / CONV_SUM_OUT][k][o % CONV_SUM_OUT].
 */
#if CPU_LANES == 16
#define CONV_SUM_OUT 8
#else
#define CONV_SUM_OUT 4
#endif

struct conv_product {
    const float *x, *weights;
    float *sums;
    size_t x_stride, sums_stride; /* floats from one k, from one o to the next */
    uint32_t k_count, pixels;
    uint32_t outs; /* a multiple of CONV_SUM_OUT */
    bool is_first; /* start from zero, not from the sums so far */
};

void CPU_FN(conv_sum_product)(const struct conv_product *product);

/* What an epilogue needs, from the parameters of any of the four kernels. */
struct conv_epilogue {
    uint32_t bits;
    float slope;
};

/* n finished values of one output channel to dst; mask: the same place in the mask tensor. */
void CPU_FN(conv_epilogue_row)(struct conv_epilogue epilogue, const float *sums, float bias,
                               const float *mask, float *dst, uint32_t n);

#endif
