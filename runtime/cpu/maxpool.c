/*
 * maxpool.c: native kernels of max-pooling and its gradient. Comparisons go in scan order (ky, kx)
 * and a later value replaces the maximum only when it is greater: the gradient goes to the first
 * maximum of a window, as in shaders/maxpool_bwd.comp.
 */
#include <string.h>

#include "runtime/cpu/variant.h"

/* ---- forward: a unit is a band of output rows of one plane ---- */

static uint32_t fwd_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct maxpool_params *p = &params->maxpool;
    return p->n * p->c * cpu_bands(p->n * p->c, p->h_out);
}

/* One row of output; inlined for the usual strides, so that the compiler knows them. */
static inline void fwd_row(const struct maxpool_params *p, const float *x, float *y,
                           uint32_t stride) {
    for (uint32_t tap = 0; tap < p->kernel * p->kernel; tap++) {
        const uint32_t ky = tap / p->kernel, kx = tap - ky * p->kernel;
        const float *from = x + ((size_t)ky * p->w_in + kx) * p->dilation;
        for (uint32_t i = 0; tap == 0 && i < p->w_out; i++)
            y[i] = from[(size_t)i * stride];
        CPU_INDEPENDENT
        for (uint32_t i = 0; i < p->w_out; i++) {
            const float value = from[(size_t)i * stride];
            y[i] = value > y[i] ? value : y[i];
        }
    }
}

static inline float greater(float best, float value) {
    return value > best ? value : best;
}

static void fwd_row_2x2(const struct maxpool_params *p, const float *x, float *y) {
    const float *below = x + p->w_in;
    CPU_INDEPENDENT
    for (size_t i = 0; i < p->w_out; i++)
        y[i] = greater(greater(greater(x[2 * i], x[2 * i + 1]), below[2 * i]), below[2 * i + 1]);
}

static void maxpool_fwd(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct maxpool_params *p = &call->params->maxpool;
    const struct cpu_plane plane = cpu_plane_of(p->n, p->c, p->h_out, unit);
    const float *x =
        (const float *)call->bindings[0] +
        cpu_offset(plane.image, p->x_stride_n, (size_t)plane.channel * p->h_in * p->w_in);
    float *y = (float *)call->bindings[1] +
               cpu_offset(plane.image, p->y_stride_n, (size_t)plane.channel * p->h_out * p->w_out);
    for (uint32_t row = plane.rows.begin; row < plane.rows.end; row++) {
        const float *from = x + (size_t)row * p->stride * p->w_in;
        float *to = y + (size_t)row * p->w_out;
        if (p->kernel == 2 && p->stride == 2 && p->dilation == 1)
            fwd_row_2x2(p, from, to);
        else if (p->stride == 1)
            fwd_row(p, from, to, 1);
        else
            fwd_row(p, from, to, p->stride);
    }
}

/* ---- backward ---- */

struct bwd_plane {
    const float *x, *dy;
    float *dx;
};

static struct bwd_plane bwd_plane(const struct cpu_call *call, struct cpu_plane plane) {
    const struct maxpool_bwd_params *p = &call->params->maxpool_bwd;
    const size_t in = (size_t)p->h_in * p->w_in, out = (size_t)p->h_out * p->w_out;
    return (struct bwd_plane){(const float *)call->bindings[0] +
                                  cpu_offset(plane.image, p->x_stride_n, plane.channel * in),
                              (const float *)call->bindings[1] +
                                  cpu_offset(plane.image, p->dy_stride_n, plane.channel * out),
                              (float *)call->bindings[2] +
                                  cpu_offset(plane.image, p->dx_stride_n, plane.channel * in)};
}

/* Windows of 2 x 2 that neither overlap nor leave gaps. */
static bool is_tight(const struct maxpool_bwd_params *p) {
    return p->kernel == 2 && p->stride == 2 && p->dilation == 1;
}

/* Tight: a unit is a band of rows of windows, those included that only cover an edge of dx. Else:
   a plane, because windows of different rows may share elements of dx. */
static uint32_t bwd_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct maxpool_bwd_params *p = &params->maxpool_bwd;
    const uint32_t planes = p->n * p->c;
    return is_tight(p) ? planes * cpu_bands(planes, div_up(p->h_in, 2)) : planes;
}

static void bwd_row_2x2(const struct maxpool_bwd_params *p, const float *x, const float *dy,
                        float *dx) {
    const float *below = x + p->w_in;
    float *dx_below = dx + p->w_in;
    CPU_INDEPENDENT
    for (size_t i = 0; i < p->w_out; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
        const float ab = greater(a, b), abc = greater(ab, c);
        const float value = dy[i], to_d = d > abc ? value : 0.0f, not_d = d > abc ? 0.0f : value;
        const float to_c = c > ab ? not_d : 0.0f, not_c = c > ab ? 0.0f : not_d;
        dx[2 * i] = b > a ? 0.0f : not_c;
        dx[2 * i + 1] = b > a ? not_c : 0.0f;
        dx_below[2 * i] = to_c;
        dx_below[2 * i + 1] = to_d;
    }
}

static void zero_row(float *dx, uint32_t begin, uint32_t end) {
    memset(dx + begin, 0, (end - begin) * sizeof(float));
}

static void bwd_tight(const struct cpu_call *call, uint32_t unit) {
    const struct maxpool_bwd_params *p = &call->params->maxpool_bwd;
    const struct cpu_plane plane = cpu_plane_of(p->n, p->c, div_up(p->h_in, 2), unit);
    const struct bwd_plane at = bwd_plane(call, plane);
    for (uint32_t row = plane.rows.begin; row < plane.rows.end; row++) {
        const size_t first = (size_t)row * 2 * p->w_in;
        const bool window = row < p->h_out;
        if (window)
            bwd_row_2x2(p, at.x + first, at.dy + (size_t)row * p->w_out, at.dx + first);
        const uint32_t covered = window ? 2 * p->w_out : 0;
        for (uint32_t y = 2 * row; y < MIN(2 * row + 2, p->h_in); y++)
            zero_row(at.dx + (size_t)y * p->w_in, covered, p->w_in);
    }
}

#define PIECE 256u /* windows of a row whose maxima are found side by side */

/* The offset, from the first element of each window, of its first maximum. */
static void first_maxima(const struct maxpool_bwd_params *p, const float *x, uint32_t count,
                         uint32_t offsets[PIECE]) {
    float best[PIECE];
    for (uint32_t i = 0; i < count; i++) {
        best[i] = x[(size_t)i * p->stride];
        offsets[i] = 0;
    }
    for (uint32_t tap = 1; tap < p->kernel * p->kernel; tap++) {
        const uint32_t ky = tap / p->kernel, kx = tap - ky * p->kernel;
        const uint32_t offset = (ky * p->w_in + kx) * p->dilation;
        for (uint32_t i = 0; i < count; i++) {
            const float value = x[(size_t)i * p->stride + offset];
            offsets[i] = value > best[i] ? offset : offsets[i];
            best[i] = value > best[i] ? value : best[i];
        }
    }
}

static void bwd_any(const struct cpu_call *call, uint32_t unit) {
    const struct maxpool_bwd_params *p = &call->params->maxpool_bwd;
    const struct cpu_plane plane = {unit / p->c, unit % p->c, {0, 0}};
    const struct bwd_plane at = bwd_plane(call, plane);
    uint32_t offsets[PIECE];
    memset(at.dx, 0, (size_t)p->h_in * p->w_in * sizeof(float));
    for (uint32_t row = 0; row < p->h_out; row++) {
        for (uint32_t col = 0; col < p->w_out; col += PIECE) {
            const uint32_t count = MIN(PIECE, p->w_out - col);
            const size_t first = ((size_t)row * p->w_in + col) * p->stride;
            first_maxima(p, at.x + first, count, offsets);
            const float *dy = at.dy + (size_t)row * p->w_out + col;
            for (uint32_t i = 0; i < count; i++)
                at.dx[first + (size_t)i * p->stride + offsets[i]] += dy[i];
        }
    }
}

static void maxpool_bwd(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    if (is_tight(&call->params->maxpool_bwd))
        bwd_tight(call, unit);
    else
        bwd_any(call, unit);
}

/* ---- with an index: a unit of the forward pass is the windows of a block of words ---- */

static uint32_t index_blocks(uint32_t h_out, uint32_t w_out) {
    return div_up(h_out * w_out, POOL_INDEX_WINDOWS);
}

static uint32_t index_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct maxpool_index_params *p = &params->maxpool_index;
    return p->n * p->c * index_blocks(p->h_out, p->w_out);
}

/* Neighbouring windows of one row, whose bits lie in neighbouring words. */
static void index_run(const float *x, const float *below, float *y, uint32_t *words, uint32_t shift,
                      uint32_t count) {
    CPU_INDEPENDENT
    for (size_t i = 0; i < count; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], c = below[2 * i], d = below[2 * i + 1];
        const float ab = greater(a, b), abc = greater(ab, c);
        const uint32_t to_b = b > a ? 1u : 0u, to_c = c > ab ? 2u : to_b;
        y[i] = greater(abc, d);
        words[i] |= (d > abc ? 3u : to_c) << shift;
    }
}

static void maxpool_index(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct maxpool_index_params *p = &call->params->maxpool_index;
    const uint32_t blocks = index_blocks(p->h_out, p->w_out), windows = p->h_out * p->w_out;
    const uint32_t plane = unit / blocks, image = plane / p->c, channel = plane % p->c;
    const float *x = (const float *)call->bindings[0] +
                     cpu_offset(image, p->x_stride_n, (size_t)channel * p->h_in * p->w_in);
    float *y =
        (float *)call->bindings[1] + cpu_offset(image, p->y_stride_n, (size_t)channel * windows);
    uint32_t words[POOL_INDEX_LANES] = {0};
    const uint32_t first = unit % blocks * POOL_INDEX_WINDOWS;
    const uint32_t last = MIN(first + POOL_INDEX_WINDOWS, windows);
    for (uint32_t i = first, count; i < last; i += count) {
        const uint32_t row = i / p->w_out, col = i % p->w_out, lane = i % POOL_INDEX_LANES;
        count = MIN(MIN(p->w_out - col, POOL_INDEX_LANES - lane), last - i);
        const float *from = x + (size_t)row * 2 * p->w_in + (size_t)col * 2;
        index_run(from, from + p->w_in, y + i, words + lane, (i - first) / POOL_INDEX_LANES * 2,
                  count);
    }
    memcpy((uint32_t *)call->bindings[2] + (size_t)unit * POOL_INDEX_LANES, words, sizeof(words));
}

static uint32_t unpool_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct maxpool_unpool_params *p = &params->maxpool_unpool;
    return p->n * p->c * cpu_bands(p->n * p->c, div_up(p->h_in, 2));
}

static void unpool_run(const uint32_t *words, uint32_t shift, const float *dy, float *dx,
                       float *dx_below, uint32_t count) {
    CPU_INDEPENDENT
    for (size_t i = 0; i < count; i++) {
        const uint32_t tap = words[i] >> shift & 3u;
        const float value = dy[i];
        dx[2 * i] = tap == 0 ? value : 0.0f;
        dx[2 * i + 1] = tap == 1 ? value : 0.0f;
        dx_below[2 * i] = tap == 2 ? value : 0.0f;
        dx_below[2 * i + 1] = tap == 3 ? value : 0.0f;
    }
}

static void unpool_row(const struct maxpool_unpool_params *p, const uint32_t *words, uint32_t row,
                       const float *dy, float *dx) {
    for (uint32_t col = 0, count; col < p->w_out; col += count) {
        const uint32_t i = row * p->w_out + col, lane = i % POOL_INDEX_LANES;
        count = MIN(p->w_out - col, POOL_INDEX_LANES - lane);
        float *to = dx + (size_t)col * 2;
        unpool_run(words + i / POOL_INDEX_WINDOWS * POOL_INDEX_LANES + lane,
                   i % POOL_INDEX_WINDOWS / POOL_INDEX_LANES * 2, dy + i, to, to + p->w_in, count);
    }
}

static void maxpool_unpool(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct maxpool_unpool_params *p = &call->params->maxpool_unpool;
    const struct cpu_plane plane = cpu_plane_of(p->n, p->c, div_up(p->h_in, 2), unit);
    const uint32_t *words = (const uint32_t *)call->bindings[0] +
                            ((size_t)plane.image * p->c + plane.channel) *
                                index_blocks(p->h_out, p->w_out) * POOL_INDEX_LANES;
    const float *dy =
        (const float *)call->bindings[1] +
        cpu_offset(plane.image, p->dy_stride_n, (size_t)plane.channel * p->h_out * p->w_out);
    float *dx = (float *)call->bindings[2] +
                cpu_offset(plane.image, p->dx_stride_n, (size_t)plane.channel * p->h_in * p->w_in);
    for (uint32_t row = plane.rows.begin; row < plane.rows.end; row++) {
        const bool window = row < p->h_out;
        if (window)
            unpool_row(p, words, row, dy, dx + (size_t)row * 2 * p->w_in);
        const uint32_t covered = window ? 2 * p->w_out : 0;
        for (uint32_t y = 2 * row; y < MIN(2 * row + 2, p->h_in); y++)
            zero_row(dx + (size_t)y * p->w_in, covered, p->w_in);
    }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_maxpool_fwd, .n_phases = 1, .units = fwd_units, .run = maxpool_fwd},
    {.id = KERNEL_ID_maxpool_bwd, .n_phases = 1, .units = bwd_units, .run = maxpool_bwd},
    {.id = KERNEL_ID_maxpool_index, .n_phases = 1, .units = index_units, .run = maxpool_index},
    {.id = KERNEL_ID_maxpool_unpool, .n_phases = 1, .units = unpool_units, .run = maxpool_unpool},
};

CPU_FIND(cpu_maxpool_find)
