/*
 * half.glsl: numbers in half precision, two in a word. They reach from 6e-8 to 65504.
 *
 * half_pair is for factors of products, with the rounding that the driver has. Of maps and weights,
 * what is larger is clamped: no scale could help, and nothing looks at the results. Of gradients it
 * becomes infinite, and so do, or become no numbers, the weight gradients that it goes into, where
 * gradient_check finds them. That is decided by the bits: what a conversion makes of numbers that are
 * too large, and comparisons of what is no number, is the driver's choice.
 *
 * half_bits and half_float are the conversions of half_store and half_load (kernel_contract.h), of
 * maps only: integers and an exact product, so that every driver computes the same bits. Their
 * argument and result are the bits of a float, which never passes through a float operation that
 * could flush it.
 */
#ifndef UNET_HALF_GLSL
#define UNET_HALF_GLSL

#define HALF_MOST 65504.0
#define HALF_MOST_BITS 0x477fe000u /* of that as a float */
#define HALF_INFINITY 0x7c00u

uint half_pair(float a, float b) {
    return packHalf2x16(clamp(vec2(a, b), -HALF_MOST, HALF_MOST));
}

bool half_overflows(float a) {
    return (floatBitsToUint(a) & 0x7fffffffu) > HALF_MOST_BITS;
}

uint half_pair_gradient(float a, float b) {
    uint pair = half_pair(a, b);
    pair = half_overflows(a) ? pair & 0xffff0000u | HALF_INFINITY : pair;
    return half_overflows(b) ? pair & 0xffffu | HALF_INFINITY << 16 : pair;
}

#define HALF_LARGEST 0x7bffu /* 65504 */

/* Shifted right by 1 to 31 bits, to nearest, ties to even. */
uint half_shift(uint value, uint bits) {
    return (value + (1u << (bits - 1u)) - 1u + ((value >> bits) & 1u)) >> bits;
}

uint half_bits(uint word) {
    uint sign = (word >> 16) & 0x8000u;
    uint size = word & 0x7fffffffu;
    if (size >= 0x7f800000u) /* infinite or no number */
        return sign | (size > 0x7f800000u ? 0x7e00u : HALF_INFINITY);
    if (size >= 0x38800000u) /* 2^-14: normal as a half too; exponents differ by 112 */
        return sign | min(half_shift(size - (112u << 23), 13u), HALF_LARGEST);
    uint fraction = (size & 0x7fffffu) | 0x800000u;
    uint least = size != 0u ? 1u : 0u; /* a number other than 0 keeps its sign */
    return sign | max(half_shift(fraction, min(126u - (size >> 23), 25u)), least);
}

uint half_float(uint bits) {
    uint sign = (bits & 0x8000u) << 16;
    uint size = bits & 0x7fffu;
    if (size < 0x400u) /* a multiple of 2^-24, a normal float unless it is 0 */
        return sign | floatBitsToUint(float(size) * 5.9604644775390625e-8);
    return sign | ((size << 13) + (size >= HALF_INFINITY ? 224u << 23 : 112u << 23));
}

#endif
