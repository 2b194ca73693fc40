/*
 * room.c: how much scratch a method may use without the arena growing (docs/memory.md). A program
 * is lowered without such methods first; what is alive at a node's records then, its own scratch
 * left out, leaves the rest of the program's peak to a method of the node.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/lower_internal.h"

/* First and last record that touches an arena tensor or a part of it. */
struct life {
    uint32_t first, last;
};

static struct life *find_lives(const struct lower *lower) {
    const struct plan_tensor *tensors = lower->plan->tensors.items;
    struct life *lives = malloc((lower->plan->tensors.count + 1) * sizeof(*lives));
    for (size_t i = 0; i < lower->plan->tensors.count; i++) {
        lives[i] = (struct life){PLAN_NONE, 0};
    }
    for (uint32_t r = 0; r < lower->records.count; r++) {
        const struct plan_record *record = &lower->records.items[r];
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
            struct life *life = &lives[tensors[record->tensors[b]].base];
            life->first = MIN(life->first, r);
            life->last = r;
        }
    }
    return lives;
}

/* Bytes alive over the records first .. end - 1, those left out that live nowhere else. */
static uint64_t alive_bytes(const struct lower *lower, const struct life *lives, uint32_t first,
                            uint32_t end) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < lower->plan->tensors.count; i++) {
        const struct plan_tensor *tensor = &lower->plan->tensors.items[i];
        const bool touches = lives[i].first < end && lives[i].last >= first;
        const bool own = lives[i].first >= first && lives[i].last < end;
        if (tensor->block == PLAN_BLOCK_ARENA && lives[i].first != PLAN_NONE && touches && !own) {
            bytes += align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        }
    }
    return bytes;
}

void room_find(const struct lower *lower, uint64_t peak_bytes, uint64_t *rooms) {
    struct life *lives = find_lives(lower);
    for (size_t i = 0; i < lower->graph->nodes.count; i++) {
        const uint32_t first = lower->node_records.items[i];
        const uint32_t end = lower->node_records.items[i + 1];
        const uint64_t bytes = alive_bytes(lower, lives, first, end);
        rooms[i] = peak_bytes > bytes ? peak_bytes - bytes : 0;
    }
    free(lives);
}
