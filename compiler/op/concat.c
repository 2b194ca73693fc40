/*
 * concat.c: tensors one after the other along the channels, and its inverse, a slice of channels.
 *
 * A pass has usually made the producers write straight into the result (skip.c); what is lowered
 * here are the copies that remain. Because planes are contiguous, some channels of an image are
 * some rows of one tall plane of c * h rows, so copies of channels need no kernel of their own.
 */
#include <assert.h>

#include "compiler/op/op_common.h"

/* Concatenation */

static bool concat_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, NODE_MAX_INPUTS, 1, -1, err)) {
        return false;
    }
    struct shape first = node->inputs[0]->shape;
    int64_t channels = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        struct shape x = node->inputs[i]->shape;
        if (x.n != first.n || x.h != first.h || x.w != first.w) {
            return op_error(err, node,
                            "input %d (%s) is %d images of %dx%d pixels, input 0 (%s) is %d of "
                            "%dx%d",
                            i, node->inputs[i]->name, x.n, x.h, x.w, node->inputs[0]->name, first.n,
                            first.h, first.w);
        }
        channels += x.c;
    }
    return op_set_output(node, 0, first.n, channels, first.h, first.w, err);
}

static void concat_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    int channel = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        struct value *x = node->inputs[i];
        if (autodiff_needs(ad, x)) {
            struct attr attr = {.channel = channel, .shape = x->shape};
            autodiff_add(ad, x, autodiff_node(ad, OP_SLICE, node, &dy[0], 1, &attr));
        }
        channel += x->shape.c;
    }
}

static void concat_reference(const struct node *node, double *const *in, double *const *out,
                             const struct interpret_context *context) {
    (void)context;
    struct shape y = node->outputs[0]->shape;
    for (int n = 0; n < y.n; n++) {
        int channel = 0;
        for (int i = 0; i < node->n_inputs; i++) {
            struct shape x = node->inputs[i]->shape;
            size_t count = (size_t)x.c * (size_t)x.h * (size_t)x.w;
            const double *from = in[i] + op_plane(x, n, 0);
            double *to = out[0] + op_plane(y, n, channel);
            for (size_t e = 0; e < count; e++) {
                to[e] = from[e];
            }
            channel += x.c;
        }
    }
}

/* Copies x to rows from `channel` on of a destination of dst_c channels. */
static void lower_copy(struct lower *lower, const struct node *node, enum kernel_id kernel,
                       const struct value *x, uint32_t dst, int dst_c, int channel) {
    struct shape s = x->shape;
    struct copy_region_params params = {
        .n = s.n,
        .c = 1,
        .h = s.c * s.h,
        .w = s.w,
        .src_h = s.c * s.h,
        .src_w = s.w,
        .src_stride_n = lower_stride_n(x),
        .dst_h = dst_c * s.h,
        .dst_w = s.w,
        .dst_top = channel * s.h,
        .dst_stride_n = lower_stride_n(node->outputs[0]),
    };
    uint32_t tensors[] = {lower_tensor(lower, x), dst};
    lower_record(lower, node, "forward", kernel, &params, tensors, 0);
}

static void lower_embed_first(struct lower *lower, const struct node *node, uint32_t dst) {
    const struct value *x = node->inputs[0];
    struct embed_region_params params = {
        .n = x->shape.n,
        .c = 1,
        .src_h = x->shape.c * x->shape.h,
        .src_w = x->shape.w,
        .src_stride_n = lower_stride_n(x),
        .dst_h = node->outputs[0]->shape.c * x->shape.h,
        .dst_w = x->shape.w,
        .dst_stride_n = lower_stride_n(node->outputs[0]),
    };
    uint32_t tensors[] = {lower_tensor(lower, x), dst};
    lower_record(lower, node, "forward", KERNEL_ID_embed_region, &params, tensors, 0);
}

/* For channels that no view can address: the first input and zeros are written over the whole
   result, the others are added. No input may be in place already, the zeros would destroy it. */
static void lower_by_sum(struct lower *lower, const struct node *node) {
    const struct value *y = node->outputs[0];
    uint32_t result = lower_tensor(lower, y);
    lower_embed_first(lower, node, result);
    int channel = node->inputs[0]->shape.c;
    for (int i = 1; i < node->n_inputs; i++) {
        const struct value *x = node->inputs[i];
        lower_copy(lower, node, KERNEL_ID_add_region, x, result, y->shape.c, channel);
        channel += x->shape.c;
    }
}

static void concat_lower(struct lower *lower, const struct node *node) {
    const struct value *y = node->outputs[0];
    uint32_t views[NODE_MAX_INPUTS];
    bool in_place[NODE_MAX_INPUTS];
    bool some_in_place = false, all_views = true;
    int channel = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *x = node->inputs[i];
        in_place[i] = op_is_window(x, y, channel);
        views[i] = in_place[i] ? PLAN_NONE : lower_view(lower, y, channel, x->shape.c);
        some_in_place |= in_place[i];
        all_views &= in_place[i] || views[i] != PLAN_NONE;
        channel += x->shape.c;
    }
    if (!all_views) {
        assert(!some_in_place); /* skip.c puts inputs in place only where all can have views */
        lower_by_sum(lower, node);
        return;
    }
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *x = node->inputs[i];
        if (!in_place[i]) {
            lower_copy(lower, node, KERNEL_ID_copy_region, x, views[i], x->shape.c, 0);
        }
    }
}

const struct op_info op_concat = {
    .name = "concat",
    .shape = concat_shape,
    .grad = concat_grad,
    .reference = concat_reference,
    .lower = concat_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};

/* Slice */

static bool slice_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    int channel = node->attr.channel, count = node->attr.shape.c;
    if (channel < 0 || count < 1 || channel > x.c - count) {
        return op_error(err, node, "%d channels from channel %d on are not among %d", count,
                        channel, x.c);
    }
    return op_set_output(node, 0, x.n, count, x.h, x.w, err);
}

static void slice_reference(const struct node *node, double *const *in, double *const *out,
                            const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape, y = node->outputs[0]->shape;
    size_t count = (size_t)y.c * (size_t)y.h * (size_t)y.w;
    for (int n = 0; n < y.n; n++) {
        const double *from = in[0] + op_plane(x, n, node->attr.channel);
        double *to = out[0] + op_plane(y, n, 0);
        for (size_t e = 0; e < count; e++) {
            to[e] = from[e];
        }
    }
}

static void slice_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    if (op_is_window(y, x, node->attr.channel)) {
        return;
    }
    struct shape s = y->shape;
    struct copy_region_params params = {
        .n = s.n,
        .c = 1,
        .h = s.c * s.h,
        .w = s.w,
        .src_h = x->shape.c * s.h,
        .src_w = s.w,
        .src_top = node->attr.channel * s.h,
        .src_stride_n = lower_stride_n(x),
        .dst_h = s.c * s.h,
        .dst_w = s.w,
        .dst_stride_n = lower_stride_n(y),
    };
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y)};
    lower_record(lower, node, "data gradient", KERNEL_ID_copy_region, &params, tensors, 0);
}

const struct op_info op_slice = {
    .name = "slice",
    .shape = slice_shape,
    .reference = slice_reference,
    .lower = slice_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};
