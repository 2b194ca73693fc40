#version 450
/*
 * half_store.comp: a tensor in half precision. An invocation makes ITEMS words; neighbours read
 * and write neighbours.
 */
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#include "kernel_contract.h"
#define PARAMS HALF_STORE_PARAMS
#include "access.glsl"
#include "each.glsl"
#include "half.glsl"

TENSOR(0, readonly, uint, x)
TENSOR(1, writeonly, uint, packed_words)

uint element(uint image, uint at) {
    return at < p.count ? half_bits(AT(x, image * p.x_stride_n + at)) : 0u;
}

void main() {
    uint image;
    uint words = div_up(p.count, HALF_BLOCK) * HALF_LANES;
    uint word = image_element(words, image);
    if (image >= p.n)
        return;
    for (uint item = 0u; item < ITEMS && word < words; item++, word += gl_WorkGroupSize.x) {
        uint at = word + word / HALF_LANES * HALF_LANES;
        AT(packed_words, image * words + word) =
            element(image, at) | element(image, at + HALF_LANES) << 16;
    }
}
