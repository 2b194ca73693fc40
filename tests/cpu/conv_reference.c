/*
 * conv_reference.c: see conv_reference.h.
 */
#include "tests/cpu/conv_reference.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

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

/* ---- Winograd's F(m x m, 3 x 3), m 2 or 4 ---- */

#define MOST_POINTS 6

/* Of tiles of m x m: m + 2 points, the last one infinity. */
static const double points_2[] = {0, 1, -1, INFINITY};
static const double points_4[] = {0, 0.625, -0.625, 1.5, -1.5, INFINITY};

/* The three matrices as magnitudes, rows of as many columns as are used. */
struct winograd {
    int m, n;         /* pixels, points in a direction */
    double roundings; /* of the transforms and the epilogue, on the way to an element */
    double a[4 * MOST_POINTS], g[MOST_POINTS * 3], b[MOST_POINTS * MOST_POINTS];
};

/*
 * The matrices of interpolation at these points (A. Lavin and S. Gray, 2016, section 3): column j
 * of A' is the powers of point j; row j of G the same, over the product of its distances from the
 * other finite points; row j of B' the polynomial with these others as roots. The last point takes
 * the highest coefficient.
 */
static void set_powers(struct winograd *winograd, const double *points, int j) {
    const int last = winograd->n - 1;
    for (int i = 0; i < winograd->m; i++)
        winograd->a[i * winograd->n + j] =
            j == last ? i == winograd->m - 1 : fabs(pow(points[j], i));
    double distances = 1;
    for (int l = 0; l < last && j < last; l++)
        distances *= l == j ? 1 : points[j] - points[l];
    for (int i = 0; i < 3; i++)
        winograd->g[j * 3 + i] = j == last ? i == 2 : fabs(pow(points[j], i) / distances);
}

static void set_polynomial(struct winograd *winograd, const double *points, int j) {
    double c[MOST_POINTS] = {1};
    for (int l = 0, degree = 0; l < winograd->n - 1; l++) {
        if (l == j)
            continue;
        degree++;
        for (int i = degree; i >= 0; i--)
            c[i] = (i > 0 ? c[i - 1] : 0) - points[l] * c[i];
    }
    for (int i = 0; i < winograd->n; i++)
        winograd->b[j * winograd->n + i] = fabs(c[i]);
}

/* Roundings of the three transforms, one after the other in both directions, and 2 of the epilogue.
   In tiles of 4 x 4 they are 4 of the input, 5 of the weights, 4 of the sums; of 2 x 2 1, 2 and 2.
 */
static struct winograd find_winograd(uint32_t m) {
    struct winograd winograd = {.m = (int)m,
                                .n = (int)m + 2,
                                .roundings = m == 4 ? 2 * (4 + 5 + 4) + 2 : 2 * (1 + 2 + 2) + 2};
    const double *points = m == 4 ? points_4 : points_2;
    for (int j = 0; j < winograd.n; j++) {
        set_powers(&winograd, points, j);
        set_polynomial(&winograd, points, j);
    }
    return winograd;
}

/* Magnitude of the transform of a k x k block by a matrix of n rows of k. */
static void transform(const double *matrix, int n, int k, const double *block, double *out) {
    double half[MOST_POINTS * MOST_POINTS];
    for (int i = 0; i < n; i++)
        for (int x = 0; x < k; x++) {
            half[i * k + x] = 0;
            for (int y = 0; y < k; y++)
                half[i * k + x] += matrix[i * k + y] * fabs(block[y * k + x]);
        }
    for (int i = 0; i < n * n; i++) {
        out[i] = 0;
        for (int x = 0; x < k; x++)
            out[i] += matrix[i % n * k + x] * half[i / n * k + x];
    }
}

static void add_magnitudes(const struct winograd *winograd, const struct conv_params *p,
                           const float *x, const float *w, uint32_t row, uint32_t col,
                           double *sums) {
    const size_t out4 = align_up(p->c_out, 4), plane = (size_t)p->h_in * p->w_in;
    const uint32_t n = (uint32_t)winograd->n;
    for (uint32_t i = 0; i < p->c_in; i++) {
        double block[MOST_POINTS * MOST_POINTS], taps[9], v[MOST_POINTS * MOST_POINTS],
            u[MOST_POINTS * MOST_POINTS];
        for (uint32_t t = 0; t < n * n; t++)
            block[t] = padded(x + i * plane, (int64_t)row + t / n - p->pad_h,
                              (int64_t)col + t % n - p->pad_w, p->h_in, p->w_in);
        for (uint32_t t = 0; t < 9; t++)
            taps[t] = w[((size_t)i * 9 + t) * out4];
        transform(winograd->b, winograd->n, winograd->n, block, v);
        transform(winograd->g, winograd->n, 3, taps, u);
        for (uint32_t t = 0; t < n * n; t++)
            sums[t] += u[t] * v[t];
    }
}

/* Of the sums at [n][o][y][x], without epilogue. */
static double *winograd_magnitudes(const struct winograd *winograd, const struct conv_params *p,
                                   const float *const *b) {
    const size_t plane = (size_t)p->h_out * p->w_out;
    const uint32_t m = (uint32_t)winograd->m;
    double *magnitudes = malloc(p->n * p->c_out * plane * sizeof(double));
    for (uint32_t n = 0; n < p->n; n++)
        for (uint32_t o = 0; o < p->c_out; o++)
            for (uint32_t row = 0; row < p->h_out; row += m)
                for (uint32_t col = 0; col < p->w_out; col += m) {
                    double sums[MOST_POINTS * MOST_POINTS] = {0};
                    add_magnitudes(winograd, p, b[0] + (size_t)n * p->x_stride_n, b[1] + o, row,
                                   col, sums);
                    for (uint32_t i = 0; i < m * m; i++) {
                        const uint32_t y = row + i / m, x = col + i % m;
                        double sum = 0;
                        for (int t = 0; t < winograd->n * winograd->n; t++)
                            sum += winograd->a[(int)(i / m) * winograd->n + t / winograd->n] *
                                   winograd->a[(int)(i % m) * winograd->n + t % winograd->n] *
                                   sums[t];
                        if (y < p->h_out && x < p->w_out)
                            magnitudes[((size_t)n * p->c_out + o) * plane + (size_t)y * p->w_out +
                                       x] = sum;
                    }
                }
    return magnitudes;
}

/* winograd: pixels of its tiles in a direction; 0: the plain sum. */
static void conv(const struct conv_params *p, const float *const *b, uint32_t winograd,
                 struct conv_reference *out) {
    const struct winograd matrices = winograd > 0 ? find_winograd(winograd) : (struct winograd){0};
    double *magnitudes = winograd > 0 ? winograd_magnitudes(&matrices, p, b) : NULL;
    const size_t out4 = align_up(p->c_out, 4), plane = (size_t)p->h_in * p->w_in;
    const size_t plane_out = (size_t)p->h_out * p->w_out;
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
                    if (winograd > 0)
                        sum.magnitude = magnitudes[n * p->c_out * plane_out + at];
                    finish(sum, p->epilogue, p->slope, b[2], o, (size_t)n * p->aux_stride_n + at,
                           out, (size_t)n * p->y_stride_n + at);
                }
    out->terms =
        winograd > 0 ? (double)p->c_in + matrices.roundings : (double)p->c_in * p->kh * p->kw + 2;
    free(magnitudes);
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
                        const float *const *bindings, uint32_t winograd,
                        struct conv_reference *out) {
    uint64_t extents[KERNEL_MAX_BINDINGS];
    const char *why = NULL;
    if (!kernel_extents(id, params->words, extents, &why))
        return;
    for (uint64_t i = 0; i < extents[conv_reference_output(id)]; i++)
        out->value[i] = NAN;
    switch (id) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
        conv(&params->conv, bindings, winograd, out);
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
