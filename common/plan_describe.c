/*
 * plan_describe.c: settings of a plan in words, for listings.
 */
#include <stdarg.h>
#include <stdio.h>

#include "common/base.h"
#include "common/plan.h"

struct line {
    char *text;
    size_t size_bytes, length;
};

/* Appends, after ", " when there is something already. */
static void say(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct line *line, const char *format, ...) {
    va_list args;
    if (line->length > 0 && line->length < line->size_bytes)
        line->length +=
            (size_t)snprintf(line->text + line->length, line->size_bytes - line->length, ", ");
    if (line->length >= line->size_bytes)
        return;
    va_start(args, format);
    line->length +=
        (size_t)vsnprintf(line->text + line->length, line->size_bytes - line->length, format, args);
    va_end(args);
}

/* A part that not every sample gets. */
static void say_probability(struct line *line, float probability) {
    if (probability < 1)
        say(line, "with probability %g", (double)probability);
}

static void say_warp(struct line *line, const struct plan_augment *a) {
    if (a->elastic_grid > 0) {
        say(line, "elastic %u x %u nodes %g px", a->elastic_grid, a->elastic_grid,
            (double)a->elastic_sigma);
        say_probability(line, a->elastic_probability);
    }
    if (a->rotate_degrees > 0 && a->rotate_probability > 0) {
        say(line, "rotation +-%g degrees", (double)a->rotate_degrees);
        if (a->rotate_step > 0)
            say(line, "in steps of %g", (double)a->rotate_step);
        say_probability(line, a->rotate_probability);
    }
    if ((a->scale_min < 1 || a->scale_max > 1) && a->scale_probability > 0) {
        say(line, "scale %g to %g", (double)a->scale_min, (double)a->scale_max);
        say_probability(line, a->scale_probability);
    }
    if (a->mirror_probability > 0)
        say(line, "mirrors %g", (double)a->mirror_probability);
    if (line->length > 0)
        say(line, "%s", a->cubic ? "cubic" : "linear");
}

const char *plan_describe_augment(const struct plan_augment *a, char *text, size_t size_bytes) {
    struct line line = {.text = text, .size_bytes = size_bytes};
    say_warp(&line, a);
    if (a->grey_probability > 0) {
        say(&line, "grey black %g white %g slope %g to %g", (double)a->grey_black,
            (double)a->grey_white, (double)a->grey_slope_min, (double)a->grey_slope_max);
        say_probability(&line, a->grey_probability);
    }
    if (!a->shift)
        say(&line, "always the middle of the image");
    if (line.length == 0)
        say(&line, "none");
    return text;
}

const char *plan_describe_weights(const struct plan_weights *w, char *text, size_t size_bytes) {
    struct line line = {.text = text, .size_bytes = size_bytes};
    if (w->balance > 0)
        say(&line, "balance %g", (double)w->balance);
    if (w->border > 0)
        say(&line, "border %g with sigma %g px", (double)w->border, (double)w->sigma);
    if (line.length == 0)
        say(&line, "as in the label table");
    return text;
}

const char *plan_describe_label(const struct plan_label *label, char *text, size_t size_bytes) {
    char values[32];
    if (label->value == PLAN_LABEL_OTHER)
        snprintf(values, sizeof(values), "other");
    else if (label->last_value > label->value)
        snprintf(values, sizeof(values), "%u to %u", label->value, label->last_value);
    else
        snprintf(values, sizeof(values), "%u", label->value);
    snprintf(text, size_bytes, "%s = %s (class %u, weight %g%s)", values, label->name,
             label->class_, (double)label->weight, label->instances ? ", instances" : "");
    return text;
}

uint64_t plan_accumulator_bytes(const struct plan *plan) {
    uint64_t size_bytes = 0;
    for (uint32_t i = 0; i < plan->n_params; i++)
        if (plan->params[i].accumulator != PLAN_NONE)
            size_bytes +=
                align_up(plan->tensors[plan->params[i].accumulator].size_bytes, PLAN_ALIGNMENT);
    return size_bytes;
}
