/*
 * op_common.h: what the files of compiler/op/ share: the rows of the table of operations, checks of
 * the shape rules, a gradient rule, lowering of sums, addressing of the references. Bodies are in
 * compiler/ops.c.
 */
#ifndef UNET_OP_COMMON_H
#define UNET_OP_COMMON_H

#include "compiler/ir.h"
#include "compiler/lower.h"

#define OP(NAME, name) extern const struct op_info op_##name;
#include "compiler/ops.def"
#undef OP

/* Input i, or NULL when it is an optional one that the node does not have. */
struct value *op_input(const struct node *node, int i);

/* "enc1/conv1 (conv): MESSAGE" as ERR_INPUT; returns false. */
bool op_error(struct err *err, const struct node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The counts of inputs and outputs, and that every input is a filled 32-bit float tensor (input
   number labels, if 0 or more, of class numbers instead). Call first in a shape rule. */
bool op_check(const struct node *node, int min_inputs, int max_inputs, int n_outputs, int labels,
              struct err *err);

/* The input has exactly this shape; what names it in the message ("the mask"). */
bool op_check_shape(const struct node *node, int input, const char *what, struct shape expected,
                    struct err *err);

/* That the slope of an activation is not negative. */
bool op_check_slope(const struct node *node, struct err *err);

/* Input 2 of op_conv and op_upconv, if there is one: the bias, a number per output channel. */
bool op_check_bias(const struct node *node, int32_t channels, struct err *err);

/* Input 2 of their data gradients: the mask, of dx's shape; there exactly when attr.act is set. */
bool op_check_mask(const struct node *node, struct shape dx, struct err *err);

/* Sets shape and type (32-bit float) of output i; each size at least 1, less than 2^31 elements. */
bool op_set_output(struct node *node, int i, int64_t n, int64_t c, int64_t h, int64_t w,
                   struct err *err);

/* The gradient rule of op_conv and op_upconv, whose gradients towards weights and data are the
   operations wgrad and dgrad (ops.def). */
void op_grad_sum(struct autodiff *ad, struct node *node, struct value *dy, enum op_kind wgrad,
                 enum op_kind dgrad);

/* True when part is the channels from `channel` on of whole, in the same memory. */
bool op_is_window(const struct value *part, const struct value *whole, int channel);

/* Of operations that move or look at data: nothing of a model's arithmetic. */
uint64_t op_no_flops(const struct node *node);

/* Words that a parameter, its gradient or its state takes in the kernels' layout. */
uint64_t op_param_words(const struct param *param);

/* How much devices prefer the method MATRIX where there is one. */
extern const int32_t op_prefer_matrix[PLAN_DEVICE_COUNT];

/* A record that may also run on matrix units. */
void op_lower_sum(struct lower *lower, const struct node *node, const char *role,
                  enum kernel_id kernel, const void *params, const uint32_t *tensors,
                  uint64_t flops);

/* A weight gradient kernel over (x, dy) whose last parameter is the number of partial sums, of
   `words` each, and the kernel that adds them up; in few parts, and where a device with many
   processors gains by it, in more. values: x, dy, dw. */
void op_lower_wgrad(struct lower *lower, const struct node *node, enum kernel_id kernel,
                    uint32_t *params, uint64_t words, const struct value *const *values,
                    uint64_t flops);

/* Offset of an image's channel (its first element) in a dense tensor. */
static inline size_t op_plane(struct shape s, int n, int c) {
    return ((size_t)n * (size_t)s.c + (size_t)c) * (size_t)s.h * (size_t)s.w;
}

static inline double op_activate(double v, double slope) {
    return v > 0 ? v : slope * v;
}

#endif
