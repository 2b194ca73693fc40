/*
 * loss_scale.c: the scale of the loss in models of mixed precision, as nodes of the graph
 * (common/kernel_contract.h has the arithmetic). Gradients are small, those of a mean over all
 * pixels; multiplied by a power of two at their source, and divided by it in the update, they are
 * in the range of half precision in between. Where that power was too large, some are not finite:
 * the update is left out.
 */
#include "compiler/passes.h"

static struct value *scale_value(struct graph *graph) {
    for (size_t i = 0; i < graph->values.count; i++) {
        struct value *value = graph->values.items[i];
        if (value->kind == VALUE_STATE && value->state_index == STATE_LOSS_SCALE) {
            return value;
        }
    }
    struct value *scale =
        graph_value(graph, VALUE_STATE, PLAN_LOSS_SCALE, (struct shape){1, 1, 1, LOSS_SCALE_WORDS});
    scale->state_index = STATE_LOSS_SCALE;
    return scale;
}

static size_t find_node(const struct graph *graph, enum op_kind op) {
    size_t i = 0;
    while (i < graph->nodes.count && graph->nodes.items[i]->op != op) {
        i++;
    }
    return i;
}

/* Its shape is set: none of these can object. */
static struct node *make_node(struct graph *graph, enum op_kind op, const char *name, int n_outputs,
                              struct value *const *inputs, int n_inputs, const struct attr *attr) {
    struct err unused = {0};
    struct node *node = graph_node(graph, op, name, n_outputs, inputs, n_inputs, attr);
    op_table[op]->shape(node, &unused);
    return node;
}

void loss_scale_run(struct graph *graph, const struct model *model) {
    const size_t at = find_node(graph, OP_SOFTMAX_LOSS_GRAD);
    if (!model->is_mixed || at == graph->nodes.count) {
        return;
    }
    struct node *loss = graph->nodes.items[at];
    struct value *gradient = loss->outputs[0];
    struct value *inputs[] = {gradient, scale_value(graph)};
    const struct attr attr = {.initial = model->scale_initial};
    struct node *node = make_node(graph, OP_SCALE_GRADIENT, loss->name, 1, inputs, 2, &attr);
    graph_replace_uses(graph, gradient, node->outputs[0]);
    node->inputs[0] = gradient;
    graph_insert(graph, at + 1, node);
}

static void append_check(struct graph *graph, struct value *flags, struct value *param,
                         struct value *gradient, int number, bool accumulates) {
    struct value *inputs[] = {flags, gradient,
                              accumulates ? update_state(graph, param, STATE_ACCUMULATOR) : NULL};
    const struct attr attr = {.channel = number};
    vec_push(&graph->nodes, make_node(graph, OP_GRADIENT_CHECK, param->name, 0, inputs, 3, &attr));
}

struct value *loss_scale_check(struct graph *graph, const struct model *model,
                               const struct autodiff_result *gradients) {
    const size_t at = find_node(graph, OP_SOFTMAX_LOSS);
    const int count = (int)gradients->params.count;
    if (find_node(graph, OP_SCALE_GRADIENT) == graph->nodes.count || count == 0) {
        return NULL;
    }
    const struct attr room = {.shape = {1, count, 1, GRADIENT_FLAGS}};
    struct node *flags = make_node(graph, OP_GRADIENT_FLAGS, "gradients", 1, NULL, 0, &room);
    vec_push(&graph->nodes, flags);
    for (int i = 0; i < count; i++) {
        append_check(graph, flags->outputs[0], gradients->params.items[i],
                     gradients->gradients.items[i], i, model->settings.accumulate > 1);
    }
    struct node *loss = graph->nodes.items[at];
    struct value *inputs[] = {flags->outputs[0], scale_value(graph), loss->outputs[1]};
    const struct attr attr = {.initial = model->scale_initial, .interval = model->scale_interval};
    struct node *node = make_node(graph, OP_LOSS_SCALE, loss->name, 1, inputs, 3, &attr);
    vec_push(&graph->nodes, node);
    return node->outputs[0];
}
