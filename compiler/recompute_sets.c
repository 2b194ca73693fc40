/*
 * recompute_sets.c: which layers to recompute for how much memory. Every layer whose map waits for
 * the backward pass is a candidate: it frees so many bytes between two nodes and costs so many
 * operations. The nets here have few of them, so all sets are tried on the profile of live bytes,
 * and those kept that no other beats in both. (Checkmate, Jain et al. 2020, solves the general
 * problem as an integer program.)
 */
#include "compiler/recompute.h"

#include <stdlib.h>
#include <string.h>

#include "compiler/passes.h"

#define CANDIDATES_MAX 16

struct candidate {
    const char *layer;
    size_t last, first; /* nodes: last use in the forward pass, first in the backward pass */
    uint64_t bytes, flops;
    uint32_t inputs; /* candidates whose maps its recomputation reads */
    struct recompute_chain chain;
};

struct choice {
    const struct graph *graph;
    uint64_t *live_bytes; /* at each node, nothing recomputed */
    uint64_t *freed;      /* scratch: what becomes free at a node; minus what is made again */
    VEC(struct candidate) candidates; /* in order of the forward pass */
};

struct trial {
    uint64_t flops, peak_bytes;
    uint32_t set; /* bit i: candidate i */
};

/* ---- candidates ---- */

static bool in_chain(const struct recompute_chain *chain, const struct node *node) {
    for (int i = 0; i < chain->count; i++) {
        if (chain->nodes[i] == node) {
            return true;
        }
    }
    return false;
}

/* Nothing else of the forward pass lies in the memory of the chain's last result. */
static bool owns_memory(const struct graph *graph, size_t loss, const struct recompute_chain *chain,
                        const struct value *root) {
    for (size_t i = 0; i <= loss; i++) {
        const struct node *node = graph->nodes.items[i];
        for (int j = 0; j < node->n_outputs; j++) {
            if (storage_root(node->outputs[j]) == root && !in_chain(chain, node)) {
                return false;
            }
        }
    }
    return true;
}

static bool touches(const struct node *node, const struct value *root) {
    for (int i = 0; i < node->n_inputs + node->n_outputs; i++) {
        struct value *value =
            i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
        if (storage_root(value) == root) {
            return true;
        }
    }
    return false;
}

static bool measure(const struct graph *graph, size_t loss, struct candidate *c) {
    const struct value *root = storage_root(c->chain.nodes[c->chain.count - 1]->outputs[0]);
    if (root->kind != VALUE_TEMP || root->port || !owns_memory(graph, loss, &c->chain, root)) {
        return false;
    }
    c->layer = c->chain.nodes[0]->name;
    c->bytes = align_up(shape_elements(root->shape) * 4, PLAN_ALIGNMENT);
    for (int i = 0; i < c->chain.count; i++) {
        c->flops += op_table[c->chain.nodes[i]->op]->flops(c->chain.nodes[i]);
    }
    for (size_t i = 0; i <= loss; i++) {
        c->last = touches(graph->nodes.items[i], root) ? i : c->last;
    }
    for (c->first = loss + 1; !touches(graph->nodes.items[c->first], root);) {
        c->first++;
    }
    return c->first > c->last + 1;
}

/* The candidate that frees the fewest bytes for an operation. */
static size_t poorest(const struct choice *choice) {
    size_t worst = 0;
    for (size_t i = 1; i < choice->candidates.count; i++) {
        const struct candidate *a = &choice->candidates.items[i];
        const struct candidate *b = &choice->candidates.items[worst];
        if ((double)a->bytes * (double)b->flops < (double)b->bytes * (double)a->flops) {
            worst = i;
        }
    }
    return worst;
}

static void remove_candidate(struct choice *choice, size_t index) {
    choice->candidates.count--;
    for (size_t i = index; i < choice->candidates.count; i++) {
        choice->candidates.items[i] = choice->candidates.items[i + 1];
    }
}

static void find_inputs(struct choice *choice) {
    for (size_t i = 0; i < choice->candidates.count; i++) {
        const struct recompute_chain *from = &choice->candidates.items[i].chain;
        for (size_t j = i + 1; j < choice->candidates.count; j++) {
            struct candidate *to = &choice->candidates.items[j];
            const struct value *x = to->chain.nodes[0]->inputs[0];
            to->inputs |= x->producer && in_chain(from, x->producer) ? 1u << i : 0;
        }
    }
}

static void find_candidates(struct choice *choice) {
    const size_t loss = recompute_find_loss(choice->graph);
    for (size_t i = 0; i < loss && loss < choice->graph->nodes.count; i++) {
        struct candidate c = {0};
        if (recompute_find_chain(choice->graph, i, &c.chain) && measure(choice->graph, loss, &c)) {
            vec_push(&choice->candidates, c);
        }
    }
    while (choice->candidates.count > CANDIDATES_MAX) {
        remove_candidate(choice, poorest(choice));
    }
    find_inputs(choice);
}

/* ---- sets ---- */

static struct trial try_set(struct choice *choice, uint32_t set) {
    struct trial trial = {.set = set};
    size_t again[CANDIDATES_MAX]; /* where the map is made again */
    uint64_t freed_bytes = 0;
    memset(choice->freed, 0, (choice->graph->nodes.count + 1) * sizeof(*choice->freed));
    for (size_t i = choice->candidates.count; i-- > 0;) {
        const struct candidate *c = &choice->candidates.items[i];
        if (!(set >> i & 1)) {
            continue;
        }
        again[i] = c->first;
        for (size_t j = i + 1; j < choice->candidates.count; j++) {
            if (set >> j & 1 && choice->candidates.items[j].inputs >> i & 1) {
                again[i] = MIN(again[i], again[j]);
            }
        }
        choice->freed[c->last + 1] += c->bytes;
        choice->freed[again[i]] -= c->bytes;
        trial.flops += c->flops;
    }
    for (size_t n = 0; n < choice->graph->nodes.count; n++) {
        freed_bytes += choice->freed[n];
        trial.peak_bytes = MAX(trial.peak_bytes, choice->live_bytes[n] - freed_bytes);
    }
    return trial;
}

static int by_cost(const void *a, const void *b) {
    const struct trial *x = a, *y = b;
    if (x->flops != y->flops) {
        return x->flops < y->flops ? -1 : 1;
    }
    if (x->peak_bytes != y->peak_bytes) {
        return x->peak_bytes < y->peak_bytes ? -1 : 1;
    }
    return x->set < y->set ? -1 : x->set > y->set;
}

static const char *set_text(const struct choice *choice, uint32_t set, struct arena *arena) {
    const char *text = NULL;
    for (size_t i = 0; i < choice->candidates.count; i++) {
        if (set >> i & 1) {
            const char *layer = choice->candidates.items[i].layer;
            text = text ? arena_printf(arena, "%s,%s", text, layer) : arena_strdup(arena, layer);
        }
    }
    return text ? text : "none";
}

static void keep_unbeaten(const struct choice *choice, struct trial *trials, size_t count,
                          struct recompute_sets *sets) {
    uint64_t least_bytes = UINT64_MAX;
    qsort(trials, count, sizeof(*trials), by_cost);
    sets->items = ARENA_ARRAY(&sets->arena, struct recompute_set, count);
    for (size_t i = 0; i < count; i++) {
        if (trials[i].peak_bytes < least_bytes) {
            least_bytes = trials[i].peak_bytes;
            sets->items[sets->count++] =
                (struct recompute_set){.layers = set_text(choice, trials[i].set, &sets->arena),
                                       .flops = trials[i].flops,
                                       .peak_bytes = trials[i].peak_bytes};
        }
    }
}

void recompute_list_sets(const struct graph *graph, struct recompute_sets *sets) {
    struct choice choice = {.graph = graph};
    *sets = (struct recompute_sets){0};
    choice.live_bytes = ARENA_ARRAY(&sets->arena, uint64_t, graph->nodes.count + 1);
    choice.freed = ARENA_ARRAY(&sets->arena, uint64_t, graph->nodes.count + 1);
    storage_live_bytes(graph, choice.live_bytes);
    find_candidates(&choice);
    const size_t count = (size_t)1 << choice.candidates.count;
    struct trial *trials = ARENA_ARRAY(&sets->arena, struct trial, count);
    for (size_t set = 0; set < count; set++) {
        trials[set] = try_set(&choice, (uint32_t)set);
    }
    keep_unbeaten(&choice, trials, count, sets);
    vec_free(&choice.candidates);
}

void recompute_free_sets(struct recompute_sets *sets) {
    arena_free(&sets->arena);
    *sets = (struct recompute_sets){0};
}
