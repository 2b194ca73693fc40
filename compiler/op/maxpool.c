/*
 * maxpool.c: the maximum over windows of kernel x kernel pixels, stride apart, dilation between
 * their pixels; windows may overlap, rows and columns that fill no window are dropped. The gradient
 * goes to the first maximum of each window in scan order; it finds that in x, or (maxpool_index,
 * maxpool_unpool) reads it from two bits that the pooling has kept, so that x need not stay.
 */
#include "compiler/op/op_common.h"

static bool pooled_shape(const struct node *node, struct shape x, struct shape *y,
                         struct err *err) {
    const struct attr *a = &node->attr;
    if (a->kh < 1 || a->stride < 1 || a->dilation < 1) {
        return op_error(err, node, "kernel %d, stride %d and dilation %d must be at least 1", a->kh,
                        a->stride, a->dilation);
    }
    int64_t reach = (int64_t)a->dilation * (a->kh - 1) + 1;
    if (x.h < reach || x.w < reach) {
        return op_error(err, node, "the input of %dx%d pixels is smaller than the window", x.h,
                        x.w);
    }
    int64_t h = (x.h - reach) / a->stride + 1, w = (x.w - reach) / a->stride + 1;
    *y = (struct shape){x.n, x.c, (int32_t)h, (int32_t)w};
    return true;
}

/* Position in x's plane of the first maximum of window (yy, xx). */
static size_t first_maximum(const struct node *node, struct shape x, const double *plane, int yy,
                            int xx) {
    const struct attr *a = &node->attr;
    size_t best = (size_t)(yy * a->stride) * (size_t)x.w + (size_t)(xx * a->stride);
    for (int k = 1; k < a->kh * a->kh; k++) {
        int h = yy * a->stride + k / a->kh * a->dilation;
        int w = xx * a->stride + k % a->kh * a->dilation;
        size_t at = (size_t)h * (size_t)x.w + (size_t)w;
        if (plane[at] > plane[best]) {
            best = at;
        }
    }
    return best;
}

static bool maxpool_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    struct shape y;
    return pooled_shape(node, node->inputs[0]->shape, &y, err) &&
           op_set_output(node, 0, y.n, y.c, y.h, y.w, err);
}

static void maxpool_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    struct value *x = node->inputs[0];
    if (autodiff_needs(ad, x)) {
        struct value *inputs[] = {x, dy[0]};
        autodiff_add(ad, x, autodiff_node(ad, OP_MAXPOOL_GRAD, node, inputs, 2, &node->attr));
    }
}

static void maxpool_reference(const struct node *node, double *const *in, double *const *out,
                              const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape, y = node->outputs[0]->shape;
    for (int plane = 0; plane < y.n * y.c; plane++) {
        const double *from = in[0] + op_plane(x, 0, plane);
        double *to = out[0] + op_plane(y, 0, plane);
        for (int p = 0; p < y.h * y.w; p++) {
            to[p] = from[first_maximum(node, x, from, p / y.w, p % y.w)];
        }
    }
}

/* A comparison counts as one operation. */
static uint64_t maxpool_flops(const struct node *node) {
    return shape_elements(node->outputs[0]->shape) * (uint64_t)(node->attr.kh * node->attr.kh);
}

static void maxpool_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct maxpool_params params = {
        .n = x->shape.n,
        .c = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .h_out = y->shape.h,
        .w_out = y->shape.w,
        .y_stride_n = lower_stride_n(y),
        .kernel = node->attr.kh,
        .stride = node->attr.stride,
        .dilation = node->attr.dilation,
    };
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y)};
    lower_record(lower, node, "forward", KERNEL_ID_maxpool_fwd, &params, tensors,
                 maxpool_flops(node));
}

const struct op_info op_maxpool = {
    .name = "maxpool",
    .shape = maxpool_shape,
    .grad = maxpool_grad,
    .reference = maxpool_reference,
    .lower = maxpool_lower,
    .flops = maxpool_flops,
    .inplace_input = -1,
};

/* x, dy -> dx */

static bool maxpool_grad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape, y;
    return pooled_shape(node, x, &y, err) && op_check_shape(node, 1, "the gradient", y, err) &&
           op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void maxpool_grad_reference(const struct node *node, double *const *in, double *const *out,
                                   const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape, dy = node->inputs[1]->shape;
    size_t count = shape_elements(x);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = 0;
    }
    for (int plane = 0; plane < dy.n * dy.c; plane++) {
        const double *from = in[0] + op_plane(x, 0, plane);
        const double *gradient = in[1] + op_plane(dy, 0, plane);
        double *to = out[0] + op_plane(x, 0, plane);
        for (int p = 0; p < dy.h * dy.w; p++) {
            to[first_maximum(node, x, from, p / dy.w, p % dy.w)] += gradient[p];
        }
    }
}

static uint64_t maxpool_grad_flops(const struct node *node) {
    return shape_elements(node->inputs[1]->shape) * (uint64_t)(node->attr.kh * node->attr.kh);
}

static void maxpool_grad_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *dy = node->inputs[1], *dx = node->outputs[0];
    struct maxpool_bwd_params params = {
        .n = x->shape.n,
        .c = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .h_out = dy->shape.h,
        .w_out = dy->shape.w,
        .dy_stride_n = lower_stride_n(dy),
        .dx_stride_n = lower_stride_n(dx),
        .kernel = node->attr.kh,
        .stride = node->attr.stride,
        .dilation = node->attr.dilation,
    };
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, dy), lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient", KERNEL_ID_maxpool_bwd, &params, tensors,
                 maxpool_grad_flops(node));
}

const struct op_info op_maxpool_grad = {
    .name = "maxpool_grad",
    .shape = maxpool_grad_shape,
    .reference = maxpool_grad_reference,
    .lower = maxpool_grad_lower,
    .flops = maxpool_grad_flops,
    .inplace_input = -1,
};

/* x -> y, index */

static uint64_t index_blocks(struct shape y) {
    return div_up((uint64_t)y.h * (uint64_t)y.w, POOL_INDEX_WINDOWS);
}

static bool is_index_shape(const struct node *node, struct shape x, struct shape *y,
                           struct err *err) {
    const struct attr *a = &node->attr;
    if (a->kh != 2 || a->stride != 2 || a->dilation != 1) {
        return op_error(err, node, "kernel %d, stride %d, dilation %d must be 2, 2, 1", a->kh,
                        a->stride, a->dilation);
    }
    return pooled_shape(node, x, y, err);
}

static bool maxpool_index_shape(struct node *node, struct err *err) {
    struct shape y;
    if (!op_check(node, 1, 1, 2, -1, err) ||
        !is_index_shape(node, node->inputs[0]->shape, &y, err) ||
        !op_set_output(node, 0, y.n, y.c, y.h, y.w, err) ||
        !op_set_output(node, 1, y.n, y.c, (int64_t)index_blocks(y), POOL_INDEX_LANES, err)) {
        return false;
    }
    node->outputs[1]->type = PLAN_TYPE_U32;
    return true;
}

/* The word of window i of a plane, from the plane's first, and the place of its bits. */
static size_t index_word(size_t i) {
    return i / POOL_INDEX_WINDOWS * POOL_INDEX_LANES + i % POOL_INDEX_LANES;
}

static double index_unit(size_t i) {
    return (double)(UINT64_C(1) << 2 * (i % POOL_INDEX_WINDOWS / POOL_INDEX_LANES));
}

static void maxpool_index_reference(const struct node *node, double *const *in, double *const *out,
                                    const struct interpret_context *context) {
    maxpool_reference(node, in, out, context);
    struct shape x = node->inputs[0]->shape, y = node->outputs[0]->shape;
    struct shape words = node->outputs[1]->shape;
    for (size_t e = 0; e < shape_elements(words); e++) {
        out[1][e] = 0;
    }
    for (int plane = 0; plane < y.n * y.c; plane++) {
        const double *from = in[0] + op_plane(x, 0, plane);
        for (int p = 0; p < y.h * y.w; p++) {
            size_t corner = (size_t)(p / y.w * 2) * (size_t)x.w + (size_t)(p % y.w * 2);
            size_t at = first_maximum(node, x, from, p / y.w, p % y.w) - corner;
            double tap = at >= (size_t)x.w ? 2 + (double)(at - (size_t)x.w) : (double)at;
            out[1][op_plane(words, 0, plane) + index_word((size_t)p)] +=
                tap * index_unit((size_t)p);
        }
    }
}

static void maxpool_index_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct maxpool_index_params params = {
        .n = x->shape.n,
        .c = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .h_out = y->shape.h,
        .w_out = y->shape.w,
        .y_stride_n = lower_stride_n(y),
    };
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y),
                          lower_tensor(lower, node->outputs[1])};
    lower_record(lower, node, "forward", KERNEL_ID_maxpool_index, &params, tensors,
                 maxpool_flops(node));
}

const struct op_info op_maxpool_index = {
    .name = "maxpool_index",
    .shape = maxpool_index_shape,
    .reference = maxpool_index_reference,
    .lower = maxpool_index_lower,
    .flops = maxpool_flops,
    .inplace_input = -1,
};

/* index, dy -> dx */

static bool maxpool_unpool_shape(struct node *node, struct err *err) {
    struct shape x = node->attr.shape, y;
    if (!op_check(node, 2, 2, 1, 0, err) || !is_index_shape(node, x, &y, err)) {
        return false;
    }
    struct shape words = {y.n, y.c, (int32_t)index_blocks(y), POOL_INDEX_LANES};
    return op_check_shape(node, 0, "the index", words, err) &&
           op_check_shape(node, 1, "the gradient", y, err) &&
           op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void maxpool_unpool_reference(const struct node *node, double *const *in, double *const *out,
                                     const struct interpret_context *context) {
    (void)context;
    struct shape words = node->inputs[0]->shape, dy = node->inputs[1]->shape;
    struct shape x = node->outputs[0]->shape;
    for (size_t e = 0; e < shape_elements(x); e++) {
        out[0][e] = 0;
    }
    for (int plane = 0; plane < dy.n * dy.c; plane++) {
        const double *index = in[0] + op_plane(words, 0, plane);
        const double *gradient = in[1] + op_plane(dy, 0, plane);
        double *to = out[0] + op_plane(x, 0, plane);
        for (int p = 0; p < dy.h * dy.w; p++) {
            double word = index[index_word((size_t)p)];
            int tap = (int)((uint64_t)(word / index_unit((size_t)p)) & 3);
            to[(size_t)(p / dy.w * 2 + tap / 2) * (size_t)x.w + (size_t)(p % dy.w * 2 + tap % 2)] =
                gradient[p];
        }
    }
}

static void maxpool_unpool_lower(struct lower *lower, const struct node *node) {
    const struct value *dy = node->inputs[1], *dx = node->outputs[0];
    struct maxpool_unpool_params params = {
        .n = dx->shape.n,
        .c = dx->shape.c,
        .h_in = dx->shape.h,
        .w_in = dx->shape.w,
        .h_out = dy->shape.h,
        .w_out = dy->shape.w,
        .dy_stride_n = lower_stride_n(dy),
        .dx_stride_n = lower_stride_n(dx),
    };
    uint32_t tensors[] = {lower_tensor(lower, node->inputs[0]), lower_tensor(lower, dy),
                          lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient", KERNEL_ID_maxpool_unpool, &params, tensors, 0);
}

const struct op_info op_maxpool_unpool = {
    .name = "maxpool_unpool",
    .shape = maxpool_unpool_shape,
    .reference = maxpool_unpool_reference,
    .lower = maxpool_unpool_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};
