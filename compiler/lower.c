/*
 * lower.c: from a graph to dispatch records. Walks the nodes and lets each op emit its records;
 * keeps the table from values to plan tensors. Two values that are the same memory (storage
 * decisions of skip.c and inplace.c) get the same tensor, so that lifetimes are those of memory,
 * not of names.
 */
#include <assert.h>
#include <string.h>

#include "compiler/lower_internal.h"
#include "compiler/passes.h"

uint64_t lower_weight_elements(int in, int out, int taps) {
    return (uint64_t)in * (uint64_t)taps * align_up((uint64_t)out, 4);
}

static uint32_t add_tensor(struct lower_plan *plan, struct plan_tensor tensor) {
    uint32_t index = (uint32_t)plan->tensors.count;
    if (tensor.base == PLAN_NONE) {
        tensor.base = index;
    }
    vec_push(&plan->tensors, tensor);
    return index;
}

static uint32_t add_flat(struct lower_plan *plan, const char *name, enum plan_block block,
                         uint64_t elements) {
    struct plan_tensor tensor = {.name = name,
                                 .block = block,
                                 .layout = PLAN_LAYOUT_FLAT,
                                 .shape = {1, 1, 1, (int32_t)elements},
                                 .base = PLAN_NONE,
                                 .size_bytes = elements * 4};
    return add_tensor(plan, tensor);
}

static uint32_t add_weights(struct lower_plan *plan, const char *name, enum plan_block block,
                            int in, int out, int kh, int kw) {
    struct plan_tensor tensor = {.name = name,
                                 .block = block,
                                 .layout = PLAN_LAYOUT_WEIGHTS,
                                 .shape = {out, in, kh, kw},
                                 .base = PLAN_NONE,
                                 .size_bytes = lower_weight_elements(in, out, kh * kw) * 4};
    return add_tensor(plan, tensor);
}

/* A parameter, its gradient or its optimiser state. */
static uint32_t add_param_like(struct lower_plan *plan, const char *name, enum plan_block block,
                               const struct param *param) {
    struct shape s = param->shape;
    if (param->is_bias) {
        return add_flat(plan, name, block, shape_elements(s));
    }
    int in = param->transposed ? s.n : s.c, out = param->transposed ? s.c : s.n;
    return add_weights(plan, name, block, in, out, s.h, s.w);
}

void lower_plan_init(struct lower_plan *plan, struct arena *arena,
                     const struct param *const *params, size_t n_params, int n_states,
                     bool accumulates, bool scales) {
    memset(plan, 0, sizeof(*plan));
    plan->arena = arena;
    plan->params = params;
    plan->n_params = n_params;
    plan->param_tensors = ARENA_ARRAY(arena, uint32_t, n_params);
    plan->state_tensors = arena_alloc(arena, n_params * sizeof(plan->state_tensors[0]));
    for (size_t i = 0; i < n_params; i++) {
        const char *name = arena_strdup(arena, params[i]->name);
        plan->param_tensors[i] = add_param_like(plan, name, PLAN_BLOCK_WEIGHTS, params[i]);
    }
    for (size_t i = 0; i < n_params; i++) {
        for (int s = 0; s < n_states; s++) {
            const char *name = arena_printf(arena, "%s.state%d", params[i]->name, s);
            plan->state_tensors[i][s] = add_param_like(plan, name, PLAN_BLOCK_STATE, params[i]);
        }
    }
    for (size_t i = 0; i < n_params; i++) {
        const char *name = arena_printf(arena, "%s.accumulated", params[i]->name);
        plan->state_tensors[i][STATE_ACCUMULATOR] =
            accumulates ? add_param_like(plan, name, PLAN_BLOCK_STATE, params[i]) : PLAN_NONE;
    }
    plan->loss_scale =
        scales ? add_flat(plan, PLAN_LOSS_SCALE, PLAN_BLOCK_STATE, LOSS_SCALE_WORDS) : PLAN_NONE;
    plan->control = add_flat(plan, "control", PLAN_BLOCK_CONTROL, CONTROL_WORDS);
}

void lower_plan_free(struct lower_plan *plan) {
    vec_free(&plan->tensors);
    vec_free(&plan->shaders);
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        vec_free(&plan->chunks[block].splits);
    }
}

static size_t param_index(const struct lower_plan *plan, const struct param *param) {
    for (size_t i = 0; i < plan->n_params; i++) {
        if (plan->params[i] == param) {
            return i;
        }
    }
    assert(!"parameter of another model");
    return 0;
}

uint32_t lower_stride_n(const struct value *value) {
    struct shape s = storage_root((struct value *)value)->shape;
    return (uint32_t)(s.c * s.h * s.w);
}

bool lower_same_memory(const struct value *a, const struct value *b) {
    return storage_root((struct value *)a) == storage_root((struct value *)b) &&
           storage_channel(a) == storage_channel(b) && shape_equal(a->shape, b->shape);
}

/* Inputs and outputs are shared by all programs that have a port of that name and shape. */
static uint32_t port_tensor(struct lower_plan *plan, struct plan_tensor tensor) {
    for (size_t i = 0; i < plan->tensors.count; i++) {
        const struct plan_tensor *other = &plan->tensors.items[i];
        if (other->block == PLAN_BLOCK_IO && strcmp(other->name, tensor.name) == 0 &&
            shape_equal(other->shape, tensor.shape)) {
            return (uint32_t)i;
        }
    }
    return add_tensor(plan, tensor);
}

/* A gradient of a parameter lies as the parameter does. */
static const struct param *gradient_param(const struct graph *graph, const struct value *value) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        if (op_has_effect(node->op) && node->inputs[1] == value && node->inputs[0]->param) {
            return node->inputs[0]->param;
        }
    }
    return NULL;
}

static uint32_t root_tensor(struct lower *lower, const struct value *root) {
    struct lower_plan *plan = lower->plan;
    if (root->kind == VALUE_PARAM) {
        return plan->param_tensors[param_index(plan, root->param)];
    }
    if (root->kind == VALUE_STATE && root->state_index == STATE_LOSS_SCALE) {
        return plan->loss_scale;
    }
    if (root->kind == VALUE_STATE) {
        return plan->state_tensors[param_index(plan, root->param)][root->state_index];
    }
    const char *name = arena_strdup(plan->arena, root->port ? root->port : root->name);
    const struct param *param = gradient_param(lower->graph, root);
    if (param) {
        return add_param_like(plan, name, PLAN_BLOCK_ARENA, param);
    }
    bool is_loss = root->producer && root->producer->op == OP_SOFTMAX_LOSS &&
                   root == root->producer->outputs[1];
    struct plan_tensor tensor = {.name = name,
                                 .block = root->port ? PLAN_BLOCK_IO : PLAN_BLOCK_ARENA,
                                 .layout = is_loss ? PLAN_LAYOUT_FLAT : PLAN_LAYOUT_PLANES,
                                 .type = root->type,
                                 .shape = root->shape,
                                 .base = PLAN_NONE,
                                 .stride_n = is_loss ? 0 : lower_stride_n(root),
                                 .size_bytes = shape_elements(root->shape) * 4};
    return root->port ? port_tensor(plan, tensor) : add_tensor(plan, tensor);
}

static uint32_t lookup(const struct lower *lower, const struct value *root, int channel,
                       int n_channels) {
    for (size_t i = 0; i < lower->map.count; i++) {
        const struct lowered_value *entry = &lower->map.items[i];
        if (entry->root == root && entry->channel == channel && entry->n_channels == n_channels) {
            return entry->tensor;
        }
    }
    return PLAN_NONE;
}

/* The tensor over some channels of a root; a view when they are not all of it. */
static uint32_t channels_tensor(struct lower *lower, const struct value *root, int channel,
                                int n_channels) {
    uint32_t found = lookup(lower, root, channel, n_channels);
    if (found != PLAN_NONE) {
        return found;
    }
    uint32_t tensor;
    if (channel == 0 && n_channels == root->shape.c) {
        tensor = root_tensor(lower, root);
    } else {
        uint32_t base = channels_tensor(lower, root, 0, root->shape.c);
        struct plan_tensor view = lower->plan->tensors.items[base];
        uint64_t plane = (uint64_t)root->shape.h * (uint64_t)root->shape.w;
        view.name =
            arena_printf(lower->plan->arena, "%s[%d:%d]", view.name, channel, channel + n_channels);
        view.base = base;
        view.shape.c = n_channels;
        view.offset_bytes = (uint64_t)channel * plane * 4; /* from the base until memory_place */
        view.size_bytes =
            ((uint64_t)(root->shape.n - 1) * view.stride_n + (uint64_t)n_channels * plane) * 4;
        tensor = add_tensor(lower->plan, view);
    }
    vec_push(&lower->map, ((struct lowered_value){root, channel, n_channels, tensor}));
    return tensor;
}

uint32_t lower_tensor(struct lower *lower, const struct value *value) {
    const struct value *root = storage_root((struct value *)value);
    return channels_tensor(lower, root, storage_channel(value), value->shape.c);
}

uint32_t lower_words(const struct lower *lower, uint32_t tensor) {
    return (uint32_t)(lower->plan->tensors.items[tensor].size_bytes / 4);
}

uint32_t lower_view(struct lower *lower, const struct value *value, int channel, int n_channels) {
    const struct value *root = storage_root((struct value *)value);
    int first = storage_channel(value) + channel;
    uint64_t offset_bytes = (uint64_t)first * root->shape.h * root->shape.w * 4;
    if (offset_bytes % PLAN_ALIGNMENT) {
        return PLAN_NONE;
    }
    return channels_tensor(lower, root, first, n_channels);
}

uint32_t lower_find(const struct lower *lower, const struct value *value) {
    const struct value *root = storage_root((struct value *)value);
    return lookup(lower, root, storage_channel(value), value->shape.c);
}

uint32_t lower_scratch_flat(struct lower *lower, const char *name, uint64_t elements) {
    const char *copy = arena_strdup(lower->plan->arena, name);
    return add_flat(lower->plan, copy, PLAN_BLOCK_ARENA, elements);
}

uint32_t lower_scratch_weights(struct lower *lower, const char *name, int in, int out, int kh,
                               int kw) {
    const char *copy = arena_strdup(lower->plan->arena, name);
    return add_weights(lower->plan, copy, PLAN_BLOCK_ARENA, in, out, kh, kw);
}

uint32_t lower_scratch_part(struct lower *lower, uint32_t scratch, uint64_t elements) {
    struct plan_tensor part = lower->plan->tensors.items[scratch];
    if (part.size_bytes == elements * 4) {
        return scratch;
    }
    part.base = scratch;
    part.shape.w = (int32_t)elements;
    part.size_bytes = elements * 4;
    const uint32_t tensor = add_tensor(lower->plan, part);
    vec_push(&lower->map, ((struct lowered_value){.tensor = tensor})); /* moves with its base */
    return tensor;
}

uint32_t lower_control(struct lower *lower) {
    return lower->plan->control;
}

void lower_record(struct lower *lower, const struct node *node, const char *role,
                  enum kernel_id kernel, const void *params, const uint32_t *tensors,
                  uint64_t flops) {
    const struct kernel_info *info = &kernel_table[kernel];
    struct plan_record record = {.kernel = kernel, .choice = PLAN_NONE, .flops = flops};
    if (lower->is_choosing) {
        record.choice = (uint32_t)lower->choices.count - 1;
        record.method = lower->choices.items[record.choice].n_methods - 1;
    }
    record.label = arena_printf(lower->plan->arena, "%s %s", node->name, role);
    memcpy(record.tensors, tensors, info->n_bindings * sizeof(uint32_t));
    memcpy(record.params, params, info->n_params * sizeof(uint32_t));
    vec_push(&lower->records, record);
}

void lower_choice_begin(struct lower *lower, const struct node *node, const char *role) {
    assert(!lower->is_choosing);
    struct plan_choice choice = {.name =
                                     arena_printf(lower->plan->arena, "%s %s", node->name, role)};
    vec_push(&lower->choices, choice);
    lower->is_choosing = true;
    lower->choice_record = lower->records.count;
}

void lower_method(struct lower *lower, enum plan_method_kind kind,
                  const int32_t preference[PLAN_DEVICE_COUNT]) {
    assert(lower->is_choosing);
    struct plan_choice *choice = &lower->choices.items[lower->choices.count - 1];
    assert(choice->n_methods < PLAN_METHOD_KIND_COUNT);
    struct plan_method *method = &choice->methods[choice->n_methods++];
    method->kind = kind;
    memcpy(method->preference, preference, sizeof(method->preference));
}

void lower_choice_end(struct lower *lower) {
    assert(lower->is_choosing);
    lower->is_choosing = false;
    if (lower->choices.items[lower->choices.count - 1].n_methods > 1) {
        return;
    }
    lower->choices.count--;
    for (size_t r = lower->choice_record; r < lower->records.count; r++) {
        lower->records.items[r].choice = PLAN_NONE;
    }
}

bool lower_is_mixed(const struct lower *lower) {
    return lower->graph->is_mixed;
}

uint64_t lower_room(const struct lower *lower) {
    return lower->room_bytes;
}

void lower_graph(struct lower *lower, struct lower_plan *plan, const struct graph *graph,
                 const uint64_t *rooms) {
    memset(lower, 0, sizeof(*lower));
    lower->plan = plan;
    lower->graph = graph;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        lower->room_bytes = rooms ? rooms[i] : 0;
        vec_push(&lower->node_records, (uint32_t)lower->records.count);
        op_table[node->op]->lower(lower, node);
    }
    vec_push(&lower->node_records, (uint32_t)lower->records.count);
}

void lower_free(struct lower *lower) {
    vec_free(&lower->map);
    vec_free(&lower->records);
    vec_free(&lower->choices);
    vec_free(&lower->node_records);
}
