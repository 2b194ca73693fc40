/*
 * check.c: what every pass must leave true of a graph. Runs after each pass; a message here is a
 * mistake of the compiler, not of the model.
 */
#include "compiler/ir.h"

static bool fail(struct err *err, const struct graph *graph, const char *what, const char *name,
                 const char *why) {
    return err_set(err, ERR_INPUT, "graph %s: %s %s: %s", graph->name, what, name, why);
}

static bool has_value(const struct graph *graph, const struct value *value) {
    return value && value->id >= 0 && (size_t)value->id < graph->values.count &&
           graph->values.items[value->id] == value;
}

static bool check_storage(const struct graph *graph, const struct value *value, struct err *err) {
    const struct value *storage = value->storage;
    if (!storage) {
        return true;
    }
    if (!has_value(graph, storage) || storage == value) {
        return fail(err, graph, "value", value->name, "is stored in a value outside the graph");
    }
    if (storage->storage) {
        return fail(err, graph, "value", value->name, "is stored in a value that is stored itself");
    }
    if (value->kind != VALUE_TEMP || storage->kind != VALUE_TEMP) {
        return fail(err, graph, "value", value->name, "only temporaries share memory");
    }
    struct shape part = value->shape, whole = storage->shape;
    if (part.n != whole.n || part.h != whole.h || part.w != whole.w ||
        value->type != storage->type) {
        return fail(err, graph, "value", value->name, "does not have the shape of its storage");
    }
    if (value->storage_channel < 0 || value->storage_channel > whole.c - part.c) {
        return fail(err, graph, "value", value->name, "reaches past the channels of its storage");
    }
    return true;
}

static bool check_value(const struct graph *graph, size_t index, struct err *err) {
    const struct value *value = graph->values.items[index];
    if (value->id != (int)index) {
        return fail(err, graph, "value", value->name, "its number is not its index");
    }
    if (value->kind == VALUE_INPUT && !value->port) {
        return fail(err, graph, "value", value->name, "is an input without a port");
    }
    if ((value->kind == VALUE_TEMP) != (value->producer != NULL)) {
        return fail(err, graph, "value", value->name,
                    "temporaries have a producer, other values have none");
    }
    bool of_param = value->kind == VALUE_PARAM ||
                    (value->kind == VALUE_STATE && value->state_index != STATE_LOSS_SCALE);
    if (of_param != (value->param != NULL)) {
        return fail(err, graph, "value", value->name,
                    "parameters and states belong to a parameter, other values do not");
    }
    if (of_param && !shape_equal(value->shape, value->param->shape)) {
        return fail(err, graph, "value", value->name, "does not have the shape of its parameter");
    }
    return check_storage(graph, value, err);
}

/* The shape rule, applied to copies of the outputs, gives the shapes the outputs have. */
static bool check_shapes(const struct graph *graph, const struct node *node, struct err *err) {
    struct node copy = *node;
    struct value outputs[NODE_MAX_OUTPUTS];
    for (int i = 0; i < node->n_outputs; i++) {
        outputs[i] = *node->outputs[i];
        copy.outputs[i] = &outputs[i];
    }
    if (!op_table[node->op]->shape(&copy, err)) {
        return err_prefix(err, "graph %s", graph->name);
    }
    for (int i = 0; i < node->n_outputs; i++) {
        if (!shape_equal(outputs[i].shape, node->outputs[i]->shape) ||
            outputs[i].type != node->outputs[i]->type) {
            return fail(err, graph, "value", node->outputs[i]->name,
                        "does not have the shape and type that its operation gives");
        }
    }
    return true;
}

/* made[id]: the value exists when the node runs. */
static bool check_node(const struct graph *graph, const struct node *node, bool *made,
                       struct err *err) {
    if (!node->name || (int)node->op < 0 || node->op >= OP_COUNT || node->n_inputs < 0 ||
        node->n_inputs > NODE_MAX_INPUTS || node->n_outputs < 0 ||
        node->n_outputs > NODE_MAX_OUTPUTS) {
        return fail(err, graph, "node", node->name ? node->name : "without a name",
                    "has an unknown operation or too many inputs or outputs");
    }
    for (int i = 0; i < node->n_inputs; i++) {
        if (!has_value(graph, node->inputs[i])) {
            return fail(err, graph, "node", node->name, "reads a value outside the graph");
        }
        if (!made[node->inputs[i]->id]) {
            return fail(err, graph, "node", node->name, "reads a value that is made later");
        }
    }
    for (int i = 0; i < node->n_outputs; i++) {
        const struct value *value = node->outputs[i];
        if (!has_value(graph, value) || value->producer != node) {
            return fail(err, graph, "node", node->name,
                        "makes a value that does not name it as producer");
        }
        if (made[value->id]) {
            return fail(err, graph, "node", node->name, "makes a value that exists already");
        }
        made[value->id] = true;
    }
    return check_shapes(graph, node, err);
}

static bool check_all(const struct graph *graph, bool *made, struct err *err) {
    for (size_t i = 0; i < graph->values.count; i++) {
        if (!check_value(graph, i, err)) {
            return false;
        }
        made[i] = graph->values.items[i]->kind != VALUE_TEMP;
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (!check_node(graph, graph->nodes.items[i], made, err)) {
            return false;
        }
    }
    for (size_t i = 0; i < graph->values.count; i++) {
        if (!made[i]) {
            return fail(err, graph, "value", graph->values.items[i]->name,
                        "is made by no node of the graph");
        }
    }
    return true;
}

bool graph_check(const struct graph *graph, struct err *err) {
    struct arena scratch = {0};
    bool ok = check_all(graph, ARENA_ARRAY(&scratch, bool, graph->values.count + 1), err);
    arena_free(&scratch);
    return ok;
}
