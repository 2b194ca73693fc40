/*
 * sampler.c: see sampler.h.
 */
#include "runtime/data/sampler.h"

#include "common/rng.h"
#include "runtime/data/mirror.h"

/* Keeps the draws for the order of an epoch apart from those for a sample. */
#define ORDER_KEY UINT64_C(0x6f726465725f6f66)

struct sampler sampler_of_model(const struct plan_model *model, const struct dataset *data,
                                uint64_t seed) {
    return (struct sampler){
        .data = data,
        .seed = seed,
        .batch = model->batch,
        .in_h = (int)model->in_h,
        .in_w = (int)model->in_w,
        .out_h = (int)model->out_h,
        .out_w = (int)model->out_w,
        .margin_top = ((int)model->in_h - (int)model->out_h) / 2,
        .margin_left = ((int)model->in_w - (int)model->out_w) / 2,
        .flips = model->augment_flips,
        .grey = model->augment_grey,
        .input_offset = model->input_offset,
        .input_scale = model->input_scale,
    };
}

/*
 * The Fisher-Yates shuffle swaps item i with item j(i) <= i for i = n - 1 down to 1. Following one
 * place back through the swaps, from the last to the first, gives what ends up there without
 * storing the permutation.
 */
size_t sampler_frame(uint64_t seed, uint64_t epoch, size_t place, size_t n_frames) {
    uint64_t key = seed ^ ORDER_KEY ^ (epoch >> 32) * UINT64_C(0x9e3779b97f4a7c15);
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

/* A corner such that the window lies in the frame, or the frame in the window. */
static int choose_corner(struct rng *rng, int frame, int window) {
    int room = frame - window;
    uint32_t draw = rng_below(rng, (uint32_t)(room < 0 ? -room : room) + 1);
    return room < 0 ? -(int)draw : (int)draw;
}

struct sampler_place sampler_choose(const struct sampler *sampler, uint32_t step, uint32_t index) {
    size_t n_frames = sampler->data->n_frames;
    uint64_t number = (uint64_t)step * sampler->batch + index;
    struct sampler_place place = {
        .frame =
            sampler_frame(sampler->seed, number / n_frames, (size_t)(number % n_frames), n_frames),
        .gain = 1,
    };
    const struct dataset_frame *frame = &sampler->data->frames[place.frame];
    struct rng rng = rng_stream(sampler->seed, step, index);
    place.y = choose_corner(&rng, frame->height, sampler->out_h);
    place.x = choose_corner(&rng, frame->width, sampler->out_w);
    if (sampler->flips) {
        place.symmetry = rng_below(&rng, 8);
        if (sampler->out_h != sampler->out_w)
            place.symmetry &= ~(unsigned)SAMPLER_TRANSPOSE;
    }
    if (sampler->grey > 0) {
        place.gain = (float)rng_range(&rng, 1.0 - sampler->grey, 1.0 + sampler->grey);
        place.offset = (float)rng_range(&rng, -sampler->grey, sampler->grey);
    }
    return place;
}

/* The frame's coordinates of output coordinates (y, x), which may lie outside the window. */
static void locate(const struct sampler *sampler, const struct sampler_place *place, int y, int x,
                   int *frame_y, int *frame_x) {
    if (place->symmetry & SAMPLER_TRANSPOSE) {
        int swapped = y;
        y = x;
        x = swapped;
    }
    if (place->symmetry & SAMPLER_FLIP_Y)
        y = sampler->out_h - 1 - y;
    if (place->symmetry & SAMPLER_FLIP_X)
        x = sampler->out_w - 1 - x;
    *frame_y = place->y + y;
    *frame_x = place->x + x;
}

/* A row of the output, walked through the frame: from (y, x) in steps of (dy, dx), one of which is
 * zero. */
struct walk {
    int y, x, dy, dx;
};

static struct walk walk_row(const struct sampler *sampler, const struct sampler_place *place,
                            int row, int first_column) {
    struct walk walk;
    int next_y, next_x;
    locate(sampler, place, row, first_column, &walk.y, &walk.x);
    locate(sampler, place, row, first_column + 1, &next_y, &next_x);
    walk.dy = next_y - walk.y;
    walk.dx = next_x - walk.x;
    return walk;
}

/* Walks on and returns the pixel left, mirrored into the frame. */
static inline size_t walk_on(struct walk *walk, const struct dataset_frame *frame) {
    size_t pixel = (size_t)mirror_index(walk->y, frame->height) * (size_t)frame->width +
                   (size_t)mirror_index(walk->x, frame->width);
    walk->y += walk->dy;
    walk->x += walk->dx;
    return pixel;
}

static void fill_image(const struct sampler *sampler, const struct sampler_place *place,
                       const struct dataset_frame *frame, float *image) {
    size_t plane = (size_t)frame->height * (size_t)frame->width;
    /* v = x / scale + offset; x' = (gain * v + jitter - offset) * scale = gain * x + shift */
    float shift =
        (sampler->input_offset * (place->gain - 1.0f) + place->offset) * sampler->input_scale;
    for (int c = 0; c < sampler->data->channels; c++) {
        const float *from = frame->image + (size_t)c * plane;
        for (int i = 0; i < sampler->in_h; i++) {
            struct walk walk =
                walk_row(sampler, place, i - sampler->margin_top, -sampler->margin_left);
            for (int j = 0; j < sampler->in_w; j++)
                *image++ = place->gain * from[walk_on(&walk, frame)] + shift;
        }
    }
}

void sampler_fill(const struct sampler *sampler, const struct sampler_place *place, float *image,
                  uint32_t *labels, float *weights) {
    const struct dataset_frame *frame = &sampler->data->frames[place->frame];
    fill_image(sampler, place, frame, image);
    for (int i = 0; i < sampler->out_h; i++) {
        struct walk walk = walk_row(sampler, place, i, 0);
        for (int j = 0; j < sampler->out_w; j++) {
            bool inside =
                walk.y >= 0 && walk.y < frame->height && walk.x >= 0 && walk.x < frame->width;
            size_t pixel = walk_on(&walk, frame);
            *labels++ = frame->classes[pixel];
            *weights++ = inside ? frame->weights[pixel] : 0.0f;
        }
    }
}
