/*
 * upconv.c: up-convolution whose kernel equals its stride (torch.nn.ConvTranspose2d with
 * kernel_size = stride = k): every input pixel becomes a block of k x k output pixels. No two
 * blocks overlap, so an output pixel has one tap and the data gradient is a plain sum over a block.
 */
#include "compiler/op/op_common.h"

static bool check_weights(const struct node *node, struct shape x, struct shape w,
                          struct err *err) {
    int k = node->attr.kh;
    if (k < 1) {
        return op_error(err, node, "kernel %d must be at least 1", k);
    }
    if (node->attr.act && !op_check_slope(node, err)) {
        return false;
    }
    if (w.h != k || w.w != k) {
        return op_error(err, node, "the weight has %dx%d taps, the kernel is %dx%d", w.h, w.w, k,
                        k);
    }
    if (w.n != x.c) {
        return op_error(err, node, "the input has %d channels, the weight takes %d", x.c, w.n);
    }
    return true;
}

/* Element of y that input pixel (yy, xx) reaches through tap (a, b), within a plane. */
static size_t block_at(struct shape y, int k, int yy, int xx, int tap) {
    return (size_t)(yy * k + tap / k) * (size_t)y.w + (size_t)(xx * k + tap % k);
}

/* Forward */

static bool upconv_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 3, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape, w = node->inputs[1]->shape;
    if (!check_weights(node, x, w, err)) {
        return false;
    }
    int64_t k = node->attr.kh;
    return op_check_bias(node, w.c, err) && op_set_output(node, 0, x.n, w.c, x.h * k, x.w * k, err);
}

static void upconv_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    op_grad_sum(ad, node, dy[0], OP_UPCONV_WGRAD, OP_UPCONV_DGRAD);
}

static void upconv_reference(const struct node *node, double *const *in, double *const *out,
                             const struct interpret_context *context) {
    (void)context;
    int k = node->attr.kh;
    struct shape x = node->inputs[0]->shape, w = node->inputs[1]->shape;
    struct shape y = node->outputs[0]->shape;
    const double *bias = op_input(node, 2) ? in[2] : NULL;
    for (int n = 0; n < y.n; n++) {
        for (int o = 0; o < y.c; o++) {
            double *plane = out[0] + op_plane(y, n, o);
            for (int e = 0; e < x.h * x.w * k * k; e++) {
                int pixel = e / (k * k), tap = e % (k * k);
                double sum = bias ? bias[o] : 0;
                for (int i = 0; i < x.c; i++) {
                    sum += in[0][op_plane(x, n, i) + (size_t)pixel] *
                           in[1][op_plane(w, i, o) + (size_t)tap];
                }
                plane[block_at(y, k, pixel / x.w, pixel % x.w, tap)] =
                    node->attr.act ? op_activate(sum, (double)node->attr.slope) : sum;
            }
        }
    }
}

/* Every input pixel and channel meets every tap of every output channel once, in all three. */
static uint64_t sum_flops(struct shape x, struct shape y) {
    return 2 * (uint64_t)x.c * shape_elements(y);
}

static uint64_t upconv_flops(const struct node *node) {
    return sum_flops(node->inputs[0]->shape, node->outputs[0]->shape);
}

static void upconv_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *w = node->inputs[1], *y = node->outputs[0];
    const struct value *bias = op_input(node, 2);
    struct upconv_params params = {
        .n = x->shape.n,
        .c_in = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .c_out = y->shape.c,
        .y_stride_n = lower_stride_n(y),
        .k = node->attr.kh,
        .epilogue = (bias ? EPILOGUE_BIAS : 0) | (node->attr.act ? EPILOGUE_ACT : 0),
        .slope = node->attr.slope,
    };
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, w),
                          lower_tensor(lower, bias ? bias : w), lower_tensor(lower, y)};
    op_lower_sum(lower, node, "forward", KERNEL_ID_upconv_fwd, &params, tensors,
                 upconv_flops(node));
}

const struct op_info op_upconv = {
    .name = "upconv",
    .shape = upconv_shape,
    .grad = upconv_grad,
    .reference = upconv_reference,
    .lower = upconv_lower,
    .flops = upconv_flops,
    .inplace_input = -1,
};

/* Gradient towards the data */

static bool dgrad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 3, 1, -1, err)) {
        return false;
    }
    struct shape dy = node->inputs[0]->shape, w = node->inputs[1]->shape;
    int k = node->attr.kh;
    struct shape dx = {.n = dy.n, .c = w.n};
    if (!check_weights(node, dx, w, err)) {
        return false;
    }
    if (dy.c != w.c || dy.h % k || dy.w % k) {
        return op_error(err, node,
                        "the gradient is %dx%dx%dx%d, must have %d channels and sizes that are "
                        "multiples of %d",
                        dy.n, dy.c, dy.h, dy.w, w.c, k);
    }
    dx.h = dy.h / k;
    dx.w = dy.w / k;
    return op_check_mask(node, dx, err) && op_set_output(node, 0, dx.n, dx.c, dx.h, dx.w, err);
}

static void dgrad_reference(const struct node *node, double *const *in, double *const *out,
                            const struct interpret_context *context) {
    (void)context;
    int k = node->attr.kh;
    struct shape dy = node->inputs[0]->shape, w = node->inputs[1]->shape;
    struct shape dx = node->outputs[0]->shape;
    for (int n = 0; n < dx.n; n++) {
        for (int i = 0; i < dx.c; i++) {
            for (int pixel = 0; pixel < dx.h * dx.w; pixel++) {
                double sum = 0;
                for (int e = 0; e < dy.c * k * k; e++) {
                    int o = e / (k * k), tap = e % (k * k);
                    sum += in[0][op_plane(dy, n, o) +
                                 block_at(dy, k, pixel / dx.w, pixel % dx.w, tap)] *
                           in[1][op_plane(w, i, o) + (size_t)tap];
                }
                size_t at = op_plane(dx, n, i) + (size_t)pixel;
                if (node->attr.act) {
                    sum *= in[2][at] > 0 ? 1 : (double)node->attr.slope;
                }
                out[0][at] = sum;
            }
        }
    }
}

static uint64_t dgrad_flops(const struct node *node) {
    return sum_flops(node->outputs[0]->shape, node->inputs[0]->shape);
}

static void dgrad_lower(struct lower *lower, const struct node *node) {
    const struct value *dy = node->inputs[0], *w = node->inputs[1], *dx = node->outputs[0];
    const struct value *mask = op_input(node, 2);
    int k = node->attr.kh;
    struct weights_transpose_params transpose = {
        .in_count = dx->shape.c, .out_count = dy->shape.c, .taps = k * k, .flip = 0};
    uint32_t wt =
        lower_scratch_weights(lower, "weights transposed", dy->shape.c, dx->shape.c, k, k);
    uint32_t transpose_tensors[] = {lower_tensor(lower, w), wt};
    lower_record(lower, node, "weights transposed", KERNEL_ID_weights_transpose, &transpose,
                 transpose_tensors, 0);

    struct upconv_dgrad_params params = {
        .n = dx->shape.n,
        .c_in = dx->shape.c,
        .h_in = dx->shape.h,
        .w_in = dx->shape.w,
        .dx_stride_n = lower_stride_n(dx),
        .c_out = dy->shape.c,
        .dy_stride_n = lower_stride_n(dy),
        .k = k,
        .aux_stride_n = mask ? lower_stride_n(mask) : 0,
        .epilogue = mask ? EPILOGUE_MASK : 0,
        .slope = node->attr.slope,
    };
    uint32_t tensors[] = {lower_tensor(lower, dy), wt, mask ? lower_tensor(lower, mask) : wt,
                          lower_tensor(lower, dx)};
    op_lower_sum(lower, node, "data gradient", KERNEL_ID_upconv_dgrad, &params, tensors,
                 dgrad_flops(node));
}

const struct op_info op_upconv_dgrad = {
    .name = "upconv_dgrad",
    .shape = dgrad_shape,
    .reference = dgrad_reference,
    .lower = dgrad_lower,
    .flops = dgrad_flops,
    .inplace_input = 2, /* the mask */
};

/* Gradient towards the weights */

static bool wgrad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape, dw = node->attr.shape;
    int k = node->attr.kh;
    if (!check_weights(node, x, dw, err) ||
        !op_check_shape(node, 1, "the gradient", (struct shape){x.n, dw.c, x.h * k, x.w * k},
                        err)) {
        return false;
    }
    return op_set_output(node, 0, dw.n, dw.c, dw.h, dw.w, err);
}

static void wgrad_reference(const struct node *node, double *const *in, double *const *out,
                            const struct interpret_context *context) {
    (void)context;
    int k = node->attr.kh;
    struct shape x = node->inputs[0]->shape, dy = node->inputs[1]->shape;
    struct shape dw = node->outputs[0]->shape;
    for (int i = 0; i < dw.n; i++) {
        for (int e = 0; e < dw.c * k * k; e++) {
            int o = e / (k * k), tap = e % (k * k);
            double sum = 0;
            for (int p = 0; p < x.n * x.h * x.w; p++) {
                int n = p / (x.h * x.w), pixel = p % (x.h * x.w);
                sum += in[0][op_plane(x, n, i) + (size_t)pixel] *
                       in[1][op_plane(dy, n, o) + block_at(dy, k, pixel / x.w, pixel % x.w, tap)];
            }
            out[0][op_plane(dw, i, o) + (size_t)tap] = sum;
        }
    }
}

static uint64_t wgrad_flops(const struct node *node) {
    return sum_flops(node->inputs[0]->shape, node->inputs[1]->shape);
}

static void wgrad_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *dy = node->inputs[1], *dw = node->outputs[0];
    int k = node->attr.kh;
    struct upconv_wgrad_params params = {
        .n = x->shape.n,
        .c_in = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .c_out = dy->shape.c,
        .dy_stride_n = lower_stride_n(dy),
        .k = k,
    };
    op_lower_wgrad(lower, node, KERNEL_ID_upconv_wgrad, (uint32_t *)&params,
                   lower_weight_elements(x->shape.c, dy->shape.c, k * k),
                   (const struct value *[]){x, dy, dw}, wgrad_flops(node));
}

const struct op_info op_upconv_wgrad = {
    .name = "upconv_wgrad",
    .shape = wgrad_shape,
    .reference = wgrad_reference,
    .lower = wgrad_lower,
    .flops = wgrad_flops,
    .inplace_input = -1,
};
