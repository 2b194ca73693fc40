/*
 * report_picture.h: pictures of a compilation: the arena of a program over its records as SVG, and
 * its graph for Graphviz.
 */
#ifndef UNET_REPORT_PICTURE_H
#define UNET_REPORT_PICTURE_H

#include "compiler/ir.h"

/* Address against record, one rectangle for each tensor of the arena, the record marked that forces
   the lower bound. program is one of the plan's, which plan_verify accepts. */
void report_arena_svg(const struct plan *plan, const struct plan_program *program, FILE *stream);

/* One box per node, edges with the shapes of the values that are made by nodes; parameters and
   optimiser state are left out. The language is DOT. */
void report_graph_dot(const struct graph *graph, FILE *stream);

#endif
