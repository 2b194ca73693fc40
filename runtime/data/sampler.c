/*
 * sampler.c: see sampler.h.
 */
#include "runtime/data/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/data/instances.h"
#include "runtime/data/memory.h"
#include "runtime/data/resample.h"

/* Keep the draws for the order of an epoch, for a sample and for its grid apart. */
#define ORDER_KEY UINT64_C(0x6f726465725f6f66)
#define SAMPLE_KEY UINT64_C(0x73616d706c655f6f)
#define NODES_KEY UINT64_C(0x6e6f6465735f6f66)
#define EPOCH_KEY UINT64_C(0x9e3779b97f4a7c15)

struct sampler_scratch {
    float *elastic;
    double *y, *x;    /* positions of a row, of the input tile or of the output window */
    uint32_t *pixels; /* nearest to them */
    bool *inside;
    float *border;
    /* Of the output window and the pixels above it and on both sides, of which lines between
       objects depend; NULL without objects. */
    uint32_t *ids;
    uint8_t *classes;
};

/* ---------------------------------------------------------------- opening */

static void read_frame(const struct dataset *data, const struct dataset_frame *frame,
                       struct sampler_frame *facts) {
    const size_t n_pixels = (size_t)frame->width * (size_t)frame->height;
    const size_t n_values = n_pixels * (size_t)data->channels;
    facts->low = facts->high = frame->image[0];
    for (size_t i = 0; i < n_values; i++) {
        const float value = frame->image[i];
        facts->low = value < facts->low ? value : facts->low;
        facts->high = value > facts->high ? value : facts->high;
    }
    for (size_t i = 0; i < n_pixels; i++)
        facts->counted[frame->classes[i]] += frame->weights[i] != 0;
}

/* An object's class is that of any of its pixels that is not on a line cut between objects. One
   with no other pixels is background, as it is in its frame. */
static uint8_t *list_objects(const struct dataset *data) {
    uint32_t most = 0;
    for (size_t f = 0; f < data->n_frames; f++) {
        const struct dataset_frame *frame = &data->frames[f];
        for (size_t i = 0;
             frame->instances != NULL && i < (size_t)frame->width * (size_t)frame->height; i++)
            most = MAX(most, frame->instances[i]);
    }
    if (most == 0)
        return NULL;
    uint8_t *class_of_id = memory_new((size_t)most + 1, 1);
    memset(class_of_id, data->background, (size_t)most + 1);
    for (size_t f = 0; f < data->n_frames; f++) {
        const struct dataset_frame *frame = &data->frames[f];
        for (size_t i = 0;
             frame->instances != NULL && i < (size_t)frame->width * (size_t)frame->height; i++)
            if (frame->classes[i] != data->background)
                class_of_id[frame->instances[i]] = frame->classes[i];
    }
    return class_of_id;
}

void sampler_open(struct sampler *sampler, const struct plan_model *model,
                  const struct dataset *data, uint64_t seed) {
    *sampler = (struct sampler){
        .data = data,
        .seed = seed,
        .in_h = (int)model->in_h,
        .in_w = (int)model->in_w,
        .out_h = (int)model->out_h,
        .out_w = (int)model->out_w,
        .margin_top = ((int)model->in_h - (int)model->out_h) / 2,
        .margin_left = ((int)model->in_w - (int)model->out_w) / 2,
        .augment = model->augment,
        .balance = model->sample_balance,
        .normalise = model->normalise,
        .input_offset = model->input_offset,
        .input_scale = model->input_scale,
        .batch = model->batch,
        .frames = memory_new(data->n_frames, sizeof(*sampler->frames)),
        .class_of_id = list_objects(data),
    };
    for (size_t f = 0; f < data->n_frames; f++)
        read_frame(data, &data->frames[f], &sampler->frames[f]);
}

void sampler_close(struct sampler *sampler) {
    free(sampler->frames);
    free(sampler->class_of_id);
    *sampler = (struct sampler){0};
}

struct sampler_scratch *sampler_scratch_new(const struct sampler *sampler) {
    struct sampler_scratch *scratch = memory_new(1, sizeof(*scratch));
    const size_t row = (size_t)MAX(sampler->in_w, sampler->out_w) + 2;
    scratch->elastic = memory_new(augment_scratch_floats(&sampler->augment), sizeof(float));
    scratch->y = memory_new(row, sizeof(*scratch->y));
    scratch->x = memory_new(row, sizeof(*scratch->x));
    scratch->pixels = memory_new(row, sizeof(*scratch->pixels));
    scratch->inside = memory_new(row, sizeof(*scratch->inside));
    scratch->border = memory_new(row, sizeof(*scratch->border));
    if (sampler->class_of_id != NULL) {
        const size_t area = (size_t)(sampler->out_h + 1) * (size_t)(sampler->out_w + 2);
        scratch->ids = memory_new(area, sizeof(*scratch->ids));
        scratch->classes = memory_new(area, sizeof(*scratch->classes));
    }
    return scratch;
}

void sampler_scratch_free(struct sampler_scratch *scratch) {
    if (scratch == NULL)
        return;
    free(scratch->elastic);
    free(scratch->y);
    free(scratch->x);
    free(scratch->pixels);
    free(scratch->inside);
    free(scratch->border);
    free(scratch->ids);
    free(scratch->classes);
    free(scratch);
}

/* ---------------------------------------------------------------- choosing */

/*
 * The Fisher-Yates shuffle swaps item i with item j(i) <= i for i = n - 1 down to 1. Following one
 * place back through the swaps, from the last to the first, gives what ends up there without
 * storing the permutation.
 */
size_t sampler_frame_at(uint64_t seed, uint64_t epoch, size_t place, size_t n_frames) {
    uint64_t key = seed ^ ORDER_KEY ^ (epoch >> 32) * EPOCH_KEY;
    for (size_t i = 1; i < n_frames; i++) {
        struct rng rng = rng_stream(key, (uint32_t)epoch, (uint32_t)i);
        size_t j = rng_below(&rng, (uint32_t)(i + 1));
        if (place == i)
            place = j;
        else if (place == j)
            place = i;
    }
    return place;
}

/* 0 .. count - 1, count > 0, for a part in [0, 1). */
static uint32_t pick(double part, uint32_t count) {
    return MIN((uint32_t)(part * count), count - 1);
}

/* A corner such that the window lies in the frame, or the frame in the window. */
static int random_corner(double part, int frame, int window) {
    const int room = frame - window;
    const int draw = (int)pick(part, (uint32_t)(room < 0 ? -room : room) + 1);
    return room < 0 ? -draw : draw;
}

static int middle_corner(int frame, int window) {
    const int room = frame - window;
    return room < 0 ? -(-room / 2) : room / 2;
}

/* Of a window around a pixel, moved as little as needed. */
static int corner_around(int pixel, int frame, int window) {
    const int room = frame - window, corner = pixel - window / 2;
    return MAX(MIN(room, 0), MIN(corner, MAX(room, 0)));
}

/* The pixel number `index` in reading order of those of a class that are not ignored. */
static size_t find_pixel(const struct dataset_frame *frame, uint8_t class_, uint32_t index) {
    size_t pixel = 0;
    for (;; pixel++)
        if (frame->classes[pixel] == class_ && frame->weights[pixel] != 0 && index-- == 0)
            return pixel;
}

/* Centres the window on a pixel of a class drawn evenly; false when no pixel of the frame counts.
 */
static bool choose_balanced(const struct sampler *sampler, double class_part, double pixel_part,
                            struct sampler_place *place) {
    const struct dataset_frame *frame = &sampler->data->frames[place->frame];
    const uint32_t *counted = sampler->frames[place->frame].counted;
    uint32_t n_present = 0;
    for (int c = 0; c < DATASET_MAX_CLASSES; c++)
        n_present += counted[c] > 0;
    if (n_present == 0)
        return false;
    uint32_t index = pick(class_part, n_present);
    int class_ = 0;
    while (counted[class_] == 0 || index-- > 0)
        class_++;
    const size_t pixel = find_pixel(frame, (uint8_t)class_, pick(pixel_part, counted[class_]));
    place->y = corner_around((int)(pixel / (size_t)frame->width), frame->height, sampler->out_h);
    place->x = corner_around((int)(pixel % (size_t)frame->width), frame->width, sampler->out_w);
    return true;
}

struct sampler_place sampler_choose(const struct sampler *sampler, uint64_t number) {
    enum { BALANCE, CLASS, PIXEL, CORNER_Y, CORNER_X, DRAWS };
    double part[DRAWS];
    const size_t n_frames = sampler->data->n_frames;
    const uint64_t epoch = number / n_frames;
    const size_t in_epoch = (size_t)(number % n_frames);
    const uint64_t key = sampler->seed ^ (epoch >> 32) * EPOCH_KEY;
    struct rng rng = rng_stream(key ^ SAMPLE_KEY, (uint32_t)epoch, (uint32_t)in_epoch);
    for (int i = 0; i < DRAWS; i++)
        part[i] = rng_uniform(&rng);
    struct sampler_place place = {.frame =
                                      sampler_frame_at(sampler->seed, epoch, in_epoch, n_frames)};
    const struct dataset_frame *frame = &sampler->data->frames[place.frame];
    if (!(part[BALANCE] < sampler->balance) ||
        !choose_balanced(sampler, part[CLASS], part[PIXEL], &place)) {
        const bool shift = sampler->augment.shift;
        place.y = shift ? random_corner(part[CORNER_Y], frame->height, sampler->out_h)
                        : middle_corner(frame->height, sampler->out_h);
        place.x = shift ? random_corner(part[CORNER_X], frame->width, sampler->out_w)
                        : middle_corner(frame->width, sampler->out_w);
    }
    place.draw = augment_choose(&sampler->augment, &rng,
                                rng_stream(key ^ NODES_KEY, (uint32_t)epoch, (uint32_t)in_epoch));
    return place;
}

/* ---------------------------------------------------------------- filling */

struct augment_warp sampler_warp(const struct sampler *sampler, const struct sampler_place *place,
                                 struct sampler_scratch *scratch) {
    const struct dataset_frame *frame = &sampler->data->frames[place->frame];
    const struct augment_window window = {place->y,       place->x,      sampler->out_h,
                                          sampler->out_w, frame->height, frame->width};
    return augment_warp_make(&sampler->augment, &place->draw, &window, scratch->elastic);
}

void sampler_grey_range(const struct sampler *sampler, size_t frame, float *low_out,
                        float *high_out) {
    *low_out = (0 - sampler->input_offset) * sampler->input_scale;
    *high_out = (1 - sampler->input_offset) * sampler->input_scale;
    if (sampler->normalise == PLAN_NORMALISE_STANDARD) {
        *low_out = sampler->frames[frame].low;
        *high_out = sampler->frames[frame].high;
    }
}

static void fill_row(const struct sampler *sampler, const struct augment_warp *warp,
                     const struct resample_plane *plane, const struct sampler_frame *facts,
                     struct sampler_scratch *scratch, float *out) {
    const int n = sampler->in_w;
    if (warp->exact) {
        resample_nearest(plane->width, plane->height, scratch->y, scratch->x, n, scratch->pixels,
                         scratch->inside);
        for (int j = 0; j < n; j++)
            out[j] = plane->pixels[scratch->pixels[j]];
    } else if (sampler->augment.cubic) {
        resample_cubic(plane, scratch->y, scratch->x, n, facts->low, facts->high, out);
    } else {
        resample_linear(plane, scratch->y, scratch->x, n, facts->low, facts->high, out);
    }
}

static void fill_image(const struct sampler *sampler, const struct sampler_place *place,
                       const struct augment_warp *warp, struct sampler_scratch *scratch,
                       float *image) {
    const struct dataset_frame *frame = &sampler->data->frames[place->frame];
    const size_t frame_pixels = (size_t)frame->height * (size_t)frame->width;
    const size_t tile_pixels = (size_t)sampler->in_h * (size_t)sampler->in_w;
    for (int i = 0; i < sampler->in_h; i++) {
        augment_warp_row(warp, i - sampler->margin_top, -sampler->margin_left, sampler->in_w,
                         scratch->y, scratch->x);
        for (int c = 0; c < sampler->data->channels; c++) {
            const struct resample_plane plane = {frame->image + (size_t)c * frame_pixels,
                                                 frame->width, frame->height};
            fill_row(sampler, warp, &plane, &sampler->frames[place->frame], scratch,
                     image + (size_t)c * tile_pixels + (size_t)i * (size_t)sampler->in_w);
        }
    }
    float low, high;
    sampler_grey_range(sampler, place->frame, &low, &high);
    augment_grey(&place->draw, low, high, image, tile_pixels * (size_t)sampler->data->channels);
}

/* Classes of the output window and around it, with lines between objects. What lies outside the
   frame is shown, but is no object: lines are cut between those of the frame only. */
static void cut_objects(const struct sampler *sampler, const struct dataset_frame *frame,
                        const struct augment_warp *warp, struct sampler_scratch *scratch) {
    const int width = sampler->out_w + 2, height = sampler->out_h + 1;
    uint32_t *ids = scratch->ids;
    uint8_t *classes = scratch->classes;
    for (int i = 0; i < height; i++) {
        augment_warp_row(warp, i - 1, -1, width, scratch->y, scratch->x);
        resample_nearest(frame->width, frame->height, scratch->y, scratch->x, width,
                         scratch->pixels, scratch->inside);
        for (int j = 0; j < width; j++) {
            const uint32_t pixel = scratch->pixels[j], id = frame->instances[pixel];
            *ids++ = scratch->inside[j] ? id : 0;
            *classes++ = id > 0 ? sampler->class_of_id[id] : frame->classes[pixel];
        }
    }
    instances_separate(scratch->ids, scratch->classes, width, height, sampler->data->background);
}

static void fill_truth(const struct sampler *sampler, const struct dataset_frame *frame,
                       const struct augment_warp *warp, struct sampler_scratch *scratch,
                       uint32_t *labels, float *weights) {
    const struct resample_plane border = {frame->border, frame->width, frame->height};
    const uint8_t background = sampler->data->background;
    const int n = sampler->out_w;
    /* Pixels that are only put elsewhere keep their lines. */
    const bool cuts = !warp->exact && frame->instances != NULL && sampler->class_of_id != NULL;
    if (cuts)
        cut_objects(sampler, frame, warp, scratch);
    for (int i = 0; i < sampler->out_h; i++, labels += n, weights += n) {
        const uint8_t *cut = cuts ? scratch->classes + (size_t)(i + 1) * (size_t)(n + 2) + 1 : NULL;
        augment_warp_row(warp, i, 0, n, scratch->y, scratch->x);
        resample_nearest(frame->width, frame->height, scratch->y, scratch->x, n, scratch->pixels,
                         scratch->inside);
        if (frame->border != NULL)
            resample_linear(&border, scratch->y, scratch->x, n, 0, INFINITY, scratch->border);
        for (int j = 0; j < n; j++) {
            const uint32_t pixel = scratch->pixels[j];
            const uint8_t class_ = cut != NULL ? cut[j] : frame->classes[pixel];
            float weight = sampler->data->class_weights[class_];
            if (frame->border != NULL && class_ == background)
                weight += scratch->border[j];
            labels[j] = class_;
            weights[j] = scratch->inside[j] && frame->weights[pixel] != 0 ? weight : 0;
        }
    }
}

void sampler_fill(const struct sampler *sampler, const struct sampler_place *place,
                  struct sampler_scratch *scratch, float *image, uint32_t *labels, float *weights) {
    const struct augment_warp warp = sampler_warp(sampler, place, scratch);
    fill_image(sampler, place, &warp, scratch, image);
    fill_truth(sampler, &sampler->data->frames[place->frame], &warp, scratch, labels, weights);
}
