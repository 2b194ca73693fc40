/*
 * contour.c: see contour.h. Regions grow until they meet or have reached far enough; those that
 * meet are neighbours. Colours are given as in G. J. Chaitin, "Register allocation and spilling via
 * graph coloring", 1982: regions with fewer neighbours than there are colours are set aside one
 * after the other, as one of them will always find a free colour, and coloured in reverse order.
 */
#include "runtime/data/contour.h"

#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/vec.h"
#include "runtime/data/memory.h"

#define THICK_FROM 1000 /* px of the longer side, above which lines are two pixels wide */

int contour_thickness(int width, int height) {
    return MAX(width, height) > THICK_FROM ? 2 : 1;
}

bool contour_of_region(const uint32_t *ids, int width, int height, int y, int x, int thickness) {
    const uint32_t own = ids[(size_t)y * (size_t)width + (size_t)x];
    if (own == 0)
        return false;
    for (int dy = -thickness; dy <= thickness; dy++)
        for (int dx = -(thickness - abs(dy)); dx <= thickness - abs(dy); dx++)
            if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width &&
                ids[(size_t)(y + dy) * (size_t)width + (size_t)(x + dx)] != own)
                return true;
    return false;
}

bool contour_of_class(const uint8_t *classes, int width, int height, int y, int x, int thickness) {
    const uint8_t own = classes[(size_t)y * (size_t)width + (size_t)x];
    if (own == 0)
        return false;
    for (int dy = -thickness; dy <= thickness; dy++)
        for (int dx = -(thickness - abs(dy)); dx <= thickness - abs(dy); dx++)
            if (y + dy >= 0 && y + dy < height && x + dx >= 0 && x + dx < width &&
                classes[(size_t)(y + dy) * (size_t)width + (size_t)(x + dx)] < own)
                return true;
    return false;
}

/* Free pixels take the region of their neighbours, one ring in each of reach rounds, so that a
   region stays in one piece. */
static uint32_t *grow(const uint32_t *ids, int width, int height, int reach) {
    const size_t w = (size_t)width, n_pixels = w * (size_t)height;
    uint32_t *now = memory_new(n_pixels, sizeof(*now)), *next = memory_new(n_pixels, sizeof(*next));
    memcpy(now, ids, n_pixels * sizeof(*now));
    for (int round = 0; round < reach; round++) {
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                const size_t i = (size_t)y * w + (size_t)x;
                uint32_t id = now[i];
                if (id == 0 && x > 0)
                    id = now[i - 1];
                if (id == 0 && y > 0)
                    id = now[i - w];
                if (id == 0 && x + 1 < width)
                    id = now[i + 1];
                if (id == 0 && y + 1 < height)
                    id = now[i + w];
                next[i] = id;
            }
        uint32_t *swap = now;
        now = next;
        next = swap;
    }
    free(next);
    return now;
}

/* Regions and their neighbours: those of id are ends[first[id]] .. ends[first[id + 1] - 1]. */
struct graph {
    uint32_t n_nodes; /* the largest id and 1 */
    size_t *first;
    uint32_t *ends;
};

struct edge_list {
    VEC(uint64_t) edges; /* from << 32 | to, both ways */
};

static void add_edge(struct edge_list *list, uint32_t a, uint32_t b) {
    if (a == 0 || b == 0 || a == b)
        return;
    const uint64_t edge = (uint64_t)a << 32 | b;
    /* Along a common border the same pair comes again and again. */
    if (list->edges.count >= 2 && list->edges.items[list->edges.count - 2] == edge)
        return;
    vec_push(&list->edges, edge);
    vec_push(&list->edges, (uint64_t)b << 32 | a);
}

static int by_number(const void *a, const void *b) {
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct graph make_graph(const uint32_t *ids, int width, int height, uint32_t n_nodes) {
    struct edge_list list = {0};
    const size_t w = (size_t)width;
    for (int y = 0; y < height; y++)
        for (int x = 0; x + 1 < width; x++)
            add_edge(&list, ids[(size_t)y * w + (size_t)x], ids[(size_t)y * w + (size_t)x + 1]);
    for (int y = 0; y + 1 < height; y++)
        for (int x = 0; x < width; x++)
            add_edge(&list, ids[(size_t)y * w + (size_t)x], ids[((size_t)y + 1) * w + (size_t)x]);
    if (list.edges.count > 0)
        qsort(list.edges.items, list.edges.count, sizeof(*list.edges.items), by_number);
    struct graph graph = {.n_nodes = n_nodes,
                          .first = memory_new((size_t)n_nodes + 1, sizeof(*graph.first)),
                          .ends = memory_new(list.edges.count, sizeof(*graph.ends))};
    size_t n_ends = 0;
    for (size_t i = 0; i < list.edges.count; i++) {
        if (i > 0 && list.edges.items[i] == list.edges.items[i - 1])
            continue;
        graph.ends[n_ends++] = (uint32_t)list.edges.items[i];
        graph.first[(list.edges.items[i] >> 32) + 1] = n_ends;
    }
    for (size_t id = 1; id <= n_nodes; id++)
        graph.first[id] = MAX(graph.first[id], graph.first[id - 1]);
    vec_release(list.edges.items);
    return graph;
}

static size_t count_neighbours(const struct graph *graph, uint32_t id) {
    return graph->first[id + 1] - graph->first[id];
}

/* The order in which regions are set aside. What is left when all of them have many neighbours is
   taken by number. */
static uint32_t *order_nodes(const struct graph *graph) {
    const uint32_t n = graph->n_nodes;
    uint32_t *order = memory_new(n, sizeof(*order)), done = 0, count = 0;
    size_t *left = memory_new(n, sizeof(*left));
    bool *listed = memory_new(n, sizeof(*listed));
    for (uint32_t id = 0; id < n; id++) {
        left[id] = count_neighbours(graph, id);
        listed[id] = left[id] < CONTOUR_COLOURS;
        if (listed[id])
            order[count++] = id;
    }
    for (uint32_t next = 0; done < n; done++) {
        if (done == count) {
            while (listed[next])
                next++;
            listed[next] = true;
            order[count++] = next;
        }
        const uint32_t id = order[done];
        for (size_t k = graph->first[id]; k < graph->first[id + 1]; k++) {
            const uint32_t other = graph->ends[k];
            left[other]--;
            if (!listed[other] && left[other] < CONTOUR_COLOURS) {
                listed[other] = true;
                order[count++] = other;
            }
        }
    }
    free(left);
    free(listed);
    return order;
}

/* A colour that no neighbour has, or the one that fewest have; each region tries them in an order
   of its own, so that all are used. */
static uint8_t choose(const struct graph *graph, uint32_t id, const uint8_t *colours,
                      const bool *coloured) {
    uint32_t used[CONTOUR_COLOURS] = {0}, best = id % CONTOUR_COLOURS;
    for (size_t k = graph->first[id]; k < graph->first[id + 1]; k++)
        if (coloured[graph->ends[k]])
            used[colours[graph->ends[k]]]++;
    for (uint32_t i = 1; i < CONTOUR_COLOURS; i++) {
        const uint32_t other = (id + i) % CONTOUR_COLOURS;
        if (used[other] < used[best])
            best = other;
    }
    return (uint8_t)best;
}

uint8_t *contour_colours(const uint32_t *ids, int width, int height, int reach) {
    const size_t n_pixels = (size_t)width * (size_t)height;
    uint32_t largest = 0;
    for (size_t i = 0; i < n_pixels; i++)
        largest = MAX(largest, ids[i]);
    uint32_t *grown = grow(ids, width, height, reach);
    struct graph graph = make_graph(grown, width, height, largest + 1);
    uint32_t *order = order_nodes(&graph);
    uint8_t *colours = memory_new(graph.n_nodes, sizeof(*colours));
    bool *coloured = memory_new(graph.n_nodes, sizeof(*coloured));
    for (uint32_t i = graph.n_nodes; i-- > 0;) {
        colours[order[i]] = choose(&graph, order[i], colours, coloured);
        coloured[order[i]] = true;
    }
    free(coloured);
    free(order);
    free(graph.first);
    free(graph.ends);
    free(grown);
    return colours;
}
