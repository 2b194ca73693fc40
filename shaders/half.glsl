/*
 * half.glsl: numbers in half precision, two in a word. They reach from 6e-8 to 65504; what is
 * larger is clamped, so that no sum becomes infinite.
 */
#ifndef UNET_HALF_GLSL
#define UNET_HALF_GLSL

uint half_pair(float a, float b) {
    return packHalf2x16(clamp(vec2(a, b), -65504.0, 65504.0));
}

#endif
