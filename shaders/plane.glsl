/*
 * plane.glsl: work distribution of the kernels that run over the pixels of planes: a workgroup
 * takes one chunk of ITEMS * workgroup-size pixels of one plane. Index arithmetic on the plane is
 * done once per invocation; neighbouring invocations hold neighbouring pixels.
 */
#ifndef UNET_PLANE_GLSL
#define UNET_PLANE_GLSL

layout(constant_id = 3) const uint ITEMS = 1; /* pixels of an invocation */

/* The plane and the invocation's first pixel; its next pixels are gl_WorkGroupSize.x apart. */
uint plane_pixel(uint pixels, out uint plane) {
    uint chunk = gl_WorkGroupSize.x * ITEMS;
    uint chunks = div_up(pixels, chunk);
    uint group = flat_group();
    plane = group / chunks;
    return (group - plane * chunks) * chunk + gl_LocalInvocationID.x;
}

#endif
