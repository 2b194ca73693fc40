/*
 * dropout.c: sets a fraction `rate` of the elements to zero and scales the others by 1 / (1 - rate)
 * (Srivastava et al., JMLR 15, 2014, in its inverted form). The mask is a pure function of seed,
 * batch, layer and element (common/rng.h), so nothing is kept for the backward pass: the gradient
 * is the same operation.
 */
#include "common/rng.h"
#include "compiler/op/op_common.h"

static uint32_t threshold(const struct node *node) {
    return (uint32_t)((double)node->attr.rate * 4294967296.0);
}

static double scale(const struct node *node) {
    return 1 / (1 - (double)node->attr.rate);
}

static bool dropout_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    if (!(node->attr.rate >= 0 && node->attr.rate < 1)) {
        return op_error(err, node, "rate %g must be at least 0 and less than 1",
                        (double)node->attr.rate);
    }
    struct shape x = node->inputs[0]->shape;
    return op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void dropout_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    if (autodiff_needs(ad, node->inputs[0])) {
        autodiff_add(ad, node->inputs[0],
                     autodiff_node(ad, OP_DROPOUT, node, &dy[0], 1, &node->attr));
    }
}

static void dropout_reference(const struct node *node, double *const *in, double *const *out,
                              const struct interpret_context *context) {
    uint32_t count = (uint32_t)shape_elements(node->outputs[0]->shape);
    uint32_t stream = context->step * MAX(context->batches, 1u) + context->batch;
    for (uint32_t e = 0; e < count; e++) {
        struct rng_block block =
            rng_philox(context->seed, e >> 2, (uint32_t)node->attr.layer, stream, 0);
        bool keep = block.word[e & 3] >= threshold(node);
        out[0][e] = keep ? in[0][e] * scale(node) : 0;
    }
}

static uint64_t dropout_flops(const struct node *node) {
    return shape_elements(node->outputs[0]->shape);
}

static void dropout_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct dropout_params params = {.n = x->shape.n,
                                    .count = x->shape.c * x->shape.h * x->shape.w,
                                    .x_stride_n = lower_stride_n(x),
                                    .y_stride_n = lower_stride_n(y),
                                    .layer = node->attr.layer,
                                    .threshold = threshold(node),
                                    .scale = (float)scale(node)};
    uint32_t tensors[] = {lower_tensor(lower, x), lower_control(lower), lower_tensor(lower, y)};
    lower_record(lower, node, "dropout", KERNEL_ID_dropout, &params, tensors, dropout_flops(node));
}

const struct op_info op_dropout = {
    .name = "dropout",
    .shape = dropout_shape,
    .grad = dropout_grad,
    .reference = dropout_reference,
    .lower = dropout_lower,
    .flops = dropout_flops,
    .inplace_input = 0,
};
