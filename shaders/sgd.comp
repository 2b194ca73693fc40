#version 450
/*
 * sgd.comp: stochastic gradient descent with momentum, as torch.optim.SGD with dampening 0.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS SGD_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, , float, w)
TENSOR(1, readonly, float, g)
TENSOR(2, , float, m)
TENSOR(3, readonly, float, control)

void main() {
    float rate = AT(control, CONTROL_LEARNING_RATE);
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float weight = AT(w, at);
        float gradient = AT(g, at) + p.decay * weight;
        float momentum = p.momentum * AT(m, at) + gradient;
        AT(m, at) = momentum;
        AT(w, at) = weight - rate * momentum;
    }
}
