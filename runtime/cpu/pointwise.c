/*
 * pointwise.c: native kernels that compute each element from the elements at the same place:
 * activation, its gradient, addition, dropout. A unit is a chunk of one image (dropout: of all
 * images in a row).
 */
#include "runtime/cpu/variant.h"

static uint32_t image_chunks(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    /* n and count are the first two parameters of all three */
    return p->act_fwd.n * cpu_chunks(p->act_fwd.count);
}

/* The image of a unit and its range of elements there. */
static struct cpu_range image_range(uint32_t count, uint32_t unit, uint32_t *image_out) {
    const uint32_t chunks = cpu_chunks(count);
    *image_out = unit / chunks;
    return cpu_chunk(count, unit % chunks);
}

static void act_fwd(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct act_fwd_params *p = &call->params->act_fwd;
    uint32_t image;
    const struct cpu_range range = image_range(p->count, unit, &image);
    const float *x = (const float *)call->bindings[0] + cpu_offset(image, p->x_stride_n, 0);
    float *y = (float *)call->bindings[1] + cpu_offset(image, p->y_stride_n, 0);
    const float slope = p->slope;
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++) {
        const float value = x[i], scaled = slope * value;
        y[i] = value > 0.0f ? value : scaled;
    }
}

static void act_bwd(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct act_bwd_params *p = &call->params->act_bwd;
    uint32_t image;
    const struct cpu_range range = image_range(p->count, unit, &image);
    const float *y = (const float *)call->bindings[0] + cpu_offset(image, p->y_stride_n, 0);
    const float *dy = (const float *)call->bindings[1] + cpu_offset(image, p->dy_stride_n, 0);
    float *dx = (float *)call->bindings[2] + cpu_offset(image, p->dx_stride_n, 0);
    const float slope = p->slope;
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++) {
        const float value = dy[i], scaled = slope * value;
        dx[i] = y[i] > 0.0f ? value : scaled;
    }
}

static void add(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct add_params *p = &call->params->add;
    uint32_t image;
    const struct cpu_range range = image_range(p->count, unit, &image);
    const float *a = (const float *)call->bindings[0] + cpu_offset(image, p->a_stride_n, 0);
    const float *b = (const float *)call->bindings[1] + cpu_offset(image, p->b_stride_n, 0);
    float *y = (float *)call->bindings[2] + cpu_offset(image, p->y_stride_n, 0);
    CPU_INDEPENDENT
    for (uint32_t i = range.begin; i < range.end; i++)
        y[i] = a[i] + b[i];
}

/* ---- dropout ---- */

#define BLOCKS 64u /* of Philox, computed side by side */
#define ROUNDS 10

/* The words of blocks first .. first + BLOCKS - 1, in the order of the elements that they decide
   about: rng_philox and shaders/philox.glsl, several counters at once. */
static void philox_words(uint32_t key0, uint32_t key1, uint32_t first, uint32_t layer,
                         uint32_t step, uint32_t words[4 * BLOCKS]) {
    uint32_t c0[BLOCKS], c1[BLOCKS], c2[BLOCKS], c3[BLOCKS];
    for (uint32_t i = 0; i < BLOCKS; i++) {
        c0[i] = first + i;
        c1[i] = layer;
        c2[i] = step;
        c3[i] = 0;
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < BLOCKS; i++) {
            const uint64_t a = (uint64_t)c0[i] * 0xD2511F53u, b = (uint64_t)c2[i] * 0xCD9E8D57u;
            const uint32_t old1 = c1[i], old3 = c3[i];
            c0[i] = (uint32_t)(b >> 32) ^ old1 ^ key0;
            c1[i] = (uint32_t)b;
            c2[i] = (uint32_t)(a >> 32) ^ old3 ^ key1;
            c3[i] = (uint32_t)a;
        }
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        words[4 * i] = c0[i];
        words[4 * i + 1] = c1[i];
        words[4 * i + 2] = c2[i];
        words[4 * i + 3] = c3[i];
    }
}

static uint32_t dropout_units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    return cpu_chunks(p->dropout.n * p->dropout.count);
}

/* Elements begin .. end - 1 of all images in a row, decided by words[0], words[1], ... */
static void drop(const struct cpu_call *call, uint32_t begin, uint32_t end, const uint32_t *words) {
    const struct dropout_params *p = &call->params->dropout;
    const uint32_t threshold = p->threshold;
    const float scale = p->scale;
    for (uint32_t e = begin; e < end;) {
        const uint32_t image = e / p->count, at = e - image * p->count;
        const uint32_t count = MIN(p->count - at, end - e);
        const float *x = (const float *)call->bindings[0] + cpu_offset(image, p->x_stride_n, at);
        float *y = (float *)call->bindings[2] + cpu_offset(image, p->y_stride_n, at);
        const uint32_t *word = words + (e - begin);
        CPU_INDEPENDENT
        for (uint32_t i = 0; i < count; i++) {
            const float scaled = x[i] * scale;
            y[i] = word[i] >= threshold ? scaled : 0.0f;
        }
        e += count;
    }
}

static void dropout(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct dropout_params *p = &call->params->dropout;
    const uint32_t *control = call->bindings[1];
    const struct cpu_range range = cpu_chunk(p->n * p->count, unit);
    uint32_t words[4 * BLOCKS];
    for (uint32_t e = range.begin; e < range.end; e += 4 * BLOCKS) {
        philox_words(control[CONTROL_SEED_LO], control[CONTROL_SEED_HI], e / 4, p->layer,
                     control[CONTROL_STEP], words);
        drop(call, e, MIN(e + 4 * BLOCKS, range.end), words);
    }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_act_fwd, .n_phases = 1, .units = image_chunks, .run = act_fwd},
    {.id = KERNEL_ID_act_bwd, .n_phases = 1, .units = image_chunks, .run = act_bwd},
    {.id = KERNEL_ID_add, .n_phases = 1, .units = image_chunks, .run = add},
    {.id = KERNEL_ID_dropout, .n_phases = 1, .units = dropout_units, .run = dropout},
};

CPU_FIND(cpu_pointwise_find)
