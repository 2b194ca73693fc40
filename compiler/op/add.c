/*
 * add.c: the sum of two tensors of the same shape: residual connections, and gradients of values
 * used several times.
 */
#include "compiler/op/op_common.h"

static bool add_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err)) {
        return false;
    }
    struct shape a = node->inputs[0]->shape;
    return op_check_shape(node, 1, "the second input", a, err) &&
           op_set_output(node, 0, a.n, a.c, a.h, a.w, err);
}

static void add_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    for (int i = 0; i < 2; i++) {
        if (autodiff_needs(ad, node->inputs[i])) {
            autodiff_add(ad, node->inputs[i], dy[0]);
        }
    }
}

static void add_reference(const struct node *node, double *const *in, double *const *out,
                          const struct interpret_context *context) {
    (void)context;
    size_t count = shape_elements(node->outputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = in[0][e] + in[1][e];
    }
}

static uint64_t add_flops(const struct node *node) {
    return shape_elements(node->outputs[0]->shape);
}

static void add_lower(struct lower *lower, const struct node *node) {
    const struct value *a = node->inputs[0], *b = node->inputs[1], *y = node->outputs[0];
    struct add_params params = {.n = y->shape.n,
                                .count = y->shape.c * y->shape.h * y->shape.w,
                                .a_stride_n = lower_stride_n(a),
                                .b_stride_n = lower_stride_n(b),
                                .y_stride_n = lower_stride_n(y)};
    uint32_t tensors[] = {lower_tensor(lower, a), lower_tensor(lower, b), lower_tensor(lower, y)};
    lower_record(lower, node, "sum", KERNEL_ID_add, &params, tensors, add_flops(node));
}

const struct op_info op_add = {
    .name = "add",
    .shape = add_shape,
    .grad = add_grad,
    .reference = add_reference,
    .lower = add_lower,
    .flops = add_flops,
    .inplace_input = 0,
};
