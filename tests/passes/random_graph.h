/*
 * random_graph.h: graphs for tests: builders for the layers of a network, a generator of small
 * random ones, tensors to run them on, and the comparison "same results before and after a pass".
 *
 * Tensors are filled by name, so a graph built again from the same seed and then changed by passes
 * gets the same inputs, parameters and states as the unchanged one.
 */
#ifndef UNET_TESTS_RANDOM_GRAPH_H
#define UNET_TESTS_RANDOM_GRAPH_H

#include "compiler/ir.h"
#include "compiler/model.h"
#include "compiler/passes.h"

/* Builders. Each appends one node, makes the parameters it needs, and returns the node's first
   output; a shape rule that objects ends the program with its message. Layers are named after
   their number: "conv3". */
struct value *net_input(struct graph *graph, int n, int c, int h, int w); /* port "image" */
struct value *net_conv(struct graph *graph, struct value *x, int c_out, bool bias,
                       const struct attr *attr); /* kh, kw 0: 3; dilation 0: 1 */
struct value *net_upconv(struct graph *graph, struct value *x, int c_out, bool bias,
                         const struct attr *attr); /* kh 0: 2 */
struct value *net_act(struct graph *graph, struct value *x, float slope);
struct value *net_maxpool(struct graph *graph, struct value *x, int kernel, int stride,
                          int dilation);
struct value *net_crop(struct graph *graph, struct value *x, int top, int left, int h, int w);
struct value *net_concat(struct graph *graph, struct value *const *inputs, int n_inputs);
struct value *net_add(struct graph *graph, struct value *a, struct value *b);
struct value *net_dropout(struct graph *graph, struct value *x, float rate, int layer);
/* The loss over these logits, with ports "labels", "weights" and "loss"; returns its node. */
struct node *net_loss(struct graph *graph, struct value *logits);

/* A forward graph of 5 to 14 layers of all kinds with branches, values used several times and every
   parameter reaching the loss. The same seed gives the same graph. Initialises the graph. */
void random_graph_build(struct graph *graph, struct arena *arena, uint64_t seed);

/* Appends the gradients and what becomes of them: the model's update, or, where accumulates, their
   sum with those of earlier batches. Fails the test when a gradient cannot be made. */
void random_graph_train(struct graph *graph, const struct model *model, bool accumulates);

/* An entry per value: inputs, parameters and states filled, the others NULL. */
double **random_graph_tensors(const struct graph *graph, uint64_t seed, struct arena *arena);

/* The same with parameters -1, 0 or 1 and an image of small integers, so that maps of the forward
   pass have few digits. */
double **random_graph_whole_tensors(const struct graph *graph, uint64_t seed, struct arena *arena);

/* After a run: whether all that was kept in half precision (compiler/half.c) came back unchanged.
 */
bool random_graph_halves_are_exact(const struct graph *graph, double *const *tensors);

/* For half_run: keeps in half precision whatever may be; what makes the bound of the arena after
   skip and inplace smaller. */
extern const struct half_judge random_graph_half_all, random_graph_half_peak;

/*
 * After both have run: every output port, parameter and state of a exists in b and holds the same
 * numbers, |x - y| <= tolerance * max(1, |x|). Otherwise false and *why names the first difference
 * (static storage, valid until the next call).
 */
bool random_graph_same(const struct graph *a, double *const *a_tensors, const struct graph *b,
                       double *const *b_tensors, double tolerance, const char **why);

/* Gives every temporary memory full of NaN, shared as storage says. A view of one channel range
   among several images is not contiguous, so sharing is checked on graphs of one image. */
void random_graph_share(const struct graph *graph, double **tensors, struct arena *arena);

/*
 * Takes `changed` through the passes, runs both and fails the test unless the results are the same
 * bits. Values of `changed` that share memory really share it, and it starts as NaN, so that a
 * value overwritten too early or read too early changes the result.
 */
typedef void random_graph_pass(struct graph *graph);
void random_graph_check_passes(const struct graph *plain, struct graph *changed,
                               random_graph_pass *const *passes, size_t n_passes,
                               const struct interpret_context *context, uint64_t seed,
                               struct arena *arena);

#endif
