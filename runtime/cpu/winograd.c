/*
 * winograd.c: conv_fwd and conv_dgrad with a kernel of 3 x 3 by Winograd's minimal filtering,
 * F(4 x 4, 3 x 3): a tile of 4 x 4 outputs costs 36 multiplications for each pair of channels
 * in place of 144 (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray,
 * Fast Algorithms for Convolutional Neural Networks, 2016):
 *
 *     y = A' [sum over k of (G w G') * (B' x B)] A,
 *
 * x the 6 x 6 inputs that the tile needs, * element by element. Written for all tiles, each of the
 * 36 elements is a product of matrices, [outputs][k] by [k][tiles], which conv_sum_product does.
 *
 * The points of the interpolation are 0, +-5/8, +-3/2 and infinity: A and B are exact in binary,
 * and errors are less than half of those of the usual 0, +-1, +-2 (docs/runtime.md has figures and
 * the bound).
 *
 * Tiles lie at multiples of 4 of the output grid and are numbered row by row over all images; a
 * block of them is computed at once. In the outer layers, with many tiles and small weights, phase
 * 0 transforms all weights into shared memory, and a unit of phase 1 is a block of tiles for all
 * outputs, which transforms its input itself. In the inner layers, with few tiles and large
 * weights, it is the other way round: phase 0 transforms the input, and a unit is a block of
 * outputs, which transforms its weights.
 *
 * A pixel's value depends on its place in its tile and on all inputs of the tile, those past the
 * end of the map included, which count as zero; not on threads, blocks or lanes.
 */
#include "runtime/cpu/conv_table.h"

#include "common/base.h"
#include "runtime/cpu/conv_output.h"

#define OUT 4u    /* pixels of a tile in each direction */
#define IN 6u     /* input pixels that it needs */
#define POINTS 36 /* elements of a transformed tile */

/* The points +-P and +-Q. */
#define P 0.625f
#define Q 1.5f

/* Sizes of blocks, found by measuring: what a unit touches while it works on a row of points stays
   in a second-level cache of 1 MiB, a block of k of one point under a register tile in the first.
 */
#define INPUT_FLOATS (128u << 10)
#define MOST_TILES (6u * CPU_LANES) /* of a unit with all outputs, */
#define REGISTER_TILES (3u * CPU_LANES)
#define MOST_OUTS 256u
#define MOST_TILES_SHARED 144u /* of one with a block of outputs */
#define SUMS_FLOATS (96u << 10)
#define K_BLOCK 96u
#define K_UNIT 8u /* input channels of a unit of phase 0 */
#define PAD 16u   /* floats that keep points, or rows, out of each other's cache lines */

/* Rows of points that are computed together, because they share most of their work. */
#define GROUPS 3
#define GROUP_POINTS (2 * IN)
static const uint32_t group_rows[GROUPS][2] = {{0, 5}, {1, 2}, {3, 4}};

struct winograd {
    uint32_t tiles_across, tiles_down, tiles; /* of an image; of all */
    uint32_t k_count, out_count, out4;
    uint32_t block_tiles, blocks; /* block_tiles: whole vectors */
    uint32_t row;                 /* floats of a block's tiles, for one k or one output */
    uint32_t out_block, out_blocks, k_block, k_blocks;
    bool shares_input;                              /* transformed once, not the weights */
    size_t input_point, sums_point, panel_point;    /* floats from one point to the next */
    size_t input_floats, sums_floats, panel_floats; /* of a block */
};

static uint32_t even_part(uint32_t count, uint32_t most) {
    return div_up(count, div_up(count, MAX(most, 1)));
}

static void set_blocks(struct winograd *w) {
    uint32_t tiles = MOST_TILES_SHARED, outs = MOST_OUTS;
    if (!w->shares_input) {
        tiles = MIN(INPUT_FLOATS / (POINTS * w->k_count), MOST_TILES);
        tiles = MAX(tiles / REGISTER_TILES, 1) * REGISTER_TILES;
    }
    w->block_tiles = (uint32_t)align_up(even_part(w->tiles, tiles), CPU_LANES);
    w->blocks = div_up(w->tiles, w->block_tiles);
    w->row = w->block_tiles + (w->block_tiles % 64 == 0 ? PAD : 0);
    if (w->shares_input)
        outs = MAX(SUMS_FLOATS / (GROUP_POINTS * w->row) / CPU_LANES * CPU_LANES, CPU_LANES);
    w->out_block = (uint32_t)align_up(even_part(w->out_count, outs), CPU_LANES);
    w->out_blocks = div_up(w->out_count, w->out_block);
    w->k_block = even_part(w->k_count, K_BLOCK);
    w->k_blocks = div_up(w->k_count, w->k_block);
}

static struct winograd describe(const union kernel_params *params) {
    const struct conv_params *p = &params->conv;
    struct winograd w = {.tiles_across = div_up(p->w_out, OUT),
                         .tiles_down = div_up(p->h_out, OUT),
                         .k_count = p->c_in,
                         .out_count = p->c_out,
                         .out4 = (uint32_t)align_up(p->c_out, 4)};
    w.tiles = p->n * w.tiles_across * w.tiles_down;
    w.shares_input = w.tiles < p->c_out;
    set_blocks(&w);
    w.input_point = (size_t)w.k_count * w.row + PAD;
    w.sums_point = (size_t)w.out_block * w.row + PAD;
    w.panel_point = (size_t)(w.shares_input ? w.k_block : w.k_count) * w.out_block + PAD;
    w.input_floats = POINTS * w.input_point;
    w.sums_floats = POINTS * w.sums_point + CPU_LANES;
    w.panel_floats = (w.shares_input ? GROUP_POINTS : POINTS) * w.panel_point;
    return w;
}

static uint32_t winograd_units(const union kernel_params *params, uint32_t phase) {
    const struct winograd w = describe(params);
    if (phase == 0)
        return w.shares_input ? w.blocks * div_up(w.k_count, K_UNIT) : w.out_blocks * w.k_blocks;
    return w.shares_input ? w.blocks * w.out_blocks : w.blocks;
}

static size_t winograd_shared(const union kernel_params *params) {
    const struct winograd w = describe(params);
    return (w.shares_input ? w.blocks * w.input_floats : w.out_blocks * w.panel_floats) *
           sizeof(float);
}

static size_t winograd_scratch(const union kernel_params *params) {
    const struct winograd w = describe(params);
    return (w.sums_floats + (w.shares_input ? w.panel_floats : w.input_floats)) * sizeof(float);
}

/* ---- tiles ---- */

/* Tiles of a block that lie side by side, as many as a vector has lanes at most. */
struct segment {
    uint32_t first; /* tile of the block */
    uint32_t count;
    uint32_t image, row, col; /* of the output grid, in tiles */
};

static uint32_t tiles_of(const struct winograd *w, uint32_t block) {
    return MIN(w->block_tiles, w->tiles - block * w->block_tiles);
}

static struct segment segment_at(const struct winograd *w, uint32_t block, uint32_t first) {
    const uint32_t tile = block * w->block_tiles + first, row = tile / w->tiles_across;
    const uint32_t col = tile % w->tiles_across;
    return (struct segment){
        .first = first,
        .count = MIN(MIN(CPU_LANES, w->tiles_across - col), tiles_of(w, block) - first),
        .image = row / w->tiles_down,
        .row = row % w->tiles_down,
        .col = col};
}

/* ---- input ---- */

/* B' d for six elements. */
CPU_INLINE void transform_input(simd_vec d[IN]) {
    const simd_vec p = simd_set(P), q = simd_set(Q), pp = simd_set(-P * P), qq = simd_set(-Q * Q);
    const simd_vec sum = simd_set(-(P * P + Q * Q)), product = simd_set(P * P * Q * Q);
    const simd_vec even_p = simd_fma(qq, d[2], d[4]), odd_p = p * simd_fma(qq, d[1], d[3]);
    const simd_vec even_q = simd_fma(pp, d[2], d[4]), odd_q = q * simd_fma(pp, d[1], d[3]);
    const simd_vec first = simd_fma(product, d[0], simd_fma(sum, d[2], d[4]));
    const simd_vec last = simd_fma(product, d[1], simd_fma(sum, d[3], d[5]));
    d[0] = first;
    d[1] = even_p + odd_p;
    d[2] = even_p - odd_p;
    d[3] = even_q + odd_q;
    d[4] = even_q - odd_q;
    d[5] = last;
}

/* Column 4 * l + j of five vectors, for each lane l, to tiles[j], j < 6. */
CPU_INLINE void take_columns(const simd_vec v[5], simd_vec tiles[IN]) {
    const simd_vec even0 = simd_even(v[0], v[1]), even1 = simd_even(v[2], v[3]);
    const simd_vec odd0 = simd_odd(v[0], v[1]), odd1 = simd_odd(v[2], v[3]);
    tiles[0] = simd_even(even0, even1);
    tiles[1] = simd_even(odd0, odd1);
    tiles[2] = simd_odd(even0, even1);
    tiles[3] = simd_odd(odd0, odd1);
    tiles[4] = simd_next0(tiles[0], v[4]);
    tiles[5] = simd_next1(tiles[1], v[4]);
}

struct source {
    const float *x; /* of the image */
    int64_t row, col, height, width;
    size_t plane;
};

static struct source source_of(const struct cpu_call *call, const struct segment *segment) {
    const struct conv_params *p = &call->params->conv;
    return (struct source){.x = (const float *)call->bindings[0] +
                                (size_t)segment->image * p->x_stride_n,
                           .row = (int64_t)segment->row * OUT - p->pad_h,
                           .col = (int64_t)segment->col * OUT - p->pad_w,
                           .height = p->h_in,
                           .width = p->w_in,
                           .plane = (size_t)p->h_in * p->w_in};
}

/* Columns of five vectors of row y; zero outside of the map. */
CPU_INLINE void load_row(const struct source *source, const float *x, int64_t y, simd_vec v[5]) {
    const float *row = x + y * source->width;
    if (y < 0 || y >= source->height) {
        for (int i = 0; i < 5; i++)
            v[i] = simd_zero();
    } else if (source->col >= 0 && source->col + 5 * CPU_LANES <= source->width) {
        for (int i = 0; i < 5; i++)
            v[i] = simd_load(row + source->col + i * CPU_LANES);
    } else {
        for (int i = 0; i < 5; i++)
            v[i] = simd_load_window(row, source->col + i * CPU_LANES, source->width);
    }
}

static void prefetch_rows(const struct source *source, const float *x) {
    const int64_t col = MAX(source->col, 0);
    for (int64_t y = MAX(source->row, 0); y < MIN(source->row + IN, source->height); y++)
        simd_prefetch(x + y * source->width + col,
                      (uint32_t)MIN(source->width - col, 4 * CPU_LANES + 2));
}

/* One channel of a segment to dst[point]; `room` lanes may be written. */
CPU_INLINE void transform_segment(const struct source *source, const float *x, size_t point,
                                  float *dst, uint32_t room) {
    simd_vec columns[5][IN];
    for (uint32_t i = 0; i < IN; i++) {
        simd_vec v[5];
        load_row(source, x, source->row + i, v);
        for (int c = 0; c < 5; c++)
            columns[c][i] = v[c];
    }
    for (int c = 0; c < 5; c++)
        transform_input(columns[c]);
    for (uint32_t i = 0; i < IN; i++) {
        simd_vec tiles[IN];
        const simd_vec v[5] = {columns[0][i], columns[1][i], columns[2][i], columns[3][i],
                               columns[4][i]};
        take_columns(v, tiles);
        transform_input(tiles);
        for (uint32_t j = 0; j < IN; j++, dst += point)
            if (room >= CPU_LANES)
                simd_store(dst, tiles[j]);
            else
                simd_store_part(dst, tiles[j], (int)room);
    }
}

/* Channels k0 <= k < k1 of a block's tiles to input[point][k][tile]. A segment also writes lanes of
   those that come after it. */
static void transform_inputs(const struct cpu_call *call, const struct winograd *w, uint32_t block,
                             uint32_t k0, uint32_t k1, float *input) {
    const uint32_t tiles = tiles_of(w, block);
    for (uint32_t k = k0; k < k1; k++) {
        struct segment segment;
        for (uint32_t first = 0; first < tiles; first += segment.count) {
            segment = segment_at(w, block, first);
            const struct source source = source_of(call, &segment);
            if (k + 1 < k1)
                prefetch_rows(&source, source.x + (k + 1) * source.plane);
            transform_segment(&source, source.x + k * source.plane, w->input_point,
                              input + (size_t)k * w->row + first, w->block_tiles - first);
        }
    }
}

/* ---- weights ---- */

/* G g for three elements. */
CPU_INLINE void transform_weight(const simd_vec g[3], simd_vec u[IN]) {
    const float at_p = 1 / (2 * P * P * (P * P - Q * Q)), at_q = 1 / (2 * Q * Q * (Q * Q - P * P));
    const simd_vec even_p = simd_set(at_p) * simd_fma(simd_set(P * P), g[2], g[0]);
    const simd_vec even_q = simd_set(at_q) * simd_fma(simd_set(Q * Q), g[2], g[0]);
    const simd_vec odd_p = simd_set(at_p * P) * g[1], odd_q = simd_set(at_q * Q) * g[1];
    u[0] = simd_set(1 / (P * P * Q * Q)) * g[0];
    u[1] = even_p + odd_p;
    u[2] = even_p - odd_p;
    u[3] = even_q + odd_q;
    u[4] = even_q - odd_q;
    u[5] = g[2];
}

/* CPU_LANES outputs to tiles of CONV_SUM_OUT, which lie `stride` floats apart. */
CPU_INLINE void store_outs(float *dst, simd_vec v, size_t stride) {
    float lanes[CPU_LANES] __attribute__((aligned(CPU_ALIGN)));
    simd_store(lanes, v);
    for (uint32_t i = 0; i < CPU_LANES / CONV_SUM_OUT; i++)
        memcpy(dst + i * stride, lanes + i * CONV_SUM_OUT, CONV_SUM_OUT * sizeof(float));
}

struct weight_block {
    const float *w; /* of the first k and output */
    uint32_t row;   /* floats from one tap to the next */
    uint32_t k_count, outs;
    uint32_t there; /* floats of a row from the first output on; what is not there is zero */
};

static inline __attribute__((always_inline)) void
load_taps(const struct weight_block *block, uint32_t k, uint32_t o, simd_vec taps[3][3]) {
    const float *src = block->w + (size_t)k * 9 * block->row + o;
    const int count = (int)MIN(block->there - MIN(o, block->there), CPU_LANES);
    for (uint32_t t = 0; t < 9; t++) {
        const float *tap = src + (size_t)t * block->row;
        if (k + 2 < block->k_count) /* too far apart for the processor to foresee */
            __builtin_prefetch(tap + (size_t)18 * block->row, 0, 2);
        taps[t % 3][t / 3] = count == CPU_LANES ? simd_load(tap)
                             : count > 0        ? simd_load_part(tap, 0, count)
                                                : simd_zero();
    }
}

/* Two rows of points of the weights, each to panel[j][o / CONV_SUM_OUT][k][o % CONV_SUM_OUT], j <
   6, `point` floats apart. */
CPU_INLINE void transform_rows(const struct weight_block *block, const uint32_t rows[2],
                               float *const panels[2], size_t point) {
    const size_t stride = (size_t)block->k_count * CONV_SUM_OUT;
    for (uint32_t o = 0; o < block->outs; o += CPU_LANES)
        for (uint32_t k = 0; k < block->k_count; k++) {
            simd_vec taps[3][3], columns[3][IN];
            load_taps(block, k, o, taps);
            for (int c = 0; c < 3; c++)
                transform_weight(taps[c], columns[c]);
            for (int r = 0; r < 2; r++) {
                const simd_vec row[3] = {columns[0][rows[r]], columns[1][rows[r]],
                                         columns[2][rows[r]]};
                simd_vec u[IN];
                transform_weight(row, u);
                float *dst = panels[r] + o * (size_t)block->k_count + (size_t)k * CONV_SUM_OUT;
                for (uint32_t j = 0; j < IN; j++, dst += point)
                    store_outs(dst, u[j], stride);
            }
        }
}

/* A group of points of the weights of k0 <= k < k1 and a block of outputs. */
static void transform_weights(const struct winograd *w, const float *weights, uint32_t out_index,
                              uint32_t k0, uint32_t k1, int group, float *const panels[2]) {
    const uint32_t out = out_index * w->out_block;
    const struct weight_block block = {.w = weights + (size_t)k0 * 9 * w->out4 + out,
                                       .row = w->out4,
                                       .k_count = k1 - k0,
                                       .outs = w->out_block,
                                       .there = w->out4 - out};
    if (group == 0)
        transform_rows(&block, group_rows[0], panels, w->panel_point);
    else if (group == 1)
        transform_rows(&block, group_rows[1], panels, w->panel_point);
    else
        transform_rows(&block, group_rows[2], panels, w->panel_point);
}

/* ---- sums ---- */

/* One point, k0 <= k < k1. */
static void add_product(const struct winograd *w, uint32_t tiles, uint32_t point, uint32_t k0,
                        uint32_t k1, const float *input, const float *panel, float *sums) {
    CPU_FN(conv_sum_product)
    (&(struct conv_product){.x = input + point * w->input_point + (size_t)k0 * w->row,
                            .x_stride = w->row,
                            .weights = panel,
                            .sums = sums + point * w->sums_point,
                            .sums_stride = w->row,
                            .k_count = k1 - k0,
                            .pixels = tiles,
                            .outs = w->out_block,
                            .is_first = k0 == 0});
}

/* A' m for six elements. */
CPU_INLINE void transform_sums(const simd_vec m[IN], simd_vec y[OUT]) {
    const simd_vec p = simd_set(P), pp = simd_set(P * P), ppp = simd_set(P * P * P);
    const simd_vec q = simd_set(Q), qq = simd_set(Q * Q), qqq = simd_set(Q * Q * Q);
    const simd_vec even_p = m[1] + m[2], odd_p = m[1] - m[2];
    const simd_vec even_q = m[3] + m[4], odd_q = m[3] - m[4];
    y[0] = m[0] + even_p + even_q;
    y[1] = simd_fma(p, odd_p, q * odd_q);
    y[2] = simd_fma(pp, even_p, qq * even_q);
    y[3] = simd_fma(ppp, odd_p, simd_fma(qqq, odd_q, m[5]));
}

/* Sums of one output channel in a segment, 36 vectors `point` floats apart, to rows of pixels. */
CPU_INLINE void transform_output(const float *sums, size_t point,
                                 float lines[OUT][OUT * CPU_LANES]) {
    simd_vec columns[IN][OUT];
    for (uint32_t j = 0; j < IN; j++) {
        simd_vec m[IN];
        for (uint32_t i = 0; i < IN; i++)
            m[i] = simd_load(sums + (i * IN + j) * point);
        transform_sums(m, columns[j]);
    }
    for (uint32_t i = 0; i < OUT; i++) {
        simd_vec m[IN], y[CPU_LANES];
        for (uint32_t j = 0; j < IN; j++)
            m[j] = columns[j][i];
        transform_sums(m, y);
        simd_interleave(y, OUT);
        for (uint32_t v = 0; v < OUT; v++)
            simd_store(lines[i] + v * CPU_LANES, y[v]);
    }
}

static void finish_segment(const struct conv_params *p, const struct segment *segment,
                           const struct conv_output *output, const float *sums, size_t point) {
    const uint32_t row = segment->row * OUT, col = segment->col * OUT;
    const uint32_t n_rows = MIN(OUT, p->h_out - row);
    const uint32_t n_cols = MIN(segment->count * OUT, p->w_out - col);
    float lines[OUT][OUT * CPU_LANES] __attribute__((aligned(CPU_ALIGN)));
    transform_output(sums, point, lines);
    for (uint32_t r = 0; r < n_rows; r++)
        conv_output_row(output, lines[r], (size_t)(row + r) * p->w_out + col, n_cols);
}

static void finish(const struct cpu_call *call, const struct winograd *w, uint32_t block,
                   uint32_t out_index, const float *sums) {
    const uint32_t out = out_index * w->out_block, n_out = MIN(w->out_block, w->out_count - out);
    const uint32_t tiles = tiles_of(w, block);
    for (uint32_t o = 0; o < n_out; o++) {
        struct segment segment;
        for (uint32_t first = 0; first < tiles; first += segment.count) {
            segment = segment_at(w, block, first);
            const struct conv_output output = conv_output_of(call, segment.image, out + o);
            finish_segment(&call->params->conv, &segment, &output, sums + o * w->row + first,
                           w->sums_point);
        }
    }
}

/* ---- units ---- */

static void run_first(const struct cpu_call *call, const struct winograd *w, uint32_t unit) {
    if (w->shares_input) {
        const uint32_t block = unit % w->blocks, k = unit / w->blocks * K_UNIT;
        transform_inputs(call, w, block, k, MIN(k + K_UNIT, w->k_count),
                         (float *)call->shared + block * w->input_floats);
        return;
    }
    const uint32_t k = unit % w->k_blocks * w->k_block, out = unit / w->k_blocks;
    float *panel = (float *)call->shared + out * w->panel_floats + (size_t)k * w->out_block;
    for (int g = 0; g < GROUPS; g++) {
        float *const rows[2] = {panel + group_rows[g][0] * IN * w->panel_point,
                                panel + group_rows[g][1] * IN * w->panel_point};
        transform_weights(w, call->bindings[1], out, k, MIN(k + w->k_block, w->k_count), g, rows);
    }
}

static void run_outs(const struct cpu_call *call, const struct winograd *w, uint32_t unit) {
    const uint32_t block = unit % w->blocks, out = unit / w->blocks;
    const float *input = (const float *)call->shared + block * w->input_floats;
    float *sums = call->scratch, *panel = sums + w->sums_floats;
    float *const rows[2] = {panel, panel + IN * w->panel_point};
    for (int g = 0; g < GROUPS; g++)
        for (uint32_t k = 0; k < w->k_count; k += w->k_block) {
            const uint32_t end = MIN(k + w->k_block, w->k_count);
            transform_weights(w, call->bindings[1], out, k, end, g, rows);
            for (uint32_t i = 0; i < GROUP_POINTS; i++)
                add_product(w, tiles_of(w, block), group_rows[g][i / IN] * IN + i % IN, k, end,
                            input, panel + i * w->panel_point, sums);
        }
    finish(call, w, block, out, sums);
}

static void run_tiles(const struct cpu_call *call, const struct winograd *w, uint32_t block) {
    float *sums = call->scratch, *input = sums + w->sums_floats;
    transform_inputs(call, w, block, 0, w->k_count, input);
    for (uint32_t out = 0; out < w->out_blocks; out++) {
        const float *panel = (const float *)call->shared + out * w->panel_floats;
        for (uint32_t i = 0; i < POINTS; i++)
            for (uint32_t k = 0; k < w->k_count; k += w->k_block)
                add_product(w, tiles_of(w, block), i, k, MIN(k + w->k_block, w->k_count), input,
                            panel + i * w->panel_point + (size_t)k * w->out_block, sums);
        finish(call, w, block, out, sums);
    }
}

static void winograd_run(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    const struct winograd w = describe(call->params);
    if (phase == 0)
        run_first(call, &w, unit);
    else if (w.shares_input)
        run_outs(call, &w, unit);
    else
        run_tiles(call, &w, unit);
}

#define KERNEL(name)                                                                               \
    const struct cpu_kernel CPU_FN(cpu_##name##_winograd) = {.id = KERNEL_ID_##name,               \
                                                             .n_phases = 2,                        \
                                                             .units = winograd_units,              \
                                                             .shared_bytes = winograd_shared,      \
                                                             .scratch_bytes = winograd_scratch,    \
                                                             .run = winograd_run};
KERNEL(conv_fwd)
KERNEL(conv_dgrad)
