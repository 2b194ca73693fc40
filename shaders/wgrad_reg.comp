#version 450
/*
 * wgrad_reg.comp: conv_wgrad and upconv_wgrad (ROLE) for CPU devices. The invocations of a
 * workgroup share the pixels of one split: each takes every gl_WorkGroupSize.x-th group of COLS
 * neighbouring columns and walks down the split's rows, keeping the sums of IN_COUNT input times
 * OUT_VECS * 4 output channels times all taps, and the last KH rows of x, in registers: a value is
 * loaded once per invocation. At the end the invocations' sums are added in ascending order through
 * shared memory.
 *
 * Built with the kernel size KH, KW an invocation has all taps (conv: dilation 1); without, it has
 * one tap, and the workgroup's number says which (any kernel and dilation).
 *
 * Shared memory: 16 * taps * OUT_VECS bytes for each invocation, taps = KH * KW or 1.
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
#define DY_STEP 1u
#else
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#define KERNEL_H p.k
#define KERNEL_W p.k
#define DILATION 1u
#define PAD_H 0u
#define PAD_W 0u
#define DY_STEP p.k
#endif

/* Taps of an invocation: in x for the convolution, in dy for the up-convolution. */
#ifndef KH
#define X_H 1
#define X_W 1
#define DY_H 1
#define DY_W 1
#elif ROLE == ROLE_CONV
#define X_H KH
#define X_W KW
#define DY_H 1
#define DY_W 1
#else
#define X_H 1
#define X_W 1
#define DY_H KH
#define DY_W KW
#endif
#define TAPS (X_H * X_W * DY_H * DY_W)
#define SPAN_W (COLS + X_W - 1)
#define OUT_COUNT (OUT_VECS * 4)

shared vec4 lane_sum[gl_WorkGroupSize.x * TAPS * OUT_VECS];

float load_x(uint image, uint plane_at, int y, int x_) {
    uint at = uint(clamp(y, 0, int(p.h_in) - 1)) * p.w_in + uint(clamp(x_, 0, int(p.w_in) - 1));
    float value = AT(x, image * p.x_stride_n + plane_at + at);
    if (PADDED)
        value = y >= 0 && y < int(p.h_in) && x_ >= 0 && x_ < int(p.w_in) ? value : 0.0;
    return value;
}

void main() {
    uint out_vecs = div_up(p.c_out, 4u);
    uint in_blocks = div_up(p.c_in, IN_COUNT);
    uint out_blocks = div_up(out_vecs, OUT_VECS);
    uint all_taps = KERNEL_H * KERNEL_W;
    uint tap_blocks = all_taps / TAPS;
    uint group = flat_group();
    uint first_out = group % out_blocks * OUT_VECS;
    group /= out_blocks;
    uint first_in = group % in_blocks * IN_COUNT;
    group /= in_blocks;
    uint first_tap = group % tap_blocks;
    uint split = group / tap_blocks;
    if (split >= p.splits)
        return;

    uint tap_y = first_tap / KERNEL_W;
    uint tap_x = first_tap - tap_y * KERNEL_W;
#if ROLE == ROLE_CONV
    uint dy_w = p.w_out, dy_plane = p.h_out * p.w_out, dy_first = 0u;
    int x_top = int(tap_y * DILATION) - int(PAD_H), x_left = int(tap_x * DILATION) - int(PAD_W);
#else
    uint dy_w = p.w_in * p.k, dy_plane = p.h_in * p.k * dy_w, dy_first = tap_y * dy_w + tap_x;
    int x_top = 0, x_left = 0;
#endif

    /* Channels past the end are clamped; their sums are dropped or stored as zero padding. */
    uint x_plane[IN_COUNT], dy_channel[OUT_COUNT];
    [[unroll]] for (int i = 0; i < IN_COUNT; i++)
        x_plane[i] = min(first_in + i, p.c_in - 1u) * p.h_in * p.w_in;
    [[unroll]] for (int o = 0; o < OUT_COUNT; o++)
        dy_channel[o] = dy_first + min(first_out * 4u + o, p.c_out - 1u) * dy_plane;

    float sum[IN_COUNT * OUT_COUNT * TAPS];
    [[unroll]] for (int a = 0; a < IN_COUNT * OUT_COUNT * TAPS; a++)
        sum[a] = 0.0;

    /* A split without rows adds one row of zeros, so that all loops may be tested at their end. */
    uint map_rows = p.n * PIXELS_H;
    uint begin = split * map_rows / p.splits;
    uint end = (split + 1u) * map_rows / p.splits;
    bool live = begin < end;
    begin = min(begin, map_rows - 1u);
    end = clamp(end, begin + 1u, map_rows);

    uint col_groups = div_up(PIXELS_W, COLS);
    uint block = 0u;
    while (true) {
        uint col_group = block + gl_LocalInvocationID.x;
        uint x0 = min(col_group, col_groups - 1u) * COLS;
        bool used[COLS];
        uint dy_col[COLS];
        [[unroll]] for (int c = 0; c < COLS; c++) {
            used[c] = live && col_group < col_groups && x0 + c < PIXELS_W;
            dy_col[c] = min(x0 + c, PIXELS_W - 1u) * DY_STEP;
        }
        uint map_row = begin;
        while (true) { /* over images */
            uint image = map_row / PIXELS_H;
            uint py = map_row - image * PIXELS_H;
            uint run_end = min(end, map_row - py + PIXELS_H);
            float value[IN_COUNT * X_H * SPAN_W];
            [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
                [[unroll]] for (int a = 0; a < (X_H - 1) * SPAN_W; a++)
                    value[i * X_H * SPAN_W + SPAN_W + a] =
                        load_x(image, x_plane[i], x_top + int(py) + a / SPAN_W,
                               x_left + int(x0) + a % SPAN_W);
            }
            while (true) { /* over rows */
                [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
                    [[unroll]] for (int a = 0; a < (X_H - 1) * SPAN_W; a++)
                        value[i * X_H * SPAN_W + a] = value[i * X_H * SPAN_W + SPAN_W + a];
                    [[unroll]] for (int c = 0; c < SPAN_W; c++)
                        value[i * X_H * SPAN_W + (X_H - 1) * SPAN_W + c] =
                            load_x(image, x_plane[i], x_top + int(py) + X_H - 1,
                                   x_left + int(x0) + c);
                }
                uint dy_row = image * p.dy_stride_n + py * DY_STEP * dy_w;
                float grad[OUT_COUNT * DY_H * DY_W * COLS];
                [[unroll]] for (int o = 0; o < OUT_COUNT; o++) {
                    [[unroll]] for (int a = 0; a < DY_H * DY_W * COLS; a++) {
                        int t = a / COLS, c = a % COLS;
                        float loaded =
                            AT(dy, dy_row + dy_channel[o] + t / DY_W * dy_w + dy_col[c] + t % DY_W);
                        grad[o * DY_H * DY_W * COLS + a] = used[c] ? loaded : 0.0;
                    }
                }
                [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
                    [[unroll]] for (int o = 0; o < OUT_COUNT; o++) {
                        [[unroll]] for (int c = 0; c < COLS; c++) {
                            [[unroll]] for (int t = 0; t < TAPS; t++) {
                                int xt = t / (DY_H * DY_W), dt = t % (DY_H * DY_W);
                                int a = (i * OUT_COUNT + o) * TAPS + t;
                                int from = (i * X_H + xt / X_W) * SPAN_W + c + xt % X_W;
                                sum[a] = fma(value[from],
                                             grad[(o * DY_H * DY_W + dt) * COLS + c], sum[a]);
                            }
                        }
                    }
                }
                map_row++;
                py++;
                if (map_row == run_end)
                    break;
            }
            if (map_row == end)
                break;
        }
        block += gl_WorkGroupSize.x;
        if (block >= col_groups)
            break;
    }

    /* One input channel at a time through shared memory. */
    float result[IN_COUNT * OUT_COUNT * TAPS];
    [[unroll]] for (int a = 0; a < IN_COUNT * OUT_COUNT * TAPS; a++)
        result[a] = sum[a];
    uint lane = gl_LocalInvocationID.x;
    for (uint i = 0u; i < IN_COUNT; i++) {
        for (uint a = 0u; a < TAPS * OUT_VECS; a++) {
            uint from = (i * OUT_COUNT + a / TAPS * 4u) * TAPS + a % TAPS;
            lane_sum[lane * TAPS * OUT_VECS + a] = vec4(result[from], result[from + TAPS],
                                                        result[from + 2 * TAPS],
                                                        result[from + 3 * TAPS]);
        }
        barrier();
        for (uint a = lane; a < TAPS * OUT_VECS; a += gl_WorkGroupSize.x) {
            vec4 total = lane_sum[a];
            for (uint l = 1u; l < gl_WorkGroupSize.x; l++)
                total += lane_sum[l * TAPS * OUT_VECS + a];
            uint channel = first_in + i, out_vec = first_out + a / TAPS;
            [[unroll]] for (uint j = 0u; j < 4u; j++)
                total[j] = out_vec * 4u + j < p.c_out ? total[j] : 0.0;
            uint row = (split * p.c_in + channel) * all_taps + first_tap * TAPS + a % TAPS;
            if (channel < p.c_in && out_vec < out_vecs)
                AT(partial, row * out_vecs + out_vec) = total;
        }
        barrier();
    }
}
