/*
 * augment.h: how training samples vary (Ronneberger, Fischer and Brox 2015, section 3.1): one
 * composed warp and one grey curve per sample.
 *
 * The warp takes a pixel p of the output window to a position in the frame,
 *
 *     q = corner + c + 1/scale R F (p - c)        c: the window's centre
 *     position = q + d(q)
 *
 * F mirrors each axis or does not, R rotates by the angle (clockwise as seen, with y downwards,
 * from the frame to the sample), scale magnifies. Pixels are at whole numbers, (y, x).
 *
 * The elastic displacement d belongs to the frame, not to the window: grid x grid nodes span it
 * from corner to corner, (width - 1) / (grid - 1) px apart, each with a displacement whose two
 * components are independent Gaussians with mean 0 and standard deviation sigma px. Between nodes d
 * is interpolated by cubic convolution (a = -1/2, Catmull-Rom) in both directions, with nodes
 * beyond the frame continued linearly; outside the frame d is that of the nearest frame position.
 * The interpolation goes through the nodes, so that sigma is what it says; an approximating
 * B-spline of the same nodes would deform by half as much. docs/data.md has the figures.
 *
 * The grey curve maps t = (v - low) / (high - low), 0 .. 1 over the range of values, to
 *
 *     (black + white) / 2 + S u - 2 (S - (white - black)) u |u|     u = t - 1/2
 *     S = slope (white - black)
 *
 * two parabolas that meet in the middle with slope S: 0 goes to black, 1 to white, and for slopes
 * in 0 .. 2 it never falls.
 */
#ifndef UNET_RUNTIME_AUGMENT_H
#define UNET_RUNTIME_AUGMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/plan.h"
#include "common/rng.h"

/* What was drawn for one sample. */
struct augment_draw {
    bool mirror_y, mirror_x; /* rows, columns in reverse order */
    double angle_degrees;
    double scale;
    bool elastic;
    struct rng nodes; /* where the displacements of the nodes are drawn from */
    bool grey;
    float black, white, slope;
};

/* A sample that does not vary. */
struct augment_draw augment_none(void);

/* Draws from rng the same number of words, in the same order, whatever the settings; nodes is a
   stream of its own, so that the grid does not matter either. */
struct augment_draw augment_choose(const struct plan_augment *settings, struct rng *rng,
                                   struct rng nodes);

/* Displacements of nodes: 2 * grid * grid numbers, [node row][node column][y, x], px. */
void augment_nodes(struct rng nodes, uint32_t grid, float sigma, float *out);

/* Where a sample lies: an output window of height x width pixels at corner (y, x) of a frame. */
struct augment_window {
    int y, x, height, width;
    int frame_height, frame_width;
};

struct augment_warp {
    double start_y, start_x;             /* position of pixel (0, 0), before displacement */
    double down_y, down_x;               /* from a pixel to the one below */
    double right_y, right_x;             /* from a pixel to the one to its right */
    bool exact;                          /* all positions are pixel centres */
    int last_y, last_x;                  /* of the frame */
    double cells_per_row, cells_per_col; /* cells of the grid per pixel downwards, to the right */
    int n_cells;                         /* along an axis; 0: no displacement */
    const float *cells;                  /* polynomials, of the caller's scratch */
};

/* Floats of scratch that a warp needs. */
size_t augment_scratch_floats(const struct plan_augment *settings);

/* The warp of a sample; scratch has augment_scratch_floats() floats and lives as long. */
struct augment_warp augment_warp_make(const struct plan_augment *settings,
                                      const struct augment_draw *draw,
                                      const struct augment_window *window, float *scratch);

/* Frame positions of n pixels (y, x), (y, x + 1), ... in coordinates of the output window; they may
 * lie outside the window. */
void augment_warp_row(const struct augment_warp *warp, int y, int x, int n, double *y_out,
                      double *x_out);

/* The displacement d(q) at a frame position. */
void augment_displacement(const struct augment_warp *warp, double y, double x, float *dy_out,
                          float *dx_out);

/* The grey curve, in place; low and high are the values that count as 0 and 1. */
void augment_grey(const struct augment_draw *draw, float low, float high, float *values, size_t n);

#endif
