/*
 * hand_plan.h: plans written by hand, record by record, for tests of the runtime that should not
 * depend on the compiler's passes.
 */
#ifndef UNET_TESTS_HAND_PLAN_H
#define UNET_TESTS_HAND_PLAN_H

#include "common/plan.h"

/* An empty plan with room for a few of everything; freed by plan_free. */
struct plan *hand_plan_new(const char *name);

/* A tensor at the end of its block; returns its number. Sizes follow from layout and shape. */
uint32_t hand_plan_tensor(struct plan *plan, const char *name, enum plan_block block,
                          enum plan_layout layout, struct shape shape);

/* A parameter with its tensor and one state ("momentum"), and their numbers. */
uint32_t hand_plan_param(struct plan *plan, const char *name, struct shape shape, bool transposed,
                         enum plan_init init, float scale);

struct plan_program *hand_plan_program(struct plan *plan, const char *name);
void hand_plan_port(struct plan *plan, struct plan_program *program, const char *name,
                    enum plan_direction direction, uint32_t tensor);

/* A record with the dispatch that the compiler would choose; params is the kernel's struct. */
struct plan_record *hand_plan_record(struct plan *plan, struct plan_program *program,
                                     const char *label, enum kernel_id kernel,
                                     const uint32_t *tensors, const void *params, bool barrier);

/* To be called when the program has all its records: its memory figures. */
void hand_plan_finish(struct plan *plan, struct plan_program *program);

#endif
