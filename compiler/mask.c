/*
 * mask.c: what frees activations early in a training step.
 *
 * The gradient of an activation is masked by the sign of its output. Where that output went through
 * pooling, cropping, dropout or a concatenation, the gradients that come back are masked there, by
 * the sign of what these made of it: the same elements, or none. The output itself is then read no
 * more in the backward pass, the mask of a pooled or cropped gradient covers fewer elements, and
 * fuse.c finds it next to the data gradient that can apply it.
 *
 *   act_grad(y, add(a, b))                    -> add of both masked
 *   act_grad(y, maxpool_grad(y, d))           -> maxpool_grad(y, act_grad(maxpool(y), d))
 *   act_grad(y, crop_grad(d))                 -> crop_grad(act_grad(crop(y), d))
 *   act_grad(y, dropout(d))                   -> dropout(act_grad(dropout(y), d))
 *
 * Only done where every branch ends in a data gradient, or a slice of one. Sums keep their order;
 * with slopes other than 0 their rounding changes. Needs a graph before fuse.c.
 *
 * pool_index_run: max-pooling of 2 x 2 keeps where each maximum was (1/16 of the size of what it
 * makes) so that its gradient does not read the map that was pooled.
 */
#include "compiler/passes.h"

static bool used_once(const struct graph *graph, const struct value *value) {
    return !value->port && graph_use_count(graph, value) == 1;
}

/* The node that made of m what the gradient node `back` undoes; NULL: there is none. */
static struct node *forward_of(const struct graph *graph, const struct value *m,
                               const struct node *back) {
    enum op_kind op = back->op == OP_MAXPOOL_GRAD ? OP_MAXPOOL
                      : back->op == OP_CROP_GRAD  ? OP_CROP
                                                  : OP_DROPOUT;
    const struct attr *a = &back->attr;
    const struct value *dy = back->inputs[back->op == OP_MAXPOOL_GRAD ? 1 : 0];
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        const struct attr *b = &node->attr;
        if (node->op == op && node != back && node->inputs[0] == m &&
            shape_equal(node->outputs[0]->shape, dy->shape) && a->top == b->top &&
            a->left == b->left && a->kh == b->kh && a->stride == b->stride &&
            a->dilation == b->dilation && a->rate == b->rate && a->layer == b->layer) {
            return node;
        }
    }
    return NULL;
}

/* Is m the part of a concatenation that this slice of the gradient belongs to? */
static bool slice_of(const struct graph *graph, const struct value *m, const struct node *slice) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        int channel = 0;
        for (int j = 0; node->op == OP_CONCAT && j < node->n_inputs; j++) {
            if (node->inputs[j] == m && channel == slice->attr.channel &&
                shape_equal(node->outputs[0]->shape, slice->inputs[0]->shape)) {
                return true;
            }
            channel += node->inputs[j]->shape.c;
        }
    }
    return false;
}

static bool can_mask(const struct graph *graph, const struct value *m, const struct value *d) {
    const struct node *node = d->producer;
    if (!node || !used_once(graph, d)) {
        return false;
    }
    const struct node *forward;
    switch (node->op) {
    case OP_CONV_DGRAD:
    case OP_UPCONV_DGRAD:
        return !node->attr.act;
    case OP_SLICE:
        return slice_of(graph, m, node);
    case OP_ADD:
        return can_mask(graph, m, node->inputs[0]) && can_mask(graph, m, node->inputs[1]);
    case OP_MAXPOOL_GRAD:
        forward = node->inputs[0] == m ? forward_of(graph, m, node) : NULL;
        return forward && can_mask(graph, forward->outputs[0], node->inputs[1]);
    case OP_CROP_GRAD:
    case OP_DROPOUT:
        forward = node->n_inputs == 1 ? forward_of(graph, m, node) : NULL;
        return forward && can_mask(graph, forward->outputs[0], node->inputs[0]);
    default:
        return false;
    }
}

static void insert_after(struct graph *graph, const struct node *place, struct node *node) {
    size_t at = graph->nodes.count;
    while (graph->nodes.items[at - 1] != place) {
        at--;
    }
    graph_insert(graph, at, node);
}

/* Masks d, input number `input` of user, where it comes from. */
static void push_mask(struct graph *graph, struct value *m, struct node *user, int input,
                      const struct node *mask) {
    struct value *d = user->inputs[input];
    struct node *node = d->producer;
    switch (node->op) {
    case OP_ADD:
        push_mask(graph, m, node, 0, mask);
        push_mask(graph, m, node, 1, mask);
        return;
    case OP_MAXPOOL_GRAD:
        push_mask(graph, forward_of(graph, m, node)->outputs[0], node, 1, mask);
        return;
    case OP_CROP_GRAD:
    case OP_DROPOUT:
        push_mask(graph, forward_of(graph, m, node)->outputs[0], node, 0, mask);
        return;
    default: {
        struct value *inputs[] = {m, d};
        struct node *masked = graph_node(graph, OP_ACT_GRAD, mask->name, 1, inputs, 2, &mask->attr);
        masked->pos = mask->pos;
        masked->outputs[0]->shape = d->shape;
        user->inputs[input] = masked->outputs[0];
        insert_after(graph, node, masked);
    }
    }
}

void mask_run(struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        struct value *d = node->op == OP_ACT_GRAD ? node->inputs[1] : NULL;
        bool next_to_it = d && d->producer && /* fuse.c finds these */
                          (d->producer->op == OP_CONV_DGRAD || d->producer->op == OP_UPCONV_DGRAD ||
                           d->producer->op == OP_SLICE);
        if (!d || next_to_it || !can_mask(graph, node->inputs[0], d)) {
            continue;
        }
        push_mask(graph, node->inputs[0], node, 1, node);
        graph_replace_uses(graph, node->outputs[0], d);
    }
    graph_remove_dead(graph);
}

/* ---- the index of the maxima ---- */

static void keep_index(struct graph *graph, struct node *pool) {
    if (pool->op == OP_MAXPOOL_INDEX) {
        return;
    }
    pool->op = OP_MAXPOOL_INDEX;
    pool->n_outputs = 2;
    pool->outputs[1] = graph_value(
        graph, VALUE_TEMP, arena_printf(graph->arena, "%s.index", pool->name), (struct shape){0});
    pool->outputs[1]->producer = pool;
    struct err err = {0};
    op_table[pool->op]->shape(pool, &err); /* the pooling's shape was right already */
}

static struct node *pooling_of(const struct graph *graph, const struct node *gradient) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        if ((node->op == OP_MAXPOOL || node->op == OP_MAXPOOL_INDEX) &&
            node->inputs[0] == gradient->inputs[0] && node->attr.kh == gradient->attr.kh &&
            node->attr.stride == gradient->attr.stride &&
            node->attr.dilation == gradient->attr.dilation) {
            return node;
        }
    }
    return NULL;
}

void pool_index_run(struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        const struct attr *a = &node->attr;
        struct node *pool =
            node->op == OP_MAXPOOL_GRAD && a->kh == 2 && a->stride == 2 && a->dilation == 1
                ? pooling_of(graph, node)
                : NULL;
        if (!pool) {
            continue;
        }
        keep_index(graph, pool);
        node->op = OP_MAXPOOL_UNPOOL;
        node->attr.shape = node->inputs[0]->shape;
        node->inputs[0] = pool->outputs[1];
    }
}
