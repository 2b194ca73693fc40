/*
 * skip.c: concatenation without a copy. The producer of each input of a concat writes straight into
 * its channels of the result (an up-convolution its half, the crop of a skip connection the other),
 * and the slices of the backward pass become views of the gradient they cut. Where the channels
 * would not start at a multiple of PLAN_ALIGNMENT bytes, or the value already lives elsewhere, the
 * copy stays.
 *
 * A crop that waits in its channels keeps the memory of the whole result from the encoder to the
 * decoder. Where that makes the program's largest sum of live bytes larger by more than
 * COPY_PAYS_PERCENT (inference, which keeps little else), the crop gets memory of its own, and the
 * concatenation copies it.
 */
#include "compiler/passes.h"

static bool aligned(const struct value *root, int channel) {
    uint64_t offset_bytes = (uint64_t)channel * root->shape.h * root->shape.w * 4;
    return offset_bytes % PLAN_ALIGNMENT == 0;
}

static bool hosts_others(const struct graph *graph, const struct value *value) {
    for (size_t i = 0; i < graph->values.count; i++) {
        if (graph->values.items[i]->storage == value) {
            return true;
        }
    }
    return false;
}

static bool can_move(const struct graph *graph, const struct value *value) {
    return value->kind == VALUE_TEMP && !value->port && !value->storage &&
           !hosts_others(graph, value);
}

/* All inputs can be written where they belong, or reached there by a copy into a view. */
static bool all_aligned(const struct node *node) {
    int channel = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        if (!aligned(node->outputs[0], channel)) {
            return false;
        }
        channel += node->inputs[i]->shape.c;
    }
    return true;
}

static void place_concat(struct graph *graph, struct node *node) {
    struct value *y = node->outputs[0];
    if (y->storage || y->port || !all_aligned(node)) {
        return;
    }
    int channel = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        struct value *x = node->inputs[i];
        if (can_move(graph, x)) {
            x->storage = y;
            x->storage_channel = channel;
        }
        channel += x->shape.c;
    }
}

static void place_slice(struct graph *graph, struct node *node) {
    struct value *x = node->inputs[0], *y = node->outputs[0];
    struct value *root = storage_root(x);
    int channel = storage_channel(x) + node->attr.channel;
    if (root->kind == VALUE_TEMP && !root->port && can_move(graph, y) && aligned(root, channel)) {
        y->storage = root;
        y->storage_channel = channel;
    }
}

#define COPY_PAYS_PERCENT 3

static void free_crops(struct graph *graph, const struct node *concat) {
    for (int i = 0; i < concat->n_inputs; i++) {
        struct value *x = concat->inputs[i];
        int channel = x->storage_channel;
        if (x->storage != concat->outputs[0] || x->producer->op != OP_CROP) {
            continue;
        }
        uint64_t placed_bytes = storage_peak_bytes(graph);
        x->storage = NULL;
        x->storage_channel = 0;
        if (storage_peak_bytes(graph) * 100 > placed_bytes * (100 - COPY_PAYS_PERCENT)) {
            x->storage = concat->outputs[0];
            x->storage_channel = channel;
        }
    }
}

void skip_run(struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        if (node->op == OP_CONCAT) {
            place_concat(graph, node);
        } else if (node->op == OP_SLICE) {
            place_slice(graph, node);
        }
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (graph->nodes.items[i]->op == OP_CONCAT) {
            free_crops(graph, graph->nodes.items[i]);
        }
    }
}
