/*
 * augment.c: see augment.h. A row of positions is a straight line in the frame; the displacement is
 * added position by position from the polynomial of the grid cell it lies in.
 */
#include "runtime/data/augment.h"

#include <math.h>
#include <string.h>

#include "common/base.h"

#define PI 3.14159265358979323846
#define CELL_FLOATS 32 /* powers of x: four for y and four for x of each; in them powers of y */

typedef float float4 __attribute__((vector_size(16)));

/* ---------------------------------------------------------------- draws */

struct augment_draw augment_none(void) {
    return (struct augment_draw){.scale = 1, .white = 1, .slope = 1};
}

static double choose_angle(const struct plan_augment *settings, double part) {
    double angle = settings->rotate_degrees * (2 * part - 1);
    if (settings->rotate_step > 0)
        angle = settings->rotate_step * rint(angle / settings->rotate_step);
    return angle;
}

static double lerp(double from, double to, double part) {
    return from + (to - from) * part;
}

struct augment_draw augment_choose(const struct plan_augment *settings, struct rng *rng,
                                   struct rng nodes) {
    enum {
        MIRROR_Y,
        MIRROR_X,
        ROTATE,
        ANGLE,
        SCALE,
        LOG_SCALE,
        ELASTIC,
        GREY,
        BLACK,
        WHITE,
        SLOPE,
        DRAWS
    };
    double part[DRAWS]; /* [0, 1) each; all of them, whatever is switched on */
    for (int i = 0; i < DRAWS; i++)
        part[i] = rng_uniform(rng);
    struct augment_draw draw = augment_none();
    draw.mirror_y = part[MIRROR_Y] < settings->mirror_probability;
    draw.mirror_x = part[MIRROR_X] < settings->mirror_probability;
    if (part[ROTATE] < settings->rotate_probability)
        draw.angle_degrees = choose_angle(settings, part[ANGLE]);
    if (part[SCALE] < settings->scale_probability && settings->scale_min < settings->scale_max)
        draw.scale = exp(lerp(log((double)settings->scale_min), log((double)settings->scale_max),
                              part[LOG_SCALE]));
    else if (part[SCALE] < settings->scale_probability)
        draw.scale = settings->scale_min;
    draw.elastic = settings->elastic_grid >= 2 && settings->elastic_sigma > 0 &&
                   part[ELASTIC] < settings->elastic_probability;
    draw.nodes = nodes;
    draw.grey = part[GREY] < settings->grey_probability &&
                (settings->grey_black > 0 || settings->grey_white > 0 ||
                 settings->grey_slope_min != 1 || settings->grey_slope_max != 1);
    if (draw.grey) {
        draw.black = settings->grey_black * (float)(2 * part[BLACK] - 1);
        draw.white = 1 + settings->grey_white * (float)(2 * part[WHITE] - 1);
        draw.slope = (float)lerp(settings->grey_slope_min, settings->grey_slope_max, part[SLOPE]);
    }
    return draw;
}

void augment_nodes(struct rng nodes, uint32_t grid, float sigma, float *out) {
    for (size_t i = 0; i < 2 * (size_t)grid * grid; i++)
        out[i] = sigma * (float)rng_normal(&nodes);
}

/* ---------------------------------------------------------------- the elastic grid */

size_t augment_scratch_floats(const struct plan_augment *settings) {
    const size_t grid = settings->elastic_grid;
    return grid < 2 ? 0 : 2 * grid * grid + (grid - 1) * (grid - 1) * CELL_FLOATS;
}

/* A component of a node, or of one beyond the border: the two outermost ones continued. */
static float node_at(const float *nodes, int grid, int row, int column, int component) {
    if (row < 0)
        return 2 * node_at(nodes, grid, 0, column, component) -
               node_at(nodes, grid, 1, column, component);
    if (row >= grid)
        return 2 * node_at(nodes, grid, grid - 1, column, component) -
               node_at(nodes, grid, grid - 2, column, component);
    if (column < 0)
        return 2 * node_at(nodes, grid, row, 0, component) -
               node_at(nodes, grid, row, 1, component);
    if (column >= grid)
        return 2 * node_at(nodes, grid, row, grid - 1, component) -
               node_at(nodes, grid, row, grid - 2, component);
    return nodes[2 * (row * grid + column) + component];
}

/* Coefficients of the cubic through values 1 and 2 of four, at 0 and 1, by powers. */
static void cubic_polynomial(const float values[4], float powers[4]) {
    powers[0] = values[1];
    powers[1] = 0.5f * (values[2] - values[0]);
    powers[2] = values[0] - 2.5f * values[1] + 2 * values[2] - 0.5f * values[3];
    powers[3] = 0.5f * (values[3] - values[0]) + 1.5f * (values[1] - values[2]);
}

/* cell[8 * k + 4 * component + j] belongs to x^k y^j. */
static void make_cell(const float *nodes, int grid, int row, int column, float *cell) {
    for (int component = 0; component < 2; component++) {
        float across[4][4]; /* of each of four rows of nodes: powers of x */
        for (int i = 0; i < 4; i++) {
            float values[4];
            for (int k = 0; k < 4; k++)
                values[k] = node_at(nodes, grid, row - 1 + i, column - 1 + k, component);
            cubic_polynomial(values, across[i]);
        }
        for (int k = 0; k < 4; k++) {
            const float values[4] = {across[0][k], across[1][k], across[2][k], across[3][k]};
            cubic_polynomial(values, cell + 8 * k + 4 * component);
        }
    }
}

static inline float4 load4(const float *from) {
    float4 run;
    memcpy(&run, from, sizeof(run));
    return run;
}

/* Coordinate in cells: the cell, and the part within. */
static inline int find_cell(double position, int last, double cells_per_pixel, int n_cells,
                            float *part) {
    position = position < 0 ? 0 : position > last ? last : position;
    const double cells = position * cells_per_pixel;
    const int cell = MIN((int)cells, n_cells - 1);
    *part = (float)(cells - cell);
    return cell;
}

static inline void displace(const struct augment_warp *warp, double y, double x, float *dy,
                            float *dx) {
    float v, u;
    const int row = find_cell(y, warp->last_y, warp->cells_per_row, warp->n_cells, &v);
    const int column = find_cell(x, warp->last_x, warp->cells_per_col, warp->n_cells, &u);
    const float *cell = warp->cells + (size_t)(row * warp->n_cells + column) * CELL_FLOATS;
    const float4 powers = {1, v, v * v, v * v * v};
    const float4 of_y =
        powers *
        (load4(cell) + u * (load4(cell + 8) + u * (load4(cell + 16) + u * load4(cell + 24))));
    const float4 of_x =
        powers *
        (load4(cell + 4) + u * (load4(cell + 12) + u * (load4(cell + 20) + u * load4(cell + 28))));
    *dy = (of_y[0] + of_y[1]) + (of_y[2] + of_y[3]);
    *dx = (of_x[0] + of_x[1]) + (of_x[2] + of_x[3]);
}

void augment_displacement(const struct augment_warp *warp, double y, double x, float *dy_out,
                          float *dx_out) {
    *dy_out = *dx_out = 0;
    if (warp->n_cells > 0)
        displace(warp, y, x, dy_out, dx_out);
}

static void make_elastic(const struct plan_augment *settings, const struct augment_draw *draw,
                         float *scratch, struct augment_warp *warp) {
    const int grid = (int)settings->elastic_grid;
    float *cells = scratch + 2 * (size_t)grid * (size_t)grid;
    augment_nodes(draw->nodes, settings->elastic_grid, settings->elastic_sigma, scratch);
    warp->n_cells = grid - 1;
    warp->cells = cells;
    warp->cells_per_row = warp->last_y > 0 ? (double)(grid - 1) / warp->last_y : 0;
    warp->cells_per_col = warp->last_x > 0 ? (double)(grid - 1) / warp->last_x : 0;
    for (int row = 0; row < grid - 1; row++)
        for (int column = 0; column < grid - 1; column++, cells += CELL_FLOATS)
            make_cell(scratch, grid, row, column, cells);
}

/* ---------------------------------------------------------------- the warp */

/* Exact for multiples of 90 degrees. */
static void rotation(double degrees, double *cos_out, double *sin_out) {
    const double turns = rint(degrees / 90);
    const double rest = (degrees - 90 * turns) * (PI / 180);
    const double c = rest == 0 ? 1 : cos(rest), s = rest == 0 ? 0 : sin(rest);
    switch ((int)turns & 3) {
    case 0:
        *cos_out = c, *sin_out = s;
        break;
    case 1:
        *cos_out = -s, *sin_out = c;
        break;
    case 2:
        *cos_out = -c, *sin_out = -s;
        break;
    default:
        *cos_out = s, *sin_out = -c;
    }
}

static bool is_whole(double value) {
    return value == rint(value);
}

static bool is_unit(double value) {
    return value == 0 || value == 1 || value == -1;
}

struct augment_warp augment_warp_make(const struct plan_augment *settings,
                                      const struct augment_draw *draw,
                                      const struct augment_window *window, float *scratch) {
    const double centre_y = (window->height - 1) * 0.5, centre_x = (window->width - 1) * 0.5;
    const double flip_y = draw->mirror_y ? -1 : 1, flip_x = draw->mirror_x ? -1 : 1;
    double c, s;
    rotation(draw->angle_degrees, &c, &s);
    struct augment_warp warp = {
        .down_y = c * flip_y / draw->scale,
        .down_x = s * flip_y / draw->scale,
        .right_y = -s * flip_x / draw->scale,
        .right_x = c * flip_x / draw->scale,
        .last_y = window->frame_height - 1,
        .last_x = window->frame_width - 1,
    };
    warp.start_y = window->y + centre_y - warp.down_y * centre_y - warp.right_y * centre_x;
    warp.start_x = window->x + centre_x - warp.down_x * centre_y - warp.right_x * centre_x;
    if (draw->elastic)
        make_elastic(settings, draw, scratch, &warp);
    warp.exact = !draw->elastic && is_unit(warp.down_y) && is_unit(warp.down_x) &&
                 is_unit(warp.right_y) && is_unit(warp.right_x) && is_whole(warp.start_y) &&
                 is_whole(warp.start_x);
    return warp;
}

void augment_warp_row(const struct augment_warp *warp, int y, int x, int n, double *y_out,
                      double *x_out) {
    const double row_y = warp->start_y + warp->down_y * y;
    const double row_x = warp->start_x + warp->down_x * y;
    for (int i = 0; i < n; i++) {
        y_out[i] = row_y + warp->right_y * (x + i);
        x_out[i] = row_x + warp->right_x * (x + i);
    }
    if (warp->n_cells == 0)
        return;
    for (int i = 0; i < n; i++) {
        float dy, dx;
        displace(warp, y_out[i], x_out[i], &dy, &dx);
        y_out[i] += dy;
        x_out[i] += dx;
    }
}

/* ---------------------------------------------------------------- grey values */

void augment_grey(const struct augment_draw *draw, float low, float high, float *values, size_t n) {
    if (!draw->grey || high == low)
        return;
    const float range = high - low, span = draw->white - draw->black;
    const float slope = draw->slope * span, bend = 2 * (slope - span);
    const float middle = 0.5f * (draw->black + draw->white);
    for (size_t i = 0; i < n; i++) {
        const float u = (values[i] - low) / range - 0.5f;
        values[i] = low + range * (middle + slope * u - bend * u * fabsf(u));
    }
}
