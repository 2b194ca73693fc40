/*
 * isa.c: instruction sets: what this machine has, and what the environment asks for.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/cpu/kernel.h"

static const char *const names[CPU_ISA_COUNT] = {"plain", "avx2", "avx512"};

enum cpu_isa cpu_isa_detect(void) {
#if CPU_HAS_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return CPU_ISA_PLAIN;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return CPU_ISA_AVX512;
    return CPU_ISA_AVX2;
#else
    return CPU_ISA_PLAIN;
#endif
}

bool cpu_isa_choose(enum cpu_isa *isa_out, struct err *err) {
    const char *wanted = getenv("UNET_CPU");
    *isa_out = cpu_isa_detect();
    if (wanted == NULL || wanted[0] == '\0')
        return true;
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        if (strcmp(wanted, names[i]) == 0) {
            *isa_out = (enum cpu_isa)i;
            return true;
        }
    }
    err_set(err, ERR_USAGE, "UNET_CPU=%s: no such instruction set", wanted);
    return err_hint(err, "UNET_CPU is plain, avx2 or avx512, or not set");
}

const char *cpu_isa_name(enum cpu_isa isa) {
    return names[isa];
}
