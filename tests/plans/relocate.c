/*
 * relocate.c: see relocate.h.
 */
#include "tests/plans/relocate.h"

#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "tests/plans/mutate.h"

/* First and last record of a program that touches a tensor or a part of it; first PLAN_NONE: none
 * does. before_last: the last but one, or PLAN_NONE. */
struct life {
    uint32_t first, before_last, last;
};

struct placer {
    struct plan *plan;
    struct rng rng;
    uint32_t gaps;
    struct life *lives; /* [program][tensor] */
    uint64_t *offsets;  /* of tensors with memory of their own */
    bool *placed;
};

/* Two tensors for a fault, in the program where it is one. */
struct pair {
    uint32_t program, a, b;
};

static struct life *life_of(const struct placer *placer, uint32_t program, uint32_t tensor) {
    return &placer->lives[(size_t)program * placer->plan->n_tensors + tensor];
}

static uint64_t padded_bytes(const struct placer *placer, uint32_t tensor) {
    return align_up(placer->plan->tensors[tensor].size_bytes, PLAN_ALIGNMENT);
}

/* ---- lifetimes ---- */

static void touch(struct life *life, uint32_t record) {
    if (life->first == PLAN_NONE)
        life->first = record;
    else if (life->last != record)
        life->before_last = life->last;
    life->last = record;
}

static void find_lives(struct placer *placer) {
    const struct plan *plan = placer->plan;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        for (uint32_t t = 0; t < plan->n_tensors; t++)
            *life_of(placer, p, t) = (struct life){PLAN_NONE, PLAN_NONE, 0};
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++) {
            const struct plan_record *record = &plan->programs[p].records[r];
            for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
                if (simulate_access(record, b) != 0)
                    touch(life_of(placer, p, simulate_root(plan, record->tensors[b])), r);
            }
        }
    }
}

static bool has_barrier(const struct plan_program *program, uint32_t after, uint32_t until) {
    for (uint32_t r = after + 1; r <= until; r++) {
        if (program->records[r].barrier)
            return true;
    }
    return false;
}

/* In this program, a is done with before b is used, and a barrier lies in between. */
static bool is_before(const struct placer *placer, uint32_t p, uint32_t a, uint32_t b) {
    const struct life *x = life_of(placer, p, a), *y = life_of(placer, p, b);
    return x->last < y->first && has_barrier(&placer->plan->programs[p], x->last, y->first);
}

static bool may_share(const struct placer *placer, uint32_t a, uint32_t b) {
    if (placer->plan->tensors[a].block != PLAN_BLOCK_ARENA)
        return false;
    for (uint32_t p = 0; p < placer->plan->n_programs; p++) {
        if (life_of(placer, p, a)->first != PLAN_NONE &&
            life_of(placer, p, b)->first != PLAN_NONE && !is_before(placer, p, a, b) &&
            !is_before(placer, p, b, a))
            return false;
    }
    return true;
}

/* ---- places ---- */

static bool is_placeable(const struct plan *plan, uint32_t tensor) {
    const enum plan_block block = plan->tensors[tensor].block;
    return plan->tensors[tensor].base == tensor &&
           (block == PLAN_BLOCK_ARENA || block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE);
}

static void put(struct placer *placer, uint32_t tensor, uint64_t offset_bytes) {
    placer->offsets[tensor] = offset_bytes;
    placer->placed[tensor] = true;
}

/* The end of a placed tensor in the way of this one at these bytes; 0: none is. */
static uint64_t find_obstacle(const struct placer *placer, uint32_t tensor, uint64_t begin) {
    const struct plan *plan = placer->plan;
    const uint64_t end = begin + padded_bytes(placer, tensor);
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        const uint64_t other = placer->offsets[t];
        if (placer->placed[t] && plan->tensors[t].block == plan->tensors[tensor].block &&
            other < end && begin < other + padded_bytes(placer, t) && !may_share(placer, tensor, t))
            return other + padded_bytes(placer, t);
    }
    return 0;
}

static void place(struct placer *placer, uint32_t tensor) {
    uint64_t begin = (uint64_t)rng_below(&placer->rng, placer->gaps + 1) * PLAN_ALIGNMENT, end;
    while ((end = find_obstacle(placer, tensor, begin)) != 0)
        begin = end + (uint64_t)rng_below(&placer->rng, placer->gaps + 1) * PLAN_ALIGNMENT;
    put(placer, tensor, begin);
}

/* All that have no place yet, in a random order. */
static void place_rest(struct placer *placer) {
    const uint32_t n_tensors = placer->plan->n_tensors;
    uint32_t *order = malloc(sizeof(*order) * (n_tensors + (size_t)1)), count = 0;
    for (uint32_t t = 0; t < n_tensors; t++) {
        if (is_placeable(placer->plan, t) && !placer->placed[t])
            order[count++] = t;
    }
    for (uint32_t left = count; left > 0; left--) {
        const uint32_t i = rng_below(&placer->rng, left), tensor = order[i];
        order[i] = order[left - 1];
        place(placer, tensor);
    }
    free(order);
}

/* Parts move with their base; arenas and blocks end where their last tensor does. */
static void move_tensors(const struct placer *placer) {
    struct plan *plan = placer->plan;
    uint64_t *block_bytes = plan->block_bytes;
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        const uint32_t root = simulate_root(plan, t);
        if (root != t && is_placeable(plan, root))
            plan->tensors[t].offset_bytes +=
                placer->offsets[root] - plan->tensors[root].offset_bytes;
    }
    block_bytes[PLAN_BLOCK_ARENA] = block_bytes[PLAN_BLOCK_WEIGHTS] = 0;
    block_bytes[PLAN_BLOCK_STATE] = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++)
        plan->programs[p].arena_bytes = 0;
    for (uint32_t t = 0; t < plan->n_tensors; t++) {
        if (!is_placeable(plan, t))
            continue;
        struct plan_tensor *tensor = &plan->tensors[t];
        const uint64_t end = placer->offsets[t] + padded_bytes(placer, t);
        tensor->offset_bytes = placer->offsets[t];
        block_bytes[tensor->block] = MAX(block_bytes[tensor->block], end);
        for (uint32_t p = 0; p < plan->n_programs && tensor->block == PLAN_BLOCK_ARENA; p++) {
            if (life_of(placer, p, t)->first != PLAN_NONE)
                plan->programs[p].arena_bytes = MAX(plan->programs[p].arena_bytes, end);
        }
    }
}

/* ---- faults ---- */

/* What the two share when a begins in the last alignment unit of b. */
static uint64_t unit_overlap_bytes(const struct placer *placer, const struct pair *pair) {
    const struct plan_tensor *tensors = placer->plan->tensors;
    const uint64_t before = padded_bytes(placer, pair->b) - PLAN_ALIGNMENT;
    return MIN(tensors[pair->b].size_bytes - before, tensors[pair->a].size_bytes);
}

static bool is_pair(const struct placer *placer, enum relocate_fault fault,
                    const struct pair *pair) {
    const struct life *a = life_of(placer, pair->program, pair->a);
    const struct life *b = life_of(placer, pair->program, pair->b);
    if (pair->a == pair->b || a->first == PLAN_NONE || b->first == PLAN_NONE)
        return false;
    switch (fault) {
    case RELOCATE_OVERLAP:
        return a->first <= b->last && b->first <= a->last;
    case RELOCATE_EARLY_FREE:
        return a->before_last != PLAN_NONE && a->before_last < b->first && b->first <= a->last;
    default:
        return a->last < b->first &&
               !has_barrier(&placer->plan->programs[pair->program], a->last, b->first);
    }
}

/* A random one of all there are; of OVERLAP, with smallest, one of those that share least. */
static bool find_pair(struct placer *placer, enum relocate_fault fault, bool smallest,
                      struct pair *found) {
    const struct plan *plan = placer->plan;
    uint64_t least = UINT64_MAX;
    uint32_t count = 0;
    struct pair at;
    for (at.program = 0; at.program < plan->n_programs; at.program++) {
        for (at.a = 0; at.a < plan->n_tensors; at.a++) {
            for (at.b = 0; at.b < plan->n_tensors; at.b++) {
                if (plan->tensors[at.a].block != PLAN_BLOCK_ARENA ||
                    plan->tensors[at.b].block != PLAN_BLOCK_ARENA || !is_pair(placer, fault, &at))
                    continue;
                const uint64_t shared = smallest ? unit_overlap_bytes(placer, &at) : 0;
                count = shared < least ? 1 : count + (shared == least);
                if (shared <= least && rng_below(&placer->rng, count) == 0)
                    *found = at;
                least = MIN(least, shared);
            }
        }
    }
    return count > 0;
}

static void plant(struct placer *placer, enum relocate_fault fault, const struct pair *pair,
                  struct relocation *relocation) {
    static const char *const names[] = {"", "overlaps the end of", "is dead too early for",
                                        "has no barrier before"};
    const struct plan_tensor *tensors = placer->plan->tensors;
    uint64_t a_bytes = 0;
    relocation->shared_bytes = MIN(tensors[pair->a].size_bytes, tensors[pair->b].size_bytes);
    if (fault == RELOCATE_OVERLAP) {
        a_bytes = padded_bytes(placer, pair->b) - PLAN_ALIGNMENT;
        relocation->shared_bytes = unit_overlap_bytes(placer, pair);
    } else if (fault == RELOCATE_EARLY_FREE) {
        struct life *life = life_of(placer, pair->program, pair->a);
        life->last = life->before_last;
    }
    put(placer, pair->a, a_bytes);
    put(placer, pair->b, 0);
    snprintf(relocation->what, sizeof(relocation->what), "program %s: %s %s %s, %llu bytes",
             placer->plan->programs[pair->program].name, tensors[pair->a].name, names[fault],
             tensors[pair->b].name, (unsigned long long)relocation->shared_bytes);
}

/* ---- the whole ---- */

static void save(const struct plan *plan, struct relocation *relocation) {
    size_t n_records = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++)
        n_records += plan->programs[p].n_records;
    *relocation = (struct relocation){.what = "other places"};
    relocation->tensors = malloc(sizeof(*plan->tensors) * (plan->n_tensors + (size_t)1));
    relocation->arena_bytes = malloc(sizeof(uint64_t) * (plan->n_programs + (size_t)1));
    relocation->barriers = malloc(n_records + 1);
    memcpy(relocation->tensors, plan->tensors, sizeof(*plan->tensors) * plan->n_tensors);
    memcpy(relocation->block_bytes, plan->block_bytes, sizeof(plan->block_bytes));
    bool *barriers = relocation->barriers;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        relocation->arena_bytes[p] = plan->programs[p].arena_bytes;
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++)
            *barriers++ = plan->programs[p].records[r].barrier;
    }
}

void relocate_undo(struct plan *plan, struct relocation *relocation) {
    const bool *barriers = relocation->barriers;
    memcpy(plan->tensors, relocation->tensors, sizeof(*plan->tensors) * plan->n_tensors);
    memcpy(plan->block_bytes, relocation->block_bytes, sizeof(plan->block_bytes));
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        plan->programs[p].arena_bytes = relocation->arena_bytes[p];
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++)
            plan->programs[p].records[r].barrier = *barriers++;
    }
    free(relocation->tensors);
    free(relocation->arena_bytes);
    free(relocation->barriers);
}

static void add_barriers(struct plan *plan) {
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        for (uint32_t r = 0; r < plan->programs[p].n_records; r++)
            plan->programs[p].records[r].barrier = true;
    }
}

bool relocate_plan(struct plan *plan, enum relocate_fault fault, uint64_t seed, uint32_t gaps,
                   struct relocation *relocation) {
    struct placer placer = {.plan = plan, .rng = rng_stream(seed, 7, fault), .gaps = gaps};
    const size_t count = plan->n_tensors + (size_t)1;
    struct pair pair;
    bool good = true;
    placer.lives = malloc(sizeof(*placer.lives) * count * MAX(plan->n_programs, 1u));
    placer.offsets = calloc(count, sizeof(*placer.offsets));
    placer.placed = calloc(count, sizeof(*placer.placed));
    save(plan, relocation);
    if (fault == RELOCATE_OVERLAP || fault == RELOCATE_EARLY_FREE)
        add_barriers(plan);
    find_lives(&placer);
    if (fault != RELOCATE_LEGAL) {
        good = find_pair(&placer, fault, fault == RELOCATE_OVERLAP && seed % 2 == 0, &pair);
        if (good)
            plant(&placer, fault, &pair, relocation);
    }
    if (good) {
        place_rest(&placer);
        move_tensors(&placer);
    } else {
        relocate_undo(plan, relocation);
    }
    free(placer.lives);
    free(placer.offsets);
    free(placer.placed);
    return good;
}
