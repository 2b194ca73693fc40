/*
 * order.c: moves every update (SGD, ADAM, ACCUMULATE) directly after the last node that reads what
 * it changes or makes its gradient. The gradient's memory is free from there on, so that the
 * gradients of all layers never exist at once, unless the updates wait for the verdict over all of
 * them (loss_scale.c). Every crop moves directly after the node that makes
 * what it crops: the whole map then need not wait for the decoder. The order of all other nodes
 * stays.
 */
#include <stdlib.h>

#include "compiler/passes.h"

struct placed {
    size_t after; /* index of the node it must follow; its own for nodes that stay */
    size_t index;
    struct node *node;
};

static bool reads(const struct node *node, const struct value *value) {
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == value) {
            return true;
        }
    }
    return false;
}

static bool makes_input(const struct node *node, const struct node *update) {
    for (int i = 0; i < update->n_inputs; i++) {
        if (update->inputs[i]->producer == node) {
            return true;
        }
    }
    return false;
}

static size_t earliest_place(const struct graph *graph, const struct node *update) {
    size_t after = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        bool before =
            node != update && (reads(node, update->inputs[0]) || makes_input(node, update));
        after = before ? i : after;
    }
    return after;
}

static size_t index_of(const struct graph *graph, const struct node *node) {
    size_t i = 0;
    while (graph->nodes.items[i] != node) {
        i++;
    }
    return i;
}

static size_t place_of(const struct graph *graph, const struct node *node, size_t index) {
    if (node->op == OP_GRADIENT_FLAGS) {
        return 0;
    }
    if (node->op ==
        OP_GRADIENT_CHECK) { /* while the gradient is at hand; it stays for the update */
        return index_of(graph, node->inputs[1]->producer);
    }
    if (op_has_effect(node->op)) {
        return earliest_place(graph, node);
    }
    bool moves = node->op == OP_CROP && node->inputs[0]->producer;
    return moves ? index_of(graph, node->inputs[0]->producer) : index;
}

static int by_place(const void *a, const void *b) {
    const struct placed *x = a, *y = b;
    if (x->after != y->after) {
        return x->after < y->after ? -1 : 1;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

void order_run(struct graph *graph) {
    VEC(struct placed) placed = {0};
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        vec_push(&placed, ((struct placed){place_of(graph, node, i), i, node}));
    }
    if (placed.count) {
        qsort(placed.items, placed.count, sizeof(placed.items[0]), by_place);
    }
    for (size_t i = 0; i < placed.count; i++) {
        graph->nodes.items[i] = placed.items[i].node;
    }
    vec_free(&placed);
}
