/*
 * relocate.h: gives the tensors of a valid plan other places: legal ones, each in the lowest gap in
 * a random order or spread out with gaps, or legal ones but for one fault of the kind that a wrong
 * planner makes. Lifetimes are found anew, record by record.
 *
 * Legal: multiples of PLAN_ALIGNMENT; parameters and states share nothing; tensors of the arena
 * share bytes only when one is used for the last time before the other is used at all, with a
 * barrier of the plan in between. Inputs, outputs and the control block stay.
 */
#ifndef UNET_TEST_RELOCATE_H
#define UNET_TEST_RELOCATE_H

#include "common/plan.h"

enum relocate_fault {
    RELOCATE_LEGAL,
    RELOCATE_OVERLAP,    /* two tensors alive together share the last alignment unit of one of them,
                            or as much of it as the two fill: from a single element on. Of an even
                            seed, two that share as little as any */
    RELOCATE_EARLY_FREE, /* a tensor counts as dead after its last but one record, and the memory is
                            given to another one before the last */
    RELOCATE_NO_BARRIER, /* memory is given on with no barrier between the last record of one tensor
                            and the first of the other */
    RELOCATE_FAULT_COUNT
};

struct relocation {
    char what[256];        /* for messages */
    uint64_t shared_bytes; /* of the two tensors that a fault is about */
    struct plan_tensor *tensors;
    uint64_t block_bytes[PLAN_BLOCK_COUNT];
    uint64_t *arena_bytes; /* these and the barriers: as they were, of each program and record */
    bool *barriers;
};

/*
 * The same seed gives the same places; gaps: so many alignment units at most between a place and
 * the lowest one. Sizes of blocks and arenas follow, so that they give no fault away; with OVERLAP
 * and EARLY_FREE every record gets a barrier, so that only what the memory holds does. False when
 * the plan has no two tensors for the fault; then nothing has changed and there is nothing to undo.
 */
bool relocate_plan(struct plan *plan, enum relocate_fault fault, uint64_t seed, uint32_t gaps,
                   struct relocation *relocation);
/* Everything as it was; frees what the relocation holds. */
void relocate_undo(struct plan *plan, struct relocation *relocation);

#endif
