#version 450
/*
 * wgrad_lane.comp: conv_wgrad and upconv_wgrad (ROLE) for CPU devices whose compiler loads a value
 * that all lanes share once (docs/shaders.md). Each invocation of a workgroup has a channel of its
 * own of one factor, `own`, and walks over all pixels of the split, COLS of a row at a time; the
 * values of the other factor, `joint`, are the same for all invocations. An invocation keeps the
 * sums of JOINT_COUNT channels times all KH * KW taps (conv: dilation 1) in registers, and nothing
 * has to be added across invocations.
 *
 *   conv:    own = dy, joint = x: the taps are windows of x that overlap
 *   upconv:  own = x, joint = dy: the taps are windows of dy side by side
 *
 * The values of `own` are not loaded at an address for each lane, a gather, which costs more than
 * twice as much: all lanes load the values of all LANES channels, and each keeps its own.
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

#if ROLE == ROLE_CONV
TENSOR(0, readonly, float, joint)
TENSOR(1, readonly, float, own)
#else
TENSOR(0, readonly, float, own)
TENSOR(1, readonly, float, joint)
#endif
TENSOR(2, writeonly, float, partial)

layout(constant_id = 3) const bool PADDED = true; /* may read outside `joint`, or rows < COLS */

#define LANES 16 /* workgroup size */
#define TAPS (KH * KW)
#if ROLE == ROLE_CONV
#define STEP 1 /* from one pixel's window to the next */
#else
#define STEP KW
#endif
#define SPAN ((COLS - 1) * STEP + KW)

void main() {
    uint out_pitch = div_up(p.c_out, 4u) * 4u;
    /* Locals: a parameter used inside the loops would be loaded there, with a check and a branch
       that parts the products from their sums. */
#if ROLE == ROLE_CONV
    uint pixels_h = p.h_out, pixels_w = p.w_out;
    int joint_h = int(p.h_in), joint_w = int(p.w_in);
    int pad_h = int(p.pad_h), pad_w = int(p.pad_w);
    uint own_count = p.c_out, own_stride = p.dy_stride_n;
    uint joint_count = p.c_in, joint_stride = p.x_stride_n;
    uint own_blocks = div_up(out_pitch, LANES), joint_blocks = div_up(p.c_in, JOINT_COUNT);
#else
    uint pixels_h = p.h_in, pixels_w = p.w_in;
    int joint_h = int(p.h_in * KH), joint_w = int(p.w_in * KW);
    int pad_h = 0, pad_w = 0;
    uint own_count = p.c_in, own_stride = p.x_stride_n;
    uint joint_count = p.c_out, joint_stride = p.dy_stride_n;
    uint own_blocks = div_up(p.c_in, LANES), joint_blocks = div_up(out_pitch, JOINT_COUNT);
#endif
    uint group = flat_group();
    uint first_own = group % own_blocks * LANES;
    group /= own_blocks;
    uint split = group / joint_blocks;
    if (split >= p.splits)
        return;
    uint first_joint = (group - split * joint_blocks) * JOINT_COUNT;

    /* Channels past the end are clamped; their sums are dropped or stored as zero padding. */
    uint plane[JOINT_COUNT];
    [[unroll]] for (int i = 0; i < JOINT_COUNT; i++)
        plane[i] = min(first_joint + i, joint_count - 1u) * uint(joint_h * joint_w);
    uint own_plane = pixels_h * pixels_w, own_first = first_own * own_plane;
    uint own_lane = min(gl_LocalInvocationID.x, own_count - 1u - first_own);
    uint own_step[LANES]; /* from the channel of the lane before */
    [[unroll]] for (int l = 0; l < LANES; l++)
        own_step[l] = first_own + l < own_count ? own_plane : 0u;

    float sum[JOINT_COUNT * TAPS];
    [[unroll]] for (int a = 0; a < JOINT_COUNT * TAPS; a++)
        sum[a] = 0.0;

    /* A split without rows adds up one that is not its own, which is dropped, so that all loops may
       be tested at their end. */
    uint map_rows = p.n * pixels_h;
    uint begin = split * map_rows / p.splits;
    uint end = (split + 1u) * map_rows / p.splits;
    bool live = begin < end;
    begin = min(begin, map_rows - 1u);
    end = clamp(end, begin + 1u, map_rows);

    /* The last step of a row starts early enough to end with it; pixels it shares with the step
       before count as zero. */
    uint last = max(pixels_w, COLS) - COLS;
    uint map_row = begin;
    while (true) {
        uint image = map_row / pixels_h;
        uint py = map_row - image * pixels_h;
        uint row_at[KH];
        bool row_in[KH];
        [[unroll]] for (int r = 0; r < KH; r++) {
            int y = int(py) * STEP + r - pad_h;
            row_in[r] = y >= 0 && y < joint_h;
            row_at[r] = image * joint_stride +
                        uint(PADDED ? clamp(y, 0, joint_h - 1) : y) * uint(joint_w);
        }
        uint own_row = image * own_stride + own_first + py * pixels_w;
        uint next = 0u;
        while (true) {
            uint x0 = min(next, last);
            float mine[COLS];
            uint own_at = own_row + x0;
            [[unroll]] for (int l = 0; l < LANES; l++) {
                if (l > 0)
                    own_at += own_step[l];
                [[unroll]] for (int c = 0; c < COLS; c++) {
                    uint at = own_at + (PADDED ? min(c, pixels_w - 1u - x0) : c);
                    float loaded = AT(own, at);
                    mine[c] = l == 0 || own_lane == l ? loaded : mine[c];
                }
            }
            [[unroll]] for (int c = 0; c < COLS; c++) {
                bool used = x0 + c >= next && (!PADDED || x0 + c < pixels_w);
                mine[c] = used ? mine[c] : 0.0;
            }
            int left = int(x0) * STEP - pad_w;
            [[unroll]] for (int i = 0; i < JOINT_COUNT; i++) {
                [[unroll]] for (int r = 0; r < KH; r++) {
                    float value[SPAN];
                    [[unroll]] for (int c = 0; c < SPAN; c++) {
                        int col = PADDED ? clamp(left + c, 0, joint_w - 1) : left + c;
                        float loaded = AT(joint, plane[i] + row_at[r] + uint(col));
                        value[c] = !PADDED || row_in[r] && col == left + c ? loaded : 0.0;
                    }
                    [[unroll]] for (int t = 0; t < KW; t++) {
                        float total = sum[i * TAPS + r * KW + t];
                        [[unroll]] for (int c = 0; c < COLS; c++)
                            total = fma(value[c * STEP + t], mine[c], total);
                        sum[i * TAPS + r * KW + t] = total;
                    }
                }
            }
            next += COLS;
            if (next >= pixels_w)
                break;
        }
        map_row++;
        if (map_row == end)
            break;
    }

    float result[JOINT_COUNT * TAPS];
    uint lane_channel = first_own + gl_LocalInvocationID.x;
    [[unroll]] for (int a = 0; a < JOINT_COUNT * TAPS; a++) {
#if ROLE == ROLE_CONV
        bool counted = live && lane_channel < own_count;
#else
        bool counted = live && first_joint + a / TAPS < joint_count;
#endif
        result[a] = counted ? sum[a] : 0.0;
    }
    for (uint a = 0u; a < JOINT_COUNT * TAPS; a++) {
#if ROLE == ROLE_CONV
        uint i = first_joint + a / TAPS, o = lane_channel;
#else
        uint i = lane_channel, o = first_joint + a / TAPS;
#endif
        if (i < p.c_in && o < out_pitch)
            AT(partial, ((split * p.c_in + i) * TAPS + a % TAPS) * out_pitch + o) = result[a];
    }
}
