#version 450
/*
 * conv_tile.comp: conv_fwd, conv_dgrad, upconv_fwd and upconv_dgrad (ROLE, conv_roles.glsl) for
 * GPUs: implicit matrix product through shared memory. Rows are pixels, columns output channels,
 * the depth runs over source channel, ky, kx in that order, so every sum is added up in the order
 * of the contract whatever the tile.
 *
 * A workgroup computes OUT_LANES * OUT_VECS * 4 columns of LANES / OUT_LANES * PIXELS pixels; an
 * invocation holds OUT_VECS * 4 columns of PIXELS pixels in registers. Each step stages DEPTH rows
 * of the weights and the source values they meet. OUT_LANES must be a multiple of PIXELS, so that
 * an invocation stages values of one pixel only.
 *
 * Shared memory: DEPTH * 4 * (columns + pixels) bytes.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#include "conv_roles.glsl"

layout(constant_id = 4) const uint OUT_LANES = 8;
layout(constant_id = 5) const uint OUT_VECS = 2;
layout(constant_id = 6) const uint PIXELS = 4;
layout(constant_id = 7) const uint DEPTH = 8;
layout(constant_id = 8) const uint KH = 3; /* kernel size: division by constants */
layout(constant_id = 9) const uint KW = 3;

const uint PIXEL_LANES = gl_WorkGroupSize.x / OUT_LANES;
const uint TILE_PIXELS = PIXEL_LANES * PIXELS;
const uint TILE_VECS = OUT_LANES * OUT_VECS;

shared vec4 w_tile[DEPTH * TILE_VECS];
shared float src_tile[DEPTH * TILE_PIXELS];

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
    uint stage_depth = lane / TILE_PIXELS;
    uint pixel = min(first_pixel + stage_pixel, pixels - 1u);
    uint pixel_y = pixel / PIXELS_W;
    uint src_y = pixel_y * STEP - PAD_H;
    uint src_x = (pixel - pixel_y * PIXELS_W) * STEP - PAD_W;
    uint src_plane = SRC_H * SRC_W;
    uint depth_total = SRC_C * KH * KW;

    vec4 sum[OUT_VECS * PIXELS];
    [[unroll]] for (uint a = 0u; a < OUT_VECS * PIXELS; a++)
        sum[a] = vec4(0.0);

    for (uint depth = 0u; depth < depth_total; depth += DEPTH) {
        [[unroll]] for (uint d = stage_depth; d < DEPTH; d += gl_WorkGroupSize.x / TILE_PIXELS) {
            uint k = depth + d;
            uint channel = k / (KH * KW);
            uint tap = k - channel * (KH * KW);
            uint ky = tap / KW;
            uint y = src_y + ky * DILATION;
            uint x = src_x + (tap - ky * KW) * DILATION;
            float value = 0.0;
            if (k < depth_total && y < SRC_H && x < SRC_W) /* negative positions wrap round */
                value = AT(src, image * SRC_STRIDE_N + channel * src_plane + y * SRC_W + x);
            src_tile[d * TILE_PIXELS + stage_pixel] = value;
        }
        for (uint e = lane; e < DEPTH * TILE_VECS; e += gl_WorkGroupSize.x) {
            uint d = e / TILE_VECS;
            uint col = first_column + e - d * TILE_VECS;
            vec4 value = vec4(0.0);
            if (depth + d < depth_total && col < columns)
                value = AT(w, (depth + d) * columns + col);
            w_tile[e] = value;
        }
        barrier();
        uint steps = min(DEPTH, depth_total - depth);
        for (uint d = 0u; d < steps; d++) {
            float value[PIXELS];
            [[unroll]] for (uint b = 0u; b < PIXELS; b++)
                value[b] = src_tile[d * TILE_PIXELS + b * PIXEL_LANES + pixel_lane];
            [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
                vec4 weight = w_tile[d * TILE_VECS + a * OUT_LANES + out_lane];
                [[unroll]] for (uint b = 0u; b < PIXELS; b++)
                    sum[a * PIXELS + b] = fma(vec4(value[b]), weight, sum[a * PIXELS + b]);
            }
        }
        barrier();
    }

    [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
        place to = place_first((first_column + a * OUT_LANES + out_lane) * 4u);
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            float bias = place_bias(to);
            [[unroll]] for (uint b = 0u; b < PIXELS; b++) {
                uint at = first_pixel + b * PIXEL_LANES + pixel_lane;
                uint y = at / PIXELS_W;
                if (at < pixels && place_exists(to))
                    place_store(to, bias, image, y, at - y * PIXELS_W, sum[a * PIXELS + b][j]);
            }
            place_advance(to);
        }
    }
}
