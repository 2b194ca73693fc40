/*
 * unetc_pictures.h: the pictures that unetc writes beside a plan: --arena-svg and --graph.
 */
#ifndef UNETC_PICTURES_H
#define UNETC_PICTURES_H

#include "common/plan.h"

struct unetc_pictures {
    const char *program;                 /* that they show */
    const char *arena_path, *graph_path; /* NULL: not wanted */
    FILE *graph;                         /* what unet_compile_options.graph is written to */
    char *text;
    size_t size_bytes;
};

/* program NULL: train_step. ERR_USAGE when it is given and no picture is. */
bool unetc_pictures_open(struct unetc_pictures *pictures, const char *program,
                         const char *arena_path, const char *graph_path, struct err *err);
/* Whether the plan has the program; ERR_USAGE lists those there are. */
bool unetc_pictures_check(const struct unetc_pictures *pictures, const struct plan *plan,
                          struct err *err);
bool unetc_pictures_write(struct unetc_pictures *pictures, const struct plan *plan,
                          struct err *err);
void unetc_pictures_close(struct unetc_pictures *pictures);

#endif
