/*
 * half.c: activations that wait long are kept in half precision meanwhile ("precision: mixed"). A
 * gap is the time between two uses of a value of the forward pass, such as from the convolution
 * that reads it to that convolution's gradients, or from the encoder to the decoder. half_store
 * after the first use and half_load before the second leave half of the bytes in between; all
 * later uses read what was loaded.
 *
 * Which gaps: memory decides. All of them are filled first, then those taken back, the least first,
 * without which the program's arena is as small: each that stays makes it smaller. So no value is
 * rounded for nothing. What is never rounded: inputs, outputs, labels, parameters, gradients,
 * everything from the loss on, and what a pooling's gradient looks for its maximum in, since
 * rounding could move that.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/passes.h"
#include "compiler/recompute.h"

struct gap {
    struct value *value;
    size_t after, before; /* nodes: the uses at its ends */
    uint64_t saved_bytes, weight;
    bool filled;
};

struct gaps {
    VEC(struct gap) list;
};

/* ---- candidates ---- */

static bool touches(const struct node *node, const struct value *value) {
    bool found = value->producer == node;
    for (int i = 0; i < node->n_inputs; i++) {
        found |= node->inputs[i] == value;
    }
    return found;
}

/* What has a producer without inputs is room that others fill, such as the flags of a loss scale.
 */
static bool can_round(const struct value *value) {
    return value->kind == VALUE_TEMP && value->type == PLAN_TYPE_F32 && !value->port &&
           !value->storage && value->producer->n_inputs > 0;
}

/* From this node on, no gradient of a pooling looks for its maximum in the value. */
static bool keeps_maxima(const struct graph *graph, size_t from, const struct value *value) {
    for (size_t i = from; i < graph->nodes.count; i++) {
        if (graph->nodes.items[i]->op == OP_MAXPOOL_GRAD && touches(graph->nodes.items[i], value)) {
            return false;
        }
    }
    return true;
}

static uint64_t packed_bytes(struct shape s) {
    const uint64_t count = (uint64_t)s.c * (uint64_t)s.h * (uint64_t)s.w;
    return (uint64_t)s.n * ((count + HALF_BLOCK - 1) / HALF_BLOCK) * HALF_LANES * 4;
}

static void add_gap(const struct graph *graph, struct value *value, size_t after, size_t before,
                    struct gaps *gaps) {
    const uint64_t bytes = align_up(shape_elements(value->shape) * 4, PLAN_ALIGNMENT);
    const uint64_t half_bytes = align_up(packed_bytes(value->shape), PLAN_ALIGNMENT);
    if (before < after + 2 || half_bytes >= bytes || !keeps_maxima(graph, before, value)) {
        return;
    }
    vec_push(&gaps->list, ((struct gap){.value = value,
                                        .after = after,
                                        .before = before,
                                        .saved_bytes = bytes - half_bytes,
                                        .weight = (bytes - half_bytes) * (before - after),
                                        .filled = true}));
}

static void find_gaps(const struct graph *graph, struct gaps *gaps) {
    const size_t loss = recompute_find_loss(graph);
    for (size_t i = 0; i < loss; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_outputs; j++) {
            size_t last = i;
            for (size_t k = i + 1; k < graph->nodes.count && can_round(node->outputs[j]); k++) {
                if (touches(graph->nodes.items[k], node->outputs[j])) {
                    add_gap(graph, node->outputs[j], last, k, gaps);
                    last = k;
                }
            }
        }
    }
}

/* The least first; equal ones in the order they were found. */
static void sort_gaps(struct gaps *gaps) {
    for (size_t n = 0; n < gaps->list.count; n++) {
        const struct gap gap = gaps->list.items[n];
        size_t at = n;
        for (; at > 0 && gaps->list.items[at - 1].weight > gap.weight; at--) {
            gaps->list.items[at] = gaps->list.items[at - 1];
        }
        gaps->list.items[at] = gap;
    }
}

/* ---- filling them ---- */

static struct node *make_node(struct graph *graph, enum op_kind op, const struct value *of,
                              struct value *input, const struct attr *attr, const char *suffix) {
    struct err err = {0};
    struct node *node = graph_node(graph, op, of->producer->name, 1, &input, 1, attr);
    node->pos = of->producer->pos;
    node->outputs[0]->name = arena_printf(graph->arena, "%s %s", of->name, suffix);
    op_table[op]->shape(node, &err); /* sizes follow from those of the value */
    return node;
}

/* The values as they are called at a node, by number: the last one loaded, or the value itself. */
struct names {
    struct value **now;
    size_t count; /* of the graph before anything was added */
};

static void load_before(struct graph *graph, size_t index, const struct gaps *gaps,
                        struct value *const *packed, struct names *names) {
    for (size_t g = 0; g < gaps->list.count; g++) {
        const struct gap *gap = &gaps->list.items[g];
        if (gap->filled && gap->before == index) {
            const struct attr attr = {.shape = gap->value->shape};
            struct node *load =
                make_node(graph, OP_HALF_LOAD, gap->value, packed[g], &attr, "loaded");
            names->now[gap->value->id] = load->outputs[0];
            vec_push(&graph->nodes, load);
        }
    }
}

static void store_after(struct graph *graph, size_t index, const struct gaps *gaps,
                        struct value **packed, const struct names *names) {
    for (size_t g = 0; g < gaps->list.count; g++) {
        const struct gap *gap = &gaps->list.items[g];
        if (gap->filled && gap->after == index) {
            struct node *store = make_node(graph, OP_HALF_STORE, gap->value,
                                           names->now[gap->value->id], NULL, "in half");
            packed[g] = store->outputs[0];
            vec_push(&graph->nodes, store);
        }
    }
}

static void fill(struct graph *graph, const struct gaps *gaps) {
    const size_t n_nodes = graph->nodes.count, n_values = graph->values.count;
    struct node **nodes = malloc((n_nodes + 1) * sizeof(*nodes));
    struct value **packed = calloc(gaps->list.count + 1, sizeof(*packed));
    struct names names = {malloc((n_values + 1) * sizeof(*names.now)), n_values};
    memcpy(nodes, graph->nodes.items, n_nodes * sizeof(*nodes));
    memcpy(names.now, graph->values.items, n_values * sizeof(*names.now));
    graph->nodes.count = 0;
    for (size_t i = 0; i < n_nodes; i++) {
        load_before(graph, i, gaps, packed, &names);
        for (int j = 0; j < nodes[i]->n_inputs; j++) {
            nodes[i]->inputs[j] = names.now[nodes[i]->inputs[j]->id];
        }
        vec_push(&graph->nodes, nodes[i]);
        store_after(graph, i, gaps, packed, &names);
    }
    free(names.now);
    free(packed);
    free(nodes);
}

/* ---- choosing ---- */

/* The arena with those gaps filled. */
static uint64_t try_gaps(const struct graph *graph, const struct gaps *gaps,
                         const struct half_judge *judge) {
    struct arena arena = {0};
    struct graph trial;
    struct gaps moved = {0};
    graph_copy(graph, &trial, &arena);
    for (size_t g = 0; g < gaps->list.count; g++) {
        struct gap gap = gaps->list.items[g];
        gap.value = trial.values.items[gap.value->id];
        vec_push(&moved.list, gap);
    }
    fill(&trial, &moved);
    const uint64_t bytes = judge->arena_bytes(&trial, judge->context);
    vec_free(&moved.list);
    graph_free(&trial);
    arena_free(&arena);
    return bytes;
}

/* Takes back what the arena does not grow by. */
static uint64_t drop_useless(const struct graph *graph, struct gaps *gaps,
                             const struct half_judge *judge) {
    uint64_t bytes = try_gaps(graph, gaps, judge);
    for (bool again = true; again;) {
        again = false;
        for (size_t g = 0; g < gaps->list.count; g++) {
            struct gap *gap = &gaps->list.items[g];
            if (!gap->filled) {
                continue;
            }
            gap->filled = false;
            const uint64_t without_bytes = try_gaps(graph, gaps, judge);
            gap->filled = without_bytes > bytes;
            again |= !gap->filled; /* others may have become useless by it */
            bytes = MIN(bytes, without_bytes);
        }
    }
    return bytes;
}

void half_run(struct graph *graph, const struct half_judge *judge) {
    struct gaps gaps = {0}, none = {0};
    find_gaps(graph, &gaps);
    sort_gaps(&gaps);
    if (gaps.list.count > 0 && drop_useless(graph, &gaps, judge) < try_gaps(graph, &none, judge)) {
        fill(graph, &gaps);
    }
    vec_free(&gaps.list);
}
