/*
 * plan_limits.h: limits of devices as text: one table of names, from which "unetrun devices" writes
 * limits files and "unetc --target" reads them (docs/targets.md). A file is a list of "name:
 * value"; what it leaves out is as plan_limits_minimum(PLAN_CLASS_GPU) has it.
 */
#ifndef UNET_PLAN_LIMITS_H
#define UNET_PLAN_LIMITS_H

#include <stdio.h>

#include "common/plan.h"

/* The key of a limits file that names the device, for messages; not a field. */
#define PLAN_LIMITS_NAME "name"

struct plan_limits_field {
    const char *name;         /* "shared_bytes" */
    uint32_t count;           /* numbers it has: 1, or 3 along x, y, z */
    uint32_t size_bytes;      /* of each number in struct plan_limits: 1 (bool), 4 or 8 */
    size_t offset;            /* of the first one there */
    const char *const *words; /* what the numbers stand for, from 0, NULL at the end; NULL: numbers
                                 as they are */
    uint64_t least;           /* no device allows less */
    bool is_bound;            /* more is never worse */
    const char *what;         /* for people, with the unit */
};

/* All fields, in the order of the file. Returns how many. */
size_t plan_limits_fields(const struct plan_limits_field **fields_out);
/* The field of a name of that length; NULL: there is none. */
const struct plan_limits_field *plan_limits_find(const char *name, size_t length);

uint64_t plan_limits_get(const struct plan_limits *limits, const struct plan_limits_field *field,
                         uint32_t index);
void plan_limits_set(struct plan_limits *limits, const struct plan_limits_field *field,
                     uint32_t index, uint64_t value);
/* The value that a word or number stands for; false: none, or out of the field's range. */
bool plan_limits_value(const struct plan_limits_field *field, const char *text,
                       uint64_t *value_out);
/* Whether a number is one that the field takes. */
bool plan_limits_allows(const struct plan_limits_field *field, uint64_t value);
/* What a field takes, for messages: "a whole number from 1 to 4294967295", "gpu or cpu". Returns
   text. */
const char *plan_limits_describe(const struct plan_limits_field *field, char *text,
                                 size_t size_bytes);

/* Writes a limits file; remarks: lines for its head, without "#", NULL at the end. */
void plan_limits_print(const struct plan_limits *limits, const char *const *remarks, FILE *stream);

/*
 * Lowers limits to those of a list such as "shared_bytes=16384,groups=1024" (the same along all
 * axes): only fields whose is_bound is set. source is for messages. ERR_USAGE.
 */
bool plan_limits_lower(const char *source, const char *list, struct plan_limits *limits,
                       struct err *err);

/* Whether a verified plan keeps to the limits of the target that it names, if it does. ERR_INPUT.
 */
bool plan_target_check(const struct plan *plan, struct err *err);
/*
 * Where a device allows less than the plan's target, with both numbers: "shared_bytes 49152, here
 * 32768; groups 65536, here 65535". Returns text; NULL: nowhere, or the plan has no target.
 */
#define PLAN_TARGET_TEXT 400
const char *plan_target_excess(const struct plan *plan, const struct plan_limits *device,
                               char text[PLAN_TARGET_TEXT]);

#endif
