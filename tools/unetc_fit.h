/*
 * unetc_fit.h: unetc --memory and --explain=memory.
 */
#ifndef UNETC_FIT_H
#define UNETC_FIT_H

#include "compiler/compiler.h"

struct unetc_fit {
    uint64_t memory_bytes; /* 0: nothing to choose */
    const char *variable;  /* "tile" or "batch" */
    const char *program;   /* "train_step" or "infer": what has to fit */
};

/* Chooses the size, says so on stdout and writes the setting, "tile=316", to text. */
bool unetc_fit_choose(const char *model, const struct unet_compile_options *options,
                      const struct unetc_fit *fit, char *text, size_t room, struct err *err);
/* Prints the table of sizes on stdout. */
bool unetc_fit_table(const char *model, const struct unet_compile_options *options,
                     const struct unetc_fit *fit, struct err *err);

#endif
