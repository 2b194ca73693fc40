/*
 * storage.c: queries on where a value lives: its own memory, or channels of another value's.
 */
#include <stdlib.h>
#include <string.h>

#include "compiler/passes.h"

struct value *storage_root(struct value *value) {
    return value->storage ? value->storage : value;
}

int storage_channel(const struct value *value) {
    return value->storage ? value->storage_channel : 0;
}

bool storage_overlaps(struct value *a, struct value *b) {
    if (storage_root(a) != storage_root(b)) {
        return false;
    }
    int a_begin = storage_channel(a), b_begin = storage_channel(b);
    return a_begin < b_begin + b->shape.c && b_begin < a_begin + a->shape.c;
}

/* First and last node that touch a value's memory. */
struct life {
    size_t first, last;
};

static void touch(struct life *lives, struct value *value, size_t node) {
    struct life *life = &lives[storage_root(value)->id];
    life->first = MIN(life->first, node);
    life->last = node;
}

static void find_lives(const struct graph *graph, struct life *lives) {
    for (size_t i = 0; i < graph->values.count; i++) {
        lives[i] = (struct life){SIZE_MAX, 0};
    }
    for (size_t i = 0; i < graph->nodes.count; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_inputs; j++) {
            touch(lives, node->inputs[j], i);
        }
        for (int j = 0; j < node->n_outputs; j++) {
            touch(lives, node->outputs[j], i);
        }
    }
}

void storage_live_bytes(const struct graph *graph, uint64_t *live_bytes) {
    struct life *lives = calloc(graph->values.count + 1, sizeof(*lives));
    memset(live_bytes, 0, graph->nodes.count * sizeof(*live_bytes));
    find_lives(graph, lives);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind != VALUE_TEMP || value->port || lives[i].first == SIZE_MAX) {
            continue;
        }
        uint64_t size_bytes = align_up(shape_elements(value->shape) * 4, PLAN_ALIGNMENT);
        for (size_t n = lives[i].first; n <= lives[i].last; n++) {
            live_bytes[n] += size_bytes;
        }
    }
    free(lives);
}

uint64_t storage_peak_bytes(const struct graph *graph) {
    uint64_t *live_bytes = calloc(graph->nodes.count + 1, sizeof(*live_bytes)), most = 0;
    storage_live_bytes(graph, live_bytes);
    for (size_t n = 0; n < graph->nodes.count; n++) {
        most = MAX(most, live_bytes[n]);
    }
    free(live_bytes);
    return most;
}
