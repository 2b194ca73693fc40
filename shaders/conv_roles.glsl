/*
 * conv_roles.glsl: convolution, up-convolution and the up-convolution's data gradient as one sum,
 *     dst[c, pixel] = sum over s, ky, kx of src[s, y * STEP + ky * DILATION - PAD_H, ...] * w
 * so that conv_tile.comp and conv_reg.comp serve all of them. ROLE selects the names of the
 * parameters, and what is behind a column of the weights: an output channel, or (upconv_fwd) a tap
 * of the output and an output channel, tap-major as they lie in memory.
 */
#ifndef UNET_CONV_ROLES_GLSL
#define UNET_CONV_ROLES_GLSL

#define ROLE_CONV 0
#define ROLE_UPCONV_FWD 1
#define ROLE_UPCONV_DGRAD 2

#if ROLE == ROLE_CONV
#define PARAMS CONV_PARAMS
#elif ROLE == ROLE_UPCONV_FWD
#define PARAMS UPCONV_PARAMS
#else
#define PARAMS UPCONV_DGRAD_PARAMS
#endif

#include "access.glsl"

/* What a shader loads of the weights at once. */
#ifndef WEIGHT_TYPE
#define WEIGHT_TYPE vec4
#endif

/* p.epilogue once more: what is not asked for costs no code. */
layout(constant_id = 3) const uint EPILOGUE = 0;

TENSOR(0, readonly, float, src)
TENSOR(1, readonly, WEIGHT_TYPE, w)
TENSOR(2, readonly, float, aux)
TENSOR(3, writeonly, float, dst)

#if ROLE == ROLE_CONV
#define SRC_C p.c_in
#define SRC_H p.h_in
#define SRC_W p.w_in
#define SRC_STRIDE_N p.x_stride_n
#define DST_C p.c_out
#define DST_STRIDE_N p.y_stride_n
#define PIXELS_H p.h_out
#define PIXELS_W p.w_out
#define KERNEL_H p.kh
#define KERNEL_W p.kw
#define STEP 1u
#define DILATION p.dilation
#define PAD_H p.pad_h
#define PAD_W p.pad_w
#define COLUMNS ((p.c_out + 3u) / 4u)
#elif ROLE == ROLE_UPCONV_FWD
#define SRC_C p.c_in
#define SRC_H p.h_in
#define SRC_W p.w_in
#define SRC_STRIDE_N p.x_stride_n
#define DST_C p.c_out
#define DST_STRIDE_N p.y_stride_n
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#define KERNEL_H 1u
#define KERNEL_W 1u
#define STEP 1u
#define DILATION 1u
#define PAD_H 0u
#define PAD_W 0u
#define COLUMNS (p.k * p.k * ((p.c_out + 3u) / 4u))
#else
#define SRC_C p.c_out
#define SRC_H (p.h_in * p.k)
#define SRC_W (p.w_in * p.k)
#define SRC_STRIDE_N p.dy_stride_n
#define DST_C p.c_in
#define DST_STRIDE_N p.dx_stride_n
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#define KERNEL_H p.k
#define KERNEL_W p.k
#define STEP p.k
#define DILATION 1u
#define PAD_H 0u
#define PAD_W 0u
#define COLUMNS ((p.c_in + 3u) / 4u)
#endif
/* COLUMNS counts vec4 of a row of the weights. */

/* Size of a pixel in dst, and of dst. */
#if ROLE == ROLE_UPCONV_FWD
#define SCALE p.k
#else
#define SCALE 1u
#endif
#define DST_W (PIXELS_W * SCALE)
#define DST_PLANE (PIXELS_H * SCALE * DST_W)

/* Where the sums of one scalar column of the weights go. */
struct place {
    uint channel; /* DST_C or more: padding */
    uint tap_y, tap_x;
};

place place_first(uint column) {
#if ROLE == ROLE_UPCONV_FWD
    uint out_pitch = (p.c_out + 3u) / 4u * 4u;
    uint tap = column / out_pitch;
    uint tap_y = tap / p.k;
    return place(column - tap * out_pitch, tap_y, tap - tap_y * p.k);
#else
    return place(column, 0u, 0u);
#endif
}

/* The place of the next column, without divisions. */
void place_advance(inout place to) {
    to.channel++;
#if ROLE == ROLE_UPCONV_FWD
    if (to.channel == (p.c_out + 3u) / 4u * 4u) {
        to.channel = 0u;
        to.tap_x++;
    }
    if (to.tap_x == p.k) {
        to.tap_x = 0u;
        to.tap_y++;
    }
#endif
}

/* False for padding and columns past the end. */
bool place_exists(place to) {
    return to.channel < DST_C && to.tap_y < SCALE;
}

float place_bias(place to) {
    if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
        return AT(aux, min(to.channel, DST_C - 1u));
    return 0.0;
}

/* Does the mask leave this channel alone? */
bool place_is_plain(place to) {
#if ROLE == ROLE_CONV
    return to.channel - p.plain_first < p.plain_count; /* wraps round below plain_first */
#else
    return false;
#endif
}

/* Where the sum of a pixel belongs in dst's image. */
uint place_at(place to, uint y, uint x) {
    return to.channel * DST_PLANE + (y * SCALE + to.tap_y) * DST_W + x * SCALE + to.tap_x;
}

/* The same for a pixel by its number. */
uint place_at(place to, uint pixel) {
#if ROLE == ROLE_UPCONV_FWD
    uint y = pixel / PIXELS_W;
    return place_at(to, y, pixel - y * PIXELS_W);
#else
    return to.channel * DST_PLANE + pixel;
#endif
}

/* Applies the epilogue to a finished sum and stores it. The mask is read by the invocation that
   writes the same element, and before: dst may be aux. */
void place_store(place to, float bias, uint image, uint at, float value) {
    if ((EPILOGUE & EPILOGUE_BIAS) != 0u)
        value += bias;
    if ((EPILOGUE & EPILOGUE_ACT) != 0u)
        value = value > 0.0 ? value : p.slope * value;
    if ((EPILOGUE & EPILOGUE_MASK) != 0u && !place_is_plain(to))
        value = AT(aux, image * p.aux_stride_n + at) > 0.0 ? value : p.slope * value;
    AT(dst, image * DST_STRIDE_N + at) = value;
}

#endif
