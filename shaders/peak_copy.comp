#version 450
/*
 * peak_copy.comp: nothing but a copy: the bandwidth that bench --peak measures. An invocation copies
 * ITEMS vec4, those of a workgroup side by side, from vec4 number `first` on. No kernel of a plan;
 * runtime/gpu/peak.c embeds it.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS(U, F) U(first)
#include "access.glsl"

layout(constant_id = 3) const uint ITEMS = 4;

TENSOR(0, readonly, vec4, from)
TENSOR(1, writeonly, vec4, to)

void main() {
    uint at = p.first + gl_WorkGroupID.x * gl_WorkGroupSize.x * ITEMS + gl_LocalInvocationID.x;
    for (uint item = 0u; item < ITEMS; item++, at += gl_WorkGroupSize.x)
        AT(to, at) = AT(from, at);
}
