/*
 * random_plan.h: the training step of a random graph (random_graph.h) as a plan: gradients, updates
 * with momentum, all passes, places and barriers.
 */
#ifndef UNET_TESTS_RANDOM_PLAN_H
#define UNET_TESTS_RANDOM_PLAN_H

#include "common/plan.h"

/* Verified; freed with plan_free. The same seed gives the same plan; what is wrong fails the
   test. max_bytes: of one allocation, 0 for no limit (struct memory_options). */
struct plan *random_plan_make(uint64_t seed, uint64_t max_bytes);

/* Makes choices of about two thirds of its convolutions, sums and poolings: two methods that do the
   same, the second partly with scratch tensors of its own. Verified again. */
void random_plan_add_choices(struct plan *plan, uint64_t seed);

#endif
