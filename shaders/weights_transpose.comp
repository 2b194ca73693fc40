#version 450
/*
 * weights_transpose.comp: swaps input and output channels of a weight tensor, optionally reversing
 * the taps. An invocation writes one vec4 of dst, padding as zero.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WEIGHTS_TRANSPOSE_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, src)
TENSOR(1, writeonly, vec4, dst)

void main() {
    uint src_pitch = div_up(p.out_count, 4u) * 4u;
    uint in_vecs = div_up(p.in_count, 4u);
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS; item++, at += gl_WorkGroupSize.x) {
        uint row = at / in_vecs;
        uint a = (at - row * in_vecs) * 4u;
        uint b = row / p.taps;
        if (b >= p.out_count)
            return;
        uint tap = row - b * p.taps;
        uint from = p.flip != 0u ? p.taps - 1u - tap : tap;
        vec4 value = vec4(0.0);
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            if (a + j < p.in_count)
                value[j] = AT(src, ((a + j) * p.taps + from) * src_pitch + b);
        }
        AT(dst, at) = value;
    }
}
