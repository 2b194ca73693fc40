/*
 * find.c: the native kernel of a record, in the form for an instruction set.
 */
#include "common/base.h"
#include "runtime/cpu/kernel.h"

typedef const struct cpu_kernel *find_function(enum kernel_id id);

#define DECLARE(isa)                                                                               \
    find_function cpu_pointwise_find_##isa, cpu_region_find_##isa, cpu_maxpool_find_##isa,         \
        cpu_loss_find_##isa, cpu_update_find_##isa, cpu_winograd_find_##isa, cpu_half_find_##isa,  \
        cpu_scale_find_##isa;
#define ROW(isa)                                                                                   \
    {                                                                                              \
        cpu_pointwise_find_##isa, cpu_region_find_##isa, cpu_maxpool_find_##isa,                   \
            cpu_loss_find_##isa, cpu_update_find_##isa, cpu_winograd_find_##isa,                   \
            cpu_half_find_##isa, cpu_scale_find_##isa                                              \
    }
#define N_FILES 8

DECLARE(plain)
#if CPU_HAS_X86
DECLARE(avx2)
DECLARE(avx512)
static find_function *const files[CPU_ISA_COUNT][N_FILES] = {ROW(plain), ROW(avx2), ROW(avx512)};
#else
static find_function *const files[CPU_ISA_COUNT][N_FILES] = {ROW(plain)};
#endif

const struct cpu_kernel *cpu_kernel_find(enum cpu_isa isa, enum cpu_conv conv, enum kernel_id id,
                                         const union kernel_params *params) {
    const struct cpu_kernel *kernel = cpu_conv_find(isa, conv, id, params);
    for (size_t i = 0; kernel == NULL && i < N_FILES && files[isa][i] != NULL; i++)
        kernel = files[isa][i](id);
    return kernel;
}
