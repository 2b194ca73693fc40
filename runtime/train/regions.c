/*
 * regions.c: see regions.h.
 */
#include "runtime/train/regions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/data/memory.h"
#include "runtime/train/overlap.h"

#define UNREACHED UINT32_MAX
#define QUEUED (UINT32_MAX - 1)

/* The up to four neighbours of a pixel, left, above, right, below; returns their number. */
static int neighbours(size_t pixel, int width, int height, size_t out[4]) {
    uint32_t w = (uint32_t)width, x = (uint32_t)pixel % w, y = (uint32_t)pixel / w;
    int n = 0;
    if (x > 0)
        out[n++] = pixel - 1;
    if (y > 0)
        out[n++] = pixel - w;
    if (x + 1 < w)
        out[n++] = pixel + 1;
    if (y + 1 < (uint32_t)height)
        out[n++] = pixel + w;
    return n;
}

/* The first number of a component's, of those found to be equal. */
static uint32_t first_of(uint32_t *equal, uint32_t number) {
    while (equal[number] != number) {
        equal[number] = equal[equal[number]];
        number = equal[number];
    }
    return number;
}

/* Numbers pixels row by row and notes which numbers turn out to be one component's. Returns how
 * many numbers there are; smaller ones come first in raster order. */
static uint32_t number_rows(const uint8_t *set, int width, int height, uint32_t *labels,
                            uint32_t *equal) {
    const size_t w = (size_t)width;
    uint32_t count = 0;
    for (size_t y = 0; y < (size_t)height; y++)
        for (size_t x = 0; x < w; x++) {
            size_t i = y * w + x;
            labels[i] = 0;
            if (!set[i])
                continue;
            uint32_t left = x > 0 ? labels[i - 1] : 0, above = y > 0 ? labels[i - w] : 0;
            labels[i] = left ? left : above;
            if (left && above && left != above) {
                uint32_t one = first_of(equal, left), other = first_of(equal, above);
                equal[one > other ? one : other] = one < other ? one : other;
            } else if (!left && !above) {
                labels[i] = ++count;
                equal[count] = count;
            }
        }
    return count;
}

uint32_t regions_components(const uint8_t *set, int width, int height, uint32_t *labels) {
    const size_t n_pixels = (size_t)width * (size_t)height;
    uint32_t *equal = memory_new(n_pixels + 1, sizeof *equal);
    const uint32_t numbers = number_rows(set, width, height, labels, equal);
    uint32_t count = 0;
    for (uint32_t k = 1; k <= numbers; k++) /* what is equal comes before: renamed already */
        equal[k] = equal[k] == k ? ++count : equal[equal[k]];
    for (size_t i = 0; i < n_pixels; i++)
        labels[i] = equal[labels[i]];
    free(equal);
    return count;
}

/* A queue that every pixel enters at most once. */
struct queue {
    size_t *pixels, first, end;
};

static void push(struct queue *queue, uint32_t *labels, size_t pixel) {
    labels[pixel] = QUEUED;
    queue->pixels[queue->end++] = pixel;
}

/* Decides a pixel by those of its neighbours that are decided, and passes the front on. A line is
 * no region: beside a line and one region, a pixel joins the region. */
static void flood_pixel(size_t pixel, int width, int height, struct queue *queue,
                        uint32_t *labels) {
    size_t next[4];
    uint32_t region = 0;
    bool meeting = false;
    int n = neighbours(pixel, width, height, next);
    for (int k = 0; k < n; k++) {
        uint32_t label = labels[next[k]];
        if (label == UNREACHED) {
            push(queue, labels, next[k]);
        } else if (label != QUEUED && label != 0) {
            meeting = meeting || (region != 0 && region != label);
            region = label;
        }
    }
    labels[pixel] = meeting ? 0 : region;
}

/* Pixels beside a region start the flood, column by column as the challenge's program visits them:
 * where two regions meet in the middle of an even gap depends on the order. */
static void push_borders(int width, int height, struct queue *queue, uint32_t *labels) {
    size_t next[4];
    for (int x = 0; x < width; x++)
        for (int y = 0; y < height; y++) {
            size_t pixel = (size_t)y * (size_t)width + (size_t)x;
            if (labels[pixel] != UNREACHED)
                continue;
            int n = neighbours(pixel, width, height, next);
            for (int k = 0; k < n; k++)
                if (labels[next[k]] < QUEUED) {
                    push(queue, labels, pixel);
                    break;
                }
        }
}

void regions_grow(int width, int height, uint32_t *labels) {
    size_t n_pixels = (size_t)width * (size_t)height;
    bool any = false;
    for (size_t i = 0; i < n_pixels; i++) {
        any = any || labels[i] != 0;
        labels[i] = labels[i] == 0 ? UNREACHED : labels[i];
    }
    for (size_t i = 0; !any && i < n_pixels; i++)
        labels[i] = 1;
    struct queue queue = {memory_new(n_pixels, sizeof *queue.pixels), 0, 0};
    push_borders(width, height, &queue, labels);
    while (queue.first < queue.end)
        flood_pixel(queue.pixels[queue.first++], width, height, &queue, labels);
    free(queue.pixels);
}

/* ---------------------------------------------------------------- comparison */

/* Of the regions of one side: sums of squares and of x ln x of their shares, and pairs of pixels
 * that share a region. */
struct sums {
    double squares, logs;
    uint64_t pairs;
};

static void sums_add(struct sums *sums, uint64_t n_pixels, double n) {
    double share = (double)n_pixels / n;
    sums->squares += share * share;
    sums->logs += share * log(share);
    sums->pairs += n_pixels * (n_pixels - 1) / 2;
}

/* Region 0 of the proposal is as many regions as it has pixels. */
static void sums_add_singles(struct sums *sums, uint64_t n_pixels, double n) {
    sums->squares += (double)n_pixels / n / n;
    sums->logs -= (double)n_pixels / n * log(n);
}

static struct sums sum_truth(const struct overlap *overlap, double n) {
    struct sums sums = {0, 0, 0};
    for (size_t i = 0, end; i < overlap->count; i = end) {
        uint64_t n_pixels = 0;
        for (end = i; end < overlap->count && overlap->pairs[end].truth == overlap->pairs[i].truth;
             end++)
            n_pixels += overlap->pairs[end].n_pixels;
        if (overlap->pairs[i].truth != 0)
            sums_add(&sums, n_pixels, n);
    }
    return sums;
}

static struct sums sum_both(const struct overlap *overlap, double n) {
    struct sums sums = {0, 0, 0};
    for (size_t i = 0; i < overlap->count; i++) {
        const struct overlap_pair *pair = &overlap->pairs[i];
        if (pair->truth != 0 && pair->proposal != 0)
            sums_add(&sums, pair->n_pixels, n);
        else if (pair->truth != 0)
            sums_add_singles(&sums, pair->n_pixels, n);
    }
    return sums;
}

/* Over pairs sorted by proposal; what lies outside the truth's foreground does not count. */
static struct sums sum_proposal(const struct overlap *overlap, double n) {
    struct sums sums = {0, 0, 0};
    for (size_t i = 0, end; i < overlap->count; i = end) {
        uint32_t proposal = overlap->pairs[i].proposal;
        uint64_t n_pixels = 0;
        for (end = i; end < overlap->count && overlap->pairs[end].proposal == proposal; end++)
            n_pixels += overlap->pairs[end].truth != 0 ? overlap->pairs[end].n_pixels : 0;
        if (n_pixels > 0 && proposal != 0)
            sums_add(&sums, n_pixels, n);
        else if (n_pixels > 0)
            sums_add_singles(&sums, n_pixels, n);
    }
    return sums;
}

/* Without any information to be had, none is missing. */
static double share_of(double mutual, double entropy) {
    return entropy > 0 ? fmin(fmax(mutual / entropy, 0), 1) : 1;
}

struct regions_score regions_compare(const uint32_t *truth, const uint32_t *proposal, int width,
                                     int height) {
    struct regions_score score = {0};
    struct overlap overlap = overlap_count(truth, proposal, (size_t)width * (size_t)height);
    for (size_t i = 0; i < overlap.count; i++)
        score.n_pixels += overlap.pairs[i].truth != 0 ? overlap.pairs[i].n_pixels : 0;
    if (score.n_pixels > 0) {
        double n = (double)score.n_pixels;
        struct sums a = sum_truth(&overlap, n), both = sum_both(&overlap, n);
        overlap_sort_by_proposal(&overlap);
        struct sums b = sum_proposal(&overlap, n);
        score.rand_split = both.squares / a.squares;
        score.rand_merge = both.squares / b.squares;
        score.rand = 2 * both.squares / (a.squares + b.squares);
        double mutual = both.logs - a.logs - b.logs;
        score.info_split = share_of(mutual, -b.logs);
        score.info_merge = share_of(mutual, -a.logs);
        score.info = share_of(2 * mutual, -a.logs - b.logs);
        score.truth_pairs = a.pairs;
        score.proposal_pairs = b.pairs;
        score.common_pairs = both.pairs;
    }
    overlap_free(&overlap);
    return score;
}
