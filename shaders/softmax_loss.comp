#version 450
/*
 * softmax_loss.comp: class probabilities, and for each workgroup the partial sums of the loss over
 * its LOSS_PIXELS_PER_GROUP pixels: (weighted cross-entropy, weights, correct pixels, counted
 * pixels). An invocation takes every gl_WorkGroupSize.x-th pixel in ascending order; the
 * invocations' sums are added pairwise. The workgroup's size is a power of two.
 *
 * Shared memory: 16 bytes for each invocation.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS SOFTMAX_LOSS_PARAMS
#include "access.glsl"

TENSOR(0, readonly, float, logits)
TENSOR(1, readonly, uint, labels)
TENSOR(2, readonly, float, weights)
TENSOR(3, writeonly, float, probs)
TENSOR(4, writeonly, vec4, partial)

shared vec4 lane_sum[gl_WorkGroupSize.x];

void main() {
    uint lane = gl_LocalInvocationID.x;
    uint group = flat_group();
    uint total = p.n * p.hw;
    uint first = group * LOSS_PIXELS_PER_GROUP;
    if (first >= total)
        return;
    uint end = min(first + LOSS_PIXELS_PER_GROUP, total);
    vec4 sum = vec4(0.0);
    for (uint pixel = first + lane; pixel < end; pixel += gl_WorkGroupSize.x) {
        uint image = pixel / p.hw;
        uint at = pixel - image * p.hw;
        uint from = image * p.logits_stride_n + at;
        uint to = image * p.probs_stride_n + at;
        float top = AT(logits, from);
        uint top_class = 0u;
        for (uint c = 1u; c < p.k; c++) {
            float value = AT(logits, from + c * p.hw);
            top_class = value > top ? c : top_class;
            top = value > top ? value : top;
        }
        float exp_sum = 0.0;
        for (uint c = 0u; c < p.k; c++)
            exp_sum += exp(AT(logits, from + c * p.hw) - top);
        for (uint c = 0u; c < p.k; c++)
            AT(probs, to + c * p.hw) = exp(AT(logits, from + c * p.hw) - top) / exp_sum;
        uint label = AT(labels, pixel);
        float weight = AT(weights, pixel);
        if (weight > 0.0 && label < p.k) {
            float cross_entropy = log(exp_sum) + (top - AT(logits, from + label * p.hw));
            sum += vec4(weight * cross_entropy, weight, label == top_class ? 1.0 : 0.0, 1.0);
        }
    }
    lane_sum[lane] = sum;
    barrier();
    for (uint half_size = gl_WorkGroupSize.x / 2u; half_size > 0u; half_size /= 2u) {
        if (lane < half_size)
            lane_sum[lane] += lane_sum[lane + half_size];
        barrier();
    }
    if (lane == 0u)
        AT(partial, group) = lane_sum[0];
}
