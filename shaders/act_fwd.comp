#version 450
/*
 * act_fwd.comp: (leaky) rectification; y may be x.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS ACT_FWD_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, writeonly, float, y)

void main() {
    uint image;
    uint at = image_element(p.count, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float value = AT(x, image * p.x_stride_n + at);
        AT(y, image * p.y_stride_n + at) = value > 0.0 ? value : p.slope * value;
    }
}
