#version 450
/*
 * half_load.comp: a tensor from half precision. An invocation takes ITEMS words; neighbours read
 * and write neighbours.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS HALF_LOAD_PARAMS
#include "access.glsl"
#include "each.glsl"
#include "half.glsl"

TENSOR(0, readonly, uint, packed_words)
TENSOR(1, writeonly, uint, y)

void main() {
    uint image;
    uint words = div_up(p.count, HALF_BLOCK) * HALF_LANES;
    uint word = image_element(words, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && word < words; item++, word += gl_WorkGroupSize.x) {
        uint at = word + word / HALF_LANES * HALF_LANES;
        uint bits = AT(packed_words, image * words + word);
        if (at < p.count)
            AT(y, image * p.y_stride_n + at) = half_float(bits & 0xffffu);
        if (at + HALF_LANES < p.count)
            AT(y, image * p.y_stride_n + at + HALF_LANES) = half_float(bits >> 16);
    }
}
