/*
 * kernel.c: the table of kernels, built from kernel_contract.h, and the memory that each kernel
 * touches for given parameters. The rules follow the formulas of the contract; arithmetic is in 64
 * bits and every product is bounded before it can wrap.
 */
#include "common/kernel.h"

#include <math.h>
#include <string.h>

#include "common/base.h"

#define BINDING_COUNT(name, access) +1
#define BINDING_ENTRY(name, access) {#name, KERNEL_##access},
#define PARAM_COUNT(name) +1
#define PARAM_ENTRY_U(name) {#name, false},
#define PARAM_ENTRY_F(name) {#name, true},
#define KERNEL_ENTRY(kernel, FAMILY)                                                               \
    [KERNEL_ID_##kernel] = {                                                                       \
        .name = #kernel,                                                                           \
        .n_bindings = 0 FAMILY##_BINDINGS(BINDING_COUNT),                                          \
        .bindings = {FAMILY##_BINDINGS(BINDING_ENTRY)},                                            \
        .n_params = 0 FAMILY##_PARAMS(PARAM_COUNT, PARAM_COUNT),                                   \
        .params = {FAMILY##_PARAMS(PARAM_ENTRY_U, PARAM_ENTRY_F)},                                 \
    },

const struct kernel_info kernel_table[KERNEL_COUNT] = {KERNELS(KERNEL_ENTRY)};

int kernel_find(const char *name) {
    for (int i = 0; i < KERNEL_COUNT; i++) {
        if (strcmp(kernel_table[i].name, name) == 0)
            return i;
    }
    return -1;
}

#define MAX_ELEMENTS ((uint64_t)1 << 31)
#define TOO_LARGE (MAX_ELEMENTS + 1) /* of products that do not fit; stays so when multiplied */

static uint64_t times(uint64_t a, uint64_t b) {
    if (a == 0 || b == 0)
        return 0;
    if (a > MAX_ELEMENTS || b > MAX_ELEMENTS || a * b > MAX_ELEMENTS)
        return TOO_LARGE;
    return a * b;
}

/* Regions in the order of the bindings, and the first thing wrong with the parameters. */
struct check {
    struct kernel_region *next;
    const char *why;
};

static void require(struct check *check, bool condition, const char *why) {
    if (!condition && check->why == NULL)
        check->why = why;
}

static void add_region(struct check *check, struct kernel_region region) {
    require(check, region.extent > 0, "a size is zero");
    require(check, region.extent <= MAX_ELEMENTS, "more than 2^31 elements");
    *check->next++ = region;
}

static void add_images(struct check *check, enum kernel_form form, uint32_t n, uint32_t c,
                       uint32_t h, uint32_t w, uint32_t stride_n) {
    const uint64_t image = times(times(c, h), w);
    require(check, n > 0, "a size is zero");
    require(check, n <= 1 || stride_n >= image, "images overlap: a stride is less than c * h * w");
    const uint64_t extent = n == 0 ? 0 : times(n - 1, stride_n) + image;
    add_region(check, (struct kernel_region){form, n, c, h, w, stride_n, .extent = extent});
}

static void planes(struct check *check, uint32_t n, uint32_t c, uint32_t h, uint32_t w,
                   uint32_t stride_n) {
    add_images(check, KERNEL_PLANES, n, c, h, w, stride_n);
}

static void pixels(struct check *check, uint32_t n, uint32_t c, uint32_t hw, uint32_t stride_n) {
    add_images(check, KERNEL_PIXELS, n, c, 1, hw, stride_n);
}

static void points(struct check *check, uint32_t n, uint32_t count, uint32_t stride_n) {
    add_images(check, KERNEL_POINTS, n, 1, 1, count, stride_n);
}

static uint64_t weight_words(uint32_t in, uint64_t taps, uint32_t out) {
    return times(times(in, taps), align_up(out, 4));
}

/* kw = 0: kh is the number of all taps. */
static void weights(struct check *check, uint32_t in, uint32_t kh, uint32_t kw, uint32_t out) {
    const uint64_t taps = kw == 0 ? kh : times(kh, kw);
    add_region(check, (struct kernel_region){KERNEL_WEIGHTS, out, in, kh, kw,
                                             .extent = weight_words(in, taps, out)});
}

static void flat(struct check *check, uint64_t words) {
    add_region(check,
               (struct kernel_region){KERNEL_FLAT, 1, 1, 1, (uint32_t)words, .extent = words});
}

static void control(struct check *check) {
    add_region(check, (struct kernel_region){KERNEL_FLAT, 1, 1, 1, CONTROL_WORDS,
                                             .is_control = true, .extent = CONTROL_WORDS});
}

static void labels(struct check *check, uint64_t words) {
    flat(check, words);
    check->next[-1].is_u32 = true;
}

static void aux(struct check *check, uint32_t epilogue, uint32_t n, uint32_t c, uint32_t h,
                uint32_t w, uint32_t stride_n) {
    require(check, (epilogue & ~(EPILOGUE_BIAS | EPILOGUE_ACT | EPILOGUE_MASK)) == 0,
            "unknown epilogue bits");
    require(check, (epilogue & EPILOGUE_BIAS) == 0 || (epilogue & EPILOGUE_MASK) == 0,
            "the epilogue has both a bias and a mask");
    if ((epilogue & EPILOGUE_BIAS) != 0)
        flat(check, c);
    else if ((epilogue & EPILOGUE_MASK) != 0)
        planes(check, n, c, h, w, stride_n);
    else
        *check->next++ = (struct kernel_region){.form = KERNEL_UNUSED};
}

/*
 * One axis of a convolution: out = in + pad + end - dilation * (kernel - 1), where the padding at
 * the end may differ by one from that at the start ("same" with an even reach).
 */
static void require_conv_axis(struct check *check, uint32_t in, uint32_t out, uint32_t pad,
                              uint32_t dilation, uint32_t kernel) {
    require(check, kernel > 0 && dilation > 0, "a size is zero");
    if (check->why != NULL)
        return;
    const uint64_t reach = (uint64_t)dilation * (kernel - 1);
    require(check, pad <= reach, "more padding than the kernel reaches");
    const uint64_t have = (uint64_t)out + reach, fits = (uint64_t)in + 2 * (uint64_t)pad;
    require(check, have <= fits + 1, "the output is larger than its input allows");
    require(check, have + 1 >= fits, "the output is smaller than its input gives");
}

/* Rows r = n * h shared out to splits by 32-bit products s * R. */
static void require_splits(struct check *check, uint32_t n, uint32_t h, uint32_t splits) {
    require(check, splits > 0, "splits is zero");
    require(check, times(n, h) <= MAX_ELEMENTS, "more than 2^31 elements");
    require(check, times(n, h) * splits <= UINT32_MAX, "splits * rows exceeds 32 bits");
}

static void plain_channels(struct check *check, uint32_t epilogue, uint32_t first, uint32_t count,
                           uint32_t c_out) {
    require(check, (epilogue & EPILOGUE_MASK) != 0 ? count < c_out : (first | count) == 0,
            "channels are left out of no mask");
    require(check, count == 0 ? first == 0 : (uint64_t)first + count <= c_out,
            "channels that the mask leaves out do not exist");
}

static void conv(struct check *check, const struct conv_params *p) {
    require_conv_axis(check, p->h_in, p->h_out, p->pad_h, p->dilation, p->kh);
    require_conv_axis(check, p->w_in, p->w_out, p->pad_w, p->dilation, p->kw);
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->x_stride_n);
    weights(check, p->c_in, p->kh, p->kw, p->c_out);
    aux(check, p->epilogue, p->n, p->c_out, p->h_out, p->w_out, p->aux_stride_n);
    plain_channels(check, p->epilogue, p->plain_first, p->plain_count, p->c_out);
    planes(check, p->n, p->c_out, p->h_out, p->w_out, p->y_stride_n);
}

uint64_t kernel_winograd_blocks(uint32_t n, uint32_t n_rows, uint32_t w_out) {
    const uint64_t tiles = times(times(n, n_rows), div_up(w_out, WINOGRAD_OUT));
    return (tiles + WINOGRAD_LANES - 1) / WINOGRAD_LANES;
}

static uint64_t chunk_points(uint32_t c_in) {
    return times(div_up(c_in, WINOGRAD_CHUNK), WINOGRAD_CHUNK * WINOGRAD_POINTS);
}

uint64_t kernel_winograd_v_words(uint32_t n, uint32_t c_in, uint32_t n_rows, uint32_t w_out) {
    return times(kernel_winograd_blocks(n, n_rows, w_out),
                 times(chunk_points(c_in), WINOGRAD_LANES));
}

uint64_t kernel_winograd_u_words(uint32_t c_in, uint32_t n_channels) {
    return times(chunk_points(c_in), align_up(n_channels, 4));
}

static void require_part(struct check *check, uint32_t first, uint32_t count, uint32_t of) {
    require(check, count > 0, "a size is zero");
    require(check, (uint64_t)first + count <= of, "rows or channels past the end");
}

static void winograd_weights(struct check *check, const struct winograd_weights_params *p) {
    require(check, p->transposed <= 1, "transposed is neither 0 nor 1");
    require_part(check, p->first_channel, p->n_channels, p->c_out);
    weights(check, p->transposed ? p->c_out : p->c_in, 9, 0, p->transposed ? p->c_in : p->c_out);
    flat(check, kernel_winograd_u_words(p->c_in, p->n_channels));
}

static void winograd_input(struct check *check, const struct winograd_input_params *p) {
    require_conv_axis(check, p->h_in, p->h_out, p->pad_h, 1, 3);
    require_conv_axis(check, p->w_in, p->w_out, p->pad_w, 1, 3);
    require_part(check, p->first_row, p->n_rows, div_up(p->h_out, WINOGRAD_OUT));
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->x_stride_n);
    flat(check, kernel_winograd_v_words(p->n, p->c_in, p->n_rows, p->w_out));
}

static void winograd_product(struct check *check, const struct winograd_product_params *p) {
    const uint32_t rows = div_up(p->h_out, WINOGRAD_OUT);
    require_part(check, p->first_row, p->n_rows, rows);
    require_part(check, p->first_channel, p->n_channels, p->c_out);
    flat(check, kernel_winograd_v_words(p->n, p->c_in, p->n_rows, p->w_out));
    flat(check, kernel_winograd_u_words(p->c_in, p->n_channels));
    aux(check, p->epilogue, p->n, p->c_out, p->h_out, p->w_out, p->aux_stride_n);
    plain_channels(check, p->epilogue, p->plain_first, p->plain_count, p->c_out);
    planes(check, p->n, p->c_out, p->h_out, p->w_out, p->y_stride_n);
    if (check->why == NULL && (p->n_rows < rows || p->n_channels < p->c_out)) {
        struct kernel_region *y = &check->next[-1];
        y->first_c = p->first_channel;
        y->n_c = p->n_channels;
        y->first_h = p->first_row * WINOGRAD_OUT;
        y->n_h = MIN(p->n_rows * WINOGRAD_OUT, p->h_out - y->first_h);
    }
}

static void conv_wgrad(struct check *check, const struct conv_wgrad_params *p) {
    require_conv_axis(check, p->h_in, p->h_out, p->pad_h, p->dilation, p->kh);
    require_conv_axis(check, p->w_in, p->w_out, p->pad_w, p->dilation, p->kw);
    require_splits(check, p->n, p->h_out, p->splits);
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->x_stride_n);
    planes(check, p->n, p->c_out, p->h_out, p->w_out, p->dy_stride_n);
    flat(check, times(p->splits, weight_words(p->c_in, times(p->kh, p->kw), p->c_out)));
}

static void upconv(struct check *check, const struct upconv_params *p) {
    const uint64_t h = times(p->h_in, p->k), w = times(p->w_in, p->k);
    require(check, h <= MAX_ELEMENTS && w <= MAX_ELEMENTS, "more than 2^31 elements");
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->x_stride_n);
    weights(check, p->c_in, p->k, p->k, p->c_out);
    aux(check, p->epilogue, p->n, p->c_out, (uint32_t)h, (uint32_t)w, p->aux_stride_n);
    planes(check, p->n, p->c_out, (uint32_t)h, (uint32_t)w, p->y_stride_n);
}

static void upconv_dgrad(struct check *check, const struct upconv_dgrad_params *p) {
    const uint64_t h = times(p->h_in, p->k), w = times(p->w_in, p->k);
    require(check, h <= MAX_ELEMENTS && w <= MAX_ELEMENTS, "more than 2^31 elements");
    planes(check, p->n, p->c_out, (uint32_t)h, (uint32_t)w, p->dy_stride_n);
    weights(check, p->c_out, p->k, p->k, p->c_in);
    aux(check, p->epilogue, p->n, p->c_in, p->h_in, p->w_in, p->aux_stride_n);
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->dx_stride_n);
}

static void upconv_wgrad(struct check *check, const struct upconv_wgrad_params *p) {
    const uint64_t h = times(p->h_in, p->k), w = times(p->w_in, p->k);
    require(check, h <= MAX_ELEMENTS && w <= MAX_ELEMENTS, "more than 2^31 elements");
    require_splits(check, p->n, p->h_in, p->splits);
    planes(check, p->n, p->c_in, p->h_in, p->w_in, p->x_stride_n);
    planes(check, p->n, p->c_out, (uint32_t)h, (uint32_t)w, p->dy_stride_n);
    flat(check, times(p->splits, weight_words(p->c_in, times(p->k, p->k), p->c_out)));
}

static void require_pool_axis(struct check *check, uint32_t in, uint32_t out, uint32_t kernel,
                              uint32_t stride, uint32_t dilation) {
    require(check, kernel > 0 && stride > 0 && dilation > 0 && out > 0, "a size is zero");
    if (check->why != NULL)
        return;
    require(check, times(out, stride) <= MAX_ELEMENTS && times(kernel, dilation) <= MAX_ELEMENTS,
            "more than 2^31 elements");
    const uint64_t window = (uint64_t)dilation * (kernel - 1) + 1;
    require(check, (uint64_t)(out - 1) * stride + window <= in,
            "the output is larger than its input allows");
    require(check, (uint64_t)out * stride + window > in,
            "the output is smaller than its input gives");
}

static void maxpool(struct check *check, const struct maxpool_params *p) {
    require_pool_axis(check, p->h_in, p->h_out, p->kernel, p->stride, p->dilation);
    require_pool_axis(check, p->w_in, p->w_out, p->kernel, p->stride, p->dilation);
    planes(check, p->n, p->c, p->h_in, p->w_in, p->x_stride_n);
    planes(check, p->n, p->c, p->h_out, p->w_out, p->y_stride_n);
}

static void maxpool_bwd(struct check *check, const struct maxpool_bwd_params *p) {
    require_pool_axis(check, p->h_in, p->h_out, p->kernel, p->stride, p->dilation);
    require_pool_axis(check, p->w_in, p->w_out, p->kernel, p->stride, p->dilation);
    planes(check, p->n, p->c, p->h_in, p->w_in, p->x_stride_n);
    planes(check, p->n, p->c, p->h_out, p->w_out, p->dy_stride_n);
    planes(check, p->n, p->c, p->h_in, p->w_in, p->dx_stride_n);
}

static uint64_t index_words(uint32_t n, uint32_t c, uint32_t h_out, uint32_t w_out) {
    const uint64_t blocks = (times(h_out, w_out) + POOL_INDEX_WINDOWS - 1) / POOL_INDEX_WINDOWS;
    return times(times(n, c), times(blocks, POOL_INDEX_LANES));
}

static void maxpool_index(struct check *check, const struct maxpool_index_params *p) {
    require_pool_axis(check, p->h_in, p->h_out, 2, 2, 1);
    require_pool_axis(check, p->w_in, p->w_out, 2, 2, 1);
    planes(check, p->n, p->c, p->h_in, p->w_in, p->x_stride_n);
    planes(check, p->n, p->c, p->h_out, p->w_out, p->y_stride_n);
    labels(check, index_words(p->n, p->c, p->h_out, p->w_out));
}

static void maxpool_unpool(struct check *check, const struct maxpool_unpool_params *p) {
    require_pool_axis(check, p->h_in, p->h_out, 2, 2, 1);
    require_pool_axis(check, p->w_in, p->w_out, 2, 2, 1);
    labels(check, index_words(p->n, p->c, p->h_out, p->w_out));
    planes(check, p->n, p->c, p->h_out, p->w_out, p->dy_stride_n);
    planes(check, p->n, p->c, p->h_in, p->w_in, p->dx_stride_n);
}

static void copy_region(struct check *check, const struct copy_region_params *p) {
    require(check, p->h > 0 && p->w > 0, "a size is zero");
    require(check,
            (uint64_t)p->src_top + p->h <= p->src_h && (uint64_t)p->src_left + p->w <= p->src_w,
            "the rectangle leaves the source");
    require(check,
            (uint64_t)p->dst_top + p->h <= p->dst_h && (uint64_t)p->dst_left + p->w <= p->dst_w,
            "the rectangle leaves the destination");
    planes(check, p->n, p->c, p->src_h, p->src_w, p->src_stride_n);
    planes(check, p->n, p->c, p->dst_h, p->dst_w, p->dst_stride_n);
    check->next[-1].is_partial = p->h != p->dst_h || p->w != p->dst_w;
}

static void embed_region(struct check *check, const struct embed_region_params *p) {
    require(check,
            (uint64_t)p->top + p->src_h <= p->dst_h && (uint64_t)p->left + p->src_w <= p->dst_w,
            "the source leaves the destination");
    planes(check, p->n, p->c, p->src_h, p->src_w, p->src_stride_n);
    planes(check, p->n, p->c, p->dst_h, p->dst_w, p->dst_stride_n);
}

static void dropout(struct check *check, const struct dropout_params *p) {
    const double kept = 1.0 - p->threshold * 0x1p-32;
    require(check, fabs(p->scale * kept - 1.0) < 1e-3, "scale is not 1 / (1 - rate)");
    require(check, times(p->n, p->count) <= MAX_ELEMENTS, "more than 2^31 elements");
    points(check, p->n, p->count, p->x_stride_n);
    control(check);
    points(check, p->n, p->count, p->y_stride_n);
}

uint64_t kernel_half_words(uint32_t n, uint32_t count) {
    const uint64_t blocks = ((uint64_t)count + HALF_BLOCK - 1) / HALF_BLOCK;
    return times(n, times(blocks, HALF_LANES));
}

static void softmax_loss(struct check *check, const struct softmax_loss_params *p) {
    const uint64_t count = times(p->n, p->hw);
    pixels(check, p->n, p->k, p->hw, p->logits_stride_n);
    labels(check, count);
    flat(check, count);
    pixels(check, p->n, p->k, p->hw, p->probs_stride_n);
    flat(check, 4 * ((count + LOSS_PIXELS_PER_GROUP - 1) / LOSS_PIXELS_PER_GROUP));
}

static void softmax_loss_grad(struct check *check, const struct softmax_loss_grad_params *p) {
    const uint64_t count = times(p->n, p->hw);
    pixels(check, p->n, p->k, p->hw, p->probs_stride_n);
    labels(check, count);
    flat(check, count);
    flat(check, LOSS_WORDS);
    pixels(check, p->n, p->k, p->hw, p->dlogits_stride_n);
}

/* A power of two whose inverse is a normal number. */
static void require_scale(struct check *check, float scale) {
    int exponent;
    const float mantissa = frexpf(scale, &exponent);
    require(check, mantissa == 0.5f && exponent > -126 && exponent <= 127,
            "the initial scale is no power of two from 2^-126 to 2^126");
}

static void loss_scale(struct check *check, const struct loss_scale_params *p) {
    require_scale(check, p->initial);
    require(check, p->count % GRADIENT_FLAGS == 0, "flags of a part of a gradient");
    flat(check, p->count);
    flat(check, LOSS_SCALE_WORDS);
    flat(check, LOSS_WORDS);
    flat(check, VERDICT_WORDS);
}

/* The kernels of loss scaling; false: it is none of them. */
static bool scaling_regions(enum kernel_id id, const union kernel_params *p, struct check *check) {
    switch (id) {
    case KERNEL_ID_scale_gradient:
        require_scale(check, p->scale_gradient.initial);
        points(check, p->scale_gradient.n, p->scale_gradient.count, p->scale_gradient.x_stride_n);
        flat(check, LOSS_SCALE_WORDS);
        points(check, p->scale_gradient.n, p->scale_gradient.count, p->scale_gradient.y_stride_n);
        return true;
    case KERNEL_ID_gradient_check:
        flat(check, p->gradient_check.count);
        flat(check, GRADIENT_FLAGS);
        return true;
    case KERNEL_ID_loss_scale:
        loss_scale(check, &p->loss_scale);
        return true;
    case KERNEL_ID_sgd_scaled:
    case KERNEL_ID_adam_scaled: /* weights, gradient, one or two states */
        for (int i = id == KERNEL_ID_sgd_scaled ? 3 : 4; i > 0; i--)
            flat(check, p->sgd.count);
        control(check);
        flat(check, VERDICT_WORDS);
        return true;
    default:
        return false;
    }
}

/* Kernels over single elements, weights and parameters. */
static void simple_regions(enum kernel_id id, const union kernel_params *p, struct check *check) {
    switch (id) {
    case KERNEL_ID_wgrad_reduce:
        flat(check, times(p->wgrad_reduce.count, p->wgrad_reduce.splits));
        flat(check, p->wgrad_reduce.count);
        break;
    case KERNEL_ID_weights_transpose:
        weights(check, p->weights_transpose.in_count, p->weights_transpose.taps, 0,
                p->weights_transpose.out_count);
        weights(check, p->weights_transpose.out_count, p->weights_transpose.taps, 0,
                p->weights_transpose.in_count);
        require(check, p->weights_transpose.flip <= 1, "flip is neither 0 nor 1");
        break;
    case KERNEL_ID_bias_grad:
        planes(check, p->bias_grad.n, p->bias_grad.c, p->bias_grad.h, p->bias_grad.w,
               p->bias_grad.dy_stride_n);
        flat(check, p->bias_grad.c);
        break;
    case KERNEL_ID_act_fwd:
        points(check, p->act_fwd.n, p->act_fwd.count, p->act_fwd.x_stride_n);
        points(check, p->act_fwd.n, p->act_fwd.count, p->act_fwd.y_stride_n);
        break;
    case KERNEL_ID_act_bwd:
        points(check, p->act_bwd.n, p->act_bwd.count, p->act_bwd.y_stride_n);
        points(check, p->act_bwd.n, p->act_bwd.count, p->act_bwd.dy_stride_n);
        points(check, p->act_bwd.n, p->act_bwd.count, p->act_bwd.dx_stride_n);
        break;
    case KERNEL_ID_add:
        points(check, p->add.n, p->add.count, p->add.a_stride_n);
        points(check, p->add.n, p->add.count, p->add.b_stride_n);
        points(check, p->add.n, p->add.count, p->add.y_stride_n);
        break;
    case KERNEL_ID_half_store:
        points(check, p->half_store.n, p->half_store.count, p->half_store.x_stride_n);
        labels(check, kernel_half_words(p->half_store.n, p->half_store.count));
        break;
    case KERNEL_ID_half_load:
        labels(check, kernel_half_words(p->half_load.n, p->half_load.count));
        points(check, p->half_load.n, p->half_load.count, p->half_load.y_stride_n);
        break;
    case KERNEL_ID_softmax:
        pixels(check, p->softmax.n, p->softmax.k, p->softmax.hw, p->softmax.x_stride_n);
        pixels(check, p->softmax.n, p->softmax.k, p->softmax.hw, p->softmax.y_stride_n);
        break;
    case KERNEL_ID_loss_reduce:
        flat(check, times(p->loss_reduce.count, 4));
        flat(check, LOSS_WORDS);
        break;
    case KERNEL_ID_sgd:
        for (int i = 0; i < 3; i++)
            flat(check, p->sgd.count);
        control(check);
        break;
    case KERNEL_ID_accumulate:
        require(check, p->accumulate.mean <= 1, "mean is neither 0 nor 1");
        flat(check, p->accumulate.count);
        flat(check, p->accumulate.count);
        control(check);
        flat(check, p->accumulate.count);
        break;
    case KERNEL_ID_adam:
        for (int i = 0; i < 4; i++)
            flat(check, p->adam.count);
        control(check);
        break;
    default:
        require(check, scaling_regions(id, p, check), "no such kernel");
    }
}

static void all_regions(enum kernel_id id, const union kernel_params *p, struct check *check) {
    switch (id) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
        conv(check, &p->conv);
        break;
    case KERNEL_ID_conv_wgrad:
        conv_wgrad(check, &p->conv_wgrad);
        break;
    case KERNEL_ID_winograd_weights:
        winograd_weights(check, &p->winograd_weights);
        break;
    case KERNEL_ID_winograd_input:
        winograd_input(check, &p->winograd_input);
        break;
    case KERNEL_ID_winograd_product:
        winograd_product(check, &p->winograd_product);
        break;
    case KERNEL_ID_upconv_fwd:
        upconv(check, &p->upconv);
        break;
    case KERNEL_ID_upconv_dgrad:
        upconv_dgrad(check, &p->upconv_dgrad);
        break;
    case KERNEL_ID_upconv_wgrad:
        upconv_wgrad(check, &p->upconv_wgrad);
        break;
    case KERNEL_ID_maxpool_fwd:
        maxpool(check, &p->maxpool);
        break;
    case KERNEL_ID_maxpool_bwd:
        maxpool_bwd(check, &p->maxpool_bwd);
        break;
    case KERNEL_ID_maxpool_index:
        maxpool_index(check, &p->maxpool_index);
        break;
    case KERNEL_ID_maxpool_unpool:
        maxpool_unpool(check, &p->maxpool_unpool);
        break;
    case KERNEL_ID_copy_region:
    case KERNEL_ID_add_region:
        copy_region(check, &p->copy_region);
        break;
    case KERNEL_ID_embed_region:
        embed_region(check, &p->embed_region);
        break;
    case KERNEL_ID_dropout:
        dropout(check, &p->dropout);
        break;
    case KERNEL_ID_softmax_loss:
        softmax_loss(check, &p->softmax_loss);
        break;
    case KERNEL_ID_softmax_loss_grad:
        softmax_loss_grad(check, &p->softmax_loss_grad);
        break;
    default:
        simple_regions(id, p, check);
    }
}

bool kernel_regions(enum kernel_id id, const uint32_t *params,
                    struct kernel_region regions[KERNEL_MAX_BINDINGS], const char **why) {
    memset(regions, 0, sizeof(regions[0]) * KERNEL_MAX_BINDINGS);
    struct check check = {regions, NULL};
    if ((unsigned)id >= KERNEL_COUNT) {
        *why = "no such kernel";
        return false;
    }
    union kernel_params any = {{0}};
    const struct kernel_info *info = &kernel_table[id];
    memcpy(any.words, params, sizeof(uint32_t) * info->n_params);
    for (uint32_t i = 0; i < info->n_params; i++) {
        float value;
        memcpy(&value, &params[i], sizeof(value));
        require(&check, !info->params[i].is_float || isfinite(value), "a number is not finite");
    }
    all_regions(id, &any, &check);
    *why = check.why;
    return check.why == NULL;
}

bool kernel_extents(enum kernel_id id, const uint32_t *params,
                    uint64_t extents[KERNEL_MAX_BINDINGS], const char **why) {
    struct kernel_region regions[KERNEL_MAX_BINDINGS];
    const bool good = kernel_regions(id, params, regions, why);
    for (uint32_t i = 0; i < KERNEL_MAX_BINDINGS; i++)
        extents[i] = regions[i].extent;
    return good;
}
