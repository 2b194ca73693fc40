/*
 * mutate.h: damages a valid plan in one known way at a time and says what plan_verify must answer.
 * For damage whose effect depends on the plan (a moved tensor, a dropped barrier, swapped records)
 * the answer comes from a simulation, word of memory by word, that shares no code with the
 * verifier.
 */
#ifndef UNET_TEST_MUTATE_H
#define UNET_TEST_MUTATE_H

#include "common/plan.h"

enum mutation_kind {
    MUTATE_TENSOR_UP,        /* a tensor lies 256 bytes further on */
    MUTATE_TENSOR_DOWN,      /* a tensor lies 256 bytes before */
    MUTATE_TENSOR_UNALIGNED, /* a tensor lies 4 bytes further on */
    MUTATE_TENSOR_SIZE,      /* a tensor's size is 4 bytes more */
    MUTATE_TENSOR_SHAPE,     /* one of its sizes is one more */
    MUTATE_TENSOR_STRIDE,    /* its stride is one more */
    MUTATE_TENSOR_BASE,      /* its base does not exist */
    MUTATE_TENSOR_BLOCK,     /* from the arena to the weights */
    MUTATE_TENSOR_TYPE,      /* floats become unsigned numbers or the other way round */
    MUTATE_BLOCK_SHRINK,     /* a block is 256 bytes smaller */
    MUTATE_BINDING_RANGE,    /* a record's tensor does not exist */
    MUTATE_BINDING_OTHER,    /* a record's tensor is the next one of the table */
    MUTATE_WORD_UP,          /* a parameter word of a record is one more */
    MUTATE_WORD_DOWN,        /* one less */
    MUTATE_KERNEL,           /* a record's kernel does not exist */
    MUTATE_GROUPS_ZERO,      /* a workgroup count is 0 */
    MUTATE_GROUPS_HUGE,      /* a workgroup count is 65536 */
    MUTATE_GROUP_SIZE,       /* a workgroup size is 0 */
    MUTATE_CONSTANTS,        /* fewer constants than a workgroup size has */
    MUTATE_SHADER,           /* a shader does not exist */
    MUTATE_SHARED,           /* more shared memory than there is */
    MUTATE_BARRIER_DROP,     /* a barrier is gone */
    MUTATE_BARRIER_ADD,      /* a barrier more: slower, never wrong */
    MUTATE_SWAP,             /* two neighbouring records change places */
    MUTATE_DELETE,           /* a record is gone */
    MUTATE_CHOICE,           /* a record belongs to the next choice, or the last to none */
    MUTATE_METHOD,           /* a record belongs to the next method */
    MUTATE_PORT_RANGE,       /* a port's tensor does not exist */
    MUTATE_PORT_DIRECTION,   /* an input becomes an output or the other way round */
    MUTATE_PARAM_RANGE,      /* a parameter's tensor does not exist */
    MUTATE_PARAM_DIMS,       /* a dimension of a parameter is one more */
    MUTATE_PARAM_TWICE,      /* a parameter's tensor is that of the one before */
    MUTATE_PARAM_SUM,        /* a parameter loses its accumulator, or gets a wrong one */
    MUTATE_ARENA_BYTES,      /* a program claims another arena size */
    MUTATE_LOWER_BOUND,      /* a program claims another lower bound */
    MUTATE_KIND_COUNT
};

enum mutation_verdict {
    MUTATION_REJECT, /* plan_verify must reject it */
    MUTATION_ACCEPT, /* harmless: plan_verify must accept it */
    MUTATION_EITHER  /* another valid plan or not: not decided here */
};

#define MUTATION_PATCHES 3

struct mutation {
    char what[256]; /* for messages: the damage, and for ACCEPT why it is harmless */
    enum mutation_verdict verdict;
    struct {
        void *at, *saved;
        size_t size_bytes;
    } patches[MUTATION_PATCHES];
    size_t n_patches;
};

extern const char *const mutation_names[MUTATE_KIND_COUNT];

/* How many mutations of a kind a plan has. */
uint32_t mutation_count(const struct plan *plan, enum mutation_kind kind);

/* Applies number i of a kind; false when it changes nothing here (the plan is untouched then). */
bool mutation_apply(struct plan *plan, enum mutation_kind kind, uint32_t i,
                    struct mutation *mutation);
void mutation_undo(struct mutation *mutation);

/* The simulation: NULL when the memory of all programs is used rightly, else what is wrong. The
 * plan's indices and ranges must be valid. */
const char *simulate_plan(const struct plan *plan);

/* What a record does to the tensor of a binding, as the simulation sees it; 0: it is bound, but not
 * looked at. */
unsigned simulate_access(const struct plan_record *record, uint32_t binding);
/* Whether a row of a plane is among those that the record writes. */
bool simulate_writes_row(const struct plan_record *record, uint32_t channel, uint32_t y);
uint32_t simulate_root(const struct plan *plan, uint32_t tensor);

#endif
