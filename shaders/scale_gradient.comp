#version 450
/*
 * scale_gradient.comp: the gradient of the loss times the scale; y may be x.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS SCALE_GRADIENT_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, float, scale)
TENSOR(2, writeonly, float, y)

void main() {
    uint image;
    uint at = image_element(p.count, image);
    if (image >= p.n)
        return;
    float factor = AT(scale, LOSS_SCALE_S);
    factor = factor == 0.0 ? p.initial : factor;
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x)
        AT(y, image * p.y_stride_n + at) = factor * AT(x, image * p.x_stride_n + at);
}
