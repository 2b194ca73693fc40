/*
 * conv_table.h: the kernels of the convolution family by instruction set: conv.c,
 * winograd.c, upconv.c and wgrad.c are compiled once for each, conv_table.c chooses.
 */
#ifndef UNET_CPU_CONV_TABLE_H
#define UNET_CPU_CONV_TABLE_H

#include "runtime/cpu/kernel.h"

#define CPU_CONV_KERNELS(isa)                                                                      \
    extern const struct cpu_kernel cpu_conv_fwd_##isa, cpu_conv_dgrad_##isa, cpu_conv_wgrad_##isa, \
        cpu_conv_fwd_winograd_##isa, cpu_conv_dgrad_winograd_##isa, cpu_upconv_fwd_##isa, cpu_upconv_dgrad_##isa, cpu_upconv_wgrad_##isa;
CPU_CONV_KERNELS(plain)
CPU_CONV_KERNELS(avx2)
CPU_CONV_KERNELS(avx512)

#endif
