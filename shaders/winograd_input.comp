#version 450
/*
 * winograd_input.comp: v = B' x B. A workgroup transforms a chunk of channels of a block of tiles,
 * an invocation those of one tile. Positions outside of x are clamped to its edge and replaced by
 * zero; so is what fills up the last block or chunk.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WINOGRAD_INPUT_PARAMS
#include "access.glsl"
#include "winograd.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, writeonly, float, v)

void main() {
    uint chunks = div_up(p.c_in, WINOGRAD_CHUNK);
    uint tiles = p.n * p.n_rows * div_up(p.w_out, WINOGRAD_OUT);
    uint group = flat_group();
    uint block = group / chunks;
    uint channel = (group - block * chunks) * WINOGRAD_CHUNK;
    uint number = block * WINOGRAD_LANES + gl_LocalInvocationID.x;
    bool wanted = block < div_up(tiles, WINOGRAD_LANES);
    bool live = number < tiles;
    winograd_tile tile =
        winograd_tile_find(min(number, tiles - 1u), p.first_row, p.n_rows, p.w_out);
    uint row_at[WINO_IN], col_at[WINO_IN];
    bool row_in[WINO_IN], col_in[WINO_IN];
    [[unroll]] for (int i = 0; i < WINO_IN; i++) {
        int y = int(tile.row) + i - int(p.pad_h), x = int(tile.col) + i - int(p.pad_w);
        row_in[i] = y >= 0 && y < int(p.h_in) && live;
        row_at[i] = uint(clamp(y, 0, int(p.h_in) - 1)) * p.w_in;
        col_in[i] = x >= 0 && x < int(p.w_in);
        col_at[i] = uint(clamp(x, 0, int(p.w_in) - 1));
    }
    uint to = group * (WINOGRAD_POINTS * WINOGRAD_CHUNK * WINOGRAD_LANES) +
              gl_LocalInvocationID.x;
    uint q = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
        bool exists = channel + q < p.c_in;
        uint plane = tile.image * p.x_stride_n + min(channel + q, p.c_in - 1u) * p.h_in * p.w_in;
        float d[WINOGRAD_POINTS];
        [[unroll]] for (int r = 0; r < WINO_IN; r++) {
            [[unroll]] for (int c = 0; c < WINO_IN; c++) {
                float loaded = AT(x, plane + row_at[r] + col_at[c]);
                d[r * WINO_IN + c] = row_in[r] && col_in[c] && exists ? loaded : 0.0;
            }
        }
        [[unroll]] for (int c = 0; c < WINO_IN; c++)
            winograd_transform_input(d[c], d[6 + c], d[12 + c], d[18 + c], d[24 + c], d[30 + c]);
        [[unroll]] for (int r = 0; r < WINO_IN; r++)
            winograd_transform_input(d[r * 6], d[r * 6 + 1], d[r * 6 + 2], d[r * 6 + 3],
                                     d[r * 6 + 4], d[r * 6 + 5]);
        if (wanted) {
            [[unroll]] for (int e = 0; e < int(WINOGRAD_POINTS); e++)
                AT(v, to + uint(e) * (WINOGRAD_CHUNK * WINOGRAD_LANES)) = d[e];
        }
        to += WINOGRAD_LANES;
        q++;
        if (q == WINOGRAD_CHUNK)
            break;
    }
}
