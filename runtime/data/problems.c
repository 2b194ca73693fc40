/*
 * problems.c: see problems.h.
 */
#include "runtime/data/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TAIL_BYTES 160 /* kept free for the subject and "and N more" */

void problems_add(struct problems *problems, enum err_code code, const char *format, ...) {
    char line[sizeof problems->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (problems->count++ == 0)
        problems->code = code;
    if (problems->shown >= problems->max_shown || problems->shown + 1 < problems->count)
        return; /* also when an earlier one did not fit: the list stays a beginning */
    size_t room = sizeof problems->text - TAIL_BYTES - problems->length;
    const char *between = problems->shown > 0 ? "; " : "";
    size_t length = strlen(between) + strlen(line);
    if (length >= room && problems->shown > 0)
        return;
    int n = snprintf(problems->text + problems->length, room, "%s%s", between, line);
    problems->length += (size_t)n < room ? (size_t)n : room - 1;
    problems->shown++;
}

void problems_add_err(struct problems *problems, const struct err *err) {
    problems_add(problems, err->code, "%s", err->text);
    if (err->hint[0])
        problems_hint(problems, "%s", err->hint);
}

void problems_hint(struct problems *problems, const char *format, ...) {
    if (problems->hint[0])
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problems->hint, sizeof problems->hint, format, arguments);
    va_end(arguments);
}

bool problems_report(const struct problems *problems, const char *subject, struct err *err) {
    if (problems->count == 0)
        return true;
    size_t hidden = problems->count - problems->shown;
    if (problems->count == 1)
        err_set(err, problems->code, "%s: %s", subject, problems->text);
    else if (hidden == 0)
        err_set(err, problems->code, "%s: %zu problems: %s", subject, problems->count,
                problems->text);
    else
        err_set(err, problems->code, "%s: %zu problems: %s; and %zu more", subject, problems->count,
                problems->text, hidden);
    if (problems->hint[0])
        err_hint(err, "%s", problems->hint);
    return false;
}
