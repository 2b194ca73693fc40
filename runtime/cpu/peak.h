/*
 * peak.h: the ceilings of the CPU: loops of nothing but multiply-adds, and of nothing but copies.
 */
#ifndef UNET_CPU_PEAK_H
#define UNET_CPU_PEAK_H

#include "runtime/cpu/kernel.h"
#include "runtime/exec.h"

/* What one thread does, compiled for each instruction set (peak_loops.c). */
struct cpu_peak_loops {
    uint32_t flops; /* of one step of multiply_add */
    /* Steps of x = x * a + b in independent chains. That a and b come from outside, and that there
       is a result, keeps compilers from computing less. */
    float (*multiply_add)(uint32_t steps, float a, float b);
    /* n floats, a multiple of 16; both aligned to 64 bytes. */
    void (*copy)(float *restrict to, const float *restrict from, size_t n);
};

/* NULL when the program was built without this instruction set. */
const struct cpu_peak_loops *cpu_peak_find(enum cpu_isa isa);

/* As struct exec_backend has it: with all threads of the device's pool. */
bool cpu_peak_open(struct unet_device *device, struct exec_peak **out, struct err *err);

#endif
