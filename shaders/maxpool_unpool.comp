#version 450
/*
 * maxpool_unpool.comp: the gradient of maxpool_index.comp. An invocation computes ITEMS windows,
 * each with all its pixels of dx; what is left over at the right and bottom edges becomes zero.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS MAXPOOL_UNPOOL_PARAMS
#include "access.glsl"
#include "plane.glsl"

TENSOR(0, readonly, uint, index)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, float, dx)

void main() {
    uint plane;
    uint grid_w = div_up(p.w_in, 2u);
    uint cells = grid_w * div_up(p.h_in, 2u);
    uint at = plane_pixel(cells, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint windows = p.h_out * p.w_out;
    uint index_base = plane * div_up(windows, POOL_INDEX_WINDOWS) * POOL_INDEX_LANES;
    uint dy_base = image * p.dy_stride_n + channel * windows;
    uint dx_base = image * p.dx_stride_n + channel * p.h_in * p.w_in;
    for (uint item = 0u; item < ITEMS && at < cells; item++, at += gl_WorkGroupSize.x) {
        uint row = at / grid_w;
        uint col = at - row * grid_w;
        float value = 0.0;
        uint best_tap = 0u;
        if (row < p.h_out && col < p.w_out) {
            uint i = row * p.w_out + col;
            uint block = i / POOL_INDEX_WINDOWS;
            uint word = AT(index, index_base + block * POOL_INDEX_LANES + i % POOL_INDEX_LANES);
            best_tap = word >> (i % POOL_INDEX_WINDOWS / POOL_INDEX_LANES * 2u) & 3u;
            value = AT(dy, dy_base + i);
        }
        uint corner = dx_base + row * 2u * p.w_in + col * 2u;
        [[unroll]] for (uint tap = 0u; tap < 4u; tap++) {
            if (row * 2u + (tap >> 1) < p.h_in && col * 2u + (tap & 1u) < p.w_in)
                AT(dx, corner + (tap >> 1) * p.w_in + (tap & 1u)) = best_tap == tap ? value : 0.0;
        }
    }
}
