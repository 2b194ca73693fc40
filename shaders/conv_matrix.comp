#version 450
/*
 * conv_matrix.comp: conv_fwd and conv_dgrad (conv_roles.glsl) on the matrix units of a GPU
 * (VK_KHR_cooperative_matrix): implicit matrix product through shared memory, factors rounded to
 * half precision, sums in single. Rows are pixels, columns output channels, the depth runs over
 * CHANNELS source channels of a tap, then the other taps, then the next channels.
 *
 * A workgroup computes TILE_COLUMNS channels of TILE_PIXELS pixels; of these every subgroup
 * SUB_COLUMNS of SUB_PIXELS, as matrices of M_SIZE x N_SIZE with a depth of K_SIZE, sizes
 * that the device offers. The workgroup's size is the number of such parts times the size of a
 * subgroup, and a multiple of TILE_PIXELS / 2.
 *
 * Where src is a gradient, what is out of the range of half precision becomes infinite, else it is
 * clamped (half.glsl).
 *
 * Written for GL_NV_cooperative_matrix, which old compilers know; shaders/cooperative_matrix.py
 * makes the KHR instructions of it.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_NV_cooperative_matrix : require
#pragma use_vulkan_memory_model
#include "kernel_contract.h"
#include "conv_roles.glsl"
#include "half.glsl"

layout(constant_id = 4) const uint M_SIZE = 16;
layout(constant_id = 5) const uint N_SIZE = 16;
layout(constant_id = 6) const uint K_SIZE = 16;
layout(constant_id = 7) const uint TILE_PIXELS = 128;
layout(constant_id = 8) const uint TILE_COLUMNS = 64;
layout(constant_id = 9) const uint SUB_PIXELS = 32;
layout(constant_id = 10) const uint SUB_COLUMNS = 32;
layout(constant_id = 11) const uint CHANNELS = 16; /* of a step */
layout(constant_id = 12) const uint PADDED = 1;    /* 0: all taps are inside the source */
layout(constant_id = 13) const uint EXACT = 0;     /* 1: CHANNELS divides the source's */
layout(constant_id = 14) const uint GRADIENT = 0;  /* 1: src is a gradient */

#define MATRIX_A fcoopmatNV<16, gl_ScopeSubgroup, M_SIZE, K_SIZE>
#define MATRIX_B fcoopmatNV<16, gl_ScopeSubgroup, K_SIZE, N_SIZE>
#define MATRIX_C fcoopmatNV<32, gl_ScopeSubgroup, M_SIZE, N_SIZE>

const uint PARTS_DOWN = TILE_PIXELS / SUB_PIXELS;
const uint PARTS = PARTS_DOWN * (TILE_COLUMNS / SUB_COLUMNS);
const uint DOWN = SUB_PIXELS / M_SIZE; /* matrices of a subgroup */
const uint ACROSS = SUB_COLUMNS / N_SIZE;
#include "matrix_grid.glsl"

/* Rows of shared memory, in pairs of numbers; what is past the tile spreads them over its banks. */
const uint SRC_PITCH = TILE_PIXELS / 2 + 4;
const uint W_PITCH = TILE_COLUMNS / 2 + 4;

const uint PAIRS = TILE_PIXELS / 2;
const uint STAGERS = gl_WorkGroupSize.x / PAIRS;
const uint SHARE = CHANNELS / STAGERS; /* pairs that an invocation stages */
const uint TILE_VECS = TILE_COLUMNS / 4;
const uint W_COUNT = CHANNELS * TILE_VECS;
const uint W_SHARE = (W_COUNT + gl_WorkGroupSize.x - 1u) / gl_WorkGroupSize.x;

shared uint src_tile[CHANNELS * SRC_PITCH];
shared uint w_tile[CHANNELS * W_PITCH];
shared float sum_tile[PARTS * M_SIZE * N_SIZE];

/* Where a pixel's first tap lies, and which of it are inside. */
struct source {
    uint y, x;
};

source source_of(uint pixel) {
    uint y = pixel / PIXELS_W;
    return source(y * STEP - PAD_H, (pixel - y * PIXELS_W) * STEP - PAD_W); /* may wrap round */
}

bool source_inside(source from, uint tap_y, uint tap_x) {
    return PADDED == 0u || (from.y + tap_y < SRC_H && from.x + tap_x < SRC_W);
}

/* A matrix of sums, from shared memory. */
void store_sums(uint slot, uint image, uint first_pixel, uint first_column) {
    for (uint e = gl_SubgroupInvocationID; e < M_SIZE * N_SIZE; e += gl_SubgroupSize) {
        uint at = first_pixel + e % M_SIZE;
        place to = place_first(first_column + e / M_SIZE);
        if (at < PIXELS_H * PIXELS_W && place_exists(to))
            place_store(to, place_bias(to), image, place_at(to, at), sum_tile[slot + e]);
    }
}

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
    uint part = gl_SubgroupID;
    uint sub_pixel = part % PARTS_DOWN * SUB_PIXELS;
    uint sub_column = part / PARTS_DOWN * SUB_COLUMNS;

    uint pair = lane % PAIRS;
    uint stage_channel = lane / PAIRS;
    source one = source_of(min(first_pixel + pair * 2u, pixels - 1u));
    source two = source_of(min(first_pixel + pair * 2u + 1u, pixels - 1u));
    uint src_plane = SRC_H * SRC_W;
    uint src_image = image * SRC_STRIDE_N;

    MATRIX_CLEAR

    uint staged[SHARE];
    uvec2 staged_w[W_SHARE];
    uint first_channel = 0u, tap_y = 0u, tap_x = 0u;
    bool is_first = true;
    while (true) {
        bool more = first_channel < SRC_C;
        if (more) {
            bool one_inside = source_inside(one, tap_y * DILATION, tap_x * DILATION);
            bool two_inside = source_inside(two, tap_y * DILATION, tap_x * DILATION);
            uint one_at = (one.y + tap_y * DILATION) * SRC_W + one.x + tap_x * DILATION;
            uint two_at = (two.y + tap_y * DILATION) * SRC_W + two.x + tap_x * DILATION;
            [[unroll]] for (uint i = 0u; i < SHARE; i++) {
                uint channel = first_channel + stage_channel + i * STAGERS;
                bool exists = EXACT != 0u || channel < SRC_C;
                uint plane = src_image + (exists ? channel * src_plane : 0u);
                float a = AT(src, plane + (one_inside ? one_at : 0u));
                float b = AT(src, plane + (two_inside ? two_at : 0u));
                a = one_inside && exists ? a : 0.0;
                b = two_inside && exists ? b : 0.0;
                staged[i] = GRADIENT != 0u ? half_pair_gradient(a, b) : half_pair(a, b);
            }
            uint tap = tap_y * KERNEL_W + tap_x;
            [[unroll]] for (uint i = 0u; i < W_SHARE; i++) {
                uint e = min(lane + i * gl_WorkGroupSize.x, W_COUNT - 1u);
                uint col = min(first_column + e % TILE_VECS, columns - 1u);
                uint channel = first_channel + e / TILE_VECS;
                bool exists = EXACT != 0u || channel < SRC_C;
                uint from = (exists ? channel : 0u) * (KERNEL_H * KERNEL_W) + tap;
                vec4 weight = AT(w, from * columns + col);
                if (!exists)
                    weight = vec4(0.0);
                staged_w[i] = uvec2(half_pair(weight.x, weight.y), half_pair(weight.z, weight.w));
            }
            tap_x++;
            if (tap_x == KERNEL_W) {
                tap_x = 0u;
                tap_y++;
            }
            if (tap_y == KERNEL_H) {
                tap_y = 0u;
                first_channel += CHANNELS;
            }
        }
        if (!is_first) { /* the step before */
            [[unroll]] for (uint k = 0u; k < CHANNELS; k += K_SIZE) {
#define LOAD_A(to, r)                                                                              \
    coopMatLoadNV(to, src_tile, k * SRC_PITCH + (sub_pixel + r * M_SIZE) / 2u, SRC_PITCH, true)
#define LOAD_B(to, c)                                                                              \
    coopMatLoadNV(to, w_tile, k * W_PITCH + (sub_column + c * N_SIZE) / 2u, W_PITCH, false)
                MATRIX_MULTIPLY
            }
        }
        if (!more)
            break;
        if (!is_first)
            barrier();
        is_first = false;
        [[unroll]] for (uint i = 0u; i < SHARE; i++)
            src_tile[(stage_channel + i * STAGERS) * SRC_PITCH + pair] = staged[i];
        [[unroll]] for (uint i = 0u; i < W_SHARE; i++) {
            uint e = lane + i * gl_WorkGroupSize.x;
            uint to = e / TILE_VECS * W_PITCH + e % TILE_VECS * 2u;
            if (e < W_COUNT) {
                w_tile[to] = staged_w[i].x;
                w_tile[to + 1u] = staged_w[i].y;
            }
        }
        barrier();
    }

    uint slot = part * (M_SIZE * N_SIZE);
    first_pixel += sub_pixel;
    first_column = first_column * 4u + sub_column;
#define STORE(r, c)                                                                                \
    if (r < DOWN && c < ACROSS) {                                                                  \
        barrier();                                                                                 \
        coopMatStoreNV(sum_##r##_##c, sum_tile, slot, M_SIZE, true);                               \
        barrier();                                                                                 \
        store_sums(slot, image, first_pixel + r * M_SIZE, first_column + c * N_SIZE);              \
    }
    MATRIX_GRID(STORE)
}
