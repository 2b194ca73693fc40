/*
 * exec_plans.h: training plans for the tests that compare executors with one another, or an
 * executor with itself: small U-Nets with every kind of layer, and random graphs.
 */
#ifndef UNET_TESTS_EXEC_PLANS_H
#define UNET_TESTS_EXEC_PLANS_H

#include "runtime/runtime.h"

#define EXEC_PLANS 10

/* Fails the test with the error's text. */
void exec_must(bool good, const struct err *err, const char *what);

/* Number 0 .. EXEC_PLANS - 1, verified; freed with plan_free. */
struct plan *exec_plans_make(uint32_t number);
/* The same for the models, 0 (ReLU only) and 1 (leaky activations), without some passes
   (unet_compile_options.disable). */
struct plan *exec_plans_make_without(uint32_t number, const char *passes);

/* Any of them with blocks in chunks no larger than their largest tensor. */
struct plan *exec_plans_make_split(uint32_t number);

/* Writes the ports that a program reads and sets the step; a pure function of program and step. */
void exec_plans_feed(struct unet_session *session, const struct plan_program *program,
                     uint32_t step);

/* Fills the arena with words that are no numbers. */
void exec_plans_poison(struct unet_session *session);

#endif
