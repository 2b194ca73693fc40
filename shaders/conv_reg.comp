#version 450
/*
 * conv_reg.comp: conv_fwd, conv_dgrad, upconv_fwd and upconv_dgrad (ROLE, conv_roles.glsl) for CPU
 * devices: everything in registers, no shared memory, no barrier.
 *
 * An invocation computes ROWS x COLS neighbouring pixels of OUT_VECS * 4 output channels. All
 * invocations of a workgroup read the same weights; their pixels follow each other along the rows
 * of the map, row group after row group, so that no lane idles on narrow maps. Built with the
 * kernel size KH, KW (dilation 1), all taps are unrolled and the source pixels of a channel are
 * loaded once for all taps; without, taps are a loop (any kernel, dilation and step). The two
 * access paths may have tiles of different size; the number of workgroups then is the larger one.
 *
 * Sums run over source channel, ky, kx in this order. Positions outside the source are clamped to
 * its edge and, with PADDED, replaced by zero: the same instructions for every pixel.
 *
 * Weights are loaded at addresses known to be shared where that is cheaper; up-convolutions then
 * have another form (upconv_channels.glsl). The bits are the same.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define SHARED_NUMBERS
#include "conv_roles.glsl"

layout(constant_id = 4) const bool PADDED = true; /* may read outside the source */

/* Source rows and columns under an invocation's pixels; a known kernel has a known step. */
#ifdef KH
#if ROLE == ROLE_UPCONV_DGRAD
#define UNROLLED_STEP KH
#else
#define UNROLLED_STEP 1
#endif
#define SPAN_H ((ROWS - 1) * UNROLLED_STEP + KH)
#define SPAN_W ((COLS - 1) * UNROLLED_STEP + KW)
#endif

#if ROLE == ROLE_UPCONV_FWD && !defined(ACCESS_ADDRESS)
#define HAS_CHANNELS /* another form */
#include "upconv_channels.glsl"
#endif

void conv_of_pixels() {
    uint columns = COLUMNS;
    uint column_blocks = div_up(columns, OUT_VECS);
    uint row_groups = div_up(PIXELS_H, ROWS);
    uint col_groups = div_up(PIXELS_W, COLS);
    uint lane_blocks = div_up(row_groups * col_groups, gl_WorkGroupSize.x);
    uint group = flat_group();
    uint lane_block = group / column_blocks;
    uint first_column = (group - lane_block * column_blocks) * OUT_VECS;
    uint image = lane_block / lane_blocks;
    uint lane = (lane_block - image * lane_blocks) * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    bool live = image < p.n && lane < row_groups * col_groups;
    /* Workgroups that are not needed go through the motions of one channel; none returns early,
       because a lane that has returned still executes (docs/shaders.md). */
    uint channels = image < p.n ? SRC_C : 1u;
    image = min(image, p.n - 1u);
    uint row_group = min(lane / col_groups, row_groups - 1u);
    uint y0 = row_group * ROWS;
    uint x0 = min((lane - row_group * col_groups) * COLS, PIXELS_W - 1u);

    vec4 sum[OUT_VECS * ROWS * COLS];
    [[unroll]] for (int a = 0; a < OUT_VECS * ROWS * COLS; a++)
        sum[a] = vec4(0.0);

    uint weight_column[OUT_VECS];
    uint shared_column = SHARED(first_column);
    [[unroll]] for (int a = 0; a < OUT_VECS; a++)
        weight_column[a] = min(shared_column + a, columns - 1u);

#ifdef KH
    uint row_at[SPAN_H], col_at[SPAN_W];
    bool row_in[SPAN_H], col_in[SPAN_W];
    [[unroll]] for (int r = 0; r < SPAN_H; r++) {
        int y = int(y0 * UNROLLED_STEP + r) - int(PAD_H);
        row_in[r] = y >= 0 && y < int(SRC_H);
        row_at[r] = uint(clamp(y, 0, int(SRC_H) - 1)) * SRC_W;
    }
    [[unroll]] for (int c = 0; c < SPAN_W; c++) {
        int x = int(x0 * UNROLLED_STEP + c) - int(PAD_W);
        col_in[c] = x >= 0 && x < int(SRC_W);
        col_at[c] = uint(clamp(x, 0, int(SRC_W) - 1));
    }
#endif

    uint plane_at = image * SRC_STRIDE_N;
    uint weight_row = 0u; /* taps of the source channels before */
    uint s = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
#ifdef KH
        float value[SPAN_H * SPAN_W];
        [[unroll]] for (int r = 0; r < SPAN_H; r++) {
            [[unroll]] for (int c = 0; c < SPAN_W; c++) {
                float loaded = AT(src, plane_at + row_at[r] + col_at[c]);
                if (PADDED)
                    loaded = row_in[r] && col_in[c] ? loaded : 0.0;
                value[r * SPAN_W + c] = loaded;
            }
        }
        uint weight_at = SHARED(weight_row) * columns;
        [[unroll]] for (int a = 0; a < OUT_VECS; a++) {
            [[unroll]] for (int ky = 0; ky < KH; ky++) {
                [[unroll]] for (int kx = 0; kx < KW; kx++) {
                    vec4 weight = AT(w, weight_at + (ky * KW + kx) * columns + weight_column[a]);
                    [[unroll]] for (int b = 0; b < ROWS * COLS; b++) {
                        int from = (b / COLS * UNROLLED_STEP + ky) * SPAN_W +
                                   b % COLS * UNROLLED_STEP + kx;
                        sum[a * ROWS * COLS + b] =
                            fma(vec4(value[from]), weight, sum[a * ROWS * COLS + b]);
                    }
                }
            }
        }
        weight_row += KH * KW;
#else
        uint ky = 0u, kx = 0u;
        while (true) {
            float value[ROWS * COLS];
            [[unroll]] for (int b = 0; b < ROWS * COLS; b++) {
                int y = int((y0 + b / COLS) * STEP + ky * DILATION) - int(PAD_H);
                int x = int((x0 + b % COLS) * STEP + kx * DILATION) - int(PAD_W);
                uint clamped_y = uint(clamp(y, 0, int(SRC_H) - 1));
                uint clamped_x = uint(clamp(x, 0, int(SRC_W) - 1));
                float loaded = AT(src, plane_at + clamped_y * SRC_W + clamped_x);
                bool inside = y >= 0 && y < int(SRC_H) && x >= 0 && x < int(SRC_W);
                value[b] = inside ? loaded : 0.0;
            }
            uint weight_at = SHARED(weight_row) * columns;
            [[unroll]] for (int a = 0; a < OUT_VECS; a++) {
                vec4 weight = AT(w, weight_at + weight_column[a]);
                [[unroll]] for (int b = 0; b < ROWS * COLS; b++) {
                    sum[a * ROWS * COLS + b] =
                        fma(vec4(value[b]), weight, sum[a * ROWS * COLS + b]);
                }
            }
            weight_row++;
            kx++;
            if (kx == KERNEL_W) {
                kx = 0u;
                ky++;
            }
            if (ky == KERNEL_H)
                break;
        }
#endif
        plane_at += SRC_H * SRC_W;
        s++;
        if (s == channels)
            break;
    }

    /* A loop over an array, not straight-line code: every load and store costs compile time. */
    float result[OUT_VECS * 4 * ROWS * COLS];
    [[unroll]] for (int a = 0; a < OUT_VECS * ROWS * COLS; a++) {
        [[unroll]] for (int j = 0; j < 4; j++)
            result[(a / (ROWS * COLS) * 4 + j) * ROWS * COLS + a % (ROWS * COLS)] = sum[a][j];
    }
    place to = place_first(first_column * 4u);
    uint a = 0u;
    while (true) {
        float bias = place_bias(to);
        bool stored = live && place_exists(to);
        uint b = 0u;
        while (true) {
            uint y = y0 + b / COLS, x = x0 + b % COLS;
            if (stored && y < PIXELS_H && x < PIXELS_W)
                place_store(to, bias, image, place_at(to, y, x), result[a * ROWS * COLS + b]);
            b++;
            if (b == ROWS * COLS)
                break;
        }
        place_advance(to);
        a++;
        if (a == OUT_VECS * 4)
            break;
    }
}

void main() {
#ifdef HAS_CHANNELS
    if (SHARED_LOADS)
        upconv_of_channels();
    else
        conv_of_pixels();
#else
    conv_of_pixels();
#endif
}
