/*
 * unetc_fit.h: unetc --memory and --explain=memory.
 */
#ifndef UNETC_FIT_H
#define UNETC_FIT_H

#include "compiler/compiler.h"

struct unetc_fit {
    uint64_t memory_bytes; /* 0: nothing to choose */
    const char *variable;  /* "tile", "batch" or "recompute" */
    const char *program;   /* "train_step" or "infer": what has to fit */
};

#define UNETC_FIT_SETTINGS 2

/* What to compile with: "tile=316", "recompute=enc1/conv1". */
struct unetc_fit_settings {
    char texts[UNETC_FIT_SETTINGS][256];
    size_t count;
};

/* Chooses size and layers to recompute, and says so on stdout. */
bool unetc_fit_choose(const char *model, const struct unet_compile_options *options,
                      const struct unetc_fit *fit, struct unetc_fit_settings *settings,
                      struct err *err);
/* Prints the tables of sizes and layers on stdout. */
bool unetc_fit_table(const char *model, const struct unet_compile_options *options,
                     const struct unetc_fit *fit, struct err *err);

#endif
