/*
 * choice.c: see choice.h. What decides, in this order: what the session was opened with (a resumed
 * training, a measurement), --disable, the file of unetrun tune, the table of drivers measured
 * before, the preferences in the plan (docs/runtime.md).
 */
#include "runtime/choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum plan_device device_kind(const struct unet_device *device,
                                    const struct plan_limits *limits) {
    if (strcmp(device->info.backend, "cpu") == 0)
        return PLAN_DEVICE_NATIVE;
    if (limits->class_ == PLAN_CLASS_GPU)
        return PLAN_DEVICE_GPU;
    return limits->access == PLAN_ACCESS_ADDRESS ? PLAN_DEVICE_CPU_ADDRESS
                                                 : PLAN_DEVICE_CPU_DESCRIPTOR;
}

struct picker {
    const struct unet_device *device;
    const struct plan *plan;
    const struct plan_limits *limits;
    enum plan_device kind;
    uint32_t given; /* by the session; PLAN_NONE: nothing */
    struct err *err;
};

static bool fail_empty(const struct picker *picker, const struct plan_program *program,
                       const struct plan_choice *choice) {
    char list[128] = "";
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        const size_t used = strlen(list);
        snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                 plan_method_name(choice->methods[i].kind));
    }
    err_set(picker->err, ERR_USAGE, "%s, %s: no method is left of %s", program->name, choice->name,
            list);
    return err_hint(picker->err, "--disable, or UNET_DISABLE in the environment, names too many");
}

static bool pick(const struct picker *picker, const struct plan_program *program, uint32_t index,
                 struct unet_choice *out) {
    const struct plan_choice *choice = &program->choices[index];
    *out = (struct unet_choice){.program = program->name, .name = choice->name};
    if (picker->given != PLAN_NONE) {
        if (picker->given >= choice->n_methods)
            return err_set(picker->err, ERR_USAGE, "%s, %s: method %u of %u", program->name,
                           choice->name, picker->given, choice->n_methods);
        out->method = picker->given;
        out->reason = UNET_CHOICE_GIVEN;
        return plan_method_fits(picker->plan, program, index, out->method, picker->limits,
                                picker->err);
    }
    uint32_t allowed = 0, n_allowed = 0;
    for (uint32_t i = 0; i < choice->n_methods; i++) {
        if ((picker->device->disabled >> choice->methods[i].kind & 1u) == 0 &&
            plan_method_fits(picker->plan, program, index, i, picker->limits, NULL)) {
            allowed |= 1u << i;
            n_allowed++;
        }
    }
    if (n_allowed == 0)
        return fail_empty(picker, program, choice);
    out->method = plan_choice_prefer(choice, picker->kind, allowed);
    out->reason = n_allowed == 1 ? UNET_CHOICE_ONLY : UNET_CHOICE_PREFERENCE;
    return true;
}

static bool pick_all(struct chosen *chosen, struct picker *picker, const uint32_t *methods) {
    uint32_t count = 0;
    for (uint32_t p = 0; p < picker->plan->n_programs; p++) {
        const struct plan_program *program = &picker->plan->programs[p];
        for (uint32_t c = 0; c < program->n_choices; c++, count++) {
            struct unet_choice *choice = &chosen->choices[count];
            picker->given = methods != NULL ? methods[count] : PLAN_NONE;
            if (!pick(picker, program, c, choice))
                return false;
            choice->kind = program->choices[c].methods[choice->method].kind;
        }
    }
    chosen->n_choices = count;
    return true;
}

/* Barriers of records that do not run wait for the next one that does. */
static void keep_records(struct chosen *chosen, const struct plan *plan) {
    uint32_t at = 0, kept = 0, first_choice = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        const struct plan_program *from = &plan->programs[p];
        struct plan_program *to = &chosen->programs[p];
        bool barrier = false;
        *to = *from;
        to->records = &chosen->records[kept];
        to->n_records = 0;
        chosen->firsts[p] = at;
        for (uint32_t r = 0; r < from->n_records; r++, at++) {
            const struct plan_record *record = &from->records[r];
            barrier = barrier || record->barrier;
            chosen->places[at] = PLAN_NONE;
            if (record->choice != PLAN_NONE &&
                record->method != chosen->choices[first_choice + record->choice].method)
                continue;
            chosen->places[at] = to->n_records;
            to->records[to->n_records] = *record;
            to->records[to->n_records++].barrier = barrier;
            barrier = false;
        }
        kept += to->n_records;
        first_choice += from->n_choices;
    }
    chosen->plan = *plan;
    chosen->plan.programs = chosen->programs;
}

bool chosen_open(struct chosen *chosen, const struct unet_device *device, const struct plan *plan,
                 const struct plan_limits *limits, const uint32_t *methods, struct err *err) {
    size_t n_records = 1, n_choices = 1;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        n_records += plan->programs[p].n_records;
        n_choices += plan->programs[p].n_choices;
    }
    *chosen = (struct chosen){0};
    chosen->programs = calloc(MAX(plan->n_programs, 1u), sizeof(*chosen->programs));
    chosen->records = calloc(n_records, sizeof(*chosen->records));
    chosen->places = calloc(n_records, sizeof(*chosen->places));
    chosen->firsts = calloc(MAX(plan->n_programs, 1u), sizeof(*chosen->firsts));
    chosen->choices = calloc(n_choices, sizeof(*chosen->choices));
    if (chosen->programs == NULL || chosen->records == NULL || chosen->places == NULL ||
        chosen->firsts == NULL || chosen->choices == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a session");
    struct picker picker = {.device = device,
                            .plan = plan,
                            .limits = limits,
                            .kind = device_kind(device, limits),
                            .err = err};
    if (!pick_all(chosen, &picker, methods))
        return false;
    keep_records(chosen, plan);
    return true;
}

void chosen_close(struct chosen *chosen) {
    free(chosen->programs);
    free(chosen->records);
    free(chosen->places);
    free(chosen->firsts);
    free(chosen->choices);
    *chosen = (struct chosen){0};
}

uint32_t chosen_place(const struct chosen *chosen, uint32_t program, uint32_t record) {
    return chosen->places[chosen->firsts[program] + record];
}
