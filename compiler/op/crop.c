/*
 * crop.c: a rectangle out of every plane (for the skip connections of valid convolutions). The
 * gradient places the rectangle in zeros; with a second input it adds it to that gradient instead,
 * which saves the zeros and the addition where a value is cropped and also used whole.
 */
#include "compiler/op/op_common.h"

static bool check_inside(const struct node *node, struct shape part, struct shape whole,
                         struct err *err) {
    const struct attr *a = &node->attr;
    if (a->top < 0 || a->left < 0 || a->top > whole.h - part.h || a->left > whole.w - part.w) {
        return op_error(err, node, "%dx%d pixels at row %d, column %d do not lie inside %dx%d",
                        part.h, part.w, a->top, a->left, whole.h, whole.w);
    }
    return true;
}

static bool crop_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 1, 1, -1, err)) {
        return false;
    }
    struct shape x = node->inputs[0]->shape, y = node->attr.shape;
    return op_set_output(node, 0, x.n, x.c, y.h, y.w, err) && check_inside(node, y, x, err);
}

static void crop_grad(struct autodiff *ad, struct node *node, struct value *const *dy) {
    struct value *x = node->inputs[0];
    if (autodiff_needs(ad, x)) {
        struct attr attr = {.top = node->attr.top, .left = node->attr.left, .shape = x->shape};
        autodiff_add(ad, x, autodiff_node(ad, OP_CROP_GRAD, node, &dy[0], 1, &attr));
    }
}

static void crop_reference(const struct node *node, double *const *in, double *const *out,
                           const struct interpret_context *context) {
    (void)context;
    struct shape x = node->inputs[0]->shape, y = node->outputs[0]->shape;
    for (int plane = 0; plane < y.n * y.c; plane++) {
        const double *from = in[0] + op_plane(x, 0, plane);
        double *to = out[0] + op_plane(y, 0, plane);
        for (int p = 0; p < y.h * y.w; p++) {
            int h = node->attr.top + p / y.w, w = node->attr.left + p % y.w;
            to[p] = from[(size_t)h * (size_t)x.w + (size_t)w];
        }
    }
}

/* As many pixels as part has, from the first row and column of src and of dst on. */
static struct copy_region_params region(const struct value *src, const struct value *dst,
                                        struct shape part) {
    return (struct copy_region_params){
        .n = part.n,
        .c = part.c,
        .h = part.h,
        .w = part.w,
        .src_h = src->shape.h,
        .src_w = src->shape.w,
        .src_stride_n = lower_stride_n(src),
        .dst_h = dst->shape.h,
        .dst_w = dst->shape.w,
        .dst_stride_n = lower_stride_n(dst),
    };
}

static void crop_lower(struct lower *lower, const struct node *node) {
    const struct value *x = node->inputs[0], *y = node->outputs[0];
    if (lower_same_memory(x, y)) {
        return;
    }
    struct copy_region_params params = region(x, y, y->shape);
    params.src_top = node->attr.top;
    params.src_left = node->attr.left;
    uint32_t tensors[] = {lower_tensor(lower, x), lower_tensor(lower, y)};
    lower_record(lower, node, "forward", KERNEL_ID_copy_region, &params, tensors, 0);
}

const struct op_info op_crop = {
    .name = "crop",
    .shape = crop_shape,
    .grad = crop_grad,
    .reference = crop_reference,
    .lower = crop_lower,
    .flops = op_no_flops,
    .inplace_input = -1,
};

/* dy, [acc] -> dx */

static bool crop_grad_shape(struct node *node, struct err *err) {
    if (!op_check(node, 1, 2, 1, -1, err)) {
        return false;
    }
    struct shape dy = node->inputs[0]->shape, dx = node->attr.shape;
    if (dx.n != dy.n || dx.c != dy.c) {
        return op_error(err, node, "the gradient has %d images of %d channels, must have %d of %d",
                        dy.n, dy.c, dx.n, dx.c);
    }
    if (op_input(node, 1) && !op_check_shape(node, 1, "the gradient to add to", dx, err)) {
        return false;
    }
    return op_set_output(node, 0, dx.n, dx.c, dx.h, dx.w, err) && check_inside(node, dy, dx, err);
}

static void crop_grad_reference(const struct node *node, double *const *in, double *const *out,
                                const struct interpret_context *context) {
    (void)context;
    struct shape dy = node->inputs[0]->shape, dx = node->outputs[0]->shape;
    const double *acc = op_input(node, 1) ? in[1] : NULL;
    size_t count = shape_elements(dx);
    for (size_t e = 0; e < count; e++) {
        out[0][e] = acc ? acc[e] : 0;
    }
    for (int plane = 0; plane < dy.n * dy.c; plane++) {
        const double *from = in[0] + op_plane(dy, 0, plane);
        double *to = out[0] + op_plane(dx, 0, plane);
        for (int p = 0; p < dy.h * dy.w; p++) {
            int h = node->attr.top + p / dy.w, w = node->attr.left + p % dy.w;
            to[(size_t)h * (size_t)dx.w + (size_t)w] += from[p];
        }
    }
}

static uint64_t crop_grad_flops(const struct node *node) {
    return op_input(node, 1) ? shape_elements(node->inputs[0]->shape) : 0;
}

static void lower_embed(struct lower *lower, const struct node *node, const struct value *dy,
                        const struct value *dx) {
    struct embed_region_params params = {
        .n = dx->shape.n,
        .c = dx->shape.c,
        .src_h = dy->shape.h,
        .src_w = dy->shape.w,
        .src_stride_n = lower_stride_n(dy),
        .dst_h = dx->shape.h,
        .dst_w = dx->shape.w,
        .top = node->attr.top,
        .left = node->attr.left,
        .dst_stride_n = lower_stride_n(dx),
    };
    uint32_t tensors[] = {lower_tensor(lower, dy), lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient", KERNEL_ID_embed_region, &params, tensors, 0);
}

static void lower_copy_whole(struct lower *lower, const struct node *node, const struct value *acc,
                             const struct value *dx) {
    struct copy_region_params params = region(acc, dx, dx->shape);
    uint32_t tensors[] = {lower_tensor(lower, acc), lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient copy", KERNEL_ID_copy_region, &params, tensors, 0);
}

static void crop_grad_lower(struct lower *lower, const struct node *node) {
    const struct value *dy = node->inputs[0], *acc = op_input(node, 1), *dx = node->outputs[0];
    if (!acc) {
        lower_embed(lower, node, dy, dx);
        return;
    }
    if (!lower_same_memory(acc, dx)) {
        lower_copy_whole(lower, node, acc, dx);
    }
    struct copy_region_params params = region(dy, dx, dy->shape);
    params.dst_top = node->attr.top;
    params.dst_left = node->attr.left;
    uint32_t tensors[] = {lower_tensor(lower, dy), lower_tensor(lower, dx)};
    lower_record(lower, node, "data gradient", KERNEL_ID_add_region, &params, tensors,
                 crop_grad_flops(node));
}

const struct op_info op_crop_grad = {
    .name = "crop_grad",
    .shape = crop_grad_shape,
    .reference = crop_grad_reference,
    .lower = crop_grad_lower,
    .flops = crop_grad_flops,
    .inplace_input = 1,
};
