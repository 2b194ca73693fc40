/*
 * optimiser.c: the updates of a parameter from its gradient: SGD with momentum (torch.optim.SGD,
 * dampening 0) and Adam (Kingma and Ba, ICLR 2015, as torch.optim.Adam; decay is added to the
 * gradient). Both write their inputs: the parameter and its state. The learning rate and Adam's
 * bias corrections change from step to step and come from the control block.
 *
 * Where an update averages the gradients of several batches, ACCUMULATE adds those of all but the
 * last to a state of their own; the last batch's update takes the mean of that sum and its own
 * gradient, which is then worked out in the gradient's memory: nobody else reads it. Gradients that
 * are scaled come with a verdict instead (loss_scale.c), and are the mean already.
 */
#include <math.h>

#include "compiler/op/op_common.h"

static bool check_update(struct node *node, int n_states, struct err *err) {
    if (!op_check(node, 2 + n_states, 3 + n_states, 0, -1, err)) {
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
        int index = i - 2 < n_states ? i - 2 : STATE_ACCUMULATOR;
        if (i - 2 == n_states && state->kind == VALUE_TEMP) {
            return op_check_shape(node, i, "the verdict", (struct shape){1, 1, 1, VERDICT_WORDS},
                                  err);
        }
        if (state->kind != VALUE_STATE || state->param != w->param || state->state_index != index) {
            return op_error(err, node, "%s is not state %d of %s", state->name, index, w->name);
        }
        if (!op_check_shape(node, i, "the state", w->shape, err)) {
            return false;
        }
    }
    return true;
}

/* The sum of earlier batches' gradients, or NULL. */
static const struct value *accumulated(const struct node *node, int n_states) {
    const struct value *last = op_input(node, 2 + n_states);
    return last && last->kind == VALUE_STATE ? last : NULL;
}

/* The verdict on scaled gradients, or NULL. */
static const struct value *verdict_on(const struct node *node, int n_states) {
    const struct value *last = op_input(node, 2 + n_states);
    return last && last->kind == VALUE_TEMP ? last : NULL;
}

static bool is_left_out(const struct node *node, double *const *in, int n_states) {
    return verdict_on(node, n_states) && in[2 + n_states][VERDICT_APPLY] == 0;
}

/* The gradient that the update takes, of element e. */
static double mean_gradient(const struct node *node, double *const *in, int n_states, size_t e,
                            const struct interpret_context *context) {
    if (verdict_on(node, n_states)) {
        return in[1][e] * in[2 + n_states][VERDICT_UNSCALE];
    }
    if (!accumulated(node, n_states) || context->batch == 0) {
        return in[1][e];
    }
    return (in[2 + n_states][e] + in[1][e]) / (context->batch + 1.0);
}

static void lower_accumulate(struct lower *lower, const struct node *node, const struct value *g,
                             const struct value *sum, bool mean) {
    struct accumulate_params params = {.count = (uint32_t)op_param_words(sum->param), .mean = mean};
    uint32_t tensors[] = {lower_tensor(lower, g), lower_tensor(lower, sum), lower_control(lower),
                          lower_tensor(lower, mean ? g : sum)};
    lower_record(lower, node, mean ? "mean gradient" : "accumulate", KERNEL_ID_accumulate, &params,
                 tensors, shape_elements(sum->shape));
}

/* Parameter, gradient, states, control, [verdict]. */
static void lower_update(struct lower *lower, const struct node *node, int n_states,
                         enum kernel_id kernel, const void *params) {
    uint32_t tensors[KERNEL_MAX_BINDINGS];
    int count = 0;
    const struct value *sum = accumulated(node, n_states);
    if (sum) {
        lower_accumulate(lower, node, node->inputs[1], sum, true);
    }
    for (int i = 0; i < 2 + n_states; i++) {
        tensors[count++] = lower_tensor(lower, node->inputs[i]);
    }
    tensors[count++] = lower_control(lower);
    if (verdict_on(node, n_states)) {
        tensors[count] = lower_tensor(lower, node->inputs[2 + n_states]);
    }
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
    if (is_left_out(node, in, 1)) {
        return;
    }
    size_t count = shape_elements(node->inputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        double g = mean_gradient(node, in, 1, e, context);
        m[e] = (double)a->momentum * m[e] + (g + (double)a->decay * w[e]);
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
    lower_update(lower, node, 1, verdict_on(node, 1) ? KERNEL_ID_sgd_scaled : KERNEL_ID_sgd,
                 &params);
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
    double beta1 = (double)a->beta1, beta2 = (double)a->beta2;
    if (is_left_out(node, in, 2)) {
        return;
    }
    double updates = context->step + 1.0 - (verdict_on(node, 2) ? in[4][VERDICT_SKIPPED] : 0);
    double bias1 = 1 - pow(beta1, updates), bias2 = 1 - pow(beta2, updates);
    size_t count = shape_elements(node->inputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        double gradient = mean_gradient(node, in, 2, e, context) + (double)a->decay * w[e];
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
    lower_update(lower, node, 2, verdict_on(node, 2) ? KERNEL_ID_adam_scaled : KERNEL_ID_adam,
                 &params);
}

const struct op_info op_adam = {
    .name = "adam",
    .shape = adam_shape,
    .reference = adam_reference,
    .lower = adam_lower,
    .flops = adam_flops,
    .inplace_input = -1,
};

/* Accumulate: s, g */

static bool accumulate_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 0, -1, err)) {
        return false;
    }
    const struct value *sum = node->inputs[0];
    if (sum->kind != VALUE_STATE || sum->state_index != STATE_ACCUMULATOR) {
        return op_error(err, node, "%s is not an accumulator", sum->name);
    }
    return op_check_shape(node, 1, "the gradient", sum->shape, err);
}

static void accumulate_reference(const struct node *node, double *const *in, double *const *out,
                                 const struct interpret_context *context) {
    (void)out;
    size_t count = shape_elements(node->inputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        in[0][e] = context->batch == 0 ? in[1][e] : in[0][e] + in[1][e];
    }
}

static uint64_t accumulate_flops(const struct node *node) {
    return shape_elements(node->inputs[0]->shape);
}

static void accumulate_lower(struct lower *lower, const struct node *node) {
    lower_accumulate(lower, node, node->inputs[1], node->inputs[0], false);
}

const struct op_info op_accumulate = {
    .name = "accumulate",
    .shape = accumulate_shape,
    .reference = accumulate_reference,
    .lower = accumulate_lower,
    .flops = accumulate_flops,
    .inplace_input = -1,
};
