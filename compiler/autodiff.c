/*
 * autodiff.c: reverse-mode differentiation of a graph: walks the forward nodes backwards and lets
 * each operation's gradient rule append nodes that compute the gradients of its inputs from those
 * of its outputs. Contributions to a value that is used several times are added up in the order the
 * walk meets them. Rows of the table do the work; this file only keeps the books.
 */
#include "compiler/ir.h"

struct autodiff {
    struct graph *graph;
    size_t n_values;         /* of the forward graph: gradients exist for these only */
    bool *needed;            /* the value depends on a parameter */
    struct value **gradient; /* sum of the contributions so far, or NULL */
    struct err *err;
    bool failed;
};

bool autodiff_needs(const struct autodiff *ad, const struct value *value) {
    return (size_t)value->id < ad->n_values && ad->needed[value->id];
}

struct value *autodiff_node(struct autodiff *ad, enum op_kind op, const struct node *of,
                            struct value *const *inputs, int n_inputs, const struct attr *attr) {
    struct node *node = graph_node(ad->graph, op, of->name, 1, inputs, n_inputs, attr);
    node->pos = of->pos;
    vec_push(&ad->graph->nodes, node);
    /* After a failure the rest of a rule goes on over values without a shape; only the first
       message is kept. */
    if (!ad->failed && !op_table[op]->shape(node, ad->err)) {
        ad->failed = true;
    }
    return node->outputs[0];
}

void autodiff_add(struct autodiff *ad, struct value *value, struct value *gradient) {
    if (!autodiff_needs(ad, value)) {
        return;
    }
    struct value **sum = &ad->gradient[value->id];
    if (*sum) {
        struct value *inputs[] = {*sum, gradient};
        const struct node *of = value->producer ? value->producer : gradient->producer;
        *sum = autodiff_node(ad, OP_ADD, of, inputs, 2, NULL);
    } else {
        *sum = gradient;
    }
}

static void find_needed(struct autodiff *ad) {
    for (size_t i = 0; i < ad->n_values; i++) {
        ad->needed[i] = ad->graph->values.items[i]->kind == VALUE_PARAM;
    }
    for (size_t i = 0; i < ad->graph->nodes.count; i++) {
        const struct node *node = ad->graph->nodes.items[i];
        bool any = false;
        for (int j = 0; j < node->n_inputs; j++) {
            any |= ad->needed[node->inputs[j]->id];
        }
        for (int j = 0; j < node->n_outputs; j++) {
            ad->needed[node->outputs[j]->id] = any;
        }
    }
}

/* Applies the gradient rule of a node whose outputs' gradients are complete. */
static bool differentiate(struct autodiff *ad, struct node *node) {
    struct value *dy[NODE_MAX_OUTPUTS] = {0};
    bool reached = node->op == OP_SOFTMAX_LOSS;
    for (int i = 0; i < node->n_outputs; i++) {
        dy[i] = ad->gradient[node->outputs[i]->id];
        reached |= dy[i] != NULL;
    }
    if (!reached) {
        return true;
    }
    if (!op_table[node->op]->grad) {
        return err_set(ad->err, ERR_INPUT, "%s: the operation %s cannot be differentiated",
                       node->name, op_table[node->op]->name);
    }
    op_table[node->op]->grad(ad, node, dy);
    return !ad->failed;
}

static bool collect(const struct autodiff *ad, struct autodiff_result *result) {
    for (size_t i = 0; i < ad->n_values; i++) {
        struct value *value = ad->graph->values.items[i];
        if (value->kind != VALUE_PARAM) {
            continue;
        }
        if (!ad->gradient[i]) {
            return err_set(ad->err, ERR_INPUT, "parameter %s: the loss does not depend on it",
                           value->name);
        }
        vec_push(&result->params, value);
        vec_push(&result->gradients, ad->gradient[i]);
    }
    return true;
}

static bool has_loss(const struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (graph->nodes.items[i]->op == OP_SOFTMAX_LOSS) {
            return true;
        }
    }
    return false;
}

bool autodiff_run(struct graph *graph, struct autodiff_result *result, struct err *err) {
    *result = (struct autodiff_result){0};
    if (!has_loss(graph)) {
        return err_set(err, ERR_INPUT, "graph %s: has no softmax_loss to differentiate",
                       graph->name);
    }
    size_t n_values = graph->values.count;
    struct autodiff ad = {.graph = graph,
                          .n_values = n_values,
                          .needed = ARENA_ARRAY(graph->arena, bool, n_values),
                          .gradient = ARENA_ARRAY(graph->arena, struct value *, n_values),
                          .err = err};
    find_needed(&ad);
    for (size_t i = graph->nodes.count; i-- > 0;) {
        if (!differentiate(&ad, graph->nodes.items[i])) {
            return false;
        }
    }
    if (!collect(&ad, result)) {
        vec_free(&result->params);
        vec_free(&result->gradients);
        return false;
    }
    return true;
}
