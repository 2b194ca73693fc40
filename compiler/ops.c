/*
 * ops.c: the table of operations, made from ops.def, and what their files share (op_common.h).
 */
#include "compiler/op/op_common.h"

#include <inttypes.h>
#include <stdarg.h>

const struct op_info *const op_table[OP_COUNT] = {
#define OP(NAME, name) [OP_##NAME] = &op_##name,
#include "compiler/ops.def"
#undef OP
};

bool op_has_effect(enum op_kind op) {
    return op == OP_SGD || op == OP_ADAM || op == OP_ACCUMULATE || op == OP_GRADIENT_CHECK;
}

struct value *op_input(const struct node *node, int i) {
    return i < node->n_inputs ? node->inputs[i] : NULL;
}

bool op_error(struct err *err, const struct node *node, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return err_set(err, ERR_INPUT, "%s (%s): %s", node->name, op_table[node->op]->name, text);
}

bool op_check(const struct node *node, int min_inputs, int max_inputs, int n_outputs, int labels,
              struct err *err) {
    if (node->n_inputs < min_inputs || node->n_inputs > max_inputs) {
        return op_error(err, node, "has %d inputs, takes %d to %d", node->n_inputs, min_inputs,
                        max_inputs);
    }
    if (node->n_outputs != n_outputs) {
        return op_error(err, node, "has %d outputs, makes %d", node->n_outputs, n_outputs);
    }
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *value = node->inputs[i];
        if (!value) {
            return op_error(err, node, "input %d is missing", i);
        }
        enum plan_type expected = i == labels ? PLAN_TYPE_U32 : PLAN_TYPE_F32;
        if (value->type != expected) {
            return op_error(err, node, "input %d (%s) must hold %s", i, value->name,
                            i == labels ? "class numbers" : "32-bit floats");
        }
        if (value->shape.n < 1 || value->shape.c < 1 || value->shape.h < 1 || value->shape.w < 1) {
            return op_error(err, node, "input %d (%s) is empty", i, value->name);
        }
    }
    return true;
}

bool op_check_shape(const struct node *node, int input, const char *what, struct shape expected,
                    struct err *err) {
    struct shape s = node->inputs[input]->shape;
    if (shape_equal(s, expected)) {
        return true;
    }
    return op_error(err, node, "%s is %dx%dx%dx%d, must be %dx%dx%dx%d", what, s.n, s.c, s.h, s.w,
                    expected.n, expected.c, expected.h, expected.w);
}

bool op_check_slope(const struct node *node, struct err *err) {
    return node->attr.slope >= 0 ||
           op_error(err, node, "slope %g must not be negative", (double)node->attr.slope);
}

bool op_check_bias(const struct node *node, int32_t channels, struct err *err) {
    return !op_input(node, 2) ||
           op_check_shape(node, 2, "the bias", (struct shape){1, channels, 1, 1}, err);
}

bool op_check_mask(const struct node *node, struct shape dx, struct err *err) {
    if (node->attr.act != (op_input(node, 2) != NULL)) {
        return op_error(err, node, "a mask and the attribute act go together");
    }
    return !op_input(node, 2) || op_check_shape(node, 2, "the mask", dx, err);
}

bool op_set_output(struct node *node, int i, int64_t n, int64_t c, int64_t h, int64_t w,
                   struct err *err) {
    const int64_t sizes[] = {n, c, h, w};
    int64_t elements = 1;
    for (int d = 0; d < 4; d++) {
        if (sizes[d] < 1) {
            return op_error(err, node,
                            "the result would be %" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64
                            " (images x channels x rows x columns), nothing is left",
                            n, c, h, w);
        }
        if (sizes[d] > INT32_MAX / elements) {
            return op_error(err, node,
                            "the result would be %" PRId64 "x%" PRId64 "x%" PRId64 "x%" PRId64
                            ", a tensor must have less than 2^31 elements",
                            n, c, h, w);
        }
        elements *= sizes[d];
    }
    node->outputs[i]->shape =
        (struct shape){.n = (int32_t)n, .c = (int32_t)c, .h = (int32_t)h, .w = (int32_t)w};
    node->outputs[i]->type = PLAN_TYPE_F32;
    return true;
}

void op_grad_sum(struct autodiff *ad, struct node *node, struct value *dy, enum op_kind wgrad,
                 enum op_kind dgrad) {
    struct value *x = node->inputs[0], *w = node->inputs[1], *bias = op_input(node, 2);
    struct value *dz = dy; /* towards the sum, before the activation */
    struct attr attr = node->attr;
    if (attr.act) {
        struct value *inputs[] = {node->outputs[0], dz};
        dz = autodiff_node(ad, OP_ACT_GRAD, node, inputs, 2, &(struct attr){.slope = attr.slope});
    }
    attr.act = false;
    attr.slope = 0;
    attr.recompute = false;
    /* The gradient towards the data comes last: by then nobody else reads x, and the gradient may
       take over its memory (inplace.c). */
    if (autodiff_needs(ad, w)) {
        attr.shape = w->shape;
        struct value *inputs[] = {x, dz};
        autodiff_add(ad, w, autodiff_node(ad, wgrad, node, inputs, 2, &attr));
    }
    if (bias && autodiff_needs(ad, bias)) {
        autodiff_add(ad, bias, autodiff_node(ad, OP_BIAS_GRAD, node, &dz, 1, &(struct attr){0}));
    }
    if (autodiff_needs(ad, x)) {
        attr.shape = x->shape;
        struct value *inputs[] = {dz, w};
        autodiff_add(ad, x, autodiff_node(ad, dgrad, node, inputs, 2, &attr));
    }
}

bool op_is_window(const struct value *part, const struct value *whole, int channel) {
    const struct value *part_root = part->storage ? part->storage : part;
    const struct value *whole_root = whole->storage ? whole->storage : whole;
    int part_first = part->storage ? part->storage_channel : 0;
    int whole_first = whole->storage ? whole->storage_channel : 0;
    return part_root == whole_root && part_first == whole_first + channel;
}

uint64_t op_no_flops(const struct node *node) {
    (void)node;
    return 0;
}

uint64_t op_param_words(const struct param *param) {
    struct shape s = param->shape;
    if (param->is_bias) {
        return shape_elements(s);
    }
    int in = param->transposed ? s.n : s.c;
    int out = param->transposed ? s.c : s.n;
    return lower_weight_elements(in, out, s.h * s.w);
}

const int32_t op_prefer_matrix[PLAN_DEVICE_COUNT] = {[PLAN_DEVICE_GPU] = 2,
                                                     [PLAN_DEVICE_CPU_DESCRIPTOR] = -2,
                                                     [PLAN_DEVICE_CPU_ADDRESS] = -2,
                                                     [PLAN_DEVICE_NATIVE] = -2};

void op_lower_sum(struct lower *lower, const struct node *node, const char *role,
                  enum kernel_id kernel, const void *params, const uint32_t *tensors,
                  uint64_t flops) {
    static const int32_t usual[PLAN_DEVICE_COUNT] = {0};
    lower_choice_begin(lower, node, role);
    lower_method(lower, PLAN_METHOD_DIRECT, usual);
    lower_record(lower, node, role, kernel, params, tensors, flops);
    if (lower_is_mixed(lower) && tile_has_matrix(kernel, params)) {
        lower_method(lower, PLAN_METHOD_MATRIX, op_prefer_matrix);
        lower_record(lower, node, role, kernel, params, tensors, flops);
    }
    lower_choice_end(lower);
}

/* A sum in so many parts, and the kernel that adds them up. The number is the kernel's last
   parameter. */
static void lower_parts(struct lower *lower, const struct node *node, enum kernel_id kernel,
                        uint32_t *params, uint32_t splits, uint64_t words,
                        const struct value *const *values, uint64_t flops) {
    uint32_t dw = lower_tensor(lower, values[2]);
    uint32_t partial = splits == 1 ? dw : lower_scratch_flat(lower, "partial sums", splits * words);
    uint32_t tensors[] = {lower_tensor(lower, values[0]), lower_tensor(lower, values[1]), partial};
    params[kernel_table[kernel].n_params - 1] = splits;
    lower_record(lower, node, "weight gradient", kernel, params, tensors, flops);
    if (splits > 1) {
        struct wgrad_reduce_params reduce = {.count = (uint32_t)words, .splits = splits};
        uint32_t reduce_tensors[] = {partial, dw};
        lower_record(lower, node, "weight gradient sum", KERNEL_ID_wgrad_reduce, &reduce,
                     reduce_tensors, 0);
    }
}

void op_lower_wgrad(struct lower *lower, const struct node *node, enum kernel_id kernel,
                    uint32_t *params, uint64_t words, const struct value *const *values,
                    uint64_t flops) {
    static const int32_t few[PLAN_DEVICE_COUNT] = {0};
    static const int32_t many[PLAN_DEVICE_COUNT] = {[PLAN_DEVICE_GPU] = 1,
                                                    [PLAN_DEVICE_CPU_DESCRIPTOR] = -1,
                                                    [PLAN_DEVICE_CPU_ADDRESS] = -1,
                                                    [PLAN_DEVICE_NATIVE] = -1};
    const uint32_t splits = tile_wgrad_splits(kernel, params);
    const uint32_t most = tile_wgrad_most_splits(kernel, params, lower_room(lower));
    lower_choice_begin(lower, node, "weight gradient");
    lower_method(lower, PLAN_METHOD_DIRECT, few);
    lower_parts(lower, node, kernel, params, splits, words, values, flops);
    if (most > splits) {
        lower_method(lower, PLAN_METHOD_SPLIT, many);
        lower_parts(lower, node, kernel, params, most, words, values, flops);
    }
    if (lower_is_mixed(lower) && tile_has_matrix(kernel, params)) {
        lower_method(lower, PLAN_METHOD_MATRIX, op_prefer_matrix);
        lower_parts(lower, node, kernel, params, MAX(splits, most), words, values, flops);
    }
    lower_choice_end(lower);
}
