/*
 * half.glsl: numbers in half precision, two in a word. They reach from 6e-8 to 65504; what is
 * larger is clamped, so that no sum becomes infinite.
 *
 * half_pair is for factors of products, with the rounding that the driver has. half_bits and
 * half_float are the conversions of half_store and half_load (kernel_contract.h): integers and an
 * exact product, so that every driver computes the same bits. Their argument and result are the
 * bits of a float, which never passes through a float operation that could flush it.
 */
#ifndef UNET_HALF_GLSL
#define UNET_HALF_GLSL

uint half_pair(float a, float b) {
    return packHalf2x16(clamp(vec2(a, b), -65504.0, 65504.0));
}

#define HALF_INFINITY 0x7c00u
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
