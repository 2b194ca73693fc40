/*
 * winograd_steps.c: winograd_weights, winograd_input and winograd_product, the three kernels by
 * which plans compute a convolution with Winograd's algorithm on Vulkan devices. This device
 * prefers the method "direct", whose kernels choose the algorithm themselves (winograd.c); these
 * are plain.
 */
#include <string.h>

#include "runtime/cpu/variant.h"

#define OUT WINOGRAD_OUT
#define IN 6u
#define POINTS WINOGRAD_POINTS
#define CHUNK WINOGRAD_CHUNK
#define LANES WINOGRAD_LANES
#define OUTS 4u /* output channels of a unit */

/* The points of the interpolation are 0, +-P, +-Q and infinity, as in winograd.c. */
#define P 0.625f
#define Q 1.5f

/* Elements of a row or column, `step` apart. */

static void transform_input(float *d, size_t step) {
    const float d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    const float even_p = d4 - Q * Q * d2, odd_p = P * (d3 - Q * Q * d1);
    const float even_q = d4 - P * P * d2, odd_q = Q * (d3 - P * P * d1);
    d[0] = P * P * Q * Q * d0 + (d4 - (P * P + Q * Q) * d2);
    d[5 * step] = P * P * Q * Q * d1 + (d[5 * step] - (P * P + Q * Q) * d3);
    d[step] = even_p + odd_p;
    d[2 * step] = even_p - odd_p;
    d[3 * step] = even_q + odd_q;
    d[4 * step] = even_q - odd_q;
}

static void transform_weights(const float *g, size_t g_step, float *u, size_t step) {
    const float at_p = 1 / (2 * P * P * (P * P - Q * Q)), at_q = 1 / (2 * Q * Q * (Q * Q - P * P));
    const float g0 = g[0], g1 = g[g_step], g2 = g[2 * g_step];
    const float even_p = at_p * (g0 + P * P * g2), odd_p = at_p * P * g1;
    const float even_q = at_q * (g0 + Q * Q * g2), odd_q = at_q * Q * g1;
    u[0] = 1 / (P * P * Q * Q) * g0;
    u[step] = even_p + odd_p;
    u[2 * step] = even_p - odd_p;
    u[3 * step] = even_q + odd_q;
    u[4 * step] = even_q - odd_q;
    u[5 * step] = g2;
}

static void transform_sums(const float *m, size_t step, float *y, size_t y_step) {
    const float even_p = m[step] + m[2 * step], odd_p = m[step] - m[2 * step];
    const float even_q = m[3 * step] + m[4 * step], odd_q = m[3 * step] - m[4 * step];
    y[0] = m[0] + even_p + even_q;
    y[y_step] = P * odd_p + Q * odd_q;
    y[2 * y_step] = P * P * even_p + Q * Q * even_q;
    y[3 * y_step] = P * P * P * odd_p + (Q * Q * Q * odd_q + m[5 * step]);
}

/* ---- weights: a unit is a block of output channels ---- */

static uint32_t weights_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    return div_up(params->winograd_weights.n_channels, OUTS);
}

/* The transform of the taps from source channel i to output channel o. */
static void weights_tile(const struct winograd_weights_params *p, const float *w, uint32_t i,
                         uint32_t o, float u[POINTS]) {
    float g[9], half[3 * IN];
    const size_t pitch = align_up(p->transposed ? p->c_in : p->c_out, 4);
    for (uint32_t t = 0; t < 9; t++)
        g[t] = p->transposed ? w[(o * 9 + 8 - t) * pitch + i] : w[(i * 9 + t) * pitch + o];
    for (uint32_t c = 0; c < 3; c++)
        transform_weights(g + c, 3, half + c, 3);
    for (uint32_t r = 0; r < IN; r++)
        transform_weights(half + 3 * r, 1, u + IN * r, 1);
}

static void winograd_weights(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct winograd_weights_params *p = &call->params->winograd_weights;
    const size_t ins = align_up(p->c_in, CHUNK);
    float *dst = (float *)call->bindings[1] + unit * ins * POINTS * OUTS;
    for (uint32_t i = 0; i < ins; i++)
        for (uint32_t j = 0; j < OUTS; j++) {
            float u[POINTS] = {0};
            const uint32_t o = unit * OUTS + j;
            if (i < p->c_in && o < p->n_channels)
                weights_tile(p, call->bindings[0], i, p->first_channel + o, u);
            for (uint32_t e = 0; e < POINTS; e++)
                dst[((i / CHUNK * POINTS + e) * CHUNK + i % CHUNK) * OUTS + j] = u[e];
        }
}

/* ---- input: a unit is a block of tiles ---- */

/* First pixel of a tile of the rows first_row .. first_row + n_rows - 1 of all images. */
struct tile {
    uint32_t image, row, col;
};

static struct tile tile_find(uint32_t number, uint32_t first_row, uint32_t n_rows, uint32_t w_out) {
    const uint32_t across = div_up(w_out, OUT), down = number / across;
    return (struct tile){down / n_rows, (first_row + down % n_rows) * OUT, number % across * OUT};
}

static uint32_t input_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct winograd_input_params *p = &params->winograd_input;
    return (uint32_t)kernel_winograd_blocks(p->n, p->n_rows, p->w_out);
}

static void input_tile(const struct winograd_input_params *p, const float *plane, struct tile tile,
                       float d[POINTS]) {
    for (uint32_t e = 0; e < POINTS; e++) {
        const int64_t y = (int64_t)tile.row + e / IN - p->pad_h;
        const int64_t x = (int64_t)tile.col + e % IN - p->pad_w;
        const bool inside = y >= 0 && y < (int64_t)p->h_in && x >= 0 && x < (int64_t)p->w_in;
        d[e] = inside ? plane[y * p->w_in + x] : 0;
    }
    for (uint32_t c = 0; c < IN; c++)
        transform_input(d + c, IN);
    for (uint32_t r = 0; r < IN; r++)
        transform_input(d + IN * r, 1);
}

static void winograd_input(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct winograd_input_params *p = &call->params->winograd_input;
    const size_t ins = align_up(p->c_in, CHUNK), plane = (size_t)p->h_in * p->w_in;
    const uint32_t tiles = p->n * p->n_rows * div_up(p->w_out, OUT);
    const float *x = call->bindings[0];
    float *dst = (float *)call->bindings[1] + unit * ins * POINTS * LANES;
    for (uint32_t i = 0; i < ins; i++)
        for (uint32_t l = 0; l < LANES; l++) {
            float d[POINTS] = {0};
            const uint32_t number = unit * LANES + l;
            if (number < tiles && i < p->c_in) {
                const struct tile tile = tile_find(number, p->first_row, p->n_rows, p->w_out);
                input_tile(p, x + cpu_offset(tile.image, p->x_stride_n, i * plane), tile, d);
            }
            for (uint32_t e = 0; e < POINTS; e++)
                dst[((i / CHUNK * POINTS + e) * CHUNK + i % CHUNK) * LANES + l] = d[e];
        }
}

/* ---- product: a unit is a block of tiles for a block of output channels ---- */

static uint32_t product_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct winograd_product_params *p = &params->winograd_product;
    return (uint32_t)kernel_winograd_blocks(p->n, p->n_rows, p->w_out) *
           div_up(p->n_channels, OUTS);
}

static float finish(const struct winograd_product_params *p, const float *aux, uint32_t channel,
                    size_t aux_at, float value) {
    if (p->epilogue & EPILOGUE_BIAS)
        value += aux[channel];
    if (p->epilogue & EPILOGUE_ACT)
        value = value > 0 ? value : p->slope * value;
    if (p->epilogue & EPILOGUE_MASK && !(channel - p->plain_first < p->plain_count))
        value = aux[aux_at] > 0 ? value : p->slope * value;
    return value;
}

/* The sums of a tile and channel, which lie `step` apart, to y. */
static void store_tile(const struct cpu_call *call, struct tile tile, uint32_t channel,
                       const float *sums, size_t step) {
    const struct winograd_product_params *p = &call->params->winograd_product;
    const size_t plane = (size_t)channel * p->h_out * p->w_out;
    float half[OUT * IN], pixels[OUT * OUT];
    for (uint32_t c = 0; c < IN; c++)
        transform_sums(sums + c * step, IN * step, half + c, IN);
    for (uint32_t r = 0; r < OUT; r++)
        transform_sums(half + IN * r, 1, pixels + OUT * r, 1);
    for (uint32_t i = 0; i < OUT * OUT; i++) {
        const uint32_t y = tile.row + i / OUT, x = tile.col + i % OUT;
        const size_t at = plane + (size_t)y * p->w_out + x;
        if (y < p->h_out && x < p->w_out)
            ((float *)call->bindings[3])[cpu_offset(tile.image, p->y_stride_n, at)] =
                finish(p, call->bindings[2], channel, cpu_offset(tile.image, p->aux_stride_n, at),
                       pixels[i]);
    }
}

static void winograd_product(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct winograd_product_params *p = &call->params->winograd_product;
    const uint32_t out_blocks = div_up(p->n_channels, OUTS), chunks = div_up(p->c_in, CHUNK);
    const uint32_t block = unit / out_blocks, out_block = unit % out_blocks;
    const uint32_t tiles = p->n * p->n_rows * div_up(p->w_out, OUT);
    const float *v =
        (const float *)call->bindings[0] + (size_t)block * chunks * POINTS * CHUNK * LANES;
    const float *u =
        (const float *)call->bindings[1] + (size_t)out_block * chunks * POINTS * CHUNK * OUTS;
    float sums[POINTS][OUTS][LANES] = {0};
    for (uint32_t k = 0; k < chunks; k++)
        for (uint32_t e = 0; e < POINTS; e++)
            for (uint32_t q = 0; q < CHUNK; q++, v += LANES, u += OUTS)
                for (uint32_t o = 0; o < OUTS; o++)
                    for (uint32_t l = 0; l < LANES; l++)
                        sums[e][o][l] += v[l] * u[o];
    for (uint32_t o = 0; o < OUTS; o++)
        for (uint32_t l = 0; l < LANES; l++) {
            const uint32_t number = block * LANES + l, channel = out_block * OUTS + o;
            if (number < tiles && channel < p->n_channels)
                store_tile(call, tile_find(number, p->first_row, p->n_rows, p->w_out),
                           p->first_channel + channel, &sums[0][o][l], (size_t)OUTS * LANES);
        }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_winograd_weights,
     .n_phases = 1,
     .units = weights_units,
     .run = winograd_weights},
    {.id = KERNEL_ID_winograd_input, .n_phases = 1, .units = input_units, .run = winograd_input},
    {.id = KERNEL_ID_winograd_product,
     .n_phases = 1,
     .units = product_units,
     .run = winograd_product},
};

CPU_FIND(cpu_winograd_find)
