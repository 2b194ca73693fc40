/*
 * inplace.c: the result of an operation that reads an input only at the element it writes
 * (op_info.inplace_input) takes over the memory of that input, when no later node reads any byte of
 * it. So the gradient of an activation lies where the activation was, as soon as the weight
 * gradient has read that.
 */
#include "compiler/passes.h"

static bool read_later(struct graph *graph, size_t from, struct value *value) {
    for (size_t i = from; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            if (storage_overlaps(node->inputs[j], value)) {
                return true;
            }
        }
    }
    return false;
}

static bool other_input_overlaps(const struct node *node, int index) {
    for (int i = 0; i < node->n_inputs; i++) {
        if (i != index && storage_overlaps(node->inputs[i], node->inputs[index])) {
            return true;
        }
    }
    return false;
}

static bool read_by_host(struct graph *graph, struct value *value) {
    for (size_t i = 0; i < graph->values.count; i++) {
        struct value *other = graph->values.items[i];
        if (other->port && storage_overlaps(other, value)) {
            return true;
        }
    }
    return false;
}

/* Puts y, and what lives in y, into the memory of x. */
static void move_into(const struct graph *graph, struct value *y, struct value *x) {
    struct value *root = storage_root(x);
    int channel = storage_channel(x);
    for (size_t i = 0; i < graph->values.count; i++) {
        struct value *view = graph->values.items[i];
        if (view->storage == y) {
            view->storage = root;
            view->storage_channel += channel;
        }
    }
    y->storage = root;
    y->storage_channel = channel;
}

/* Does anything in y's memory exist before y is made? */
static bool is_filled_before(const struct graph *graph, size_t index, struct value *y) {
    for (size_t i = 0; i < index; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_outputs; j++) {
            if (storage_overlaps(node->outputs[j], y)) {
                return true;
            }
        }
    }
    return false;
}

static void try_inplace(struct graph *graph, size_t index) {
    struct node *node = graph->nodes.items[index];
    int input = op_table[node->op]->inplace_input;
    if (input < 0 || input >= node->n_inputs) {
        return;
    }
    struct value *x = node->inputs[input], *y = node->outputs[0];
    if (x->kind != VALUE_TEMP || y->port || y->storage || is_filled_before(graph, index, y) ||
        other_input_overlaps(node, input) || read_by_host(graph, x) ||
        read_later(graph, index + 1, x)) {
        return;
    }
    move_into(graph, y, x);
}

void inplace_run(struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        try_inplace(graph, i);
    }
}
