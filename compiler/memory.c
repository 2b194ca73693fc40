/*
 * memory.c: places in memory. The arena tensors of a program live from the first to the last record
 * that touches them (a view counts for its base); tensors that are never alive together may share
 * bytes. Finding the smallest arena is NP-hard (dynamic storage allocation), so several heuristics
 * are tried, then a short deterministic search over placing orders, which stops when the arena
 * equals the lower bound. docs/memory.md tells what each of them is worth.
 *
 * A heuristic is an order of placing and a rule for choosing among the gaps that those alive with
 * a tensor leave. Lowest gap by size or breadth: Pisarchyk and Lee, "Efficient memory management
 * for deep neural net inference", 2020. The gap that wastes least, in order of start: what an
 * allocator at run time could do at best. Stacks: see choose_sides.
 */
#include <stdlib.h>
#include <string.h>

#include "common/rng.h"
#include "compiler/lower_internal.h"

#define SEARCH_TRIES 8000

/* Where a tensor goes under the rule of stacks. */
enum side { SIDE_BOTTOM, SIDE_TOP, SIDE_NONE };

enum gap_rule { GAP_LOWEST, GAP_LEAST_WASTE, GAP_BY_SIDE };

struct slot {
    uint32_t tensor;
    uint32_t first, last; /* records */
    uint64_t size_bytes, offset_bytes;
    uint64_t live_bytes; /* alive at its busiest record: the order by breadth */
    enum side side;
};

struct placement {
    struct slot *slots;
    size_t count;
    uint32_t *order;     /* placing order: indices of slots */
    uint32_t *by_offset; /* scratch of one try */
    uint64_t lower_bound_bytes;
    enum gap_rule rule;
    struct memory_chunks *chunks; /* of the arena; those there stay as they are */
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

/* ---- chunks ---- */

static uint64_t last_split(const struct memory_chunks *chunks) {
    return chunks->splits.count ? chunks->splits.items[chunks->splits.count - 1] : 0;
}

/* The chunk that a byte is in. Past the last split, chunks count as full: close_chunks shrinks
 * them. */
static void find_chunk(const struct memory_chunks *chunks, uint64_t at, uint64_t *begin,
                       uint64_t *end) {
    *begin = last_split(chunks);
    if (chunks->max_bytes == 0) {
        *end = UINT64_MAX;
        return;
    }
    if (at >= *begin) {
        *begin += (at - *begin) / chunks->max_bytes * chunks->max_bytes;
        *end = *begin + chunks->max_bytes;
        return;
    }
    size_t i = 0;
    while (chunks->splits.items[i] <= at) {
        i++;
    }
    *begin = i > 0 ? chunks->splits.items[i - 1] : 0;
    *end = chunks->splits.items[i];
}

/*
 * The arena's size: what is used of each chunk, added up. With apply, chunks in front of new ones
 * shrink to what is used of them, slots move along, and the splits are kept.
 */
static uint64_t close_chunks(struct placement *p, bool apply) {
    struct memory_chunks *chunks = p->chunks;
    const uint64_t fixed = last_split(chunks); /* the chunk here may still grow, those below not */
    uint64_t begin = 0, end = 0, arena_bytes = 0, used_bytes = 0;
    VEC(uint64_t) splits = {0};
    uint64_t to = 0, to_end = chunks->end_bytes; /* where the chunk goes; the end of the last */
    for (size_t i = 0; i < p->count; i++) {
        struct slot *slot = &p->slots[p->by_offset[i]];
        const uint64_t offset_bytes = slot->offset_bytes;
        if (offset_bytes >= end) {
            arena_bytes += used_bytes;
            used_bytes = 0;
            find_chunk(chunks, offset_bytes, &begin, &end);
            to = begin > fixed ? to_end : begin;
            if (begin > fixed && to > 0) {
                vec_push(&splits, to);
            }
        }
        used_bytes = MAX(used_bytes, offset_bytes + slot->size_bytes - begin);
        to_end = MAX(to_end, to + used_bytes);
        if (apply) {
            slot->offset_bytes = offset_bytes - begin + to;
        }
    }
    for (size_t i = 0; apply && i < splits.count; i++) {
        vec_push(&chunks->splits, splits.items[i]);
    }
    vec_free(&splits);
    if (apply) {
        chunks->end_bytes = to_end;
    }
    return arena_bytes + used_bytes;
}

/* ---- gaps ---- */

struct choice {
    const struct slot *slot;
    enum gap_rule rule;
    uint64_t ceiling_bytes; /* the stack from the top starts here */
    uint64_t offset_bytes, waste_bytes;
    bool found, final; /* final: no gap above can be better */
};

/* A gap within one chunk, gaps coming in ascending order; open: nothing is placed above. */
static void offer_gap(struct choice *choice, uint64_t begin, uint64_t end, bool open) {
    uint64_t size_bytes = choice->slot->size_bytes;
    if (end - begin < size_bytes) {
        return;
    }
    uint64_t waste_bytes = open ? UINT64_MAX : end - begin - size_bytes;
    switch (choice->rule) {
    case GAP_LOWEST:
        choice->offset_bytes = begin;
        choice->final = true;
        break;
    case GAP_LEAST_WASTE:
        if (!choice->found || waste_bytes < choice->waste_bytes) {
            choice->offset_bytes = begin;
            choice->waste_bytes = waste_bytes;
        }
        break;
    case GAP_BY_SIDE:
        end = MIN(end, choice->ceiling_bytes);
        if (!choice->found || (end > begin && end - begin >= size_bytes)) {
            choice->offset_bytes =
                end > begin && end - begin >= size_bytes ? end - size_bytes : begin;
        }
        break;
    }
    choice->found = true;
}

/* The free bytes from begin to end, cut where chunks meet; end UINT64_MAX: all from begin on. */
static void offer_free(struct choice *choice, const struct memory_chunks *chunks, uint64_t begin,
                       uint64_t end) {
    const bool open = end == UINT64_MAX;
    while (begin < end && !choice->final) {
        uint64_t chunk, border;
        find_chunk(chunks, begin, &chunk, &border);
        offer_gap(choice, begin, MIN(end, border), open);
        begin = MIN(end, border);
        if (open && choice->found && begin >= choice->ceiling_bytes) {
            return;
        }
    }
}

/* Where a slot goes among those placed already, by_offset sorted by offset. */
static uint64_t choose_gap(const struct placement *p, const struct slot *slot, size_t n_placed) {
    const bool from_top = p->rule == GAP_BY_SIDE && slot->side == SIDE_TOP;
    struct choice choice = {.slot = slot,
                            .rule = p->rule == GAP_BY_SIDE && !from_top ? GAP_LOWEST : p->rule,
                            .ceiling_bytes = from_top ? p->lower_bound_bytes : 0};
    uint64_t begin = 0;
    for (size_t i = 0; i < n_placed && !choice.final; i++) {
        const struct slot *other = &p->slots[p->by_offset[i]];
        if (alive_together(slot, other)) {
            offer_free(&choice, p->chunks, begin, MAX(begin, other->offset_bytes));
            begin = MAX(begin, other->offset_bytes + other->size_bytes);
        }
    }
    offer_free(&choice, p->chunks, begin, UINT64_MAX);
    return choice.offset_bytes;
}

/* Places all slots in p->order; returns the arena's size. */
static uint64_t place_in_order(struct placement *p) {
    for (size_t n = 0; n < p->count; n++) {
        uint32_t index = p->order[n];
        struct slot *slot = &p->slots[index];
        slot->offset_bytes = choose_gap(p, slot, n);
        size_t at = n;
        while (at > 0 && p->slots[p->by_offset[at - 1]].offset_bytes > slot->offset_bytes) {
            p->by_offset[at] = p->by_offset[at - 1];
            at--;
        }
        p->by_offset[at] = index;
    }
    return close_chunks(p, false);
}

/* ---- stacks ---- */

static bool contains(const struct slot *a, const struct slot *b) {
    return a->first <= b->first && b->last <= a->last;
}

/* Alive together, and neither within the life of the other. */
static bool cross(const struct slot *a, const struct slot *b) {
    return alive_together(a, b) && !contains(a, b) && !contains(b, a);
}

static enum side free_side(const struct placement *p, const struct slot *slot, const bool *seen) {
    bool taken[2] = {false, false};
    for (size_t i = 0; i < p->count; i++) {
        if (seen[i] && p->slots[i].side != SIDE_NONE && cross(slot, &p->slots[i])) {
            taken[p->slots[i].side] = true;
        }
    }
    return !taken[SIDE_BOTTOM] ? SIDE_BOTTOM : !taken[SIDE_TOP] ? SIDE_TOP : SIDE_NONE;
}

/*
 * Two stacks. When any two lifetimes are disjoint or nested, each tensor can lie at the sum of the
 * sizes of those whose life contains its own: what is alive at any moment then fills the bytes from
 * 0 up to its sum without a hole, so that nothing overlaps and the arena equals the lower bound L.
 * One such family stacked from 0 up and another from L down do not meet either, since at any moment
 * their sums add up to L at most. So wherever the tensors can be split into two such families, that
 * is, where "their lifetimes cross" is a bipartite graph, the result is optimal (in one chunk).
 *
 * Each connected part of that graph is coloured breadth first, which finds two families where there
 * are two; a tensor that crosses some of both gets no side, and the lowest gap after all others.
 * Maps of the forward pass, first in the list, make the stack at the bottom.
 */
static void choose_sides(struct placement *p) {
    bool *seen = calloc(p->count + 1, sizeof(bool)), *queued = calloc(p->count + 1, sizeof(bool));
    uint32_t *queue = p->order; /* not in use yet */
    for (size_t seed = 0; seed < p->count; seed++) {
        size_t head = 0, tail = 0;
        if (!queued[seed]) {
            queue[tail++] = (uint32_t)seed;
            queued[seed] = true;
        }
        for (; head < tail; head++) {
            struct slot *slot = &p->slots[queue[head]];
            slot->side = free_side(p, slot, seen);
            seen[queue[head]] = true;
            for (size_t i = 0; i < p->count; i++) {
                if (!queued[i] && cross(slot, &p->slots[i])) {
                    queue[tail++] = (uint32_t)i;
                    queued[i] = true;
                }
            }
        }
    }
    free(seen);
    free(queued);
}

/* ---- orders ---- */

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

/* Containers before what they contain. */
static int by_nesting(const struct slot *a, const struct slot *b) {
    if ((a->side == SIDE_NONE) != (b->side == SIDE_NONE)) {
        return a->side == SIDE_NONE ? 1 : -1;
    }
    if (a->first != b->first) {
        return a->first < b->first ? -1 : 1;
    }
    return descending(a->last, b->last);
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
static void search(struct placement *p, uint64_t best_bytes) {
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
}

static const struct heuristic {
    const char *name;
    slot_compare *order;
    enum gap_rule rule;
} heuristics[] = {{"size", by_size, GAP_LOWEST},           {"breadth", by_breadth, GAP_LOWEST},
                  {"duration", by_duration, GAP_LOWEST},   {"start", by_start, GAP_LOWEST},
                  {"best-fit", by_start, GAP_LEAST_WASTE}, {"stacks", by_nesting, GAP_BY_SIDE}};

static uint64_t place_by(struct placement *p, const struct heuristic *heuristic) {
    p->rule = heuristic->rule;
    sort_order(p, heuristic->order);
    return place_in_order(p);
}

static void place_best(struct placement *p, uint32_t strategies) {
    uint64_t best_bytes = UINT64_MAX;
    size_t best = 0;
    choose_sides(p);
    for (size_t i = 0; i < ARRAY_LEN(heuristics); i++) {
        uint64_t arena_bytes = strategies & 1u << i ? place_by(p, &heuristics[i]) : UINT64_MAX;
        if (arena_bytes < best_bytes) {
            best_bytes = arena_bytes;
            best = i;
        }
    }
    place_by(p, &heuristics[best]);
    if (strategies & MEMORY_SEARCH) {
        search(p, best_bytes);
    }
}

bool memory_parse_strategies(const char *list, uint32_t *strategies_out, struct err *err) {
    *strategies_out = list != NULL ? 0 : MEMORY_ALL;
    while (list != NULL && *list) {
        const size_t word = strcspn(list, ",");
        uint32_t bit = word == 6 && strncmp(list, "search", word) == 0 ? MEMORY_SEARCH : 0;
        char names[128] = "";
        for (size_t i = 0; i < ARRAY_LEN(heuristics); i++) {
            const char *name = heuristics[i].name;
            const size_t at = strlen(names);
            snprintf(names + at, sizeof(names) - at, " %s,", name);
            bit |= strlen(name) == word && strncmp(name, list, word) == 0 ? 1u << i : 0;
        }
        if (!bit) {
            err_set(err, ERR_USAGE, "--place %.*s: no such strategy", (int)word, list);
            return err_hint(err, "strategies:%s search", names);
        }
        *strategies_out |= bit;
        list += word + (list[word] == ',');
    }
    if (*strategies_out & ~(uint32_t)MEMORY_SEARCH) {
        return true;
    }
    err_set(err, ERR_USAGE, "--place: nothing that the search could start from");
    return err_hint(err, "name size, breadth, duration, start, best-fit or stacks as well");
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
    struct placement p = {.chunks = &lower->plan->chunks[PLAN_BLOCK_ARENA]};
    collect_slots(lower, &p);
    measure_live(&p, (uint32_t)lower->records.count);
    p.order = calloc(p.count + 1, sizeof(uint32_t));
    p.by_offset = calloc(p.count + 1, sizeof(uint32_t));
    *report = (struct memory_report){.lower_bound_bytes = p.lower_bound_bytes};
    if (p.count) {
        place_best(&p, lower->plan->strategies);
        report->arena_bytes = close_chunks(&p, true);
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

void memory_place_block(struct lower_plan *plan, enum plan_block block) {
    struct memory_chunks *chunks = &plan->chunks[block];
    for (size_t i = 0; i < plan->tensors.count; i++) {
        struct plan_tensor *tensor = &plan->tensors.items[i];
        if (tensor->block == block && tensor->base == i) {
            uint64_t size_bytes = align_up(tensor->size_bytes, PLAN_ALIGNMENT);
            if (chunks->max_bytes > 0 &&
                chunks->end_bytes + size_bytes > last_split(chunks) + chunks->max_bytes) {
                vec_push(&chunks->splits, chunks->end_bytes);
            }
            tensor->offset_bytes = chunks->end_bytes;
            chunks->end_bytes += size_bytes;
        }
    }
}

void memory_limit_chunks(struct lower_plan *plan, uint64_t max_bytes) {
    uint64_t largest_bytes[PLAN_BLOCK_COUNT] = {0};
    for (size_t i = 0; i < plan->tensors.count; i++) {
        const struct plan_tensor *tensor = &plan->tensors.items[i];
        uint64_t *largest = &largest_bytes[tensor->block];
        *largest = MAX(*largest, align_up(tensor->size_bytes, PLAN_ALIGNMENT));
    }
    for (int block = 0; max_bytes > 0 && block < PLAN_BLOCK_COUNT; block++) {
        plan->chunks[block].max_bytes = MAX(max_bytes, largest_bytes[block]);
    }
}
