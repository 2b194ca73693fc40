/*
 * fit.h: the largest tile or batch that fits into a given device memory, and what each size needs.
 * A size is tried by compiling the model with --set tile=N (or batch=N): what is compared is what
 * the runtime will allocate.
 */
#ifndef UNET_FIT_H
#define UNET_FIT_H

#include "common/plan_memory.h"
#include "compiler/compiler.h"
#include "compiler/model.h"

struct fit_request {
    const char *variable; /* "tile" or "batch": a variable of the model's let: block */
    enum plan_use_case use_case;
    uint64_t memory_bytes; /* 0 for fit_frontier: no mark at what fits */
};

struct fit_choice {
    uint32_t size; /* of the variable */
    uint64_t needed_bytes;
    uint32_t next_size; /* the next larger legal one; 0: there is none */
    uint64_t next_bytes;
};

/* ERR_INPUT when not even the smallest size fits, saying what that needs; ERR_USAGE when the
   variable is set already, or does not set the model's tile or batch. */
bool fit_choose(const char *path, const struct unet_compile_options *options,
                const struct fit_request *request, struct fit_choice *choice, struct err *err);

/* A table: sizes from the smallest to twice the model's own, with bytes for training and inference,
   operations of a step and of a pixel of the output. */
bool fit_frontier(const char *path, const struct unet_compile_options *options,
                  const struct fit_request *request, FILE *stream, struct err *err);

/* compile.c: reads a model; its mistakes are shown on options->diagnostics. */
bool compile_read_model(const char *file_name, const char *text,
                        const struct unet_compile_options *options, struct model **model,
                        struct err *err);

#endif
