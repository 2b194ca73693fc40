/*
 * activation.c: ReLU and leaky ReLU: y = x > 0 ? x : slope * x (slope 0: ReLU). The gradient reads
 * the sign of the output, which is the input's because slopes are not negative; so the input need
 * not be kept and the activation can work in place.
 */
#include "compiler/op/op_common.h"

static uint64_t act_flops(const struct node *node) {
    return shape_elements(node->outputs[0]->shape);
}

static bool act_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err) || !op_check_slope(node, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    return op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void act_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    if (autodiff_needs(ad, node->inputs[0])) {
        struct value *inputs[] = {node->outputs[0], dy[0]};
        autodiff_add(ad, node->inputs[0],
                     autodiff_node(ad, OP_ACT_GRAD, node, inputs, 2, &node->attr));
    }
}

static void act_reference(const struct node *node, double *const *in, double *const *out,
                          const struct interpret_context *context) {
    (void)context;
    size_t count = shape_elements(node->outputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = op_activate(in[0][e], (double)node->attr.slope);
    }
}

static void act_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct act_fwd_params params = {.n = x->shape.n,
                                    .count = x->shape.c * x->shape.h * x->shape.w,
                                    .x_stride_n = lower_stride_n(x),
                                    .y_stride_n = lower_stride_n(y),
                                    .slope = node->attr.slope};
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y)};
    lower_record(lower, node, "forward", KERNEL_ID_act_fwd, &params, tensors, act_flops(node));
}

const struct op_info op_act = {
    .name = "act",
    .shape = act_shape,
    .grad = act_grad,
    .reference = act_reference,
    .lower = act_lower,
    .flops = act_flops,
    .inplace_input = 0,
};

/* y, dy -> dx */

static bool act_grad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err) || !op_check_slope(node, err)) {
        return false;
    }
    struct shape y = node->inputs[0]->shape;
    return op_check_shape(node, 1, "the gradient", y, err) &&
           op_set_output(node, 0, y.n, y.c, y.h, y.w, err);
}

static void act_grad_reference(const struct node *node, double *const *in, double *const *out,
                               const struct interpret_context *context) {
    (void)context;
    size_t count = shape_elements(node->outputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = in[0][e] > 0 ? in[1][e] : (double)node->attr.slope * in[1][e];
    }
}

static void act_grad_lower(struct lower *lower, const struct node *node) {
    const struct value *y = node->inputs[0], *dy = node->inputs[1], *dx = node->outputs[0];
    struct act_bwd_params params = {.n = y->shape.n,
                                    .count = y->shape.c * y->shape.h * y->shape.w,
                                    .y_stride_n = lower_stride_n(y),
                                    .dy_stride_n = lower_stride_n(dy),
                                    .dx_stride_n = lower_stride_n(dx),
                                    .slope = node->attr.slope};
    uint32_t tensors[] = {lower_tensor(lower, y), lower_tensor(lower, dy), lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient", KERNEL_ID_act_bwd, &params, tensors,
                 act_flops(node));
}

const struct op_info op_act_grad = {
    .name = "act_grad",
    .shape = act_grad_shape,
    .reference = act_grad_reference,
    .lower = act_grad_lower,
    .flops = act_flops,
    .inplace_input = 1,
};
