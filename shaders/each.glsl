/*
 * each.glsl: work distribution of the point-wise kernels. A workgroup takes ITEMS * workgroup-size
 * neighbouring elements; an invocation's elements are gl_WorkGroupSize.x apart.
 */
#ifndef UNET_EACH_GLSL
#define UNET_EACH_GLSL

layout(constant_id = 3) const uint ITEMS = 1; /* elements of an invocation */

/* The invocation's first element among `count` elements of each of several images, and the image.
 */
uint image_element(uint count, out uint image) {
    uint chunk = gl_WorkGroupSize.x * ITEMS;
    uint chunks = div_up(count, chunk);
    uint group = flat_group();
    image = group / chunks;
    return (group - image * chunks) * chunk + gl_LocalInvocationID.x;
}

/* The invocation's first element of one long array. */
uint flat_element() {
    return flat_group() * gl_WorkGroupSize.x * ITEMS + gl_LocalInvocationID.x;
}

#endif
