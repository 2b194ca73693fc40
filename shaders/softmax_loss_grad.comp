#version 450
/*
 * softmax_loss_grad.comp: gradient of the mean weighted cross-entropy; an invocation computes ITEMS
 * pixels, all classes of each.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS SOFTMAX_LOSS_GRAD_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, probs)
TENSOR(1, readonly, uint, labels)
TENSOR(2, readonly, float, weights)
TENSOR(3, readonly, float, loss)
TENSOR(4, writeonly, float, dlogits)

void main() {
    uint image;
    uint at = image_element(p.hw, image);
    if (image >= p.n)
        return;
    float weight_sum = AT(loss, 2);
    for (uint item = 0u; item < ITEMS && at < p.hw; item++, at += gl_WorkGroupSize.x) {
        uint label = AT(labels, image * p.hw + at);
        float weight = AT(weights, image * p.hw + at);
        float scale = weight_sum > 0.0 && weight > 0.0 && label < p.k ? weight / weight_sum : 0.0;
        for (uint c = 0u; c < p.k; c++) {
            float prob = AT(probs, image * p.probs_stride_n + c * p.hw + at);
            AT(dlogits, image * p.dlogits_stride_n + c * p.hw + at) =
                scale * (prob - (c == label ? 1.0 : 0.0));
        }
    }
}
