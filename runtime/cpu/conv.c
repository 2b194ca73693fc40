/*
 * conv.c: conv_fwd and conv_dgrad (the same sum, see common/kernel_contract.h) in terms of
 * conv_sum.h: the slab is the input with its zero padding, the sums go to y through the epilogue.
 */
#include "runtime/cpu/conv_table.h"

#include "common/base.h"
#include "runtime/cpu/conv_output.h"

/* No column of the input is left over. */
static bool reaches_edges(const struct conv_params *p) {
    return p->w_in == p->w_out + (p->kw - 1) * p->dilation;
}

static struct conv_sum describe(const union kernel_params *params) {
    const struct conv_params *p = &params->conv;
    return (struct conv_sum){.n = p->n,
                             .k_count = p->c_in,
                             .kh = p->kh,
                             .kw = p->kw,
                             .dilation = p->dilation,
                             .groups = 1,
                             .out_count = p->c_out,
                             .out4 = (uint32_t)align_up(p->c_out, 4),
                             .rows = p->h_out,
                             .cols = p->w_out,
                             .x_row =
                                 p->pad_h == 0 && p->pad_w == 0 && reaches_edges(p) ? p->w_in : 0,
                             .x_plane = (size_t)p->h_in * p->w_in,
                             .x_image = p->x_stride_n};
}

/* Columns at <= c < at + n of a row of `width` elements, zero outside of it. */
static void copy_padded(float *dst, const float *row, int64_t at, int64_t n, int64_t width) {
    const int64_t first = MIN(MAX(at, 0), width), last = MAX(MIN(at + n, width), first);
    const int64_t before = MIN(MAX(-at, 0), n);
    memset(dst, 0, (size_t)before * sizeof(float));
    memcpy(dst + before, row + first, (size_t)(last - first) * sizeof(float));
    const int64_t done = before + last - first;
    memset(dst + done, 0, (size_t)(n - done) * sizeof(float));
}

static void pack(const struct cpu_call *call, const struct conv_tile *tile, uint32_t k0,
                 uint32_t k1, float *slab) {
    const struct conv_params *p = &call->params->conv;
    const size_t plane = (size_t)p->h_in * p->w_in;
    const float *x = (const float *)call->bindings[0] + (size_t)tile->image * p->x_stride_n;
    for (uint32_t k = k0; k < k1; k++) {
        float *dst = slab + (k - k0) * tile->slab_stride;
        for (uint32_t r = 0; r < tile->in_rows; r++, dst += tile->row_stride) {
            const int64_t row = (int64_t)tile->row + r - p->pad_h;
            if (row < 0 || row >= (int64_t)p->h_in)
                memset(dst, 0, tile->row_stride * sizeof(float));
            else {
                const float *src = x + k * plane + (size_t)row * p->w_in;
                if (row + 1 < (int64_t)p->h_in)
                    simd_prefetch(src + p->w_in + MIN(tile->col, p->w_in), tile->row_stride);
                copy_padded(dst, src, (int64_t)tile->col - p->pad_w, tile->row_stride, p->w_in);
            }
        }
    }
}

static void finish(const struct cpu_call *call, const struct conv_tile *tile, const float *sums) {
    const struct conv_params *p = &call->params->conv;
    for (uint32_t i = 0; i < tile->n_out; i++) {
        const struct conv_output output = conv_output_of(call, tile->image, tile->out + i);
        for (uint32_t r = 0; r < tile->n_rows; r++)
            conv_output_row(&output, sums + i * tile->sums_stride + (size_t)r * tile->row_stride,
                            (size_t)(tile->row + r) * p->w_out + tile->col, tile->n_cols);
    }
}

static const struct conv_form form = {describe, pack, finish};

CONV_SUM_KERNEL(conv_fwd, form)
CONV_SUM_KERNEL(conv_dgrad, form)
