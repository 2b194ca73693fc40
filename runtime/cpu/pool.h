/*
 * pool.h: the threads of the native CPU device. The caller of cpu_pool_run is thread 0. The others
 * wait, at first busily for some ten microseconds, then asleep. Nothing is allocated after opening.
 *
 * On every thread of a pool, numbers below 1e-38 count as zero while it works (where the machine
 * can): computing with them takes a hundred times as long, and they mean nothing here.
 */
#ifndef UNET_CPU_POOL_H
#define UNET_CPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define CPU_POOL_MAX_THREADS 256u

struct cpu_pool;

bool cpu_pool_open(uint32_t n_threads, struct cpu_pool **out, struct err *err);
void cpu_pool_close(struct cpu_pool *pool); /* NULL-safe */
uint32_t cpu_pool_threads(const struct cpu_pool *pool);

/* Phases one after another; the units of a phase on any thread in any order. */
struct cpu_pool_work {
    const uint32_t *units; /* of each phase: 1 to 2^31 - 1 */
    uint32_t n_phases;
    void (*run)(void *context, uint32_t thread, uint32_t phase, uint32_t unit);
    void (*finished)(void *context,
                     uint32_t phase); /* after its last unit, on any thread; or NULL */
    void *context;
};

/* Returns when all is done. What one phase wrote is visible to the next, and to the caller. */
void cpu_pool_run(struct cpu_pool *pool, const struct cpu_pool_work *work);

#endif
