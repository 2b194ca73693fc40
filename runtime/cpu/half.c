/*
 * half.c: native kernels of tensors in half precision, with the same bits as shaders/half.glsl, by
 * integers alone, and the rounding of factors (rounding.h). A unit is some blocks of HALF_BLOCK
 * elements of one image; the loops over a whole block have a constant length and no branches, for
 * the compiler to vectorise.
 */
#include <string.h>

#include "runtime/cpu/rounding.h"
#include "runtime/cpu/variant.h"

#define HALF_MOST_BITS 0x477fe000u /* 65504 as a float */
#define UNIT_BLOCKS (CPU_CHUNK / HALF_BLOCK)

/* n and count are the first two parameters of both */
static uint32_t units(const union kernel_params *p, uint32_t phase) {
    (void)phase;
    return p->half_store.n * div_up(div_up(p->half_store.count, HALF_BLOCK), UNIT_BLOCKS);
}

/* Shifted right by 1 to 31 bits, to nearest, ties to even. */
static inline uint32_t shift(uint32_t value, uint32_t bits) {
    return (value + (1u << (bits - 1)) - 1 + (value >> bits & 1)) >> bits;
}

static inline uint32_t to_half(uint32_t word) {
    const uint32_t sign = word >> 16 & 0x8000, size = word & 0x7fffffff;
    const uint32_t places = MIN(126 - MIN(size >> 23, 112u), 25u);
    const uint32_t small = shift((size & 0x7fffff) | 0x800000, places);
    const uint32_t normal = MIN(shift(size - (112u << 23), 13), 0x7bffu);
    uint32_t half = size >= 0x38800000 ? normal : MAX(small, size != 0 ? 1u : 0u);
    half = size == 0x7f800000 ? 0x7c00 : half;
    return sign | (size > 0x7f800000 ? 0x7e00 : half);
}

static inline uint32_t from_half(uint32_t half) {
    const uint32_t sign = (half & 0x8000) << 16, size = half & 0x7fff;
    const float small = (float)(int32_t)(size & 0x3ff) * 0x1p-24f;
    uint32_t small_bits;
    memcpy(&small_bits, &small, sizeof(small_bits));
    const uint32_t normal = (size << 13) + (size >= 0x7c00 ? 224u << 23 : 112u << 23);
    return sign | (size < 0x400 ? small_bits : normal);
}

/* What half precision makes of a single-precision number, as a single-precision number again;
   `past` of what is beyond its largest. Below 2^-14 it has the multiples of 2^-24. */
static inline uint32_t through_half(uint32_t word, uint32_t past) {
    const uint32_t size = word & 0x7fffffff;
    const uint32_t normal = shift(size, 13) << 13;
    float small;
    memcpy(&small, &size, sizeof(small));
    small = (small + 0.75f) - 0.75f;
    uint32_t small_bits;
    memcpy(&small_bits, &small, sizeof(small_bits));
    const uint32_t rounded = size < 0x38800000 ? small_bits : normal;
    return (word & 0x80000000) | (size > HALF_MOST_BITS ? past : rounded);
}

void CPU_FN(cpu_round_factors)(const uint32_t *src, uint32_t *dst, uint32_t count,
                               bool is_gradient) {
    const uint32_t past = is_gradient ? 0x7f800000u : HALF_MOST_BITS;
    CPU_INDEPENDENT
    for (uint32_t i = 0; i < count; i++)
        dst[i] = through_half(src[i], past);
}

/* The blocks of a unit: its image, the first block's element and the end of the last. */
struct part {
    uint32_t image, begin, end;
    size_t words; /* of an image */
};

static struct part part_of(uint32_t count, uint32_t unit) {
    const uint32_t blocks = div_up(count, HALF_BLOCK), parts = div_up(blocks, UNIT_BLOCKS);
    const uint32_t begin = unit % parts * UNIT_BLOCKS * HALF_BLOCK;
    return (struct part){unit / parts, begin, MIN(count - begin, UNIT_BLOCKS * HALF_BLOCK) + begin,
                         (size_t)blocks * HALF_LANES};
}

static void half_store(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct half_store_params *p = &call->params->half_store;
    const struct part part = part_of(p->count, unit);
    const uint32_t *x =
        (const uint32_t *)call->bindings[0] + cpu_offset(part.image, p->x_stride_n, 0);
    uint32_t *packed = (uint32_t *)call->bindings[1] + part.image * part.words;
    for (uint32_t at = part.begin; at < part.end; at += HALF_BLOCK) {
        uint32_t block[HALF_BLOCK] = {0}, *words = packed + at / 2;
        memcpy(block, x + at, MIN(part.end - at, HALF_BLOCK) * sizeof(*block));
        for (uint32_t i = 0; i < HALF_LANES; i++)
            words[i] = to_half(block[i]) | to_half(block[i + HALF_LANES]) << 16;
    }
}

static void half_load(const struct cpu_call *call, uint32_t phase, uint32_t unit) {
    (void)phase;
    const struct half_load_params *p = &call->params->half_load;
    const struct part part = part_of(p->count, unit);
    const uint32_t *packed = (const uint32_t *)call->bindings[0] + part.image * part.words;
    uint32_t *y = (uint32_t *)call->bindings[1] + cpu_offset(part.image, p->y_stride_n, 0);
    for (uint32_t at = part.begin; at < part.end; at += HALF_BLOCK) {
        const uint32_t *words = packed + at / 2;
        uint32_t block[HALF_BLOCK];
        for (uint32_t i = 0; i < HALF_LANES; i++) {
            block[i] = from_half(words[i] & 0xffff);
            block[i + HALF_LANES] = from_half(words[i] >> 16);
        }
        memcpy(y + at, block, MIN(part.end - at, HALF_BLOCK) * sizeof(*block));
    }
}

static const struct cpu_kernel kernels[] = {
    {.id = KERNEL_ID_half_store, .n_phases = 1, .units = units, .run = half_store},
    {.id = KERNEL_ID_half_load, .n_phases = 1, .units = units, .run = half_load},
};

CPU_FIND(cpu_half_find)
