#version 450
/*
 * peak_multiply_add.comp: nothing but multiply-adds, in chains that do not wait for one another:
 * the ceiling that bench --peak measures. No kernel of a plan; runtime/gpu/peak.c embeds it.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS(U, F) U(passes) F(factor) F(addend)
#include "access.glsl"

TENSOR(1, writeonly, float, result)

/* runtime/gpu/peak.c counts with the same numbers. CHAINS: with the two factors they fit the 16
   registers of a CPU. */
const uint CHAINS = 12u;
const uint STEPS = 16u;

void main() {
    float sums[CHAINS];
    uint at = gl_GlobalInvocationID.x;
    [[unroll]] for (uint i = 0u; i < CHAINS; i++)
        sums[i] = float(at & 255u) * 0.001 + float(i);
    uint pass = 0u;
    do {
        [[unroll]] for (uint s = 0u; s < STEPS; s++)
            [[unroll]] for (uint i = 0u; i < CHAINS; i++)
                sums[i] = fma(sums[i], p.factor, p.addend);
    } while (++pass < p.passes);
    float total = 0.0;
    [[unroll]] for (uint i = 0u; i < CHAINS; i++)
        total += sums[i];
    AT(result, at) = total;
}
