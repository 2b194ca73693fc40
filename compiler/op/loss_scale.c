/*
 * loss_scale.c: the operations of loss scaling (compiler/loss_scale.c puts them into a graph,
 * common/kernel_contract.h defines them). Flags are a tensor of one channel for each gradient. A
 * number counts as finite here when it is finite in single precision.
 */
#include <assert.h>
#include <float.h>
#include <math.h>

#include "compiler/op/op_common.h"

static const struct shape scale_shape = {1, 1, 1, LOSS_SCALE_WORDS};

static bool check_scale(const struct node *node, int input, struct err *err) {
    const struct value *scale = node->inputs[input];
    if (scale->kind != VALUE_STATE || scale->state_index != STATE_LOSS_SCALE) {
        return op_error(err, node, "%s is not the scale of the loss", scale->name);
    }
    return op_check_shape(node, input, "the scale", scale_shape, err);
}

/* 0 stands for the scale of the first update. */
static double current_scale(const struct node *node, const double *scale) {
    return scale[LOSS_SCALE_S] != 0 ? scale[LOSS_SCALE_S] : (double)node->attr.initial;
}

/* Scale gradient: x, scale -> y */

static bool scale_gradient_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 2, 1, -1, err) || !check_scale(node, 1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape;
    return op_set_output(node, 0, x.n, x.c, x.h, x.w, err);
}

static void scale_gradient_reference(const struct node *node, double *const *in, double *const *out,
                                     const struct interpret_context *context) {
    (void)context;
    double factor = current_scale(node, in[1]);
    size_t count = shape_elements(node->outputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = factor * in[0][e];
    }
}

static void scale_gradient_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    struct scale_gradient_params params = {.n = (uint32_t)x->shape.n,
                                           .count =
                                               (uint32_t)(x->shape.c * x->shape.h * x->shape.w),
                                           .x_stride_n = lower_stride_n(x),
                                           .y_stride_n = lower_stride_n(y),
                                           .initial = node->attr.initial};
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, node->inputs[1]),
                          lower_tensor(lower, y)};
    lower_record(lower, node, "scaled gradient", KERNEL_ID_scale_gradient, &params, tensors, 0);
}

const struct op_info op_scale_gradient = {
    .name = "scale_gradient",
    .shape = scale_gradient_shape,
    .reference = scale_gradient_reference,
    .lower = scale_gradient_lower,
    .flops = op_no_flops,
    .inplace_input = 0,
};

/* Gradient flags: -> flags. Nothing is computed: the checks fill them, each its channel. */

static bool gradient_flags_shape(struct node *node, struct err *err) {
    struct shape s = node->attr.shape;
    return op_check(node, 0, 0, 1, -1, err) && op_set_output(node, 0, s.n, s.c, s.h, s.w, err);
}

static void gradient_flags_reference(const struct node *node, double *const *in, double *const *out,
                                     const struct interpret_context *context) {
    (void)in, (void)context;
    size_t count = shape_elements(node->outputs[0]->shape);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = 0;
    }
}

static void gradient_flags_lower(struct lower *lower, const struct node *node) {
    (void)lower, (void)node;
}

const struct op_info op_gradient_flags = {
    .name = "gradient_flags",
    .shape = gradient_flags_shape,
    .reference = gradient_flags_reference,
    .lower = gradient_flags_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};

/* Gradient check: flags, g, [s] */

static bool gradient_check_shape(struct node *node, struct err *err) {
    if (!op_check(node, 2, 3, 0, -1, err)) {
        return false;
    }
    struct shape flags = node->inputs[0]->shape;
    if (flags.n != 1 || flags.h != 1 || flags.w != GRADIENT_FLAGS ||
        node->attr.channel >= flags.c) {
        return op_error(err, node, "%s has no flags number %d", node->inputs[0]->name,
                        node->attr.channel);
    }
    const struct value *sum = op_input(node, 2);
    if (sum && (sum->kind != VALUE_STATE || sum->state_index != STATE_ACCUMULATOR)) {
        return op_error(err, node, "%s is not an accumulator", sum->name);
    }
    return !sum || op_check_shape(node, 2, "the sum", node->inputs[1]->shape, err);
}

/* All findings go to the first flag: which elements a flag stands for is the kernel's matter. */
static void gradient_check_reference(const struct node *node, double *const *in, double *const *out,
                                     const struct interpret_context *context) {
    (void)out;
    double *flag = in[0] + (size_t)node->attr.channel * GRADIENT_FLAGS;
    size_t count = shape_elements(node->inputs[1]->shape);
    for (size_t e = 0; e < count; e++) {
        if (op_input(node, 2) && context->batch > 0) {
            in[1][e] = (in[2][e] + in[1][e]) / (context->batch + 1.0);
        }
        if (!(fabs(in[1][e]) <= (double)FLT_MAX)) {
            flag[0] = 1;
        }
    }
}

static uint64_t gradient_check_flops(const struct node *node) {
    return node->n_inputs > 2 ? shape_elements(node->inputs[1]->shape) : 0;
}

static void gradient_check_lower(struct lower *lower, const struct node *node) {
    const struct value *g = node->inputs[1], *sum = op_input(node, 2);
    uint32_t tensor = lower_tensor(lower, g);
    uint32_t words = lower_words(lower, tensor);
    if (sum) {
        struct accumulate_params params = {.count = words, .mean = true};
        uint32_t tensors[] = {tensor, lower_tensor(lower, sum), lower_control(lower), tensor};
        lower_record(lower, node, "mean gradient", KERNEL_ID_accumulate, &params, tensors,
                     gradient_check_flops(node));
    }
    struct gradient_check_params params = {.count = words};
    uint32_t flags = lower_view(lower, node->inputs[0], node->attr.channel, 1);
    assert(flags != PLAN_NONE);
    uint32_t tensors[] = {tensor, flags};
    lower_record(lower, node, "gradient check", KERNEL_ID_gradient_check, &params, tensors, 0);
}

const struct op_info op_gradient_check = {
    .name = "gradient_check",
    .shape = gradient_check_shape,
    .reference = gradient_check_reference,
    .lower = gradient_check_lower,
    .flops = gradient_check_flops,
    .inplace_input = -1,
};

/* Loss scale: flags, scale, loss -> verdict */

static bool loss_scale_shape(struct node *node, struct err *err) {
    return op_check(node, 3, 3, 1, -1, err) && check_scale(node, 1, err) &&
           op_check_shape(node, 2, "the loss", (struct shape){1, LOSS_WORDS, 1, 1}, err) &&
           op_set_output(node, 0, 1, 1, 1, VERDICT_WORDS, err);
}

static void loss_scale_reference(const struct node *node, double *const *in, double *const *out,
                                 const struct interpret_context *context) {
    (void)context;
    const double least = ldexp(1, -126), largest = ldexp(1, 126);
    const int interval = node->attr.interval;
    double *scale = in[1], *loss = in[2], *verdict = out[0], s = current_scale(node, scale);
    bool found = false;
    for (size_t e = 0; e < shape_elements(node->inputs[0]->shape); e++) {
        found |= in[0][e] != 0;
    }
    verdict[VERDICT_UNSCALE] = 1 / s;
    verdict[VERDICT_APPLY] = found ? 0 : 1;
    verdict[VERDICT_SKIPPED] = scale[LOSS_SCALE_SKIPPED];
    verdict[VERDICT_WORDS - 1] = 0;
    loss[LOSS_WORD_SCALE] = s;
    scale[LOSS_SCALE_GOOD] = found ? 0 : fmin(scale[LOSS_SCALE_GOOD] + 1, LOSS_SCALE_MOST);
    scale[LOSS_SCALE_SKIPPED] = fmin(scale[LOSS_SCALE_SKIPPED] + found, LOSS_SCALE_MOST);
    if (interval > 0 && found) {
        s = fmax(s / 2, least);
    } else if (interval > 0 && scale[LOSS_SCALE_GOOD] >= interval) {
        s = fmin(s * 2, largest);
        scale[LOSS_SCALE_GOOD] = 0;
    }
    scale[LOSS_SCALE_S] = s;
    scale[LOSS_SCALE_WORDS - 1] = 0;
    loss[LOSS_WORD_SKIPPED] = scale[LOSS_SCALE_SKIPPED];
    loss[LOSS_WORD_FOUND] = found;
}

static void loss_scale_lower(struct lower *lower, const struct node *node) {
    struct loss_scale_params params = {.count = (uint32_t)shape_elements(node->inputs[0]->shape),
                                       .interval = (uint32_t)node->attr.interval,
                                       .initial = node->attr.initial};
    uint32_t tensors[] = {
        lower_tensor(lower, node->inputs[0]), lower_tensor(lower, node->inputs[1]),
        lower_tensor(lower, node->inputs[2]), lower_tensor(lower, node->outputs[0])};
    lower_record(lower, node, "scale", KERNEL_ID_loss_scale, &params, tensors, 0);
}

const struct op_info op_loss_scale = {
    .name = "loss_scale",
    .shape = loss_scale_shape,
    .reference = loss_scale_reference,
    .lower = loss_scale_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};
