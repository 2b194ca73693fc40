/*
 * loader.c: see loader.h. The batches in memory take turns: batch b lies in slot b % SLOTS. Threads
 * claim samples in order; a batch is ready when all of its samples are done.
 */
#include "runtime/train/loader.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/base.h"
#include "common/clock.h"

#define SLOTS (LOADER_AHEAD + 1)

struct slot {
    struct loader_batch batch;
    uint32_t n_done; /* samples; guarded by the loader's mutex, as batch.prepare_seconds */
};

struct worker {
    struct loader *loader;
    struct sampler_scratch *scratch;
    pthread_t thread;
};

struct loader {
    const struct sampler *sampler;
    uint32_t end;
    struct slot slots[SLOTS];
    struct worker workers[LOADER_MAX_THREADS];
    uint32_t n_workers; /* started */
    pthread_mutex_t mutex;
    pthread_cond_t room, ready; /* for threads, for the user */
    /* Guarded by mutex. */
    uint32_t claimed_batch, claimed_index; /* the sample that is claimed next */
    uint32_t released;                     /* batches below it may be overwritten */
    uint32_t n_waits;
    bool closing;
    uint32_t next; /* of the user: the batch handed out next */
};

/* ---------------------------------------------------------------- threads */

/* Waits for room; false when there is nothing more to do. */
static bool claim_sample(struct loader *loader, uint32_t *batch_out, uint32_t *index_out) {
    while (!loader->closing && loader->claimed_batch < loader->end &&
           loader->claimed_batch >= (uint64_t)loader->released + SLOTS)
        pthread_cond_wait(&loader->room, &loader->mutex);
    if (loader->closing || loader->claimed_batch >= loader->end)
        return false;
    *batch_out = loader->claimed_batch;
    *index_out = loader->claimed_index;
    if (++loader->claimed_index == loader->sampler->batch) {
        loader->claimed_batch++;
        loader->claimed_index = 0;
    }
    return true;
}

static void make_sample(const struct sampler *sampler, struct sampler_scratch *scratch,
                        uint32_t number, uint32_t index, const struct loader_batch *batch) {
    const size_t image_floats =
        (size_t)sampler->data->channels * (size_t)sampler->in_h * (size_t)sampler->in_w;
    const size_t out_pixels = (size_t)sampler->out_h * (size_t)sampler->out_w;
    const struct sampler_place place =
        sampler_choose(sampler, (uint64_t)number * sampler->batch + index);
    sampler_fill(sampler, &place, scratch, batch->image + index * image_floats,
                 batch->labels + index * out_pixels, batch->weights + index * out_pixels);
}

static void *run_worker(void *data) {
    const struct worker *worker = data;
    struct loader *loader = worker->loader;
    uint32_t number, index;
    pthread_mutex_lock(&loader->mutex);
    while (claim_sample(loader, &number, &index)) {
        struct slot *slot = &loader->slots[number % SLOTS];
        pthread_mutex_unlock(&loader->mutex);
        const double start = clock_now_seconds();
        make_sample(loader->sampler, worker->scratch, number, index, &slot->batch);
        const double seconds = clock_now_seconds() - start;
        pthread_mutex_lock(&loader->mutex);
        slot->batch.prepare_seconds += seconds;
        if (++slot->n_done == loader->sampler->batch)
            pthread_cond_signal(&loader->ready);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

static bool start_worker(struct loader *loader, struct err *err) {
    struct worker *worker = &loader->workers[loader->n_workers];
    worker->loader = loader;
    worker->scratch = sampler_scratch_new(loader->sampler);
    if (pthread_create(&worker->thread, NULL, run_worker, worker) == 0) {
        loader->n_workers++;
        return true;
    }
    sampler_scratch_free(worker->scratch);
    return err_set(err, ERR_IO, "cannot start a thread that prepares samples");
}

/* ---------------------------------------------------------------- the user's side */

uint32_t loader_usual_threads(void) {
    const long n_processors = sysconf(_SC_NPROCESSORS_ONLN);
    return (uint32_t)MAX(1, MIN(4, (n_processors + 1) / 2));
}

static bool allocate_slots(struct loader *loader, struct err *err) {
    const struct sampler *sampler = loader->sampler;
    const size_t image_floats = (size_t)sampler->batch * (size_t)sampler->data->channels *
                                (size_t)sampler->in_h * (size_t)sampler->in_w;
    const size_t out_pixels =
        (size_t)sampler->batch * (size_t)sampler->out_h * (size_t)sampler->out_w;
    for (int i = 0; i < SLOTS; i++) {
        struct loader_batch *batch = &loader->slots[i].batch;
        batch->image = malloc(image_floats * sizeof(float));
        batch->labels = malloc(out_pixels * sizeof(uint32_t));
        batch->weights = malloc(out_pixels * sizeof(float));
        if (batch->image == NULL || batch->labels == NULL || batch->weights == NULL)
            return err_set(err, ERR_INPUT, "no memory for training samples of %dx%d", sampler->in_w,
                           sampler->in_h);
    }
    return true;
}

bool loader_open(const struct sampler *sampler, uint32_t first, uint32_t end, uint32_t n_threads,
                 struct loader **out, struct err *err) {
    *out = NULL;
    struct loader *loader = calloc(1, sizeof(*loader));
    if (loader == NULL)
        return err_set(err, ERR_INPUT, "no memory for training samples");
    loader->sampler = sampler;
    loader->end = end;
    loader->claimed_batch = loader->released = loader->next = first;
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->room, NULL);
    pthread_cond_init(&loader->ready, NULL);
    n_threads = n_threads == 0 ? loader_usual_threads() : MIN(n_threads, LOADER_MAX_THREADS);
    bool good = allocate_slots(loader, err);
    for (uint32_t i = 0; good && i < n_threads; i++)
        good = start_worker(loader, err);
    if (good)
        *out = loader;
    else
        loader_close(loader);
    return good;
}

/* The slot of the batch in use becomes free. */
static void release_last(struct loader *loader) {
    if (loader->next == loader->released)
        return;
    struct slot *slot = &loader->slots[loader->released++ % SLOTS];
    slot->n_done = 0;
    slot->batch.prepare_seconds = 0;
    pthread_cond_broadcast(&loader->room);
}

const struct loader_batch *loader_next(struct loader *loader) {
    struct slot *slot = &loader->slots[loader->next % SLOTS];
    pthread_mutex_lock(&loader->mutex);
    release_last(loader);
    loader->next++;
    loader->n_waits += slot->n_done < loader->sampler->batch;
    while (slot->n_done < loader->sampler->batch)
        pthread_cond_wait(&loader->ready, &loader->mutex);
    pthread_mutex_unlock(&loader->mutex);
    return &slot->batch;
}

uint32_t loader_ready(struct loader *loader) {
    uint32_t n_ready = 0;
    pthread_mutex_lock(&loader->mutex);
    while (n_ready < SLOTS && loader->next + n_ready < loader->end &&
           loader->next + n_ready < loader->released + SLOTS &&
           loader->slots[(loader->next + n_ready) % SLOTS].n_done == loader->sampler->batch)
        n_ready++;
    pthread_mutex_unlock(&loader->mutex);
    return n_ready;
}

uint32_t loader_waits(struct loader *loader) {
    pthread_mutex_lock(&loader->mutex);
    const uint32_t n_waits = loader->n_waits;
    pthread_mutex_unlock(&loader->mutex);
    return n_waits;
}

static void free_slots(struct loader *loader) {
    for (int i = 0; i < SLOTS; i++) {
        free(loader->slots[i].batch.image);
        free(loader->slots[i].batch.labels);
        free(loader->slots[i].batch.weights);
    }
}

void loader_close(struct loader *loader) {
    if (loader == NULL)
        return;
    pthread_mutex_lock(&loader->mutex);
    loader->closing = true;
    pthread_cond_broadcast(&loader->room);
    pthread_mutex_unlock(&loader->mutex);
    for (uint32_t i = 0; i < loader->n_workers; i++) {
        pthread_join(loader->workers[i].thread, NULL);
        sampler_scratch_free(loader->workers[i].scratch);
    }
    free_slots(loader);
    pthread_cond_destroy(&loader->room);
    pthread_cond_destroy(&loader->ready);
    pthread_mutex_destroy(&loader->mutex);
    free(loader);
}
