/*
 * rounding.h: an imitation of matrix units (the method "matrix" of plans in mixed precision): the
 * factors of a record are rounded to half precision into shared memory, then its kernel multiplies
 * them and adds up in single precision, by direct sums. A product of two halves is exact in single
 * precision, so only the order of a sum differs from that of a device with such units.
 *
 * It is slower than single precision and there to try mixed precision where no device has matrix
 * units: UNET_PREFER=matrix in the environment turns it on.
 */
#ifndef UNET_CPU_ROUNDING_H
#define UNET_CPU_ROUNDING_H

#include "runtime/cpu/kernel.h"

#define CPU_FACTORS 2 /* the first bindings of the kernels concerned */

struct cpu_rounding {
    uint32_t count[CPU_FACTORS]; /* elements; 0: the record's factors stay as they are */
    bool is_gradient[CPU_FACTORS];
};

/* Whether the environment asks for it. */
bool cpu_rounding_wanted(void);

/* Of a record by the method; off for what it has besides products. */
struct cpu_rounding cpu_rounding_of(enum kernel_id kernel, const size_t *binding_bytes);

static inline bool cpu_rounding_is_on(const struct cpu_rounding *rounding) {
    return rounding->count[0] > 0;
}

/* Bytes at the start of a record's shared memory for both factors; 0: is off. */
size_t cpu_rounding_bytes(const struct cpu_rounding *rounding);

/* A phase of its own before those of the kernel: its units, and one of them. */
uint32_t cpu_rounding_units(const struct cpu_rounding *rounding);
void cpu_rounding_run(const struct cpu_rounding *rounding, enum cpu_isa isa,
                      const struct cpu_call *call, uint32_t unit);

/* For the kernel's own phases: the rounded factors in place of the others, and the shared memory
   behind them. */
void cpu_rounding_apply(const struct cpu_rounding *rounding, struct cpu_call *call);

/* half.c: what of a gradient is out of the range of half precision becomes infinite, else it is
   clamped, as in shaders/half.glsl. */
typedef void cpu_round_factors(const uint32_t *src, uint32_t *dst, uint32_t count,
                               bool is_gradient);
cpu_round_factors cpu_round_factors_plain, cpu_round_factors_avx2, cpu_round_factors_avx512;
cpu_round_factors *cpu_round_factors_find(enum cpu_isa isa);

#endif
