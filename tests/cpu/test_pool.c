/*
 * test_pool.c: the threads of the native CPU device: every unit of every phase is run once, phases
 * follow one another and see what was written before, whatever the number of threads, and however
 * long they slept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "common/base.h"
#include "runtime/cpu/pool.h"

#define MAX_UNITS 300u

/* Element u of row i + 1 is computed from all of row i: from plain memory, so that a phase that
   begins early, or sees old values, gives a wrong sum. */
struct relay {
    const uint32_t *units;
    uint32_t n_phases, n_threads;
    uint64_t (*rows)[MAX_UNITS]; /* n_phases + 1 */
    uint32_t (*times)[MAX_UNITS];
    uint32_t n_finished;
};

static uint64_t value_of(const struct relay *relay, uint32_t phase, uint32_t unit) {
    const uint32_t before = phase > 0 ? relay->units[phase - 1] : 1;
    uint64_t sum = unit + 1;
    for (uint32_t i = 0; i < before; i++)
        sum = sum * 31 + relay->rows[phase][i];
    return sum;
}

static void run_unit(void *context, uint32_t thread, uint32_t phase, uint32_t unit) {
    struct relay *relay = context;
    if (thread >= relay->n_threads || unit >= relay->units[phase])
        abort(); /* cmocka's assertions are for one thread */
    relay->rows[phase + 1][unit] = value_of(relay, phase, unit);
    relay->times[phase][unit]++;
}

static void count_finished(void *context, uint32_t phase) {
    struct relay *relay = context;
    if (phase != relay->n_finished++)
        abort();
}

static void run_relay(struct cpu_pool *pool, struct relay *relay, uint64_t seed) {
    const struct cpu_pool_work work = {.units = relay->units,
                                       .n_phases = relay->n_phases,
                                       .run = run_unit,
                                       .finished = seed % 2 == 0 ? count_finished : NULL,
                                       .context = relay};
    memset(relay->rows, 0xff, (relay->n_phases + 1) * sizeof(relay->rows[0]));
    memset(relay->times, 0, relay->n_phases * sizeof(relay->times[0]));
    relay->rows[0][0] = seed;
    relay->n_finished = 0;
    cpu_pool_run(pool, &work);
    assert_int_equal(relay->n_finished, seed % 2 == 0 ? relay->n_phases : 0);
    for (uint32_t phase = 0; phase < relay->n_phases; phase++) {
        for (uint32_t unit = 0; unit < relay->units[phase]; unit++) {
            assert_int_equal(relay->times[phase][unit], 1);
            assert_true(relay->rows[phase + 1][unit] == value_of(relay, phase, unit));
        }
    }
}

static void every_unit_once(void **state) {
    (void)state;
    static const uint32_t units[] = {1, 3, 1, 1, 300, 2, 17, 1, 64, 5, 1};
    static const uint32_t threads[] = {1, 2, 3, 5, 16};
    const struct timespec nap = {.tv_nsec = 2000000};
    struct relay relay = {.units = units, .n_phases = ARRAY_LEN(units)};
    relay.rows = calloc(relay.n_phases + 1, sizeof(relay.rows[0]));
    relay.times = calloc(relay.n_phases, sizeof(relay.times[0]));
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        struct cpu_pool *pool;
        struct err err = {0};
        relay.n_threads = threads[i];
        assert_true(cpu_pool_open(threads[i], &pool, &err));
        assert_int_equal(cpu_pool_threads(pool), threads[i]);
        for (uint64_t seed = 0; seed < 200; seed++) {
            run_relay(pool, &relay, seed);
            if (seed % 50 == 0)
                nanosleep(&nap, NULL); /* all fall asleep */
        }
        cpu_pool_close(pool);
    }
    free(relay.rows);
    free(relay.times);
}

static void opened_and_closed(void **state) {
    (void)state;
    struct err err = {0};
    for (uint32_t i = 0; i < 100; i++) {
        struct cpu_pool *pool;
        const struct cpu_pool_work nothing = {.n_phases = 0};
        assert_true(cpu_pool_open(1 + i % 7, &pool, &err));
        if (i % 2 == 0)
            cpu_pool_run(pool, &nothing);
        cpu_pool_close(pool);
    }
    cpu_pool_close(NULL);
}

/* Products of small numbers are zero on every thread, and the caller's arithmetic is as before. */
static void multiply_small(void *context, uint32_t thread, uint32_t phase, uint32_t unit) {
    (void)thread, (void)phase;
    volatile float small = 1e-30f;
    ((float *)context)[unit] = small * 1e-10f;
}

static void small_numbers(void **state) {
    (void)state;
    static const uint32_t units[] = {MAX_UNITS};
    float products[MAX_UNITS];
    const struct cpu_pool_work work = {
        .units = units, .n_phases = 1, .run = multiply_small, .context = products};
    struct cpu_pool *pool;
    struct err err = {0};
    volatile float small = 1e-30f;
    assert_true(cpu_pool_open(3, &pool, &err));
    cpu_pool_run(pool, &work);
    cpu_pool_close(pool);
    for (uint32_t i = 1; i < MAX_UNITS; i++)
        assert_true(products[i] == products[0]);
#if defined(__SSE2__)
    assert_true(products[0] == 0.0f);
#endif
    assert_true(small * 1e-10f > 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_unit_once),
        cmocka_unit_test(opened_and_closed),
        cmocka_unit_test(small_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
