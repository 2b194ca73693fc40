/*
 * lanes.glsl: neighbouring elements into neighbouring lanes, for point-wise kernels of CPU devices
 * on the address path. There an address of each lane's own is a gather, one that all lanes share a
 * scalar load. Here every lane loads all elements of its subgroup at shared addresses and keeps the
 * one with its number: Mesa's CPU driver makes one vector load of that (docs/shaders.md).
 *
 * Included after access.glsl, and each.glsl where that is used. HAS_LANES is defined where it applies; the result is
 * that of AT(name, first + lane), whatever the subgroup's size.
 */
#ifndef UNET_LANES_GLSL
#define UNET_LANES_GLSL

#ifdef ACCESS_ADDRESS
#define HAS_LANES

#extension GL_KHR_shader_subgroup_basic : require

#define LANES_ITEMS 8u /* elements of an invocation, unrolled */

struct lanes_half {
    vec4 a, b;
};
layout(buffer_reference, std430, buffer_reference_align = 4) readonly buffer lanes_block {
    lanes_half low, high;
};

float lanes_pick(vec4 four, uint first, float other) {
    uint lane = gl_SubgroupInvocationID;
    other = lane == first ? four.x : other;
    other = lane == first + 1u ? four.y : other;
    other = lane == first + 2u ? four.z : other;
    return lane == first + 3u ? four.w : other;
}

/* The elements first .. first + gl_SubgroupSize - 1 of a tensor; the subgroup has 8 or 16 lanes. */
float lanes_load(uvec2 address, uint first) {
    lanes_block from = lanes_block(address_of_word(address, first));
    float value = lanes_pick(from.low.b, 4u, lanes_pick(from.low.a, 0u, 0.0));
    if (gl_SubgroupSize == 16u)
        value = lanes_pick(from.high.b, 12u, lanes_pick(from.high.a, 8u, value));
    return value;
}

#define LANES(name, first) lanes_load(name##_address, first)
#define LANES_FROM(name) uvec2 name##_address = p.address[name##_binding];

/* Whether subgroups have a size that lanes_load knows. */
bool lanes_known() {
    return gl_SubgroupSize == 16u || gl_SubgroupSize == 8u;
}

#ifdef UNET_EACH_GLSL
/* Whether besides all elements of the workgroup exist. */
bool lanes_fit(uint count) {
    return ITEMS == LANES_ITEMS && lanes_known() &&
           (flat_group() + 1u) * gl_WorkGroupSize.x * LANES_ITEMS <= count;
}

/* The subgroup's first element; its next ones are gl_SubgroupSize apart. */
uint lanes_first() {
    return (flat_group() * gl_WorkGroupSize.x + gl_SubgroupID * gl_SubgroupSize) * LANES_ITEMS;
}
#endif
#endif

#endif
