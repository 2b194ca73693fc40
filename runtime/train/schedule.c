/*
 * schedule.c: learning-rate schedules; formulas in schedule.h. Computed in double and rounded once,
 * so that a rate does not depend on how a step is reached.
 */
#include "runtime/train/schedule.h"

#include <math.h>

static double fraction_done(uint32_t step, uint32_t end) {
    return end == 0 || step >= end ? 1.0 : (double)step / end;
}

float schedule_learning_rate(const struct plan_model *model, uint32_t step, uint32_t total_steps) {
    static const double pi = 3.14159265358979323846;
    const uint32_t end = model->schedule_steps > 0 ? model->schedule_steps : total_steps;
    double rate = model->learning_rate;
    switch (model->schedule) {
    case PLAN_SCHEDULE_CONSTANT:
        break;
    case PLAN_SCHEDULE_STEP:
        if (end > 0)
            rate *= pow(model->schedule_gamma, step / end);
        break;
    case PLAN_SCHEDULE_POLY:
        rate *= pow(1.0 - fraction_done(step, end), model->schedule_gamma);
        break;
    case PLAN_SCHEDULE_COSINE:
        rate *= 0.5 * (1.0 + cos(pi * fraction_done(step, end)));
        break;
    }
    if (step < model->warmup_steps)
        rate *= ((double)step + 1.0) / model->warmup_steps;
    return (float)rate;
}

bool schedule_needs_total(const struct plan_model *model) {
    return model->schedule != PLAN_SCHEDULE_CONSTANT && model->schedule_steps == 0;
}
