/*
 * recompute.c: memory for time. The map of a marked layer (train: recompute: of the model) dies
 * when the forward pass has read it; just before the backward pass wants it, the same operations
 * run once more on the same inputs, so that it holds the same bits (a dropout draws the same
 * numbers: its mask is a function of seed, step, layer and element).
 *
 * What makes a map again is its convolution and the point-wise operations behind it. The input of
 * the convolution is still there, because the gradient of its weight reads it later; where the
 * input is recomputed too, that happens first. Layers are therefore taken from the last to the
 * first: a second convolution is a reader of its input like any other.
 *
 * Needs a graph after fuse.c (activations in the convolutions, masks where they are read), before
 * order.c (updates then follow the second reading of a weight).
 */
#include "compiler/recompute.h"

#include "compiler/passes.h"

static bool reads(const struct node *node, const struct value *value) {
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] == value) {
            return true;
        }
    }
    return false;
}

size_t recompute_find_loss(const struct graph *graph) {
    size_t i = 0;
    while (i < graph->nodes.count && graph->nodes.items[i]->op != OP_SOFTMAX_LOSS) {
        i++;
    }
    return i;
}

static size_t first_reader(const struct graph *graph, size_t from, const struct value *value) {
    size_t i = from;
    while (i < graph->nodes.count && !reads(graph->nodes.items[i], value)) {
        i++;
    }
    return i;
}

/* The one node of the forward pass that reads a value, if it works point by point; else NULL. */
static struct node *pointwise_reader(const struct graph *graph, size_t loss,
                                     const struct value *value) {
    const size_t reader = first_reader(graph, 0, value);
    if (value->port || reader >= loss || first_reader(graph, reader + 1, value) < loss) {
        return NULL;
    }
    struct node *node = graph->nodes.items[reader];
    return node->op == OP_ACT || node->op == OP_DROPOUT ? node : NULL;
}

bool recompute_find_chain(const struct graph *graph, size_t index, struct recompute_chain *chain) {
    const size_t loss = recompute_find_loss(graph), none = graph->nodes.count;
    struct node *node = graph->nodes.items[index];
    *chain = (struct recompute_chain){.first = none};
    if (index >= loss || (node->op != OP_CONV && node->op != OP_UPCONV)) {
        return false;
    }
    for (int n = 0; node && n < RECOMPUTE_CHAIN_MAX; n++) {
        const size_t reader = loss < none ? first_reader(graph, loss + 1, node->outputs[0]) : none;
        chain->nodes[n] = node;
        chain->count = reader < none ? n + 1 : chain->count;
        chain->first = MIN(chain->first, reader);
        node = pointwise_reader(graph, loss, node->outputs[0]);
    }
    return chain->count > 0;
}

static struct node *copy_node(struct graph *graph, const struct node *node) {
    struct attr attr = node->attr;
    attr.recompute = false;
    struct node *copy =
        graph_node(graph, node->op, arena_printf(graph->arena, "%s recomputed", node->name), 1,
                   node->inputs, node->n_inputs, &attr);
    copy->pos = node->pos;
    copy->outputs[0]->name = arena_printf(graph->arena, "%s recomputed", node->outputs[0]->name);
    copy->outputs[0]->shape = node->outputs[0]->shape;
    return copy;
}

static void make_again(struct graph *graph, const struct recompute_chain *chain) {
    const size_t after = chain->first + (size_t)chain->count;
    for (int n = 0; n < chain->count; n++) {
        const size_t index = chain->first + (size_t)n;
        struct node *copy = copy_node(graph, chain->nodes[n]);
        if (n > 0) {
            copy->inputs[0] = graph->nodes.items[index - 1]->outputs[0];
        }
        graph_insert(graph, index, copy);
    }
    for (int n = 0; n < chain->count; n++) {
        const struct value *kept = chain->nodes[n]->outputs[0];
        struct value *again = graph->nodes.items[chain->first + (size_t)n]->outputs[0];
        for (size_t i = after; i < graph->nodes.count; i++) {
            struct node *node = graph->nodes.items[i];
            for (int j = 0; j < node->n_inputs; j++) {
                node->inputs[j] = node->inputs[j] == kept ? again : node->inputs[j];
            }
        }
    }
}

void recompute_run(struct graph *graph) {
    for (size_t i = recompute_find_loss(graph); i-- > 0;) {
        struct recompute_chain chain;
        if (graph->nodes.items[i]->attr.recompute && recompute_find_chain(graph, i, &chain)) {
            make_again(graph, &chain);
        }
    }
}

/* ---- what cannot be recomputed ---- */

static void hint_kept(const struct graph *graph, struct err *err) {
    char list[400] = "";
    size_t length = 0;
    for (size_t i = 0; i < graph->nodes.count && length < sizeof(list) - 80; i++) {
        struct recompute_chain chain;
        if (recompute_find_chain(graph, i, &chain)) {
            length += (size_t)snprintf(list + length, sizeof(list) - length, "%s%.70s",
                                       length ? ", " : "", graph->nodes.items[i]->name);
        }
    }
    err_hint(err, length ? "maps are kept of: %s" : "no map is kept%s", list);
}

bool recompute_check(const struct graph *graph, struct err *err) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        struct recompute_chain chain;
        if (node->attr.recompute && !recompute_find_chain(graph, i, &chain)) {
            err_set(err, ERR_INPUT,
                    "recompute: the backward pass reads no map of %s: there is none to save",
                    node->name);
            hint_kept(graph, err);
            return false;
        }
    }
    return true;
}
