/*
 * loss_scale.c: native kernels of loss scaling (common/kernel_contract.h).
 */
#include <string.h>

#include "runtime/cpu/variant.h"

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* ---- the scaled gradient of the loss ---- */

static uint32_t scale_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    return p->scale_gradient.n * cpu_chunks(p->scale_gradient.count);
}

static void scale_gradient(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct scale_gradient_params *p = &call->params->scale_gradient;
    const uint32_t chunks = cpu_chunks(p->count), image = unit / chunks;
    const struct cpu_range range = cpu_chunk(p->count, unit % chunks);
    const float *x = (const float *)call->bindings[0] + cpu_offset(image, p->x_stride_n, 0);
    const float s = ((const float *)call->bindings[1])[LOSS_SCALE_S];
    const float factor = s == 0.0f ? p->initial : s;
    float *y = (float *)call->bindings[2] + cpu_offset(image, p->y_stride_n, 0);
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++)
        y[i] = factor * x[i];
}

/* ---- is a gradient finite: a unit is a share of it ---- */

#define EXPONENT 0x7f800000u /* all of it is set */

static uint32_t flag_units(const union kernel_params *p, uint32_t phase) {
    (void)p, (void)phase;
    return GRADIENT_FLAGS;
}

static void gradient_check(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const uint32_t count = call->params->gradient_check.count;
    const uint32_t share = div_up(count, GRADIENT_FLAGS), end = MIN((unit + 1) * share, count);
    const uint32_t *g = call->bindings[0];
    uint32_t bad = 0;
    for (uint32_t i = unit * share; i < end; i++)
        bad |= (g[i] & EXPONENT) == EXPONENT;
    ((float *)call->bindings[1])[unit] = bad != 0 ? 1.0f : 0.0f;
}

/* ---- the verdict, and the scale of the next update ---- */

static uint32_t one_unit(const union kernel_params *params, uint32_t phase) {
    (void)params, (void)phase;
    return 1;
}

static float halved(float s) {
    return bits_of(s) <= LOSS_SCALE_LEAST ? s : 0.5f * s;
}

static float doubled(float s) {
    return bits_of(s) >= LOSS_SCALE_LARGEST ? s : 2.0f * s;
}

static void loss_scale(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase, (void)unit;
    const struct loss_scale_params *p = &call->params->loss_scale;
    const float *flags = call->bindings[0];
    float *scale = call->bindings[1], *loss = call->bindings[2], *verdict = call->bindings[3];
    const float most = (float)LOSS_SCALE_MOST, skipped = scale[LOSS_SCALE_SKIPPED];
    const float s = scale[LOSS_SCALE_S] == 0.0f ? p->initial : scale[LOSS_SCALE_S];
    bool found = false;
    for (uint32_t i = 0; i < p->count; i++)
        found |= flags[i] != 0.0f;
    verdict[VERDICT_UNSCALE] = 1.0f / s; /* exact: a power of two */
    verdict[VERDICT_APPLY] = found ? 0.0f : 1.0f;
    verdict[VERDICT_SKIPPED] = skipped;
    verdict[VERDICT_WORDS - 1] = 0.0f;
    const float good = found ? 0.0f : MIN(scale[LOSS_SCALE_GOOD] + 1.0f, most);
    const bool grows = p->interval != 0 && good >= (float)p->interval;
    scale[LOSS_SCALE_S] = p->interval == 0 ? s : found ? halved(s) : grows ? doubled(s) : s;
    scale[LOSS_SCALE_GOOD] = grows ? 0.0f : good;
    scale[LOSS_SCALE_SKIPPED] = found ? MIN(skipped + 1.0f, most) : skipped;
    scale[LOSS_SCALE_WORDS - 1] = 0.0f;
    loss[LOSS_WORD_SCALE] = s;
    loss[LOSS_WORD_SKIPPED] = scale[LOSS_SCALE_SKIPPED];
    loss[LOSS_WORD_FOUND] = found ? 1.0f : 0.0f;
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_scale_gradient, .n_phases = 1, .units = scale_units, .run = scale_gradient},
    {.id = KERNEL_ID_gradient_check, .n_phases = 1, .units = flag_units, .run = gradient_check},
    {.id = KERNEL_ID_loss_scale, .n_phases = 1, .units = one_unit, .run = loss_scale},
};

CPU_FIND(cpu_scale_find)
