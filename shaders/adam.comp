#version 450
/*
 * adam.comp: Adam (Kingma and Ba 2015) as torch.optim.Adam; the control buffer carries the bias
 * corrections 1 - beta^(step + 1). SCALED: of a gradient that is divided by its scale first
 * (scaled.glsl).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#ifdef SCALED
#define PARAMS ADAM_SCALED_PARAMS
#else
#define PARAMS ADAM_PARAMS
#endif
#include "access.glsl"
#include "each.glsl"
#include "lanes.glsl"

TENSOR(0, , float, w)
TENSOR(1, readonly, float, g)
TENSOR(2, , float, m)
TENSOR(3, , float, v)
TENSOR(4, readonly, float, control)
#define VERDICT_BINDING 5
#include "scaled.glsl"

void update(uint at, float weight, float gradient, float old_first, float old_second, float rate,
            float bias1, float bias2) {
    gradient += p.decay * weight;
    float first = p.beta1 * old_first + (1.0 - p.beta1) * gradient;
    float second = p.beta2 * old_second + (1.0 - p.beta2) * gradient * gradient;
    AT(m, at) = first;
    AT(v, at) = second;
    AT(w, at) = weight - rate * (first / bias1) / (sqrt(second / bias2) + p.epsilon);
}

void main() {
    UNLESS_SKIPPED
    float rate = AT(control, CONTROL_LEARNING_RATE);
    float bias1 = AT(control, CONTROL_ADAM_BIAS1);
    float bias2 = AT(control, CONTROL_ADAM_BIAS2);
#ifdef HAS_LANES
    if (lanes_fit(p.count)) {
        LANES_FROM(w)
        LANES_FROM(g)
        LANES_FROM(m)
        LANES_FROM(v)
        [[unroll]] for (uint item = 0u; item < LANES_ITEMS; item++) {
            uint first = lanes_first() + item * gl_SubgroupSize;
            update(first + gl_SubgroupInvocationID, LANES(w, first), UNSCALED(LANES(g, first)),
                   LANES(m, first), LANES(v, first), rate, bias1, bias2);
        }
        return;
    }
#endif
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x)
        update(at, AT(w, at), UNSCALED(AT(g, at)), AT(m, at), AT(v, at), rate, bias1, bias2);
}
