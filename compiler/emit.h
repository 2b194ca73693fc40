/*
 * emit.h: the last stage: graphs become a plan.
 */
#ifndef UNET_EMIT_H
#define UNET_EMIT_H

#include "compiler/ir.h"
#include "compiler/memory.h"

/* One program per graph; plan->model is left zero for the caller. params: all parameters that occur
   in the graphs. memory: NULL for all strategies and blocks of one chunk. A chunk is larger than
   the options allow where a single tensor is. Freed with plan_free. */
struct plan *emit_plan(const struct graph *const *graphs, size_t n_graphs,
                       const struct param *const *params, size_t n_params,
                       enum plan_optimiser optimiser, const struct memory_options *memory);

/* Bytes of arena that a graph takes as a program of its own, by any strategy but the search. */
uint64_t emit_arena_bytes(const struct graph *graph, const struct param *const *params,
                          size_t n_params, const struct memory_options *memory);

#endif
