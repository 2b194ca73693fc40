#version 450
/*
 * wgrad_reduce.comp: adds the partial weight gradients of all splits, in ascending order.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WGRAD_REDUCE_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, partial)
TENSOR(1, writeonly, float, dw)

void main() {
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float sum = AT(partial, at);
        for (uint s = 1u; s < p.splits; s++)
            sum += AT(partial, s * p.count + at);
        AT(dw, at) = sum;
    }
}
