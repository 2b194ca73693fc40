/*
 * conv_reference.c: see conv_reference.h.
 */
#include "tests/cpu/conv_reference.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/base.h"

int conv_reference_output(enum kernel_id id) {
    return id == KERNEL_ID_conv_wgrad || id == KERNEL_ID_upconv_wgrad ? 2 : 3;
}

struct sum {
    double value, magnitude;
};

static void add(struct sum *sum, float a, float b) {
    sum->value += (double)a * b;
    sum->magnitude += fabs((double)a * b);
}

/* The epilogue, and the result to its place. aux_at: of the element in the mask tensor. */
static void finish(struct sum sum, uint32_t bits, float slope, const float *aux, uint32_t channel,
                   size_t aux_at, struct conv_reference *out, size_t at) {
    if (bits & EPILOGUE_BIAS) {
        sum.value += aux[channel];
        sum.magnitude += fabsf(aux[channel]);
    }
    if (bits & EPILOGUE_ACT) {
        sum.value = sum.value > 0 ? sum.value : slope * sum.value;
        sum.magnitude *= MAX(1, fabsf(slope));
    }
    if (bits & EPILOGUE_MASK) {
        double factor = aux[aux_at] > 0 ? 1 : slope;
        sum.value *= factor;
        sum.magnitude *= fabs(factor);
    }
    out->value[at] = sum.value;
    out->magnitude[at] = sum.magnitude;
}

/* x at (channel, y, x), zero outside. */
static float padded(const float *plane, int64_t y, int64_t x, int64_t h, int64_t w) {
    return y < 0 || y >= h || x < 0 || x >= w ? 0 : plane[y * w + x];
}

static void conv(const struct conv_params *p, const float *const *b, struct conv_reference *out) {
    const size_t out4 = align_up(p->c_out, 4), plane = (size_t)p->h_in * p->w_in;
    for (uint32_t n = 0; n < p->n; n++)
        for (uint32_t o = 0; o < p->c_out; o++)
            for (uint32_t y = 0; y < p->h_out; y++)
                for (uint32_t x = 0; x < p->w_out; x++) {
                    struct sum sum = {0};
                    for (uint32_t i = 0; i < p->c_in; i++)
                        for (uint32_t t = 0; t < p->kh * p->kw; t++)
                            add(&sum,
                                padded(b[0] + (size_t)n * p->x_stride_n + i * plane,
                                       (int64_t)y + t / p->kw * p->dilation - p->pad_h,
                                       (int64_t)x + t % p->kw * p->dilation - p->pad_w, p->h_in,
                                       p->w_in),
                                b[1][((size_t)i * p->kh * p->kw + t) * out4 + o]);
                    size_t at = ((size_t)o * p->h_out + y) * p->w_out + x;
                    finish(sum, p->epilogue, p->slope, b[2], o, (size_t)n * p->aux_stride_n + at,
                           out, (size_t)n * p->y_stride_n + at);
                }
    out->terms = (double)p->c_in * p->kh * p->kw + 2;
}

static void upconv(const struct upconv_params *p, const float *const *b,
                   struct conv_reference *out) {
    const size_t out4 = align_up(p->c_out, 4), plane = (size_t)p->h_in * p->w_in;
    for (uint32_t n = 0; n < p->n; n++)
        for (uint32_t o = 0; o < p->c_out; o++)
            for (uint32_t y = 0; y < p->h_in * p->k; y++)
                for (uint32_t x = 0; x < p->w_in * p->k; x++) {
                    struct sum sum = {0};
                    uint32_t tap = y % p->k * p->k + x % p->k;
                    for (uint32_t i = 0; i < p->c_in; i++)
                        add(&sum,
                            b[0][(size_t)n * p->x_stride_n + i * plane +
                                 (size_t)(y / p->k) * p->w_in + x / p->k],
                            b[1][((size_t)i * p->k * p->k + tap) * out4 + o]);
                    size_t at = ((size_t)o * p->h_in * p->k + y) * p->w_in * p->k + x;
                    finish(sum, p->epilogue, p->slope, b[2], o, (size_t)n * p->aux_stride_n + at,
                           out, (size_t)n * p->y_stride_n + at);
                }
    out->terms = (double)p->c_in + 2;
}

static void upconv_dgrad(const struct upconv_dgrad_params *p, const float *const *b,
                         struct conv_reference *out) {
    const size_t in4 = align_up(p->c_in, 4), width = (size_t)p->w_in * p->k;
    for (uint32_t n = 0; n < p->n; n++)
        for (uint32_t i = 0; i < p->c_in; i++)
            for (uint32_t y = 0; y < p->h_in; y++)
                for (uint32_t x = 0; x < p->w_in; x++) {
                    struct sum sum = {0};
                    for (uint32_t o = 0; o < p->c_out; o++)
                        for (uint32_t t = 0; t < p->k * p->k; t++)
                            add(&sum,
                                b[0][(size_t)n * p->dy_stride_n + o * width * p->h_in * p->k +
                                     ((size_t)y * p->k + t / p->k) * width + (size_t)x * p->k +
                                     t % p->k],
                                b[1][((size_t)o * p->k * p->k + t) * in4 + i]);
                    size_t at = ((size_t)i * p->h_in + y) * p->w_in + x;
                    finish(sum, p->epilogue, p->slope, b[2], i, (size_t)n * p->aux_stride_n + at,
                           out, (size_t)n * p->dx_stride_n + at);
                }
    out->terms = (double)p->c_out * p->k * p->k + 2;
}

static void conv_wgrad(const struct conv_wgrad_params *p, const float *const *b,
                       struct conv_reference *out) {
    const uint32_t out4 = (uint32_t)align_up(p->c_out, 4), rows = p->n * p->h_out;
    const size_t in_plane = (size_t)p->h_in * p->w_in, out_plane = (size_t)p->h_out * p->w_out;
    size_t at = 0;
    for (uint32_t s = 0; s < p->splits; s++)
        for (uint32_t i = 0; i < p->c_in; i++)
            for (uint32_t t = 0; t < p->kh * p->kw; t++)
                for (uint32_t o = 0; o < out4; o++, at++) {
                    struct sum sum = {0};
                    for (uint32_t r = s * rows / p->splits;
                         o < p->c_out && r < (s + 1) * rows / p->splits; r++)
                        for (uint32_t x = 0; x < p->w_out; x++)
                            add(&sum,
                                padded(b[0] + (size_t)(r / p->h_out) * p->x_stride_n + i * in_plane,
                                       (int64_t)(r % p->h_out) + t / p->kw * p->dilation - p->pad_h,
                                       (int64_t)x + t % p->kw * p->dilation - p->pad_w, p->h_in,
                                       p->w_in),
                                b[1][(size_t)(r / p->h_out) * p->dy_stride_n + o * out_plane +
                                     (size_t)(r % p->h_out) * p->w_out + x]);
                    out->value[at] = sum.value;
                    out->magnitude[at] = sum.magnitude;
                }
    out->terms = (double)rows * p->w_out;
}

static void upconv_wgrad(const struct upconv_wgrad_params *p, const float *const *b,
                         struct conv_reference *out) {
    const uint32_t out4 = (uint32_t)align_up(p->c_out, 4), rows = p->n * p->h_in;
    const size_t plane = (size_t)p->h_in * p->w_in, width = (size_t)p->w_in * p->k;
    size_t at = 0;
    for (uint32_t s = 0; s < p->splits; s++)
        for (uint32_t i = 0; i < p->c_in; i++)
            for (uint32_t t = 0; t < p->k * p->k; t++)
                for (uint32_t o = 0; o < out4; o++, at++) {
                    struct sum sum = {0};
                    for (uint32_t r = s * rows / p->splits;
                         o < p->c_out && r < (s + 1) * rows / p->splits; r++)
                        for (uint32_t x = 0; x < p->w_in; x++)
                            add(&sum,
                                b[0][(size_t)(r / p->h_in) * p->x_stride_n + i * plane +
                                     (size_t)(r % p->h_in) * p->w_in + x],
                                b[1][(size_t)(r / p->h_in) * p->dy_stride_n +
                                     o * width * p->h_in * p->k +
                                     ((size_t)(r % p->h_in) * p->k + t / p->k) * width +
                                     (size_t)x * p->k + t % p->k]);
                    out->value[at] = sum.value;
                    out->magnitude[at] = sum.magnitude;
                }
    out->terms = (double)rows * p->w_in;
}

void conv_reference_run(enum kernel_id id, const union kernel_params *params,
                        const float *const *bindings, struct conv_reference *out) {
    uint64_t extents[KERNEL_MAX_BINDINGS];
    const char *why = NULL;
    if (!kernel_extents(id, params->words, extents, &why))
        return;
    for (uint64_t i = 0; i < extents[conv_reference_output(id)]; i++)
        out->value[i] = NAN;
    switch (id) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
        conv(&params->conv, bindings, out);
        break;
    case KERNEL_ID_upconv_fwd:
        upconv(&params->upconv, bindings, out);
        break;
    case KERNEL_ID_upconv_dgrad:
        upconv_dgrad(&params->upconv_dgrad, bindings, out);
        break;
    case KERNEL_ID_conv_wgrad:
        conv_wgrad(&params->conv_wgrad, bindings, out);
        break;
    default:
        upconv_wgrad(&params->upconv_wgrad, bindings, out);
    }
}
