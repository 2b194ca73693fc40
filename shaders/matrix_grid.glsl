/*
 * matrix_grid.glsl: the matrices of a subgroup, DOWN by ACROSS of sums, at most 4 by 4: parts of
 * 32 x 32 and matrices of at least 8 x 8. They are variables of their own and not an array, which
 * NVIDIA's open compiler keeps in memory; those past DOWN and ACROSS, which are constants of the
 * pipeline, are never used.
 *
 * The includer defines MATRIX_A, MATRIX_B, MATRIX_C, DOWN, ACROSS, and how to load the factors of
 * row r and column c: LOAD_A(variable, r), LOAD_B(variable, c).
 */
#ifndef UNET_MATRIX_GRID_GLSL
#define UNET_MATRIX_GRID_GLSL

#define MATRIX_SIDE(DO) DO(0) DO(1) DO(2) DO(3)
#define MATRIX_ROW(DO, r) DO(r, 0) DO(r, 1) DO(r, 2) DO(r, 3)
#define MATRIX_GRID(DO) MATRIX_ROW(DO, 0) MATRIX_ROW(DO, 1) MATRIX_ROW(DO, 2) MATRIX_ROW(DO, 3)

#define MATRIX_CLEAR_(r, c) MATRIX_C sum_##r##_##c = MATRIX_C(0.0);
#define MATRIX_LOAD_B_(c) MATRIX_B b_##c; if (c < ACROSS) LOAD_B(b_##c, c);
#define MATRIX_LOAD_A_(r) MATRIX_A a_##r; if (r < DOWN) LOAD_A(a_##r, r);
#define MATRIX_MULTIPLY_(r, c)                                                                     \
    if (r < DOWN && c < ACROSS)                                                                    \
        sum_##r##_##c = coopMatMulAddNV(a_##r, b_##c, sum_##r##_##c);

/* Declares the sums, all zero. */
#define MATRIX_CLEAR MATRIX_GRID(MATRIX_CLEAR_)
/* Adds the products of one step of K_SIZE. */
#define MATRIX_MULTIPLY                                                                            \
    MATRIX_SIDE(MATRIX_LOAD_B_) MATRIX_SIDE(MATRIX_LOAD_A_) MATRIX_GRID(MATRIX_MULTIPLY_)

#endif
