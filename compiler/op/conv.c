/*
 * conv.c: convolution with stride 1 (cross-correlation, as torch.nn.Conv2d), optionally with bias
 * and activation, its gradients towards data, weights and bias.
 *
 * The data gradient is lowered to the same sum as the forward pass, over the weights with in and
 * out exchanged and the taps in reverse order, padded to a full convolution (kernel_contract.h);
 * the reference here scatters instead, so that one checks the other.
 */
#include <stdlib.h>

#include "compiler/op/conv_winograd.h"
#include "compiler/op/op_common.h"

static bool check_attr(const struct node *node, struct err *err) {
    const struct attr *a = &node->attr;
    if (a->kh < 1 || a->kw < 1 || a->dilation < 1) {
        return op_error(err, node, "kernel %dx%d and dilation %d must be at least 1", a->kh, a->kw,
                        a->dilation);
    }
    int64_t max_h = (int64_t)a->dilation * (a->kh - 1);
    int64_t max_w = (int64_t)a->dilation * (a->kw - 1);
    if (max_h > INT32_MAX / 4 || max_w > INT32_MAX / 4) {
        return op_error(err, node, "kernel %dx%d with dilation %d is too large", a->kh, a->kw,
                        a->dilation);
    }
    if (a->pad_h < 0 || a->pad_w < 0 || a->pad_h > max_h || a->pad_w > max_w) {
        return op_error(err, node,
                        "padding %d, %d must be between 0 and dilation * (kernel - 1) = %lld, %lld",
                        a->pad_h, a->pad_w, (long long)max_h, (long long)max_w);
    }
    return !a->act || op_check_slope(node, err);
}

/* The sizes of y for an input x and weights w fit together; y as 64-bit sizes, which may be < 1. */
static bool check_weights(const struct node *node, struct shape x, struct shape w, int64_t *h_out,
                          int64_t *w_out, struct err *err) {
    const struct attr *a = &node->attr;
    if (w.h != a->kh || w.w != a->kw) {
        return op_error(err, node, "the weight has %dx%d taps, the kernel is %dx%d", w.h, w.w,
                        a->kh, a->kw);
    }
    if (w.c != x.c) {
        return op_error(err, node, "the input has %d channels, the weight takes %d", x.c, w.c);
    }
    *h_out = x.h + 2 * (int64_t)a->pad_h - (int64_t)a->dilation * (a->kh - 1);
    *w_out = x.w + 2 * (int64_t)a->pad_w - (int64_t)a->dilation * (a->kw - 1);
    if (*h_out < 1 || *w_out < 1) {
        return op_error(err, node, "the input of %dx%d pixels is smaller than the kernel", x.h,
                        x.w);
    }
    return true;
}

/* dy is what the convolution of x with w gives. */
static bool check_dy(const struct node *node, int input, struct shape x, struct shape w,
                     struct err *err) {
    int64_t h_out, w_out;
    if (!check_weights(node, x, w, &h_out, &w_out, err)) {
        return false;
    }
    struct shape dy = node->inputs[input]->shape;
    if (dy.n != x.n || dy.c != w.n || dy.h != h_out || dy.w != w_out) {
        return op_error(err, node, "the gradient is %dx%dx%dx%d, must be %dx%dx%lldx%lld", dy.n,
                        dy.c, dy.h, dy.w, x.n, w.n, (long long)h_out, (long long)w_out);
    }
    return true;
}

/* The outputs for which tap (ky, kx) falls inside the input, and how far it is displaced. */
struct tap {
    int y0, y1, x0, x1; /* first, and one past the last */
    int dy, dx;
};

static struct tap tap_of(const struct attr *a, int ky, int kx, struct shape in, struct shape out) {
    struct tap t = {.dy = ky * a->dilation - a->pad_h, .dx = kx * a->dilation - a->pad_w};
    t.y0 = MAX(0, -t.dy);
    t.x0 = MAX(0, -t.dx);
    t.y1 = MIN(out.h, in.h - t.dy);
    t.x1 = MIN(out.w, in.w - t.dx);
    return t;
}

static size_t weight_at(struct shape w, int out, int in, int ky, int kx) {
    return op_plane(w, out, in) + (size_t)ky * (size_t)w.w + (size_t)kx;
}

/* Forward */

static bool conv_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 3, 1, -1, err) || !check_attr(node, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape, w = node->inputs[1]->shape;
    int64_t h_out, w_out;
    if (!check_weights(node, x, w, &h_out, &w_out, err)) {
        return false;
    }
    return op_check_bias(node, w.n, err) && op_set_output(node, 0, x.n, w.n, h_out, w_out, err);
}

static void conv_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    op_grad_sum(ad, node, dy[0], OP_CONV_WGRAD, OP_CONV_DGRAD);
}

/* y += weight * x, displaced. */
static void add_plane(double *y, struct shape out, const double *x, struct shape in, struct tap t,
                      double weight) {
    for (int yy = t.y0; yy < t.y1; yy++) {
        const double *row = x + (ptrdiff_t)(yy + t.dy) * in.w + t.dx;
        for (int xx = t.x0; xx < t.x1; xx++) {
            y[(size_t)yy * (size_t)out.w + (size_t)xx] += row[xx] * weight;
        }
    }
}

static void conv_reference(const struct node *node, double *const *in, double *const *out,
                           const struct interpret_context *context) {
    (void)context;
    const struct attr *a = &node->attr;
    struct shape x = node->inputs[0]->shape, w = node->inputs[1]->shape;
    struct shape y = node->outputs[0]->shape;
    const double *bias = op_input(node, 2) ? in[2] : NULL;
    for (int n = 0; n < y.n; n++) {
        for (int o = 0; o < y.c; o++) {
            double *plane = out[0] + op_plane(y, n, o);
            int count = y.h * y.w;
            for (int p = 0; p < count; p++) {
                plane[p] = bias ? bias[o] : 0;
            }
            for (int i = 0; i < x.c; i++) {
                for (int k = 0; k < a->kh * a->kw; k++) {
                    int ky = k / a->kw, kx = k % a->kw;
                    add_plane(plane, y, in[0] + op_plane(x, n, i), x, tap_of(a, ky, kx, x, y),
                              in[1][weight_at(w, o, i, ky, kx)]);
                }
            }
            for (int p = 0; p < count && a->act; p++) {
                plane[p] = op_activate(plane[p], (double)a->slope);
            }
        }
    }
}

/* One multiplication and addition per tap and output, taps in the padding included. */
static uint64_t sum_flops(struct shape y, int c_in, int taps) {
    return 2 * shape_elements(y) * (uint64_t)c_in * (uint64_t)taps;
}

static uint64_t conv_flops(const struct node *node) {
    return sum_flops(node->outputs[0]->shape, node->inputs[0]->shape.c,
                     node->attr.kh * node->attr.kw);
}

/* How the weights of a sum are got: those of the layer, or transposed into a scratch tensor. */
struct weights {
    uint32_t tensor;                                  /* of the layer */
    const struct weights_transpose_params *transpose; /* NULL: not */
};

/* What a kernel is given: x, weights, aux, y. aux PLAN_NONE: none; the weights take its place. */
struct sum_tensors {
    uint32_t x, aux, y;
};

static uint32_t lower_transpose(struct lower *lower, const struct node *node,
                                const struct conv_params *p, const struct weights *weights) {
    if (!weights->transpose) {
        return weights->tensor;
    }
    const uint32_t wt = lower_scratch_weights(lower, "weights transposed", (int)p->c_in,
                                              (int)p->c_out, (int)p->kh, (int)p->kw);
    lower_record(lower, node, "weights transposed", KERNEL_ID_weights_transpose, weights->transpose,
                 (const uint32_t[]){weights->tensor, wt}, 0);
    return wt;
}

/* A method of one record: the kernel itself, with tiles of its own. */
struct single {
    enum plan_method_kind kind;
    const int32_t *preference;
};

static uint32_t find_singles(const struct lower *lower, enum kernel_id kernel,
                             const struct conv_params *params, struct single singles[4]) {
    static const int32_t usual[PLAN_DEVICE_COUNT] = {0}, never[] = {-1, -1, -1, -1};
    const uint32_t *words = (const uint32_t *)params;
    uint32_t count = 0;
    singles[count++] = (struct single){PLAN_METHOD_DIRECT, usual};
    if (tile_has_narrow(kernel, words)) {
        singles[count++] = (struct single){PLAN_METHOD_NARROW, never};
    }
    if (lower_is_mixed(lower) && tile_has_matrix(kernel, words)) {
        singles[count++] = (struct single){PLAN_METHOD_MATRIX, op_prefer_matrix};
    }
    if (lower_room(lower) > 0 && tile_has_winograd2(kernel, words)) {
        singles[count++] = (struct single){PLAN_METHOD_WINOGRAD2, never};
    }
    return count;
}

/*
 * The kernel by each method that there is for its size. Weights are transposed once for all of
 * them, but for each by itself where there is a method that does without.
 */
static void lower_sum(struct lower *lower, const struct node *node, const char *role,
                      enum kernel_id kernel, const struct conv_params *params,
                      const struct weights *weights, struct sum_tensors t, uint64_t flops) {
    const bool winograd = conv_winograd_fits(lower, params);
    struct single singles[4];
    const uint32_t n_singles = find_singles(lower, kernel, params, singles);
    uint32_t w = winograd ? PLAN_NONE : lower_transpose(lower, node, params, weights);
    lower_choice_begin(lower, node, role);
    for (uint32_t i = 0; i < n_singles; i++) {
        lower_method(lower, singles[i].kind, singles[i].preference);
        w = winograd ? lower_transpose(lower, node, params, weights) : w;
        const uint32_t tensors[] = {t.x, w, t.aux == PLAN_NONE ? w : t.aux, t.y};
        lower_record(lower, node, role, kernel, params, tensors, flops);
    }
    if (winograd) {
        w = weights->tensor;
        const uint32_t tensors[] = {t.x, w, t.aux == PLAN_NONE ? w : t.aux, t.y};
        conv_winograd_lower(lower, node, role, params, weights->transpose != NULL, tensors);
    }
    lower_choice_end(lower);
}

static void conv_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *w = node->inputs[1], *y = node->outputs[0];
    const struct value *bias = op_input(node, 2);
    const struct attr *a = &node->attr;
    struct conv_params params = {
        .n = x->shape.n,
        .c_in = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .c_out = y->shape.c,
        .h_out = y->shape.h,
        .w_out = y->shape.w,
        .y_stride_n = lower_stride_n(y),
        .pad_h = a->pad_h,
        .pad_w = a->pad_w,
        .dilation = a->dilation,
        .kh = a->kh,
        .kw = a->kw,
        .epilogue = (bias ? EPILOGUE_BIAS : 0) | (a->act ? EPILOGUE_ACT : 0),
        .slope = a->slope,
    };
    const struct weights weights = {lower_tensor(lower, w), NULL};
    const struct sum_tensors tensors = {lower_tensor(lower, x),
                                        bias ? lower_tensor(lower, bias) : PLAN_NONE,
                                        lower_tensor(lower, y)};
    lower_sum(lower, node, "forward", KERNEL_ID_conv_fwd, &params, &weights, tensors,
              conv_flops(node));
}

const struct op_info op_conv = {
    .name = "conv",
    .shape = conv_shape,
    .grad = conv_grad,
    .reference = conv_reference,
    .lower = conv_lower,
    .flops = conv_flops,
    .inplace_input = -1,
};

/* Gradient towards the data */

static bool dgrad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 3, 1, -1, err) || !check_attr(node, err)) {
        return false;
    }
    struct shape dx = node->attr.shape;
    if (!check_dy(node, 0, dx, node->inputs[1]->shape, err) || !op_check_mask(node, dx, err)) {
        return false;
    }
    const struct attr *a = &node->attr;
    if (a->plain_first < 0 || a->plain_count < 0 || a->plain_first > dx.c - a->plain_count ||
        (a->act ? a->plain_count == dx.c : a->plain_count > 0)) {
        return op_error(err, node, "channels %d to %d cannot be left out of the mask of %d",
                        a->plain_first, a->plain_first + a->plain_count, dx.c);
    }
    return op_set_output(node, 0, dx.n, dx.c, dx.h, dx.w, err);
}

/* dx, displaced, += weight * dy. */
static void scatter_plane(double *dx, struct shape in, const double *dy, struct shape out,
                          struct tap t, double weight) {
    for (int yy = t.y0; yy < t.y1; yy++) {
        double *row = dx + (ptrdiff_t)(yy + t.dy) * in.w + t.dx;
        for (int xx = t.x0; xx < t.x1; xx++) {
            row[xx] += dy[(size_t)yy * (size_t)out.w + (size_t)xx] * weight;
        }
    }
}

/* Whether the mask takes element e of dx down to the slope. */
static bool is_masked(const struct node *node, const double *mask, size_t e) {
    const struct attr *a = &node->attr;
    struct shape dx = node->outputs[0]->shape;
    int channel = (int)(e / ((size_t)dx.h * (size_t)dx.w) % (size_t)dx.c);
    bool plain = channel >= a->plain_first && channel < a->plain_first + a->plain_count;
    return a->act && !plain && !(mask[e] > 0);
}

/* The mask may be the memory of dx: it is looked at first. */
static void dgrad_reference(const struct node *node, double *const *in, double *const *out,
                            const struct interpret_context *context) {
    (void)context;
    const struct attr *a = &node->attr;
    struct shape dy = node->inputs[0]->shape, w = node->inputs[1]->shape;
    struct shape dx = node->outputs[0]->shape;
    size_t count = shape_elements(dx);
    bool *masked = malloc(count * sizeof(*masked));
    for (size_t e = 0; e < count; e++) {
        masked[e] = is_masked(node, in[2], e);
        out[0][e] = 0;
    }
    for (int n = 0; n < dy.n; n++) {
        for (int o = 0; o < dy.c; o++) {
            for (int i = 0; i < dx.c; i++) {
                for (int k = 0; k < a->kh * a->kw; k++) {
                    int ky = k / a->kw, kx = k % a->kw;
                    scatter_plane(out[0] + op_plane(dx, n, i), dx, in[0] + op_plane(dy, n, o), dy,
                                  tap_of(a, ky, kx, dx, dy), in[1][weight_at(w, o, i, ky, kx)]);
                }
            }
        }
    }
    for (size_t e = 0; e < count; e++) {
        out[0][e] *= masked[e] ? (double)a->slope : 1;
    }
    free(masked);
}

static uint64_t dgrad_flops(const struct node *node) {
    return sum_flops(node->inputs[0]->shape, node->outputs[0]->shape.c,
                     node->attr.kh * node->attr.kw);
}

static void dgrad_lower(struct lower *lower, const struct node *node) {
    const struct value *dy = node->inputs[0], *w = node->inputs[1], *dx = node->outputs[0];
    const struct value *mask = op_input(node, 2);
    const struct attr *a = &node->attr;
    struct weights_transpose_params transpose = {
        .in_count = dx->shape.c, .out_count = dy->shape.c, .taps = a->kh * a->kw, .flip = 1};
    const struct weights weights = {lower_tensor(lower, w), &transpose};
    struct conv_params params = {
        .n = dy->shape.n,
        .c_in = dy->shape.c,
        .h_in = dy->shape.h,
        .w_in = dy->shape.w,
        .x_stride_n = lower_stride_n(dy),
        .c_out = dx->shape.c,
        .h_out = dx->shape.h,
        .w_out = dx->shape.w,
        .y_stride_n = lower_stride_n(dx),
        .pad_h = a->dilation * (a->kh - 1) - a->pad_h,
        .pad_w = a->dilation * (a->kw - 1) - a->pad_w,
        .dilation = a->dilation,
        .kh = a->kh,
        .kw = a->kw,
        .aux_stride_n = mask ? lower_stride_n(mask) : 0,
        .epilogue = mask ? EPILOGUE_MASK : 0,
        .slope = a->slope,
        .plain_first = a->plain_first,
        .plain_count = a->plain_count,
    };
    const struct sum_tensors tensors = {lower_tensor(lower, dy),
                                        mask ? lower_tensor(lower, mask) : PLAN_NONE,
                                        lower_tensor(lower, dx)};
    lower_sum(lower, node, "data gradient", KERNEL_ID_conv_dgrad, &params, &weights, tensors,
              dgrad_flops(node));
}

const struct op_info op_conv_dgrad = {
    .name = "conv_dgrad",
    .shape = dgrad_shape,
    .reference = dgrad_reference,
    .lower = dgrad_lower,
    .flops = dgrad_flops,
    .inplace_input = 2, /* the mask */
};

/* Gradient towards the weights */

static bool wgrad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err) || !check_attr(node, err)) {
        return false;
    }
    struct shape dw = node->attr.shape;
    if (!check_dy(node, 1, node->inputs[0]->shape, dw, err)) {
        return false;
    }
    return op_set_output(node, 0, dw.n, dw.c, dw.h, dw.w, err);
}

static double dot_plane(const double *x, struct shape in, const double *dy, struct shape out,
                        struct tap t) {
    double sum = 0;
    for (int yy = t.y0; yy < t.y1; yy++) {
        const double *row = x + (ptrdiff_t)(yy + t.dy) * in.w + t.dx;
        for (int xx = t.x0; xx < t.x1; xx++) {
            sum += row[xx] * dy[(size_t)yy * (size_t)out.w + (size_t)xx];
        }
    }
    return sum;
}

static void wgrad_reference(const struct node *node, double *const *in, double *const *out,
                            const struct interpret_context *context) {
    (void)context;
    const struct attr *a = &node->attr;
    struct shape x = node->inputs[0]->shape, dy = node->inputs[1]->shape;
    struct shape dw = node->outputs[0]->shape;
    for (int o = 0; o < dw.n; o++) {
        for (int i = 0; i < dw.c; i++) {
            for (int k = 0; k < a->kh * a->kw; k++) {
                int ky = k / a->kw, kx = k % a->kw;
                double sum = 0;
                for (int n = 0; n < x.n; n++) {
                    sum += dot_plane(in[0] + op_plane(x, n, i), x, in[1] + op_plane(dy, n, o), dy,
                                     tap_of(a, ky, kx, x, dy));
                }
                out[0][weight_at(dw, o, i, ky, kx)] = sum;
            }
        }
    }
}

static uint64_t wgrad_flops(const struct node *node) {
    return sum_flops(node->inputs[1]->shape, node->inputs[0]->shape.c,
                     node->attr.kh * node->attr.kw);
}

static void wgrad_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *dy = node->inputs[1], *dw = node->outputs[0];
    const struct attr *a = &node->attr;
    struct conv_wgrad_params params = {
        .n = x->shape.n,
        .c_in = x->shape.c,
        .h_in = x->shape.h,
        .w_in = x->shape.w,
        .x_stride_n = lower_stride_n(x),
        .c_out = dy->shape.c,
        .h_out = dy->shape.h,
        .w_out = dy->shape.w,
        .dy_stride_n = lower_stride_n(dy),
        .pad_h = a->pad_h,
        .pad_w = a->pad_w,
        .dilation = a->dilation,
        .kh = a->kh,
        .kw = a->kw,
    };
    op_lower_wgrad(lower, node, KERNEL_ID_conv_wgrad, (uint32_t *)&params,
                   lower_weight_elements(x->shape.c, dy->shape.c, a->kh * a->kw),
                   (const struct value *[]){x, dy, dw}, wgrad_flops(node));
}

const struct op_info op_conv_wgrad = {
    .name = "conv_wgrad",
    .shape = wgrad_shape,
    .reference = wgrad_reference,
    .lower = wgrad_lower,
    .flops = wgrad_flops,
    .inplace_input = -1,
};

/* Gradient towards the bias, of convolutions and up-convolutions */

static bool bias_grad_shape(struct node *node, struct err *err) {
    return op_check(node, 1, 1, 1, -1, err) &&
           op_set_output(node, 0, 1, node->inputs[0]->shape.c, 1, 1, err);
}

static void bias_grad_reference(const struct node *node, double *const *in, double *const *out,
                                const struct interpret_context *context) {
    (void)context;
    struct shape dy = node->inputs[0]->shape;
    for (int c = 0; c < dy.c; c++) {
        double sum = 0;
        for (int n = 0; n < dy.n; n++) {
            const double *plane = in[0] + op_plane(dy, n, c);
            for (int p = 0; p < dy.h * dy.w; p++) {
                sum += plane[p];
            }
        }
        out[0][c] = sum;
    }
}

static uint64_t bias_grad_flops(const struct node *node) {
    return shape_elements(node->inputs[0]->shape);
}

static void bias_grad_lower(struct lower *lower, const struct node *node) {
    const struct value *dy = node->inputs[0];
    struct bias_grad_params params = {.n = dy->shape.n,
                                      .c = dy->shape.c,
                                      .h = dy->shape.h,
                                      .w = dy->shape.w,
                                      .dy_stride_n = lower_stride_n(dy)};
    uint32_t tensors[] = {lower_tensor(lower, dy), lower_tensor(lower, node->outputs[0])};
    lower_record(lower, node, "bias gradient", KERNEL_ID_bias_grad, &params, tensors,
                 bias_grad_flops(node));
}

const struct op_info op_bias_grad = {
    .name = "bias_grad",
    .shape = bias_grad_shape,
    .reference = bias_grad_reference,
    .lower = bias_grad_lower,
    .flops = bias_grad_flops,
    .inplace_input = -1,
};
