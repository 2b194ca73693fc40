#version 450
/*
 * dropout.comp: one Philox block decides about four neighbouring elements, numbered over all
 * images. An invocation takes ITEMS blocks. Forward and backward are the same function; y may be x.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS DROPOUT_PARAMS
#include "access.glsl"
#include "each.glsl"
#include "philox.glsl"

TENSOR(0, readonly, float, x)
TENSOR(1, readonly, uint, control)
TENSOR(2, writeonly, float, y)

void main() {
    uvec2 key = uvec2(AT(control, CONTROL_SEED_LO), AT(control, CONTROL_SEED_HI));
    uint training_step = AT(control, CONTROL_STEP);
    uint total = p.n * p.count;
    uint block = flat_element();
    for (uint item = 0u; item < ITEMS && block * 4u < total; item++, block += gl_WorkGroupSize.x) {
        uvec4 word = philox(key, uvec4(block, p.layer, training_step, 0u));
        uint image = block * 4u / p.count;
        uint at = block * 4u - image * p.count;
        [[unroll]] for (uint j = 0u; j < 4u; j++) {
            if (block * 4u + j < total) {
                float value = AT(x, image * p.x_stride_n + at);
                AT(y, image * p.y_stride_n + at) = word[j] >= p.threshold ? value * p.scale : 0.0;
            }
            at++;
            if (at == p.count) {
                at = 0u;
                image++;
            }
        }
    }
}
