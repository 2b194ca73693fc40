/*
 * optimiser.c: the updates of a parameter from its gradient: SGD with momentum (torch.optim.SGD,
 * dampening 0) and Adam (Kingma and Ba, ICLR 2015, as torch.optim.Adam; decay is added to the
 * gradient). Both write their inputs: the parameter and its state. The learning rate and Adam's
 * bias corrections change from step to step and come from the control block.
 */
#include <math.h>

#include "compiler/op/op_common.h"

static bool check_update(struct node *node, int n_states, struct err *err) {
    if (!op_check(node, 2 + n_states, 2 + n_states, 0, -1, err)) {
        return false;
    }
    const struct value *w = node->inputs[0];
    if (w->kind != VALUE_PARAM) {
        return op_error(err, node, "%s is not a parameter", w->name);
    }
    if (!op_check_shape(node, 1, "the gradient", w->shape, err)) {
        return false;
    }
    for (int i = 2; i < node->n_inputs; i++) {
        const struct value *state = node->inputs[i];
        if (state->kind != VALUE_STATE || state->param != w->param || state->state_index != i - 2) {
            return op_error(err, node, "%s is not state %d of %s", state->name, i - 2, w->name);
        }
        if (!op_check_shape(node, i, "the state", w->shape, err)) {
            return false;
        }
    }
    return true;
}

/* Parameter, gradient, states, control. */
static void lower_update(struct lower *lower, const struct node *node, enum kernel_id kernel,
                         const void *params) {
    uint32_t tensors[KERNEL_MAX_BINDINGS];
    int count = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        tensors[count++] = lower_tensor(lower, node->inputs[i]);
    }
    tensors[count] = lower_control(lower);
    lower_record(lower, node, "update", kernel, params, tensors, op_table[node->op]->flops(node));
}

/* SGD: w, g, m */

static bool sgd_shape(struct node *node, struct err *err) {
    return check_update(node, 1, err);
}

static void sgd_reference(const struct node *node, double *const *in, double *const *out,
                          const struct interpret_context *context) {
    (void)out;
    const struct attr *a = &node->attr;
    double *w = in[0], *m = in[2];
    const double *g = in[1];
    size_t count = shape_elements(node->inputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        m[e] = (double)a->momentum * m[e] + (g[e] + (double)a->decay * w[e]);
        w[e] -= context->learning_rate * m[e];
    }
}

/* Three multiply-adds per element. */
static uint64_t sgd_flops(const struct node *node) {
    return 6 * shape_elements(node->inputs[0]->shape);
}

static void sgd_lower(struct lower *lower, const struct node *node) {
    struct sgd_params params = {.count = (uint32_t)op_param_words(node->inputs[0]->param),
                                .momentum = node->attr.momentum,
                                .decay = node->attr.decay};
    lower_update(lower, node, KERNEL_ID_sgd, &params);
}

const struct op_info op_sgd = {
    .name = "sgd",
    .shape = sgd_shape,
    .reference = sgd_reference,
    .lower = sgd_lower,
    .flops = sgd_flops,
    .inplace_input = -1,
};

/* Adam: w, g, m, v */

static bool adam_shape(struct node *node, struct err *err) {
    return check_update(node, 2, err);
}

static void adam_reference(const struct node *node, double *const *in, double *const *out,
                           const struct interpret_context *context) {
    (void)out;
    const struct attr *a = &node->attr;
    double *w = in[0], *m = in[2], *v = in[3];
    const double *g = in[1];
    double beta1 = (double)a->beta1, beta2 = (double)a->beta2;
    double bias1 = 1 - pow(beta1, context->step + 1.0), bias2 = 1 - pow(beta2, context->step + 1.0);
    size_t count = shape_elements(node->inputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        double gradient = g[e] + (double)a->decay * w[e];
        m[e] = beta1 * m[e] + (1 - beta1) * gradient;
        v[e] = beta2 * v[e] + (1 - beta2) * gradient * gradient;
        w[e] -= context->learning_rate * (m[e] / bias1) / (sqrt(v[e] / bias2) + (double)a->epsilon);
    }
}

/* Decay 2, moments 3 and 4, update 7 (with square root) per element. */
static uint64_t adam_flops(const struct node *node) {
    return 16 * shape_elements(node->inputs[0]->shape);
}

static void adam_lower(struct lower *lower, const struct node *node) {
    struct adam_params params = {.count = (uint32_t)op_param_words(node->inputs[0]->param),
                                 .beta1 = node->attr.beta1,
                                 .beta2 = node->attr.beta2,
                                 .epsilon = node->attr.epsilon,
                                 .decay = node->attr.decay};
    lower_update(lower, node, KERNEL_ID_adam, &params);
}

const struct op_info op_adam = {
    .name = "adam",
    .shape = adam_shape,
    .reference = adam_reference,
    .lower = adam_lower,
    .flops = adam_flops,
    .inplace_input = -1,
};
