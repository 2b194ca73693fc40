/*
 * random_graph.c: see random_graph.h.
 */
#include "tests/passes/random_graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/passes.h"

/* Builders */

static struct node *append(struct graph *graph, enum op_kind op, int n_outputs,
                           struct value *const *inputs, int n_inputs, const struct attr *attr) {
    char name[64];
    snprintf(name, sizeof name, "%s%zu", op_table[op]->name, graph->nodes.count);
    struct node *node = NULL;
    struct err err = {0};
    if (!graph_append(graph, op, name, n_outputs, inputs, n_inputs, attr, &node, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    return node;
}

static struct value *unary(struct graph *graph, enum op_kind op, struct value *x,
                           const struct attr *attr) {
    return append(graph, op, 1, &x, 1, attr)->outputs[0];
}

static struct value *make_param(struct graph *graph, const char *layer, const char *suffix,
                                struct shape shape, bool transposed) {
    struct param *param = ARENA_NEW(graph->arena, struct param);
    param->name = arena_printf(graph->arena, "%s%zu.%s", layer, graph->nodes.count, suffix);
    param->shape = shape;
    param->is_bias = strcmp(suffix, "bias") == 0;
    param->transposed = transposed;
    struct value *value = graph_value(graph, VALUE_PARAM, param->name, shape);
    value->param = param;
    return value;
}

static struct value *make_input(struct graph *graph, const char *port, struct shape shape) {
    struct value *value = graph_value(graph, VALUE_INPUT, port, shape);
    value->port = value->name;
    return value;
}

struct value *net_input(struct graph *graph, int n, int c, int h, int w) {
    return make_input(graph, "image", (struct shape){n, c, h, w});
}

struct value *net_conv(struct graph *graph, struct value *x, int c_out, bool bias,
                       const struct attr *attr) {
    struct attr a = attr ? *attr : (struct attr){0};
    a.kh = a.kh ? a.kh : 3;
    a.kw = a.kw ? a.kw : 3;
    a.dilation = a.dilation ? a.dilation : 1;
    struct shape weight = {c_out, x->shape.c, a.kh, a.kw};
    struct value *inputs[3] = {x, make_param(graph, "conv", "weight", weight, false)};
    inputs[2] =
        bias ? make_param(graph, "conv", "bias", (struct shape){1, c_out, 1, 1}, false) : NULL;
    return append(graph, OP_CONV, 1, inputs, 3, &a)->outputs[0];
}

struct value *net_upconv(struct graph *graph, struct value *x, int c_out, bool bias,
                         const struct attr *attr) {
    struct attr a = attr ? *attr : (struct attr){0};
    a.kh = a.kh ? a.kh : 2;
    struct shape weight = {x->shape.c, c_out, a.kh, a.kh};
    struct value *inputs[3] = {x, make_param(graph, "upconv", "weight", weight, true)};
    inputs[2] =
        bias ? make_param(graph, "upconv", "bias", (struct shape){1, c_out, 1, 1}, true) : NULL;
    return append(graph, OP_UPCONV, 1, inputs, 3, &a)->outputs[0];
}

struct value *net_act(struct graph *graph, struct value *x, float slope) {
    return unary(graph, OP_ACT, x, &(struct attr){.slope = slope});
}

struct value *net_maxpool(struct graph *graph, struct value *x, int kernel, int stride,
                          int dilation) {
    return unary(graph, OP_MAXPOOL, x,
                 &(struct attr){.kh = kernel, .stride = stride, .dilation = dilation});
}

struct value *net_crop(struct graph *graph, struct value *x, int top, int left, int h, int w) {
    struct attr attr = {.top = top, .left = left, .shape = {.h = h, .w = w}};
    return unary(graph, OP_CROP, x, &attr);
}

struct value *net_concat(struct graph *graph, struct value *const *inputs, int n_inputs) {
    return append(graph, OP_CONCAT, 1, inputs, n_inputs, NULL)->outputs[0];
}

struct value *net_add(struct graph *graph, struct value *a, struct value *b) {
    struct value *inputs[] = {a, b};
    return append(graph, OP_ADD, 1, inputs, 2, NULL)->outputs[0];
}

struct value *net_dropout(struct graph *graph, struct value *x, float rate, int layer) {
    return unary(graph, OP_DROPOUT, x, &(struct attr){.rate = rate, .layer = layer});
}

struct node *net_loss(struct graph *graph, struct value *logits) {
    struct shape map = {logits->shape.n, 1, logits->shape.h, logits->shape.w};
    struct value *inputs[] = {logits, make_input(graph, "labels", map),
                              make_input(graph, "weights", map)};
    inputs[1]->type = PLAN_TYPE_U32;
    struct node *node = append(graph, OP_SOFTMAX_LOSS, 2, inputs, 3, NULL);
    node->outputs[1]->port = "loss";
    return node;
}

/* Generator */

#define MAX_OPEN 4   /* values that nothing reads yet */
#define MAX_SIDE 24  /* pixels */
#define MAX_WIDTH 12 /* channels */

struct generator {
    struct graph *graph;
    struct rng rng;
    struct value *open[MAX_OPEN]; /* each must still reach the loss */
    int n_open;
    bool keep_size; /* convolutions padded to keep sizes, so that planes stay multiples of 64 */
};

static int pick(struct generator *g, int low, int high) {
    return low + (int)rng_below(&g->rng, (uint32_t)(high - low + 1));
}

static bool chance(struct generator *g, double probability) {
    return rng_uniform(&g->rng) < probability;
}

static struct value *random_conv(struct generator *g, struct value *x) {
    struct attr a = {.kh = pick(g, 1, 3), .kw = pick(g, 1, 3), .dilation = pick(g, 1, 2)};
    if (g->keep_size) {
        a.kh = a.kw = chance(g, 0.5) ? 3 : 1;
    }
    int reach_h = a.dilation * (a.kh - 1), reach_w = a.dilation * (a.kw - 1);
    bool pad =
        g->keep_size || chance(g, 0.3) || x->shape.h - reach_h < 3 || x->shape.w - reach_w < 3;
    a.pad_h = pad ? (reach_h + 1) / 2 : 0;
    a.pad_w = pad ? (reach_w + 1) / 2 : 0;
    return net_conv(g->graph, x, pick(g, 1, 7), chance(g, 0.8), &a);
}

static struct value *random_maxpool(struct generator *g, struct value *x) {
    int kernel = pick(g, 2, 3), stride = pick(g, 1, 3), dilation = chance(g, 0.8) ? 1 : 2;
    int reach = dilation * (kernel - 1) + 1;
    int side = MIN(x->shape.h, x->shape.w);
    if (g->keep_size || side < reach || (side - reach) / stride + 1 < 3) {
        return net_act(g->graph, x, 0.25f);
    }
    return net_maxpool(g->graph, x, kernel, stride, dilation);
}

static struct value *random_upconv(struct generator *g, struct value *x) {
    int k = pick(g, 1, 3);
    if (g->keep_size || MAX(x->shape.h, x->shape.w) * k > MAX_SIDE) {
        return random_conv(g, x);
    }
    return net_upconv(g->graph, x, pick(g, 1, 6), chance(g, 0.8), &(struct attr){.kh = k});
}

static struct value *crop_to(struct generator *g, struct value *x, int h, int w) {
    if (x->shape.h == h && x->shape.w == w && chance(g, 0.8)) {
        return x;
    }
    return net_crop(g->graph, x, pick(g, 0, x->shape.h - h), pick(g, 0, x->shape.w - w), h, w);
}

static struct value *random_unary(struct generator *g, struct value *x) {
    switch (pick(g, 0, 7)) {
    case 0:
    case 1:
        return random_conv(g, x);
    case 2:
    case 3:
        return net_act(g->graph, x, chance(g, 0.5) ? 0 : 0.125f);
    case 4:
        return random_maxpool(g, x);
    case 5:
        return random_upconv(g, x);
    case 6: {
        int h = x->shape.h - pick(g, 0, 2), w = x->shape.w - pick(g, 0, 2);
        return crop_to(g, x, MAX(1, h), MAX(1, w));
    }
    default:
        return net_dropout(g->graph, x, 0.5f, (int)g->graph->nodes.count);
    }
}

/* One value from two, which may be the same. */
static struct value *merge(struct generator *g, struct value *a, struct value *b) {
    int h = MIN(a->shape.h, b->shape.h), w = MIN(a->shape.w, b->shape.w);
    a = crop_to(g, a, h, w);
    b = crop_to(g, b, h, w);
    if (chance(g, 0.4)) {
        if (a->shape.c != b->shape.c) {
            b = net_conv(g->graph, b, a->shape.c, true, &(struct attr){.kh = 1, .kw = 1});
        }
        return net_add(g->graph, a, b);
    }
    if (a->shape.c + b->shape.c > MAX_WIDTH) {
        b = net_conv(g->graph, b, pick(g, 1, 3), true, &(struct attr){.kh = 1, .kw = 1});
    }
    struct value *inputs[] = {a, b, a};
    bool thrice = 2 * a->shape.c + b->shape.c <= MAX_WIDTH && chance(g, 0.2);
    return net_concat(g->graph, inputs, thrice ? 3 : 2);
}

/* Any result so far, open or not. */
static struct value *any_result(struct generator *g) {
    size_t count = g->graph->nodes.count;
    return g->graph->nodes.items[rng_below(&g->rng, (uint32_t)count)]->outputs[0];
}

static void step(struct generator *g) {
    int i = pick(g, 0, g->n_open - 1);
    double kind = rng_uniform(&g->rng);
    if (kind < 0.2 && g->n_open < MAX_OPEN) {
        g->open[g->n_open++] = random_unary(g, any_result(g)); /* a branch */
    } else if (kind < 0.35) {
        g->open[i] = merge(g, g->open[i], any_result(g));
    } else if (kind < 0.45 && g->n_open > 1) {
        int last = --g->n_open;
        int other = i == last ? 0 : i;
        g->open[other] = merge(g, g->open[last], g->open[other]);
    } else {
        g->open[i] = random_unary(g, g->open[i]);
    }
}

void random_graph_build(struct graph *graph, struct arena *arena, uint64_t seed) {
    graph_init(graph, arena, "random");
    struct generator g = {.graph = graph, .rng = rng_stream(seed, 1, 0)};
    g.keep_size = chance(&g, 0.4);
    int h = g.keep_size ? 8 * pick(&g, 1, 2) : pick(&g, 7, 17);
    int w = g.keep_size ? 8 * pick(&g, 1, 2) : pick(&g, 7, 17);
    struct value *image = net_input(graph, pick(&g, 1, 2), pick(&g, 1, 3), h, w);
    g.open[g.n_open++] = random_conv(&g, image);
    for (int steps = pick(&g, 4, 10); steps > 0; steps--) {
        step(&g);
    }
    while (g.n_open > 1) {
        struct value *last = g.open[--g.n_open];
        g.open[0] = merge(&g, g.open[0], last);
    }
    struct value *logits =
        net_conv(graph, g.open[0], pick(&g, 2, 4), true, &(struct attr){.kh = 1, .kw = 1});
    struct node *loss = net_loss(graph, logits);
    if (chance(&g, 0.5)) {
        loss->outputs[0]->port = "probs";
    }
}

/* Tensors */

/* FNV-1a, Fowler, Noll and Vo. */
static uint32_t hash_name(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 16777619u;
    }
    return hash;
}

static int classes_of(const struct graph *graph, const struct value *labels) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        if (node->op == OP_SOFTMAX_LOSS && node->inputs[1] == labels) {
            return node->inputs[0]->shape.c;
        }
    }
    return 1;
}

static double draw(const struct value *value, int classes, struct rng *rng) {
    if (value->type == PLAN_TYPE_U32) {
        return rng_below(rng, (uint32_t)classes);
    }
    if (value->kind == VALUE_STATE) {
        return rng_range(rng, 0, 0.1); /* second moments are not negative */
    }
    if (value->kind == VALUE_PARAM) {
        struct shape s = value->shape;
        double fan_in = value->param->is_bias ? 25 : (value->param->transposed ? s.n : s.c) * s.h;
        return rng_normal(rng) * sqrt(1 / fan_in);
    }
    if (strcmp(value->name, "weights") == 0) {
        return rng_uniform(rng) < 0.1 ? 0 : rng_range(rng, 0.1, 2);
    }
    return rng_normal(rng);
}

double **random_graph_tensors(const struct graph *graph, uint64_t seed, struct arena *arena) {
    double **tensors = ARENA_ARRAY(arena, double *, graph->values.count);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind == VALUE_TEMP) {
            continue;
        }
        size_t count = shape_elements(value->shape);
        struct rng rng = rng_stream(seed, 2, hash_name(value->name));
        int classes = classes_of(graph, value);
        tensors[i] = ARENA_ARRAY(arena, double, count);
        for (size_t e = 0; e < count; e++) {
            tensors[i][e] = draw(value, classes, &rng);
        }
    }
    return tensors;
}

/* Small integers stay what they are through sums and slopes of 1/8. */
static double whole(const struct value *value, double v) {
    return value->kind == VALUE_PARAM ? (v > 0.3) - (v < -0.3) : fmax(-2, fmin(2, rint(v)));
}

double **random_graph_whole_tensors(const struct graph *graph, uint64_t seed, struct arena *arena) {
    double **tensors = random_graph_tensors(graph, seed, arena);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        const bool feeds_maps = value->kind == VALUE_PARAM || strcmp(value->name, "image") == 0;
        for (size_t e = 0; feeds_maps && e < shape_elements(value->shape); e++) {
            tensors[i][e] = whole(value, tensors[i][e]);
        }
    }
    return tensors;
}

bool random_graph_halves_are_exact(const struct graph *graph, double *const *tensors) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        if (node->op != OP_HALF_LOAD) {
            continue;
        }
        const struct value *x = node->inputs[0]->producer->inputs[0], *y = node->outputs[0];
        for (size_t e = 0; e < shape_elements(y->shape); e++) {
            if (tensors[x->id][e] != tensors[y->id][e]) {
                return false;
            }
        }
    }
    return true;
}

static uint64_t fewer_is_worse(struct graph *graph, const void *context) {
    (void)context;
    return UINT32_MAX - graph->nodes.count;
}

static uint64_t peak_after_passes(struct graph *graph, const void *context) {
    (void)context;
    skip_run(graph);
    inplace_run(graph);
    return storage_peak_bytes(graph);
}

const struct half_judge random_graph_half_all = {fewer_is_worse, NULL};
const struct half_judge random_graph_half_peak = {peak_after_passes, NULL};

/* Comparison */

static bool is_result(const struct value *value) {
    return (value->kind == VALUE_TEMP && value->port) || value->kind == VALUE_PARAM ||
           value->kind == VALUE_STATE;
}

static const struct value *find_result(const struct graph *graph, const struct value *like) {
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        const char *name = value->port ? value->port : value->name;
        if (value->kind == like->kind && is_result(value) &&
            strcmp(name, like->port ? like->port : like->name) == 0) {
            return value;
        }
    }
    return NULL;
}

bool random_graph_same(const struct graph *a, double *const *a_tensors, const struct graph *b,
                       double *const *b_tensors, double tolerance, const char **why) {
    static char text[256];
    *why = text;
    for (size_t i = 0; i < a->values.count; i++) {
        const struct value *x = a->values.items[i];
        if (!is_result(x)) {
            continue;
        }
        const struct value *y = find_result(b, x);
        if (!y || !shape_equal(x->shape, y->shape)) {
            snprintf(text, sizeof text, "%s is missing or has another shape", x->name);
            return false;
        }
        size_t count = shape_elements(x->shape);
        for (size_t e = 0; e < count; e++) {
            double p = a_tensors[x->id][e], q = b_tensors[y->id][e];
            if (!(fabs(p - q) <= tolerance * fmax(1, fabs(p)))) {
                snprintf(text, sizeof text, "%s[%zu] is %.17g before and %.17g after", x->name, e,
                         p, q);
                return false;
            }
        }
    }
    return true;
}

void random_graph_train(struct graph *graph, const struct model *model, bool accumulates) {
    struct err err = {0};
    struct autodiff_result gradients;
    if (!autodiff_run(graph, &gradients, &err)) {
        fail_msg("graph %s: %s", graph->name, err.text);
    }
    if (accumulates) {
        accumulate_run(graph, &gradients);
    } else {
        update_run(graph, model, &gradients);
    }
    vec_free(&gradients.params);
    vec_free(&gradients.gradients);
}

/* Comparison */

void random_graph_share(const struct graph *graph, double **tensors, struct arena *arena) {
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < graph->values.count; i++) {
            struct value *value = graph->values.items[i];
            bool view = value->storage && value->shape.n == 1;
            if (value->kind != VALUE_TEMP || view != (pass == 1)) {
                continue;
            }
            size_t count = shape_elements(value->shape);
            if (view) {
                size_t plane = (size_t)value->shape.h * (size_t)value->shape.w;
                tensors[i] = tensors[value->storage->id] + (size_t)value->storage_channel * plane;
                continue;
            }
            tensors[i] = ARENA_ARRAY(arena, double, count);
            for (size_t e = 0; e < count; e++) {
                tensors[i][e] = NAN;
            }
        }
    }
}

void random_graph_check_passes(const struct graph *plain, struct graph *changed,
                               random_graph_pass *const *passes, size_t n_passes,
                               const struct interpret_context *context, uint64_t seed,
                               struct arena *arena) {
    struct err err = {0};
    const char *why = "";
    for (size_t i = 0; i < n_passes; i++) {
        passes[i](changed);
        if (!graph_check(changed, &err)) {
            fail_msg("seed %llu, pass %zu: %s", (unsigned long long)seed, i, err.text);
        }
    }
    double **a = random_graph_tensors(plain, seed, arena);
    double **b = random_graph_tensors(changed, seed, arena);
    random_graph_share(changed, b, arena);
    interpret_run(plain, a, context, arena);
    interpret_run(changed, b, context, arena);
    if (!random_graph_same(plain, a, changed, b, 0, &why)) {
        fail_msg("seed %llu: %s", (unsigned long long)seed, why);
    }
}
