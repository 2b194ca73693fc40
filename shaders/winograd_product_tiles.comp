#version 450
/*
 * winograd_product_tiles.comp: winograd_product by descriptors where a load at an address that all
 * lanes share is cheap; a module of its own, because drivers that fold no constants would compile
 * both forms. An invocation has four tiles, which are neighbours in v, and TILE_OUTS
 * output channels, whose weights all lanes share. It computes the sums of one point after the other
 * and adds each to the pixels that it has a part in; no other invocation has a part in these.
 *
 * Of A' m, for sums of columns as for those of rows, m0 goes with m5, m1 with m2, m3 with m4: the
 * sum of a pair is in y0 and y2, its difference in y1 and y3 (winograd_transform_sums).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS WINOGRAD_PRODUCT_PARAMS
#define SHARED_NUMBERS
#include "access.glsl"
#include "winograd.glsl"

TENSOR(0, readonly, vec4, v)
TENSOR(1, readonly, vec4, u)
TENSOR(2, readonly, float, aux)
TENSOR(3, writeonly, float, y)
#include "winograd_store.glsl"

#define TILE_OUT_VECS 2u
#define TILE_OUTS (4u * TILE_OUT_VECS)
#define TILE_BLOCKS 4u /* of WINOGRAD_LANES tiles, of a workgroup */
#define CHUNK_DIGITS 5u /* of the number of a chunk: less than 128 MiB, what a block of v has */
#define GROUP_DIGITS 11u

/* What the sums of all points have in common. */
struct tile_place {
    uint v_at; /* of the invocation's four tiles, first chunk and point */
    uint u_first[TILE_OUT_VECS];
    uint chunks;
};

/* The sums of a point for four tiles, an output channel each. */
void tile_sums(tile_place place, uint point, out vec4 sums[TILE_OUTS]) {
    const uint v_pitch = WINOGRAD_LANES / 4u; /* from a source channel to the next */
    [[unroll]] for (uint s = 0u; s < TILE_OUTS; s++)
        sums[s] = vec4(0.0);
    uint v_at = place.v_at + point * (WINOGRAD_CHUNK * v_pitch);
    uint u_from = shared_number(point, 2u) * WINOGRAD_CHUNK;
    uint chunk = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
        uint u_at = u_from + shared_number(chunk, CHUNK_DIGITS) * (WINOGRAD_POINTS * WINOGRAD_CHUNK);
        [[unroll]] for (uint q = 0u; q < WINOGRAD_CHUNK; q++) {
            vec4 value = AT(v, v_at + q * v_pitch);
            [[unroll]] for (uint a = 0u; a < TILE_OUT_VECS; a++) {
                vec4 weight = AT(u, place.u_first[a] + u_at + q);
                [[unroll]] for (uint j = 0u; j < 4u; j++)
                    sums[a * 4u + j] = fma(value, vec4(weight[j]), sums[a * 4u + j]);
            }
        }
        v_at += WINOGRAD_POINTS * WINOGRAD_CHUNK * v_pitch;
        chunk++;
        if (chunk >= place.chunks)
            break;
    }
}

/* The two of a pair, and what its sum counts in y0 and y2, its difference in y1 and y3. Of the pair
   m0, m5 they stand for the sum and for the difference themselves. */
struct tile_pair {
    bool is_ends;
    uint first, second;
    float y1, y2, y3;
};

tile_pair tile_pair_of(uint number) {
    if (number == 0u)
        return tile_pair(true, 0u, 5u, 0.0, 0.0, 1.0);
    if (number == 1u)
        return tile_pair(false, 1u, 2u, WINO_P, WINO_PP, WINO_P * WINO_PP);
    return tile_pair(false, 3u, 4u, WINO_Q, WINO_QQ, WINO_Q * WINO_QQ);
}

void tile_add(tile_pair pair, vec4 first, vec4 second, inout vec4 y0, inout vec4 y1, inout vec4 y2,
              inout vec4 y3) {
    vec4 even = pair.is_ends ? first : first + second;
    vec4 odd = pair.is_ends ? second : first - second;
    y0 += even;
    y1 = fma(vec4(pair.y1), odd, y1);
    y2 = fma(vec4(pair.y2), even, y2);
    y3 = fma(vec4(pair.y3), odd, y3);
}

/* A row of points transformed: four columns of each output channel. */
void tile_row(tile_place place, uint row, out vec4 columns[TILE_OUTS * 4u]) {
    [[unroll]] for (uint s = 0u; s < TILE_OUTS * 4u; s++)
        columns[s] = vec4(0.0);
    uint number = 0u;
    while (true) {
        tile_pair pair = tile_pair_of(number);
        vec4 first[TILE_OUTS], second[TILE_OUTS];
        tile_sums(place, row * WINO_IN + pair.first, first);
        tile_sums(place, row * WINO_IN + pair.second, second);
        [[unroll]] for (uint s = 0u; s < TILE_OUTS; s++)
            tile_add(pair, first[s], second[s], columns[s * 4u], columns[s * 4u + 1u],
                     columns[s * 4u + 2u], columns[s * 4u + 3u]);
        number++;
        if (number == 3u)
            break;
    }
}

/* pixels[(output channel * 4 + row) * 4 + column], for the invocation's four tiles. */
void tile_store(uint first_tile, uint tiles, uint first_own, vec4 pixels[TILE_OUTS * 16u]) {
    winograd_tile tile[4];
    [[unroll]] for (uint t = 0u; t < 4u; t++)
        tile[t] = winograd_tile_find(min(first_tile + t, tiles - 1u), p.first_row, p.n_rows,
                                     p.w_out);
    uint item = 0u;
    while (true) {
        uint own = first_own + item / 4u;
        uint channel = p.first_channel + min(own, p.n_channels - 1u);
        float bias = 0.0;
        if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
            bias = AT(aux, channel);
        [[unroll]] for (uint c = 0u; c < 4u; c++) {
            vec4 pixel = pixels[item * 4u + c];
            [[unroll]] for (uint t = 0u; t < 4u; t++) {
                uint y_row = tile[t].row + item % 4u;
                if (first_tile + t < tiles && own < p.n_channels && y_row < p.h_out &&
                    tile[t].col + c < p.w_out)
                    store(tile[t].image, channel,
                          (channel * p.h_out + y_row) * p.w_out + tile[t].col + c, bias, pixel[t]);
            }
        }
        item++;
        if (item == TILE_OUTS * 4u)
            break;
    }
}

void main() {
    uint chunks = div_up(p.c_in, WINOGRAD_CHUNK);
    uint out_blocks = div_up(p.n_channels, 4u);
    uint tiles = p.n * p.n_rows * div_up(p.w_out, WINOGRAD_OUT);
    uint blocks = div_up(tiles, WINOGRAD_LANES);
    /* There are workgroups for single blocks and four output channels. Those that work are spread
       evenly, since drivers give each thread a run of them. */
    uint out_groups = div_up(out_blocks, TILE_OUT_VECS);
    uint wanted = div_up(blocks, TILE_BLOCKS) * out_groups;
    uint spread = blocks * out_blocks / wanted;
    uint group = flat_group() / spread;
    if (group >= wanted || flat_group() != group * spread)
        return;
    uint out_group = group % out_groups;
    uint shared_out = shared_number(out_group, GROUP_DIGITS) * TILE_OUT_VECS;
    uint lane = gl_LocalInvocationID.x;
    uint block = group / out_groups * TILE_BLOCKS + lane / (WINOGRAD_LANES / TILE_BLOCKS);
    uint vec = lane % (WINOGRAD_LANES / TILE_BLOCKS); /* of the block's tiles */
    tile_place place;
    place.chunks = chunks;
    place.v_at = min(block, blocks - 1u) * chunks *
                     (WINOGRAD_POINTS * WINOGRAD_CHUNK * WINOGRAD_LANES / 4u) + vec;
    [[unroll]] for (uint a = 0u; a < TILE_OUT_VECS; a++)
        place.u_first[a] = min(shared_out + a, out_blocks - 1u) * chunks *
                           (WINOGRAD_POINTS * WINOGRAD_CHUNK);
    vec4 pixels[TILE_OUTS * 16u];
    [[unroll]] for (uint s = 0u; s < TILE_OUTS * 16u; s++)
        pixels[s] = vec4(0.0);
    uint number = 0u;
    while (true) {
        tile_pair pair = tile_pair_of(number);
        vec4 first[TILE_OUTS * 4u], second[TILE_OUTS * 4u];
        tile_row(place, pair.first, first);
        tile_row(place, pair.second, second);
        [[unroll]] for (uint s = 0u; s < TILE_OUTS * 4u; s++) {
            uint to = s / 4u * 16u + s % 4u;
            tile_add(pair, first[s], second[s], pixels[to], pixels[to + 4u], pixels[to + 8u],
                     pixels[to + 12u]);
        }
        number++;
        if (number == 3u)
            break;
    }
    tile_store(block * WINOGRAD_LANES + vec * 4u, tiles, out_group * TILE_OUTS, pixels);
}
