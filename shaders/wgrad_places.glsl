/*
 * wgrad_places.glsl: what wgrad_tile.comp and wgrad_matrix.comp share: conv_wgrad and upconv_wgrad
 * (ROLE) as a matrix product, where the values of its rows and columns lie. Rows are (input
 * channel, tap), columns output channels, the depth runs over pixels. For upconv_wgrad the taps
 * belong to the output's gradient, so rows are input channels and columns (tap, output channel);
 * both write the layout [in][tap][out4]. KH and KW are the kernel's size, constants.
 */
#ifndef UNET_WGRAD_PLACES_GLSL
#define UNET_WGRAD_PLACES_GLSL

#if ROLE == ROLE_CONV
#define PIXELS_H p.h_out
#define PIXELS_W p.w_out
#else
#define PIXELS_H p.h_in
#define PIXELS_W p.w_in
#endif

uint out_pitch = div_up(p.c_out, 4u) * 4u;

/* Where a row's value lies from that of the pixel's first tap on, and which tap it is. */
struct row_place {
    uint offset, tap_y, tap_x;
};

row_place place_row(uint row) {
#if ROLE == ROLE_CONV
    uint channel = row / (KH * KW);
    uint tap = row - channel * (KH * KW);
    uint tap_y = tap / KW * p.dilation;
    uint tap_x = tap % KW * p.dilation;
    return row_place((channel * p.h_in + tap_y) * p.w_in + tap_x, tap_y, tap_x);
#else
    return row_place(row * p.h_in * p.w_in, 0u, 0u);
#endif
}

#if ROLE == ROLE_CONV
#define DY_H p.h_out
#define DY_W p.w_out
#define DY_STEP_H 1u
#define DY_STEP_W 1u
#define X_PAD_H p.pad_h
#define X_PAD_W p.pad_w
#else
#define DY_H (p.h_in * KH)
#define DY_W (p.w_in * KW)
#define DY_STEP_H KH
#define DY_STEP_W KW
#define X_PAD_H 0u
#define X_PAD_W 0u
#endif

/* Where a column's value lies from the pixel's own place in the first plane on. Columns that pad
   the channels to four are read from the last channel. */
uint place_col(uint col) {
#if ROLE == ROLE_CONV
    uint tap = 0u, channel = col;
#else
    uint tap = col / out_pitch;
    uint channel = col - tap * out_pitch;
#endif
    return (min(channel, p.c_out - 1u) * DY_H + tap / KW) * DY_W + tap % KW;
}

#if ROLE == ROLE_CONV
#define ROWS (p.c_in * KH * KW)
#define COLS out_pitch
#else
#define ROWS p.c_in
#define COLS (KH * KW * out_pitch)
#endif

#endif
