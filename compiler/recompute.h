/*
 * recompute.h: layers whose maps are computed a second time instead of being kept for the backward
 * pass: what belongs to such a layer (recompute.c), and which of them to choose for how much memory
 * (recompute_sets.c).
 */
#ifndef UNET_RECOMPUTE_H
#define UNET_RECOMPUTE_H

#include "compiler/ir.h"

#define RECOMPUTE_CHAIN_MAX 4

/* A convolution or up-convolution and the point-wise operations behind it, in order, up to the last
   whose result the backward pass reads. */
struct recompute_chain {
    struct node *nodes[RECOMPUTE_CHAIN_MAX];
    int count;
    size_t first; /* index of the first node of the backward pass that reads one of the results */
};

/* Index of the loss; the number of nodes when there is none. What follows it is backward. */
size_t recompute_find_loss(const struct graph *graph);

/* False: node is no convolution of the forward pass, or the backward pass reads no result of it. */
bool recompute_find_chain(const struct graph *graph, size_t index, struct recompute_chain *chain);

/* Layers to recompute, cheaper than any other choice that needs as little memory. */
struct recompute_set {
    const char *layers;  /* as after train: recompute: "enc1/conv1,dec1/conv1"; "none" */
    uint64_t flops;      /* that a step takes more */
    uint64_t peak_bytes; /* most bytes of maps and gradients alive at once, scratch left out */
};

struct recompute_sets {
    struct arena arena;
    struct recompute_set *items; /* the more operations, the fewer bytes; the first is "none" */
    size_t count;
};

/*
 * From a training graph after all passes that recomputes nothing. Every set of up to 16 layers is
 * looked at: where there are more, of those that free the most bytes for an operation. Bytes are
 * those of the graph's lifetimes with the maps taken out from their last use in the forward pass to
 * their first in the backward pass, and no more than a good guess at what a plan needs.
 */
void recompute_list_sets(const struct graph *graph, struct recompute_sets *sets);
void recompute_free_sets(struct recompute_sets *sets); /* of zeroes: fine */

/* compile.c: the same for a model file whatever its train: recompute says. */
struct unet_compile_options;
bool compile_recompute_sets(const char *path, const struct unet_compile_options *options,
                            struct recompute_sets *sets, struct err *err);

#endif
