/*
 * conv_winograd.c: convolutions of 3 x 3 and their data gradients by Winograd's algorithm
 * (kernel_contract.h): transformed weights u, transformed input v, and the product of the two. To
 * limit both scratch tensors, v holds a strip of rows of tiles and u a slice of output channels;
 * their records follow one another, strip by strip and slice by slice.
 */
#include "compiler/op/conv_winograd.h"

#include "common/base.h"

/* Below this many channels the transforms cost more than they save, on any device. */
#define LEAST_CHANNELS 4u
/* From this many on it is the faster method on CPU drivers that reach tensors by addresses, and by
   descriptors; there data gradients, whose direct sums test for padding, gain earlier
   (docs/shaders.md). */
#define FAST_CHANNELS 32u
#define FAST_CHANNELS_DESCRIPTOR 64u
#define FAST_CHANNELS_DESCRIPTOR_DATA_GRADIENT 32u

/* Larger ones gain nothing: what a device has in its caches is smaller. But of v there are at least
   so many blocks. */
#define MOST_V_BYTES (8u << 20)
#define MOST_U_BYTES (16u << 20)
/* Smaller parts cost more than they save: every part of a product is a record with barriers. */
#define LEAST_BLOCKS 4u
#define LEAST_SLICE 32u

/* How the work is divided: strips of rows of tiles, slices of output channels. */
struct parts {
    uint32_t n_rows, n_channels; /* of all but the last */
    uint32_t n_strips, n_slices;
};

static uint64_t v_bytes(const struct conv_params *p, uint32_t n_rows) {
    return kernel_winograd_v_words(p->n, p->c_in, n_rows, p->w_out) * 4;
}

/* The largest v that is wanted. */
static uint64_t wanted_v_bytes(const struct conv_params *p) {
    const uint64_t block_bytes =
        v_bytes(p, div_up(p->h_out, WINOGRAD_OUT)) /
        kernel_winograd_blocks(p->n, div_up(p->h_out, WINOGRAD_OUT), p->w_out);
    return MAX(MOST_V_BYTES, 2 * LEAST_BLOCKS * block_bytes);
}

static uint64_t u_bytes(const struct conv_params *p, uint32_t n_channels) {
    return kernel_winograd_u_words(p->c_in, n_channels) * 4;
}

/* As many parts as make each fit, all of nearly the same size: a multiple of `step`. */
static uint32_t even_part(uint32_t count, uint32_t most, uint32_t step) {
    const uint32_t n_parts = div_up(count, MAX(most, 1));
    return (uint32_t)align_up(div_up(count, n_parts), step);
}

static uint32_t most_rows(const struct conv_params *p, uint64_t limit_bytes) {
    uint32_t n_rows = div_up(p->h_out, WINOGRAD_OUT);
    while (n_rows > 0 && v_bytes(p, n_rows) > limit_bytes) {
        n_rows--;
    }
    return n_rows;
}

static uint32_t most_channels(const struct conv_params *p, uint64_t limit_bytes) {
    const uint64_t block_bytes = u_bytes(p, 4);
    const uint64_t n_blocks = MIN(limit_bytes / block_bytes, div_up(p->c_out, 4));
    return (uint32_t)n_blocks * 4;
}

/* False where the scratch would exceed the room, or what fits is too little at a time. */
static bool divide(const struct conv_params *p, uint64_t room_bytes, struct parts *parts) {
    const uint32_t all_rows = div_up(p->h_out, WINOGRAD_OUT);
    const uint64_t least_v = v_bytes(p, 1);
    if (room_bytes < least_v) {
        return false;
    }
    /* Weights first, but not more than two thirds where the input needs the rest. */
    const uint64_t all_v = MIN(v_bytes(p, all_rows), wanted_v_bytes(p));
    const uint64_t left =
        MIN(room_bytes - least_v,
            room_bytes > all_v ? MAX(room_bytes - all_v, room_bytes / 3 * 2) : room_bytes / 3 * 2);
    uint32_t n_channels = most_channels(p, MIN(left, MOST_U_BYTES));
    if (n_channels < MIN(p->c_out, LEAST_SLICE)) {
        return false;
    }
    n_channels = even_part(p->c_out, MIN(n_channels, p->c_out), 4);
    const uint64_t v_limit = MIN(room_bytes - u_bytes(p, n_channels), wanted_v_bytes(p));
    uint32_t n_rows = most_rows(p, v_limit);
    if (n_rows == 0) {
        return false;
    }
    n_rows = even_part(all_rows, n_rows, 1);
    if (n_rows < all_rows && kernel_winograd_blocks(p->n, n_rows, p->w_out) < LEAST_BLOCKS) {
        return false;
    }
    *parts = (struct parts){.n_rows = n_rows,
                            .n_channels = MIN(n_channels, p->c_out),
                            .n_strips = div_up(all_rows, n_rows),
                            .n_slices = div_up(p->c_out, n_channels)};
    return true;
}

/* What the records share. */
struct job {
    struct lower *lower;
    const struct node *node;
    const char *role;
    const struct conv_params *params;
    const uint32_t *tensors; /* x, w, aux, y */
    bool transposed;
    struct parts parts;
    uint32_t u, v; /* scratch of a whole part; PLAN_NONE: not yet there */
};

/* The part of number `index`: its first element, how many there are. */
static uint32_t part_of(uint32_t all, uint32_t size, uint32_t index, uint32_t *count) {
    *count = MIN(size, all - index * size);
    return index * size;
}

/* The scratch tensor of all parts, the last of which may need less. */
static uint32_t scratch(struct job *job, uint32_t *whole, const char *name, uint64_t whole_words,
                        uint64_t words) {
    if (*whole == PLAN_NONE) {
        *whole = lower_scratch_flat(job->lower, name, whole_words);
    }
    return lower_scratch_part(job->lower, *whole, words);
}

static uint32_t lower_weights(struct job *job, uint32_t slice) {
    const struct conv_params *p = job->params;
    struct winograd_weights_params params = {
        .c_in = p->c_in, .c_out = p->c_out, .transposed = job->transposed};
    params.first_channel = part_of(p->c_out, job->parts.n_channels, slice, &params.n_channels);
    const uint32_t u = scratch(job, &job->u, "weights in tiles",
                               kernel_winograd_u_words(p->c_in, job->parts.n_channels),
                               kernel_winograd_u_words(p->c_in, params.n_channels));
    lower_record(job->lower, job->node, "weights in tiles", KERNEL_ID_winograd_weights, &params,
                 (const uint32_t[]){job->tensors[1], u}, 0);
    return u;
}

static uint32_t lower_input(struct job *job, uint32_t strip) {
    const struct conv_params *p = job->params;
    struct winograd_input_params params = {.n = p->n,
                                           .c_in = p->c_in,
                                           .h_in = p->h_in,
                                           .w_in = p->w_in,
                                           .x_stride_n = p->x_stride_n,
                                           .h_out = p->h_out,
                                           .w_out = p->w_out,
                                           .pad_h = p->pad_h,
                                           .pad_w = p->pad_w};
    params.first_row =
        part_of(div_up(p->h_out, WINOGRAD_OUT), job->parts.n_rows, strip, &params.n_rows);
    const uint32_t v = scratch(job, &job->v, "input in tiles",
                               kernel_winograd_v_words(p->n, p->c_in, job->parts.n_rows, p->w_out),
                               kernel_winograd_v_words(p->n, p->c_in, params.n_rows, p->w_out));
    lower_record(job->lower, job->node, "input in tiles", KERNEL_ID_winograd_input, &params,
                 (const uint32_t[]){job->tensors[0], v}, 0);
    return v;
}

/* FLOPs are those of the direct sum for the same outputs, so that methods compare. */
static void lower_product(struct job *job, uint32_t strip, uint32_t slice, uint32_t v, uint32_t u) {
    const struct conv_params *p = job->params;
    struct winograd_product_params params = {.n = p->n,
                                             .c_in = p->c_in,
                                             .c_out = p->c_out,
                                             .h_out = p->h_out,
                                             .w_out = p->w_out,
                                             .y_stride_n = p->y_stride_n,
                                             .aux_stride_n = p->aux_stride_n,
                                             .epilogue = p->epilogue,
                                             .slope = p->slope,
                                             .plain_first = p->plain_first,
                                             .plain_count = p->plain_count};
    params.first_row =
        part_of(div_up(p->h_out, WINOGRAD_OUT), job->parts.n_rows, strip, &params.n_rows);
    params.first_channel = part_of(p->c_out, job->parts.n_channels, slice, &params.n_channels);
    const uint32_t first = params.first_row * WINOGRAD_OUT;
    const uint64_t rows = MIN(params.n_rows * WINOGRAD_OUT, p->h_out - first);
    lower_record(job->lower, job->node, job->role, KERNEL_ID_winograd_product, &params,
                 (const uint32_t[]){v, u, job->tensors[2], job->tensors[3]},
                 18 * rows * p->w_out * p->n * p->c_in * params.n_channels);
}

/* The fewer parts make the outer loop: what belongs to the inner ones is made again for each. */
static void lower_parts(struct job *job) {
    const struct parts *parts = &job->parts;
    const bool by_strip = parts->n_strips <= parts->n_slices;
    const uint32_t n_outer = by_strip ? parts->n_strips : parts->n_slices;
    const uint32_t n_inner = by_strip ? parts->n_slices : parts->n_strips;
    uint32_t u = PLAN_NONE, v = PLAN_NONE;
    for (uint32_t outer = 0; outer < n_outer; outer++) {
        for (uint32_t inner = 0; inner < n_inner; inner++) {
            const uint32_t strip = by_strip ? outer : inner, slice = by_strip ? inner : outer;
            if (by_strip ? inner == 0 : parts->n_strips > 1 || slice == 0) {
                v = lower_input(job, strip);
            }
            if (by_strip ? parts->n_slices > 1 || strip == 0 : inner == 0) {
                u = lower_weights(job, slice);
            }
            lower_product(job, strip, slice, v, u);
        }
    }
}

bool conv_winograd_fits(const struct lower *lower, const struct conv_params *params) {
    struct parts parts;
    return params->kh == 3 && params->kw == 3 && params->dilation == 1 &&
           MIN(params->c_in, params->c_out) >= LEAST_CHANNELS &&
           divide(params, lower_room(lower), &parts);
}

void conv_winograd_lower(struct lower *lower, const struct node *node, const char *role,
                         const struct conv_params *params, bool transposed,
                         const uint32_t tensors[4]) {
    struct job job = {.lower = lower,
                      .node = node,
                      .role = role,
                      .params = params,
                      .tensors = tensors,
                      .transposed = transposed,
                      .u = PLAN_NONE,
                      .v = PLAN_NONE};
    int32_t preference[PLAN_DEVICE_COUNT] = {-2, -2, -2, -2};
    if (!divide(params, lower_room(lower), &job.parts)) {
        return;
    }
    const uint32_t channels = MIN(params->c_in, params->c_out);
    if (channels >= FAST_CHANNELS) {
        preference[PLAN_DEVICE_CPU_ADDRESS] = 1;
    }
    if (channels >=
        (transposed ? FAST_CHANNELS_DESCRIPTOR_DATA_GRADIENT : FAST_CHANNELS_DESCRIPTOR)) {
        preference[PLAN_DEVICE_CPU_DESCRIPTOR] = 1;
    }
    lower_method(lower, PLAN_METHOD_WINOGRAD, preference);
    lower_parts(&job);
}
