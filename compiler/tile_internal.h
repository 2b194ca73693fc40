/*
 * tile_internal.h: what the files that choose tiles share: kernels as maps and sums, and how a
 * dispatch is put together. tile_gpu.c has the tiles of GPUs, tile_cpu.c those of CPU drivers.
 */
#ifndef UNET_TILE_INTERNAL_H
#define UNET_TILE_INTERNAL_H

#include "common/base.h"
#include "compiler/tile.h"

#define LANE_MARGIN 2u /* conv_lane.comp's MARGIN */

/* What convolution and up-convolution kernels have in common: pixels times columns. */
struct map {
    uint32_t n, h, w;          /* pixels that the kernel's invocations share out */
    uint32_t columns, sources; /* vec4 of output channels; source channels */
    uint32_t kh, kw;
    bool padded, dense; /* dense: dilation 1 */
    bool near_edges;    /* taps lie at most LANE_MARGIN outside the source */
    uint32_t epilogue;
};

/* What the two weight gradients have in common. */
struct wgrad {
    uint64_t rows, cols; /* of the product: inputs and taps times outputs; of an up-convolution
                            inputs times taps and outputs. Outputs are padded to four */
    uint32_t c_in, c_out, taps, kh, kw, map_rows, map_w, splits;
    bool padded, dense;
};

/* The parameter words of a record, the others zero. */
union kernel_params tile_read_params(enum kernel_id kernel, const uint32_t *params);

struct map tile_map_find(enum kernel_id kernel, const union kernel_params *p);
struct wgrad tile_wgrad_find(enum kernel_id kernel, const union kernel_params *p);

void tile_set_size(struct tile *tile, uint32_t size);  /* of a workgroup: constants 0 to 2 */
void tile_add_spec(struct tile *tile, uint32_t value); /* the next constant */
/* Folds a number of workgroups over two axes; shaders undo it with flat_group(). */
void tile_set_groups(struct tile *tile, uint64_t groups);

/* Of a workgroup along x, the only axis that workgroups have. */
static inline uint32_t tile_most_invocations(const struct tile *tile) {
    return MIN(tile->limits->max_group_invocations, tile->limits->max_group_size[0]);
}

static inline uint64_t tile_blocks(uint64_t value, uint64_t block) {
    return (value + block - 1) / block;
}

/* tile_gpu.c. False: the kernel is too wide for shared memory. */
bool tile_choose_conv_shared(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile);
void tile_choose_conv_winograd2(const union kernel_params *p, struct tile *tile);
void tile_choose_wgrad_shared(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile);
void tile_choose_conv_matrix(enum kernel_id kernel, const union kernel_params *p,
                             struct tile *tile);
void tile_choose_wgrad_matrix(enum kernel_id kernel, const union kernel_params *p,
                              struct tile *tile);

/* tile_cpu.c */
void tile_choose_conv_reg(enum kernel_id kernel, const union kernel_params *p,
                          enum plan_method_kind method, struct tile *tile);
void tile_choose_wgrad_reg(enum kernel_id kernel, const union kernel_params *p, struct tile *tile);

#endif
