#version 450
/*
 * conv_winograd2.comp: conv_fwd and conv_dgrad of 3 x 3 with dilation 1 for GPUs by Winograd's
 * minimal filtering F(2 x 2, 3 x 3), points 0, +-1 and infinity, in one kernel without scratch:
 *     y = epilogue(A' [sum over i of (G w G') * (B' x B)] A)    for tiles of 2 x 2 pixels of y.
 * 16 multiplications for four outputs and a source channel instead of 36; its error bound is in
 * docs/runtime.md.
 *
 * A workgroup of 256 computes OUTS output channels of TILES tiles: 16 invocations for each of the
 * 16 points, each OUT_VECS * 4 channels of TILE_VECS * 4 tiles of its point. A step takes
 * STEP_CHANNELS source channels: invocations load a tile of the source or nine taps each while the
 * step before is multiplied, transform them and stage the 16 points in shared memory. At the end
 * the sums of the points meet there, 8 channels at a time.
 *
 * Neighbouring invocations belong to two points whose rows would lie in the same banks of shared
 * memory: those of odd points have their two halves exchanged.
 *
 * Shared memory: the larger of 64 * STEP_CHANNELS * (OUTS + TILES) and 512 * TILES bytes.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define ROLE 0
#define WEIGHT_TYPE float
#include "conv_roles.glsl"

layout(constant_id = 4) const uint OUT_VECS = 2;
layout(constant_id = 5) const uint TILE_VECS = 2;
layout(constant_id = 6) const uint STEP_CHANNELS = 8; /* (OUTS + TILES) times it: times 256 */
layout(constant_id = 7) const uint EDGES = 1; /* 0: no tile reaches outside of the source */

#define POINTS 16u
#define SIZE 256u
#define MEETING 8u /* channels whose sums meet at a time */
const uint U_VECS = OUT_VECS * 4u;
const uint V_VECS = TILE_VECS * 4u;
const uint OUTS = U_VECS * 4u;
const uint TILES = V_VECS * 4u;
const uint V_ITEMS = STEP_CHANNELS * TILES;
const uint ITEMS = STEP_CHANNELS * (OUTS + TILES) / SIZE; /* of an invocation in a step */
const uint V_FIRST = STEP_CHANNELS * POINTS * U_VECS;     /* in the pool, behind u */
const uint STEP_VECS = V_FIRST + STEP_CHANNELS * POINTS * V_VECS;
const uint MEETING_VECS = POINTS * MEETING * V_VECS;

shared vec4 pool[STEP_VECS > MEETING_VECS ? STEP_VECS : MEETING_VECS];

/* B' d: four elements of the input in place. */
void transform_input(inout float d0, inout float d1, inout float d2, inout float d3) {
    float first = d0 - d2, last = d1 - d3;
    float even = d1 + d2, odd = d2 - d1;
    d0 = first;
    d1 = even;
    d2 = odd;
    d3 = last;
}

/* G g: three taps to four elements. */
void transform_weights(float g0, float g1, float g2, out float u[4]) {
    float even = 0.5 * (g0 + g2), odd = 0.5 * g1;
    u[0] = g0;
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = g2;
}

/* Which vec4 of a point's row holds the one numbered so. */
uint place_in_row(uint vec, uint point) {
    return vec ^ (point % 2u * 4u);
}

/* Is the item a tile of the source, or taps? Mostly known when the shader is compiled. */
bool is_tile(uint i, uint item) {
    if ((i + 1u) * SIZE <= V_ITEMS)
        return true;
    return i * SIZE < V_ITEMS && item < V_ITEMS;
}

void main() {
    uint columns = COLUMNS;
    uint across = div_up(p.w_out, 2u);
    uint tiles = div_up(p.h_out, 2u) * across;
    uint out_blocks = div_up(columns, U_VECS);
    uint tile_blocks = div_up(tiles, TILES);
    uint group = flat_group();
    uint image = group / (out_blocks * tile_blocks);
    if (image >= p.n)
        return;
    group -= image * out_blocks * tile_blocks;
    uint tile_block = group / out_blocks;
    uint first_out = (group - tile_block * out_blocks) * OUTS;
    uint first_tile = tile_block * TILES;

    uint lane = gl_LocalInvocationID.x;
    uint point = lane / 16u;
    uint out_lane = lane % 4u, tile_lane = lane / 4u % 4u;
    uint plane = p.h_in * p.w_in;

    vec4 sum[TILE_VECS * 4u * OUT_VECS];
    [[unroll]] for (uint s = 0u; s < TILE_VECS * 4u * OUT_VECS; s++)
        sum[s] = vec4(0.0);

    float staged[ITEMS * 16u];
    for (uint first = 0u;; first += STEP_CHANNELS) {
        if (first < p.c_in) {
            [[unroll]] for (uint i = 0u; i < ITEMS; i++) {
                uint item = lane + i * SIZE;
                if (is_tile(i, item)) {
                    uint channel = first + item / TILES;
                    uint tile = min(first_tile + item % TILES, tiles - 1u);
                    uint tile_y = tile / across;
                    uint y = tile_y * 2u - p.pad_h; /* negative positions wrap round */
                    uint x = (tile - tile_y * across) * 2u - p.pad_w;
                    bool exists = channel < p.c_in;
                    uint from = image * p.x_stride_n + channel * plane + y * p.w_in + x;
                    [[unroll]] for (uint r = 0u; r < 4u; r++) {
                        [[unroll]] for (uint c = 0u; c < 4u; c++) {
                            bool inside =
                                exists && (EDGES == 0u || (y + r < p.h_in && x + c < p.w_in));
                            float value = AT(src, inside ? from + r * p.w_in + c : 0u);
                            staged[i * 16u + r * 4u + c] = inside ? value : 0.0;
                        }
                    }
                } else {
                    uint channel = first + (item - V_ITEMS) / OUTS;
                    uint own = first_out + (item - V_ITEMS) % OUTS;
                    bool exists = channel < p.c_in && own < columns * 4u;
                    uint from = exists ? channel * 9u * columns * 4u + own : 0u;
                    [[unroll]] for (uint t = 0u; t < 9u; t++) {
                        float weight = AT(w, from + (exists ? t * columns * 4u : 0u));
                        staged[i * 16u + t] = exists ? weight : 0.0;
                    }
                }
            }
        }
        if (first > 0u) { /* the step before */
            [[unroll]] for (uint d = 0u; d < STEP_CHANNELS; d++) {
                uint row = d * POINTS + point;
                vec4 weight[OUT_VECS];
                [[unroll]] for (uint a = 0u; a < OUT_VECS; a++)
                    weight[a] = pool[row * U_VECS + place_in_row(a * 4u + out_lane, point)];
                [[unroll]] for (uint b = 0u; b < TILE_VECS; b++) {
                    vec4 value =
                        pool[V_FIRST + row * V_VECS + place_in_row(b * 4u + tile_lane, point)];
                    [[unroll]] for (uint j = 0u; j < 4u; j++) {
                        [[unroll]] for (uint a = 0u; a < OUT_VECS; a++) {
                            uint s = (b * 4u + j) * OUT_VECS + a;
                            sum[s] = fma(vec4(value[j]), weight[a], sum[s]);
                        }
                    }
                }
            }
        }
        if (first >= p.c_in)
            break;
        if (first > 0u)
            barrier();
        [[unroll]] for (uint i = 0u; i < ITEMS; i++) {
            uint item = lane + i * SIZE;
            uint o = i * 16u;
            if (is_tile(i, item)) {
                [[unroll]] for (uint c = 0u; c < 4u; c++)
                    transform_input(staged[o + c], staged[o + 4u + c], staged[o + 8u + c],
                                    staged[o + 12u + c]);
                [[unroll]] for (uint r = 0u; r < 16u; r += 4u)
                    transform_input(staged[o + r], staged[o + r + 1u], staged[o + r + 2u],
                                    staged[o + r + 3u]);
                uint tile = item % TILES;
                uint row = V_FIRST + item / TILES * POINTS * V_VECS;
                [[unroll]] for (uint e = 0u; e < POINTS; e++)
                    pool[row + e * V_VECS + place_in_row(tile / 4u, e)][tile % 4u] = staged[o + e];
            } else {
                uint own = (item - V_ITEMS) % OUTS;
                uint row = (item - V_ITEMS) / OUTS * POINTS * U_VECS;
                float columns_done[12];
                [[unroll]] for (uint c = 0u; c < 3u; c++) {
                    float column[4];
                    transform_weights(staged[o + c], staged[o + 3u + c], staged[o + 6u + c],
                                      column);
                    [[unroll]] for (uint r = 0u; r < 4u; r++)
                        columns_done[r * 3u + c] = column[r];
                }
                [[unroll]] for (uint r = 0u; r < 4u; r++) {
                    float u[4];
                    transform_weights(columns_done[r * 3u], columns_done[r * 3u + 1u],
                                      columns_done[r * 3u + 2u], u);
                    [[unroll]] for (uint c = 0u; c < 4u; c++)
                        pool[row + (r * 4u + c) * U_VECS + place_in_row(own / 4u, c)][own % 4u] =
                            u[c];
                }
            }
        }
        barrier();
    }

    /* Sums meet: of each invocation two channels of a vec4 at a time. */
    [[unroll]] for (uint pair = 0u; pair < OUT_VECS * 2u; pair++) {
        uint a = pair / 2u;
        barrier();
        [[unroll]] for (uint k = 0u; k < 2u; k++) {
            uint j = pair % 2u * 2u + k;
            [[unroll]] for (uint b = 0u; b < TILE_VECS; b++)
                pool[(point * MEETING + out_lane * 2u + k) * V_VECS + b * 4u + tile_lane] =
                    vec4(sum[(b * 4u) * OUT_VECS + a][j], sum[(b * 4u + 1u) * OUT_VECS + a][j],
                         sum[(b * 4u + 2u) * OUT_VECS + a][j],
                         sum[(b * 4u + 3u) * OUT_VECS + a][j]);
        }
        barrier();
        [[unroll]] for (uint first = 0u; first < MEETING * TILES; first += SIZE) {
            uint tile = (first + lane) % TILES;
            uint meeting = (first + lane) / TILES;
            uint number = first_tile + tile;
            place to = place_first(first_out + (a * 4u + meeting / 2u) * 4u + pair % 2u * 2u +
                                   meeting % 2u);
            float rows[8]; /* the columns of points added up */
            [[unroll]] for (uint c = 0u; c < 4u; c++) {
                float m[4];
                [[unroll]] for (uint r = 0u; r < 4u; r++)
                    m[r] = pool[((r * 4u + c) * MEETING + meeting) * V_VECS + tile / 4u][tile % 4u];
                rows[c] = m[0] + m[1] + m[2];
                rows[4u + c] = m[1] - m[2] - m[3];
            }
            float bias = place_bias(to);
            uint tile_y = number / across;
            uint y = tile_y * 2u, x = (number - tile_y * across) * 2u;
            bool exists = number < tiles && place_exists(to);
            [[unroll]] for (uint r = 0u; r < 2u; r++) {
                uint o = r * 4u;
                float pixels[2];
                pixels[0] = rows[o] + rows[o + 1u] + rows[o + 2u];
                pixels[1] = rows[o + 1u] - rows[o + 2u] - rows[o + 3u];
                [[unroll]] for (uint c = 0u; c < 2u; c++) {
                    if (exists && y + r < p.h_out && x + c < p.w_out)
                        place_store(to, bias, image, place_at(to, y + r, x + c), pixels[c]);
                }
            }
        }
    }
}
