#version 450
/*
 * wgrad_lane.comp: conv_wgrad and upconv_wgrad (ROLE) for CPU devices whose compiler loads a value
 * that all lanes share once (docs/shaders.md). Each invocation of a workgroup has its own output
 * channel and walks over all pixels of the split, ROWS x COLS at a time; the values of x are the
 * same for all invocations. An invocation keeps the sums of IN_COUNT input channels times all KH *
 * KW taps (conv: dilation 1) in registers, and nothing has to be added across invocations.
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
TENSOR(2, writeonly, float, partial)

layout(constant_id = 3) const bool PADDED = true; /* may read outside x */

#if ROLE == ROLE_CONV
#define PIXELS_H p.h_out
#define PIXELS_W p.w_out
#define PAD_H p.pad_h
#define PAD_W p.pad_w
#define DY_STEP 1u
#define X_H KH
#define X_W KW
#define DY_H 1
#define DY_W 1
#else
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#define PAD_H 0u
#define PAD_W 0u
#define DY_STEP uint(KW)
#define X_H 1
#define X_W 1
#define DY_H KH
#define DY_W KW
#endif
#define TAPS (KH * KW)
#define SPAN_H (ROWS + X_H - 1)
#define SPAN_W (COLS + X_W - 1)

void main() {
    uint out_pitch = div_up(p.c_out, 4u) * 4u;
    uint in_blocks = div_up(p.c_in, IN_COUNT);
    uint out_blocks = div_up(out_pitch, gl_WorkGroupSize.x);
    uint group = flat_group();
    uint first_out = group % out_blocks * gl_WorkGroupSize.x;
    group /= out_blocks;
    uint split = group / in_blocks;
    if (split >= p.splits)
        return;
    uint first_in = (group - split * in_blocks) * IN_COUNT;
    uint channel = first_out + gl_LocalInvocationID.x;

    uint x_plane[IN_COUNT];
    [[unroll]] for (int i = 0; i < IN_COUNT; i++)
        x_plane[i] = min(first_in + i, p.c_in - 1u) * p.h_in * p.w_in;
#if ROLE == ROLE_CONV
    uint dy_w = p.w_out, dy_plane = p.h_out * p.w_out;
#else
    uint dy_w = p.w_in * KW, dy_plane = p.h_in * KH * dy_w;
#endif
    uint dy_channel = min(channel, p.c_out - 1u) * dy_plane;

    float sum[IN_COUNT * TAPS];
    [[unroll]] for (int a = 0; a < IN_COUNT * TAPS; a++)
        sum[a] = 0.0;

    /* A split without rows adds zeros, so that all loops may be tested at their end. */
    uint map_rows = p.n * PIXELS_H;
    uint begin = split * map_rows / p.splits;
    uint end = (split + 1u) * map_rows / p.splits;
    bool live = channel < p.c_out && begin < end;
    begin = min(begin, map_rows - 1u);
    end = clamp(end, begin + 1u, map_rows);

    uint map_row = begin;
    while (true) {
        uint image = map_row / PIXELS_H;
        uint py = map_row - image * PIXELS_H;
        uint rows = min(ROWS, min(end - map_row, PIXELS_H - py));
        uint row_at[SPAN_H];
        bool row_in[SPAN_H];
        [[unroll]] for (int r = 0; r < SPAN_H; r++) {
            int y = int(py) + r - int(PAD_H);
            row_in[r] = y >= 0 && y < int(p.h_in);
            row_at[r] = image * p.x_stride_n + uint(clamp(y, 0, int(p.h_in) - 1)) * p.w_in;
        }
        uint dy_row[ROWS];
        [[unroll]] for (int r = 0; r < ROWS; r++)
            dy_row[r] = image * p.dy_stride_n + dy_channel +
                        (py + min(r, rows - 1u)) * DY_STEP * dy_w;
        uint x0 = 0u;
        while (true) {
            float grad[ROWS * COLS * DY_H * DY_W];
            [[unroll]] for (int r = 0; r < ROWS; r++) {
                [[unroll]] for (int c = 0; c < COLS; c++) {
                    bool used = live && r < rows && x0 + c < PIXELS_W;
                    uint at = dy_row[r] + min(x0 + c, PIXELS_W - 1u) * DY_STEP;
                    [[unroll]] for (int t = 0; t < DY_H * DY_W; t++) {
                        float loaded = AT(dy, at + t / DY_W * dy_w + t % DY_W);
                        grad[(r * COLS + c) * DY_H * DY_W + t] = used ? loaded : 0.0;
                    }
                }
            }
            uint col_at[SPAN_W];
            bool col_in[SPAN_W];
            [[unroll]] for (int c = 0; c < SPAN_W; c++) {
                int x_ = int(x0) + c - int(PAD_W);
                col_in[c] = x_ >= 0 && x_ < int(p.w_in);
                col_at[c] = uint(clamp(x_, 0, int(p.w_in) - 1));
            }
            [[unroll]] for (int i = 0; i < IN_COUNT; i++) {
                float value[SPAN_H * SPAN_W];
                [[unroll]] for (int r = 0; r < SPAN_H; r++) {
                    [[unroll]] for (int c = 0; c < SPAN_W; c++) {
                        float loaded = AT(x, x_plane[i] + row_at[r] + col_at[c]);
                        if (PADDED)
                            loaded = row_in[r] && col_in[c] ? loaded : 0.0;
                        value[r * SPAN_W + c] = loaded;
                    }
                }
                [[unroll]] for (int b = 0; b < ROWS * COLS; b++) {
                    [[unroll]] for (int t = 0; t < TAPS; t++) {
                        int xt = t / (DY_H * DY_W), dt = t % (DY_H * DY_W);
                        int from = (b / COLS + xt / X_W) * SPAN_W + b % COLS + xt % X_W;
                        sum[i * TAPS + t] =
                            fma(value[from], grad[b * DY_H * DY_W + dt], sum[i * TAPS + t]);
                    }
                }
            }
            x0 += COLS;
            if (x0 >= PIXELS_W)
                break;
        }
        map_row += rows;
        if (map_row == end)
            break;
    }

    float result[IN_COUNT * TAPS];
    [[unroll]] for (int a = 0; a < IN_COUNT * TAPS; a++)
        result[a] = sum[a];
    for (uint a = 0u; a < IN_COUNT * TAPS; a++) {
        uint in_channel = first_in + a / TAPS;
        if (in_channel < p.c_in && channel < out_pitch)
            AT(partial, ((split * p.c_in + in_channel) * TAPS + a % TAPS) * out_pitch + channel) =
                result[a];
    }
}
