/*
 * graph.c: building and editing graphs (compiler/ir.h).
 */
#include "compiler/ir.h"

void graph_init(struct graph *graph, struct arena *arena, const char *name) {
    *graph = (struct graph){.arena = arena, .name = arena_strdup(arena, name)};
}

void graph_free(struct graph *graph) {
    vec_free(&graph->values);
    vec_free(&graph->nodes);
}

static struct value *copied(const struct graph *to, const struct value *value) {
    return value ? to->values.items[value->id] : NULL;
}

void graph_copy(const struct graph *from, struct graph *to, struct arena *arena) {
    *to = (struct graph){.arena = arena, .name = from->name, .is_mixed = from->is_mixed};
    for (size_t i = 0; i < from->values.count; i++) {
        struct value *value = ARENA_NEW(arena, struct value);
        *value = *from->values.items[i];
        vec_push(&to->values, value);
    }
    for (size_t i = 0; i < from->values.count; i++) {
        to->values.items[i]->storage = copied(to, from->values.items[i]->storage);
    }
    for (size_t i = 0; i < from->nodes.count; i++) {
        struct node *node = ARENA_NEW(arena, struct node);
        *node = *from->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            node->inputs[j] = copied(to, node->inputs[j]);
        }
        for (int j = 0; j < node->n_outputs; j++) {
            node->outputs[j] = copied(to, node->outputs[j]);
            node->outputs[j]->producer = node;
        }
        vec_push(&to->nodes, node);
    }
}

struct value *graph_value(struct graph *graph, enum value_kind kind, const char *name,
                          struct shape shape) {
    struct value *value = ARENA_NEW(graph->arena, struct value);
    value->id = (int)graph->values.count;
    value->name = arena_strdup(graph->arena, name);
    value->kind = kind;
    value->type = PLAN_TYPE_F32;
    value->shape = shape;
    vec_push(&graph->values, value);
    return value;
}

/* "enc1/conv1.conv"; later outputs are numbered: "loss.softmax_loss.1". */
static struct value *make_output(struct graph *graph, struct node *node, int i) {
    const char *op = op_table[node->op]->name;
    const char *name = i == 0 ? arena_printf(graph->arena, "%s.%s", node->name, op)
                              : arena_printf(graph->arena, "%s.%s.%d", node->name, op, i);
    struct value *value = graph_value(graph, VALUE_TEMP, name, (struct shape){0});
    value->producer = node;
    return value;
}

struct node *graph_node(struct graph *graph, enum op_kind op, const char *name, int n_outputs,
                        struct value *const *inputs, int n_inputs, const struct attr *attr) {
    struct node *node = ARENA_NEW(graph->arena, struct node);
    node->op = op;
    node->name = arena_strdup(graph->arena, name);
    if (attr) {
        node->attr = *attr;
    }
    while (n_inputs > 0 && !inputs[n_inputs - 1]) { /* optional inputs left out */
        n_inputs--;
    }
    node->n_inputs = n_inputs;
    for (int i = 0; i < n_inputs; i++) {
        node->inputs[i] = inputs[i];
    }
    node->n_outputs = n_outputs;
    for (int i = 0; i < n_outputs; i++) {
        node->outputs[i] = make_output(graph, node, i);
    }
    return node;
}

bool graph_append(struct graph *graph, enum op_kind op, const char *name, int n_outputs,
                  struct value *const *inputs, int n_inputs, const struct attr *attr,
                  struct node **out, struct err *err) {
    struct node *node = graph_node(graph, op, name, n_outputs, inputs, n_inputs, attr);
    if (!op_table[op]->shape(node, err)) {
        graph->values.count -= (size_t)n_outputs; /* just added, and nobody else knows them */
        return false;
    }
    vec_push(&graph->nodes, node);
    if (out) {
        *out = node;
    }
    return true;
}

int graph_use_count(const struct graph *graph, const struct value *value) {
    int count = value->producer && value->port ? 1 : 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            count += node->inputs[j] == value;
        }
    }
    return count;
}

void graph_insert(struct graph *graph, size_t index, struct node *node) {
    vec_push(&graph->nodes, node);
    for (size_t i = graph->nodes.count - 1; i > index; i--) {
        graph->nodes.items[i] = graph->nodes.items[i - 1];
    }
    graph->nodes.items[index] = node;
}

void graph_replace_uses(struct graph *graph, struct value *from, struct value *to) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            if (node->inputs[j] == from) {
                node->inputs[j] = to;
            }
        }
    }
}

static bool node_is_live(const struct node *node, const bool *used) {
    if (op_has_effect(node->op)) {
        return true;
    }
    for (int i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i]->port || used[node->outputs[i]->id]) {
            return true;
        }
    }
    return false;
}

/* Marks in used[] what live nodes read, and in live[] these nodes. */
static void find_live(const struct graph *graph, bool *used, bool *live) {
    for (size_t i = graph->nodes.count; i-- > 0;) {
        const struct node *node = graph->nodes.items[i];
        live[i] = node_is_live(node, used);
        for (int j = 0; live[i] && j < node->n_inputs; j++) {
            used[node->inputs[j]->id] = true;
        }
    }
}

/* Values that stay: the program's interface, results of live nodes, and memory these live in. */
static void find_kept(const struct graph *graph, const bool *live, bool *kept) {
    for (size_t i = 0; i < graph->values.count; i++) {
        kept[i] = graph->values.items[i]->kind != VALUE_TEMP;
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; live[i] && j < node->n_outputs; j++) {
            const struct value *value = node->outputs[j];
            kept[value->id] = true;
            if (value->storage) {
                kept[value->storage->id] = true;
            }
        }
    }
}

void graph_remove_dead(struct graph *graph) {
    bool *used = ARENA_ARRAY(graph->arena, bool, graph->values.count + 1);
    bool *live = ARENA_ARRAY(graph->arena, bool, graph->nodes.count + 1);
    bool *kept = ARENA_ARRAY(graph->arena, bool, graph->values.count + 1);
    find_live(graph, used, live);
    find_kept(graph, live, kept);
    size_t count = 0;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (live[i]) {
            graph->nodes.items[count++] = graph->nodes.items[i];
        }
    }
    graph->nodes.count = count;
    count = 0;
    for (size_t i = 0; i < graph->values.count; i++) {
        struct value *value = graph->values.items[i];
        if (kept[i]) {
            value->id = (int)count;
            graph->values.items[count++] = value;
        }
    }
    graph->values.count = count;
}
