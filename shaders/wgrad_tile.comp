#version 450
/*
 * wgrad_tile.comp: conv_wgrad and upconv_wgrad (ROLE) for GPUs: a matrix product through shared
 * memory. Rows are (input channel, tap), columns output channels, the depth runs over the pixels of
 * one split. For upconv_wgrad the taps belong to the output's gradient, so rows are input channels
 * and columns (tap, output channel); both write the layout [in][tap][out4].
 *
 * A workgroup computes ROW_LANES * 4 rows and COL_LANES * 4 columns, an invocation 4 x 4 of them;
 * the workgroup's size is ROW_LANES * COL_LANES, a multiple of DEPTH, so that an invocation stages
 * values of one pixel in each step. Pixels are added in ascending order.
 *
 * Shared memory: DEPTH * 4 * (rows + columns) bytes.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"

#define ROLE_CONV 0
#define ROLE_UPCONV 1

#if ROLE == ROLE_CONV
#define PARAMS CONV_WGRAD_PARAMS
#else
#define PARAMS UPCONV_WGRAD_PARAMS
#endif
#include "access.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, vec4, partial)

layout(constant_id = 3) const uint COL_LANES = 8;
layout(constant_id = 4) const uint DEPTH = 16;
layout(constant_id = 5) const uint KH = 3;
layout(constant_id = 6) const uint KW = 3;

const uint ROW_LANES = gl_WorkGroupSize.x / COL_LANES;
const uint TILE_ROWS = ROW_LANES * 4;
const uint TILE_COLS = COL_LANES * 4;

shared float x_tile[DEPTH * TILE_ROWS];
shared float dy_tile[DEPTH * TILE_COLS];

#if ROLE == ROLE_CONV
#define PIXELS_H p.h_out
#define PIXELS_W p.w_out
#else
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#endif

uint out_pitch = div_up(p.c_out, 4u) * 4u;

/* Value of row `row` at a pixel. */
float x_value(uint row, uint image, uint y, uint x_) {
#if ROLE == ROLE_CONV
    uint channel = row / (KH * KW);
    uint tap = row - channel * (KH * KW);
    uint ky = tap / KW;
    y += ky * p.dilation - p.pad_h; /* negative positions wrap round */
    x_ += (tap - ky * KW) * p.dilation - p.pad_w;
    if (y >= p.h_in || x_ >= p.w_in)
        return 0.0;
#else
    uint channel = row;
#endif
    return AT(x, image * p.x_stride_n + (channel * p.h_in + y) * p.w_in + x_);
}

/* Value of column `col` at a pixel. */
float dy_value(uint col, uint image, uint y, uint x_) {
#if ROLE == ROLE_CONV
    uint channel = col, height = p.h_out, width = p.w_out;
#else
    uint tap = col / out_pitch;
    uint channel = col - tap * out_pitch;
    uint height = p.h_in * KH, width = p.w_in * KW;
    y = y * KH + tap / KW;
    x_ = x_ * KW + tap % KW;
#endif
    if (channel >= p.c_out)
        return 0.0;
    return AT(dy, image * p.dy_stride_n + (channel * height + y) * width + x_);
}

void main() {
#if ROLE == ROLE_CONV
    uint rows = p.c_in * KH * KW, cols = out_pitch;
#else
    uint rows = p.c_in, cols = KH * KW * out_pitch;
#endif
    uint row_blocks = div_up(rows, TILE_ROWS), col_blocks = div_up(cols, TILE_COLS);
    uint group = flat_group();
    uint split = group / (row_blocks * col_blocks);
    if (split >= p.splits)
        return;
    group -= split * row_blocks * col_blocks;
    uint row_block = group / col_blocks;
    uint first_row = row_block * TILE_ROWS;
    uint first_col = (group - row_block * col_blocks) * TILE_COLS;

    uint lane = gl_LocalInvocationID.x;
    uint row_lane = lane / COL_LANES;
    uint col_lane = lane - row_lane * COL_LANES;
    uint stage_depth = lane % DEPTH;
    uint stage_from = lane / DEPTH;

    uint map_rows = p.n * PIXELS_H;
    uint pixel = split * map_rows / p.splits * PIXELS_W;
    uint end = (split + 1u) * map_rows / p.splits * PIXELS_W;

    vec4 sum[4];
    [[unroll]] for (uint a = 0u; a < 4u; a++)
        sum[a] = vec4(0.0);

    for (; pixel < end; pixel += DEPTH) {
        uint at = min(pixel + stage_depth, end - 1u);
        bool valid = pixel + stage_depth < end;
        uint map_row = at / PIXELS_W;
        uint at_x = at - map_row * PIXELS_W;
        uint image = map_row / PIXELS_H;
        uint at_y = map_row - image * PIXELS_H;
        for (uint r = stage_from; r < TILE_ROWS; r += gl_WorkGroupSize.x / DEPTH) {
            bool used = valid && first_row + r < rows;
            x_tile[stage_depth * TILE_ROWS + r] =
                used ? x_value(min(first_row + r, rows - 1u), image, at_y, at_x) : 0.0;
        }
        for (uint c = stage_from; c < TILE_COLS; c += gl_WorkGroupSize.x / DEPTH) {
            bool used = valid && first_col + c < cols;
            dy_tile[stage_depth * TILE_COLS + c] =
                used ? dy_value(min(first_col + c, cols - 1u), image, at_y, at_x) : 0.0;
        }
        barrier();
        for (uint d = 0u; d < DEPTH; d++) {
            vec4 value;
            [[unroll]] for (uint b = 0u; b < 4u; b++)
                value[b] = dy_tile[d * TILE_COLS + col_lane * 4u + b];
            [[unroll]] for (uint a = 0u; a < 4u; a++)
                sum[a] = fma(vec4(x_tile[d * TILE_ROWS + row_lane * 4u + a]), value, sum[a]);
        }
        barrier();
    }

    uint col = first_col + col_lane * 4u;
    [[unroll]] for (uint a = 0u; a < 4u; a++) {
        uint row = first_row + row_lane * 4u + a;
        if (row < rows && col < cols)
            AT(partial, ((split * rows + row) * cols + col) / 4u) = sum[a];
    }
}
