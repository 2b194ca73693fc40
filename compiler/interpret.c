/*
 * interpret.c: runs a graph node by node through the references of compiler/op/, in double. Slow
 * and plain: the truth that gradients, passes and kernels are checked against. Where values live
 * (value->storage) makes no difference here, each has an array of its own.
 */
#include "compiler/ir.h"

void interpret_run(const struct graph *graph, double **tensors,
                   const struct interpret_context *context, struct arena *arena) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        double *in[NODE_MAX_INPUTS] = {0}, *out[NODE_MAX_OUTPUTS] = {0};
        for (int j = 0; j < node->n_inputs; j++) {
            in[j] = tensors[node->inputs[j]->id];
        }
        for (int j = 0; j < node->n_outputs; j++) {
            const struct value *value = node->outputs[j];
            if (!tensors[value->id]) {
                tensors[value->id] = ARENA_ARRAY(arena, double, shape_elements(value->shape));
            }
            out[j] = tensors[value->id];
        }
        op_table[node->op]->reference(node, in, out, context);
    }
}
