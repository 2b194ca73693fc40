/*
 * guard_run.h: the records of a plan, one by one, with every tensor of theirs between guards
 * (guard.h).
 */
#ifndef UNET_TESTS_GUARD_RUN_H
#define UNET_TESTS_GUARD_RUN_H

#include "runtime/runtime.h"

/*
 * Runs each record of all programs, by the methods of kinds (bits) that the device allows, with the
 * guards after all tensors and once more with them before. Each tensor, also a part of another, has
 * pages of its own and random content. Returns how many times a record read or wrote outside of its
 * tensors, and says on stderr which. n_records: adds how many of each method were run, once for
 * both sides.
 */
uint32_t guard_run_plan(struct unet_device *device, const struct plan *plan, uint32_t kinds,
                        uint32_t n_records[PLAN_METHOD_KIND_COUNT]);

#endif
