/*
 * winograd.glsl: the transforms of Winograd's minimal filtering F(4 x 4, 3 x 3) with the points 0,
 * +-5/8, +-3/2 and infinity: A and B are exact in binary, and errors are less than half of those of
 * the usual 0, +-1, +-2 (docs/runtime.md has figures and the bound). In two dimensions a transform
 * is applied to the columns, then to the rows.
 */
#ifndef UNET_WINOGRAD_GLSL
#define UNET_WINOGRAD_GLSL

#define WINO_P 0.625
#define WINO_Q 1.5
#define WINO_PP (WINO_P * WINO_P)
#define WINO_QQ (WINO_Q * WINO_Q)
#define WINO_IN 6 /* points of a row of a tile */

/* B' d: six elements of the input in place. */
void winograd_transform_input(inout float d0, inout float d1, inout float d2, inout float d3,
                              inout float d4, inout float d5) {
    float even_p = fma(-WINO_QQ, d2, d4), odd_p = WINO_P * fma(-WINO_QQ, d1, d3);
    float even_q = fma(-WINO_PP, d2, d4), odd_q = WINO_Q * fma(-WINO_PP, d1, d3);
    d0 = fma(WINO_PP * WINO_QQ, d0, fma(-(WINO_PP + WINO_QQ), d2, d4));
    d5 = fma(WINO_PP * WINO_QQ, d1, fma(-(WINO_PP + WINO_QQ), d3, d5));
    d1 = even_p + odd_p;
    d2 = even_p - odd_p;
    d3 = even_q + odd_q;
    d4 = even_q - odd_q;
}

/* G g: three taps to six elements. */
void winograd_transform_weights(float g0, float g1, float g2, out float u[WINO_IN]) {
    const float at_p = 1.0 / (2.0 * WINO_PP * (WINO_PP - WINO_QQ));
    const float at_q = 1.0 / (2.0 * WINO_QQ * (WINO_QQ - WINO_PP));
    float even_p = at_p * fma(WINO_PP, g2, g0), odd_p = at_p * WINO_P * g1;
    float even_q = at_q * fma(WINO_QQ, g2, g0), odd_q = at_q * WINO_Q * g1;
    u[0] = 1.0 / (WINO_PP * WINO_QQ) * g0;
    u[1] = even_p + odd_p;
    u[2] = even_p - odd_p;
    u[3] = even_q + odd_q;
    u[4] = even_q - odd_q;
    u[5] = g2;
}

/* A' m: six sums to four elements of the output. */
void winograd_transform_sums(float m0, float m1, float m2, float m3, float m4, float m5,
                             out float y[4]) {
    float even_p = m1 + m2, odd_p = m1 - m2;
    float even_q = m3 + m4, odd_q = m3 - m4;
    y[0] = m0 + even_p + even_q;
    y[1] = fma(WINO_P, odd_p, WINO_Q * odd_q);
    y[2] = fma(WINO_PP, even_p, WINO_QQ * even_q);
    y[3] = fma(WINO_P * WINO_PP, odd_p, fma(WINO_Q * WINO_QQ, odd_q, m5));
}

/* A tile of the rows first_row .. first_row + n_rows - 1 of all images. */
struct winograd_tile {
    uint image, row, col; /* the first pixel of its output */
};

winograd_tile winograd_tile_find(uint tile, uint first_row, uint n_rows, uint w_out) {
    uint across = div_up(w_out, WINOGRAD_OUT);
    uint down = tile / across;
    uint image = down / n_rows;
    uint row = first_row + down - image * n_rows;
    return winograd_tile(image, row * WINOGRAD_OUT, (tile - down * across) * WINOGRAD_OUT);
}

#endif
