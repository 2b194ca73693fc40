#version 450
/*
 * act_bwd.comp: gradient of act_fwd, from the activation's output; dx may be dy.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS ACT_BWD_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, y)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, float, dx)

void main() {
    uint image;
    uint at = image_element(p.count, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float value = AT(dy, image * p.dy_stride_n + at);
        bool positive = AT(y, image * p.y_stride_n + at) > 0.0;
        AT(dx, image * p.dx_stride_n + at) = positive ? value : p.slope * value;
    }
}
