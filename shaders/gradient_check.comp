#version 450
/*
 * gradient_check.comp: a workgroup looks through one of GRADIENT_FLAGS shares of a gradient for
 * numbers that are not finite. By their bits, since drivers may compute as if there were none.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS GRADIENT_CHECK_PARAMS
#include "access.glsl"

TENSOR(0, readonly, uint, g)
TENSOR(1, writeonly, float, flags)

#define EXPONENT 0x7f800000u /* all of it is set */

shared uint found;

void main() {
    uint flag = flat_group();
    uint lane = gl_LocalInvocationID.x;
    if (flag >= GRADIENT_FLAGS)
        return;
    uint share = div_up(p.count, GRADIENT_FLAGS);
    uint end = min((flag + 1u) * share, p.count);
    if (lane == 0u)
        found = 0u;
    barrier();
    uint bad = 0u;
    for (uint at = flag * share + lane; at < end; at += gl_WorkGroupSize.x)
        bad |= (AT(g, at) & EXPONENT) == EXPONENT ? 1u : 0u;
    if (bad != 0u)
        atomicOr(found, 1u);
    barrier();
    if (lane == 0u)
        AT(flags, flag) = float(found);
}
