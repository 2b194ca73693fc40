/*
 * explain.h: "unetc --explain": what a plan will do, for people.
 */
#ifndef UNET_EXPLAIN_H
#define UNET_EXPLAIN_H

#include "compiler/ir.h"

/* Layers with shapes, parameters and operations of the forward pass (from the training graph), then
   each program's operations and memory against naive allocation and the lower bound, then device
   memory by purpose. */
void explain_plan(const struct plan *plan, const struct graph *train, FILE *stream);

#endif
