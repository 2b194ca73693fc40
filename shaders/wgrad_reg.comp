#version 450
/*
 * wgrad_reg.comp: conv_wgrad and upconv_wgrad (ROLE) for CPU devices. The invocations of a
 * workgroup share the pixels of one split; each adds up, in registers, all taps of IN_COUNT input
 * and OUT_VECS * 4 output channels over its pixels (every gl_WorkGroupSize.x-th, ascending). At the
 * end the invocations' sums are added in ascending order through shared memory.
 *
 * Built with the kernel size KH, KW (dilation 1) an invocation has all taps of a convolution in
 * registers; without, it has one tap, and the workgroup's number says which (any kernel and
 * dilation, and the up-convolution, whose taps lie in dy).
 *
 * Shared memory: 16 * OUT_VECS bytes for each invocation.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"

#define ROLE_CONV 0
#define ROLE_UPCONV 1

#if ROLE == ROLE_CONV
#define PARAMS CONV_WGRAD_PARAMS
#else
#define PARAMS UPCONV_WGRAD_PARAMS
#endif
#include "access.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, vec4, partial)

layout(constant_id = 3) const bool PADDED = true; /* may read outside x */

#if ROLE == ROLE_CONV
#define PIXELS_H p.h_out
#define PIXELS_W p.w_out
#define KERNEL_H p.kh
#define KERNEL_W p.kw
#define DILATION p.dilation
#define PAD_H p.pad_h
#define PAD_W p.pad_w
#else
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#define KERNEL_H p.k
#define KERNEL_W p.k
#define DILATION 1u
#define PAD_H 0u
#define PAD_W 0u
#endif

#ifdef KH
#define TAPS_H KH
#define TAPS_W KW
#else
#define TAPS_H 1
#define TAPS_W 1
#endif
#define TAPS (TAPS_H * TAPS_W)

shared vec4 lane_sum[gl_WorkGroupSize.x * OUT_VECS];

void main() {
    uint out_vecs = div_up(p.c_out, 4u);
    uint in_blocks = div_up(p.c_in, IN_COUNT);
    uint out_blocks = div_up(out_vecs, OUT_VECS);
    uint all_taps = KERNEL_H * KERNEL_W;
    uint tap_blocks = all_taps / TAPS;
    uint group = flat_group();
    uint out_block = group % out_blocks;
    group /= out_blocks;
    uint first_tap = group % tap_blocks;
    group /= tap_blocks;
    uint split = group / in_blocks;
    if (split >= p.splits)
        return;
    uint first_in = (group - split * in_blocks) * IN_COUNT;
    uint first_out = out_block * OUT_VECS;

    uint tap_y = first_tap / KERNEL_W;
    uint tap_x = first_tap - tap_y * KERNEL_W;
#ifdef KH
    tap_y = 0u;
    tap_x = 0u;
#endif

    vec4 sum[IN_COUNT * TAPS * OUT_VECS];
    [[unroll]] for (int a = 0; a < IN_COUNT * TAPS * OUT_VECS; a++)
        sum[a] = vec4(0.0);

    /* Channels past the end are clamped; their sums are dropped or stored as zero padding. */
    uint x_channel[IN_COUNT];
    [[unroll]] for (int i = 0; i < IN_COUNT; i++)
        x_channel[i] = min(first_in + i, p.c_in - 1u) * p.h_in * p.w_in;
#if ROLE == ROLE_CONV
    uint dy_w = p.w_out, dy_plane = p.h_out * p.w_out, dy_step = 1u, dy_at0 = 0u;
#else
    uint dy_w = p.w_in * p.k, dy_plane = p.h_in * p.k * dy_w, dy_step = p.k;
    uint dy_at0 = tap_y * dy_w + tap_x;
    tap_y = 0u;
    tap_x = 0u;
#endif
    uint dy_channel[OUT_VECS * 4];
    [[unroll]] for (int o = 0; o < OUT_VECS * 4; o++)
        dy_channel[o] = dy_at0 + min(first_out * 4u + o, p.c_out - 1u) * dy_plane;

    /* This invocation's pixels: position (map_row, px), advanced by the workgroup's size. */
    uint map_rows = p.n * PIXELS_H;
    uint map_row = split * map_rows / p.splits;
    uint end = (split + 1u) * map_rows / p.splits;
    uint jump_rows = gl_WorkGroupSize.x / PIXELS_W;
    uint jump_cols = gl_WorkGroupSize.x - jump_rows * PIXELS_W;
    uint start_rows = gl_LocalInvocationID.x / PIXELS_W;
    uint px = gl_LocalInvocationID.x - start_rows * PIXELS_W;
    map_row += start_rows;
    uint image = map_row / PIXELS_H;
    uint py = map_row - image * PIXELS_H;

    while (map_row < end) {
        uint x_at = image * p.x_stride_n;
        uint dy_at = image * p.dy_stride_n + py * dy_step * dy_w + px * dy_step;
        float dy_value[OUT_VECS * 4];
        [[unroll]] for (int o = 0; o < OUT_VECS * 4; o++)
            dy_value[o] = AT(dy, dy_at + dy_channel[o]);
        [[unroll]] for (int ky = 0; ky < TAPS_H; ky++) {
            [[unroll]] for (int kx = 0; kx < TAPS_W; kx++) {
                int sy = int(py + (tap_y + ky) * DILATION) - int(PAD_H);
                int sx = int(px + (tap_x + kx) * DILATION) - int(PAD_W);
                bool inside = true;
                if (PADDED) {
                    inside = sy >= 0 && sy < int(p.h_in) && sx >= 0 && sx < int(p.w_in);
                    sy = clamp(sy, 0, int(p.h_in) - 1);
                    sx = clamp(sx, 0, int(p.w_in) - 1);
                }
                [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
                    float value = AT(x, x_at + x_channel[i] + sy * p.w_in + sx);
                    if (PADDED)
                        value = inside ? value : 0.0;
                    [[unroll]] for (int o = 0; o < OUT_VECS; o++) {
                        int a = (i * TAPS + ky * TAPS_W + kx) * OUT_VECS + o;
                        vec4 dy4 = vec4(dy_value[o * 4], dy_value[o * 4 + 1], dy_value[o * 4 + 2],
                                        dy_value[o * 4 + 3]);
                        sum[a] = fma(vec4(value), dy4, sum[a]);
                    }
                }
            }
        }
        px += jump_cols;
        uint carry = px >= PIXELS_W ? 1u : 0u;
        px -= carry * PIXELS_W;
        map_row += jump_rows + carry;
        py += jump_rows + carry;
        while (py >= PIXELS_H) {
            py -= PIXELS_H;
            image++;
        }
    }

    uint lane = gl_LocalInvocationID.x;
    [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
        [[unroll]] for (int t = 0; t < TAPS; t++) {
            [[unroll]] for (int o = 0; o < OUT_VECS; o++)
                lane_sum[lane * OUT_VECS + o] = sum[(i * TAPS + t) * OUT_VECS + o];
            barrier();
            if (lane < OUT_VECS) {
                vec4 total = lane_sum[lane];
                for (uint l = 1u; l < gl_WorkGroupSize.x; l++)
                    total += lane_sum[l * OUT_VECS + lane];
                uint channel = first_in + i, out_vec = first_out + lane;
                [[unroll]] for (uint j = 0u; j < 4u; j++)
                    total[j] = out_vec * 4u + j < p.c_out ? total[j] : 0.0;
                uint row = (split * p.c_in + channel) * all_taps + first_tap * TAPS + t;
                if (channel < p.c_in && out_vec < out_vecs)
                    AT(partial, row * out_vecs + out_vec) = total;
            }
            barrier();
        }
    }
}
