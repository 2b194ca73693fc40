/*
 * schedule.h: the learning rate of a training step, from the plan's settings. With s the step from
 * 0, e the end of the schedule (schedule_steps, or the length of the run when that is 0) and g the
 * gamma:
 *
 *     constant  rate
 *     step      rate * g ^ floor(s / e)
 *     poly      rate * (1 - s / e) ^ g          0 from e on
 *     cosine    rate * (1 + cos(pi s / e)) / 2  0 from e on
 *
 * times (s + 1) / warmup_steps during the first warmup_steps steps.
 */
#ifndef UNET_SCHEDULE_H
#define UNET_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/plan.h"

float schedule_learning_rate(const struct plan_model *model, uint32_t step, uint32_t total_steps);

/* Whether the rate of a step depends on the length of the run. */
bool schedule_needs_total(const struct plan_model *model);

#endif
