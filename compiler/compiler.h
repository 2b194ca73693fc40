/*
 * compiler.h: the public C API of the compiler library: a model file (docs/model.md) becomes a plan
 * file (docs/plan.md).
 */
#ifndef UNET_COMPILER_H
#define UNET_COMPILER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/plan.h"

/* The device that a plan is compiled for (docs/targets.md). */
struct unet_target {
    char name[256];            /* for messages */
    struct plan_limits limits; /* its device is not set */
};

/* Names of the targets that are built in, NULL-terminated. */
const char *const *unet_target_names(void);
/* One of these, or a limits file. ERR_INPUT: it has mistakes (shown on diagnostics unless that is
   NULL); ERR_USAGE: no target of that name; ERR_IO. */
bool unet_target_find(const char *name_or_file, FILE *diagnostics, struct unet_target *target,
                      struct err *err);
/* Whether a verified plan can be run on it, and how (class_ and access of *used_out, which may be
   NULL). ERR_INPUT names the record, the tensor and the limit. */
bool unet_target_check(const struct plan *plan, const struct unet_target *target,
                       struct plan_limits *used_out, struct err *err);

struct unet_compile_options {
    const char *const *set; /* "NAME=VALUE" overrides of the model's let: variables */
    size_t n_set;
    const char *dump_pass; /* print the graph (or plan) after this pass to dump_stream; NULL: none;
                              "all": every pass */
    FILE *dump_stream;
    FILE *
        diagnostics; /* where mistakes of the model are shown; NULL: nowhere, only counted in err */
    const char *disable; /* passes to leave out, separated by commas; NULL: none */
    const char *place;   /* strategies of placing tensors, separated by commas; NULL: all */
    uint64_t max_allocation_bytes;    /* blocks of memory larger than this are split; 0: none is */
    const struct unet_target *target; /* a plan for this device, or none; NULL: for any */
    FILE *explain; /* report of layers, sizes, operations and memory; NULL: none */
    FILE *graph;   /* the graph of one program after all passes, for Graphviz; NULL: none */
    const char *graph_program; /* "train_step" */
};

/* Compiles a model file. On success *plan_out is verified and is freed with plan_free. ERR_INPUT:
   the model has mistakes (already shown on diagnostics); ERR_USAGE: unknown pass or variable, or a
   pass that no plan does without;
   ERR_IO. */
bool unet_compile_file(const char *path, const struct unet_compile_options *options,
                       struct plan **plan_out, struct err *err);
/* The same from text in memory; file_name is for messages. */
bool unet_compile_text(const char *file_name, const char *text,
                       const struct unet_compile_options *options, struct plan **plan_out,
                       struct err *err);

/* Names of the passes in order, NULL-terminated (for --dump). */
const char *const *unet_compile_passes(void);

#endif
