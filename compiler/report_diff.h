/*
 * report_diff.h: "unetc --diff": what two plans differ in.
 */
#ifndef UNET_REPORT_DIFF_H
#define UNET_REPORT_DIFF_H

#include <stdio.h>

#include "common/plan.h"

/* Model, blocks, then each program: counts, memory, records and arena tensors that vanished (-),
   appeared (+), moved (>) or changed (~). Records and tensors are the same ones when they have the
   same name; of several of a name, the first is the first. "no difference" stands where there is
   none. Both plans must have passed plan_verify. */
void report_diff(const struct plan *a, const char *a_name, const struct plan *b, const char *b_name,
                 FILE *stream);

#endif
