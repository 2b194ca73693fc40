#version 450
/*
 * copy_region.comp: copy_region, and with ADD add_region: a rectangle of every plane of src into a
 * rectangle of dst.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS COPY_REGION_PARAMS
#include "access.glsl"
#include "plane.glsl"

TENSOR(0, readonly, float, src)
#ifdef ADD
TENSOR(1, , float, dst)
#else
TENSOR(1, writeonly, float, dst)
#endif

void main() {
    uint plane;
    uint pixels = p.h * p.w;
    uint at = plane_pixel(pixels, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint src_base = image * p.src_stride_n + (channel * p.src_h + p.src_top) * p.src_w + p.src_left;
    uint dst_base = image * p.dst_stride_n + (channel * p.dst_h + p.dst_top) * p.dst_w + p.dst_left;
    for (uint item = 0u; item < ITEMS && at < pixels; item++, at += gl_WorkGroupSize.x) {
        uint row = at / p.w;
        uint col = at - row * p.w;
        float value = AT(src, src_base + row * p.src_w + col);
        uint to = dst_base + row * p.dst_w + col;
#ifdef ADD
        value += AT(dst, to);
#endif
        AT(dst, to) = value;
    }
}
