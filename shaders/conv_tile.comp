#version 450
/*
 * conv_tile.comp: conv_fwd, conv_dgrad, upconv_fwd and upconv_dgrad (ROLE, conv_roles.glsl) for
 * GPUs: implicit matrix product through shared memory. Rows are pixels, columns output channels,
 * the depth runs over source channel, ky, kx in that order, so every sum is added up in the order
 * of the contract whatever the tile.
 *
 * A workgroup computes OUT_LANES * OUT_VECS * 4 columns of PIXEL_LANES * PIXEL_VECS * 4 pixels; an
 * invocation holds OUT_VECS * 4 columns of PIXEL_VECS * 4 pixels in registers. Each step stages
 * STEP_ROWS rows (source channel, ky), all kx of each, and the weights that they meet. Every
 * invocation stages one pixel: STAGERS of them share the rows of a pixel, so the workgroup's size
 * is STAGERS times the tile's pixels, OUT_LANES = 4 * PIXEL_VECS * STAGERS, and STEP_ROWS is a
 * multiple of STAGERS. Where each share is of whole channels, a tap is a constant of the unrolled
 * code and its place in the source the same for all lanes: next to no arithmetic is left.
 *
 * Shared memory: STEP_ROWS * KW * 4 * (columns + pixels) bytes.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#include "conv_roles.glsl"

layout(constant_id = 4) const uint OUT_LANES = 8;
layout(constant_id = 5) const uint OUT_VECS = 2;
layout(constant_id = 6) const uint PIXEL_VECS = 2;
layout(constant_id = 7) const uint STEP_ROWS = 3;
layout(constant_id = 8) const uint KH = 3; /* kernel size: division by constants */
layout(constant_id = 9) const uint KW = 3;
layout(constant_id = 10) const uint PADDED = 1; /* 0: all taps are inside the source */
layout(constant_id = 11) const uint EXACT = 0;  /* 1: STEP_ROWS divides the number of rows */

const uint PIXEL_LANES = gl_WorkGroupSize.x / OUT_LANES;
const uint TILE_PIXELS = PIXEL_LANES * PIXEL_VECS * 4;
const uint TILE_VECS = OUT_LANES * OUT_VECS;
const uint STAGERS = gl_WorkGroupSize.x / TILE_PIXELS;
const uint SHARE = STEP_ROWS / STAGERS; /* rows of a pixel that an invocation stages */
const bool WHOLE = SHARE % KH == 0;     /* whole channels */
const uint DEPTH = STEP_ROWS * KW;

shared vec4 w_tile[DEPTH * TILE_VECS];
shared vec4 src_tile[DEPTH * (TILE_PIXELS / 4)];

void main() {
    uint columns = COLUMNS;
    uint pixels = PIXELS_H * PIXELS_W;
    uint column_blocks = div_up(columns, TILE_VECS);
    uint pixel_blocks = div_up(pixels, TILE_PIXELS);
    uint group = flat_group();
    uint image = group / (column_blocks * pixel_blocks);
    if (image >= p.n)
        return;
    group -= image * column_blocks * pixel_blocks;
    uint pixel_block = group / column_blocks;
    uint first_column = (group - pixel_block * column_blocks) * TILE_VECS;
    uint first_pixel = pixel_block * TILE_PIXELS;

    uint lane = gl_LocalInvocationID.x;
    uint out_lane = lane / PIXEL_LANES;
    uint pixel_lane = lane - out_lane * PIXEL_LANES;

    /* The pixel this invocation stages, and the source position of its first tap. */
    uint stage_pixel = lane % TILE_PIXELS;
    uint stage_row = lane / TILE_PIXELS * SHARE;
    uint pixel = min(first_pixel + stage_pixel, pixels - 1u);
    uint pixel_y = pixel / PIXELS_W;
    uint src_y = pixel_y * STEP - PAD_H; /* negative positions wrap round */
    uint src_x = (pixel - pixel_y * PIXELS_W) * STEP - PAD_W;
    uint src_plane = SRC_H * SRC_W;
    uint src_image = image * SRC_STRIDE_N;
    uint src_pixel = src_y * SRC_W + src_x + (WHOLE ? stage_row / KH * src_plane : 0u);
    uint rows = SRC_C * KH;

    vec4 sum[OUT_VECS * PIXEL_VECS * 4];
    [[unroll]] for (uint a = 0u; a < OUT_VECS * PIXEL_VECS * 4; a++)
        sum[a] = vec4(0.0);

    for (uint row = 0u; row < rows; row += STEP_ROWS) {
        [[unroll]] for (uint i = 0u; i < SHARE; i++) {
            uint own = WHOLE ? row + i : row + stage_row + i;
            uint channel = own / KH;
            uint ky = WHOLE ? i % KH : own - channel * KH;
            uint y = src_y + ky * DILATION;
            bool row_exists = EXACT != 0u || row + stage_row + i < rows;
            bool y_inside = row_exists && (PADDED == 0u || y < SRC_H);
            [[unroll]] for (uint kx = 0u; kx < KW; kx++) {
                uint x = src_x + kx * DILATION;
                bool inside = y_inside && (PADDED == 0u || x < SRC_W);
                uint at = src_pixel + (channel * src_plane + ky * DILATION * SRC_W + kx * DILATION);
                float value = AT(src, src_image + (inside ? at : 0u));
                uint to = (stage_row + i) * KW + kx;
                src_tile[to * (TILE_PIXELS / 4) + stage_pixel / 4][stage_pixel % 4] =
                    inside ? value : 0.0;
            }
        }
        [[unroll]] for (uint e = lane; e < DEPTH * TILE_VECS; e += gl_WorkGroupSize.x) {
            uint d = e / TILE_VECS;
            uint col = min(first_column + e % TILE_VECS, columns - 1u);
            uint from = row * KW + d;
            if (EXACT == 0u)
                from = min(from, rows * KW - 1u);
            w_tile[e] = AT(w, from * columns + col);
        }
        barrier();
        uint steps = EXACT != 0u ? DEPTH : min(DEPTH, (rows - row) * KW);
        for (uint d = 0u; d < steps; d++) {
            vec4 weight[OUT_VECS];
            [[unroll]] for (uint a = 0u; a < OUT_VECS; a++)
                weight[a] = w_tile[d * TILE_VECS + a * OUT_LANES + out_lane];
            [[unroll]] for (uint b = 0u; b < PIXEL_VECS; b++) {
                vec4 value = src_tile[d * (TILE_PIXELS / 4) + b * PIXEL_LANES + pixel_lane];
                [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
                    [[unroll]] for (uint j = 0u; j < 4u; j++) {
                        uint s = (a * PIXEL_VECS + b) * 4u + j;
                        sum[s] = fma(vec4(value[j]), weight[a], sum[s]);
                    }
                }
            }
        }
        barrier();
    }

    [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
        place to = place_first((first_column + a * OUT_LANES + out_lane) * 4u);
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            float bias = place_bias(to);
            [[unroll]] for (uint b = 0u; b < PIXEL_VECS * 4u; b++) {
                uint at = first_pixel + (b / 4u * PIXEL_LANES + pixel_lane) * 4u + b % 4u;
                uint y = at / PIXELS_W;
                if (at < pixels && place_exists(to))
                    place_store(to, bias, image, y, at - y * PIXELS_W,
                                sum[a * PIXEL_VECS * 4u + b][j]);
            }
            place_advance(to);
        }
    }
}
