#version 450
/*
 * winograd_product_reg.comp: winograd_product by descriptors:
 *     y = epilogue(A' [sum over i of u * v] A).
 * Where a driver that computes on the CPU loads lane by lane, a vec4 costs little more than a float
 * and as much whether lanes share it or not. So invocations are points, which are neighbours in u
 * and v: each multiplies all tiles of a block with OUT_VECS * 4 output channels at its point, three
 * points one after the other, and the points meet in shared memory. Drivers that load once what
 * lanes are known to share have another form (winograd_product_tiles.comp).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WINOGRAD_PRODUCT_PARAMS
#include "access.glsl"
#include "winograd.glsl"

TENSOR(0, readonly, vec4, v)
TENSOR(1, readonly, vec4, u)
TENSOR(2, readonly, float, aux)
TENSOR(3, writeonly, float, y)
#include "winograd_store.glsl"

#define OUT_VECS 2u
#define ROUND_POINTS 12u /* of 16 invocations */
#define TILES WINOGRAD_LANES
const uint Q_VECS = TILES / 4u; /* of a source channel in v */
const uint V_CHUNK = WINOGRAD_POINTS * WINOGRAD_CHUNK * Q_VECS;
const uint U_CHUNK = WINOGRAD_POINTS * WINOGRAD_CHUNK;

shared vec4 meeting[WINOGRAD_POINTS * TILES * OUT_VECS];

/* The sums of a point in shared memory. */
void multiply(uint v_at, uint u_first[OUT_VECS], uint chunks, uint point, bool wanted) {
    vec4 sum[TILES * OUT_VECS];
    [[unroll]] for (uint s = 0u; s < TILES * OUT_VECS; s++)
        sum[s] = vec4(0.0);
    v_at += point * WINOGRAD_CHUNK * Q_VECS;
    uint u_at = point * WINOGRAD_CHUNK;
    for (uint chunk = 0u; chunk < chunks; chunk++) {
        vec4 weight[OUT_VECS * WINOGRAD_CHUNK];
        [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
            [[unroll]] for (uint q = 0u; q < WINOGRAD_CHUNK; q++)
                weight[a * WINOGRAD_CHUNK + q] = AT(u, u_first[a] + u_at + q);
        }
        [[unroll]] for (uint b = 0u; b < Q_VECS; b++) {
            vec4 value[WINOGRAD_CHUNK];
            [[unroll]] for (uint q = 0u; q < WINOGRAD_CHUNK; q++)
                value[q] = AT(v, v_at + q * Q_VECS + b);
            [[unroll]] for (uint j = 0u; j < 4u; j++) {
                [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
                    vec4 added = sum[(b * 4u + j) * OUT_VECS + a];
                    [[unroll]] for (uint q = 0u; q < WINOGRAD_CHUNK; q++)
                        added = fma(vec4(value[q][j]), weight[a * WINOGRAD_CHUNK + q], added);
                    sum[(b * 4u + j) * OUT_VECS + a] = added;
                }
            }
        }
        v_at += V_CHUNK;
        u_at += U_CHUNK;
    }
    if (wanted) {
        [[unroll]] for (uint s = 0u; s < TILES * OUT_VECS; s++)
            meeting[point * TILES * OUT_VECS + s] = sum[s];
    }
}

void main() {
    uint chunks = div_up(p.c_in, WINOGRAD_CHUNK);
    uint out_blocks = div_up(p.n_channels, 4u);
    uint tiles = p.n * p.n_rows * div_up(p.w_out, WINOGRAD_OUT);
    /* A workgroup for each four channels, as on the other access path; of OUT_VECS neighbours the
       first works. */
    uint block = flat_group() / out_blocks;
    uint out_block = flat_group() - block * out_blocks;
    if (block >= div_up(tiles, TILES) || out_block % OUT_VECS != 0u)
        return;
    uint lane = gl_LocalInvocationID.x;
    uint u_first[OUT_VECS];
    [[unroll]] for (uint a = 0u; a < OUT_VECS; a++)
        u_first[a] = min(out_block + a, out_blocks - 1u) * chunks * U_CHUNK;
    for (uint first = 0u; first < WINOGRAD_POINTS; first += ROUND_POINTS)
        multiply(block * chunks * V_CHUNK, u_first, chunks, first + min(lane, ROUND_POINTS - 1u),
                 lane < ROUND_POINTS);
    barrier();

    for (uint item = lane; item < TILES * OUT_VECS; item += WINOGRAD_LANES) {
        uint number = block * TILES + item / OUT_VECS;
        winograd_tile tile =
            winograd_tile_find(min(number, tiles - 1u), p.first_row, p.n_rows, p.w_out);
        vec4 rows[4 * WINO_IN]; /* the columns of sums transformed */
        [[unroll]] for (uint c = 0u; c < WINO_IN; c++) {
            vec4 m[WINO_IN];
            [[unroll]] for (uint r = 0u; r < WINO_IN; r++)
                m[r] = meeting[(r * WINO_IN + c) * TILES * OUT_VECS + item];
            [[unroll]] for (int j = 0; j < 4; j++) {
                float column[4];
                winograd_transform_sums(m[0][j], m[1][j], m[2][j], m[3][j], m[4][j], m[5][j],
                                        column);
                [[unroll]] for (uint r = 0u; r < 4u; r++)
                    rows[r * WINO_IN + c][j] = column[r];
            }
        }
        [[unroll]] for (int j = 0; j < 4; j++) {
            uint own = (out_block + item % OUT_VECS) * 4u + uint(j);
            uint channel = p.first_channel + min(own, p.n_channels - 1u);
            bool stored = number < tiles && own < p.n_channels;
            float bias = 0.0;
            if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
                bias = AT(aux, channel);
            [[unroll]] for (uint r = 0u; r < 4u; r++) {
                float pixels[4];
                uint o = r * WINO_IN;
                winograd_transform_sums(rows[o][j], rows[o + 1u][j], rows[o + 2u][j],
                                        rows[o + 3u][j], rows[o + 4u][j], rows[o + 5u][j], pixels);
                [[unroll]] for (uint c = 0u; c < 4u; c++) {
                    if (stored && tile.row + r < p.h_out && tile.col + c < p.w_out)
                        store(tile.image, channel,
                              (channel * p.h_out + tile.row + r) * p.w_out + tile.col + c, bias,
                              pixels[c]);
                }
            }
        }
    }
}
