/*
 * update.c: native kernels around parameters: the sum of partial weight gradients, the bias
 * gradient, sums over batches, transposed weights, and the optimisers.
 */
#include <math.h>
#include <string.h>

#include "runtime/cpu/variant.h"

#define LANES 64u

/* ---- gradients ---- */

static uint32_t flat_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    /* count is the first parameter of all of these */
    return cpu_chunks(p->wgrad_reduce.count);
}

static void wgrad_reduce(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct wgrad_reduce_params *p = &call->params->wgrad_reduce;
    const struct cpu_range range = cpu_chunk(p->count, unit);
    const float *partial = call->bindings[0];
    float *dw = call->bindings[1];
    float sum[LANES];
    for (uint32_t at = range.begin; at < range.end; at += LANES) {
        const uint32_t count = MIN(LANES, range.end - at);
        memcpy(sum, partial + at, count * sizeof(float));
        for (uint32_t s = 1; s < p->splits; s++) {
            const float *from = partial + (size_t)s * p->count + at;
            for (uint32_t i = 0; i < count; i++)
                sum[i] += from[i];
        }
        memcpy(dw + at, sum, count * sizeof(float));
    }
}

static uint32_t channel_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    return p->bias_grad.c;
}

/* Every LANES-th pixel of each image in ascending order, then the lanes pairwise. */
static void bias_grad(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct bias_grad_params *p = &call->params->bias_grad;
    const size_t pixels = (size_t)p->h * p->w;
    float sum[LANES] = {0};
    for (uint32_t image = 0; image < p->n; image++) {
        const float *dy =
            (const float *)call->bindings[0] + cpu_offset(image, p->dy_stride_n, unit * pixels);
        size_t at = 0;
        for (; at + LANES <= pixels; at += LANES) {
            for (uint32_t i = 0; i < LANES; i++)
                sum[i] += dy[at + i];
        }
        for (uint32_t i = 0; at + i < pixels; i++)
            sum[i] += dy[at + i];
    }
    for (uint32_t half = LANES / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            sum[i] += sum[half + i];
    }
    ((float *)call->bindings[1])[unit] = sum[0];
}

/* Of several batches: their sum, or the mean. */
static void accumulate(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct accumulate_params *p = &call->params->accumulate;
    const struct cpu_range range = cpu_chunk(p->count, unit);
    const float *g = call->bindings[0], *sum = call->bindings[1];
    const uint32_t held = ((const uint32_t *)call->bindings[2])[CONTROL_ACCUMULATED];
    const float batches = p->mean ? (float)(held + 1) : 1.0f;
    float *y = call->bindings[3];
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++)
        y[i] = ((held != 0 ? sum[i] : 0.0f) + g[i]) / batches;
}

/* ---- transposed weights: a unit is one tap of BLOCK output channels ---- */

#define BLOCK 16u /* floats of a cache line */

static uint32_t transpose_units(const union kernel_params *params, uint32_t phase) {
    (void)phase;
    const struct weights_transpose_params *p = &params->weights_transpose;
    return p->taps * div_up(p->out_count, BLOCK);
}

static void weights_transpose(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct weights_transpose_params *p = &call->params->weights_transpose;
    const uint32_t tap = unit % p->taps, from = p->flip != 0 ? p->taps - 1 - tap : tap;
    const uint32_t b0 = unit / p->taps * BLOCK, b1 = MIN(b0 + BLOCK, p->out_count);
    const size_t out4 = align_up(p->out_count, 4), in4 = align_up(p->in_count, 4);
    const float *src = (const float *)call->bindings[0] + from * out4;
    float *dst = (float *)call->bindings[1] + tap * in4;
    /* rows of src are often a multiple of 4 KiB apart: in a cache they would evict one another */
    float tile[BLOCK][BLOCK];
    for (uint32_t a0 = 0; a0 < p->in_count; a0 += BLOCK) {
        const uint32_t a1 = MIN(a0 + BLOCK, p->in_count);
        for (uint32_t a = a0; a < a1; a++)
            memcpy(tile[a - a0], src + a * p->taps * out4 + b0, (b1 - b0) * sizeof(float));
        for (uint32_t b = b0; b < b1; b++) {
            for (uint32_t a = a0; a < a1; a++)
                dst[b * p->taps * in4 + a] = tile[a - a0][b - b0];
        }
    }
    for (uint32_t b = b0; b < b1; b++)
        memset(dst + b * p->taps * in4 + p->in_count, 0, (in4 - p->in_count) * sizeof(float));
}

/* ---- optimisers, of gradients as they are and of scaled ones, which come with a verdict ---- */

static void sgd_of(const struct cpu_call *call, uint32_t unit, float unscale) {
    const struct sgd_params *p = &call->params->sgd;
    const struct cpu_range range = cpu_chunk(p->count, unit);
    const float rate = ((const float *)call->bindings[3])[CONTROL_LEARNING_RATE];
    const float keep = p->momentum, decay = p->decay;
    const float *g = call->bindings[1];
    float *w = call->bindings[0], *m = call->bindings[2];
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++) {
        const float weight = w[i], gradient = g[i] * unscale;
        const float momentum = keep * m[i] + (gradient + decay * weight);
        m[i] = momentum;
        w[i] = weight - rate * momentum;
    }
}

static void adam_of(const struct cpu_call *call, uint32_t unit, float unscale) {
    const struct adam_params *p = &call->params->adam;
    const struct cpu_range range = cpu_chunk(p->count, unit);
    const float *control = call->bindings[4];
    const float rate = control[CONTROL_LEARNING_RATE];
    const float bias1 = control[CONTROL_ADAM_BIAS1], bias2 = control[CONTROL_ADAM_BIAS2];
    const float beta1 = p->beta1, beta2 = p->beta2, epsilon = p->epsilon, decay = p->decay;
    const float *g = call->bindings[1];
    float *w = call->bindings[0], *m = call->bindings[2], *v = call->bindings[3];
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++) {
        const float weight = w[i], unscaled = g[i] * unscale;
        const float gradient = unscaled + decay * weight;
        const float first = beta1 * m[i] + (1.0f - beta1) * gradient;
        const float second = beta2 * v[i] + (1.0f - beta2) * gradient * gradient;
        m[i] = first;
        v[i] = second;
        w[i] = weight - rate * (first / bias1) / (sqrtf(second / bias2) + epsilon);
    }
}

static void sgd(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    sgd_of(call, unit, 1.0f);
}

static void adam(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    adam_of(call, unit, 1.0f);
}

static void sgd_scaled(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const float *verdict = call->bindings[4];
    if (verdict[VERDICT_APPLY] != 0.0f)
        sgd_of(call, unit, verdict[VERDICT_UNSCALE]);
}

static void adam_scaled(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const float *verdict = call->bindings[5];
    if (verdict[VERDICT_APPLY] != 0.0f)
        adam_of(call, unit, verdict[VERDICT_UNSCALE]);
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_wgrad_reduce, .n_phases = 1, .units = flat_units, .run = wgrad_reduce},
    {.id = KERNEL_ID_bias_grad, .n_phases = 1, .units = channel_units, .run = bias_grad},
    {.id = KERNEL_ID_weights_transpose,
     .n_phases = 1,
     .units = transpose_units,
     .run = weights_transpose},
    {.id = KERNEL_ID_accumulate, .n_phases = 1, .units = flat_units, .run = accumulate},
    {.id = KERNEL_ID_sgd, .n_phases = 1, .units = flat_units, .run = sgd},
    {.id = KERNEL_ID_adam, .n_phases = 1, .units = flat_units, .run = adam},
    {.id = KERNEL_ID_sgd_scaled, .n_phases = 1, .units = flat_units, .run = sgd_scaled},
    {.id = KERNEL_ID_adam_scaled, .n_phases = 1, .units = flat_units, .run = adam_scaled},
};

CPU_FIND(cpu_update_find)
