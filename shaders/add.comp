#version 450
/*
 * add.comp: sum of two tensors; y may be one of them.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS ADD_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, readonly, float, a)
TENSOR(1, readonly, float, b)
TENSOR(2, writeonly, float, y)

void main() {
    uint image;
    uint at = image_element(p.count, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x)
        AT(y, image * p.y_stride_n + at) =
            AT(a, image * p.a_stride_n + at) + AT(b, image * p.b_stride_n + at);
}
