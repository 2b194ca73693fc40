/*
 * passes.h: the passes over a graph, in the order compile.c runs them. Each keeps graph_check true
 * and the values of all ports, parameters and states unchanged (tests/passes proves it with the
 * interpreter).
 */
#ifndef UNET_PASSES_H
#define UNET_PASSES_H

#include "compiler/ir.h"
#include "compiler/model.h"

/* update.c: appends one optimiser node per parameter, reading its gradient and, where the model
   averages batches, what is accumulated. accumulate_run: one node per parameter that adds its
   gradient to that. */
void update_run(struct graph *graph, const struct model *model,
                const struct autodiff_result *gradients);
void accumulate_run(struct graph *graph, const struct autodiff_result *gradients);

/* loss_scale.c: of models in mixed precision. loss_scale_run: after differentiation, the gradient
   of the loss is multiplied by its scale. loss_scale_check: before the updates, nodes that look at
   all gradients and change the scale; returns the verdict that updates take, NULL where nothing is
   scaled. Where batches are accumulated, gradients are then the means. */
void loss_scale_run(struct graph *graph, const struct model *model);
struct value *loss_scale_check(struct graph *graph, const struct model *model,
                               const struct autodiff_result *gradients);
/* Of update.c: a state of a parameter. */
struct value *update_state(struct graph *graph, const struct value *param, int index);

/* mask.c: masks of activations' gradients move to where the gradient is smaller, past pooling,
   cropping and dropout; pool_index_run: poolings keep where their maxima were. Both so that maps
   need not stay for the backward pass. Before fuse. */
void mask_run(struct graph *graph);
void pool_index_run(struct graph *graph);

/* fuse.c: activations into the convolution before them, their gradients into the data gradient
   before them, gradient sums into the uncropping that feeds them. */
void fuse_run(struct graph *graph);

/* recompute.c: maps of the layers marked in attr.recompute are made a second time for the backward
   pass, and not kept for it. After fuse, before order. recompute_check: ERR_INPUT when the backward
   pass reads no map of a marked layer. */
void recompute_run(struct graph *graph);
bool recompute_check(const struct graph *graph, struct err *err);

/* order.c: every update directly after the last reader of what it changes, so that gradients die
   early; every crop directly after what it crops, so that that dies early. */
void order_run(struct graph *graph);

/* half.c: activations that wait long are kept in half precision meanwhile, where that makes the
   program's arena smaller. After order, before skip. The judge tells how large the arena of a graph
   becomes; it may change the graph, a copy. */
struct half_judge {
    uint64_t (*arena_bytes)(struct graph *graph, const void *context);
    const void *context;
};
void half_run(struct graph *graph, const struct half_judge *judge);

/* skip.c: producers write their channels of a concatenation in place; slices become views. Needs:
 * final order. */
void skip_run(struct graph *graph);

/* inplace.c: results of operations that read an input only at the element they write (point-wise
   ones, data gradients their mask) take over its memory when nobody reads it later. After skip. */
void inplace_run(struct graph *graph);

/* storage.c: where a value lives after skip and inplace. */
struct value *storage_root(struct value *value);
int storage_channel(const struct value *value);
/* Do two values share any byte? */
bool storage_overlaps(struct value *a, struct value *b);
/* Bytes of temporaries, outputs of the program left out, alive at each node, and the most of them.
 */
void storage_live_bytes(const struct graph *graph, uint64_t *live_bytes);
uint64_t storage_peak_bytes(const struct graph *graph);

#endif
