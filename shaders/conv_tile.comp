#version 450
/*
 * conv_tile.comp: conv_fwd, conv_dgrad, upconv_fwd and upconv_dgrad (ROLE, conv_roles.glsl) for
 * GPUs: implicit matrix product through shared memory. Rows are pixels, columns output channels,
 * the depth runs over source channel, ky, kx in that order, so every sum is added up in the order
 * of the contract whatever the tile.
 *
 * A workgroup computes OUT_LANES * OUT_VECS * 4 columns of PIXEL_LANES * PIXEL_VECS * 4 pixels; an
 * invocation holds OUT_VECS * 4 columns of PIXEL_VECS * 4 pixels in registers. Of the invocations
 * every 32 neighbours are 8 along pixels and 4 along columns: that way they read fewest words of
 * shared memory. So PIXEL_LANES is a multiple of 8, OUT_LANES of 4.
 *
 * Each step multiplies STEP_ROWS rows (source channel, ky), all kx of each, with the weights that
 * they meet, while the values of the next step are on their way from memory to registers. Every
 * invocation stages one pixel: STAGERS of them share the rows of a pixel, so the workgroup's size
 * is STAGERS times the tile's pixels, OUT_LANES = 4 * PIXEL_VECS * STAGERS, and STEP_ROWS is a
 * multiple of STAGERS. Where each share is of whole channels, a tap is a constant of the unrolled
 * code and its place in the source the same for all lanes: next to no arithmetic is left.
 *
 * The four pixels of a vec4 are a quarter of the tile apart, so that neighbouring invocations store
 * neighbouring pixels; they stage those that lie next to each other in shared memory.
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
layout(constant_id = 12) const uint UNROLL = 1; /* depth of unrolled code; divides a step's */

const uint PIXEL_LANES = gl_WorkGroupSize.x / OUT_LANES;
const uint QUARTER = PIXEL_LANES * PIXEL_VECS; /* of the tile's pixels */
const uint TILE_PIXELS = QUARTER * 4;
const uint TILE_VECS = OUT_LANES * OUT_VECS;
const uint STAGERS = gl_WorkGroupSize.x / TILE_PIXELS;
const uint SHARE = STEP_ROWS / STAGERS; /* rows of a pixel that an invocation stages */
const bool WHOLE = SHARE % KH == 0;     /* whole channels */
const uint DEPTH = STEP_ROWS * KW;
const uint W_COUNT = DEPTH * TILE_VECS;
const uint W_SHARE = (W_COUNT + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;

shared vec4 w_tile[W_COUNT];
shared vec4 src_tile[DEPTH * QUARTER];

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
    uint block = lane / 32u;
    uint pixel_lane = block % (PIXEL_LANES / 8u) * 8u + lane % 8u;
    uint out_lane = block / (PIXEL_LANES / 8u) * 4u + lane / 8u % 4u;

    /* The pixel this invocation stages, and the source position of its first tap. */
    uint stage_slot = lane % TILE_PIXELS;
    uint stage_row = lane / TILE_PIXELS * SHARE;
    uint pixel = min(first_pixel + stage_slot % 4u * QUARTER + stage_slot / 4u, pixels - 1u);
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

    float staged[SHARE * KW];
    vec4 staged_w[W_SHARE];
    for (uint row = 0u;; row += STEP_ROWS) {
        if (row < rows) {
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
                    uint at =
                        src_pixel + (channel * src_plane + ky * DILATION * SRC_W + kx * DILATION);
                    float value = AT(src, src_image + (inside ? at : 0u));
                    staged[i * KW + kx] = inside ? value : 0.0;
                }
            }
            [[unroll]] for (uint i = 0u; i < W_SHARE; i++) {
                uint e = min(lane + i * gl_WorkGroupSize.x, W_COUNT - 1u);
                uint col = min(first_column + e % TILE_VECS, columns - 1u);
                uint from = row * KW + e / TILE_VECS;
                bool exists = EXACT != 0u || from < rows * KW;
                vec4 weight = AT(w, (exists ? from : 0u) * columns + col);
                staged_w[i] = exists ? weight : vec4(0.0);
            }
        }
        if (row > 0u) { /* the step before */
            for (uint first = 0u; first < DEPTH; first += UNROLL) {
                [[unroll]] for (uint u = 0u; u < UNROLL; u++) {
                    uint d = first + u;
                    vec4 weight[OUT_VECS];
                    [[unroll]] for (uint a = 0u; a < OUT_VECS; a++)
                        weight[a] = w_tile[d * TILE_VECS + a * OUT_LANES + out_lane];
                    [[unroll]] for (uint b = 0u; b < PIXEL_VECS; b++) {
                        vec4 value = src_tile[d * QUARTER + b * PIXEL_LANES + pixel_lane];
                        [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
                            [[unroll]] for (uint j = 0u; j < 4u; j++) {
                                uint s = (a * PIXEL_VECS + b) * 4u + j;
                                sum[s] = fma(vec4(value[j]), weight[a], sum[s]);
                            }
                        }
                    }
                }
            }
        }
        if (row >= rows)
            break;
        if (row > 0u)
            barrier();
        [[unroll]] for (uint i = 0u; i < SHARE * KW; i++) {
            uint to = (stage_row * KW + i) * QUARTER + stage_slot / 4u;
            src_tile[to][stage_slot % 4u] = staged[i];
        }
        [[unroll]] for (uint i = 0u; i < W_SHARE; i++) {
            uint e = lane + i * gl_WorkGroupSize.x;
            if (e < W_COUNT)
                w_tile[e] = staged_w[i];
        }
        barrier();
    }

    [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
        place to = place_first((first_column + a * OUT_LANES + out_lane) * 4u);
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            float bias = place_bias(to);
            [[unroll]] for (uint b = 0u; b < PIXEL_VECS * 4u; b++) {
                uint at = first_pixel + b % 4u * QUARTER + b / 4u * PIXEL_LANES + pixel_lane;
                if (at < pixels && place_exists(to))
                    place_store(to, bias, image, place_at(to, at),
                                sum[a * PIXEL_VECS * 4u + b][j]);
            }
            place_advance(to);
        }
    }
}
