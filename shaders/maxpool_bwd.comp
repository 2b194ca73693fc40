#version 450
/*
 * maxpool_bwd.comp: an invocation computes ITEMS pixels of dx: the sum, in scan order, of dy over
 * the windows that contain the pixel and have their first maximum there.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS MAXPOOL_BWD_PARAMS
#include "access.glsl"
#include "plane.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, float, dx)

/* Whether the first maximum of the window that starts at `from` is its tap (at_ky, at_kx). */
bool first_maximum(uint from, uint at_ky, uint at_kx) {
    float best = AT(x, from);
    uint best_ky = 0u, best_kx = 0u;
    for (uint ky = 0u; ky < p.kernel; ky++) {
        for (uint kx = 0u; kx < p.kernel; kx++) {
            float value = AT(x, from + (ky * p.w_in + kx) * p.dilation);
            if (value > best) {
                best = value;
                best_ky = ky;
                best_kx = kx;
            }
        }
    }
    return best_ky == at_ky && best_kx == at_kx;
}

void main() {
    uint plane;
    uint pixels = p.h_in * p.w_in;
    uint at = plane_pixel(pixels, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint base = image * p.x_stride_n + channel * pixels;
    uint dy_base = image * p.dy_stride_n + channel * p.h_out * p.w_out;
    uint dx_base = image * p.dx_stride_n + channel * pixels;
    for (uint item = 0u; item < ITEMS && at < pixels; item++, at += gl_WorkGroupSize.x) {
        uint row = at / p.w_in;
        uint col = at - row * p.w_in;
        float sum = 0.0;
        /* Windows in scan order: the last tap belongs to the first window. */
        for (uint ky = p.kernel; ky-- > 0u;) {
            uint down = row - ky * p.dilation; /* wraps round when negative */
            if (down > row || down % p.stride != 0u || down / p.stride >= p.h_out)
                continue;
            for (uint kx = p.kernel; kx-- > 0u;) {
                uint right = col - kx * p.dilation;
                if (right > col || right % p.stride != 0u || right / p.stride >= p.w_out)
                    continue;
                if (first_maximum(base + down * p.w_in + right, ky, kx))
                    sum += AT(dy, dy_base + down / p.stride * p.w_out + right / p.stride);
            }
        }
        AT(dx, dx_base + at) = sum;
    }
}
