#version 450
/*
 * adam.comp: Adam (Kingma and Ba 2015) as torch.optim.Adam; the control buffer carries the bias
 * corrections 1 - beta^(step + 1).
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS ADAM_PARAMS
#include "access.glsl"
#include "each.glsl"

TENSOR(0, , float, w)
TENSOR(1, readonly, float, g)
TENSOR(2, , float, m)
TENSOR(3, , float, v)
TENSOR(4, readonly, float, control)

void main() {
    float rate = AT(control, CONTROL_LEARNING_RATE);
    float bias1 = AT(control, CONTROL_ADAM_BIAS1);
    float bias2 = AT(control, CONTROL_ADAM_BIAS2);
    uint at = flat_element();
    for (uint item = 0u; item < ITEMS && at < p.count; item++, at += gl_WorkGroupSize.x) {
        float weight = AT(w, at);
        float gradient = AT(g, at) + p.decay * weight;
        float first = p.beta1 * AT(m, at) + (1.0 - p.beta1) * gradient;
        float second = p.beta2 * AT(v, at) + (1.0 - p.beta2) * gradient * gradient;
        AT(m, at) = first;
        AT(v, at) = second;
        AT(w, at) = weight - rate * (first / bias1) / (sqrt(second / bias2) + p.epsilon);
    }
}
