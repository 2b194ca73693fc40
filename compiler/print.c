/*
 * print.c: a graph as text, for --dump and for golden files: the program's inputs and parameters,
 * then one line per node:
 *
 *   %7 enc1/conv1.conv 1x8x30x30 in %12[4] = conv(%0, %1, %2) kh=3 kw=3 act
 *
 * %7 is the value's number, the shape is n x c x h x w, "in %12[4]" says that it lives in the
 * memory of %12 from channel 4 on, "-> probs" that the host reads it. Attributes that are zero, and
 * a dilation of 1, are left out.
 */
#include "compiler/ir.h"

static void print_shape(struct shape s, FILE *stream) {
    fprintf(stream, "%dx%dx%dx%d", s.n, s.c, s.h, s.w);
}

static void print_interface_value(const struct value *value, FILE *stream) {
    static const char *const kinds[] = {
        [VALUE_INPUT] = "input", [VALUE_PARAM] = "param", [VALUE_STATE] = "state"};
    fprintf(stream, "  %s %%%d %s ", kinds[value->kind], value->id, value->name);
    print_shape(value->shape, stream);
    fprintf(stream, "%s", value->type == PLAN_TYPE_U32 ? " u32" : "");
    if (value->kind == VALUE_INPUT && value->port) {
        fprintf(stream, " <- %s", value->port);
    }
    fprintf(stream, "\n");
}

static void print_output(const struct value *value, FILE *stream) {
    fprintf(stream, "%%%d %s ", value->id, value->name);
    print_shape(value->shape, stream);
    if (value->storage) {
        fprintf(stream, " in %%%d[%d]", value->storage->id, value->storage_channel);
    }
    if (value->port) {
        fprintf(stream, " -> %s", value->port);
    }
}

static void print_int(const char *name, int value, FILE *stream) {
    if (value) {
        fprintf(stream, " %s=%d", name, value);
    }
}

static void print_float(const char *name, float value, FILE *stream) {
    if (value != 0) {
        fprintf(stream, " %s=%g", name, (double)value);
    }
}

static void print_attr(const struct attr *attr, FILE *stream) {
    print_int("kh", attr->kh, stream);
    print_int("kw", attr->kw, stream);
    print_int("pad_h", attr->pad_h, stream);
    print_int("pad_w", attr->pad_w, stream);
    print_int("dilation", attr->dilation == 1 ? 0 : attr->dilation, stream);
    print_int("stride", attr->stride, stream);
    print_int("top", attr->top, stream);
    print_int("left", attr->left, stream);
    print_int("channel", attr->channel, stream);
    if (attr->act) {
        fprintf(stream, " act");
    }
    print_float("slope", attr->slope, stream);
    print_int("plain_first", attr->plain_first, stream);
    print_int("plain_count", attr->plain_count, stream);
    print_float("rate", attr->rate, stream);
    print_int("layer", attr->layer, stream);
    if (attr->recompute) {
        fprintf(stream, " recompute");
    }
    print_float("momentum", attr->momentum, stream);
    print_float("decay", attr->decay, stream);
    print_float("beta1", attr->beta1, stream);
    print_float("beta2", attr->beta2, stream);
    print_float("epsilon", attr->epsilon, stream);
}

static void print_node(const struct node *node, FILE *stream) {
    fprintf(stream, "  ");
    for (int i = 0; i < node->n_outputs; i++) {
        print_output(node->outputs[i], stream);
        fprintf(stream, "%s", i + 1 < node->n_outputs ? ", " : " = ");
    }
    fprintf(stream, "%s(", op_table[node->op]->name);
    for (int i = 0; i < node->n_inputs; i++) {
        fprintf(stream, "%s%%%d", i ? ", " : "", node->inputs[i]->id);
    }
    fprintf(stream, ")");
    print_attr(&node->attr, stream);
    if (node->n_outputs == 0) {
        fprintf(stream, " # %s", node->name);
    }
    fprintf(stream, "\n");
}

void graph_print(const struct graph *graph, FILE *stream) {
    fprintf(stream, "graph %s\n", graph->name);
    for (size_t i = 0; i < graph->values.count; i++) {
        if (graph->values.items[i]->kind != VALUE_TEMP) {
            print_interface_value(graph->values.items[i], stream);
        }
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        print_node(graph->nodes.items[i], stream);
    }
}
