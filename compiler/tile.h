/*
 * tile.h: the one place that knows how a kernel is laid out on a device: which shader variant,
 * which specialisation constants, how many workgroups. An op's lowering fills in a kernel's
 * parameters; this file turns them into a dispatch for each class of device.
 */
#ifndef UNET_TILE_H
#define UNET_TILE_H

#include "common/kernel.h"
#include "common/plan.h" /* enum plan_class: PLAN_CLASS_GPU, PLAN_CLASS_CPU */

struct tile {
    const struct plan_limits *limits; /* of the device that it is chosen for */
    const char
        *variant; /* shader variant in the table of shaders/meson.build, such as "conv_fwd_reg" */
    uint32_t n_spec;
    uint32_t spec[KERNEL_MAX_SPEC]; /* value of specialisation constant i; 0, 1, 2 are the workgroup
                                       size */
    uint32_t groups[3];             /* each 1..65535, or what limits allow */
    uint32_t shared_bytes;          /* workgroup memory the variant uses with these constants */
};

/*
 * Chooses tile and groups for a kernel with these parameter words, as part of a method of that kind
 * (DIRECT for records of no choice), within limits (which must outlive the tile; NULL: those of
 * plans without a target). Never fails for parameters kernel_extents accepts: where nothing is
 * within the limits, the verifier says so.
 */
void tile_choose(enum kernel_id kernel, const uint32_t *params, enum plan_class cls,
                 const struct plan_limits *limits, enum plan_method_kind method, struct tile *tile);

/* Whether the kernel has the method MATRIX. */
bool tile_has_matrix(enum kernel_id kernel, const uint32_t *params);

/* Whether the kernel has the method WINOGRAD2. */
bool tile_has_winograd2(enum kernel_id kernel, const uint32_t *params);

/* Whether the tiles of the methods DIRECT and NARROW differ on some device. */
bool tile_has_narrow(enum kernel_id kernel, const uint32_t *params);

/*
 * How many partial sums a weight gradient is split into (params with splits = 0), the same for
 * every class of device so that a plan's buffers do not depend on the device.
 */
uint32_t tile_wgrad_splits(enum kernel_id kernel, const uint32_t *params);

/* The same for devices with many processors, given so many bytes for the partial sums; 0: no room.
 */
uint32_t tile_wgrad_most_splits(enum kernel_id kernel, const uint32_t *params, uint64_t room_bytes);

/* SPIR-V of a variant for an access path; words_out receives the length in 32-bit words. NULL when
 * there is none. */
const uint32_t *shader_find(const char *variant, enum plan_access access, uint32_t *words_out);

#endif
