/*
 * wgrad.c: conv_wgrad and upconv_wgrad: sums over pixels,
 *
 *     partial[s][i][tap][o] = sum over the pixels p of split s of a[i][p + offset(tap)] * b[o][p].
 *
 * conv_wgrad: a = x with its zero padding, b = dy. upconv_wgrad: a = x, b = dy taken apart, each of
 * the k * k pixels of an output channel being an output of its own. With few input channels every
 * (i, tap) becomes a row of a by itself, so that the register tile is full.
 *
 * Lanes run over outputs, so nothing is summed across lanes. For that both sides are transposed
 * into scratch memory as they are needed: a to [i / WGRAD_IN][row][col][i % WGRAD_IN], b to
 * [o / panel][row][col][o % panel]. A unit is a block of inputs by a block of outputs of one part
 * of a split; it walks over slabs of rows, and its sums stay in scratch memory until the end.
 *
 * Where there are few blocks and many rows (the outermost layers), a split is cut into parts whose
 * sums go to the record's shared memory; a second phase adds them up.
 */
#include "runtime/cpu/conv_table.h"

#include "common/base.h"
#include "runtime/cpu/simd.h"

#if CPU_LANES == 16
#define WGRAD_IN 8
#else
#define WGRAD_IN 4
#endif
#define WGRAD_VECTORS 2
#define PANEL (WGRAD_VECTORS * CPU_LANES)

/* Inputs and outputs of a block: how often a copied pixel is used, over all taps or with one. */
#define BLOCK 64u
#define BLOCK_POINT 256u
#define SLAB_FLOATS (64u << 10)
#define SLAB_PIXELS 1024u
#define SLAB_COLS 256u
#define STRIP_PIXELS 160u /* one panel of b for these stays in the first cache */
#define ENOUGH_UNITS 16u
#define PART_PIXELS 1024u /* fewer are not worth a part */
#define REDUCE_UNIT 8192u /* elements */

struct wgrad {
    uint32_t n, rows, cols, splits;            /* grid of the sum: n * rows, cols */
    uint32_t in_count, out_count, kh, kw, dil; /* rows of a, columns of b */
    uint32_t pad_h, pad_w, h_in, w_in;         /* of a */
    size_t a_stride_n, b_stride_n;
    uint32_t unfold_kh, unfold_kw, unfold_dil; /* rows of a are (i, tap) of these */
    uint32_t up;                               /* columns of b are (tap, o4) of up * up */
    uint32_t b_channels;
    size_t out_row; /* floats in a row of partial: out_count rounded up */
    size_t count;   /* floats in one partial */
    /* Blocks. */
    uint32_t in_block, in_blocks, out_block, out_blocks, parts;
    uint32_t slab_rows, slab_cols;
    size_t a_floats, b_floats, sums_floats;
};

static uint32_t even_part(uint32_t count, uint32_t most) {
    return div_up(count, div_up(count, MAX(most, 1)));
}

static void set_in_out(struct wgrad *w, uint32_t most) {
    w->in_block = even_part(w->in_count, most);
    w->in_block = MIN((uint32_t)align_up(w->in_block, WGRAD_IN), w->in_count);
    w->in_blocks = div_up(w->in_count, w->in_block);
    w->out_block = (uint32_t)align_up(even_part(w->out_count, most), PANEL);
    w->out_blocks = div_up(w->out_count, w->out_block);
}

static void set_blocks(struct wgrad *w) {
    const uint32_t split_rows = div_up(w->n * w->rows, w->splits);
    const uint64_t part_most = MAX((uint64_t)split_rows * w->cols / PART_PIXELS, 1);
    uint32_t block = w->kh * w->kw == 1 ? BLOCK_POINT : BLOCK;
    set_in_out(w, block);
    while (block > 2 * BLOCK &&
           w->splits * w->in_blocks * w->out_blocks * part_most < ENOUGH_UNITS) {
        block /= 2;
        set_in_out(w, block);
    }
    w->slab_cols = even_part(w->cols, SLAB_COLS);
    const uint32_t pixels = MIN(SLAB_PIXELS, SLAB_FLOATS / MAX(w->in_block, w->out_block));
    const uint32_t most_rows = MAX(pixels / w->slab_cols, 1);
    w->slab_rows = even_part(MIN(split_rows, w->rows), most_rows);
    const uint32_t units = w->splits * w->in_blocks * w->out_blocks;
    w->parts = MIN(div_up(ENOUGH_UNITS, units), (uint32_t)part_most);
    w->parts = MIN(w->parts, split_rows);
    const size_t a_cols = w->slab_cols + (w->kw - 1) * (size_t)w->dil;
    const size_t a_rows = w->slab_rows + (w->kh - 1) * (size_t)w->dil;
    const size_t in_padded = align_up(w->in_block, WGRAD_IN);
    w->a_floats = align_up(in_padded * (a_rows * a_cols + CPU_LANES), 16);
    w->b_floats = align_up(w->out_block * ((size_t)w->slab_rows * w->slab_cols + CPU_LANES), 16);
    w->sums_floats = in_padded * w->kh * w->kw * w->out_block;
}

static struct wgrad describe_conv(const union kernel_params *params) {
    const struct conv_wgrad_params *p = &params->conv_wgrad;
    const bool unfold = p->c_in < WGRAD_IN && p->kh * p->kw > 1;
    struct wgrad w = {.n = p->n,
                      .rows = p->h_out,
                      .cols = p->w_out,
                      .splits = p->splits,
                      .in_count = unfold ? p->c_in * p->kh * p->kw : p->c_in,
                      .out_count = p->c_out,
                      .kh = unfold ? 1 : p->kh,
                      .kw = unfold ? 1 : p->kw,
                      .dil = unfold ? 1 : p->dilation,
                      .pad_h = p->pad_h,
                      .pad_w = p->pad_w,
                      .h_in = p->h_in,
                      .w_in = p->w_in,
                      .a_stride_n = p->x_stride_n,
                      .b_stride_n = p->dy_stride_n,
                      .unfold_kh = unfold ? p->kh : 1,
                      .unfold_kw = unfold ? p->kw : 1,
                      .unfold_dil = p->dilation,
                      .up = 1,
                      .b_channels = p->c_out};
    w.out_row = (size_t)align_up(p->c_out, 4);
    w.count = (size_t)p->c_in * p->kh * p->kw * w.out_row;
    set_blocks(&w);
    return w;
}

static struct wgrad describe_upconv(const union kernel_params *params) {
    const struct upconv_wgrad_params *p = &params->upconv_wgrad;
    const uint32_t out4 = (uint32_t)align_up(p->c_out, 4);
    struct wgrad w = {.n = p->n,
                      .rows = p->h_in,
                      .cols = p->w_in,
                      .splits = p->splits,
                      .in_count = p->c_in,
                      .out_count = p->k * p->k * out4,
                      .kh = 1,
                      .kw = 1,
                      .dil = 1,
                      .h_in = p->h_in,
                      .w_in = p->w_in,
                      .a_stride_n = p->x_stride_n,
                      .b_stride_n = p->dy_stride_n,
                      .unfold_kh = 1,
                      .unfold_kw = 1,
                      .unfold_dil = 1,
                      .up = p->k,
                      .b_channels = p->c_out};
    w.out_row = w.out_count;
    w.count = p->c_in * w.out_row;
    set_blocks(&w);
    return w;
}

/* A slab: rows and columns of the grid, of one image. */
struct slab {
    uint32_t image, row, col, n_rows, n_cols;
    uint32_t a_rows, a_cols; /* with the taps around them */
};

/* Inputs of the register tile for the last `left` of them. */
static uint32_t tile_width(uint32_t left) {
    uint32_t width = 1;
    while (width < left && width < WGRAD_IN)
        width *= 2;
    return width;
}

/* `width` rows of n elements, the row's element at + j or zero, to dst[j][row]. Writes up to
   CPU_LANES - 1 columns too many. */
CPU_INLINE void pack_a_row(float *dst, const float *const *rows, const int64_t *at, int64_t w_in,
                           uint32_t n, const int width) {
    for (uint32_t j = 0; j < n; j += CPU_LANES) {
        simd_vec lanes[CPU_LANES];
        for (int r = 0; r < width; r++)
            lanes[r] = rows[r] == NULL ? simd_zero() : simd_load_window(rows[r], at[r] + j, w_in);
        for (int r = 0; r < width; r++)
            if (rows[r] != NULL) /* the next row: each channel's is elsewhere */
                simd_prefetch(rows[r] + w_in + MAX(at[r] + j, 0), CPU_LANES);
        simd_interleave(lanes, width);
        for (int r = 0; r < width; r++)
            simd_store(dst + (size_t)j * width + r * CPU_LANES, lanes[r]);
    }
}

/* Row `row` of a at row r of the slab: where its data are (NULL: outside of the image, all zero)
   and the column of the slab's first. */
static const float *a_source(const struct wgrad *w, const struct slab *slab, const float *a,
                             uint32_t row, uint32_t r, int64_t *at) {
    const uint32_t taps = w->unfold_kh * w->unfold_kw, tap = row % taps;
    const int64_t y =
        (int64_t)slab->row + r + (int64_t)(tap / w->unfold_kw) * w->unfold_dil - w->pad_h;
    *at = (int64_t)slab->col + (int64_t)(tap % w->unfold_kw) * w->unfold_dil - w->pad_w;
    if (row >= w->in_count || y < 0 || y >= (int64_t)w->h_in)
        return NULL;
    return a + slab->image * w->a_stride_n + ((size_t)(row / taps) * w->h_in + (size_t)y) * w->w_in;
}

static void pack_a(const struct wgrad *w, const struct slab *slab, const float *a, uint32_t in0,
                   uint32_t n_in, float *dst) {
    for (uint32_t i = 0; i < n_in; i += WGRAD_IN) {
        const uint32_t width = tile_width(n_in - i);
        float *tile = dst + i * ((size_t)slab->a_rows * slab->a_cols + CPU_LANES);
        for (uint32_t r = 0; r < slab->a_rows; r++) {
            const float *rows[WGRAD_IN];
            int64_t at[WGRAD_IN];
            for (uint32_t m = 0; m < width; m++)
                rows[m] = i + m < n_in ? a_source(w, slab, a, in0 + i + m, r, &at[m]) : NULL;
            float *to = tile + (size_t)r * slab->a_cols * width;
            switch (width) {
            case 1:
                pack_a_row(to, rows, at, w->w_in, slab->a_cols, 1);
                break;
            case 2:
                pack_a_row(to, rows, at, w->w_in, slab->a_cols, 2);
                break;
            case 4:
                pack_a_row(to, rows, at, w->w_in, slab->a_cols, 4);
                break;
            default:
                pack_a_row(to, rows, at, w->w_in, slab->a_cols, WGRAD_IN);
            }
        }
    }
}

/* Elements 0, step, 2 * step ... of p, `left` of them at least one, zero after that. */
CPU_INLINE simd_vec load_each(const float *p, uint32_t step, uint32_t left) {
    if (step == 1)
        return left >= CPU_LANES ? simd_load(p) : simd_load_part(p, 0, (int)left);
    if (step == 2 && left > CPU_LANES)
        return simd_even(simd_load(p), simd_load(p + CPU_LANES));
    if (step == 2) {
        const int64_t width = 2 * (int64_t)left - 1;
        return simd_even(simd_load_window(p, 0, width), simd_load_window(p, CPU_LANES, width));
    }
    float lanes[CPU_LANES] = {0};
    for (uint32_t l = 0; l < MIN(left, CPU_LANES); l++)
        lanes[l] = p[(size_t)l * step];
    return simd_load(lanes);
}

/* CPU_LANES columns of b at row r of the slab, from column `out` on, to dst[pixel][lane]. */
static void pack_b_row(const struct wgrad *w, const struct slab *slab, const float *b, uint32_t out,
                       uint32_t r, float *dst) {
    const uint32_t per_tap = (uint32_t)(w->out_row / (w->up * w->up));
    const size_t width = (size_t)w->cols * w->up, plane = width * w->rows * w->up;
    const float *rows[CPU_LANES];
    for (uint32_t l = 0; l < CPU_LANES; l++) {
        const uint32_t o = (out + l) % per_tap, tap = (out + l) / per_tap;
        const size_t y = (size_t)(slab->row + r) * w->up + tap / w->up;
        rows[l] = out + l >= w->out_count || o >= w->b_channels
                      ? NULL
                      : b + slab->image * w->b_stride_n + o * plane + y * width +
                            (size_t)slab->col * w->up + tap % w->up;
    }
    for (uint32_t j = 0; j < slab->n_cols; j += CPU_LANES) {
        const uint32_t left = slab->n_cols - j;
        simd_vec lanes[CPU_LANES];
        for (int l = 0; l < CPU_LANES; l++)
            lanes[l] =
                rows[l] == NULL ? simd_zero() : load_each(rows[l] + (size_t)j * w->up, w->up, left);
        for (int l = 0; l < CPU_LANES; l++)
            if (rows[l] != NULL)
                simd_prefetch(rows[l] + (width + j) * w->up, CPU_LANES);
        simd_interleave(lanes, CPU_LANES);
        for (uint32_t l = 0; l < MIN(left, CPU_LANES); l++)
            simd_store(dst + ((size_t)j + l) * PANEL, lanes[l]);
    }
}

static size_t panel_stride(const struct slab *slab) {
    return (size_t)slab->n_rows * slab->n_cols * PANEL;
}

/* Vectors of a panel that the last `left` outputs need. */
static uint32_t vectors_of(uint32_t left) {
    return left > CPU_LANES ? WGRAD_VECTORS : 1;
}

static void pack_b(const struct wgrad *w, const struct slab *slab, const float *b, uint32_t out0,
                   uint32_t n_out, float *dst) {
    for (uint32_t o = 0; o < n_out; o += PANEL)
        for (uint32_t r = 0; r < slab->n_rows; r++)
            for (uint32_t v = 0; v < vectors_of(n_out - o); v++)
                pack_b_row(w, slab, b, out0 + o + v * CPU_LANES, r,
                           dst + o / PANEL * panel_stride(slab) + (size_t)r * slab->n_cols * PANEL +
                               v * CPU_LANES);
}

/* The register tile: `ins` inputs by `vectors` vectors of outputs, over rows x cols pixels. */
struct tile_args {
    const float *a, *b;
    size_t a_row; /* floats from row to row */
    uint32_t rows, cols;
    float *sums;
    size_t sums_stride; /* floats from input to input */
};

#ifdef __clang__
#define UNROLL_4 _Pragma("unroll 4")
#else
#define UNROLL_4 _Pragma("GCC unroll 4")
#endif

CPU_INLINE void run_tile(const struct tile_args *args, const int ins, const int vectors) {
    simd_vec sums[WGRAD_IN][WGRAD_VECTORS];
    for (int i = 0; i < ins; i++)
        for (int v = 0; v < vectors; v++)
            sums[i][v] = simd_load(args->sums + i * args->sums_stride + v * CPU_LANES);
    const float *b = args->b;
    for (uint32_t r = 0; r < args->rows; r++) {
        const float *a = args->a + r * args->a_row;
        UNROLL_4
        for (uint32_t c = args->cols; c > 0; c--) {
            simd_vec outs[WGRAD_VECTORS];
            for (int v = 0; v < vectors; v++)
                outs[v] = simd_load(b + v * CPU_LANES);
            for (int i = 0; i < ins; i++) {
                const simd_vec in = simd_set(a[i]);
                for (int v = 0; v < vectors; v++)
                    sums[i][v] = simd_fma(outs[v], in, sums[i][v]);
            }
            a += ins;
            b += PANEL;
        }
    }
    for (int i = 0; i < ins; i++)
        for (int v = 0; v < vectors; v++)
            simd_store(args->sums + i * args->sums_stride + v * CPU_LANES, sums[i][v]);
}

static void run_tile_of(const struct tile_args *args, uint32_t ins, uint32_t vectors) {
    switch (ins * 2 + (vectors - 1)) {
    case 2:
        run_tile(args, 1, 1);
        break;
    case 3:
        run_tile(args, 1, 2);
        break;
    case 4:
        run_tile(args, 2, 1);
        break;
    case 5:
        run_tile(args, 2, 2);
        break;
    case 8:
        run_tile(args, 4, 1);
        break;
    case 9:
        run_tile(args, 4, 2);
        break;
    case 16:
        run_tile(args, WGRAD_IN, 1);
        break;
    default:
        run_tile(args, WGRAD_IN, 2);
    }
}

/* Adds the rows [row, row + n_rows) of the slab to sums[in][tap][out_block]. */
static void add_strip(const struct wgrad *w, const struct slab *slab, const float *a,
                      const float *b, uint32_t row, uint32_t n_rows, uint32_t n_in, uint32_t n_out,
                      float *sums) {
    const uint32_t taps = w->kh * w->kw;
    const size_t a_tile = (size_t)slab->a_rows * slab->a_cols + CPU_LANES;
    for (uint32_t o = 0; o < n_out; o += PANEL)
        for (uint32_t i = 0; i < n_in; i += WGRAD_IN) {
            const uint32_t width = tile_width(n_in - i);
            for (uint32_t t = 0; t < taps; t++) {
                const size_t at = (size_t)(row + t / w->kw * w->dil) * slab->a_cols +
                                  (size_t)(t % w->kw) * w->dil;
                run_tile_of(
                    &(struct tile_args){.a = a + i * a_tile + at * width,
                                        .b = b + o / PANEL * panel_stride(slab) +
                                             (size_t)row * slab->n_cols * PANEL,
                                        .a_row = (size_t)slab->a_cols * width,
                                        .rows = n_rows,
                                        .cols = slab->n_cols,
                                        .sums = sums + ((size_t)i * taps + t) * w->out_block + o,
                                        .sums_stride = (size_t)taps * w->out_block},
                    width, vectors_of(n_out - o));
            }
        }
}

struct block {
    uint32_t split, part, in, n_in, out, n_out;
    uint32_t first_row, last_row; /* of the grid, images one after the other */
};

static struct block block_of(const struct wgrad *w, uint32_t unit) {
    struct block block = {.part = unit % w->parts};
    unit /= w->parts;
    block.split = unit % w->splits;
    unit /= w->splits;
    block.out = unit % w->out_blocks * w->out_block;
    block.in = unit / w->out_blocks * w->in_block;
    block.n_in = MIN(w->in_block, w->in_count - block.in);
    block.n_out = MIN(w->out_block, w->out_count - block.out);
    const uint32_t rows = w->n * w->rows;
    const uint32_t first = block.split * rows / w->splits;
    const uint32_t count = (block.split + 1) * rows / w->splits - first;
    block.first_row = first + (uint32_t)((uint64_t)block.part * count / w->parts);
    block.last_row = first + (uint32_t)((uint64_t)(block.part + 1) * count / w->parts);
    return block;
}

static void add_slab(const struct wgrad *w, const struct cpu_call *call, const struct block *block,
                     const struct slab *slab) {
    float *a = call->scratch, *b = a + w->a_floats, *sums = b + w->b_floats;
    pack_a(w, slab, call->bindings[0], block->in, block->n_in, a);
    pack_b(w, slab, call->bindings[1], block->out, block->n_out, b);
    const uint32_t strip = MAX(STRIP_PIXELS / slab->n_cols, 1);
    for (uint32_t r = 0; r < slab->n_rows; r += strip)
        add_strip(w, slab, a, b, r, MIN(strip, slab->n_rows - r), block->n_in, block->n_out, sums);
}

/* The finished sums of a block to their place in partial (or in one of its parts), the padding as
   zero, also where a sum with it would be no number. */
static void store_block(const struct wgrad *w, const struct block *block, const float *sums,
                        float *partial) {
    const uint32_t taps = w->kh * w->kw, per_tap = (uint32_t)(w->out_row / (w->up * w->up));
    const size_t n_out = MIN(w->out_block, w->out_row - block->out);
    for (size_t row = 0; row < (size_t)block->n_in * taps; row++) {
        float *dst = partial + (block->in * (size_t)taps + row) * w->out_row + block->out;
        memcpy(dst, sums + row * w->out_block, n_out * sizeof(float));
        if (per_tap != w->b_channels)
            for (uint32_t o = 0; o < n_out; o++)
                if ((block->out + o) % per_tap >= w->b_channels)
                    dst[o] = 0;
    }
}

static void add_rows(const struct wgrad *w, const struct cpu_call *call, uint32_t unit) {
    const struct block block = block_of(w, unit);
    float *sums = (float *)call->scratch + w->a_floats + w->b_floats;
    memset(sums, 0, w->sums_floats * sizeof(float));
    for (uint32_t row = block.first_row; row < block.last_row;) {
        struct slab slab = {.image = row / w->rows, .row = row % w->rows};
        slab.n_rows = MIN(MIN(w->slab_rows, block.last_row - row), w->rows - slab.row);
        slab.a_rows = slab.n_rows + (w->kh - 1) * w->dil;
        for (slab.col = 0; slab.col < w->cols; slab.col += w->slab_cols) {
            slab.n_cols = MIN(w->slab_cols, w->cols - slab.col);
            slab.a_cols = slab.n_cols + (w->kw - 1) * w->dil;
            add_slab(w, call, &block, &slab);
        }
        row += slab.n_rows;
    }
    float *partial = w->parts > 1 ? call->shared : call->bindings[2];
    store_block(w, &block, sums,
                partial + (block.split * (size_t)w->parts + block.part) * w->count);
}

/* Phase 1: adds up the parts of every split. */
static void add_parts(const struct wgrad *w, const struct cpu_call *call, uint32_t unit) {
    const size_t first = (size_t)unit * REDUCE_UNIT;
    const size_t last = MIN(first + REDUCE_UNIT, w->count * w->splits);
    float *partial = call->bindings[2];
    for (size_t at = first; at < last; at++) {
        const float *part =
            (const float *)call->shared + at / w->count * w->parts * w->count + at % w->count;
        float sum = part[0];
        for (uint32_t i = 1; i < w->parts; i++)
            sum += part[i * w->count];
        partial[at] = sum;
    }
}

static uint32_t units_of(const struct wgrad *w, uint32_t phase) {
    if (phase == 0)
        return w->splits * w->parts * w->in_blocks * w->out_blocks;
    return w->parts == 1 ? 1 : (uint32_t)((w->count * w->splits + REDUCE_UNIT - 1) / REDUCE_UNIT);
}

static size_t shared_bytes_of(const struct wgrad *w) {
    return w->parts == 1 ? 0 : w->parts * w->splits * w->count * sizeof(float);
}

static size_t scratch_bytes_of(const struct wgrad *w) {
    return (w->a_floats + w->b_floats + w->sums_floats) * sizeof(float);
}

static void run_of(const struct wgrad *w, const struct cpu_call *call, uint32_t phase,
                   uint32_t unit) {
    if (phase == 0)
        add_rows(w, call, unit);
    else if (w->parts > 1)
        add_parts(w, call, unit);
}

#define WGRAD_KERNEL(name)                                                                         \
    static uint32_t name##_units(const union kernel_params *params, uint32_t phase) {              \
        const struct wgrad w = describe_##name(params);                                            \
        return units_of(&w, phase);                                                                \
    }                                                                                              \
    static size_t name##_shared_bytes(const union kernel_params *params) {                         \
        const struct wgrad w = describe_##name(params);                                            \
        return shared_bytes_of(&w);                                                                \
    }                                                                                              \
    static size_t name##_scratch_bytes(const union kernel_params *params) {                        \
        const struct wgrad w = describe_##name(params);                                            \
        return scratch_bytes_of(&w);                                                               \
    }                                                                                              \
    static void name##_run(const struct cpu_call *call, uint32_t phase, uint32_t unit) {           \
        const struct wgrad w = describe_##name(call->params);                                      \
        run_of(&w, call, phase, unit);                                                             \
    }                                                                                              \
    const struct cpu_kernel CPU_FN(cpu_##name##_wgrad) = {.id = KERNEL_ID_##name##_wgrad,          \
                                                          .n_phases = 2,                           \
                                                          .units = name##_units,                   \
                                                          .shared_bytes = name##_shared_bytes,     \
                                                          .scratch_bytes = name##_scratch_bytes,   \
                                                          .run = name##_run};

WGRAD_KERNEL(conv)
WGRAD_KERNEL(upconv)
