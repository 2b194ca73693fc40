/*
 * pool.c: threads that share the units of one phase after another.
 *
 * A thread takes a unit by subtracting one from `state`, which holds the number of the phase and
 * how many of its units are left; so it never gets a unit of one phase for one of another. Whoever
 * completes the last unit of a phase opens the next. Threads do not wait for one another, only for
 * units that are being computed: a thread that the system took the core from, or that is still
 * waking up, holds up nobody.
 */
#include "runtime/cpu/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

#include "common/base.h"

/* Looks at the state before a thread goes to sleep; each takes 10 to 50 ns. */
#define SPINS 1500

/* Low half of the state: NONE_LEFT plus the units left. Each thread that finds none subtracts one
   more, once in a phase. */
#define NONE_LEFT 0x80000000u

struct cpu_pool {
    uint32_t n_threads, n_started; /* the caller's included */
    int spins;
    pthread_t *threads;
    pthread_mutex_t mutex; /* of `opened` only */
    pthread_cond_t opened;
    struct cpu_pool_work work; /* may be read by who holds a unit */
    uint32_t phase;            /* the one that is open */
    /* on lines of the cache of their own */
    _Alignas(64) _Atomic uint64_t state; /* phases so far << 32 | NONE_LEFT + units left */
    _Alignas(64) atomic_uint completed;  /* units of the phase */
    _Alignas(64) atomic_uint sleepers;
    atomic_bool closing;
};

struct worker {
    struct cpu_pool *pool;
    uint32_t thread;
};

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns the thread's floating-point state, for restore_numbers. */
static unsigned flush_small_numbers(void) {
#if defined(__SSE2__)
    const unsigned kept = _mm_getcsr();
    _mm_setcsr(kept | 0x8040u); /* results and operands */
    return kept;
#else
    return 0;
#endif
}

static void restore_numbers(unsigned kept) {
#if defined(__SSE2__)
    _mm_setcsr(kept);
#else
    (void)kept;
#endif
}

/* ---- states ---- */

static uint32_t phase_count(uint64_t state) {
    return (uint32_t)(state >> 32);
}

/* Publishes everything written so far, and a phase with this many units: none when there is
   nothing to do. Sleepers are woken for what they can help with, and for the end. */
static void open_phase(struct cpu_pool *pool, uint32_t units) {
    const uint32_t count = phase_count(atomic_load_explicit(&pool->state, memory_order_relaxed));
    const uint64_t state = (uint64_t)(uint32_t)(count + 1) << 32 | (NONE_LEFT + units);
    atomic_store_explicit(&pool->completed, 0, memory_order_relaxed);
    atomic_store(&pool->state, state);
    if (units == 1 || atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->mutex); /* they sleep, or have not looked yet */
    pthread_mutex_unlock(&pool->mutex);
    pthread_cond_broadcast(&pool->opened);
}

/* Waits until another phase than this is open. */
static void wait_phase(struct cpu_pool *pool, uint32_t count) {
    for (int i = 0; i < pool->spins; i++) {
        if (phase_count(atomic_load_explicit(&pool->state, memory_order_acquire)) != count)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (phase_count(atomic_load(&pool->state)) == count)
        pthread_cond_wait(&pool->opened, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

/* ---- work ---- */

static void complete_phase(struct cpu_pool *pool) {
    const struct cpu_pool_work *work = &pool->work;
    if (work->finished != NULL)
        work->finished(work->context, pool->phase);
    pool->phase++;
    open_phase(pool, pool->phase < work->n_phases ? work->units[pool->phase] : 0);
}

static void run_unit(struct cpu_pool *pool, uint32_t thread, uint32_t left) {
    const struct cpu_pool_work *work = &pool->work;
    const uint32_t units = work->units[pool->phase];
    work->run(work->context, thread, pool->phase, units - left);
    if (atomic_fetch_add_explicit(&pool->completed, 1, memory_order_acq_rel) + 1 == units)
        complete_phase(pool);
}

/* Takes a unit, computes it and returns true; or false, with the phase of which none was left. */
static bool try_unit(struct cpu_pool *pool, uint32_t thread, uint32_t *count_out) {
    const uint64_t state = atomic_fetch_sub_explicit(&pool->state, 1, memory_order_acq_rel);
    const uint32_t low = (uint32_t)state;
    *count_out = phase_count(state);
    if (low <= NONE_LEFT)
        return false;
    run_unit(pool, thread, low - NONE_LEFT);
    return true;
}

static void *work_until_closed(void *data) {
    const struct worker worker = *(struct worker *)data;
    uint32_t count;
    free(data);
    flush_small_numbers();
    for (;;) {
        if (try_unit(worker.pool, worker.thread, &count))
            continue;
        if (atomic_load(&worker.pool->closing))
            return NULL;
        wait_phase(worker.pool, count);
    }
}

void cpu_pool_run(struct cpu_pool *pool, const struct cpu_pool_work *work) {
    if (work->n_phases == 0)
        return;
    const unsigned kept = flush_small_numbers();
    /* nobody holds a unit */
    const uint32_t before = phase_count(atomic_load(&pool->state));
    pool->work = *work;
    pool->phase = 0;
    open_phase(pool, work->units[0]);
    for (uint32_t count; phase_count(atomic_load(&pool->state)) - before <= work->n_phases;) {
        if (!try_unit(pool, 0, &count) && count - before <= work->n_phases)
            wait_phase(pool, count);
    }
    restore_numbers(kept);
}

uint32_t cpu_pool_threads(const struct cpu_pool *pool) {
    return pool->n_threads;
}

/* ---- opening and closing ---- */

static bool start_worker(struct cpu_pool *pool, uint32_t thread, struct err *err) {
    struct worker *worker = malloc(sizeof(*worker));
    if (worker == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for %u threads", pool->n_threads);
    *worker = (struct worker){.pool = pool, .thread = thread};
    const int code = pthread_create(&pool->threads[thread], NULL, work_until_closed, worker);
    if (code == 0)
        return true;
    free(worker);
    err_set(err, ERR_DEVICE, "thread %u of %u: %s", thread + 1, pool->n_threads, strerror(code));
    return err_hint(err, "ask for fewer threads: --threads N, or UNET_THREADS in the environment");
}

/* Signals are for the caller's threads: the workers block them all. */
static bool start_workers(struct cpu_pool *pool, struct err *err) {
    sigset_t all, old;
    bool good = true;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (pool->n_started = 1; good && pool->n_started < pool->n_threads;) {
        good = start_worker(pool, pool->n_started, err);
        pool->n_started += good ? 1 : 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return good;
}

bool cpu_pool_open(uint32_t n_threads, struct cpu_pool **out, struct err *err) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    void *memory = NULL;
    *out = NULL;
    if (posix_memalign(&memory, _Alignof(struct cpu_pool), sizeof(struct cpu_pool)) != 0)
        return err_set(err, ERR_DEVICE, "out of memory for threads");
    struct cpu_pool *pool = memory;
    memset(pool, 0, sizeof(*pool));
    pool->n_threads = n_threads;
    /* a thread that waits busily would take the place of one that works */
    pool->spins = cores >= (long)n_threads ? SPINS : 0;
    atomic_init(&pool->state, NONE_LEFT);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->opened, NULL);
    pool->threads = calloc(n_threads, sizeof(*pool->threads));
    const bool good = pool->threads != NULL
                          ? start_workers(pool, err)
                          : err_set(err, ERR_DEVICE, "out of memory for %u threads", n_threads);
    if (good)
        *out = pool;
    else
        cpu_pool_close(pool);
    return good;
}

void cpu_pool_close(struct cpu_pool *pool) {
    if (pool == NULL)
        return;
    atomic_store(&pool->closing, true);
    open_phase(pool, 0);
    for (uint32_t i = 1; i < pool->n_started; i++)
        pthread_join(pool->threads[i], NULL);
    free(pool->threads);
    pthread_cond_destroy(&pool->opened);
    pthread_mutex_destroy(&pool->mutex);
    free(pool);
}
