/*
 * upconv.c: upconv_fwd and upconv_dgrad in terms of conv_sum.h, on the grid of the small map.
 *
 * Forward, each of the k * k pixels that an input pixel becomes is a group of outputs, and the sums
 * of the groups are put together at the end. Backward, each of the k * k pixels of a gradient
 * channel is a channel of its own, taken apart into the slab.
 */
#include "runtime/cpu/conv_table.h"

#include "common/base.h"
#include "runtime/cpu/conv_sum.h"

#define LINE 256u

static struct conv_sum describe_fwd(const union kernel_params *params) {
    const struct upconv_params *p = &params->upconv;
    return (struct conv_sum){.n = p->n,
                             .k_count = p->c_in,
                             .kh = 1,
                             .kw = 1,
                             .dilation = 1,
                             .groups = p->k * p->k,
                             .out_count = p->c_out,
                             .out4 = (uint32_t)align_up(p->c_out, 4),
                             .rows = p->h_in,
                             .cols = p->w_in,
                             .x_row = p->w_in,
                             .x_plane = (size_t)p->h_in * p->w_in,
                             .x_image = p->x_stride_n};
}

static void pack_fwd(const struct cpu_call *call, const struct conv_tile *tile, uint32_t k0,
                     uint32_t k1, float *slab) {
    const struct upconv_params *p = &call->params->upconv;
    const float *x = (const float *)call->bindings[0] + (size_t)tile->image * p->x_stride_n;
    for (uint32_t k = k0; k < k1; k++)
        for (uint32_t r = 0; r < tile->in_rows; r++)
            memcpy(slab + (k - k0) * tile->slab_stride + (size_t)r * tile->row_stride,
                   x + ((size_t)k * p->h_in + tile->row + r) * p->w_in + tile->col,
                   tile->row_stride * sizeof(float));
}

/* dst[j] = rows[(j % k) * stride + j / k] for from <= j < from + n, from a multiple of
   2 * CPU_LANES. */
static void zip_rows(float *dst, const float *rows, size_t stride, uint32_t k, uint32_t from,
                     uint32_t n) {
    uint32_t done = 0;
    if (k == 2)
        for (; done + 2 * CPU_LANES <= n; done += 2 * CPU_LANES) {
            const float *row = rows + (from + done) / 2;
            simd_vec a = simd_load(row), b = simd_load(row + stride);
            simd_store(dst + done, simd_zip_lo(a, b));
            simd_store(dst + done + CPU_LANES, simd_zip_hi(a, b));
        }
    uint32_t column = (from + done) / k, b = (from + done) % k;
    for (; done < n; done++) {
        dst[done] = rows[b * stride + column];
        if (++b == k) {
            b = 0;
            column++;
        }
    }
}

/* A row of y from the sums of its k groups, n pixels in all; stride: floats between groups. */
static void finish_row(const struct upconv_params *p, const float *sums, size_t stride, float bias,
                       const float *mask, float *y, uint32_t n) {
    float line[LINE + CPU_LANES] = {0};
    const struct conv_epilogue epilogue = {p->epilogue, p->slope};
    for (uint32_t i = 0; i < n; i += LINE) {
        const uint32_t now = MIN(LINE, n - i);
        zip_rows(line, sums, stride, p->k, i, now);
        CPU_FN(conv_epilogue_row)
        (epilogue, line, bias, mask == NULL ? NULL : mask + i, y + i, now);
    }
}

static void finish_fwd(const struct cpu_call *call, const struct conv_tile *tile,
                       const float *sums) {
    const struct upconv_params *p = &call->params->upconv;
    const size_t row = (size_t)p->w_in * p->k, plane = row * p->h_in * p->k;
    const size_t group = tile->n_out * tile->sums_stride;
    const float *aux = call->bindings[2];
    float *y = (float *)call->bindings[3] + (size_t)tile->image * p->y_stride_n;
    for (uint32_t i = 0; i < tile->n_out; i++) {
        const uint32_t o = tile->out + i;
        const float bias = p->epilogue & EPILOGUE_BIAS ? aux[o] : 0;
        for (uint32_t r = 0; r < tile->n_rows; r++)
            for (uint32_t a = 0; a < p->k; a++) {
                const size_t at = o * plane + ((size_t)(tile->row + r) * p->k + a) * row +
                                  (size_t)tile->col * p->k;
                finish_row(
                    p,
                    sums + i * tile->sums_stride + (size_t)r * tile->row_stride + a * p->k * group,
                    group, bias,
                    p->epilogue & EPILOGUE_MASK ? aux + (size_t)tile->image * p->aux_stride_n + at
                                                : NULL,
                    y + at, tile->n_cols * p->k);
            }
    }
}

static struct conv_sum describe_dgrad(const union kernel_params *params) {
    const struct upconv_dgrad_params *p = &params->upconv_dgrad;
    return (struct conv_sum){.n = p->n,
                             .k_count = p->c_out * p->k * p->k,
                             .kh = 1,
                             .kw = 1,
                             .dilation = 1,
                             .groups = 1,
                             .out_count = p->c_in,
                             .out4 = (uint32_t)align_up(p->c_in, 4),
                             .rows = p->h_in,
                             .cols = p->w_in};
}

/* dst[i] = src[i * k] for i < n. src holds k * n - (k - 1) elements at least. */
static void take_each(float *dst, const float *src, uint32_t k, uint32_t n) {
    uint32_t i = 0;
    if (k == 2) {
        const int64_t width = 2 * (int64_t)n - 1;
        for (; i + CPU_LANES < n; i += CPU_LANES)
            simd_store(dst + i, simd_even(simd_load(src + 2 * (size_t)i),
                                          simd_load(src + 2 * (size_t)i + CPU_LANES)));
        simd_store_part(dst + i,
                        simd_even(simd_load_window(src, 2 * (int64_t)i, width),
                                  simd_load_window(src, 2 * (int64_t)i + CPU_LANES, width)),
                        (int)(n - i));
        return;
    }
    for (; i < n; i++)
        dst[i] = src[(size_t)i * k];
}

static void pack_dgrad(const struct cpu_call *call, const struct conv_tile *tile, uint32_t k0,
                       uint32_t k1, float *slab) {
    const struct upconv_dgrad_params *p = &call->params->upconv_dgrad;
    const float *dy = (const float *)call->bindings[0] + (size_t)tile->image * p->dy_stride_n;
    const size_t row = (size_t)p->w_in * p->k, taps = (size_t)p->k * p->k;
    for (uint32_t k = k0; k < k1; k++) {
        const size_t o = k / taps, a = k % taps / p->k, b = k % p->k;
        for (uint32_t r = 0; r < tile->in_rows; r++) {
            const size_t y = (o * p->h_in + tile->row + r) * p->k + a;
            take_each(slab + (k - k0) * tile->slab_stride + (size_t)r * tile->row_stride,
                      dy + y * row + (size_t)tile->col * p->k + b, p->k, tile->row_stride);
        }
    }
}

static void finish_dgrad(const struct cpu_call *call, const struct conv_tile *tile,
                         const float *sums) {
    const struct upconv_dgrad_params *p = &call->params->upconv_dgrad;
    const struct conv_epilogue epilogue = {p->epilogue, p->slope};
    const size_t plane = (size_t)p->h_in * p->w_in;
    const float *aux = call->bindings[2];
    float *dx = (float *)call->bindings[3] + (size_t)tile->image * p->dx_stride_n;
    for (uint32_t i = 0; i < tile->n_out; i++) {
        const uint32_t c = tile->out + i;
        const float bias = p->epilogue & EPILOGUE_BIAS ? aux[c] : 0;
        for (uint32_t r = 0; r < tile->n_rows; r++) {
            const size_t at = c * plane + (size_t)(tile->row + r) * p->w_in + tile->col;
            const float *mask = p->epilogue & EPILOGUE_MASK
                                    ? aux + (size_t)tile->image * p->aux_stride_n + at
                                    : NULL;
            CPU_FN(conv_epilogue_row)
            (epilogue, sums + i * tile->sums_stride + (size_t)r * tile->row_stride, bias, mask,
             dx + at, tile->n_cols);
        }
    }
}

static const struct conv_form fwd = {describe_fwd, pack_fwd, finish_fwd};
static const struct conv_form dgrad = {describe_dgrad, pack_dgrad, finish_dgrad};

CONV_SUM_KERNEL(upconv_fwd, fwd)
CONV_SUM_KERNEL(upconv_dgrad, dgrad)
