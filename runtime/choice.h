/*
 * choice.h: which method of each choice of a plan runs on a device, and the plan as an executor
 * sees it then: the records of these methods only. Used by session.c.
 */
#ifndef UNET_CHOICE_H
#define UNET_CHOICE_H

#include "runtime/exec.h"

struct chosen {
    struct plan plan; /* shares everything with the plan it is made from but programs and records */
    struct plan_program *programs;
    struct plan_record *records;
    uint32_t *places; /* of all records of the plan, in order: the number in the program as it runs;
                         PLAN_NONE: the record does not run */
    uint32_t *firsts; /* of each program: its first record in places */
    struct unet_choice *choices; /* of all programs, in order */
    uint32_t n_choices;
};

/* methods: as in struct unet_session_options. The plan is verified. ERR_USAGE when nothing is left
   of a choice. */
bool chosen_open(struct chosen *chosen, const struct unet_device *device, const struct plan *plan,
                 const struct plan_limits *limits, const uint32_t *methods, struct err *err);
void chosen_close(struct chosen *chosen); /* zeroed: nothing */

/* As unet_session_choices_text. */
char *chosen_text(const struct chosen *chosen);

/* The number that a record of the plan has in its program as it runs; PLAN_NONE: it does not. */
uint32_t chosen_place(const struct chosen *chosen, uint32_t program, uint32_t record);

#endif
