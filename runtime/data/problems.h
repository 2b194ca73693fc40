/*
 * problems.h: a list of problems for one error message, so that a person sees all that is wrong
 * with a data set at once and not one thing per run.
 */
#ifndef UNET_RUNTIME_PROBLEMS_H
#define UNET_RUNTIME_PROBLEMS_H

#include <stddef.h>

#include "common/err.h"

struct problems {
    size_t count, shown, max_shown;
    size_t length; /* of text */
    char text[sizeof(((struct err *)0)->text)];
    enum err_code code;                         /* of the first */
    char hint[sizeof(((struct err *)0)->hint)]; /* the first hint given */
};

void problems_add(struct problems *problems, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void problems_add_err(struct problems *problems, const struct err *err);
void problems_hint(struct problems *problems, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* True when there are none; else fills err: "subject: problem", or "subject: N problems: first;
 * second; and K more", and returns false. */
bool problems_report(const struct problems *problems, const char *subject, struct err *err);

#endif
