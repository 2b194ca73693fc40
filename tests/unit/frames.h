/*
 * frames.h: data sets and models made in memory, for tests of samples.
 */
#ifndef UNET_TESTS_FRAMES_H
#define UNET_TESTS_FRAMES_H

#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/data/dataset.h"
#include "runtime/data/sampler.h"

/* Frames of one size with zero images, class 0 and weight 1 everywhere; class c weighs c + 1. */
static inline struct dataset frames_new(size_t count, int channels, int height, int width) {
    const size_t n = (size_t)height * (size_t)width;
    struct dataset data = {.channels = channels, .n_frames = count};
    data.frames = calloc(count, sizeof(*data.frames));
    for (int c = 0; c < DATASET_MAX_CLASSES; c++)
        data.class_weights[c] = (float)(c + 1);
    for (size_t f = 0; f < count; f++) {
        struct dataset_frame *frame = &data.frames[f];
        frame->name = strdup("made");
        frame->width = width;
        frame->height = height;
        frame->image = calloc(n * (size_t)channels, sizeof(float));
        frame->classes = calloc(n, 1);
        frame->weights = calloc(n, sizeof(float));
        for (size_t i = 0; i < n; i++)
            frame->weights[i] = 1;
    }
    return data;
}

/* Weights as weightmap_apply() leaves them: those of the classes, and the border on background;
   pixels of weight 0 stay ignored. */
static inline void frames_weigh(struct dataset *data) {
    for (size_t f = 0; f < data->n_frames; f++) {
        struct dataset_frame *frame = &data->frames[f];
        for (size_t i = 0; i < (size_t)frame->width * (size_t)frame->height; i++) {
            const uint8_t class_ = frame->classes[i];
            float weight = data->class_weights[class_];
            if (frame->border != NULL && class_ == data->background)
                weight += frame->border[i];
            frame->weights[i] = frame->weights[i] != 0 ? weight : 0;
        }
    }
}

/* Noise in [0, 1), classes in patches of 3x4 pixels, a border term, some ignored pixels. */
static inline void frames_scramble(struct dataset *data, uint32_t n_classes, uint64_t seed) {
    struct rng rng = rng_stream(seed, 1, 2);
    for (size_t f = 0; f < data->n_frames; f++) {
        struct dataset_frame *frame = &data->frames[f];
        const size_t n = (size_t)frame->width * (size_t)frame->height;
        frame->border = calloc(n, sizeof(float));
        for (size_t i = 0; i < n * (size_t)data->channels; i++)
            frame->image[i] = (float)rng_uniform(&rng);
        for (size_t i = 0; i < n; i++) {
            const size_t y = i / (size_t)frame->width, x = i % (size_t)frame->width;
            frame->classes[i] = (uint8_t)((y / 3 * 7 + x / 4 * 5 + f) % n_classes);
            frame->border[i] = (float)rng_uniform(&rng);
            if (rng_below(&rng, 20) == 0) {
                frame->weights[i] = 0;
                frame->classes[i] = 0;
            }
        }
    }
    frames_weigh(data);
}

/* A model whose samples do not vary, but for their place. */
static inline struct plan_model frames_model(uint32_t in, uint32_t out) {
    return (struct plan_model){.batch = 1,
                               .channels = 1,
                               .n_classes = 2,
                               .in_h = in,
                               .in_w = in,
                               .out_h = out,
                               .out_w = out,
                               .input_scale = 1,
                               .augment = {.scale_min = 1,
                                           .scale_max = 1,
                                           .shift = true,
                                           .grey_slope_min = 1,
                                           .grey_slope_max = 1}};
}

/* Every variation, always. */
static inline struct plan_augment frames_augment(bool cubic) {
    return (struct plan_augment){.elastic_grid = 3,
                                 .elastic_sigma = 4,
                                 .elastic_probability = 1,
                                 .rotate_degrees = 180,
                                 .rotate_probability = 1,
                                 .scale_min = 0.7f,
                                 .scale_max = 1.4f,
                                 .scale_probability = 1,
                                 .mirror_probability = 0.5f,
                                 .shift = true,
                                 .cubic = cubic,
                                 .grey_black = 0.05f,
                                 .grey_white = 0.05f,
                                 .grey_slope_min = 0.8f,
                                 .grey_slope_max = 1.2f,
                                 .grey_probability = 1};
}

/* A sample in memory. */
struct frames_sample {
    struct sampler_place place;
    float *image, *weights;
    uint32_t *labels;
};

static inline struct frames_sample frames_sample_at(const struct sampler *sampler,
                                                    struct sampler_place place) {
    const size_t in = (size_t)sampler->in_h * (size_t)sampler->in_w;
    const size_t out = (size_t)sampler->out_h * (size_t)sampler->out_w;
    struct frames_sample sample = {
        .place = place,
        .image = malloc(in * (size_t)sampler->data->channels * sizeof(float)),
        .weights = malloc(out * sizeof(float)),
        .labels = malloc(out * sizeof(uint32_t)),
    };
    struct sampler_scratch *scratch = sampler_scratch_new(sampler);
    sampler_fill(sampler, &place, scratch, sample.image, sample.labels, sample.weights);
    sampler_scratch_free(scratch);
    return sample;
}

static inline struct frames_sample frames_sample_new(const struct sampler *sampler,
                                                     uint64_t number) {
    return frames_sample_at(sampler, sampler_choose(sampler, number));
}

static inline void frames_sample_free(struct frames_sample *sample) {
    free(sample->image);
    free(sample->weights);
    free(sample->labels);
}

#endif
