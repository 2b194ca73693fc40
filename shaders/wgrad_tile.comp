#version 450
/*
 * wgrad_tile.comp: conv_wgrad and upconv_wgrad (ROLE) for GPUs: a matrix product through shared
 * memory. Rows are (input channel, tap), columns output channels, the depth runs over the pixels of
 * one split. For upconv_wgrad the taps belong to the output's gradient, so rows are input channels
 * and columns (tap, output channel); both write the layout [in][tap][out4].
 *
 * A workgroup computes ROW_LANES * ROW_VECS * 4 rows and COL_LANES * COL_VECS * 4 columns, an
 * invocation ROW_VECS * 4 by COL_VECS * 4 of them; the workgroup's size is ROW_LANES * COL_LANES, a
 * multiple of DEPTH, so that an invocation stages values of one pixel in each step, and of the same
 * rows and columns in all steps: their places relative to the pixel are computed once. The values of
 * the next step are on their way from memory to registers while a step is multiplied. The
 * workgroup's size / DEPTH is a multiple of 4 and divides both sizes of the tile. Pixels are added
 * in ascending order.
 *
 * Shared memory: DEPTH * 4 * (rows + 4 + columns + 4) bytes; the pitch lets invocations write
 * values of neighbouring pixels to different banks.
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
layout(constant_id = 4) const uint ROW_VECS = 1;
layout(constant_id = 5) const uint COL_VECS = 1;
layout(constant_id = 6) const uint DEPTH = 16;
layout(constant_id = 7) const uint KH = 3;
layout(constant_id = 8) const uint KW = 3;
layout(constant_id = 9) const uint PADDED = 1;  /* 0: all taps are inside x */
layout(constant_id = 10) const uint UNROLL = 1; /* pixels of unrolled code; divides DEPTH */

const uint ROW_LANES = gl_WorkGroupSize.x / COL_LANES;
const uint TILE_ROWS = ROW_LANES * ROW_VECS * 4;
const uint TILE_COLS = COL_LANES * COL_VECS * 4;
const uint ROW_PITCH = TILE_ROWS / 4 + 1; /* vec4 */
const uint COL_PITCH = TILE_COLS / 4 + 1;
const uint STAGERS = gl_WorkGroupSize.x / DEPTH;
const uint OWN_ROWS = TILE_ROWS / STAGERS; /* that an invocation stages of its pixel */
const uint OWN_COLS = TILE_COLS / STAGERS;

shared vec4 x_tile[DEPTH * ROW_PITCH];
shared vec4 dy_tile[DEPTH * COL_PITCH];

#include "wgrad_places.glsl"

void main() {
    uint rows = ROWS, cols = COLS;
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
    uint stage_part = stage_from % 4u;
    uint x_to = stage_depth * ROW_PITCH + stage_from / 4u;
    uint dy_to = stage_depth * COL_PITCH + stage_from / 4u;

    /* Rows and columns past the end repeat the last one, and are not stored. */
    row_place own_rows[OWN_ROWS];
    uint own_cols[OWN_COLS];
    [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++)
        own_rows[i] = place_row(min(first_row + stage_from + i * STAGERS, rows - 1u));
    [[unroll]] for (uint i = 0u; i < OWN_COLS; i++)
        own_cols[i] = place_col(min(first_col + stage_from + i * STAGERS, cols - 1u));

    uint map_rows = p.n * PIXELS_H;
    uint pixel = split * map_rows / p.splits * PIXELS_W;
    uint end = (split + 1u) * map_rows / p.splits * PIXELS_W;

    /* The pixel that this invocation stages, and how far the next one is: less than a row, a map. */
    uint map_row = (pixel + stage_depth) / PIXELS_W;
    uint own_x = pixel + stage_depth - map_row * PIXELS_W;
    uint image = map_row / PIXELS_H;
    uint own_y = map_row - image * PIXELS_H;
    uint step_rows = DEPTH / PIXELS_W;
    uint step_x = DEPTH - step_rows * PIXELS_W;
    uint step_images = step_rows / PIXELS_H;
    uint step_y = step_rows - step_images * PIXELS_H;

    vec4 sum[ROW_VECS * 4 * COL_VECS];
    [[unroll]] for (uint a = 0u; a < ROW_VECS * 4 * COL_VECS; a++)
        sum[a] = vec4(0.0);

    float staged_x[OWN_ROWS];
    float staged_dy[OWN_COLS];
    bool is_first = true;
    while (true) {
        if (pixel < end) {
            bool valid = pixel + stage_depth < end; /* else staged as zero, read from pixel 0 */
            uint at_y = (valid ? own_y : 0u) - X_PAD_H; /* may wrap round */
            uint at_x = (valid ? own_x : 0u) - X_PAD_W;
            uint x_first = (valid ? image * p.x_stride_n : 0u) + at_y * p.w_in + at_x;
            uint dy_first =
                valid ? image * p.dy_stride_n + own_y * DY_STEP_H * DY_W + own_x * DY_STEP_W : 0u;
            [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++) {
                bool inside = PADDED == 0u || (at_y + own_rows[i].tap_y < p.h_in &&
                                               at_x + own_rows[i].tap_x < p.w_in);
                float value = AT(x, inside ? x_first + own_rows[i].offset : 0u);
                staged_x[i] = inside ? value : 0.0;
            }
            [[unroll]] for (uint i = 0u; i < OWN_COLS; i++) {
                float value = AT(dy, dy_first + own_cols[i]);
                staged_dy[i] = valid ? value : 0.0;
            }
            own_x += step_x;
            own_y += step_y;
            image += step_images;
            if (own_x >= PIXELS_W) {
                own_x -= PIXELS_W;
                own_y++;
            }
            if (own_y >= PIXELS_H) {
                own_y -= PIXELS_H;
                image++;
            }
        }
        if (!is_first) { /* the step before */
            for (uint first = 0u; first < DEPTH; first += UNROLL) {
                [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
                    uint d = first + u;
                    vec4 value[COL_VECS];
                    [[unroll]] for (uint b = 0u; b < COL_VECS; b++)
                        value[b] = dy_tile[d * COL_PITCH + b * COL_LANES + col_lane];
                    [[unroll]] for (uint a = 0u; a < ROW_VECS; a++) {
                        vec4 factor = x_tile[d * ROW_PITCH + a * ROW_LANES + row_lane];
                        [[unroll]] for (uint j = 0u; j < 4u; j++) {
                            [[unroll]] for (uint b = 0u; b < COL_VECS; b++) {
                                uint s = (a * 4u + j) * COL_VECS + b;
                                sum[s] = fma(vec4(factor[j]), value[b], sum[s]);
                            }
                        }
                    }
                }
            }
        }
        if (pixel >= end)
            break;
        if (!is_first)
            barrier();
        is_first = false;
        pixel += DEPTH;
        [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++)
            x_tile[x_to + i * (STAGERS / 4)][stage_part] = staged_x[i];
        [[unroll]] for (uint i = 0u; i < OWN_COLS; i++)
            dy_tile[dy_to + i * (STAGERS / 4)][stage_part] = staged_dy[i];
        barrier();
    }

    [[unroll]] for (uint b = 0u; b < COL_VECS; b++) {
        uint col = first_col + (b * COL_LANES + col_lane) * 4u;
#if ROLE == ROLE_CONV
        uint channel = col;
#else
        uint channel = col % out_pitch;
#endif
        bvec4 exists = lessThan(channel + uvec4(0u, 1u, 2u, 3u), uvec4(p.c_out));
        [[unroll]] for (uint a = 0u; a < ROW_VECS * 4u; a++) {
            uint row = first_row + (a / 4u * ROW_LANES + row_lane) * 4u + a % 4u;
            if (row < rows && col < cols)
                AT(partial, ((split * rows + row) * cols + col) / 4u) =
                    mix(vec4(0.0), sum[a * COL_VECS + b], exists);
        }
    }
}
