#version 450
/*
 * sgd.comp: stochastic gradient descent with momentum, as torch.optim.SGD with dampening 0. SCALED:
 * of a gradient that is divided by its scale first (scaled.glsl).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#ifdef SCALED
#define PARAMS SGD_SCALED_PARAMS
#else
#define PARAMS SGD_PARAMS
#endif
#include "access.glsl"
#include "each.glsl"
#include "lanes.glsl"

TENSOR(0, , float, w)
TENSOR(1, readonly, float, g)
TENSOR(2, , float, m)
TENSOR(3, readonly, float, control)
#define VERDICT_BINDING 4
#include "scaled.glsl"

void update(uint at, float weight, float gradient, float old_momentum, float rate) {
    float momentum = p.momentum * old_momentum + (gradient + p.decay * weight);
    AT(m, at) = momentum;
    AT(w, at) = weight - rate * momentum;
}

void main() {
    UNLESS_SKIPPED
    float rate = AT(control, CONTROL_LEARNING_RATE);
#ifdef HAS_LANES
    if (lanes_fit(p.count)) {
        LANES_FROM(w)
        LANES_FROM(g)
        LANES_FROM(m)
        [[unroll]] for (uint item = 0u; item < LANES_ITEMS; item++) {
            uint first = lanes_first() + item * gl_SubgroupSize;
            update(first + gl_SubgroupInvocationID, LANES(w, first), UNSCALED(LANES(g, first)),
                   LANES(m, first), rate);
        }
        return;
    }
#endif
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x)
        update(at, AT(w, at), UNSCALED(AT(g, at)), AT(m, at), rate);
}
