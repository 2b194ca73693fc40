/*
 * half.c: a tensor kept in half precision for a while (compiler/half.c): half_store rounds it and
 * packs two numbers into a word, half_load unpacks them. kernel_contract.h has layout and rounding.
 */
#include <math.h>

#include "compiler/op/op_common.h"

static uint32_t image_elements(struct shape s) {
    return (uint32_t)(s.c * s.h * s.w);
}

/* One row of HALF_LANES words for each block of an image. */
static struct shape packed_shape(struct shape s) {
    int32_t blocks = (int32_t)div_up(image_elements(s), HALF_BLOCK);
    return (struct shape){s.n, 1, blocks, HALF_LANES};
}

/* Word and place in it (0 or 1) of element i of an image. */
static size_t packed_word(size_t i) {
    return i / HALF_BLOCK * HALF_LANES + i % HALF_LANES;
}

static size_t packed_place(size_t i) {
    return i % HALF_BLOCK / HALF_LANES;
}

/* x -> words */

static bool half_store_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    struct shape words = packed_shape(node->inputs[0]->shape);
    if (!op_set_output(node, 0, words.n, words.c, words.h, words.w, err)) {
        return false;
    }
    node->outputs[0]->type = PLAN_TYPE_U32;
    return true;
}

/* The number as a half's bits. Halves are the multiples of 2^(e - 10), 2^e being the power of two
   below, 2^-14 at least. */
static double half_code(double value) {
    const double size = fabs(value), sign = signbit(value) ? 0x8000 : 0;
    if (isnan(value)) {
        return sign + 0x7e00;
    }
    if (isinf(value)) {
        return sign + 0x7c00;
    }
    if (size == 0) {
        return sign;
    }
    const int exponent = MAX(ilogb(size), -14);
    double units = rint(ldexp(size, 10 - exponent)); /* ties to even */
    units = MAX(units, 1);                           /* the sign stays */
    /* Units of 2^-24 count up from 0, and each exponent has 1024 codes; units of 2048 are the next
       exponent's first code by the same sum. */
    const double code = 1024 * (exponent + 14) + units;
    return sign + MIN(code, 0x7bff);
}

static double half_value(double code) {
    const bool negative = code >= 0x8000;
    const int bits = (int)code - (negative ? 0x8000 : 0), exponent = bits / 1024;
    const int units = bits % 1024;
    double size = exponent > 0 ? ldexp(1024 + units, exponent - 25) : ldexp(units, -24);
    if (exponent == 31) {
        size = units > 0 ? NAN : INFINITY;
    }
    return negative ? -size : size;
}

static void half_store_reference(const struct node *node, double *const *in, double *const *out,
                                 const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape, words = node->outputs[0]->shape;
    const size_t count = image_elements(x), n_words = image_elements(words);
    for (size_t w = 0; w < shape_elements(words); w++) {
        out[0][w] = 0;
    }
    for (size_t e = 0; e < shape_elements(x); e++) {
        const size_t image = e / count, i = e % count;
        out[0][image * n_words + packed_word(i)] +=
            half_code(in[0][e]) * (packed_place(i) ? 65536 : 1);
    }
}

static void half_store_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0];
    struct half_store_params params = {
        .n = x->shape.n, .count = image_elements(x->shape), .x_stride_n = lower_stride_n(x)};
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, node->outputs[0])};
    lower_record(lower, node, "to half", KERNEL_ID_half_store, &params, tensors, 0);
}

const struct op_info op_half_store = {
    .name = "half_store",
    .shape = half_store_shape,
    .reference = half_store_reference,
    .lower = half_store_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};

/* words -> y */

static bool half_load_shape(struct node *node, struct err *err) {
    struct shape y = node->attr.shape;
    return op_check(node, 1, 1, 1, 0, err) && op_set_output(node, 0, y.n, y.c, y.h, y.w, err) &&
           op_check_shape(node, 0, "what is packed", packed_shape(y), err);
}

static void half_load_reference(const struct node *node, double *const *in, double *const *out,
                                const struct interpret_context *context) {
    (void)context;
    struct shape words = node->inputs[0]->shape, y = node->outputs[0]->shape;
    const size_t count = image_elements(y), n_words = image_elements(words);
    for (size_t e = 0; e < shape_elements(y); e++) {
        const size_t image = e / count, i = e % count;
        const double word = in[0][image * n_words + packed_word(i)], high = floor(word / 65536);
        out[0][e] = half_value(packed_place(i) ? high : word - 65536 * high);
    }
}

static void half_load_lower(struct lower *lower, const struct node *node) {
    const struct value *y = node->outputs[0];
    struct half_load_params params = {
        .n = y->shape.n, .count = image_elements(y->shape), .y_stride_n = lower_stride_n(y)};
    uint32_t tensors[] = {lower_tensor(lower, node->inputs[0]), lower_tensor(lower, y)};
    lower_record(lower, node, "from half", KERNEL_ID_half_load, &params, tensors, 0);
}

const struct op_info op_half_load = {
    .name = "half_load",
    .shape = half_load_shape,
    .reference = half_load_reference,
    .lower = half_load_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};
