/*
 * kernel.h: the C view of kernel_contract.h: kernel numbers, parameter structs, names of bindings
 * and parameters, and the extent of memory that each binding of a kernel touches for given
 * parameters (used by the verifier and the executors).
 */
#ifndef UNET_KERNEL_H
#define UNET_KERNEL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/kernel_contract.h"

enum kernel_id {
#define KERNEL_ENUM(name, family) KERNEL_ID_##name,
    KERNELS(KERNEL_ENUM)
#undef KERNEL_ENUM
        KERNEL_COUNT
};

#define KERNEL_FIELD_U(name) uint32_t name;
#define KERNEL_FIELD_F(name) float name;
#define KERNEL_STRUCT(tag, FAMILY)                                                                 \
    struct tag##_params {                                                                          \
        FAMILY##_PARAMS(KERNEL_FIELD_U, KERNEL_FIELD_F)                                            \
    };
KERNEL_STRUCT(conv, CONV)
KERNEL_STRUCT(conv_wgrad, CONV_WGRAD)
KERNEL_STRUCT(wgrad_reduce, WGRAD_REDUCE)
KERNEL_STRUCT(weights_transpose, WEIGHTS_TRANSPOSE)
KERNEL_STRUCT(bias_grad, BIAS_GRAD)
KERNEL_STRUCT(upconv, UPCONV)
KERNEL_STRUCT(upconv_dgrad, UPCONV_DGRAD)
KERNEL_STRUCT(upconv_wgrad, UPCONV_WGRAD)
KERNEL_STRUCT(maxpool, MAXPOOL)
KERNEL_STRUCT(maxpool_bwd, MAXPOOL_BWD)
KERNEL_STRUCT(maxpool_index, MAXPOOL_INDEX)
KERNEL_STRUCT(maxpool_unpool, MAXPOOL_UNPOOL)
KERNEL_STRUCT(act_fwd, ACT_FWD)
KERNEL_STRUCT(act_bwd, ACT_BWD)
KERNEL_STRUCT(add, ADD)
KERNEL_STRUCT(copy_region, COPY_REGION)
KERNEL_STRUCT(embed_region, EMBED_REGION)
KERNEL_STRUCT(dropout, DROPOUT)
KERNEL_STRUCT(softmax, SOFTMAX)
KERNEL_STRUCT(softmax_loss, SOFTMAX_LOSS)
KERNEL_STRUCT(loss_reduce, LOSS_REDUCE)
KERNEL_STRUCT(softmax_loss_grad, SOFTMAX_LOSS_GRAD)
KERNEL_STRUCT(sgd, SGD)
KERNEL_STRUCT(adam, ADAM)
KERNEL_STRUCT(accumulate, ACCUMULATE)
KERNEL_STRUCT(winograd_weights, WINOGRAD_WEIGHTS)
KERNEL_STRUCT(winograd_input, WINOGRAD_INPUT)
KERNEL_STRUCT(winograd_product, WINOGRAD_PRODUCT)
KERNEL_STRUCT(half_store, HALF_STORE)
KERNEL_STRUCT(half_load, HALF_LOAD)
KERNEL_STRUCT(scale_gradient, SCALE_GRADIENT)
KERNEL_STRUCT(gradient_check, GRADIENT_CHECK)
KERNEL_STRUCT(loss_scale, LOSS_SCALE)

/* The parameter words of a record, as the struct of its kernel's family. */
union kernel_params {
    uint32_t words[KERNEL_MAX_PARAMS];
    struct conv_params conv;
    struct conv_wgrad_params conv_wgrad;
    struct wgrad_reduce_params wgrad_reduce;
    struct weights_transpose_params weights_transpose;
    struct bias_grad_params bias_grad;
    struct upconv_params upconv;
    struct upconv_dgrad_params upconv_dgrad;
    struct upconv_wgrad_params upconv_wgrad;
    struct maxpool_params maxpool;
    struct maxpool_bwd_params maxpool_bwd;
    struct maxpool_index_params maxpool_index;
    struct maxpool_unpool_params maxpool_unpool;
    struct act_fwd_params act_fwd;
    struct act_bwd_params act_bwd;
    struct add_params add;
    struct copy_region_params copy_region;
    struct embed_region_params embed_region;
    struct dropout_params dropout;
    struct softmax_params softmax;
    struct softmax_loss_params softmax_loss;
    struct loss_reduce_params loss_reduce;
    struct softmax_loss_grad_params softmax_loss_grad;
    struct sgd_params sgd;
    struct adam_params adam;
    struct accumulate_params accumulate;
    struct winograd_weights_params winograd_weights;
    struct winograd_input_params winograd_input;
    struct winograd_product_params winograd_product;
    struct half_store_params half_store;
    struct half_load_params half_load;
    struct scale_gradient_params scale_gradient;
    struct gradient_check_params gradient_check;
    struct loss_scale_params loss_scale;
};

enum kernel_access { KERNEL_READ = 1, KERNEL_WRITE = 2, KERNEL_UPDATE = 3 };

struct kernel_binding {
    const char *name;
    enum kernel_access access;
};

struct kernel_param {
    const char *name;
    bool is_float;
};

struct kernel_info {
    const char *name;
    uint32_t n_bindings;
    struct kernel_binding bindings[KERNEL_MAX_BINDINGS];
    uint32_t n_params;
    struct kernel_param params[KERNEL_MAX_PARAMS];
};

extern const struct kernel_info kernel_table[KERNEL_COUNT];

/* The kernel's number, or -1 when there is none of that name. */
int kernel_find(const char *name);

/*
 * What a kernel touches of one binding, in terms of its parameters: to be compared with the shape
 * of the tensor that a record binds there.
 */
enum kernel_form {
    KERNEL_UNUSED,  /* not touched (aux without an epilogue that uses it) */
    KERNEL_PLANES,  /* n images of c planes of h x w */
    KERNEL_PIXELS,  /* n images of c planes of w pixels each, whatever their rows (h = 1) */
    KERNEL_POINTS,  /* n images of w elements each, whatever their planes (c = h = 1) */
    KERNEL_WEIGHTS, /* [c][h * w taps][n rounded up to 4]; w = 0: h is the number of taps */
    KERNEL_FLAT     /* w words */
};

struct kernel_region {
    enum kernel_form form;
    uint32_t n, c, h, w;
    uint32_t stride_n; /* PLANES, PIXELS, POINTS: elements from one image to the next */
    bool is_u32;       /* labels; the control buffer is read as both and counts as float */
    bool is_control;   /* must be the control buffer */
    bool is_partial;   /* a WRITE that leaves some of these elements alone (a pasted rectangle) */
    /* PLANES, a WRITE of a part that others complete: only these channels and rows. n_c 0: all */
    uint32_t first_c, n_c, first_h, n_h;
    uint64_t extent; /* elements from the start of the binding to the end of the region */
};

/* Blocks of tiles that winograd_input makes of n_rows rows of tiles of n images, and the words of v
   and of u, which winograd_weights makes for n_channels output channels. */
uint64_t kernel_winograd_blocks(uint32_t n, uint32_t n_rows, uint32_t w_out);
uint64_t kernel_winograd_v_words(uint32_t n, uint32_t c_in, uint32_t n_rows, uint32_t w_out);
uint64_t kernel_winograd_u_words(uint32_t c_in, uint32_t n_channels);

/* Words that half_store makes of n images of count elements. */
uint64_t kernel_half_words(uint32_t n, uint32_t count);

/* The regions of all bindings; false, with *why, when the parameters are inconsistent. */
bool kernel_regions(enum kernel_id id, const uint32_t *params,
                    struct kernel_region regions[KERNEL_MAX_BINDINGS], const char **why);

/*
 * Elements (4-byte words) from the start of each binding to the end of what the kernel touches
 * there, given its parameter words. False when the parameters are inconsistent (a size of zero, an
 * output larger than its input allows, a product past 2^31); *why then names the reason.
 */
bool kernel_extents(enum kernel_id id, const uint32_t *params,
                    uint64_t extents[KERNEL_MAX_BINDINGS], const char **why);

#endif
