#version 450
/*
 * maxpool_index.comp: max-pooling of 2 x 2 windows that also keeps where each maximum was. A
 * workgroup takes POOL_INDEX_WINDOWS windows of a plane, an invocation the 16 whose places fill one
 * word; neighbouring invocations hold neighbouring windows. Scan order as in maxpool_fwd.comp.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS MAXPOOL_INDEX_PARAMS
#include "access.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, writeonly, float, y)
TENSOR(2, writeonly, uint, index)

void main() {
    uint windows = p.h_out * p.w_out;
    uint blocks = div_up(windows, POOL_INDEX_WINDOWS);
    uint group = flat_group();
    uint plane = group / blocks;
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint base = image * p.x_stride_n + channel * p.h_in * p.w_in;
    uint out_base = image * p.y_stride_n + channel * windows;
    uint at = (group - plane * blocks) * POOL_INDEX_WINDOWS + gl_LocalInvocationID.x;
    uint word = 0u;
    for (uint shift = 0u; shift < 32u && at < windows; shift += 2u, at += POOL_INDEX_LANES) {
        uint row = at / p.w_out;
        uint from = base + row * 2u * p.w_in + (at - row * p.w_out) * 2u;
        float best = AT(x, from);
        uint best_tap = 0u;
        [[unroll]] for (uint tap = 1u; tap < 4u; tap++) {
            float value = AT(x, from + (tap >> 1) * p.w_in + (tap & 1u));
            best_tap = value > best ? tap : best_tap;
            best = value > best ? value : best;
        }
        AT(y, out_base + at) = best;
        word |= best_tap << shift;
    }
    AT(index, group * POOL_INDEX_LANES + gl_LocalInvocationID.x) = word;
}
