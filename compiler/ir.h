/*
 * ir.h: the graph that all passes work on: values (tensors) and nodes (operations) in execution
 * order. What an operation means is its reference in compiler/op/; ops.def lists inputs, outputs
 * and attributes.
 */
#ifndef UNET_IR_H
#define UNET_IR_H

#include <stdint.h>
#include <stdio.h>

#include "common/arena.h"
#include "common/base.h"
#include "common/diag.h"
#include "common/err.h"
#include "common/plan.h"
#include "common/vec.h"

#define NODE_MAX_INPUTS 8
#define NODE_MAX_OUTPUTS 2

enum op_kind {
#define OP(NAME, name) OP_##NAME,
#include "compiler/ops.def"
#undef OP
    OP_COUNT
};

/* A trained tensor of the model, shared by all graphs built from it. Shapes are PyTorch's: conv
   weight n = out, c = in; upconv weight n = in, c = out; bias 1, c, 1, 1. */
struct param {
    const char *name; /* "enc1/conv1.weight" */
    struct shape shape;
    bool is_bias;
    bool transposed; /* upconv weight */
    enum plan_init init;
    float init_scale;
};

enum value_kind {
    VALUE_INPUT, /* written by the host: port names it */
    VALUE_PARAM, /* param */
    VALUE_STATE, /* optimiser state number state_index of param, or the sum of its gradients
                    (STATE_ACCUMULATOR); same shape. STATE_LOSS_SCALE: of no parameter */
    VALUE_TEMP   /* made by producer */
};

#define STATE_ACCUMULATOR PLAN_MAX_STATES
#define STATE_LOSS_SCALE (PLAN_MAX_STATES + 1)

struct value {
    int id; /* index in graph->values */
    const char *name;
    enum value_kind kind;
    enum plan_type type;
    struct shape shape;
    struct node *producer; /* VALUE_TEMP only */
    const char *port;      /* inputs, and temporaries that are outputs of the program; else NULL */
    const struct param *param; /* VALUE_PARAM and VALUE_STATE */
    int state_index;

    /* Decided by skip.c and inplace.c: the value lives inside another one's memory, from this
       channel on (its images stride_n apart as in the storage). storage == NULL: memory of its own.
       Never chained: storage->storage == NULL. */
    struct value *storage;
    int storage_channel;
};

struct attr {
    int kh, kw, pad_h, pad_w, dilation, stride;
    int top, left;      /* crop */
    int channel;        /* slice */
    struct shape shape; /* of the result where inputs do not determine it */
    bool act;           /* fused activation (or, in a data gradient, its mask) */
    float slope;
    int plain_first, plain_count; /* channels that the mask of a data gradient leaves alone */
    float rate;                   /* dropout */
    int layer;
    bool recompute; /* conv, upconv: the backward pass makes the result again (recompute.c) */
    float momentum, decay, beta1, beta2, epsilon;
    float initial; /* scale of the loss */
    int interval;  /* good updates until it is doubled; 0: never changed */
};

struct node {
    enum op_kind op;
    const char *name; /* of the layer it comes from, "enc1/conv1" */
    struct diag_pos pos;
    struct attr attr;
    int n_inputs, n_outputs;
    struct value *inputs[NODE_MAX_INPUTS];
    struct value *outputs[NODE_MAX_OUTPUTS];
};

struct graph {
    struct arena *arena; /* owns values, nodes, names */
    const char *name;    /* of the program: "train_step" */
    VEC(struct value *) values;
    VEC(struct node *) nodes; /* in execution order */
    bool is_mixed;            /* "precision: mixed": products may round to half precision */
};

struct autodiff;
struct lower;

/* What an interpreter run knows besides the values. */
struct interpret_context {
    uint64_t seed;
    uint32_t step;    /* updates before this one */
    uint32_t batch;   /* of this update, from 0 */
    uint32_t batches; /* of each update; 0 counts as 1 */
    double learning_rate;
};

/* Everything the compiler knows of an operation. */
struct op_info {
    const char *name;
    /* Checks inputs and sets shape and type of the outputs. ERR_INPUT names the mismatch. */
    bool (*shape)(struct node *node, struct err *err);
    /* Adds the gradient of each input: reads dy[i] (NULL: output i has no gradient), calls
       autodiff_add. NULL: the operation cannot be differentiated. */
    void (*grad)(struct autodiff *ad, struct node *node, struct value *const *dy);
    /* The definition, in double. in[i] and out[i] are dense n, c, h, w. Updating operations write
     * in[]. */
    void (*reference)(const struct node *node, double *const *in, double *const *out,
                      const struct interpret_context *context);
    /* Emits the dispatch records (compiler/lower.h). */
    void (*lower)(struct lower *lower, const struct node *node);
    /* Floating-point operations of the mathematics (multiply-add = 2), for reports. */
    uint64_t (*flops)(const struct node *node);
    /* Input i whose memory output 0 may take over when nobody reads it later; -1: none. Inputs may
       be read by the kernel only at the element being written, or be updated in place. */
    int inplace_input;
};

extern const struct op_info *const op_table[OP_COUNT];

/* graph.c: building and editing. Memory is the graph's arena. */
void graph_init(struct graph *graph, struct arena *arena, const char *name);
void graph_free(struct graph *graph); /* the vectors; values and nodes belong to the arena */
void graph_copy(const struct graph *from, struct graph *to, struct arena *arena); /* names shared */
struct value *graph_value(struct graph *graph, enum value_kind kind, const char *name,
                          struct shape shape);
/* Makes a node with n_outputs temporaries named "NAME.op" (no position in the list yet, shapes
 * unset). */
struct node *graph_node(struct graph *graph, enum op_kind op, const char *name, int n_outputs,
                        struct value *const *inputs, int n_inputs, const struct attr *attr);
/* graph_node + shape rule + append. False when the shape rule objects. */
bool graph_append(struct graph *graph, enum op_kind op, const char *name, int n_outputs,
                  struct value *const *inputs, int n_inputs, const struct attr *attr,
                  struct node **out, struct err *err);
/* Puts a node of graph_node into the list before the one of that index, which may be the end. */
void graph_insert(struct graph *graph, size_t index, struct node *node);
int graph_use_count(const struct graph *graph,
                    const struct value *value); /* as node inputs; an output port counts too */
void graph_replace_uses(struct graph *graph, struct value *from, struct value *to);
void graph_remove_dead(
    struct graph *graph); /* nodes without used outputs, ports or effects; renumbers values */
bool op_has_effect(
    enum op_kind op); /* updates input 0 from the gradient, input 1: SGD, ADAM, ACCUMULATE, and
                          GRADIENT_CHECK, whose input 0 is of no parameter */

/* check.c: invariants every pass must keep: order (producers first), ownership, shapes equal to the
 * rules'. */
bool graph_check(const struct graph *graph, struct err *err);

/* print.c: "--dump PASS": one line per node, names, shapes, attributes, storage. Stable text for
 * golden files. */
void graph_print(const struct graph *graph, FILE *stream);

/* autodiff.c: appends to a forward graph the nodes computing d loss / d param for every parameter,
   starting from a SOFTMAX_LOSS node. gradients[i] corresponds to params in order of first
   appearance among the values. Gradients of values that depend on no parameter are not computed. */
struct autodiff_result {
    VEC(struct value *) params;
    VEC(struct value *) gradients;
};
bool autodiff_run(struct graph *graph, struct autodiff_result *result, struct err *err);
/* For gradient rules: is the gradient of this input needed? add a contribution to it; append a
 * node. */
bool autodiff_needs(const struct autodiff *ad, const struct value *value);
void autodiff_add(struct autodiff *ad, struct value *value, struct value *gradient);
struct value *autodiff_node(struct autodiff *ad, enum op_kind op, const struct node *of,
                            struct value *const *inputs, int n_inputs, const struct attr *attr);

/* interpret.c: runs a graph in double. tensors[value id] are arrays of shape_elements doubles: the
   caller fills inputs, params and states, the run fills the rest (and allocates in the arena where
   an entry is NULL, so that a second run over the same tensors needs no more memory). */
void interpret_run(const struct graph *graph, double **tensors,
                   const struct interpret_context *context, struct arena *arena);

#endif
