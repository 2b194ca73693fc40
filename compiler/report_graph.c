/*
 * report_graph.c: "unetc --graph": a graph in the language of Graphviz. Boxes are nodes, coloured
 * by what they do; ellipses what the host writes and reads. A dashed border says that a result
 * lives in the memory of another value (skip.c, inplace.c), which the box names.
 */
#include "compiler/report_picture.h"

/* Names may hold anything that YAML lets pass. */
static void print_quoted(FILE *stream, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fputc('\\', stream);
        fputc(*text, stream);
    }
}

static const char *node_fill(const struct node *node) {
    switch (node->op) {
    case OP_CONV:
    case OP_UPCONV:
        return "#b9d3ee";
    case OP_SOFTMAX:
    case OP_SOFTMAX_LOSS:
        return "#f4b6b6";
    default:
        return op_has_effect(node->op) ? "#f2c48d" : "#f4f4f4";
    }
}

static void print_shape(FILE *stream, struct shape s) {
    if (s.n > 1)
        fprintf(stream, "%d x ", s.n);
    fprintf(stream, "%d x %d x %d", s.c, s.h, s.w);
}

static void print_node(const struct graph *graph, size_t index, FILE *stream) {
    const struct node *node = graph->nodes.items[index];
    bool borrowed = false;
    fprintf(stream, "  n%zu [label=\"", index);
    print_quoted(stream, node->name);
    fprintf(stream, "\\n%s", op_table[node->op]->name);
    if (node->attr.kh > 0)
        fprintf(stream, " %d x %d", node->attr.kh,
                node->attr.kw > 0 ? node->attr.kw : node->attr.kh);
    if (node->attr.act)
        fprintf(stream, ", activation");
    for (int i = 0; i < node->n_outputs; i++) {
        const struct value *value = node->outputs[i];
        if (value->storage != NULL) {
            borrowed = true;
            fprintf(stream, "\\nin ");
            print_quoted(stream, value->storage->name);
            if (value->storage_channel > 0)
                fprintf(stream, " from channel %d", value->storage_channel);
        }
    }
    fprintf(stream, "\", fillcolor=\"%s\", style=\"filled%s\"];\n", node_fill(node),
            borrowed ? ",dashed" : "");
}

static void print_port(const struct value *value, FILE *stream) {
    fprintf(stream, "  v%d [label=\"", value->id);
    print_quoted(stream, value->port);
    fprintf(stream, "\\n");
    print_shape(stream, value->shape);
    fprintf(stream, "\", shape=ellipse, fillcolor=\"#d9ead3\", style=filled];\n");
}

static size_t node_index(const struct graph *graph, const struct node *node) {
    size_t index = 0;
    while (graph->nodes.items[index] != node)
        index++;
    return index;
}

static void print_edges(const struct graph *graph, size_t index, FILE *stream) {
    const struct node *node = graph->nodes.items[index];
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *value = node->inputs[i];
        if (value->kind == VALUE_TEMP)
            fprintf(stream, "  n%zu -> n%zu [label=\"", node_index(graph, value->producer), index);
        else if (value->kind == VALUE_INPUT)
            fprintf(stream, "  v%d -> n%zu [label=\"", value->id, index);
        else
            continue;
        print_shape(stream, value->shape);
        fprintf(stream, "\"];\n");
    }
    for (int i = 0; i < node->n_outputs; i++)
        if (node->outputs[i]->port != NULL)
            fprintf(stream, "  n%zu -> v%d;\n", index, node->outputs[i]->id);
}

void report_graph_dot(const struct graph *graph, FILE *stream) {
    fprintf(stream,
            "digraph \"%s\" {\n  node [shape=box, fontname=\"sans-serif\", fontsize=11];\n"
            "  edge [fontname=\"sans-serif\", fontsize=9];\n",
            graph->name);
    for (size_t i = 0; i < graph->values.count; i++)
        if (graph->values.items[i]->port != NULL)
            print_port(graph->values.items[i], stream);
    for (size_t i = 0; i < graph->nodes.count; i++)
        print_node(graph, i, stream);
    for (size_t i = 0; i < graph->nodes.count; i++)
        print_edges(graph, i, stream);
    fprintf(stream, "}\n");
}
