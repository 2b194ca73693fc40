#version 450
/*
 * winograd_product.comp: y = epilogue(A' [sum over i of u * v] A). A workgroup computes four output
 * channels of a block of tiles, an invocation one tile: 144 sums, each loaded and stored once for a
 * chunk of source channels, in registers or on the stack.
 *
 * On the address path (HAS_LANES) the sixteen numbers of v that belong to the block are loaded from
 * an address that all lanes share, and every lane takes its own: Mesa's CPU driver makes one vector
 * load of that, where an address of each lane's own would be a gather (docs/shaders.md). A lane
 * is numbered by its subgroup; numbers past the end of the block are not loaded, so that any size
 * of subgroups gives the same.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WINOGRAD_PRODUCT_PARAMS
#include "access.glsl"
#include "lanes.glsl"
#include "winograd.glsl"

TENSOR(0, readonly, float, v)
TENSOR(1, readonly, vec4, u)
TENSOR(2, readonly, float, aux)
TENSOR(3, writeonly, float, y)
#include "winograd_store.glsl"

const uint V_CHUNK = WINOGRAD_POINTS * WINOGRAD_CHUNK * WINOGRAD_LANES; /* floats */
const uint U_CHUNK = WINOGRAD_POINTS * WINOGRAD_CHUNK;                  /* vec4 */

#ifdef HAS_LANES
/* Offsets inside of a struct are constants: neighbours are known to be neighbours. */
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer v_chunk {
    vec4 lanes[V_CHUNK / 4u];
};
layout(buffer_reference, std430, buffer_reference_align = 16) readonly buffer u_chunk {
    vec4 outs[U_CHUNK];
};
#endif

void main() {
    uint chunks = div_up(p.c_in, WINOGRAD_CHUNK);
    uint out_blocks = div_up(p.n_channels, 4u);
    uint tiles = p.n * p.n_rows * div_up(p.w_out, WINOGRAD_OUT);
    uint tile_blocks = div_up(tiles, WINOGRAD_LANES);
    uint group = flat_group();
    uint block = group / out_blocks;
    uint out_block = group - block * out_blocks;
    bool wanted = block < tile_blocks;
    block = min(block, tile_blocks - 1u);
#ifdef HAS_LANES
    uint lane = gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID;
    /* Where a vec4 of the block still lies behind the subgroup's first number, else the first */
    uint second = gl_SubgroupSize > 4u ? 1u : 0u;
    uint third = gl_SubgroupSize > 8u ? 2u : 0u;
    uint fourth = gl_SubgroupSize > 12u ? 3u : 0u;
    uint v_at = block * chunks * (V_CHUNK / 4u) + gl_SubgroupID * (gl_SubgroupSize / 4u);
#else
    uint lane = gl_LocalInvocationID.x;
    uint v_at = block * chunks * V_CHUNK + lane;
#endif
    uint u_at = out_block * chunks * U_CHUNK;

    vec4 sum[WINOGRAD_POINTS];
    [[unroll]] for (int e = 0; e < int(WINOGRAD_POINTS); e++)
        sum[e] = vec4(0.0);
    uint chunk = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
#ifdef HAS_LANES
        v_chunk from_v = v_chunk(address_of_word(p.address[v_binding], v_at * 4u));
        u_chunk from_u = u_chunk(address_of_word(p.address[u_binding], u_at * 4u));
#endif
        [[unroll]] for (uint e = 0u; e < WINOGRAD_POINTS; e++) {
            vec4 added = sum[e];
            [[unroll]] for (uint q = 0u; q < WINOGRAD_CHUNK; q++) {
                uint number = e * WINOGRAD_CHUNK + q;
#ifdef HAS_LANES
                float value = from_v.lanes[number * 4u].x;
                value = lanes_pick(from_v.lanes[number * 4u], 0u, value);
                value = lanes_pick(from_v.lanes[number * 4u + second], 4u, value);
                value = lanes_pick(from_v.lanes[number * 4u + third], 8u, value);
                value = lanes_pick(from_v.lanes[number * 4u + fourth], 12u, value);
                vec4 weight = from_u.outs[number];
#else
                float value = AT(v, v_at + number * WINOGRAD_LANES);
                vec4 weight = AT(u, u_at + number);
#endif
                added = fma(vec4(value), weight, added);
            }
            sum[e] = added;
        }
#ifdef HAS_LANES
        v_at += V_CHUNK / 4u;
#else
        v_at += V_CHUNK;
#endif
        u_at += U_CHUNK;
        chunk++;
        if (chunk == chunks)
            break;
    }

    uint number = block * WINOGRAD_LANES + lane;
    bool live = wanted && number < tiles;
    winograd_tile tile =
        winograd_tile_find(min(number, tiles - 1u), p.first_row, p.n_rows, p.w_out);
    [[unroll]] for (int j = 0; j < 4; j++) {
        uint own = out_block * 4u + uint(j);
        uint channel = p.first_channel + min(own, p.n_channels - 1u);
        bool stored = live && own < p.n_channels;
        float bias = 0.0;
        if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
            bias = AT(aux, channel);
        float rows[4 * WINO_IN]; /* the columns of sums transformed */
        [[unroll]] for (int c = 0; c < WINO_IN; c++) {
            float column[4];
            winograd_transform_sums(sum[c][j], sum[6 + c][j], sum[12 + c][j], sum[18 + c][j],
                                    sum[24 + c][j], sum[30 + c][j], column);
            [[unroll]] for (int r = 0; r < 4; r++)
                rows[r * WINO_IN + c] = column[r];
        }
        [[unroll]] for (uint r = 0u; r < 4u; r++) {
            float pixels[4];
            winograd_transform_sums(rows[r * 6], rows[r * 6 + 1], rows[r * 6 + 2], rows[r * 6 + 3],
                                    rows[r * 6 + 4], rows[r * 6 + 5], pixels);
            [[unroll]] for (uint c = 0u; c < 4u; c++) {
                if (stored && tile.row + r < p.h_out && tile.col + c < p.w_out)
                    store(tile.image, channel,
                          (channel * p.h_out + tile.row + r) * p.w_out + tile.col + c, bias,
                          pixels[c]);
            }
        }
    }
}
