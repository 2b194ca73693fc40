#version 450
/*
 * embed_region.comp: src inside a larger plane of zeros.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS EMBED_REGION_PARAMS
#include "access.glsl"
#include "plane.glsl"

TENSOR(0, readonly, float, src)
TENSOR(1, writeonly, float, dst)

void main() {
    uint plane;
    uint pixels = p.dst_h * p.dst_w;
    uint at = plane_pixel(pixels, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint src_base = image * p.src_stride_n + channel * p.src_h * p.src_w;
    uint dst_base = image * p.dst_stride_n + channel * pixels;
    for (uint item = 0u; item < ITEMS && at < pixels; item++, at += gl_WorkGroupSize.x) {
        uint dst_row = at / p.dst_w;
        uint row = dst_row - p.top; /* wraps round when negative */
        uint col = at - dst_row * p.dst_w - p.left;
        float value = 0.0;
        if (row < p.src_h && col < p.src_w)
            value = AT(src, src_base + row * p.src_w + col);
        AT(dst, dst_base + at) = value;
    }
}
