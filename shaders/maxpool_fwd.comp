#version 450
/*
 * maxpool_fwd.comp: an invocation computes ITEMS output pixels of one plane. Comparisons go in scan
 * order (ky, kx) and a later value replaces the maximum only when it is greater, so the position of
 * the maximum is the one that maxpool_bwd.comp finds.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS MAXPOOL_PARAMS
#include "access.glsl"
#include "plane.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, writeonly, float, y)

layout(constant_id = 4) const uint KERNEL = 0; /* the window's size when known; 0: p.kernel */

void main() {
    uint plane;
    uint pixels = p.h_out * p.w_out;
    uint at = plane_pixel(pixels, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint base = image * p.x_stride_n + channel * p.h_in * p.w_in;
    uint out_base = image * p.y_stride_n + channel * pixels;
    uint kernel = KERNEL != 0u ? KERNEL : p.kernel;
    for (uint item = 0u; item < ITEMS && at < pixels; item++, at += gl_WorkGroupSize.x) {
        uint row = at / p.w_out;
        uint from = base + row * p.stride * p.w_in + (at - row * p.w_out) * p.stride;
        float best = AT(x, from);
        [[unroll]] for (uint ky = 0u; ky < kernel; ky++) {
            [[unroll]] for (uint kx = 0u; kx < kernel; kx++) {
                float value = AT(x, from + (ky * p.w_in + kx) * p.dilation);
                best = value > best ? value : best;
            }
        }
        AT(y, out_base + at) = best;
    }
}
