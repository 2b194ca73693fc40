#version 450
/*
 * softmax.comp: an invocation computes ITEMS pixels, all classes of each.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS SOFTMAX_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, writeonly, float, y)

void main() {
    uint image;
    uint at = image_element(p.hw, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && at < p.hw; item++, at += gl_WorkGroupSize.x) {
        uint from = image * p.x_stride_n + at;
        uint to = image * p.y_stride_n + at;
        float top = AT(x, from);
        for (uint c = 1u; c < p.k; c++)
            top = max(top, AT(x, from + c * p.hw));
        float sum = 0.0;
        for (uint c = 0u; c < p.k; c++)
            sum += exp(AT(x, from + c * p.hw) - top);
        for (uint c = 0u; c < p.k; c++)
            AT(y, to + c * p.hw) = exp(AT(x, from + c * p.hw) - top) / sum;
    }
}
