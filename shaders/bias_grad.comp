#version 450
/*
 * bias_grad.comp: one workgroup adds up one channel of dy. An invocation adds every
 * gl_WorkGroupSize.x-th pixel of each image in ascending order, in four running sums; the
 * invocations' sums are then added pairwise. The workgroup's size is a power of two.
 *
 * Shared memory: 4 bytes for each invocation.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS BIAS_GRAD_PARAMS
#include "access.glsl"
#include "lanes.glsl"

TENSOR(0, readonly, float, dy)
TENSOR(1, writeonly, float, db)

shared float lane_sum[gl_WorkGroupSize.x];

void main() {
    uint channel = flat_group();
    uint lane = gl_LocalInvocationID.x;
    if (channel >= p.c)
        return;
    uint pixels = p.h * p.w;
    uint jump = gl_WorkGroupSize.x;
    vec4 sum = vec4(0.0);
#ifdef HAS_LANES
    LANES_FROM(dy)
#endif
    for (uint image = 0u; image < p.n; image++) {
        uint base = image * p.dy_stride_n + channel * pixels;
        uint at = lane;
#ifdef HAS_LANES
        /* Tested at its end, behind a branch: once more with no lane left would read past the tensor. */
        uint rounds = pixels / (4u * jump);
        if (lanes_known() && rounds > 0u) {
            uint first = base + gl_SubgroupID * gl_SubgroupSize;
            do {
                sum += vec4(LANES(dy, first), LANES(dy, first + jump), LANES(dy, first + 2u * jump),
                            LANES(dy, first + 3u * jump));
                first += 4u * jump;
                at += 4u * jump;
            } while (--rounds > 0u);
        }
#endif
        for (; at + 3u * jump < pixels; at += 4u * jump)
            sum += vec4(AT(dy, base + at), AT(dy, base + at + jump), AT(dy, base + at + 2u * jump),
                        AT(dy, base + at + 3u * jump));
        for (; at < pixels; at += jump)
            sum.x += AT(dy, base + at);
    }
    lane_sum[lane] = (sum.x + sum.y) + (sum.z + sum.w);
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        if (lane < half_size)
            lane_sum[lane] += lane_sum[lane + half_size];
        barrier();
    }
    if (lane == 0u)
        AT(db, channel) = lane_sum[0];
}
