/*
 * overlap.c: see overlap.h. Runs of equal pairs go into a hash table (open addressing), so that
 * only the few pairs that differ are sorted.
 */
#include "runtime/train/overlap.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"

/* A slot is free when it holds no pixels. */
struct table {
    struct overlap_pair *slots;
    size_t room, count; /* room is a power of two */
};

static size_t find_slot(const struct table *table, uint32_t truth, uint32_t proposal) {
    uint64_t key = ((uint64_t)truth << 32 | proposal) * UINT64_C(0x9e3779b97f4a7c15);
    size_t at = (size_t)(key >> 20) & (table->room - 1);
    while (table->slots[at].n_pixels > 0 &&
           (table->slots[at].truth != truth || table->slots[at].proposal != proposal))
        at = (at + 1) & (table->room - 1);
    return at;
}

static struct table new_table(size_t room) {
    struct table table = {memory_new(room, sizeof *table.slots), room, 0};
    return table;
}

static void add(struct table *table, const struct overlap_pair *pair) {
    struct overlap_pair *slot = &table->slots[find_slot(table, pair->truth, pair->proposal)];
    if (slot->n_pixels > 0) {
        slot->n_pixels += pair->n_pixels;
        return;
    }
    *slot = *pair;
    if (++table->count * 2 <= table->room)
        return;
    struct table larger = new_table(table->room * 2);
    for (size_t i = 0; i < table->room; i++)
        if (table->slots[i].n_pixels > 0)
            add(&larger, &table->slots[i]);
    free(table->slots);
    *table = larger;
}

static int by_truth(const void *a, const void *b) {
    const struct overlap_pair *left = a, *right = b;
    if (left->truth != right->truth)
        return left->truth < right->truth ? -1 : 1;
    return (left->proposal > right->proposal) - (left->proposal < right->proposal);
}

static int by_proposal(const void *a, const void *b) {
    const struct overlap_pair *left = a, *right = b;
    if (left->proposal != right->proposal)
        return left->proposal < right->proposal ? -1 : 1;
    return (left->truth > right->truth) - (left->truth < right->truth);
}

struct overlap overlap_count(const uint32_t *truth, const uint32_t *proposal, size_t n_pixels) {
    struct table table = new_table(1024);
    for (size_t i = 0, end; i < n_pixels; i = end) {
        end = i + 1;
        while (end < n_pixels && truth[end] == truth[i] && proposal[end] == proposal[i])
            end++;
        const struct overlap_pair run = {truth[i], proposal[i], end - i};
        if (run.truth != 0 || run.proposal != 0)
            add(&table, &run);
    }
    size_t count = 0;
    for (size_t i = 0; i < table.room; i++)
        if (table.slots[i].n_pixels > 0)
            table.slots[count++] = table.slots[i];
    qsort(table.slots, count, sizeof *table.slots, by_truth);
    return (struct overlap){table.slots, count};
}

void overlap_sort_by_proposal(struct overlap *overlap) {
    qsort(overlap->pairs, overlap->count, sizeof *overlap->pairs, by_proposal);
}

void overlap_sort_by_truth(struct overlap *overlap) {
    qsort(overlap->pairs, overlap->count, sizeof *overlap->pairs, by_truth);
}

void overlap_free(struct overlap *overlap) {
    free(overlap->pairs);
    memset(overlap, 0, sizeof *overlap);
}
