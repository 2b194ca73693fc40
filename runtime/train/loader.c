/*
 * loader.c: see loader.h. Two batches take turns: one is in use, the other is being filled.
 */
#include "runtime/train/loader.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOTS 2

struct loader {
    struct sampler sampler;
    struct loader_batch slots[SLOTS];
    uint32_t end_step;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    /* Guarded by mutex. Steps below made are filled, steps below released may be overwritten. */
    uint32_t made, released;
    bool closing;
    uint32_t next; /* of the user: the step handed out next */
};

static void fill_batch(const struct sampler *sampler, uint32_t step, struct loader_batch *batch) {
    const size_t image_floats =
        (size_t)sampler->data->channels * (size_t)sampler->in_h * (size_t)sampler->in_w;
    const size_t out_pixels = (size_t)sampler->out_h * (size_t)sampler->out_w;
    for (uint32_t i = 0; i < sampler->batch; i++) {
        const struct sampler_place place = sampler_choose(sampler, step, i);
        sampler_fill(sampler, &place, batch->image + i * image_floats,
                     batch->labels + i * out_pixels, batch->weights + i * out_pixels);
    }
}

/* Waits for room; false when there is nothing more to do. */
static bool wait_for_room(struct loader *loader, uint32_t *step_out) {
    pthread_mutex_lock(&loader->mutex);
    while (!loader->closing && loader->made < loader->end_step &&
           loader->made >= loader->released + SLOTS)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    const bool more = !loader->closing && loader->made < loader->end_step;
    *step_out = loader->made;
    pthread_mutex_unlock(&loader->mutex);
    return more;
}

static void *run_loader(void *data) {
    struct loader *loader = data;
    uint32_t step;
    while (wait_for_room(loader, &step)) {
        fill_batch(&loader->sampler, step, &loader->slots[step % SLOTS]);
        pthread_mutex_lock(&loader->mutex);
        loader->made = step + 1;
        pthread_cond_signal(&loader->changed);
        pthread_mutex_unlock(&loader->mutex);
    }
    return NULL;
}

static bool allocate_slots(struct loader *loader) {
    const struct sampler *sampler = &loader->sampler;
    const size_t image_floats = (size_t)sampler->batch * (size_t)sampler->data->channels *
                                (size_t)sampler->in_h * (size_t)sampler->in_w;
    const size_t out_pixels =
        (size_t)sampler->batch * (size_t)sampler->out_h * (size_t)sampler->out_w;
    bool good = true;
    for (int i = 0; i < SLOTS; i++) {
        struct loader_batch *batch = &loader->slots[i];
        batch->image = malloc(image_floats * sizeof(float));
        batch->labels = malloc(out_pixels * sizeof(uint32_t));
        batch->weights = malloc(out_pixels * sizeof(float));
        good = good && batch->image != NULL && batch->labels != NULL && batch->weights != NULL;
    }
    return good;
}

bool loader_open(const struct sampler *sampler, uint32_t first_step, uint32_t end_step,
                 struct loader **out, struct err *err) {
    *out = NULL;
    struct loader *loader = calloc(1, sizeof(*loader));
    if (loader == NULL)
        return err_set(err, ERR_INPUT, "no memory for training samples");
    loader->sampler = *sampler;
    loader->end_step = end_step;
    loader->made = loader->released = loader->next = first_step;
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->changed, NULL);
    bool good = allocate_slots(loader);
    if (!good)
        err_set(err, ERR_INPUT, "no memory for training samples of %dx%d", sampler->in_w,
                sampler->in_h);
    else if (pthread_create(&loader->thread, NULL, run_loader, loader) != 0)
        good = err_set(err, ERR_IO, "cannot start the thread that prepares samples");
    else
        loader->started = true;
    if (good)
        *out = loader;
    else
        loader_close(loader);
    return good;
}

const struct loader_batch *loader_next(struct loader *loader) {
    pthread_mutex_lock(&loader->mutex);
    loader->released = loader->next; /* the batch handed out before this one */
    pthread_cond_signal(&loader->changed);
    while (loader->made <= loader->next)
        pthread_cond_wait(&loader->changed, &loader->mutex);
    pthread_mutex_unlock(&loader->mutex);
    return &loader->slots[loader->next++ % SLOTS];
}

void loader_close(struct loader *loader) {
    if (loader == NULL)
        return;
    if (loader->started) {
        pthread_mutex_lock(&loader->mutex);
        loader->closing = true;
        pthread_cond_signal(&loader->changed);
        pthread_mutex_unlock(&loader->mutex);
        pthread_join(loader->thread, NULL);
    }
    for (int i = 0; i < SLOTS; i++) {
        free(loader->slots[i].image);
        free(loader->slots[i].labels);
        free(loader->slots[i].weights);
    }
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->mutex);
    free(loader);
}
