/*
 * softmax_loss.c: softmax over the channels, and the pixel-wise weighted cross-entropy over it
 * (Ronneberger et al. 2015, eq. 1), divided by the sum of the weights:
 *     L = sum over pixels of w * -log p[label] / sum of w,   dL/dlogit[k] = w * (p[k] - [k =
 * label]) / sum of w. Pixels of weight 0 take no part. The loss is a value of LOSS_WORDS words: L,
 * sum of w * -log p, sum of w, pixels whose arg-max is right, pixels counted, unused zeros.
 */
#include <assert.h>
#include <math.h>

#include "compiler/op/op_common.h"

/* exp, its argument, sum, quotient and maximum: five operations per element. */
static uint64_t softmax_flops(const struct node *node) {
    return 5 * shape_elements(node->inputs[0]->shape);
}

/* A pixel's probabilities; logits and probs are `hw` elements apart. Returns log of the sum of
   exponentials. */
static double softmax_pixel(const double *logits, double *probs, int k, size_t hw) {
    double top = logits[0], sum = 0;
    for (int c = 1; c < k; c++) {
        top = fmax(top, logits[(size_t)c * hw]);
    }
    for (int c = 0; c < k; c++) {
        probs[(size_t)c * hw] = exp(logits[(size_t)c * hw] - top);
        sum += probs[(size_t)c * hw];
    }
    for (int c = 0; c < k; c++) {
        probs[(size_t)c * hw] /= sum;
    }
    return top + log(sum);
}

static bool softmax_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    return op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void softmax_reference(const struct node *node, double *const *in, double *const *out,
                              const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape;
    size_t hw = (size_t)x.h * (size_t)x.w;
    for (int n = 0; n < x.n; n++) {
        for (size_t p = 0; p < hw; p++) {
            size_t at = op_plane(x, n, 0) + p;
            softmax_pixel(in[0] + at, out[0] + at, x.c, hw);
        }
    }
}

static void softmax_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct softmax_params params = {.n = x->shape.n,
                                    .k = x->shape.c,
                                    .hw = x->shape.h * x->shape.w,
                                    .x_stride_n = lower_stride_n(x),
                                    .y_stride_n = lower_stride_n(y)};
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y)};
    lower_record(lower, node, "forward", KERNEL_ID_softmax, &params, tensors, softmax_flops(node));
}

const struct op_info op_softmax = {
    .name = "softmax",
    .shape = softmax_shape,
    .reference = softmax_reference,
    .lower = softmax_lower,
    .flops = softmax_flops,
    .inplace_input = -1,
};

/* logits, labels, weights -> probs, loss */

static bool check_maps(const struct node *node, struct shape x, struct err *err) {
    struct shape map = {x.n, 1, x.h, x.w};
    return op_check_shape(node, 1, "the label map", map, err) &&
           op_check_shape(node, 2, "the weight map", map, err);
}

static bool loss_shape(struct node *node, struct err *err) {
    if (!op_check(node, 3, 3, 2, 1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    return check_maps(node, x, err) && op_set_output(node, 0, x.n, x.c, x.h, x.w, err) &&
           op_set_output(node, 1, 1, LOSS_WORDS, 1, 1, err);
}

/* The loss is where differentiation starts: its own gradient is 1. */
static void loss_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    (void)dy;
    struct value *logits = node->inputs[0];
    if (autodiff_needs(ad, logits)) {
        struct value *inputs[] = {node->outputs[0], node->inputs[1], node->inputs[2],
                                  node->outputs[1]};
        autodiff_add(ad, logits,
                     autodiff_node(ad, OP_SOFTMAX_LOSS_GRAD, node, inputs, 4, &(struct attr){0}));
    }
}

static int first_class_of_maximum(const double *logits, int k, size_t hw) {
    int best = 0;
    for (int c = 1; c < k; c++) {
        if (logits[(size_t)c * hw] > logits[(size_t)best * hw]) {
            best = c;
        }
    }
    return best;
}

static void loss_reference(const struct node *node, double *const *in, double *const *out,
                           const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape;
    size_t hw = (size_t)x.h * (size_t)x.w;
    double sum = 0, weights = 0, correct = 0, counted = 0;
    for (int n = 0; n < x.n; n++) {
        for (size_t p = 0; p < hw; p++) {
            const double *logits = in[0] + op_plane(x, n, 0) + p;
            double log_sum = softmax_pixel(logits, out[0] + op_plane(x, n, 0) + p, x.c, hw);
            int label = (int)in[1][(size_t)n * hw + p];
            double weight = in[2][(size_t)n * hw + p];
            assert(label >= 0 && label < x.c);
            sum += weight * (log_sum - logits[(size_t)label * hw]);
            weights += weight;
            counted += weight > 0;
            correct += weight > 0 && first_class_of_maximum(logits, x.c, hw) == label;
        }
    }
    const double loss[LOSS_WORDS] = {weights != 0 ? sum / weights : 0, sum, weights, correct,
                                     counted};
    for (int i = 0; i < LOSS_WORDS; i++) {
        out[1][i] = loss[i];
    }
}

static void loss_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *probs = node->outputs[0];
    uint32_t hw = x->shape.h * x->shape.w;
    struct softmax_loss_params params = {.n = x->shape.n,
                                         .k = x->shape.c,
                                         .hw = hw,
                                         .logits_stride_n = lower_stride_n(x),
                                         .probs_stride_n = lower_stride_n(probs)};
    struct loss_reduce_params reduce = {.count = div_up(params.n * hw, LOSS_PIXELS_PER_GROUP)};
    uint32_t partial = lower_scratch_flat(lower, "partial sums", (uint64_t)reduce.count * 4);
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, node->inputs[1]),
                          lower_tensor(lower, node->inputs[2]), lower_tensor(lower, probs),
                          partial};
    lower_record(lower, node, "forward", KERNEL_ID_softmax_loss, &params, tensors,
                 softmax_flops(node));
    uint32_t reduce_tensors[] = {partial, lower_tensor(lower, node->outputs[1])};
    lower_record(lower, node, "loss sum", KERNEL_ID_loss_reduce, &reduce, reduce_tensors, 0);
}

const struct op_info op_softmax_loss = {
    .name = "softmax_loss",
    .shape = loss_shape,
    .grad = loss_grad,
    .reference = loss_reference,
    .lower = loss_lower,
    .flops = softmax_flops,
    .inplace_input = -1,
};

/* probs, labels, weights, loss -> dlogits */

static bool loss_grad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 4, 4, 1, 1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    return check_maps(node, x, err) &&
           op_check_shape(node, 3, "the loss", (struct shape){1, LOSS_WORDS, 1, 1}, err) &&
           op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void loss_grad_reference(const struct node *node, double *const *in, double *const *out,
                                const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape;
    size_t hw = (size_t)x.h * (size_t)x.w;
    double weights = in[3][2];
    for (int n = 0; n < x.n; n++) {
        for (int c = 0; c < x.c; c++) {
            for (size_t p = 0; p < hw; p++) {
                size_t at = op_plane(x, n, c) + p, pixel = (size_t)n * hw + p;
                double error = in[0][at] - (c == (int)in[1][pixel]);
                out[0][at] = weights != 0 ? in[2][pixel] * error / weights : 0;
            }
        }
    }
}

/* Difference, product and quotient. */
static uint64_t loss_grad_flops(const struct node *node) {
    return 3 * shape_elements(node->inputs[0]->shape);
}

static void loss_grad_lower(struct lower *lower, const struct node *node) {
    const struct value *probs = node->inputs[0], *dlogits = node->outputs[0];
    struct softmax_loss_grad_params params = {.n = probs->shape.n,
                                              .k = probs->shape.c,
                                              .hw = probs->shape.h * probs->shape.w,
                                              .probs_stride_n = lower_stride_n(probs),
                                              .dlogits_stride_n = lower_stride_n(dlogits)};
    uint32_t tensors[] = {lower_tensor(lower, probs), lower_tensor(lower, node->inputs[1]),
                          lower_tensor(lower, node->inputs[2]),
                          lower_tensor(lower, node->inputs[3]), lower_tensor(lower, dlogits)};
    lower_record(lower, node, "data gradient", KERNEL_ID_softmax_loss_grad, &params, tensors,
                 loss_grad_flops(node));
}

const struct op_info op_softmax_loss_grad = {
    .name = "softmax_loss_grad",
    .shape = loss_grad_shape,
    .reference = loss_grad_reference,
    .lower = loss_grad_lower,
    .flops = loss_grad_flops,
    .inplace_input = -1,
};
