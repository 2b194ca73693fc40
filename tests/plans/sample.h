/*
 * sample.h: a plan built by hand, for the tests of plan files and of the verifier: a small net with
 * a skip connection, batch 2, as program "infer", and a training step with every kind of memory.
 */
#ifndef UNET_TEST_SAMPLE_H
#define UNET_TEST_SAMPLE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/plan.h"

static const uint32_t sample_code[] = {0x07230203u, 0x00010300u, 0, 8, 0, 0x00020011u, 1u};

struct builder {
    struct plan *plan;
    uint64_t next[PLAN_BLOCK_COUNT]; /* the end of each block so far */
};

#define MAX_ITEMS 64

static uint32_t add_tensor(struct builder *b, const char *name, enum plan_block block,
                           enum plan_layout layout, struct shape s, uint64_t offset_bytes) {
    struct plan *plan = b->plan;
    struct plan_tensor *t = &plan->tensors[plan->n_tensors];
    const uint64_t image = (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w;
    *t = (struct plan_tensor){.name = name,
                              .block = block,
                              .layout = layout,
                              .shape = s,
                              .base = plan->n_tensors,
                              .offset_bytes = offset_bytes};
    t->stride_n = layout == PLAN_LAYOUT_PLANES ? (uint32_t)image : 0;
    t->size_bytes =
        4 * image * (layout == PLAN_LAYOUT_WEIGHTS ? align_up((uint64_t)s.n, 4) : (uint64_t)s.n);
    b->next[block] = MAX(b->next[block], offset_bytes + align_up(t->size_bytes, PLAN_ALIGNMENT));
    plan->block_bytes[block] = b->next[block];
    return plan->n_tensors++;
}

static uint32_t append_tensor(struct builder *b, const char *name, enum plan_block block,
                              enum plan_layout layout, struct shape s) {
    return add_tensor(b, name, block, layout, s, b->next[block]);
}

/* Channels first .. first + count of a tensor. */
static uint32_t add_view(struct builder *b, const char *name, uint32_t base, int32_t first,
                         int32_t count) {
    const struct plan_tensor whole = b->plan->tensors[base];
    const uint64_t plane = 4 * (uint64_t)whole.shape.h * (uint64_t)whole.shape.w;
    struct shape s = whole.shape;
    s.c = count;
    uint32_t view = add_tensor(b, name, whole.block, whole.layout, s,
                               whole.offset_bytes + (uint64_t)first * plane);
    struct plan_tensor *t = &b->plan->tensors[view];
    t->base = base;
    t->stride_n = whole.stride_n;
    t->size_bytes = (uint64_t)(s.n - 1) * whole.stride_n * 4 + (uint64_t)count * plane;
    b->next[whole.block] = whole.offset_bytes + align_up(whole.size_bytes, PLAN_ALIGNMENT);
    return view;
}

static uint32_t add_param(struct builder *b, const char *name, const char *state,
                          enum plan_layout layout, struct shape s, bool transposed) {
    struct plan *plan = b->plan;
    struct plan_param *param = &plan->params[plan->n_params++];
    param->name = name;
    param->tensor = append_tensor(b, name, PLAN_BLOCK_WEIGHTS, layout, s);
    param->accumulator = PLAN_NONE;
    param->n_states = 1;
    param->states[0] = append_tensor(b, state, PLAN_BLOCK_STATE, layout, s);
    param->state_names[0] = "momentum";
    param->transposed = transposed;
    param->init = layout == PLAN_LAYOUT_WEIGHTS ? PLAN_INIT_NORMAL : PLAN_INIT_ZERO;
    param->init_scale = 0.5f;
    if (layout == PLAN_LAYOUT_WEIGHTS) {
        param->rank = 4;
        param->dims[0] = (uint32_t)(transposed ? s.c : s.n);
        param->dims[1] = (uint32_t)(transposed ? s.n : s.c);
        param->dims[2] = (uint32_t)s.h;
        param->dims[3] = (uint32_t)s.w;
    } else {
        param->rank = 1;
        param->dims[0] = (uint32_t)s.c;
    }
    return param->tensor;
}

static struct plan_program *add_program(struct builder *b, const char *name) {
    struct plan_program *program = &b->plan->programs[b->plan->n_programs++];
    *program = (struct plan_program){.name = name};
    program->records = ARENA_ARRAY(&b->plan->arena, struct plan_record, MAX_ITEMS);
    program->ports = ARENA_ARRAY(&b->plan->arena, struct plan_port, MAX_ITEMS);
    return program;
}

static void add_port(struct plan_program *program, const char *name, enum plan_direction direction,
                     uint32_t tensor) {
    program->ports[program->n_ports++] = (struct plan_port){name, direction, tensor};
}

static void add_record(struct plan_program *program, enum kernel_id kernel, const char *label,
                       bool barrier, const uint32_t *tensors, const void *params) {
    struct plan_record *record = &program->records[program->n_records++];
    record->label = label;
    record->choice = PLAN_NONE;
    record->kernel = kernel;
    record->barrier = barrier;
    record->flops = 1000;
    memcpy(record->tensors, tensors, sizeof(uint32_t) * kernel_table[kernel].n_bindings);
    memcpy(record->params, params, sizeof(uint32_t) * kernel_table[kernel].n_params);
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++)
        record->dispatch[cls] = (struct plan_dispatch){.shader = (uint32_t)cls,
                                                       .n_spec = 4,
                                                       .spec = {64, 1, 1, 7},
                                                       .groups = {3, 2, 1},
                                                       .shared_bytes = 16};
}

#define TENSORS(...) ((const uint32_t[]){__VA_ARGS__})

/* Arena bytes and bytes live at once, asked of every tensor at every record. */
static void set_figures(struct plan *plan, struct plan_program *program) {
    for (uint32_t r = 0; r < program->n_records; r++) {
        uint64_t live = 0;
        for (uint32_t t = 0; t < plan->n_tensors; t++) {
            bool before = false, after = false;
            for (uint32_t i = 0; i < program->n_records; i++) {
                const struct plan_record *record = &program->records[i];
                for (uint32_t k = 0; k < kernel_table[record->kernel].n_bindings; k++) {
                    const bool uses = plan->tensors[record->tensors[k]].base == t;
                    before |= uses && i <= r;
                    after |= uses && i >= r;
                }
            }
            if (plan->tensors[t].block != PLAN_BLOCK_ARENA || !before || !after)
                continue;
            const uint64_t size_bytes = align_up(plan->tensors[t].size_bytes, 256);
            live += size_bytes;
            program->arena_bytes =
                MAX(program->arena_bytes, plan->tensors[t].offset_bytes + size_bytes);
        }
        program->lower_bound_bytes = MAX(program->lower_bound_bytes, live);
    }
    program->naive_arena_bytes = program->arena_bytes * 2;
}

static struct conv_params conv_3x3(uint32_t n, uint32_t c_in, uint32_t c_out, uint32_t hw,
                                   uint32_t epilogue) {
    return (struct conv_params){.n = n,
                                .c_in = c_in,
                                .h_in = hw,
                                .w_in = hw,
                                .x_stride_n = c_in * hw * hw,
                                .c_out = c_out,
                                .h_out = hw,
                                .w_out = hw,
                                .y_stride_n = c_out * hw * hw,
                                .pad_h = 1,
                                .pad_w = 1,
                                .dilation = 1,
                                .kh = 3,
                                .kw = 3,
                                .epilogue = epilogue};
}

struct net {
    uint32_t image, labels, weights, probs, loss, control;
    uint32_t w1, b1, w2, b2, w3, w4, b4;
};

static void build_tensors(struct builder *b, struct net *net) {
    const enum plan_layout planes = PLAN_LAYOUT_PLANES, flat = PLAN_LAYOUT_FLAT;
    const enum plan_layout weights = PLAN_LAYOUT_WEIGHTS;
    net->image = append_tensor(b, "image", PLAN_BLOCK_IO, planes, (struct shape){2, 1, 8, 8});
    net->labels = append_tensor(b, "labels", PLAN_BLOCK_IO, planes, (struct shape){2, 1, 8, 8});
    b->plan->tensors[net->labels].type = PLAN_TYPE_U32;
    net->weights = append_tensor(b, "weights", PLAN_BLOCK_IO, flat, (struct shape){1, 1, 1, 128});
    net->probs = append_tensor(b, "probs", PLAN_BLOCK_IO, planes, (struct shape){2, 2, 8, 8});
    net->loss = append_tensor(b, "loss", PLAN_BLOCK_IO, flat, (struct shape){1, 1, 1, LOSS_WORDS});
    net->control =
        append_tensor(b, "control", PLAN_BLOCK_CONTROL, flat, (struct shape){1, 1, 1, 8});
    net->w1 = add_param(b, "c1.weight", "c1.m", weights, (struct shape){4, 1, 3, 3}, false);
    net->b1 = add_param(b, "c1.bias", "c1.bm", flat, (struct shape){1, 4, 1, 1}, false);
    net->w2 = add_param(b, "c2.weight", "c2.m", weights, (struct shape){8, 4, 3, 3}, false);
    net->b2 = add_param(b, "c2.bias", "c2.bm", flat, (struct shape){1, 8, 1, 1}, false);
    net->w3 = add_param(b, "up.weight", "up.m", weights, (struct shape){4, 8, 2, 2}, true);
    net->w4 = add_param(b, "c4.weight", "c4.m", weights, (struct shape){2, 8, 3, 3}, false);
    net->b4 = add_param(b, "c4.bias", "c4.bm", flat, (struct shape){1, 2, 1, 1}, false);
}

/* conv -> act in place -> pool -> conv -> up-conv, joined with the skip -> conv -> softmax. */
static void build_infer(struct builder *b, const struct net *net) {
    const enum plan_layout planes = PLAN_LAYOUT_PLANES;
    struct plan_program *p = add_program(b, "infer");
    const uint32_t cat =
        add_tensor(b, "cat", PLAN_BLOCK_ARENA, planes, (struct shape){2, 8, 8, 8}, 0);
    const uint32_t up = add_view(b, "up", cat, 0, 4), skip = add_view(b, "skip", cat, 4, 4);
    const uint32_t q =
        add_tensor(b, "q", PLAN_BLOCK_ARENA, planes, (struct shape){2, 8, 4, 4}, 4096);
    const uint32_t pooled =
        add_tensor(b, "pooled", PLAN_BLOCK_ARENA, planes, (struct shape){2, 4, 4, 4}, 5120);
    const uint32_t logits =
        add_tensor(b, "logits", PLAN_BLOCK_ARENA, planes, (struct shape){2, 2, 8, 8}, 4096);

    struct conv_params conv = conv_3x3(2, 1, 4, 8, EPILOGUE_BIAS);
    conv.y_stride_n = 512;
    add_record(p, KERNEL_ID_conv_fwd, "c1 forward", false,
               TENSORS(net->image, net->w1, net->b1, skip), &conv);
    const struct act_fwd_params act = {.n = 2, .count = 256, .x_stride_n = 512, .y_stride_n = 512};
    add_record(p, KERNEL_ID_act_fwd, "c1 act", true, TENSORS(skip, skip), &act);
    const struct maxpool_params pool = {.n = 2,
                                        .c = 4,
                                        .h_in = 8,
                                        .w_in = 8,
                                        .x_stride_n = 512,
                                        .h_out = 4,
                                        .w_out = 4,
                                        .y_stride_n = 64,
                                        .kernel = 2,
                                        .stride = 2,
                                        .dilation = 1};
    add_record(p, KERNEL_ID_maxpool_fwd, "pool", true, TENSORS(skip, pooled), &pool);
    conv = conv_3x3(2, 4, 8, 4, EPILOGUE_BIAS | EPILOGUE_ACT);
    p->n_choices = 1;
    p->choices = ARENA_ARRAY(&b->plan->arena, struct plan_choice, 1);
    p->choices[0] = (struct plan_choice){
        .name = "c2 forward",
        .n_methods = 2,
        .methods = {{PLAN_METHOD_DIRECT, {0, 1, -2, 0}}, {PLAN_METHOD_WINOGRAD, {0, 0, 3, -1}}}};
    add_record(p, KERNEL_ID_conv_fwd, "c2 forward", true, TENSORS(pooled, net->w2, net->b2, q),
               &conv);
    p->records[p->n_records - 1].choice = 0;
    add_record(p, KERNEL_ID_conv_fwd, "c2 again", false, TENSORS(pooled, net->w2, net->b2, q),
               &conv);
    p->records[p->n_records - 1].choice = 0;
    p->records[p->n_records - 1].method = 1;
    const struct upconv_params upconv = {.n = 2,
                                         .c_in = 8,
                                         .h_in = 4,
                                         .w_in = 4,
                                         .x_stride_n = 128,
                                         .c_out = 4,
                                         .y_stride_n = 512,
                                         .k = 2};
    add_record(p, KERNEL_ID_upconv_fwd, "up forward", true, TENSORS(q, net->w3, q, up), &upconv);
    conv = conv_3x3(2, 8, 2, 8, EPILOGUE_BIAS);
    add_record(p, KERNEL_ID_conv_fwd, "c4 forward", true, TENSORS(cat, net->w4, net->b4, logits),
               &conv);
    const struct softmax_params softmax = {
        .n = 2, .k = 2, .hw = 64, .x_stride_n = 128, .y_stride_n = 128};
    add_record(p, KERNEL_ID_softmax, "softmax", true, TENSORS(logits, net->probs), &softmax);
    add_port(p, "image", PLAN_IN, net->image);
    add_port(p, "probs", PLAN_OUT, net->probs);
    set_figures(b->plan, p);
}

struct step {
    uint32_t f, lg, partial, dl, part, dw, db, wt, df;
};

static void build_step_tensors(struct builder *b, struct step *s) {
    const enum plan_layout planes = PLAN_LAYOUT_PLANES, flat = PLAN_LAYOUT_FLAT;
    const enum plan_block arena = PLAN_BLOCK_ARENA;
    s->f = add_tensor(b, "f", arena, planes, (struct shape){2, 8, 8, 8}, 0);
    s->lg = add_tensor(b, "lg", arena, planes, (struct shape){2, 2, 8, 8}, 4096);
    s->partial = add_tensor(b, "loss sums", arena, flat, (struct shape){1, 1, 1, 4}, 5120);
    s->dl = add_tensor(b, "dl", arena, planes, (struct shape){2, 2, 8, 8}, 4096);
    s->part = add_tensor(b, "dw sums", arena, flat, (struct shape){3, 288, 1, 1}, 5120);
    s->dw = add_tensor(b, "dw", arena, PLAN_LAYOUT_WEIGHTS, (struct shape){2, 8, 3, 3}, 8704);
    s->db = add_tensor(b, "db", arena, flat, (struct shape){1, 2, 1, 1}, 9984);
    s->wt = add_tensor(b, "wt", arena, PLAN_LAYOUT_WEIGHTS, (struct shape){8, 2, 3, 3}, 5120);
    s->df = add_tensor(b, "df", arena, planes, (struct shape){2, 8, 8, 8}, 10240);
}

static void build_forward(struct plan_program *p, const struct net *net, const struct step *s) {
    struct conv_params conv = conv_3x3(2, 1, 8, 8, EPILOGUE_BIAS | EPILOGUE_ACT);
    const struct add_params add = {2, 512, 512, 512, 512};
    const struct dropout_params dropout = {.n = 2,
                                           .count = 512,
                                           .x_stride_n = 512,
                                           .y_stride_n = 512,
                                           .layer = 3,
                                           .threshold = 0x40000000u,
                                           .scale = 4.0f / 3.0f};
    add_record(p, KERNEL_ID_conv_fwd, "first forward", false,
               TENSORS(net->image, net->w1, net->b1, s->f), &conv);
    add_record(p, KERNEL_ID_dropout, "dropout", true, TENSORS(s->f, net->control, s->f), &dropout);
    add_record(p, KERNEL_ID_add, "double", true, TENSORS(s->f, s->f, s->f), &add);
    conv = conv_3x3(2, 8, 2, 8, EPILOGUE_BIAS);
    add_record(p, KERNEL_ID_conv_fwd, "last forward", true, TENSORS(s->f, net->w4, net->b4, s->lg),
               &conv);
    const struct softmax_loss_params loss = {
        .n = 2, .k = 2, .hw = 64, .logits_stride_n = 128, .probs_stride_n = 128};
    add_record(p, KERNEL_ID_softmax_loss, "loss", true,
               TENSORS(s->lg, net->labels, net->weights, net->probs, s->partial), &loss);
    const struct loss_reduce_params reduce = {1};
    add_record(p, KERNEL_ID_loss_reduce, "loss sum", true, TENSORS(s->partial, net->loss), &reduce);
}

static void build_backward(struct plan_program *p, const struct net *net, const struct step *s) {
    const struct softmax_loss_grad_params grad = {2, 2, 64, 128, 128};
    add_record(p, KERNEL_ID_softmax_loss_grad, "loss gradient", true,
               TENSORS(net->probs, net->labels, net->weights, net->loss, s->dl), &grad);
    const struct conv_wgrad_params wgrad = {.n = 2,
                                            .c_in = 8,
                                            .h_in = 8,
                                            .w_in = 8,
                                            .x_stride_n = 512,
                                            .c_out = 2,
                                            .h_out = 8,
                                            .w_out = 8,
                                            .dy_stride_n = 128,
                                            .pad_h = 1,
                                            .pad_w = 1,
                                            .dilation = 1,
                                            .kh = 3,
                                            .kw = 3,
                                            .splits = 3};
    add_record(p, KERNEL_ID_conv_wgrad, "last weight gradient", true, TENSORS(s->f, s->dl, s->part),
               &wgrad);
    const struct wgrad_reduce_params reduce = {.count = 288, .splits = 3};
    add_record(p, KERNEL_ID_wgrad_reduce, "last weight sum", true, TENSORS(s->part, s->dw),
               &reduce);
    const struct bias_grad_params bias = {2, 2, 8, 8, 128};
    add_record(p, KERNEL_ID_bias_grad, "last bias gradient", false, TENSORS(s->dl, s->db), &bias);
    const struct weights_transpose_params transpose = {8, 2, 9, 1};
    add_record(p, KERNEL_ID_weights_transpose, "last transposed", true, TENSORS(net->w4, s->wt),
               &transpose);
    struct conv_params dgrad = conv_3x3(2, 2, 8, 8, EPILOGUE_MASK);
    dgrad.aux_stride_n = 512;
    add_record(p, KERNEL_ID_conv_dgrad, "last data gradient", true,
               TENSORS(s->dl, s->wt, s->f, s->df), &dgrad);
    const struct act_bwd_params act = {
        .n = 2, .count = 512, .y_stride_n = 512, .dy_stride_n = 512, .dx_stride_n = 512};
    add_record(p, KERNEL_ID_act_bwd, "act backward", true, TENSORS(s->f, s->df, s->df), &act);
}

static uint32_t state_of(const struct plan *plan, uint32_t tensor) {
    for (uint32_t i = 0; i < plan->n_params; i++) {
        if (plan->params[i].tensor == tensor)
            return plan->params[i].states[0];
    }
    return PLAN_NONE;
}

static void build_step(struct builder *b, struct net *net) {
    struct plan_program *p = add_program(b, "train_step");
    struct net first = *net;
    struct step s;
    build_step_tensors(b, &s);
    first.w1 = add_param(b, "first.weight", "first.m", PLAN_LAYOUT_WEIGHTS,
                         (struct shape){8, 1, 3, 3}, false);
    first.b1 = net->b2;
    build_forward(p, &first, &s);
    build_backward(p, &first, &s);
    const struct sgd_params sgd = {.count = 288, .momentum = 0.9f},
                            sgd_bias = {.count = 2, .momentum = 0.9f};
    add_record(p, KERNEL_ID_sgd, "last.weight", false,
               TENSORS(net->w4, s.dw, state_of(b->plan, net->w4), net->control), &sgd);
    add_record(p, KERNEL_ID_sgd, "last.bias", false,
               TENSORS(net->b4, s.db, state_of(b->plan, net->b4), net->control), &sgd_bias);
    add_port(p, "image", PLAN_IN, net->image);
    add_port(p, "labels", PLAN_IN, net->labels);
    add_port(p, "weights", PLAN_IN, net->weights);
    add_port(p, "loss", PLAN_OUT, net->loss);
    add_port(p, "probs", PLAN_OUT, net->probs);
    set_figures(b->plan, p);
}

static void build_model(struct plan *plan) {
    static const struct plan_label labels[] = {{0, 0, 0, "outside", 1.0f, false},
                                               {255, 255, 1, "cell", 2.5f, false}};
    plan->model = (struct plan_model){.name = "small",
                                      .source = "small.yaml",
                                      .overrides = "width=4",
                                      .hash = 0x123456789abcdefu,
                                      .batch = 2,
                                      .channels = 1,
                                      .n_classes = 2,
                                      .in_h = 8,
                                      .in_w = 8,
                                      .out_h = 8,
                                      .out_w = 8,
                                      .margin_top = 0,
                                      .margin_left = 0,
                                      .core_h = 4,
                                      .core_w = 4,
                                      .stride_h = 2,
                                      .stride_w = 2,
                                      .normalise = PLAN_NORMALISE_UNIT,
                                      .input_offset = 0.5f,
                                      .input_scale = 2.0f,
                                      .n_labels = 2,
                                      .labels = arena_alloc(&plan->arena, sizeof(labels)),
                                      .has_ignore = true,
                                      .ignore_value = 128,
                                      .optimiser = PLAN_OPTIMISER_SGD,
                                      .learning_rate = 0.01f,
                                      .momentum = 0.9f,
                                      .schedule = PLAN_SCHEDULE_POLY,
                                      .schedule_gamma = 0.9f,
                                      .warmup_steps = 10,
                                      .default_steps = 1000,
                                      .accumulate = 1,
                                      .augment = {.scale_min = 1,
                                                  .scale_max = 1,
                                                  .mirror_probability = 0.5f,
                                                  .shift = true,
                                                  .grey_slope_min = 0.9f,
                                                  .grey_slope_max = 1.1f,
                                                  .grey_probability = 0.1f},
                                      .weights = {.sigma = 5}};
    memcpy(plan->model.labels, labels, sizeof(labels));
}

static struct plan *build_plan(void) {
    struct plan *plan = calloc(1, sizeof(*plan));
    struct builder b = {.plan = plan};
    plan->tensors = ARENA_ARRAY(&plan->arena, struct plan_tensor, MAX_ITEMS);
    plan->params = ARENA_ARRAY(&plan->arena, struct plan_param, MAX_ITEMS);
    plan->programs = ARENA_ARRAY(&plan->arena, struct plan_program, 4);
    plan->shaders = ARENA_ARRAY(&plan->arena, struct plan_shader, 2);
    plan->n_shaders = 2;
    for (uint32_t i = 0; i < 2; i++)
        plan->shaders[i] = (struct plan_shader){.variant = i == 0 ? "any_gpu" : "any_cpu",
                                                .code = {sample_code, sample_code},
                                                .n_words = {6 + i, 7}};
    struct net net;
    build_model(plan);
    build_tensors(&b, &net);
    build_infer(&b, &net);
    build_step(&b, &net);
    return plan;
}

#endif
