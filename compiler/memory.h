/*
 * memory.h: how the tensors of a plan are placed. memory.c places; lower_internal.h has what
 * emit.c calls.
 */
#ifndef UNET_MEMORY_H
#define UNET_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/plan.h"
#include "common/vec.h"

/* Ways to place, a bit each. All but the search are tried, the search goes on from the best. */
enum memory_strategy {
    MEMORY_BY_SIZE = 1 << 0,
    MEMORY_BY_BREADTH = 1 << 1,
    MEMORY_BY_DURATION = 1 << 2,
    MEMORY_BY_START = 1 << 3,
    MEMORY_BEST_FIT = 1 << 4,
    MEMORY_STACKS = 1 << 5,
    MEMORY_SEARCH = 1 << 6,
    MEMORY_ALL = (1 << 7) - 1
};

struct memory_options {
    uint32_t strategies;      /* bits of enum memory_strategy; 0: all */
    uint64_t max_chunk_bytes; /* the largest allocation, a multiple of PLAN_ALIGNMENT; 0: any */
    bool plain;               /* without methods that need scratch of their own */
    uint64_t method_bytes;    /* scratch that a method may use, even where the arena grows by it; 0:
                                 what fits without */
    const struct plan_limits *target; /* the device that tiles are chosen for; NULL: any */
};

/* A list as on the command line: "size,best-fit,search"; NULL: all. ERR_USAGE names the words. */
bool memory_parse_strategies(const char *list, uint32_t *strategies_out, struct err *err);

/* The chunks of a block while it is filled: no tensor crosses from one to the next. */
struct memory_chunks {
    uint64_t max_bytes;   /* 0: one chunk of any size */
    VEC(uint64_t) splits; /* offsets where a chunk starts, all but the first */
    uint64_t end_bytes;   /* of the last */
};

#endif
