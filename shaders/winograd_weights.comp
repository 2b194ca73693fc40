#version 450
/*
 * winograd_weights.comp: u = G w G'. An invocation transforms the nine taps from one source channel
 * to one output channel, and writes zeros for those that fill up a chunk.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WINOGRAD_WEIGHTS_PARAMS
#include "access.glsl"
#include "each.glsl"
#include "winograd.glsl"

TENSOR(0, readonly, float, w)
TENSOR(1, writeonly, float, u)

void main() {
    uint outs = div_up(p.n_channels, 4u) * 4u;
    uint ins = div_up(p.c_in, WINOGRAD_CHUNK) * WINOGRAD_CHUNK;
    uint pitch = div_up(p.transposed != 0u ? p.c_in : p.c_out, 4u) * 4u;
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS; item++, at += gl_WorkGroupSize.x) {
        uint i = at / outs;
        uint o = at - i * outs;
        if (i >= ins)
            return;
        bool exists = i < p.c_in && o < p.n_channels;
        uint from_i = min(i, p.c_in - 1u);
        uint from_o = p.first_channel + min(o, p.n_channels - 1u);
        uint from = p.transposed != 0u ? (from_o * 9u + 8u) * pitch + from_i
                                       : from_i * 9u * pitch + from_o;
        uint step = p.transposed != 0u ? 0u - pitch : pitch; /* to the next tap */
        float g[9];
        [[unroll]] for (int t = 0; t < 9; t++) {
            float loaded = AT(w, from);
            g[t] = exists ? loaded : 0.0;
            from += step;
        }
        float half_done[3 * WINO_IN]; /* columns of taps */
        [[unroll]] for (int c = 0; c < 3; c++) {
            float column[WINO_IN];
            winograd_transform_weights(g[c], g[3 + c], g[6 + c], column);
            [[unroll]] for (int r = 0; r < WINO_IN; r++)
                half_done[r * 3 + c] = column[r];
        }
        uint chunks = ins / WINOGRAD_CHUNK;
        uint chunk = i / WINOGRAD_CHUNK;
        uint to = ((o / 4u * chunks + chunk) * WINOGRAD_POINTS * WINOGRAD_CHUNK +
                   (i - chunk * WINOGRAD_CHUNK)) * 4u + o % 4u;
        [[unroll]] for (int r = 0; r < WINO_IN; r++) {
            float row[WINO_IN];
            winograd_transform_weights(half_done[r * 3], half_done[r * 3 + 1],
                                       half_done[r * 3 + 2], row);
            [[unroll]] for (int c = 0; c < WINO_IN; c++)
                AT(u, to + uint(r * WINO_IN + c) * WINOGRAD_CHUNK * 4u) = row[c];
        }
    }
}
