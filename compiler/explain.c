/*
 * explain.c: "unetc --explain": layers and training here, counted on the graph; programs and memory
 * in report_memory.c, from the plan.
 */
#include "compiler/explain.h"

#include <inttypes.h>
#include <string.h>

#include "compiler/report_memory.h"

static bool is_convolution(enum op_kind op) {
    return op == OP_CONV || op == OP_UPCONV;
}

static uint64_t node_parameters(const struct node *node) {
    uint64_t count = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i]->kind == VALUE_PARAM) {
            count += shape_elements(node->inputs[i]->shape);
        }
    }
    return count;
}

static void print_layer(const struct node *node, FILE *stream) {
    const struct value *y = node->outputs[0];
    char what[64];
    if (is_convolution(node->op)) {
        snprintf(what, sizeof(what), "%s %dx%d%s", op_table[node->op]->name, node->attr.kh,
                 node->op == OP_UPCONV ? node->attr.kh : node->attr.kw,
                 !node->attr.act            ? ""
                 : node->attr.slope == 0.0f ? " + relu"
                                            : " + leaky_relu");
    } else {
        snprintf(what, sizeof(what), "%s", op_table[node->op]->name);
    }
    char shape[48];
    snprintf(shape, sizeof(shape), "%d x %d x %d", y->shape.c, y->shape.h, y->shape.w);
    fprintf(stream, "  %-24s %-22s %18s %12" PRIu64 " %12.3f\n", node->name, what, shape,
            is_convolution(node->op) ? node_parameters(node) : 0,
            (double)op_table[node->op]->flops(node) / 1e9);
}

struct totals {
    int convolutions;
    uint64_t parameters, flops;
};

static struct totals print_layers(const struct graph *train, FILE *stream) {
    struct totals totals = {0};
    fprintf(stream, "  %-24s %-22s %18s %12s %12s\n", "layer", "operation", "channels x h x w",
            "parameters", "GFLOP");
    for (size_t i = 0; i < train->nodes.count; i++) {
        const struct node *node = train->nodes.items[i];
        if (node->op == OP_HALF_STORE || node->op == OP_HALF_LOAD) {
            continue; /* no layer's; the programs below name them */
        }
        print_layer(node, stream);
        if (is_convolution(node->op)) {
            totals.convolutions++;
            totals.parameters += node_parameters(node);
            totals.flops += op_table[node->op]->flops(node);
        }
        if (node->op == OP_SOFTMAX_LOSS) {
            break; /* the backward pass follows */
        }
    }
    return totals;
}

static void print_recomputed(const struct graph *train, FILE *stream) {
    bool any = false;
    for (size_t i = 0; i < train->nodes.count; i++) {
        const struct node *node = train->nodes.items[i];
        if (node->attr.recompute) {
            fprintf(stream, "%s%s", any ? ", " : "  recompute    ", node->name);
            any = true;
        }
    }
    fprintf(stream, "%s", any ? "\n" : "");
}

static void print_training(const struct plan_model *model, FILE *stream) {
    char text[512];
    fprintf(stream, "\ntraining\n");
    fprintf(stream, "  augment      %s\n",
            plan_describe_augment(&model->augment, text, sizeof(text)));
    fprintf(stream, "  weights      %s\n",
            plan_describe_weights(&model->weights, text, sizeof(text)));
    if (model->sample_balance > 0) {
        fprintf(stream, "  samples      %g of them centred on a pixel of a class drawn evenly\n",
                (double)model->sample_balance);
    }
    fprintf(stream, "  update       the mean gradient of %u batch%s of %u\n", model->accumulate,
            model->accumulate == 1 ? "" : "es", model->batch);
}

void explain_plan(const struct plan *plan, const struct graph *train, FILE *stream) {
    const struct plan_model *model = &plan->model;
    fprintf(stream, "model %s (%s%s%s)\n\n", model->name, model->source,
            model->overrides[0] ? ", " : "", model->overrides);
    struct totals totals = print_layers(train, stream);
    fprintf(stream,
            "\n%d convolutions, %" PRIu64
            " parameters, %ux%u -> %ux%u, batch %u, %.2f GFLOP forward\n",
            totals.convolutions, totals.parameters, model->in_h, model->in_w, model->out_h,
            model->out_w, model->batch, (double)totals.flops / 1e9);
    print_training(model, stream);
    print_recomputed(train, stream);
    report_programs(plan, stream);
    report_device_memory(plan, stream);
}
