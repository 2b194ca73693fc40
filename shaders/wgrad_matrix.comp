#version 450
/*
 * wgrad_matrix.comp: conv_wgrad and upconv_wgrad (ROLE, wgrad_places.glsl) on the matrix units of a
 * GPU, as conv_matrix.comp: factors rounded to half precision, sums in single.
 *
 * A workgroup computes TILE_ROWS rows and TILE_COLS columns, every subgroup SUB_ROWS by SUB_COLS of
 * them; a step is DEPTH pixels, of which an invocation stages two neighbours. The workgroup's size
 * is the number of parts times the size of a subgroup, a multiple of DEPTH / 2. Pixels are added in
 * ascending order of steps.
 *
 * Of dy, what is out of the range of half precision becomes infinite, of x it is clamped (half.glsl).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_NV_cooperative_matrix : require
#pragma use_vulkan_memory_model
#include "kernel_contract.h"

#define ROLE_CONV 0
#define ROLE_UPCONV 1

#if ROLE == ROLE_CONV
#define PARAMS CONV_WGRAD_PARAMS
#else
#define PARAMS UPCONV_WGRAD_PARAMS
#endif
#include "access.glsl"
#include "half.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, float, dy)
TENSOR(2, writeonly, float, partial)

layout(constant_id = 4) const uint M_SIZE = 16;
layout(constant_id = 5) const uint N_SIZE = 16;
layout(constant_id = 6) const uint K_SIZE = 16;
layout(constant_id = 7) const uint TILE_ROWS = 128;
layout(constant_id = 8) const uint TILE_COLS = 64;
layout(constant_id = 9) const uint SUB_ROWS = 32;
layout(constant_id = 10) const uint SUB_COLS = 32;
layout(constant_id = 11) const uint DEPTH = 32;
layout(constant_id = 12) const uint PADDED = 1; /* 0: all taps are inside x */
layout(constant_id = 13) const uint KH = 3;
layout(constant_id = 14) const uint KW = 3;

#include "wgrad_places.glsl"

#define MATRIX_A fcoopmatNV<16, gl_ScopeSubgroup, M_SIZE, K_SIZE>
#define MATRIX_B fcoopmatNV<16, gl_ScopeSubgroup, K_SIZE, N_SIZE>
#define MATRIX_C fcoopmatNV<32, gl_ScopeSubgroup, M_SIZE, N_SIZE>

const uint PARTS_DOWN = TILE_ROWS / SUB_ROWS;
const uint PARTS = PARTS_DOWN * (TILE_COLS / SUB_COLS);
const uint DOWN = SUB_ROWS / M_SIZE; /* matrices of a subgroup */
const uint ACROSS = SUB_COLS / N_SIZE;
#include "matrix_grid.glsl"

/* A row of shared memory has the pixels of one row or column, in pairs. */
const uint PAIRS = DEPTH / 2;
const uint PITCH = PAIRS + 4;
const uint STAGERS = gl_WorkGroupSize.x / PAIRS;
const uint OWN_ROWS = TILE_ROWS / STAGERS; /* that an invocation stages of its pixels */
const uint OWN_COLS = TILE_COLS / STAGERS;

shared uint x_tile[TILE_ROWS * PITCH];
shared uint dy_tile[TILE_COLS * PITCH];
shared float sum_tile[PARTS * M_SIZE * N_SIZE];

/* A pixel of the map: where its first tap lies in x, and its own place in dy. */
struct pixel_place {
    uint y, x;         /* of the first tap, may wrap round */
    uint x_at, dy_at;  /* of its first element */
    bool valid;        /* else it counts as zero, read from pixel 0 */
};

pixel_place place_pixel(uint pixel, uint end) {
    bool valid = pixel < end;
    uint map_row = (valid ? pixel : 0u) / PIXELS_W;
    uint image = map_row / PIXELS_H;
    uint row = map_row - image * PIXELS_H;
    uint col = (valid ? pixel : 0u) - map_row * PIXELS_W;
    uint y = row - X_PAD_H, x = col - X_PAD_W;
    return pixel_place(y, x, image * p.x_stride_n + y * p.w_in + x,
                       image * p.dy_stride_n + row * DY_STEP_H * DY_W + col * DY_STEP_W, valid);
}

float load_x(pixel_place pixel, row_place row) {
    bool inside = PADDED == 0u ||
                  (pixel.y + row.tap_y < p.h_in && pixel.x + row.tap_x < p.w_in);
    float value = AT(x, inside ? pixel.x_at + row.offset : 0u);
    return inside && pixel.valid ? value : 0.0;
}

float load_dy(pixel_place pixel, uint col) {
    return pixel.valid ? AT(dy, pixel.dy_at + col) : 0.0;
}

/* A matrix of sums, from shared memory. */
void store_sums(uint slot, uint split, uint first_row, uint first_col) {
    for (uint e = gl_SubgroupInvocationID; e < M_SIZE * N_SIZE; e += gl_SubgroupSize) {
        uint row = first_row + e / N_SIZE;
        uint col = first_col + e % N_SIZE;
#if ROLE == ROLE_CONV
        uint channel = col;
#else
        uint channel = col % out_pitch;
#endif
        if (row < ROWS && col < COLS)
            AT(partial, (split * ROWS + row) * COLS + col) =
                channel < p.c_out ? sum_tile[slot + e] : 0.0;
    }
}

void main() {
    uint rows = ROWS, cols = COLS;
    uint row_blocks = div_up(rows, TILE_ROWS), col_blocks = div_up(cols, TILE_COLS);
    uint group = flat_group();
    uint split = group / (row_blocks * col_blocks);
    if (split >= p.splits)
        return;
    group -= split * row_blocks * col_blocks;
    uint row_block = group / col_blocks;
    uint first_row = row_block * TILE_ROWS;
    uint first_col = (group - row_block * col_blocks) * TILE_COLS;

    uint lane = gl_LocalInvocationID.x;
    uint part = gl_SubgroupID;
    uint sub_row = part % PARTS_DOWN * SUB_ROWS;
    uint sub_col = part / PARTS_DOWN * SUB_COLS;
    uint pair = lane % PAIRS;
    uint stage_from = lane / PAIRS;

    /* Rows and columns past the end repeat the last one, and are not stored. */
    row_place own_rows[OWN_ROWS];
    uint own_cols[OWN_COLS];
    [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++)
        own_rows[i] = place_row(min(first_row + stage_from + i * STAGERS, rows - 1u));
    [[unroll]] for (uint i = 0u; i < OWN_COLS; i++)
        own_cols[i] = place_col(min(first_col + stage_from + i * STAGERS, cols - 1u));

    uint map_rows = p.n * PIXELS_H;
    uint pixel = split * map_rows / p.splits * PIXELS_W;
    uint end = (split + 1u) * map_rows / p.splits * PIXELS_W;

    MATRIX_CLEAR

    uint staged_x[OWN_ROWS], staged_dy[OWN_COLS];
    bool is_first = true;
    while (true) {
        bool more = pixel < end;
        if (more) {
            pixel_place one = place_pixel(pixel + pair * 2u, end);
            pixel_place two = place_pixel(pixel + pair * 2u + 1u, end);
            [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++)
                staged_x[i] = half_pair(load_x(one, own_rows[i]), load_x(two, own_rows[i]));
            [[unroll]] for (uint i = 0u; i < OWN_COLS; i++)
                staged_dy[i] = half_pair_gradient(load_dy(one, own_cols[i]),
                                                  load_dy(two, own_cols[i]));
            pixel += DEPTH;
        }
        if (!is_first) { /* the step before */
            [[unroll]] for (uint k = 0u; k < DEPTH; k += K_SIZE) {
#define LOAD_A(to, r)                                                                              \
    coopMatLoadNV(to, x_tile, (sub_row + r * M_SIZE) * PITCH + k / 2u, PITCH, false)
#define LOAD_B(to, c)                                                                              \
    coopMatLoadNV(to, dy_tile, (sub_col + c * N_SIZE) * PITCH + k / 2u, PITCH, true)
                MATRIX_MULTIPLY
            }
        }
        if (!more)
            break;
        if (!is_first)
            barrier();
        is_first = false;
        [[unroll]] for (uint i = 0u; i < OWN_ROWS; i++)
            x_tile[(stage_from + i * STAGERS) * PITCH + pair] = staged_x[i];
        [[unroll]] for (uint i = 0u; i < OWN_COLS; i++)
            dy_tile[(stage_from + i * STAGERS) * PITCH + pair] = staged_dy[i];
        barrier();
    }

    uint slot = part * (M_SIZE * N_SIZE);
#define STORE(r, c)                                                                                \
    if (r < DOWN && c < ACROSS) {                                                                  \
        barrier();                                                                                 \
        coopMatStoreNV(sum_##r##_##c, sum_tile, slot, N_SIZE, false);                              \
        barrier();                                                                                 \
        store_sums(slot, split, first_row + sub_row + r * M_SIZE,                                  \
                   first_col + sub_col + c * N_SIZE);                                              \
    }
    MATRIX_GRID(STORE)
}
