/*
 * peak_loops.c: the two loops of peak.h, compiled once for each instruction set.
 */
#include "runtime/cpu/peak.h"
#include "runtime/cpu/simd.h"

/* A multiply-add takes 4 cycles (a multiplication and an addition 8) and two start in each; more
   chains than that, and no more than 16 registers hold beside the two factors. */
#define CHAINS 10

static float multiply_add(uint32_t steps, float a, float b) {
    simd_vec sums[CHAINS], total = simd_zero();
    const simd_vec factor = simd_set(a), addend = simd_set(b);
    for (int i = 0; i < CHAINS; i++)
        sums[i] = simd_set(1.0f + 0.01f * (float)i);
    for (uint32_t step = 0; step < steps; step++)
        for (int i = 0; i < CHAINS; i++)
            sums[i] = simd_fma(sums[i], factor, addend);
    for (int i = 0; i < CHAINS; i++)
        total = total + sums[i];
    float result = 0;
    for (int i = 0; i < CPU_LANES; i++)
        result += total[i];
    return result;
}

static void copy(float *restrict to, const float *restrict from, size_t n) {
    for (size_t i = 0; i < n; i += 16)
        for (size_t lane = 0; lane < 16; lane += CPU_LANES)
            simd_stream(to + i + lane, simd_load(from + i + lane));
    simd_stream_end();
}

extern const struct cpu_peak_loops CPU_FN(cpu_peak_loops);
const struct cpu_peak_loops CPU_FN(cpu_peak_loops) = {
    .flops = 2 * CHAINS * CPU_LANES, .multiply_add = multiply_add, .copy = copy};
