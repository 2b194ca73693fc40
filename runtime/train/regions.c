/*
 * regions.c: see regions.h.
 */
#include "runtime/train/regions.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/vec.h"
#include "runtime/data/memory.h"

#define UNREACHED UINT32_MAX

/* The up to four neighbours of a pixel, in raster order; returns their number. */
static int neighbours(size_t pixel, int width, int height, size_t out[4]) {
    size_t w = (size_t)width, x = pixel % w, y = pixel / w;
    int n = 0;
    if (y > 0)
        out[n++] = pixel - w;
    if (x > 0)
        out[n++] = pixel - 1;
    if (x + 1 < w)
        out[n++] = pixel + 1;
    if (y + 1 < (size_t)height)
        out[n++] = pixel + w;
    return n;
}

uint32_t regions_components(const uint8_t *set, int width, int height, uint32_t *labels) {
    size_t n_pixels = (size_t)width * (size_t)height;
    size_t *stack = memory_new(n_pixels, sizeof *stack), next[4];
    uint32_t count = 0;
    memset(labels, 0, n_pixels * sizeof *labels);
    for (size_t start = 0; start < n_pixels; start++) {
        if (!set[start] || labels[start])
            continue;
        size_t height_of_stack = 0;
        labels[start] = ++count;
        stack[height_of_stack++] = start;
        while (height_of_stack > 0) {
            int n = neighbours(stack[--height_of_stack], width, height, next);
            for (int k = 0; k < n; k++)
                if (set[next[k]] && !labels[next[k]]) {
                    labels[next[k]] = count;
                    stack[height_of_stack++] = next[k];
                }
        }
    }
    free(stack);
    return count;
}

/* A queue that every pixel enters at most once. */
struct queue {
    size_t *pixels, first, end;
};

static void push(struct queue *queue, uint32_t *reached, size_t pixel, uint32_t distance) {
    reached[pixel] = distance;
    queue->pixels[queue->end++] = pixel;
}

/* Decides a pixel by the neighbours that were reached no later, and passes the front on. */
static void flood_pixel(size_t pixel, int width, int height, struct queue *queue, uint32_t *reached,
                        uint32_t *labels) {
    size_t next[4];
    int n = neighbours(pixel, width, height, next);
    for (int k = 0; k < n; k++) {
        uint32_t label = labels[next[k]];
        if (label == UNREACHED) {
            if (reached[next[k]] == 0)
                push(queue, reached, next[k], reached[pixel] + 1);
        } else if (reached[next[k]] <= reached[pixel]) {
            if (labels[pixel] == UNREACHED)
                labels[pixel] = label;
            else if (label != 0 && labels[pixel] != label)
                labels[pixel] = 0;
        }
    }
}

uint32_t regions_thin(const uint8_t *set, int width, int height, uint32_t *labels) {
    size_t n_pixels = (size_t)width * (size_t)height, next[4];
    uint32_t count = regions_components(set, width, height, labels);
    if (count == 0) {
        for (size_t i = 0; i < n_pixels; i++)
            labels[i] = 1;
        return 1;
    }
    struct queue queue = {memory_new(n_pixels, sizeof *queue.pixels), 0, 0};
    uint32_t *reached =
        memory_new(n_pixels, sizeof *reached); /* distance; 0: in a component or not yet */
    for (size_t i = 0; i < n_pixels; i++)
        if (!set[i])
            labels[i] = UNREACHED;
    for (size_t i = 0; i < n_pixels; i++) {
        if (set[i])
            continue;
        int n = neighbours(i, width, height, next);
        for (int k = 0; k < n; k++)
            if (set[next[k]]) {
                push(&queue, reached, i, 1);
                break;
            }
    }
    while (queue.first < queue.end)
        flood_pixel(queue.pixels[queue.first++], width, height, &queue, reached, labels);
    free(queue.pixels);
    free(reached);
    return count;
}

/* ---------------------------------------------------------------- comparison */

struct run {
    uint32_t truth, proposal;
    uint64_t n_pixels;
};

struct runs {
    VEC(struct run) list;
};

static int by_pair(const void *a, const void *b) {
    const struct run *left = a, *right = b;
    if (left->truth != right->truth)
        return left->truth < right->truth ? -1 : 1;
    return (left->proposal > right->proposal) - (left->proposal < right->proposal);
}

static int by_proposal(const void *a, const void *b) {
    const struct run *left = a, *right = b;
    return (left->proposal > right->proposal) - (left->proposal < right->proposal);
}

static struct runs collect_runs(const uint32_t *truth, const uint32_t *proposal, size_t n_pixels) {
    struct runs runs = {0};
    for (size_t i = 0; i < n_pixels; i++) {
        if (truth[i] == 0)
            continue;
        struct run *last = runs.list.count ? &runs.list.items[runs.list.count - 1] : NULL;
        if (last && last->truth == truth[i] && last->proposal == proposal[i]) {
            last->n_pixels++;
        } else {
            struct run run = {truth[i], proposal[i], 1};
            vec_push(&runs.list, run);
        }
    }
    return runs;
}

/* Sums of squares and of x ln x of shares. */
struct sums {
    double squares, logs;
};

static void sums_add(struct sums *sums, uint64_t n_pixels, double n) {
    double share = (double)n_pixels / n;
    sums->squares += share * share;
    sums->logs += share * log(share);
}

/* Over runs sorted so that those of one region follow each other; region 0 of the proposal is as
 * many regions as it has pixels. */
static struct sums add_up(const struct runs *runs, double n,
                          int (*same)(const void *, const void *)) {
    struct sums sums = {0, 0};
    size_t count = runs->list.count;
    for (size_t i = 0, end; i < count; i = end) {
        const struct run *run = &runs->list.items[i];
        uint64_t n_pixels = 0;
        for (end = i; end < count && same(run, &runs->list.items[end]) == 0; end++)
            n_pixels += runs->list.items[end].n_pixels;
        if (run->proposal != 0) {
            sums_add(&sums, n_pixels, n);
        } else {
            sums.squares += (double)n_pixels / n / n;
            sums.logs -= (double)n_pixels / n * log(n);
        }
    }
    return sums;
}

static struct sums add_up_truth(const struct runs *runs, double n) {
    struct sums sums = {0, 0};
    size_t count = runs->list.count;
    for (size_t i = 0, end; i < count; i = end) {
        uint64_t n_pixels = 0;
        for (end = i; end < count && runs->list.items[end].truth == runs->list.items[i].truth;
             end++)
            n_pixels += runs->list.items[end].n_pixels;
        sums_add(&sums, n_pixels, n);
    }
    return sums;
}

struct regions_score regions_compare(const uint32_t *truth, const uint32_t *proposal, int width,
                                     int height) {
    struct regions_score score = {0};
    struct runs runs = collect_runs(truth, proposal, (size_t)width * (size_t)height);
    for (size_t i = 0; i < runs.list.count; i++)
        score.n_pixels += runs.list.items[i].n_pixels;
    if (score.n_pixels > 0) {
        double n = (double)score.n_pixels;
        qsort(runs.list.items, runs.list.count, sizeof *runs.list.items, by_pair);
        struct sums a = add_up_truth(&runs, n), both = add_up(&runs, n, by_pair);
        qsort(runs.list.items, runs.list.count, sizeof *runs.list.items, by_proposal);
        struct sums b = add_up(&runs, n, by_proposal);
        score.rand_split = both.squares / a.squares;
        score.rand_merge = both.squares / b.squares;
        score.rand = 2 * both.squares / (a.squares + b.squares);
        double entropies = -a.logs - b.logs, mutual = both.logs - a.logs - b.logs;
        score.info = entropies > 0 ? fmin(fmax(2 * mutual / entropies, 0), 1) : 1;
    }
    vec_free(&runs.list);
    return score;
}
