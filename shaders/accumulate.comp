#version 450
/*
 * accumulate.comp: gradients of several batches added up, or their mean; y may be g or sum.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS ACCUMULATE_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, g)
TENSOR(1, readonly, float, sum)
TENSOR(2, readonly, uint, control)
TENSOR(3, writeonly, float, y)

void main() {
    uint held = AT(control, CONTROL_ACCUMULATED);
    float batches = p.mean != 0u ? float(held + 1u) : 1.0;
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float before = held != 0u ? AT(sum, at) : 0.0;
        AT(y, at) = (before + AT(g, at)) / batches;
    }
}
