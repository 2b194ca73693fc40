#version 450
/*
 * maxpool_bwd_tight.comp: maxpool_bwd for windows that neither overlap nor leave gaps (stride =
 * kernel, dilation 1). An invocation computes ITEMS windows, each with all its pixels of dx; what
 * is left over at the right and bottom edges becomes zero.
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

layout(constant_id = 4) const uint KERNEL = 2;

void main() {
    uint plane;
    uint grid_w = div_up(p.w_in, KERNEL);
    uint cells = grid_w * div_up(p.h_in, KERNEL);
    uint at = plane_pixel(cells, plane);
    if (plane >= p.n * p.c)
        return;
    uint image = plane / p.c;
    uint channel = plane - image * p.c;
    uint base = image * p.x_stride_n + channel * p.h_in * p.w_in;
    uint dy_base = image * p.dy_stride_n + channel * p.h_out * p.w_out;
    uint dx_base = image * p.dx_stride_n + channel * p.h_in * p.w_in;
    for (uint item = 0u; item < ITEMS && at < cells; item++, at += gl_WorkGroupSize.x) {
        uint row = at / grid_w;
        uint col = at - row * grid_w;
        bool window = row < p.h_out && col < p.w_out;
        uint corner = row * KERNEL * p.w_in + col * KERNEL;
        float value = 0.0, best = 0.0;
        uint best_tap = 0u;
        if (window) {
            value = AT(dy, dy_base + row * p.w_out + col);
            best = AT(x, base + corner);
            [[unroll]] for (uint ky = 0u; ky < KERNEL; ky++) {
                [[unroll]] for (uint kx = 0u; kx < KERNEL; kx++) {
                    float other = AT(x, base + corner + ky * p.w_in + kx);
                    best_tap = other > best ? ky * KERNEL + kx : best_tap;
                    best = other > best ? other : best;
                }
            }
        }
        [[unroll]] for (uint ky = 0u; ky < KERNEL; ky++) {
            [[unroll]] for (uint kx = 0u; kx < KERNEL; kx++) {
                if (row * KERNEL + ky < p.h_in && col * KERNEL + kx < p.w_in)
                    AT(dx, dx_base + corner + ky * p.w_in + kx) =
                        best_tap == ky * KERNEL + kx ? value : 0.0;
            }
        }
    }
}
