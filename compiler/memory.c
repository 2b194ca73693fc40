/*
 * memory.c: places in memory. The arena tensors of a program live from the first to the last record
 * that touches them (a view counts for its base); tensors that are never alive together may share
 * bytes. Finding the smallest arena is NP-hard (dynamic storage allocation), so several greedy
 * orders are tried, each putting a tensor into the lowest gap among those alive with it (the
 * strategy of Pisarchyk and Lee, "Efficient memory management for deep neural net inference",
 * 2020), then a short deterministic search over insertion orders, which stops when the arena equals
 * the lower bound.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "compiler/lower_internal.h"

#define SEARCH_TRIES 8000

struct slot {
    uint32_t tensor;
    uint32_t first, last; /* records */
    uint64_t size_bytes, offset_bytes;
    uint64_t live_bytes; /* alive at its busiest record: the order by breadth */
};

struct placement {
    struct slot *slots;
    size_t count;
    uint32_t *order;     /* placing order: indices of slots */
    uint32_t *by_offset; /* scratch of one try */
    uint64_t lower_bound_bytes;
};

static void touch(struct slot *slots, uint32_t *slot_of, struct placement *p,
                  const struct plan_tensor *tensors, uint32_t tensor, uint32_t record) {
    uint32_t base = tensors[tensor].base;
    if (tensors[base].block != PLAN_BLOCK_ARENA) {
        return;
    }
    if (slot_of[base] == PLAN_NONE) {
        slot_of[base] = (uint32_t)p->count;
        slots[p->count++] =
            (struct slot){.tensor = base,
                          .first = record,
                          .size_bytes = align_up(tensors[base].size_bytes, PLAN_ALIGNMENT)};
    }
    slots[slot_of[base]].last = record;
}

static void collect_slots(struct lower *lower, struct placement *p) {
    size_t n_tensors = lower->plan->tensors.count;
    uint32_t *slot_of = malloc(n_tensors * sizeof(uint32_t));
    memset(slot_of, 0xff, n_tensors * sizeof(uint32_t));
    p->slots = calloc(n_tensors, sizeof(struct slot));
    for (uint32_t r = 0; r < lower->records.count; r++) {
        const struct plan_record *record = &lower->records.items[r];
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
            touch(p->slots, slot_of, p, lower->plan->tensors.items, record->tensors[b], r);
        }
    }
    free(slot_of);
}

static void measure_live(struct placement *p, uint32_t n_records) {
    uint64_t *live = calloc(n_records, sizeof(uint64_t));
    for (size_t i = 0; i < p->count; i++) {
        for (uint32_t r = p->slots[i].first; r <= p->slots[i].last; r++) {
            live[r] += p->slots[i].size_bytes;
        }
    }
    for (size_t i = 0; i < p->count; i++) {
        for (uint32_t r = p->slots[i].first; r <= p->slots[i].last; r++) {
            p->slots[i].live_bytes = MAX(p->slots[i].live_bytes, live[r]);
        }
        p->lower_bound_bytes = MAX(p->lower_bound_bytes, p->slots[i].live_bytes);
    }
    free(live);
}

static bool alive_together(const struct slot *a, const struct slot *b) {
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset where a slot fits among those placed already, by_offset sorted by offset. */
static uint64_t lowest_gap(const struct placement *p, const struct slot *slot, size_t n_placed) {
    uint64_t end = 0;
    for (size_t i = 0; i < n_placed; i++) {
        const struct slot *other = &p->slots[p->by_offset[i]];
        if (!alive_together(slot, other)) {
            continue;
        }
        if (other->offset_bytes >= end + slot->size_bytes) {
            break;
        }
        end = MAX(end, other->offset_bytes + other->size_bytes);
    }
    return end;
}

/* Places all slots in p->order; returns the arena's size. */
static uint64_t place_in_order(struct placement *p) {
    uint64_t arena_bytes = 0;
    for (size_t n = 0; n < p->count; n++) {
        uint32_t index = p->order[n];
        struct slot *slot = &p->slots[index];
        slot->offset_bytes = lowest_gap(p, slot, n);
        arena_bytes = MAX(arena_bytes, slot->offset_bytes + slot->size_bytes);
        size_t at = n;
        while (at > 0 && p->slots[p->by_offset[at - 1]].offset_bytes > slot->offset_bytes) {
            p->by_offset[at] = p->by_offset[at - 1];
            at--;
        }
        p->by_offset[at] = index;
    }
    return arena_bytes;
}

typedef int slot_compare(const struct slot *a, const struct slot *b);

static int descending(uint64_t a, uint64_t b) {
    return a < b ? 1 : a > b ? -1 : 0;
}

static int by_size(const struct slot *a, const struct slot *b) {
    return descending(a->size_bytes, b->size_bytes);
}

static int by_breadth(const struct slot *a, const struct slot *b) {
    int order = descending(a->live_bytes, b->live_bytes);
    return order ? order : by_size(a, b);
}

static int by_duration(const struct slot *a, const struct slot *b) {
    int order = descending(a->last - a->first, b->last - b->first);
    return order ? order : by_size(a, b);
}

static int by_start(const struct slot *a, const struct slot *b) {
    return a->first < b->first ? -1 : a->first > b->first ? 1 : by_size(a, b);
}

/* Insertion sort: stable, so that equal keys keep the order of first use and plans are
 * reproducible. */
static void sort_order(struct placement *p, slot_compare *compare) {
    for (size_t n = 0; n < p->count; n++) {
        size_t at = n;
        while (at > 0 && compare(&p->slots[n], &p->slots[p->order[at - 1]]) < 0) {
            p->order[at] = p->order[at - 1];
            at--;
        }
        p->order[at] = (uint32_t)n;
    }
}

static void move_item(uint32_t *order, size_t from, size_t to) {
    uint32_t item = order[from];
    if (from < to) {
        memmove(order + from, order + from + 1, (to - from) * sizeof(*order));
    } else {
        memmove(order + to + 1, order + to, (from - to) * sizeof(*order));
    }
    order[to] = item;
}

/* Moves single slots to other places in the order, keeping what does not make the arena larger. */
static uint64_t search(struct placement *p, uint64_t best_bytes) {
    struct rng rng = rng_stream(1, 0, 0);
    for (int i = 0; i < SEARCH_TRIES && best_bytes > p->lower_bound_bytes; i++) {
        size_t from = rng_below(&rng, (uint32_t)p->count), to = rng_below(&rng, (uint32_t)p->count);
        move_item(p->order, from, to);
        uint64_t arena_bytes = place_in_order(p);
        if (arena_bytes <= best_bytes) {
            best_bytes = arena_bytes;
        } else {
            move_item(p->order, to, from);
        }
    }
    place_in_order(p);
    return best_bytes;
}

static uint64_t place_best(struct placement *p) {
    static slot_compare *const heuristics[] = {by_size, by_breadth, by_duration, by_start};
    uint64_t best_bytes = UINT64_MAX;
    size_t best = 0;
    for (size_t i = 0; i < ARRAY_LEN(heuristics); i++) {
        sort_order(p, heuristics[i]);
        uint64_t arena_bytes = place_in_order(p);
        if (arena_bytes < best_bytes) {
            best_bytes = arena_bytes;
            best = i;
        }
    }
    sort_order(p, heuristics[best]);
    return search(p, best_bytes);
}

/* Offsets of views were relative to their base. */
static void place_views(struct lower *lower) {
    for (size_t i = 0; i < lower->map.count; i++) {
        struct plan_tensor *tensor = &lower->plan->tensors.items[lower->map.items[i].tensor];
        if (tensor->base != lower->map.items[i].tensor) {
            tensor->offset_bytes += lower->plan->tensors.items[tensor->base].offset_bytes;
        }
    }
}

void memory_place(struct lower *lower, struct memory_report *report) {
    struct placement p = {0};
    collect_slots(lower, &p);
    measure_live(&p, (uint32_t)lower->records.count);
    p.order = calloc(p.count + 1, sizeof(uint32_t));
    p.by_offset = calloc(p.count + 1, sizeof(uint32_t));
    *report = (struct memory_report){.lower_bound_bytes = p.lower_bound_bytes};
    if (p.count) {
        report->arena_bytes = place_best(&p);
    }
    for (size_t i = 0; i < p.count; i++) {
        report->naive_bytes += p.slots[i].size_bytes;
        lower->plan->tensors.items[p.slots[i].tensor].offset_bytes = p.slots[i].offset_bytes;
    }
    place_views(lower);
    free(p.slots);
    free(p.order);
    free(p.by_offset);
}

uint64_t memory_place_block(struct lower_plan *plan, enum plan_block block) {
    uint64_t size_bytes = 0;
    for (size_t i = 0; i < plan->tensors.count; i++) {
        struct plan_tensor *tensor = &plan->tensors.items[i];
        if (tensor->block == block && tensor->base == i) {
            tensor->offset_bytes = size_bytes;
            size_bytes += align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        }
    }
    return size_bytes;
}
