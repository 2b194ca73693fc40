/*
 * fuse.c: work that another node can do while it writes its result.
 *
 *   conv, act                  -> conv with the activation in its epilogue          (also upconv)
 *   conv_dgrad, act_grad       -> conv_dgrad whose epilogue applies the mask (also upconv_dgrad)
 *   conv_dgrad, slice, act_grad -> the same for some channels, when the mask is what the forward
 *                                 pass concatenated there
 *   crop_grad, add             -> crop_grad that adds onto the other gradient
 *
 * Needs a graph in order, without storage decisions. The fused node stands where the later of the
 * two stood, because only there all its inputs are known to exist.
 */
#include "compiler/passes.h"

/* Is value made by one of two operations, used once, and not seen by the host? */
static bool private_result(const struct graph *graph, const struct value *value, enum op_kind a,
                           enum op_kind b) {
    const struct node *producer = value->producer;
    return producer && (producer->op == a || producer->op == b) && !value->port &&
           graph_use_count(graph, value) == 1;
}

/* node takes over what producer does, keeping node's place and output; producer is left reading
 * nothing, dead. */
static void absorb(struct node *node, struct node *producer) {
    node->op = producer->op;
    node->name = producer->name;
    node->pos = producer->pos;
    node->attr = producer->attr;
    node->n_inputs = producer->n_inputs;
    for (int i = 0; i < producer->n_inputs; i++) {
        node->inputs[i] = producer->inputs[i];
    }
    producer->n_inputs = 0;
}

static void fuse_act(const struct graph *graph, struct node *node) {
    struct value *x = node->inputs[0];
    if (!private_result(graph, x, OP_CONV, OP_UPCONV) || x->producer->attr.act) {
        return;
    }
    float slope = node->attr.slope;
    absorb(node, x->producer);
    node->attr.act = true;
    node->attr.slope = slope;
}

static void fuse_act_grad(const struct graph *graph, struct node *node) {
    struct value *y = node->inputs[0], *dy = node->inputs[1];
    if (!private_result(graph, dy, OP_CONV_DGRAD, OP_UPCONV_DGRAD) || dy->producer->attr.act) {
        return;
    }
    float slope = node->attr.slope;
    absorb(node, dy->producer);
    node->inputs[node->n_inputs++] = y;
    node->attr.act = true;
    node->attr.slope = slope;
}

/* The concatenation that has m at a slice's channels, of the shape of what is sliced. */
static struct value *concat_of(const struct graph *graph, const struct value *m,
                               const struct node *slice) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        int channel = 0;
        for (int j = 0; node->op == OP_CONCAT && j < node->n_inputs; j++) {
            if (node->inputs[j] == m && channel == slice->attr.channel &&
                shape_equal(node->outputs[0]->shape, slice->inputs[0]->shape)) {
                return node->outputs[0];
            }
            channel += node->inputs[j]->shape.c;
        }
    }
    return NULL;
}

static bool read_by_slices_only(const struct graph *graph, const struct value *value) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            if (node->inputs[j] == value && node->op != OP_SLICE) {
                return false;
            }
        }
    }
    return !value->port;
}

/* Takes channels [first, first + count) out of those that the mask leaves alone, which must stay
   next to each other. */
static bool mask_channels(struct attr *attr, int channels, int first, int count) {
    int begin = attr->act ? attr->plain_first : 0;
    int end = attr->act ? begin + attr->plain_count : channels;
    if (first == begin && first + count <= end) {
        begin += count;
    } else if (first + count == end && first >= begin) {
        end -= count;
    } else {
        return false;
    }
    attr->plain_first = begin < end ? begin : 0;
    attr->plain_count = end - begin;
    return true;
}

static void fuse_slice_act_grad(struct graph *graph, struct node *node) {
    struct value *m = node->inputs[0], *dy = node->inputs[1];
    struct node *slice = dy->producer;
    if (!private_result(graph, dy, OP_SLICE, OP_SLICE)) {
        return;
    }
    struct node *dgrad = slice->inputs[0]->producer;
    struct value *mask = concat_of(graph, m, slice);
    if (!mask || !dgrad || dgrad->op != OP_CONV_DGRAD ||
        !read_by_slices_only(graph, dgrad->outputs[0]) ||
        (dgrad->attr.act && (dgrad->inputs[2] != mask || dgrad->attr.slope != node->attr.slope)) ||
        !mask_channels(&dgrad->attr, mask->shape.c, slice->attr.channel, m->shape.c)) {
        return;
    }
    dgrad->inputs[2] = mask;
    dgrad->n_inputs = 3;
    dgrad->attr.act = true;
    dgrad->attr.slope = node->attr.slope;
    graph_replace_uses(graph, node->outputs[0], dy);
}

static void fuse_crop_grad(const struct graph *graph, struct node *node) {
    for (int i = 0; i < 2; i++) {
        struct value *crop = node->inputs[i], *other = node->inputs[1 - i];
        if (private_result(graph, crop, OP_CROP_GRAD, OP_CROP_GRAD) &&
            crop->producer->n_inputs == 1) {
            absorb(node, crop->producer);
            node->inputs[node->n_inputs++] = other;
            return;
        }
    }
}

void fuse_run(struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        if (node->op == OP_ACT) {
            fuse_act(graph, node);
        } else if (node->op == OP_ACT_GRAD) {
            fuse_act_grad(graph, node);
            fuse_slice_act_grad(graph, node);
        } else if (node->op == OP_ADD) {
            fuse_crop_grad(graph, node);
        }
    }
    graph_remove_dead(graph);
}
