/*
 * rounding.c: see rounding.h.
 */
#include "runtime/cpu/rounding.h"

#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/plan.h"

#define ALIGNMENT 64u
#define UNIT_ELEMENTS 16384u

bool cpu_rounding_wanted(void) {
    const char *name = getenv("UNET_PREFER");
    return name != NULL && strcmp(name, plan_method_name(PLAN_METHOD_MATRIX)) == 0;
}

/* What a kernel multiplies, and whether these are gradients. */
static const struct factors {
    enum kernel_id kernel;
    bool is_gradient[CPU_FACTORS];
} factors[] = {
    {KERNEL_ID_conv_fwd, {false, false}},  {KERNEL_ID_upconv_fwd, {false, false}},
    {KERNEL_ID_conv_dgrad, {true, false}}, {KERNEL_ID_upconv_dgrad, {true, false}},
    {KERNEL_ID_conv_wgrad, {false, true}}, {KERNEL_ID_upconv_wgrad, {false, true}},
};

struct cpu_rounding cpu_rounding_of(enum kernel_id kernel, const size_t *binding_bytes) {
    struct cpu_rounding rounding = {.count = {0}};
    for (size_t row = 0; row < ARRAY_LEN(factors); row++) {
        for (uint32_t i = 0; factors[row].kernel == kernel && i < CPU_FACTORS; i++) {
            rounding.count[i] = (uint32_t)(binding_bytes[i] / sizeof(float));
            rounding.is_gradient[i] = factors[row].is_gradient[i];
        }
    }
    return rounding;
}

static size_t factor_bytes(const struct cpu_rounding *rounding, uint32_t factor) {
    return (size_t)align_up(rounding->count[factor] * sizeof(float), ALIGNMENT);
}

size_t cpu_rounding_bytes(const struct cpu_rounding *rounding) {
    return factor_bytes(rounding, 0) + factor_bytes(rounding, 1);
}

uint32_t cpu_rounding_units(const struct cpu_rounding *rounding) {
    return div_up(rounding->count[0], UNIT_ELEMENTS) + div_up(rounding->count[1], UNIT_ELEMENTS);
}

cpu_round_factors *cpu_round_factors_find(enum cpu_isa isa) {
    static cpu_round_factors *const forms[CPU_ISA_COUNT] = {
        cpu_round_factors_plain,
#if CPU_HAS_X86
        cpu_round_factors_avx2,
        cpu_round_factors_avx512,
#endif
    };
    return forms[isa];
}

void cpu_rounding_run(const struct cpu_rounding *rounding, enum cpu_isa isa,
                      const struct cpu_call *call, uint32_t unit) {
    const uint32_t of_first = div_up(rounding->count[0], UNIT_ELEMENTS);
    const uint32_t factor = unit < of_first ? 0 : 1;
    const uint32_t at = (unit - factor * of_first) * UNIT_ELEMENTS;
    const uint32_t *src = call->bindings[factor];
    uint8_t *rounded = (uint8_t *)call->shared + factor * factor_bytes(rounding, 0);
    cpu_round_factors_find(isa)(src + at, (uint32_t *)(void *)rounded + at,
                                MIN(rounding->count[factor] - at, UNIT_ELEMENTS),
                                rounding->is_gradient[factor]);
}

void cpu_rounding_apply(const struct cpu_rounding *rounding, struct cpu_call *call) {
    uint8_t *shared = call->shared;
    for (uint32_t i = 0; i < CPU_FACTORS; i++) {
        call->bindings[i] = shared;
        shared += factor_bytes(rounding, i);
    }
    call->shared = shared;
}
