#version 450
/*
 * conv_lane.comp: conv_fwd, conv_dgrad and upconv_fwd (ROLE, conv_roles.glsl) for CPU devices on
 * the address path, where a load at an address that all lanes share is one broadcast.
 *
 * Lanes are neighbouring columns of the weights, a workgroup has ROWS x COLS pixels. A lane gathers
 * the weights of its column once for all pixels, and source pixels are shared by all lanes: a step
 * of CHUNK source channels costs CHUNK * KH * KW gathers for ROWS * COLS times as many
 * multiply-adds. Sums live on the stack: four neighbouring ones are loaded, get all their taps and
 * are stored. What limits pixels * taps * CHUNK is the instruction cache (32 KB): a loop twice as
 * long runs at two thirds of the speed.
 *
 * Tiles at the lower and right edge are moved back until they lie inside the map, so that source
 * pixels are at constant distances; what belongs to the neighbour is computed and not stored.
 * tile.c sees to it that the map has at least a tile's size, and the number of source channels is a
 * multiple of CHUNK. Built with EDGES, the padding is at most MARGIN, so only that many of the
 * outermost rows and columns of a tile's source pixels can lie outside; without, none.
 *
 * Sums run over source channel, ky, kx in this order.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define WEIGHT_TYPE float
#include "conv_roles.glsl"

/* 1x1 taps: the pixels of a plane are one row. */
#if KH == 1 && KW == 1
#define TILED_H 1u
#define TILED_W (PIXELS_H * PIXELS_W)
#define SRC_PITCH 0u
#else
#define TILED_H PIXELS_H
#define TILED_W PIXELS_W
#define SRC_PITCH SRC_W
#endif
#define TILE_RUN 4u
#define SPAN_H (ROWS - 1 + KH)
#define SPAN_W (COLS - 1 + KW)
#ifdef EDGES
#define MARGIN 2
#define INNER_W (SPAN_W - 2 * MARGIN)
#endif

void main() {
    uint pitch = COLUMNS * 4u;
    uint column_blocks = div_up(pitch, gl_WorkGroupSize.x);
    uint tiles_x = div_up(TILED_W, COLS);
    uint tiles = div_up(TILED_H, ROWS) * tiles_x;
    uint group = flat_group();
    /* TILE_RUN tiles share the weights of a block of columns while a cache holds them, then the
       next block reads the same source pixels. */
    uint all_tiles = p.n * tiles;
    uint run = group / (column_blocks * TILE_RUN);
    uint run_tiles = clamp(all_tiles - min(run * TILE_RUN, all_tiles), 1u, TILE_RUN);
    uint in_run = group - run * column_blocks * TILE_RUN;
    uint column_block = in_run / run_tiles;
    uint map_tile = run * TILE_RUN + in_run - column_block * run_tiles;
    uint column = column_block * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint image = map_tile / tiles;
    uint tile = map_tile - image * tiles;
    bool live = image < p.n && column < pitch; /* a last, shorter run has columns past the end */
    /* Workgroups that are not needed go through the motions of one step (see conv_reg.comp). */
    uint channels = image < p.n ? SRC_C : uint(CHUNK);
    image = min(image, p.n - 1u);
    uint tile_y = tile / tiles_x;
    uint own_y = tile_y * ROWS;
    uint own_x = (tile - tile_y * tiles_x) * COLS;
    uint y0 = min(own_y, TILED_H - ROWS);
    uint x0 = min(own_x, TILED_W - COLS);

    float sum[ROWS * COLS];
    [[unroll]] for (int b = 0; b < ROWS * COLS; b++)
        sum[b] = 0.0;

    uint plane_at = image * SRC_STRIDE_N;
#ifdef EDGES
    uint span_row_at[SPAN_H], span_col_at[SPAN_W];
    bool row_in[SPAN_H], col_in[SPAN_W];
    [[unroll]] for (int r = 0; r < SPAN_H; r++) {
        int y = int(y0) + r - int(PAD_H);
        row_in[r] = y >= 0 && y < int(SRC_H);
        span_row_at[r] = uint(clamp(y, 0, int(SRC_H) - 1)) * SRC_W;
    }
    [[unroll]] for (int c = 0; c < SPAN_W; c++) {
        int x = int(x0) + c - int(PAD_W);
        col_in[c] = x >= 0 && x < int(SRC_W);
        span_col_at[c] = uint(clamp(x, 0, int(SRC_W) - 1));
    }
#else
    uint tile_at = y0 * SRC_PITCH + x0;
#endif
    uint weight_at = min(column, pitch - 1u);
    uint s = 0u;
    while (true) { /* tested at the end, see docs/shaders.md */
        float weight[CHUNK * KH * KW];
        [[unroll]] for (int i = 0; i < CHUNK * KH * KW; i++)
            weight[i] = AT(w, weight_at + i * pitch);
        /* Addresses of the rows, of all channels of the step. */
        uvec2 row_from[CHUNK * SPAN_H];
        [[unroll]] for (int i = 0; i < CHUNK * SPAN_H; i++) {
            uint channel_at = plane_at + i / SPAN_H * (SRC_H * SRC_W);
#ifdef EDGES
            uint row_at = channel_at + span_row_at[i % SPAN_H] + x0 + MARGIN - PAD_W;
#else
            uint row_at = channel_at + tile_at + i % SPAN_H * SRC_PITCH;
#endif
            row_from[i] = address_of_word(p.address[src_binding], row_at);
        }
        [[unroll]] for (int r = 0; r < ROWS; r++) {
            [[unroll]] for (int c = 0; c < COLS; c += 4) {
                vec4 part = vec4(sum[r * COLS + c], sum[r * COLS + c + 1], sum[r * COLS + c + 2],
                                 sum[r * COLS + c + 3]);
                [[unroll]] for (int i = 0; i < CHUNK * KH; i++) {
                    float value[3 + KW];
                    int span_y = r + i % KH;
                    src_block row = src_block(row_from[i / KH * SPAN_H + span_y]);
#ifdef EDGES
                    uint row_at = plane_at + i / KH * (SRC_H * SRC_W) + span_row_at[span_y];
                    bool edge_row = span_y < MARGIN || span_y >= SPAN_H - MARGIN;
                    bool in_row = edge_row ? row_in[span_y] : true;
                    /* No branches, or loops do not unroll; of both loads one is dropped. */
                    [[unroll]] for (int j = 0; j < 3 + KW; j++) {
                        int at = c + j;
                        bool edge = at < MARGIN || at >= SPAN_W - MARGIN;
                        float inner_value = row.data[clamp(at - MARGIN, 0, INNER_W - 1)];
                        float edge_value = AT(src, row_at + span_col_at[at]);
                        float loaded = edge ? edge_value : inner_value;
                        bool in_col = edge ? col_in[at] : true;
                        value[j] = in_row && in_col ? loaded : 0.0;
                    }
#else
                    [[unroll]] for (int j = 0; j < 3 + KW; j++)
                        value[j] = row.data[c + j];
#endif
                    [[unroll]] for (int kx = 0; kx < KW; kx++) {
                        vec4 values =
                            vec4(value[kx], value[kx + 1], value[kx + 2], value[kx + 3]);
                        part = fma(values, vec4(weight[i * KW + kx]), part);
                    }
                }
                [[unroll]] for (int j = 0; j < 4; j++)
                    sum[r * COLS + c + j] = part[j];
            }
        }
        weight_at += CHUNK * KH * KW * pitch;
        plane_at += CHUNK * (SRC_H * SRC_W);
        s += CHUNK;
        if (s >= channels)
            break;
    }

    place to = place_first(column);
    float bias = place_bias(to);
    bool stored = live && place_exists(to);
    float result[ROWS * COLS];
    [[unroll]] for (int b = 0; b < ROWS * COLS; b++)
        result[b] = sum[b];
    uint b = 0u;
    while (true) {
        uint y = y0 + b / COLS, x = x0 + b % COLS;
        bool own = y >= own_y && x >= own_x;
#if KH == 1 && KW == 1
        y = x / PIXELS_W;
        x -= y * PIXELS_W;
#endif
        if (stored && own)
            place_store(to, bias, image, place_at(to, y, x), result[b]);
        b++;
        if (b == ROWS * COLS)
            break;
    }
}
