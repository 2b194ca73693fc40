/*
 * instance_metrics.c: see instance_metrics.h. All scores come from the table of overlaps: one walk
 * over it by labelled object, one by predicted object.
 */
#include "runtime/train/instance_metrics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "runtime/data/memory.h"
#include "runtime/train/metrics.h"
#include "runtime/train/overlap.h"

/* Pixels of each object, sorted by id. */
struct object {
    uint32_t id;
    uint64_t n_pixels;
};

struct objects {
    struct object *list;
    size_t count;
};

static int by_id(const void *a, const void *b) {
    const struct object *left = a, *right = b;
    return (left->id > right->id) - (left->id < right->id);
}

static uint64_t size_of(const struct objects *objects, uint32_t id) {
    const struct object key = {id, 0};
    const struct object *found = bsearch(&key, objects->list, objects->count, sizeof key, by_id);
    return found ? found->n_pixels : 0;
}

/* Adds pixels to the last object or starts the next; ids come in order. */
static void add_pixels(struct objects *objects, uint32_t id, uint64_t n_pixels) {
    if (id == 0)
        return;
    if (objects->count == 0 || objects->list[objects->count - 1].id != id)
        objects->list[objects->count++] = (struct object){id, 0};
    objects->list[objects->count - 1].n_pixels += n_pixels;
}

/* By labelled object; overlaps sorted by truth. */
static void score_labelled(struct instance_metrics *metrics, const struct overlap *overlap,
                           const struct objects *labelled, const struct objects *predicted) {
    size_t i = 0;
    for (size_t k = 0; k < labelled->count; k++) {
        const struct object *object = &labelled->list[k];
        uint64_t inside = 0;
        bool matched = false;
        while (overlap->pairs[i].truth != object->id)
            i++;
        for (; i < overlap->count && overlap->pairs[i].truth == object->id; i++) {
            const struct overlap_pair *pair = &overlap->pairs[i];
            if (pair->proposal == 0)
                continue;
            uint64_t size = size_of(predicted, pair->proposal);
            uint64_t united = object->n_pixels + size - pair->n_pixels;
            if (2 * pair->n_pixels > object->n_pixels) {
                metrics->seg_sum += (double)pair->n_pixels / (double)united;
                matched = true;
            }
            metrics->f1_matches += 2 * pair->n_pixels > united;
            inside += 2 * pair->n_pixels > size;
        }
        metrics->det_false_negatives += !matched;
        metrics->split += inside > 1;
    }
}

/* By predicted object; overlaps sorted by proposal. */
static void score_predicted(struct instance_metrics *metrics, const struct overlap *overlap,
                            const struct objects *labelled, const struct objects *predicted) {
    size_t i = 0;
    for (size_t k = 0; k < predicted->count; k++) {
        uint64_t matches = 0;
        while (overlap->pairs[i].proposal != predicted->list[k].id)
            i++;
        for (; i < overlap->count && overlap->pairs[i].proposal == predicted->list[k].id; i++) {
            const struct overlap_pair *pair = &overlap->pairs[i];
            matches += pair->truth != 0 && 2 * pair->n_pixels > size_of(labelled, pair->truth);
        }
        metrics->det_false_positives += matches == 0;
        metrics->split_matches += matches > 1 ? matches - 1 : 0;
        metrics->merged += matches > 1;
    }
}

static void add_overlap(struct instance_metrics *metrics, struct overlap *overlap) {
    struct objects labelled = {memory_new(overlap->count, sizeof *labelled.list), 0};
    struct objects predicted = {memory_new(overlap->count, sizeof *predicted.list), 0};
    for (size_t i = 0; i < overlap->count; i++)
        add_pixels(&labelled, overlap->pairs[i].truth, overlap->pairs[i].n_pixels);
    overlap_sort_by_proposal(overlap);
    for (size_t i = 0; i < overlap->count; i++)
        add_pixels(&predicted, overlap->pairs[i].proposal, overlap->pairs[i].n_pixels);
    metrics->n_labelled += labelled.count;
    metrics->n_predicted += predicted.count;
    score_predicted(metrics, overlap, &labelled, &predicted);
    overlap_sort_by_truth(overlap);
    score_labelled(metrics, overlap, &labelled, &predicted);
    free(labelled.list);
    free(predicted.list);
}

/* The ids of the pixels that count, 0 elsewhere; freed by the caller. */
static uint32_t *counted(const uint32_t *ids, const float *weights, size_t n_pixels) {
    uint32_t *kept = memory_new(n_pixels, sizeof *kept);
    for (size_t i = 0; i < n_pixels; i++)
        kept[i] = weights && weights[i] == 0 ? 0 : ids[i];
    return kept;
}

void instance_metrics_add(struct instance_metrics *metrics, const uint32_t *labelled,
                          const uint32_t *predicted, const float *weights, int width, int height) {
    const size_t n_pixels = (size_t)width * (size_t)height;
    uint32_t *truth = counted(labelled, weights, n_pixels);
    uint32_t *proposal = counted(predicted, weights, n_pixels);
    struct overlap overlap = overlap_count(truth, proposal, n_pixels);
    metrics->n_images++;
    add_overlap(metrics, &overlap);
    overlap_free(&overlap);
    free(truth);
    free(proposal);
}

void instance_metrics_add_frame(struct instance_metrics *metrics, const struct dataset_frame *frame,
                                const float *probs, uint32_t n_classes,
                                const struct instances_options *options) {
    const int width = frame->width, height = frame->height;
    const size_t pixels = (size_t)width * (size_t)height;
    const struct instances_options plain = {.background = options->background};
    uint8_t *classes = memory_new(pixels, 1);
    uint32_t *predicted = memory_new(pixels, sizeof(*predicted));
    uint32_t *components = NULL;
    metrics_argmax(probs, n_classes, pixels, classes);
    instances_label(classes, width, height, options, predicted);
    if (frame->instances == NULL) {
        components = memory_new(pixels, sizeof(*components));
        instances_label(frame->classes, width, height, &plain, components);
    }
    instance_metrics_add(metrics, components != NULL ? components : frame->instances, predicted,
                         frame->weights, width, height);
    free(classes);
    free(predicted);
    free(components);
}

void instance_metrics_merge(struct instance_metrics *metrics,
                            const struct instance_metrics *other) {
    metrics->n_images += other->n_images;
    metrics->n_labelled += other->n_labelled;
    metrics->n_predicted += other->n_predicted;
    metrics->seg_sum += other->seg_sum;
    metrics->split_matches += other->split_matches;
    metrics->det_false_negatives += other->det_false_negatives;
    metrics->det_false_positives += other->det_false_positives;
    metrics->f1_matches += other->f1_matches;
    metrics->merged += other->merged;
    metrics->split += other->split;
}

struct instance_result instance_metrics_finish(const struct instance_metrics *metrics) {
    const uint64_t objects = metrics->n_labelled + metrics->n_predicted; /* 2 TP + FP + FN */
    struct instance_result result = {NAN, NAN, NAN};
    if (objects > 0)
        result.f1 = 2.0 * (double)metrics->f1_matches / (double)objects;
    if (metrics->n_labelled > 0) {
        const double worst = 10.0 * (double)metrics->n_labelled;
        const double edits = 5.0 * (double)metrics->split_matches +
                             10.0 * (double)metrics->det_false_negatives +
                             (double)metrics->det_false_positives;
        result.seg = metrics->seg_sum / (double)metrics->n_labelled;
        result.det = 1 - MIN(edits, worst) / worst;
    }
    return result;
}
