#version 450
/*
 * loss_reduce.comp: one workgroup adds the partial sums of softmax_loss.comp, every
 * gl_WorkGroupSize.x-th in ascending order, then the invocations' sums pairwise. The workgroup's
 * size is a power of two.
 *
 * Shared memory: 16 bytes for each invocation.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS LOSS_REDUCE_PARAMS
#include "access.glsl"

TENSOR(0, readonly, vec4, partial)
TENSOR(1, writeonly, float, loss)

shared vec4 lane_sum[gl_WorkGroupSize.x];

void main() {
    uint lane = gl_LocalInvocationID.x;
    vec4 sum = vec4(0.0);
    for (uint at = lane; at < p.count; at += gl_WorkGroupSize.x)
        sum += AT(partial, at);
    lane_sum[lane] = sum;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        if (lane < half_size)
            lane_sum[lane] += lane_sum[lane + half_size];
        barrier();
    }
    if (lane == 0u) {
        sum = lane_sum[0];
        AT(loss, 0) = sum.y > 0.0 ? sum.x / sum.y : 0.0;
        [[unroll]] for (uint j = 0u; j < 4u; j++)
            AT(loss, 1u + j) = sum[j];
        for (uint j = 5u; j < LOSS_WORDS; j++)
            AT(loss, j) = 0.0;
    }
}
