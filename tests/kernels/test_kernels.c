/*
 * test_kernels.c: every kernel on the device against the reference of its operation, over odd and
 * even sizes, 1 to 33 channels, the edges of tiles, batches, padding and dilation. Sums are judged
 * by their a-priori bound, gamma(k) * sum |a||b| with k the length of the sum (Higham, Accuracy and
 * Stability of Numerical Algorithms, section 3.1).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/bench.h"

static struct unet_device *device;

struct conv_case {
    int n, c_in, c_out, h, w, kh, kw, pad_h, pad_w, dilation;
    bool bias, act;
    float slope;
};

static const struct conv_case conv_cases[] = {
    {1, 1, 1, 3, 3, 3, 3, 0, 0, 1, true, true, 0},
    {1, 1, 16, 37, 35, 3, 3, 0, 0, 1, true, true, 0},
    {1, 3, 5, 8, 66, 3, 3, 0, 0, 1, true, false, 0},
    {1, 16, 16, 14, 67, 3, 3, 0, 0, 1, true, true, 0},
    {2, 4, 33, 9, 18, 3, 3, 0, 0, 1, true, true, 0.1f},
    {2, 33, 4, 10, 17, 3, 3, 1, 1, 1, true, true, 0},
    {1, 32, 32, 12, 33, 3, 3, 1, 1, 1, false, false, 0},
    {1, 17, 31, 21, 130, 3, 3, 0, 0, 1, true, true, 0},
    {1, 64, 8, 7, 7, 3, 3, 1, 1, 1, true, true, 0},
    {1, 2, 2, 11, 13, 1, 1, 0, 0, 1, true, false, 0},
    {1, 16, 2, 33, 65, 1, 1, 0, 0, 1, true, false, 0},
    {2, 5, 6, 12, 14, 5, 5, 2, 2, 1, true, true, 0},
    {1, 3, 4, 16, 15, 4, 4, 0, 0, 1, true, true, 0},
    {1, 6, 7, 20, 22, 3, 3, 0, 0, 2, true, true, 0},
    {1, 2, 3, 9, 30, 1, 5, 0, 2, 1, true, false, 0},
    {1, 2, 3, 30, 9, 5, 1, 2, 0, 1, true, false, 0},
    {1, 4, 8, 25, 25, 4, 4, 0, 0, 4, true, true, 0},
    {3, 8, 12, 6, 5, 3, 3, 0, 0, 1, true, true, 0.25f},
    {1, 40, 24, 6, 6, 3, 3, 2, 2, 1, false, true, 0},
    /* conv_lane.comp (CPU devices): tiles moved back at the edges, a last run of tiles that is not
       full, lanes without a channel, paddings up to its margin, one tile exactly. */
    {2, 18, 28, 21, 37, 3, 3, 0, 0, 1, true, true, 0},
    {2, 17, 20, 19, 34, 3, 3, 1, 1, 1, true, true, 0.1f},
    {1, 20, 13, 10, 18, 3, 3, 2, 2, 1, false, true, 0},
    {1, 13, 14, 12, 20, 3, 3, 2, 0, 1, true, false, 0},
    {1, 16, 16, 10, 18, 3, 3, 0, 0, 1, true, true, 0},
    {1, 16, 16, 8, 16, 3, 3, 1, 1, 1, true, true, 0},
    /* conv_winograd2.comp (GPUs): whole blocks of tiles and channels, both a little more, odd
       maps, steps that are not full. */
    {1, 16, 32, 10, 18, 3, 3, 0, 0, 1, true, true, 0},
    {2, 21, 34, 12, 19, 3, 3, 0, 0, 1, true, true, 0.1f},
    {2, 34, 19, 17, 23, 3, 3, 1, 1, 1, false, true, 0},
};

/* Maps and channels that GPUs share out in each of their larger tiles (tile.c), one or a few more
   than whole tiles of them: forward in the first half, data gradients in the second. */
static const struct conv_case tile_cases[] = {
    {1, 1, 129, 113, 113, 3, 3, 0, 0, 1, true, true, 0},    /* 128 pixels x 128 channels */
    {1, 1, 131, 80, 154, 3, 3, 1, 1, 1, false, true, 0.1f}, /* the same, padded */
    {2, 2, 65, 99, 70, 3, 3, 0, 0, 1, true, true, 0},       /* 128 x 64 */
    {1, 9, 66, 111, 111, 1, 1, 0, 0, 1, true, false, 0},    /* a last step that is not full */
    {1, 2, 65, 81, 81, 3, 3, 0, 0, 1, true, true, 0},       /* 64 x 64 */
    {1, 2, 65, 79, 80, 5, 3, 2, 1, 1, true, true, 0},       /* kernels of other sizes */
    {1, 2, 33, 113, 113, 3, 3, 0, 0, 1, true, true, 0},     /* 128 x 32 */
    {1, 2, 17, 115, 115, 3, 3, 0, 0, 2, true, true, 0},     /* 128 x 16 */
    {1, 2, 3, 12, 90, 1, 40, 0, 0, 1, true, true, 0},       /* a row of the kernel at a time */
    {1, 2, 3, 12, 90, 2, 70, 0, 0, 1, true, true, 0},       /* wider than shared memory */
    {1, 129, 1, 111, 111, 3, 3, 0, 0, 1, false, true, 0},
    {1, 65, 2, 111, 112, 3, 3, 1, 1, 1, false, true, 0},
    {1, 66, 3, 79, 79, 3, 3, 0, 0, 1, false, false, 0},
    {1, 33, 2, 111, 112, 3, 3, 0, 0, 1, false, true, 0},
    {1, 17, 3, 111, 111, 1, 1, 0, 0, 1, false, true, 0},
};

/* With as little scratch as is taken at all, Winograd's algorithm works on them part by part: rows
   of tiles, or channels, that no part divides evenly. */
static const struct conv_case part_cases[] = {
    {1, 5, 37, 41, 130, 3, 3, 1, 1, 1, true, true, 0},
    {2, 6, 70, 66, 67, 3, 3, 0, 0, 1, true, true, 0.1f},
    {2, 9, 33, 65, 133, 3, 3, 2, 2, 1, false, true, 0},
    {1, 37, 5, 41, 130, 3, 3, 1, 1, 1, true, true, 0},
    {2, 70, 6, 66, 67, 3, 3, 0, 0, 1, true, true, 0.1f},
    {2, 33, 9, 65, 133, 3, 3, 2, 2, 1, false, true, 0},
};

/* The same for weight gradients. */
static const struct conv_case wgrad_tile_cases[] = {
    {1, 321, 321, 5, 6, 3, 3, 0, 0, 1, true, false, 0}, /* 128 rows x 64 columns */
    {1, 321, 325, 5, 5, 3, 3, 1, 1, 1, true, false, 0}, /* the same, padded; rows shorter than a
                                                           step, and images */
    {1, 65, 66, 70, 5, 3, 3, 0, 0, 1, true, false, 0},  /* 64 x 64 */
    {2, 65, 68, 35, 3, 3, 3, 1, 1, 1, true, false, 0},  /* the same, padded */
    {1, 40, 41, 150, 4, 3, 3, 0, 0, 1, true, false, 0}, /* 64 x 32 */
    {3, 33, 40, 50, 3, 3, 3, 1, 1, 1, true, false, 0},  /* the same, padded */
    {7, 5, 33, 2, 3, 1, 1, 0, 0, 1, true, false, 0},    /* a step of several images */
};

static struct attr conv_attr(const struct conv_case *c) {
    return (struct attr){.kh = c->kh,
                         .kw = c->kw,
                         .pad_h = c->pad_h,
                         .pad_w = c->pad_w,
                         .dilation = c->dilation,
                         .act = c->act,
                         .slope = c->slope};
}

static struct shape conv_output(const struct conv_case *c) {
    return (struct shape){c->n, c->c_out, c->h + 2 * c->pad_h - c->dilation * (c->kh - 1),
                          c->w + 2 * c->pad_w - c->dilation * (c->kw - 1)};
}

/* Scratch for methods: all that they would have; the least that part_cases need. */
#define ROOM ((uint64_t)1 << 30)
#define LITTLE_ROOM ((uint64_t)540 << 10)

/* Held to less than some methods need (UNET_LIMITS). */
static bool is_small(void) {
    return unet_device_get_info(device)->limits.max_group_invocations < 256;
}

static void finish(struct bench *bench) {
    bench_run(bench, device);
    bench_free(bench);
}

static uint32_t check_conv_forward(const struct conv_case *cases, size_t count,
                                   uint64_t method_bytes) {
    struct bench bench;
    bench_init(&bench, 1);
    bench.method_bytes = method_bytes;
    for (size_t i = 0; i < count; i++) {
        const struct conv_case *c = &cases[i];
        struct value *inputs[] = {
            bench_input(&bench, (struct shape){c->n, c->c_in, c->h, c->w}),
            bench_param(&bench, (struct shape){c->c_out, c->c_in, c->kh, c->kw}, false, false),
            c->bias ? bench_param(&bench, (struct shape){1, c->c_out, 1, 1}, true, false) : NULL};
        struct node *node = bench_node(&bench, OP_CONV, inputs, c->bias ? 3 : 2, 1, conv_attr(c));
        bench_check(&bench, node->outputs[0], BENCH_SUM, c->c_in * c->kh * c->kw + 2);
    }
    finish(&bench);
    assert_true(bench.n_records[PLAN_METHOD_WINOGRAD2] > 0 || cases != conv_cases || is_small());
    return bench.n_records[PLAN_METHOD_WINOGRAD];
}

static void conv_forward(void **state) {
    (void)state;
    assert_true(check_conv_forward(conv_cases, ARRAY_LEN(conv_cases), ROOM) > 0 || is_small());
}

static void conv_forward_tiles(void **state) {
    (void)state;
    check_conv_forward(tile_cases, ARRAY_LEN(tile_cases), ROOM);
}

static uint32_t check_conv_data_gradient(const struct conv_case *cases, size_t count,
                                         uint64_t method_bytes) {
    struct bench bench;
    bench_init(&bench, 2);
    bench.method_bytes = method_bytes;
    for (size_t i = 0; i < count; i++) {
        const struct conv_case *c = &cases[i];
        struct attr attr = conv_attr(c);
        attr.shape = (struct shape){c->n, c->c_in, c->h, c->w};
        struct value *inputs[] = {
            bench_input(&bench, conv_output(c)),
            bench_param(&bench, (struct shape){c->c_out, c->c_in, c->kh, c->kw}, false, false),
            c->act ? bench_input(&bench, attr.shape) : NULL};
        struct node *node = bench_node(&bench, OP_CONV_DGRAD, inputs, c->act ? 3 : 2, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_SUM, c->c_out * c->kh * c->kw + 2);
    }
    finish(&bench);
    assert_true(bench.n_records[PLAN_METHOD_WINOGRAD2] > 0 || cases != conv_cases || is_small());
    return bench.n_records[PLAN_METHOD_WINOGRAD];
}

static void conv_data_gradient(void **state) {
    (void)state;
    assert_true(check_conv_data_gradient(conv_cases, ARRAY_LEN(conv_cases), ROOM) > 0 ||
                is_small());
}

static void conv_data_gradient_tiles(void **state) {
    (void)state;
    check_conv_data_gradient(tile_cases, ARRAY_LEN(tile_cases), ROOM);
}

/* Records of half of them, were each in one part: weights, input, product. */
#define WHOLE_RECORDS (3 * ARRAY_LEN(part_cases) / 2)

static void conv_in_parts(void **state) {
    (void)state;
    if (is_small()) { /* its product needs 18 KiB of shared memory */
        skip();
    }
    assert_true(check_conv_forward(part_cases, ARRAY_LEN(part_cases), LITTLE_ROOM) >
                WHOLE_RECORDS + 6);
    assert_true(check_conv_data_gradient(part_cases, ARRAY_LEN(part_cases), LITTLE_ROOM) >
                WHOLE_RECORDS + 6);
}

/* The gradient lies where its mask was; a port cannot, so that what is compared is a copy. */
static void check_over_mask(struct bench *bench, enum op_kind op, struct value *dy, struct value *w,
                            struct attr attr, double terms) {
    struct value *raw = bench_input(bench, attr.shape);
    struct value *mask =
        bench_node(bench, OP_ACT, &raw, 1, 1, (struct attr){.slope = 0.5f})->outputs[0];
    struct value *inputs[] = {dy, w, mask};
    attr.act = true;
    struct value *dx = bench_node(bench, op, inputs, 3, 1, attr)->outputs[0];
    dx->storage = mask;
    struct attr whole = {.shape = attr.shape};
    struct node *copy = bench_node(bench, OP_CROP, &dx, 1, 1, whole);
    bench_check(bench, copy->outputs[0], BENCH_SUM, terms);
}

/* With all channels masked, all but the first ones, all but the last ones. */
static void conv_data_gradient_over_mask(void **state) {
    (void)state;
    for (int part = 0; part < 3; part++) {
        struct bench bench;
        bench_init(&bench, 11);
        for (size_t i = 0; i < ARRAY_LEN(conv_cases); i++) {
            const struct conv_case *c = &conv_cases[i];
            struct attr attr = conv_attr(c);
            attr.shape = (struct shape){c->n, c->c_in, c->h, c->w};
            attr.plain_count = part == 0 ? 0 : c->c_in / 2;
            attr.plain_first = part == 2 ? c->c_in - attr.plain_count : 0;
            attr.plain_first = attr.plain_count ? attr.plain_first : 0;
            struct value *w =
                bench_param(&bench, (struct shape){c->c_out, c->c_in, c->kh, c->kw}, false, false);
            check_over_mask(&bench, OP_CONV_DGRAD, bench_input(&bench, conv_output(c)), w, attr,
                            c->c_out * c->kh * c->kw + 2);
        }
        finish(&bench);
    }
}

/* The gradient is read back as the momentum of a step that started from zero momentum: m = 0.9 * m
 * + g. */
static void check_gradient(struct bench *bench, struct value *gradient, struct value *param,
                           double terms) {
    struct value *inputs[] = {param, gradient, bench_state(bench, param, 0)};
    bench_node(bench, OP_SGD, inputs, 3, 0, (struct attr){.momentum = 0.5f});
    bench_check_param(bench, param, 0, BENCH_SUM, terms + 2);
}

static void check_conv_weight_gradient(const struct conv_case *cases, size_t count) {
    struct bench bench;
    bench_init(&bench, 3);
    for (size_t i = 0; i < count; i++) {
        const struct conv_case *c = &cases[i];
        struct shape out = conv_output(c);
        struct attr attr = conv_attr(c);
        attr.act = false;
        attr.shape = (struct shape){c->c_out, c->c_in, c->kh, c->kw};
        struct value *w = bench_param(&bench, attr.shape, false, false);
        struct value *inputs[] = {bench_input(&bench, (struct shape){c->n, c->c_in, c->h, c->w}),
                                  bench_input(&bench, out)};
        struct node *node = bench_node(&bench, OP_CONV_WGRAD, inputs, 2, 1, attr);
        check_gradient(&bench, node->outputs[0], w, (double)out.n * out.h * out.w);
        struct value *bias = bench_param(&bench, (struct shape){1, c->c_out, 1, 1}, true, false);
        struct node *bias_node =
            bench_node(&bench, OP_BIAS_GRAD, &inputs[1], 1, 1, (struct attr){0});
        check_gradient(&bench, bias_node->outputs[0], bias, (double)out.n * out.h * out.w);
    }
    finish(&bench);
}

static void conv_weight_gradient(void **state) {
    (void)state;
    check_conv_weight_gradient(conv_cases, ARRAY_LEN(conv_cases));
}

static void conv_weight_gradient_tiles(void **state) {
    (void)state;
    check_conv_weight_gradient(wgrad_tile_cases, ARRAY_LEN(wgrad_tile_cases));
}

struct upconv_case {
    int n, c_in, c_out, h, w, k;
    bool act;
};

static const struct upconv_case upconv_cases[] = {
    {1, 1, 1, 1, 1, 2, false},     {1, 16, 8, 9, 33, 2, false}, {2, 7, 5, 6, 11, 2, true},
    {1, 32, 16, 17, 70, 2, true},  {1, 33, 17, 5, 4, 3, false}, {1, 2, 2, 3, 5, 8, false},
    {1, 4, 4, 8, 8, 4, true},      {1, 64, 32, 7, 7, 2, false}, {3, 5, 6, 2, 3, 1, false},
    {1, 5, 33, 111, 111, 2, true}, {1, 65, 3, 79, 79, 2, true}, {1, 130, 66, 5, 6, 2, false},
    {2, 8, 6, 12, 13, 3, true},
};

static void upconv_all(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, 4);
    for (size_t i = 0; i < ARRAY_LEN(upconv_cases); i++) {
        const struct upconv_case *c = &upconv_cases[i];
        struct shape in = {c->n, c->c_in, c->h, c->w};
        struct shape out = {c->n, c->c_out, c->h * c->k, c->w * c->k};
        struct attr attr = {.kh = c->k, .kw = c->k, .stride = c->k, .act = c->act, .slope = 0.1f};
        struct value *w =
            bench_param(&bench, (struct shape){c->c_in, c->c_out, c->k, c->k}, false, true);
        struct value *x = bench_input(&bench, in), *dy = bench_input(&bench, out);
        struct value *forward[] = {
            x, w, bench_param(&bench, (struct shape){1, c->c_out, 1, 1}, true, false)};
        struct node *node = bench_node(&bench, OP_UPCONV, forward, 3, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_SUM, c->c_in + 2);
        struct attr data = attr;
        data.shape = in;
        struct value *backward[] = {dy, w, c->act ? bench_input(&bench, in) : NULL};
        node = bench_node(&bench, OP_UPCONV_DGRAD, backward, c->act ? 3 : 2, 1, data);
        bench_check(&bench, node->outputs[0], BENCH_SUM, c->c_out * c->k * c->k + 2);
        check_over_mask(&bench, OP_UPCONV_DGRAD, dy, w, data, c->c_out * c->k * c->k + 2);
    }
    finish(&bench);
}

static void upconv_weight_gradient(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, 5);
    for (size_t i = 0; i < ARRAY_LEN(upconv_cases); i++) {
        const struct upconv_case *c = &upconv_cases[i];
        struct attr attr = {
            .kh = c->k, .kw = c->k, .stride = c->k, .shape = {c->c_in, c->c_out, c->k, c->k}};
        struct value *w = bench_param(&bench, attr.shape, false, true);
        struct value *inputs[] = {
            bench_input(&bench, (struct shape){c->n, c->c_in, c->h, c->w}),
            bench_input(&bench, (struct shape){c->n, c->c_out, c->h * c->k, c->w * c->k})};
        struct node *node = bench_node(&bench, OP_UPCONV_WGRAD, inputs, 2, 1, attr);
        check_gradient(&bench, node->outputs[0], w, (double)c->n * c->h * c->w);
    }
    finish(&bench);
}

static void pooling(void **state) {
    (void)state;
    static const struct {
        int n, c, h, w, kernel, stride, dilation;
    } cases[] = {{1, 1, 2, 2, 2, 2, 1},   {1, 3, 64, 66, 2, 2, 1}, {2, 5, 9, 13, 2, 2, 1},
                 {1, 2, 15, 16, 3, 3, 1}, {1, 4, 12, 19, 2, 1, 1}, {1, 2, 20, 21, 2, 1, 4},
                 {2, 3, 11, 17, 3, 2, 1}, {1, 33, 6, 130, 2, 2, 1}};
    struct bench bench;
    bench_init(&bench, 6);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct attr attr = {.kh = cases[i].kernel,
                            .kw = cases[i].kernel,
                            .stride = cases[i].stride,
                            .dilation = cases[i].dilation};
        struct shape in = {cases[i].n, cases[i].c, cases[i].h, cases[i].w};
        struct value *x = bench_input(&bench, in);
        struct node *node = bench_node(&bench, OP_MAXPOOL, &x, 1, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_EXACT, 0);
        attr.shape = in;
        struct value *inputs[] = {x, bench_input(&bench, node->outputs[0]->shape)};
        node = bench_node(&bench, OP_MAXPOOL_GRAD, inputs, 2, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_RELATIVE, cases[i].kernel * cases[i].kernel);
    }
    finish(&bench);
}

/* Maps of less than a word's windows, of several blocks of words, and with edges that no window
   covers. The index itself is seen in where the gradient goes. */
static void pooling_with_index(void **state) {
    (void)state;
    static const struct shape shapes[] = {{1, 1, 2, 2},   {2, 3, 3, 5},     {1, 5, 64, 66},
                                          {2, 2, 9, 13},  {1, 33, 6, 130},  {2, 3, 131, 97},
                                          {1, 2, 64, 64}, {1, 2, 128, 135}, {1, 1, 5, 700}};
    struct bench bench;
    bench_init(&bench, 12);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct attr attr = {.kh = 2, .kw = 2, .stride = 2, .dilation = 1};
        struct value *x = bench_input(&bench, shapes[i]);
        struct node *pool = bench_node(&bench, OP_MAXPOOL_INDEX, &x, 1, 2, attr);
        bench_check(&bench, pool->outputs[0], BENCH_EXACT, 0);
        attr.shape = shapes[i];
        struct value *dy = bench_input(&bench, pool->outputs[0]->shape);
        struct value *inputs[] = {pool->outputs[1], dy};
        struct node *node = bench_node(&bench, OP_MAXPOOL_UNPOOL, inputs, 2, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_EXACT, 0);
        struct value *plain[] = {x, dy};
        node = bench_node(&bench, OP_MAXPOOL_GRAD, plain, 2, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_EXACT, 0);
    }
    finish(&bench);
}

/* Images of less than a block, whole blocks and parts of one; what is stored is seen in what is
   loaded. test_half.c has every case of rounding. */
static void halves(void **state) {
    (void)state;
    static const struct shape shapes[] = {{1, 1, 1, 1},   {2, 3, 5, 7},    {1, 2, 8, 8},
                                          {3, 1, 1, 65},  {2, 2, 127, 33}, {1, 33, 64, 66},
                                          {2, 1, 128, 1}, {1, 1, 257, 259}};
    struct bench bench;
    bench_init(&bench, 14);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct value *x = bench_input(&bench, shapes[i]);
        struct attr attr = {.shape = shapes[i]};
        struct node *node = bench_node(&bench, OP_HALF_STORE, &x, 1, 1, (struct attr){0});
        node = bench_node(&bench, OP_HALF_LOAD, &node->outputs[0], 1, 1, attr);
        bench_check(&bench, node->outputs[0], BENCH_EXACT, 0);
    }
    finish(&bench);
}

static void pointwise(void **state) {
    (void)state;
    static const struct shape shapes[] = {
        {1, 1, 1, 1}, {1, 3, 7, 5}, {2, 33, 9, 11}, {1, 8, 64, 65}, {3, 2, 1, 130}};
    struct bench bench;
    bench_init(&bench, 7);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct shape s = shapes[i];
        struct value *a = bench_input(&bench, s), *b = bench_input(&bench, s);
        struct value *pair[] = {a, b};
        struct attr leaky = {.slope = 0.1f};
        bench_check(&bench, bench_node(&bench, OP_ACT, &a, 1, 1, (struct attr){0})->outputs[0],
                    BENCH_EXACT, 0);
        bench_check(&bench, bench_node(&bench, OP_ACT, &a, 1, 1, leaky)->outputs[0], BENCH_RELATIVE,
                    1);
        bench_check(&bench, bench_node(&bench, OP_ACT_GRAD, pair, 2, 1, leaky)->outputs[0],
                    BENCH_RELATIVE, 1);
        bench_check(&bench, bench_node(&bench, OP_ADD, pair, 2, 1, (struct attr){0})->outputs[0],
                    BENCH_SUM, 1);
        struct attr dropout = {.rate = 0.3f, .layer = (int)i};
        bench_check(&bench, bench_node(&bench, OP_DROPOUT, &a, 1, 1, dropout)->outputs[0],
                    BENCH_RELATIVE, 4);
    }
    finish(&bench);
}

/* A concatenation inside the arena, copied out whole. */
static void check_concat(struct bench *bench, struct value *const *parts, int count) {
    struct value *joined =
        bench_node(bench, OP_CONCAT, parts, count, 1, (struct attr){0})->outputs[0];
    struct attr whole = {.shape = joined->shape};
    struct node *copy = bench_node(bench, OP_CROP, &joined, 1, 1, whole);
    bench_check(bench, copy->outputs[0], BENCH_EXACT, 0);
}

static void regions(void **state) {
    (void)state;
    struct bench bench;
    bench_init(&bench, 8);
    struct shape in = {2, 5, 13, 18};
    struct value *x = bench_input(&bench, in);
    struct attr crop = {.top = 3, .left = 4, .shape = {2, 5, 6, 7}};
    struct node *node = bench_node(&bench, OP_CROP, &x, 1, 1, crop);
    bench_check(&bench, node->outputs[0], BENCH_EXACT, 0);
    struct value *dy = bench_input(&bench, node->outputs[0]->shape);
    struct value *gradient[] = {dy, bench_input(&bench, in)};
    struct attr crop_grad = {.top = 3, .left = 4, .shape = in};
    bench_check(&bench, bench_node(&bench, OP_CROP_GRAD, gradient, 1, 1, crop_grad)->outputs[0],
                BENCH_EXACT, 0);
    bench_check(&bench, bench_node(&bench, OP_CROP_GRAD, gradient, 2, 1, crop_grad)->outputs[0],
                BENCH_SUM, 1);
    struct value *parts[] = {bench_input(&bench, (struct shape){2, 3, 5, 7}),
                             bench_input(&bench, (struct shape){2, 1, 5, 7}),
                             bench_input(&bench, (struct shape){2, 33, 5, 7})};
    check_concat(&bench, parts, 3);
    struct value *aligned[] = {bench_input(&bench, (struct shape){2, 4, 8, 8}),
                               bench_input(&bench, (struct shape){2, 3, 8, 8})};
    check_concat(&bench, aligned, 2);
    struct attr slice = {.channel = 1, .shape = {2, 3, 13, 18}};
    bench_check(&bench, bench_node(&bench, OP_SLICE, &x, 1, 1, slice)->outputs[0], BENCH_EXACT, 0);
    finish(&bench);
}

/* Exponentials and logarithms: Vulkan allows 3 + 2|x| ulp for exp and 3 ulp for log; |x| < 2 here
   after subtracting the largest logit, so 16 units of 2^-24 a term and one per addition. */
static void softmax_and_loss(void **state) {
    (void)state;
    static const struct shape shapes[] = {
        {1, 2, 1, 1}, {1, 2, 37, 41}, {2, 3, 33, 32}, {1, 7, 5, 9}};
    struct bench bench;
    bench_init(&bench, 9);
    for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
        struct shape s = shapes[i], map = {s.n, 1, s.h, s.w};
        struct value *logits = bench_input(&bench, s);
        struct node *node = bench_node(&bench, OP_SOFTMAX, &logits, 1, 1, (struct attr){0});
        bench_check(&bench, node->outputs[0], BENCH_RELATIVE, 32 + s.c);
        struct value *raw = bench_input(&bench, map);
        struct value *weights =
            bench_node(&bench, OP_ACT, &raw, 1, 1, (struct attr){0})->outputs[0]; /* >= 0 */
        struct value *inputs[] = {logits, bench_labels(&bench, map, s.c), weights};
        node = bench_node(&bench, OP_SOFTMAX_LOSS, inputs, 3, 2, (struct attr){0});
        bench_check(&bench, node->outputs[0], BENCH_RELATIVE, 32 + s.c);
        bench_check(&bench, node->outputs[1], BENCH_RELATIVE, 32 + s.c + s.n * s.h * s.w);
        struct value *backward[] = {node->outputs[0], inputs[1], weights, node->outputs[1]};
        node = bench_node(&bench, OP_SOFTMAX_LOSS_GRAD, backward, 4, 1, (struct attr){0});
        bench_check(&bench, node->outputs[0], BENCH_RELATIVE, 64 + s.c + s.n * s.h * s.w);
    }
    finish(&bench);
}

static void check_optimiser(enum plan_optimiser optimiser) {
    bool adam = optimiser == PLAN_OPTIMISER_ADAM;
    struct bench bench;
    bench_init(&bench, 10);
    bench.optimiser = optimiser;
    for (int i = 0; i < 4; i++) { /* one to three workgroups of a CPU device, the last not full */
        struct shape s = {3 + 6 * i, 5, 3, 3};
        struct value *pair[] = {bench_input(&bench, (struct shape){1, 5, 6, 7}),
                                bench_input(&bench, (struct shape){1, s.n, 4, 5})};
        struct attr attr = {.kh = 3, .kw = 3, .dilation = 1, .shape = s};
        struct value *g = bench_node(&bench, OP_CONV_WGRAD, pair, 2, 1, attr)->outputs[0];
        struct value *w = bench_param(&bench, s, false, false);
        struct value *inputs[] = {w, g, bench_state(&bench, w, 0),
                                  adam ? bench_state(&bench, w, 1) : NULL};
        struct attr update = {.momentum = 0.99f,
                              .beta1 = BENCH_BETA1,
                              .beta2 = BENCH_BETA2,
                              .epsilon = 1e-8f,
                              .decay = 0.01f};
        bench_node(&bench, adam ? OP_ADAM : OP_SGD, inputs, adam ? 4 : 3, 0, update);
        /* The sum of 20 products, then about ten roundings; Adam divides by a root. */
        bench_check_param(&bench, w, 0, BENCH_RELATIVE, 64);
        bench_check_param(&bench, w, -1, BENCH_RELATIVE, 256);
        if (adam) {
            bench_check_param(&bench, w, 1, BENCH_RELATIVE, 64);
        }
    }
    finish(&bench);
}

static void sgd(void **state) {
    (void)state;
    check_optimiser(PLAN_OPTIMISER_SGD);
}

static void adam(void **state) {
    (void)state;
    check_optimiser(PLAN_OPTIMISER_ADAM);
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        const bool lacks = strstr(err.text, "which UNET_CPU asks for") != NULL;
        fprintf(stderr, "test_kernels: %s%s\n", lacks ? "skipped: " : "", err.text);
        return lacks ? 77 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv_forward),
        cmocka_unit_test(conv_forward_tiles),
        cmocka_unit_test(conv_data_gradient),
        cmocka_unit_test(conv_data_gradient_tiles),
        cmocka_unit_test(conv_in_parts),
        cmocka_unit_test(conv_data_gradient_over_mask),
        cmocka_unit_test(conv_weight_gradient),
        cmocka_unit_test(conv_weight_gradient_tiles),
        cmocka_unit_test(upconv_all),
        cmocka_unit_test(upconv_weight_gradient),
        cmocka_unit_test(pooling),
        cmocka_unit_test(pooling_with_index),
        cmocka_unit_test(halves),
        cmocka_unit_test(pointwise),
        cmocka_unit_test(regions),
        cmocka_unit_test(softmax_and_loss),
        cmocka_unit_test(sgd),
        cmocka_unit_test(adam),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    if (messages) {
        fprintf(stderr, "test_kernels: %u validation messages\n", messages);
    }
    return failed || messages;
}
