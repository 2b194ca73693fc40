/*
 * fit.h: the largest tile or batch that fits into a given device memory, the layers to recompute
 * for it (compiler/recompute.h), and what each choice needs. A choice is tried by compiling the
 * model with --set tile=N (or batch=N) and --set recompute=LAYERS: what is compared is what the
 * runtime will allocate.
 *
 * Layers are chosen for training, where the model has a variable recompute that says what its
 * train: recomputes and the options do not set it. The rule: of all sizes the largest that fits;
 * for a size, nothing recomputed when that fits, else the set with the fewest operations.
 */
#ifndef UNET_FIT_H
#define UNET_FIT_H

#include "common/plan_memory.h"
#include "compiler/compiler.h"
#include "compiler/model.h"

#define FIT_LAYERS_BYTES 200 /* variables hold no longer texts */

struct fit_request {
    const char *variable; /* "tile" or "batch": a variable of the model's let: block; "recompute":
                             sizes stay, only layers to recompute are chosen */
    enum plan_use_case use_case;
    uint64_t memory_bytes; /* 0 for fit_frontier: no mark at what fits */
};

struct fit_choice {
    uint32_t size; /* of the variable; 0 for "recompute" */
    uint64_t needed_bytes;
    uint32_t next_size; /* the next larger legal one; 0: there is none */
    uint64_t next_bytes;
    char recompute[FIT_LAYERS_BYTES]; /* value of the variable recompute; "": leave it */
    bool recomputes;                  /* layers are recomputed that need not be with more memory */
    double more_percent;              /* operations of a step for that */
    uint64_t plain_bytes;             /* needed without recomputing */
};

/* ERR_INPUT when not even the smallest size fits, saying what that needs; ERR_USAGE when the
   variable is set already, or does not set the model's tile or batch. */
bool fit_choose(const char *path, const struct unet_compile_options *options,
                const struct fit_request *request, struct fit_choice *choice, struct err *err);

/* Tables: sizes from the smallest to twice the model's own, with bytes for training and inference,
   operations of a step and of a pixel of the output; sets of layers to recompute at the model's own
   size, with bytes for training and operations. */
bool fit_frontier(const char *path, const struct unet_compile_options *options,
                  const struct fit_request *request, FILE *stream, struct err *err);

/* compile.c: reads a model; its mistakes are shown on options->diagnostics. */
bool compile_read_model(const char *file_name, const char *text,
                        const struct unet_compile_options *options, struct model **model,
                        struct err *err);

#endif
