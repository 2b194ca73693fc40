/*
 * update.c: what becomes of gradients, as nodes of the graph, one per parameter: the optimiser, or,
 * for all but the last batch of an update, adding to the accumulated ones. The learning rate is not
 * an attribute: it changes from step to step and comes from the control block.
 */
#include "compiler/passes.h"

struct value *update_state(struct graph *graph, const struct value *param, int index) {
    const char *name = index == STATE_ACCUMULATOR
                           ? arena_printf(graph->arena, "%s.accumulated", param->name)
                           : arena_printf(graph->arena, "%s.state%d", param->name, index);
    struct value *state = graph_value(graph, VALUE_STATE, name, param->shape);
    state->param = param->param;
    state->state_index = index;
    return state;
}

/* verdict: of loss_scale_check, where gradients are also the means already; or NULL. */
static void append_update(struct graph *graph, const struct model *model, struct value *param,
                          struct value *gradient, struct value *verdict) {
    bool adam = model->settings.optimiser == PLAN_OPTIMISER_ADAM;
    struct value *inputs[NODE_MAX_INPUTS] = {param, gradient};
    int n_inputs = 2;
    inputs[n_inputs++] = update_state(graph, param, 0);
    if (adam) {
        inputs[n_inputs++] = update_state(graph, param, 1);
    }
    if (verdict) {
        inputs[n_inputs++] = verdict;
    } else if (model->settings.accumulate > 1) {
        inputs[n_inputs++] = update_state(graph, param, STATE_ACCUMULATOR);
    }
    struct attr attr = {.momentum = model->momentum,
                        .beta1 = model->beta1,
                        .beta2 = model->beta2,
                        .epsilon = model->epsilon,
                        .decay = param->param->is_bias ? 0 : model->weight_decay};
    struct node *node =
        graph_node(graph, adam ? OP_ADAM : OP_SGD, param->name, 0, inputs, n_inputs, &attr);
    vec_push(&graph->nodes, node);
}

void update_run(struct graph *graph, const struct model *model,
                const struct autodiff_result *gradients) {
    struct value *verdict = loss_scale_check(graph, model, gradients);
    for (size_t i = 0; i < gradients->params.count; i++) {
        append_update(graph, model, gradients->params.items[i], gradients->gradients.items[i],
                      verdict);
    }
}

void accumulate_run(struct graph *graph, const struct autodiff_result *gradients) {
    for (size_t i = 0; i < gradients->params.count; i++) {
        struct value *param = gradients->params.items[i];
        struct value *inputs[] = {update_state(graph, param, STATE_ACCUMULATOR),
                                  gradients->gradients.items[i]};
        struct node *node =
            graph_node(graph, OP_ACCUMULATE, param->name, 0, inputs, ARRAY_LEN(inputs), NULL);
        vec_push(&graph->nodes, node);
    }
}
