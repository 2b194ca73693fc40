/*
 * diag.h: mistakes in a model file, collected and shown together: file:line:column, the line, a
 * caret, a hint.
 */
#ifndef UNET_DIAG_H
#define UNET_DIAG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define DIAG_MAX 20 /* shown; later ones are only counted */

struct diag_pos {
    int line, column; /* from 1; 0: no position */
};

struct diag_item {
    struct diag_pos pos;
    char *message, *hint; /* hint may be NULL */
};

struct diag {
    const char *file; /* name shown */
    const char *text; /* content of the file, for the line and the caret; may be NULL */
    size_t count;     /* of all mistakes, also those past DIAG_MAX */
    struct diag_item items[DIAG_MAX];
};

void diag_init(struct diag *diag, const char *file, const char *text);
void diag_free(struct diag *diag);
void diag_error(struct diag *diag, struct diag_pos pos, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Adds a hint to the mistake reported last. */
void diag_hint(struct diag *diag, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Prints all, in order of position, and "N mistakes" when there are several. */
void diag_print(const struct diag *diag, FILE *stream);

/* The nearest of the candidates when it is near enough to be a slip of the keyboard, else NULL. */
const char *diag_did_you_mean(const char *word, const char *const *candidates, size_t count);

#endif
