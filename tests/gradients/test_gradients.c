/*
 * test_gradients.c: the gradient rules and references of compiler/op/ against central finite
 * differences in double, of every operation in the middle of a graph (a convolution before it, a
 * convolution and a weighted softmax loss after it), of a small U-Net and of random graphs; the
 * references against closed forms; optimiser steps against closed forms.
 *
 * Activations and maximum pooling have kinks. A difference quotient counts only when no activation
 * changed side and no window changed its maximum at any of its points; otherwise the test goes on
 * with the next seed. Away from kinks the five-point quotient is exact to about 1e-10.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "tests/passes/random_graph.c" /* its builders; this program needs no other source */

#define TOLERANCE 1e-7 /* relative to the gradient, or to 1e-3 of the graph's largest */
#define STEP 1e-4
#define MAX_SEEDS 64

/* A forward graph with its gradients, and tensors to run it on. */
struct net {
    struct arena arena;
    struct graph graph;
    size_t n_forward; /* nodes */
    struct autodiff_result result;
    double **tensors;
    struct interpret_context context;
};

static void net_open(struct net *net) {
    memset(net, 0, sizeof(*net));
    graph_init(&net->graph, &net->arena, "test");
    net->context = (struct interpret_context){.seed = 11, .step = 3};
}

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

static void net_differentiate(struct net *net) {
    struct err err = {0};
    net->n_forward = net->graph.nodes.count;
    must(graph_check(&net->graph, &err), &err);
    must(autodiff_run(&net->graph, &net->result, &err), &err);
    must(graph_check(&net->graph, &err), &err);
}

static void net_fill(struct net *net, uint64_t seed) {
    net->tensors = random_graph_tensors(&net->graph, seed, &net->arena);
}

static void net_close(struct net *net) {
    vec_free(&net->result.params);
    vec_free(&net->result.gradients);
    graph_free(&net->graph);
    arena_free(&net->arena);
}

/* Runs the forward nodes alone; returns the loss. */
static double net_loss_value(struct net *net) {
    struct graph forward = net->graph;
    forward.nodes.count = net->n_forward;
    interpret_run(&forward, net->tensors, &net->context, &net->arena);
    const struct node *loss = net->graph.nodes.items[net->n_forward - 1];
    return net->tensors[loss->outputs[1]->id][0];
}

/* The side of every activation and the winner of every window, as a number that changes when one
   of them does (FNV-1a). */
static uint64_t mix(uint64_t hash, uint64_t word) {
    return (hash ^ word) * 1099511628211u;
}

static uint64_t hash_signs(uint64_t hash, const double *values, size_t count) {
    for (size_t e = 0; e < count; e++) {
        hash = mix(hash, values[e] > 0);
    }
    return hash;
}

static uint64_t hash_winners(uint64_t hash, const struct node *node, const double *x) {
    struct shape in = node->inputs[0]->shape, out = node->outputs[0]->shape;
    const struct attr *a = &node->attr;
    for (int e = 0; e < (int)shape_elements(out); e++) {
        int plane = e / (out.h * out.w), yy = e / out.w % out.h, xx = e % out.w;
        int best = -1;
        for (int k = 0; k < a->kh * a->kh; k++) {
            int h = yy * a->stride + k / a->kh * a->dilation;
            int w = xx * a->stride + k % a->kh * a->dilation;
            int at = (plane * in.h + h) * in.w + w;
            best = best < 0 || x[at] > x[best] ? at : best;
        }
        hash = mix(hash, (uint64_t)best);
    }
    return hash;
}

static uint64_t net_pattern(const struct net *net) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < net->n_forward; i++) {
        const struct node *node = net->graph.nodes.items[i];
        const double *x = net->tensors[node->inputs[0]->id];
        const double *y = net->tensors[node->outputs[0]->id];
        if (node->op == OP_ACT || node->attr.act) {
            hash = hash_signs(hash, y, shape_elements(node->outputs[0]->shape));
        } else if (node->op == OP_MAXPOOL) {
            hash = hash_winners(hash, node, x);
        }
    }
    return hash;
}

/* Moves along a direction: params += t * direction. */
struct direction {
    size_t n_moves;
    struct {
        double *at;
        double slope;
    } * moves;
    double *start;
};

static double loss_at(struct net *net, const struct direction *d, double t, uint64_t *pattern) {
    for (size_t i = 0; i < d->n_moves; i++) {
        *d->moves[i].at = d->start[i] + t * d->moves[i].slope;
    }
    double loss = net_loss_value(net);
    *pattern = net_pattern(net);
    for (size_t i = 0; i < d->n_moves; i++) {
        *d->moves[i].at = d->start[i];
    }
    return loss;
}

/* The five-point difference quotient; false when a kink lies between its points. */
static bool difference(struct net *net, const struct direction *d, double h, double *out) {
    static const double points[] = {-2, -1, 1, 2}, weights[] = {1, -8, 8, -1};
    uint64_t here;
    loss_at(net, d, 0, &here);
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        uint64_t pattern;
        sum += weights[i] * loss_at(net, d, points[i] * h, &pattern);
        if (pattern != here) {
            return false;
        }
    }
    *out = sum / (12 * h);
    return true;
}

static double largest_gradient(const struct net *net) {
    double largest = 0;
    for (size_t i = 0; i < net->result.gradients.count; i++) {
        const struct value *g = net->result.gradients.items[i];
        for (size_t e = 0; e < shape_elements(g->shape); e++) {
            largest = fmax(largest, fabs(net->tensors[g->id][e]));
        }
    }
    return largest;
}

static void compare(const char *name, size_t element, double analytic, double numeric,
                    double largest) {
    double scale = fmax(fabs(analytic), 1e-3 * largest);
    if (!(fabs(analytic - numeric) <= TOLERANCE * scale)) {
        fail_msg("%s[%zu]: gradient %.12g, difference quotient %.12g", name, element, analytic,
                 numeric);
    }
}

/* Every element of every parameter; false when a kink came in between. */
static bool try_elements(struct net *net) {
    interpret_run(&net->graph, net->tensors, &net->context, &net->arena);
    double largest = largest_gradient(net);
    assert_true(largest > 0);
    for (size_t i = 0; i < net->result.params.count; i++) {
        const struct value *p = net->result.params.items[i], *g = net->result.gradients.items[i];
        assert_true(shape_equal(p->shape, g->shape));
        for (size_t e = 0; e < shape_elements(p->shape); e++) {
            double numeric, start = net->tensors[p->id][e];
            struct direction d = {.n_moves = 1, .start = &start};
            d.moves = malloc(sizeof(d.moves[0]));
            d.moves[0].at = &net->tensors[p->id][e];
            d.moves[0].slope = 1;
            bool smooth = difference(net, &d, STEP, &numeric);
            free(d.moves);
            if (!smooth) {
                return false;
            }
            compare(p->name, e, net->tensors[g->id][e], numeric, largest);
        }
    }
    return true;
}

/* Finishes a forward graph with a convolution and a loss, and checks all gradients. */
static void check_graph_gradients(struct net *net, struct value *x) {
    struct attr one = {.kh = 1, .kw = 1};
    net_loss(&net->graph, net_conv(&net->graph, x, 3, true, &one));
    net_differentiate(net);
    for (uint64_t seed = 1; seed <= MAX_SEEDS; seed++) {
        net_fill(net, seed);
        if (try_elements(net)) {
            net_close(net);
            return;
        }
    }
    fail_msg("every seed met a kink");
}

/* An image and the convolution that comes before the operation under test. */
static struct value *stem(struct net *net, int n, int channels, int h, int w) {
    net_open(net);
    struct value *image = net_input(&net->graph, n, 2, h, w);
    return net_conv(&net->graph, image, channels, true, &(struct attr){.kh = 2, .kw = 2});
}

/* Operations in the middle of a graph */

static void test_conv(void **state) {
    (void)state;
    static const struct {
        int n, c_in, h, w, c_out;
        bool bias;
        struct attr attr;
    } cases[] = {
        {1, 2, 6, 7, 3, true, {.kh = 3, .kw = 3}},
        {2, 3, 5, 6, 5, true, {.kh = 3, .kw = 3, .pad_h = 1, .pad_w = 1}},
        {2, 1, 7, 5, 2, false, {.kh = 1, .kw = 3, .pad_w = 2}},
        {1, 2, 9, 8, 2, true, {.kh = 3, .kw = 2, .dilation = 2, .pad_h = 1, .pad_w = 2}},
        {1, 2, 8, 9, 4, true, {.kh = 2, .kw = 3, .dilation = 3, .pad_h = 3, .pad_w = 6}},
        {2, 3, 4, 4, 4, true, {.kh = 1, .kw = 1}},
        {1, 2, 6, 6, 3, true, {.kh = 3, .kw = 3, .act = true}},
        {2, 2, 6, 5, 3, false, {.kh = 2, .kw = 2, .pad_h = 1, .act = true, .slope = 0.125f}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net net;
        struct value *x = stem(&net, cases[i].n, cases[i].c_in, cases[i].h + 1, cases[i].w + 1);
        check_graph_gradients(
            &net, net_conv(&net.graph, x, cases[i].c_out, cases[i].bias, &cases[i].attr));
    }
}

static void test_upconv(void **state) {
    (void)state;
    static const struct {
        int n, c_in, h, w, c_out;
        bool bias;
        struct attr attr;
    } cases[] = {
        {1, 3, 3, 4, 2, true, {.kh = 2}},
        {2, 2, 3, 2, 5, false, {.kh = 3}},
        {2, 4, 3, 3, 3, true, {.kh = 1}},
        {1, 2, 4, 3, 3, true, {.kh = 2, .act = true}},
        {2, 2, 2, 3, 2, true, {.kh = 2, .act = true, .slope = 0.25f}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net net;
        struct value *x = stem(&net, cases[i].n, cases[i].c_in, cases[i].h + 1, cases[i].w + 1);
        check_graph_gradients(
            &net, net_upconv(&net.graph, x, cases[i].c_out, cases[i].bias, &cases[i].attr));
    }
}

static void test_act(void **state) {
    (void)state;
    static const float slopes[] = {0, 0.125f, 1, 1.5f};
    for (size_t i = 0; i < ARRAY_LEN(slopes); i++) {
        struct net net;
        struct value *x = stem(&net, 2, 3, 6, 5);
        check_graph_gradients(&net, net_act(&net.graph, x, slopes[i]));
    }
}

static void test_maxpool(void **state) {
    (void)state;
    static const struct {
        int h, w, kernel, stride, dilation;
    } cases[] = {
        {6, 8, 2, 2, 1},
        {7, 5, 2, 2, 1} /* odd: the last row and column are dropped */,
        {7, 6, 3, 1, 1} /* overlapping */,
        {9, 7, 3, 2, 1},
        {8, 7, 2, 1, 2} /* dilated */,
        {10, 9, 3, 1, 2},
        {7, 8, 2, 3, 1} /* with gaps */,
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct net net;
        struct value *x = stem(&net, 1 + (int)i % 2, 2, cases[i].h + 1, cases[i].w + 1);
        check_graph_gradients(
            &net, net_maxpool(&net.graph, x, cases[i].kernel, cases[i].stride, cases[i].dilation));
    }
}

static void test_crop(void **state) {
    (void)state;
    static const int crops[][4] = {{0, 0, 6, 5}, {1, 2, 4, 3}, {2, 0, 4, 1}, {5, 4, 1, 1}};
    for (size_t i = 0; i < ARRAY_LEN(crops); i++) {
        struct net net;
        struct value *x = stem(&net, 2, 3, 7, 6);
        const int *c = crops[i];
        check_graph_gradients(&net, net_crop(&net.graph, x, c[0], c[1], c[2], c[3]));
    }
}

/* Different widths, a crop, one input twice, and last one that needs no gradient. */
static void test_concat(void **state) {
    (void)state;
    struct net net;
    struct value *x = stem(&net, 2, 3, 8, 7);
    struct value *small = net_conv(&net.graph, x, 5, true, NULL);
    struct value *crop = net_crop(&net.graph, x, 1, 0, 5, 4);
    struct value *image = net_crop(&net.graph, net.graph.values.items[0], 3, 2, 5, 4);
    struct value *inputs[] = {small, crop, small, image};
    struct value *y = net_concat(&net.graph, inputs, 4);
    check_graph_gradients(&net, net_conv(&net.graph, y, 2, true, NULL));
}

static void test_add(void **state) {
    (void)state;
    struct net net;
    struct value *x = stem(&net, 2, 3, 6, 5);
    struct attr same = {.pad_h = 1, .pad_w = 1};
    struct value *residual = net_add(&net.graph, net_conv(&net.graph, x, 3, true, &same), x);
    struct value *twice = net_add(&net.graph, residual, residual);
    check_graph_gradients(&net, net_conv(&net.graph, twice, 2, false, NULL));
}

static void test_dropout(void **state) {
    (void)state;
    static const float rates[] = {0, 0.25f, 0.75f};
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        struct net net;
        struct value *x = stem(&net, 2, 3, 6, 5);
        check_graph_gradients(&net, net_dropout(&net.graph, x, rates[i], 7));
    }
}

/* The value in the middle is read by six nodes, twice by one of them. */
static void test_many_uses(void **state) {
    (void)state;
    struct net net;
    struct value *x = stem(&net, 1, 2, 7, 8);
    struct value *act = net_act(&net.graph, x, 0.125f);
    struct value *up = net_upconv(&net.graph, net_maxpool(&net.graph, act, 2, 2, 1), 2, true,
                                  &(struct attr){.kh = 2});
    struct value *conv = net_conv(&net.graph, act, 3, true, NULL);
    struct value *inputs[] = {
        net_crop(&net.graph, act, 1, 1, 4, 5), net_crop(&net.graph, up, 0, 1, 4, 5), conv,
        net_crop(&net.graph, net_add(&net.graph, act, act), 2, 2, 4, 5),
        net_crop(&net.graph, net_dropout(&net.graph, act, 0.5f, 1), 0, 0, 4, 5)};
    check_graph_gradients(&net, net_concat(&net.graph, inputs, 5));
}

/* Whole graphs along random directions */

static struct direction random_direction(struct net *net, struct rng *rng, double *analytic) {
    size_t count = 0;
    for (size_t i = 0; i < net->result.params.count; i++) {
        count += shape_elements(net->result.params.items[i]->shape);
    }
    struct direction d = {.n_moves = count};
    d.moves = arena_alloc(&net->arena, count * sizeof(d.moves[0]));
    d.start = ARENA_ARRAY(&net->arena, double, count);
    *analytic = 0;
    count = 0;
    for (size_t i = 0; i < net->result.params.count; i++) {
        const struct value *p = net->result.params.items[i], *g = net->result.gradients.items[i];
        for (size_t e = 0; e < shape_elements(p->shape); e++, count++) {
            d.moves[count].at = &net->tensors[p->id][e];
            d.moves[count].slope = rng_normal(rng);
            d.start[count] = net->tensors[p->id][e];
            *analytic += d.moves[count].slope * net->tensors[g->id][e];
        }
    }
    return d;
}

static double gradient_norm(const struct net *net) {
    double sum = 0;
    for (size_t i = 0; i < net->result.gradients.count; i++) {
        const struct value *g = net->result.gradients.items[i];
        for (size_t e = 0; e < shape_elements(g->shape); e++) {
            sum += net->tensors[g->id][e] * net->tensors[g->id][e];
        }
    }
    return sqrt(sum);
}

/* A directional derivative's typical size is the gradient's norm: errors are relative to it. */
static void check_directions(struct net *net, int wanted, uint64_t seed) {
    net_fill(net, seed);
    interpret_run(&net->graph, net->tensors, &net->context, &net->arena);
    double norm = gradient_norm(net);
    assert_true(norm > 0);
    struct rng rng = rng_stream(seed, 3, 0);
    int done = 0;
    for (int attempt = 0; attempt < MAX_SEEDS && done < wanted; attempt++) {
        double analytic, numeric;
        struct direction d = random_direction(net, &rng, &analytic);
        if (!difference(net, &d, STEP / 10, &numeric)) {
            continue;
        }
        if (!(fabs(analytic - numeric) <= TOLERANCE * norm)) {
            fail_msg("direction %d: derivative %.12g, difference quotient %.12g, norm %.3g",
                     attempt, analytic, numeric, norm);
        }
        done++;
    }
    assert_int_equal(done, wanted);
}

static struct value *double_conv(struct graph *graph, struct value *x, int channels) {
    for (int i = 0; i < 2; i++) {
        x = net_act(graph, net_conv(graph, x, channels, true, NULL), 0);
    }
    return x;
}

/* Three levels of valid convolutions, centre crops and dropout, as in the 2015 network. */
static void test_unet(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct graph *graph = &net.graph;
    struct value *skips[2], *x = net_input(graph, 2, 1, 44, 44);
    for (int level = 0; level < 2; level++) {
        skips[level] = double_conv(graph, x, 3 << level);
        x = net_maxpool(graph, skips[level], 2, 2, 1);
    }
    x = net_dropout(graph, double_conv(graph, x, 12), 0.5f, 9);
    for (int level = 1; level >= 0; level--) {
        struct value *up = net_act(graph, net_upconv(graph, x, 3 << level, true, NULL), 0);
        struct shape s = skips[level]->shape, u = up->shape;
        struct value *skip =
            net_crop(graph, skips[level], (s.h - u.h) / 2, (s.w - u.w) / 2, u.h, u.w);
        struct value *inputs[] = {up, skip};
        x = double_conv(graph, net_concat(graph, inputs, 2), 3 << level);
    }
    net_loss(graph, net_conv(graph, x, 2, true, &(struct attr){.kh = 1, .kw = 1}));
    net_differentiate(&net);
    assert_int_equal(net.result.params.count, 2 * 13);
    check_directions(&net, 8, 1);
    net_close(&net);
}

static void test_random_graphs(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct net net;
        net_open(&net);
        random_graph_build(&net.graph, &net.arena, seed);
        net_differentiate(&net);
        check_directions(&net, 2, seed);
        net_close(&net);
    }
}

/* Only what the parameters need: no data gradient of a convolution that reads the image. */
static void test_no_needless_gradients(void **state) {
    (void)state;
    struct net net;
    struct value *x = stem(&net, 1, 3, 6, 6);
    net_loss(&net.graph, net_conv(&net.graph, x, 2, true, NULL));
    net_differentiate(&net);
    int counts[OP_COUNT] = {0};
    for (size_t i = 0; i < net.graph.nodes.count; i++) {
        counts[net.graph.nodes.items[i]->op]++;
    }
    assert_int_equal(counts[OP_CONV_DGRAD], 1);
    assert_int_equal(counts[OP_CONV_WGRAD], 2);
    assert_int_equal(counts[OP_BIAS_GRAD], 2);
    assert_int_equal(counts[OP_ADD], 0);
    assert_int_equal(net.graph.nodes.count, 3 + 1 + 5);
    net_close(&net);
}

static void test_refusals(void **state) {
    (void)state;
    struct net net;
    struct err err = {0};
    struct value *x = stem(&net, 1, 3, 6, 6);
    assert_false(autodiff_run(&net.graph, &net.result, &err));
    assert_non_null(strstr(err.text, "no softmax_loss"));
    assert_int_equal(err.code, ERR_INPUT);

    struct node *softmax = NULL;
    assert_true(graph_append(&net.graph, OP_SOFTMAX, "softmax", 1, &x, 1, NULL, &softmax, &err));
    net_loss(&net.graph, softmax->outputs[0]);
    err = (struct err){0};
    assert_false(autodiff_run(&net.graph, &net.result, &err));
    assert_non_null(strstr(err.text, "softmax: the operation softmax cannot be differentiated"));
    net_close(&net);

    x = stem(&net, 1, 3, 6, 6);
    net_conv(&net.graph, x, 4, true, NULL); /* leads nowhere */
    net_loss(&net.graph, x);
    err = (struct err){0};
    assert_false(autodiff_run(&net.graph, &net.result, &err));
    assert_non_null(strstr(err.text, "parameter conv1.weight"));
    net_close(&net);
}

/* Fused gradients are what they are fused from */

static double *random_tensor(struct net *net, const struct value *value, uint32_t stream) {
    size_t count = shape_elements(value->shape);
    double *data = ARENA_ARRAY(&net->arena, double, count);
    struct rng rng = rng_stream(5, stream, 0);
    for (size_t e = 0; e < count; e++) {
        data[e] = rng_normal(&rng);
    }
    return data;
}

static struct value *run_op(struct net *net, enum op_kind op, struct value *const *inputs,
                            int n_inputs, const struct attr *attr) {
    struct err err = {0};
    struct node *node = NULL;
    must(graph_append(&net->graph, op, op_table[op]->name, 1, inputs, n_inputs, attr, &node, &err),
         &err);
    return node->outputs[0];
}

static struct value *given(struct net *net, const char *name, struct shape shape) {
    struct value *value = graph_value(&net->graph, VALUE_INPUT, name, shape);
    value->port = value->name;
    return value;
}

static void run_given(struct net *net) {
    struct err err = {0};
    must(graph_check(&net->graph, &err), &err);
    net->tensors = ARENA_ARRAY(&net->arena, double *, net->graph.values.count);
    for (size_t i = 0; i < net->graph.values.count; i++) {
        if (net->graph.values.items[i]->kind != VALUE_TEMP) {
            net->tensors[i] = random_tensor(net, net->graph.values.items[i], (uint32_t)i);
        }
    }
    interpret_run(&net->graph, net->tensors, &net->context, &net->arena);
}

static void assert_same(const struct net *net, const struct value *a, const struct value *b) {
    assert_true(shape_equal(a->shape, b->shape));
    bool any = false;
    for (size_t e = 0; e < shape_elements(a->shape); e++) {
        double x = net->tensors[a->id][e], y = net->tensors[b->id][e];
        if (!(fabs(x - y) <= 1e-14 * fabs(x))) {
            fail_msg("%s[%zu] is %.17g, %s %.17g", a->name, e, x, b->name, y);
        }
        any |= x != 0;
    }
    assert_true(any);
}

static void test_fused_masks(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct shape in = {2, 3, 5, 6};
    struct value *mask = given(&net, "mask", in);
    struct value *dy = given(&net, "dy", (struct shape){2, 4, 5, 5});
    struct value *w = given(&net, "w", (struct shape){4, 3, 3, 2});
    struct attr attr = {.kh = 3, .kw = 2, .pad_h = 1, .dilation = 1, .shape = in};
    struct value *plain = run_op(&net, OP_CONV_DGRAD, (struct value *[]){dy, w}, 2, &attr);
    struct value *composed = run_op(&net, OP_ACT_GRAD, (struct value *[]){mask, plain}, 2,
                                    &(struct attr){.slope = 0.125f});
    attr.act = true;
    attr.slope = 0.125f;
    struct value *fused = run_op(&net, OP_CONV_DGRAD, (struct value *[]){dy, w, mask}, 3, &attr);

    struct value *up_dy = given(&net, "up_dy", (struct shape){2, 4, 10, 12});
    struct value *up_w = given(&net, "up_w", (struct shape){3, 4, 2, 2});
    attr = (struct attr){.kh = 2};
    struct value *up_plain =
        run_op(&net, OP_UPCONV_DGRAD, (struct value *[]){up_dy, up_w}, 2, &attr);
    struct value *up_composed =
        run_op(&net, OP_ACT_GRAD, (struct value *[]){mask, up_plain}, 2, &(struct attr){0});
    attr.act = true;
    struct value *up_fused =
        run_op(&net, OP_UPCONV_DGRAD, (struct value *[]){up_dy, up_w, mask}, 3, &attr);

    run_given(&net);
    assert_same(&net, composed, fused);
    assert_same(&net, up_composed, up_fused);
    net_close(&net);
}

static void test_crop_grad_onto(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct shape whole = {2, 3, 6, 7};
    struct value *dy = given(&net, "dy", (struct shape){2, 3, 4, 2});
    struct value *acc = given(&net, "acc", whole);
    struct attr attr = {.top = 1, .left = 4, .shape = whole};
    struct value *placed = run_op(&net, OP_CROP_GRAD, &dy, 1, &attr);
    struct value *sum = run_op(&net, OP_ADD, (struct value *[]){acc, placed}, 2, NULL);
    struct value *onto = run_op(&net, OP_CROP_GRAD, (struct value *[]){dy, acc}, 2, &attr);
    struct value *back = run_op(&net, OP_CROP, &placed, 1,
                                &(struct attr){.top = 1, .left = 4, .shape = {.h = 4, .w = 2}});
    run_given(&net);
    assert_same(&net, sum, onto);
    assert_same(&net, dy, back);
    net_close(&net);
}

/* References against numbers worked out by hand */

static void assert_values(const double *got, const double *expected, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!(fabs(got[i] - expected[i]) <= 1e-14 * fmax(1, fabs(expected[i])))) {
            fail_msg("element %zu is %.17g, not %.17g", i, got[i], expected[i]);
        }
    }
}

/* Runs one operation on given data; out has the reference's result. */
static double *apply(struct net *net, enum op_kind op, struct value *const *inputs,
                     double *const *data, int n_inputs, const struct attr *attr) {
    struct value *y = run_op(net, op, inputs, n_inputs, attr);
    double *out = ARENA_ARRAY(&net->arena, double, shape_elements(y->shape));
    op_table[op]->reference(y->producer, data, &out, &net->context);
    return out;
}

static void test_reference_conv(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    double x[] = {1, 2, 3, 4, 5, 6, 7, 8, 9}, w[] = {1, 10, 100, 1000}, bias[] = {0.5};
    struct value *inputs[] = {given(&net, "x", (struct shape){1, 1, 3, 3}),
                              given(&net, "w", (struct shape){1, 1, 2, 2}),
                              given(&net, "b", (struct shape){1, 1, 1, 1})};
    double *data[] = {x, w, bias};
    /* correlation: the first tap meets the upper left pixel */
    assert_values(
        apply(&net, OP_CONV, inputs, data, 3, &(struct attr){.kh = 2, .kw = 2, .dilation = 1}),
        (double[]){5421.5, 6532.5, 8754.5, 9865.5}, 4);
    assert_values(
        apply(&net, OP_CONV, inputs, data, 2, &(struct attr){.kh = 2, .kw = 2, .dilation = 2}),
        (double[]){9731}, 1);
    assert_values(apply(&net, OP_CONV, inputs, data, 2,
                        &(struct attr){.kh = 2, .kw = 2, .dilation = 1, .pad_h = 1}),
                  (double[]){2100, 3200, 5421, 6532, 8754, 9865, 87, 98}, 8);
    /* the second output channel's weights follow the first's, input channels inside */
    struct value *two[] = {given(&net, "x2", (struct shape){1, 2, 1, 1}),
                           given(&net, "w2", (struct shape){2, 2, 1, 1})};
    double *two_data[] = {(double[]){1, 2}, (double[]){1, 10, 100, 1000}};
    assert_values(
        apply(&net, OP_CONV, two, two_data, 2, &(struct attr){.kh = 1, .kw = 1, .dilation = 1}),
        (double[]){21, 2100}, 2);
    net_close(&net);
}

static void test_reference_upconv(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct value *inputs[] = {given(&net, "x", (struct shape){1, 2, 1, 2}),
                              given(&net, "w", (struct shape){2, 1, 2, 2})};
    double *data[] = {(double[]){1, 2, 3, 4}, (double[]){1, 2, 3, 4, 10, 20, 30, 40}};
    assert_values(apply(&net, OP_UPCONV, inputs, data, 2, &(struct attr){.kh = 2}),
                  (double[]){31, 62, 42, 84, 93, 124, 126, 168}, 8);
    net_close(&net);
}

static void test_reference_pooling_and_regions(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct value *x = given(&net, "x", (struct shape){1, 1, 3, 4});
    double *data[] = {(double[]){1, 7, 7, 2, 5, 3, 4, 9, 8, 6, 0, 9}};
    assert_values(
        apply(&net, OP_MAXPOOL, &x, data, 1, &(struct attr){.kh = 2, .stride = 2, .dilation = 1}),
        (double[]){7, 9}, 2);
    assert_values(
        apply(&net, OP_MAXPOOL, &x, data, 1, &(struct attr){.kh = 2, .stride = 1, .dilation = 2}),
        (double[]){8, 9}, 2);
    assert_values(apply(&net, OP_CROP, &x, data, 1,
                        &(struct attr){.top = 1, .left = 2, .shape = {.h = 2, .w = 1}}),
                  (double[]){4, 0}, 2);
    /* equal maxima: the gradient goes to the first in scan order */
    struct value *inputs[] = {x, given(&net, "dy", (struct shape){1, 1, 2, 3})};
    double *grad_data[] = {data[0], (double[]){1, 10, 100, 1000, 10000, 100000}};
    assert_values(apply(&net, OP_MAXPOOL_GRAD, inputs, grad_data, 2,
                        &(struct attr){.kh = 2, .stride = 1, .dilation = 1}),
                  (double[]){0, 11, 0, 0, 0, 0, 0, 100100, 1000, 10000, 0, 0}, 12);
    net_close(&net);
}

/* Two classes: -log p of the other class is log(1 + exp(difference)). */
static void test_reference_loss(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    struct value *x = given(&net, "x", (struct shape){1, 2, 1, 4});
    struct node *loss = net_loss(&net.graph, x);
    double labels[] = {0, 1, 1, 0}, weights[] = {2, 0.5, 0, 1};
    double logits[] = {1, 3, 5, -30000, 2, 3, 1, 30000};
    double probs[8], result[LOSS_WORDS];
    op_table[OP_SOFTMAX_LOSS]->reference(loss, (double *[]){logits, labels, weights},
                                         (double *[]){probs, result}, &net.context);
    double sum = 2 * log(1 + exp(1)) + 0.5 * log(2) + 60000;
    assert_values(result, (double[]){sum / 3.5, sum, 3.5, 0, 3, 0, 0, 0}, LOSS_WORDS);
    double p = 1 / (1 + exp(1));
    assert_values(probs, (double[]){p, 0.5, 1 / (1 + exp(-4)), 0, 1 - p, 0.5, 1 / (1 + exp(4)), 1},
                  8);

    struct value *inputs[] = {loss->outputs[0], loss->inputs[1], loss->inputs[2], loss->outputs[1]};
    double *data[] = {probs, labels, weights, result};
    assert_values(apply(&net, OP_SOFTMAX_LOSS_GRAD, inputs, data, 4, NULL),
                  (double[]){2 * (p - 1) / 3.5, 0.5 * 0.5 / 3.5, 0, -1 / 3.5, 2 * (1 - p) / 3.5,
                             -0.5 * 0.5 / 3.5, 0, 1 / 3.5},
                  8);

    /* no pixel counts: no loss, no gradient, no division by zero */
    memset(weights, 0, sizeof weights);
    op_table[OP_SOFTMAX_LOSS]->reference(loss, (double *[]){logits, labels, weights},
                                         (double *[]){probs, result}, &net.context);
    assert_values(result, (double[LOSS_WORDS]){0}, LOSS_WORDS);
    assert_values(apply(&net, OP_SOFTMAX_LOSS_GRAD, inputs, data, 4, NULL), (double[8]){0}, 8);
    net_close(&net);
}

/* The mask is the one of kernel_contract.h, and changes with seed, step and layer only. */
static void test_dropout_mask(void **state) {
    (void)state;
    struct net net;
    net_open(&net);
    net.context = (struct interpret_context){.seed = 0x123456789abcdefu, .step = 42};
    struct value *x = given(&net, "x", (struct shape){2, 3, 7, 5});
    size_t count = shape_elements(x->shape), kept = 0;
    double *data[] = {random_tensor(&net, x, 1)};
    struct attr attr = {.rate = 0.25f, .layer = 6};
    const double *y = apply(&net, OP_DROPOUT, &x, data, 1, &attr);
    for (size_t e = 0; e < count; e++) {
        struct rng_block block = rng_philox(net.context.seed, (uint32_t)e / 4, 6, 42, 0);
        bool keep = block.word[e % 4] >= 0x40000000u;
        assert_true(y[e] == (keep ? data[0][e] / 0.75 : 0) ||
                    fabs(y[e] - data[0][e] / 0.75) < 1e-15 * fabs(y[e]));
        assert_int_equal(y[e] != 0, keep);
        kept += keep;
    }
    assert_in_range(kept, count * 65 / 100, count * 85 / 100);
    attr.layer = 7;
    const double *other = apply(&net, OP_DROPOUT, &x, data, 1, &attr);
    assert_true(memcmp(y, other, count * sizeof(double)) != 0);
    net.context.step = 43;
    attr.layer = 6;
    other = apply(&net, OP_DROPOUT, &x, data, 1, &attr);
    assert_true(memcmp(y, other, count * sizeof(double)) != 0);
    net_close(&net);
}

/* Optimisers */

struct update {
    struct net net;
    struct node *node;
    double w, g, m, v;
};

static void update_open(struct update *u, enum op_kind op, const struct attr *attr, double w,
                        double g) {
    net_open(&u->net);
    struct param *param = ARENA_NEW(&u->net.arena, struct param);
    *param = (struct param){.name = "p", .shape = {1, 1, 1, 1}, .is_bias = true};
    struct value *inputs[4];
    for (int i = 0; i < 4; i++) {
        enum value_kind kind = i == 0 ? VALUE_PARAM : i == 1 ? VALUE_INPUT : VALUE_STATE;
        inputs[i] = graph_value(&u->net.graph, kind, "value", param->shape);
        inputs[i]->port = kind == VALUE_INPUT ? "g" : NULL;
        inputs[i]->param = kind == VALUE_INPUT ? NULL : param;
        inputs[i]->state_index = i - 2;
    }
    struct err err = {0};
    must(graph_append(&u->net.graph, op, "p", 0, inputs, op == OP_ADAM ? 4 : 3, attr, &u->node,
                      &err),
         &err);
    must(graph_check(&u->net.graph, &err), &err);
    u->w = w;
    u->g = g;
    u->m = u->v = 0;
}

static void update_step(struct update *u, uint32_t step, double learning_rate) {
    double *tensors[] = {&u->w, &u->g, &u->m, &u->v};
    struct interpret_context context = {.step = step, .learning_rate = learning_rate};
    interpret_run(&u->net.graph, tensors, &context, &u->net.arena);
}

static void assert_near(double got, double expected) {
    if (!(fabs(got - expected) <= 1e-12 * fabs(expected))) {
        fail_msg("%.17g, not %.17g", got, expected);
    }
}

static void test_sgd(void **state) {
    (void)state;
    struct update u;
    /* constant gradient: m = g (1 - mu^t) / (1 - mu) */
    update_open(&u, OP_SGD, &(struct attr){.momentum = 0.75f}, 2, 3);
    double w = 2;
    for (uint32_t t = 1; t <= 10; t++) {
        update_step(&u, t - 1, 0.01);
        double m = 3 * (1 - pow(0.75, t)) / 0.25;
        w -= 0.01 * m;
        assert_near(u.m, m);
        assert_near(u.w, w);
    }
    assert_near(u.g, 3);
    net_close(&u.net);
    /* no gradient: the weight decays by the factor 1 - lr * decay */
    update_open(&u, OP_SGD, &(struct attr){.decay = 0.5f}, 2, 0);
    for (uint32_t t = 0; t < 5; t++) {
        update_step(&u, t, 0.1);
    }
    assert_near(u.w, 2 * pow(1 - 0.1 * 0.5, 5));
    net_close(&u.net);
}

static void test_adam(void **state) {
    (void)state;
    struct update u;
    struct attr attr = {.beta1 = 0.875f, .beta2 = 0.9375f, .epsilon = 0.25f};
    /* constant gradient: the corrected moments are g and g^2 at every step */
    update_open(&u, OP_ADAM, &attr, 1, -2);
    for (uint32_t t = 1; t <= 10; t++) {
        update_step(&u, t - 1, 0.01);
        assert_near(u.m, -2 * (1 - pow(0.875, t)));
        assert_near(u.v, 4 * (1 - pow(0.9375, t)));
        assert_near(u.w, 1 + t * 0.01 * 2 / (2 + 0.25));
    }
    net_close(&u.net);
    /* decay alone: the gradient is decay * w */
    attr.decay = 0.5f;
    update_open(&u, OP_ADAM, &attr, 4, 0);
    update_step(&u, 0, 0.1);
    assert_near(u.w, 4 - 0.1 * 2 / (2 + 0.25));
    net_close(&u.net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_conv),
        cmocka_unit_test(test_reference_upconv),
        cmocka_unit_test(test_reference_pooling_and_regions),
        cmocka_unit_test(test_reference_loss),
        cmocka_unit_test(test_dropout_mask),
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_upconv),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_maxpool),
        cmocka_unit_test(test_crop),
        cmocka_unit_test(test_concat),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_many_uses),
        cmocka_unit_test(test_unet),
        cmocka_unit_test(test_random_graphs),
        cmocka_unit_test(test_no_needless_gradients),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_fused_masks),
        cmocka_unit_test(test_crop_grad_onto),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_adam),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
