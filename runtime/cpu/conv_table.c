/*
 * conv_table.c: the choice among the convolution kernels compiled for each instruction set.
 */
#include "runtime/cpu/conv_table.h"

#define COLUMN(isa)                                                                                \
    {                                                                                              \
        &cpu_conv_fwd_##isa, &cpu_conv_dgrad_##isa, &cpu_conv_wgrad_##isa, &cpu_upconv_fwd_##isa,  \
            &cpu_upconv_dgrad_##isa, &cpu_upconv_wgrad_##isa                                       \
    }
#define N_KERNELS 6

/* Empty where the compiler's target knows no such instructions. */
static const struct cpu_kernel *const kernels[CPU_ISA_COUNT][N_KERNELS] = {
    [CPU_ISA_PLAIN] = COLUMN(plain),
#ifdef CPU_HAS_X86
    [CPU_ISA_AVX2] = COLUMN(avx2),
    [CPU_ISA_AVX512] = COLUMN(avx512),
#endif
};

const struct cpu_kernel *cpu_conv_find(enum cpu_isa isa, enum kernel_id id,
                                       const union kernel_params *params) {
    (void)params;
    for (int i = 0; i < N_KERNELS; i++)
        if (kernels[isa][i] != NULL && kernels[isa][i]->id == id)
            return kernels[isa][i];
    return NULL;
}
