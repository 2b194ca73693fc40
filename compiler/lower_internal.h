/*
 * lower_internal.h: the state of a lowering, shared by lower.c (values and nodes to tensors and
 * records), memory.c (places), barrier.c and compile.c. Op files see lower.h only.
 */
#ifndef UNET_LOWER_INTERNAL_H
#define UNET_LOWER_INTERNAL_H

#include "compiler/lower.h"
#include "compiler/memory.h"
#include "compiler/model.h"

/* Grows while programs are lowered; becomes a struct plan at the end. */
struct lower_plan {
    struct arena *arena; /* the plan's own */
    VEC(struct plan_tensor) tensors;
    VEC(struct plan_shader) shaders;
    const struct param *const *params;
    size_t n_params;
    uint32_t *param_tensors;                        /* of parameter i */
    uint32_t (*state_tensors)[PLAN_MAX_STATES + 1]; /* the last: STATE_ACCUMULATOR */
    uint32_t control;
    uint32_t loss_scale; /* PLAN_NONE: gradients are not scaled */
    uint32_t strategies; /* of placing */
    struct memory_chunks chunks[PLAN_BLOCK_COUNT];
};

/* One value's tensor, by the memory it means. */
struct lowered_value {
    const struct value *root; /* NULL: a part of scratch */
    int channel, n_channels;
    uint32_t tensor;
};

struct lower {
    struct lower_plan *plan;
    const struct graph *graph;
    VEC(struct lowered_value) map;
    VEC(struct plan_record) records;
    VEC(struct plan_choice) choices;
    bool is_choosing;           /* between lower_choice_begin and lower_choice_end */
    size_t choice_record;       /* the first of the choice begun last */
    VEC(uint32_t) node_records; /* the first of each node; then how many there are */
    uint64_t room_bytes;        /* of the node being lowered: lower_room */
};

/* Starts a plan: tensors of all parameters, of n_states optimiser states each, of accumulators
 * where gradients are accumulated, of the loss's scale where there is one, and of the control
 * block. */
void lower_plan_init(struct lower_plan *plan, struct arena *arena,
                     const struct param *const *params, size_t n_params, int n_states,
                     bool accumulates, bool scales);
void lower_plan_free(struct lower_plan *plan);

/* Lowers a graph whose storage is decided into records without places, barriers or dispatches;
 * rooms: of each node (room.c), NULL: none. */
void lower_graph(struct lower *lower, struct lower_plan *plan, const struct graph *graph,
                 const uint64_t *rooms);
void lower_free(struct lower *lower);

/* The tensor made for a value, which must have been used by a record. */
uint32_t lower_find(const struct lower *lower, const struct value *value);

/* room.c: bytes of scratch that methods of each node may use besides what a lowering without them
 * has alive there, such that peak_bytes are not exceeded. */
void room_find(const struct lower *lower, uint64_t peak_bytes, uint64_t *rooms);

/* memory.c: gives the arena tensors of one program their offsets and returns the program's sizes.
 */
struct memory_report {
    uint64_t arena_bytes, naive_bytes, lower_bound_bytes;
};
void memory_place(struct lower *lower, struct memory_report *report);
/* Before any of it: chunks of at most so many bytes (0: any), larger where a tensor is. */
void memory_limit_chunks(struct lower_plan *plan, uint64_t max_bytes);
/* Places all tensors of a block one after another. */
void memory_place_block(struct lower_plan *plan, enum plan_block block);

/* barrier.c: marks the records that must wait for earlier ones, from byte ranges alone. After
 * memory_place. */
void barrier_insert(struct lower *lower);

#endif
