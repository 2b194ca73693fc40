/*
 * build.c: a model whose sizes are checked (model_sizes.c) -> the graphs of its programs. One node
 * per layer, plus crops in front of concat and add; nothing is fused here.
 */
#include <math.h>
#include <stdio.h>

#include "compiler/model.h"

struct building {
    struct model *model;
    struct graph *graph;
    enum model_program program;
    struct err *err;
    struct value **outputs; /* of each layer */
    size_t next_param;
};

/* Parameters */

static bool trains(const struct building *b) {
    return b->program == MODEL_TRAIN || b->program == MODEL_ACCUMULATE;
}

static bool has_params(const struct layer *layer) {
    return layer->kind == LAYER_CONV || layer->kind == LAYER_UPCONV;
}

static bool activation_follows(const struct model *model, int layer) {
    for (size_t i = 0; i < model->layers.count; i++) {
        const struct layer *user = &model->layers.items[i];
        if (user->n_inputs == 1 && user->inputs[0] == layer &&
            (user->kind == LAYER_RELU || user->kind == LAYER_LEAKY_RELU))
            return true;
    }
    return false;
}

/*
 * He et al. 2015: variance 2 / fan-in keeps the variance through a layer whose input has passed a
 * ReLU. An up-conv with kernel = stride gives each output pixel c_in products. Without an
 * activation behind it, 1 / c_in hands on the mean square of its input, so that the maps it is
 * concatenated with are of its size; this equals 2 / (4 c_out), the released net's rule, where an
 * up-conv of kernel 2 halves the channels.
 */
static void set_init(const struct model *model, int index, int c_in, struct param *param) {
    const struct layer *layer = &model->layers.items[index];
    const bool upconv = layer->kind == LAYER_UPCONV;
    const double taps = (double)layer->kernel_h * layer->kernel_w;
    const double fan_in = upconv ? c_in : c_in * taps;
    const double fan_out = layer->channels * taps;
    const double gain = upconv && !activation_follows(model, index) ? 1 : 2;
    param->init_scale = layer->init.scale;
    switch (layer->init.kind) {
    case LAYER_INIT_HE:
        param->init = PLAN_INIT_NORMAL;
        param->init_scale = (float)sqrt(gain / fan_in);
        break;
    case LAYER_INIT_XAVIER:
        param->init = PLAN_INIT_UNIFORM;
        param->init_scale = (float)sqrt(6 / (fan_in + fan_out));
        break;
    case LAYER_INIT_NORMAL:
        param->init = PLAN_INIT_NORMAL;
        break;
    case LAYER_INIT_UNIFORM:
        param->init = PLAN_INIT_UNIFORM;
        break;
    case LAYER_INIT_ZERO:
        param->init = PLAN_INIT_ZERO;
        break;
    }
}

static void add_params(struct model *model, int index) {
    const struct layer *layer = &model->layers.items[index];
    const int c_in = model->layers.items[layer->inputs[0]].channels, c_out = layer->channels;
    struct param *weight = ARENA_NEW(&model->arena, struct param);
    weight->name = arena_printf(&model->arena, "%s.weight", layer->name);
    weight->transposed = layer->kind == LAYER_UPCONV;
    weight->shape =
        (struct shape){weight->transposed ? c_in : c_out, weight->transposed ? c_out : c_in,
                       layer->kernel_h, layer->kernel_w};
    set_init(model, index, c_in, weight);
    vec_push(&model->params, weight);
    if (!layer->bias)
        return;
    struct param *bias = ARENA_NEW(&model->arena, struct param);
    bias->name = arena_printf(&model->arena, "%s.bias", layer->name);
    bias->shape = (struct shape){1, c_out, 1, 1};
    bias->is_bias = true;
    bias->init = PLAN_INIT_ZERO;
    vec_push(&model->params, bias);
}

size_t model_params(struct model *model, const struct param *const **out) {
    for (size_t i = 0; !model->params_made && i < model->layers.count; i++)
        if (has_params(&model->layers.items[i]))
            add_params(model, (int)i);
    model->params_made = true;
    *out = model->params.items;
    return model->params.count;
}

/* Nodes */

static struct value *param_value(struct building *b) {
    const struct param *param = b->model->params.items[b->next_param++];
    struct value *value = graph_value(b->graph, VALUE_PARAM, param->name, param->shape);
    value->param = param;
    return value;
}

static struct value *input_value(struct building *b, const char *port, int channels, uint32_t h,
                                 uint32_t w, enum plan_type type) {
    const int batch = (int)b->model->settings.batch;
    struct value *value =
        graph_value(b->graph, VALUE_INPUT, port, (struct shape){batch, channels, (int)h, (int)w});
    value->type = type;
    value->port = value->name;
    return value;
}

/* Appends a node for a layer; NULL when the shape rule objects. */
static struct node *append(struct building *b, const struct layer *layer, enum op_kind op,
                           struct value *const *inputs, int n_inputs, const struct attr *attr) {
    struct node *node = NULL;
    const int n_outputs = op == OP_SOFTMAX_LOSS ? 2 : 1;
    if (!graph_append(b->graph, op, layer->name, n_outputs, inputs, n_inputs, attr, &node, b->err))
        return NULL;
    node->pos = layer->pos;
    return node;
}

static struct value *append_one(struct building *b, const struct layer *layer, enum op_kind op,
                                struct value *const *inputs, int n_inputs,
                                const struct attr *attr) {
    struct node *node = append(b, layer, op, inputs, n_inputs, attr);
    return node != NULL ? node->outputs[0] : NULL;
}

static struct value *build_conv(struct building *b, const struct layer *layer, struct value *x) {
    const bool upconv = layer->kind == LAYER_UPCONV;
    struct value *inputs[3] = {x, param_value(b), NULL};
    if (layer->bias)
        inputs[2] = param_value(b);
    struct attr attr = {.kh = layer->kernel_h, .kw = layer->kernel_w};
    attr.dilation = layer->dilation;
    attr.stride = upconv ? layer->kernel_h : 1;
    attr.recompute = layer->recompute && trains(b);
    if (layer->same) {
        attr.pad_h = layer->dilation * (layer->kernel_h - 1) / 2;
        attr.pad_w = layer->dilation * (layer->kernel_w - 1) / 2;
    }
    return append_one(b, layer, upconv ? OP_UPCONV : OP_CONV, inputs, 2 + layer->bias, &attr);
}

/* The middle h x w pixels of x; where the difference is odd, the upper left of the two middles. */
static struct value *crop(struct building *b, const struct layer *layer, struct value *x, int h,
                          int w) {
    if (x->shape.h == h && x->shape.w == w)
        return x;
    struct attr attr = {.top = (x->shape.h - h) / 2, .left = (x->shape.w - w) / 2};
    attr.shape = (struct shape){x->shape.n, x->shape.c, h, w};
    return append_one(b, layer, OP_CROP, &x, 1, &attr);
}

static struct value *build_join(struct building *b, const struct layer *layer) {
    struct value *inputs[LAYER_MAX_INPUTS];
    int h = INT32_MAX, w = INT32_MAX;
    const struct attr none = {0};
    for (int i = 0; i < layer->n_inputs; i++) {
        inputs[i] = b->outputs[layer->inputs[i]];
        h = MIN(h, inputs[i]->shape.h);
        w = MIN(w, inputs[i]->shape.w);
    }
    for (int i = 0; i < layer->n_inputs; i++) {
        inputs[i] = crop(b, layer, inputs[i], h, w);
        if (inputs[i] == NULL)
            return NULL;
    }
    if (layer->kind == LAYER_CONCAT)
        return append_one(b, layer, OP_CONCAT, inputs, layer->n_inputs, &none);
    struct value *sum = inputs[0];
    for (int i = 1; i < layer->n_inputs && sum != NULL; i++) {
        struct value *terms[2] = {sum, inputs[i]};
        sum = append_one(b, layer, OP_ADD, terms, 2, &none);
    }
    return sum;
}

static struct value *build_pool(struct building *b, const struct layer *layer, struct value *x) {
    const struct attr attr = {.kh = layer->kernel_h,
                              .kw = layer->kernel_w,
                              .stride = layer->stride,
                              .dilation = layer->dilation};
    return append_one(b, layer, OP_MAXPOOL, &x, 1, &attr);
}

static struct value *build_dropout(struct building *b, const struct layer *layer, int index,
                                   struct value *x) {
    if (!trains(b) || layer->rate == 0)
        return x;
    const struct attr attr = {.rate = layer->rate, .layer = index};
    return append_one(b, layer, OP_DROPOUT, &x, 1, &attr);
}

/* The end of every program. */
static struct value *build_end(struct building *b, const struct layer *layer, struct value *x) {
    const struct attr none = {0};
    if (b->program == MODEL_INFER) {
        struct value *probs = append_one(b, layer, OP_SOFTMAX, &x, 1, &none);
        if (probs != NULL)
            probs->port = "probs";
        return probs;
    }
    const uint32_t h = (uint32_t)x->shape.h, w = (uint32_t)x->shape.w;
    struct value *inputs[3] = {x, input_value(b, "labels", 1, h, w, PLAN_TYPE_U32),
                               input_value(b, "weights", 1, h, w, PLAN_TYPE_F32)};
    struct node *node = append(b, layer, OP_SOFTMAX_LOSS, inputs, 3, &none);
    if (node == NULL)
        return NULL;
    if (b->program == MODEL_EVALUATE)
        node->outputs[0]->port = "probs";
    node->outputs[1]->port = "loss";
    return node->outputs[0];
}

static struct value *build_layer(struct building *b, int index) {
    const struct layer *layer = &b->model->layers.items[index];
    const struct attr act = {.slope = layer->slope};
    struct value *x = b->outputs[layer->inputs[0]];
    switch (layer->kind) {
    case LAYER_INPUT:
        return input_value(b, "image", b->model->channels, b->model->settings.in_h,
                           b->model->settings.in_w, PLAN_TYPE_F32);
    case LAYER_CONV:
    case LAYER_UPCONV:
        return build_conv(b, layer, x);
    case LAYER_RELU:
    case LAYER_LEAKY_RELU:
        return append_one(b, layer, OP_ACT, &x, 1, &act);
    case LAYER_MAXPOOL:
        return build_pool(b, layer, x);
    case LAYER_CONCAT:
    case LAYER_ADD:
        return build_join(b, layer);
    case LAYER_DROPOUT:
        return build_dropout(b, layer, index, x);
    case LAYER_SOFTMAX:
        return x; /* cross_entropy contains it */
    case LAYER_CROSS_ENTROPY:
        return build_end(b, layer, x);
    }
    return NULL;
}

bool build_graph(struct model *model, enum model_program program, struct graph *graph,
                 struct err *err) {
    const struct param *const *params;
    model_params(model, &params);
    struct building b = {.model = model, .graph = graph, .program = program, .err = err};
    b.outputs = ARENA_ARRAY(graph->arena, struct value *, model->layers.count);
    for (size_t i = 0; i < model->layers.count; i++) {
        b.outputs[i] = build_layer(&b, (int)i);
        if (b.outputs[i] == NULL)
            return false;
    }
    return true;
}
