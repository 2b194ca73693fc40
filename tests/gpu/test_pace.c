/*
 * test_pace.c: how batches are put together to submissions (runtime/gpu/pace.h), on made-up devices
 * whose kernels differ in speed, that start slowly, or become slow: no submission of several
 * batches may take longer than wanted, wherever the device behaves as it did before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/rng.h"
#include "runtime/gpu/pace.h"

#define BATCHES 400u
#define TARGET 0.2

/* Seconds of batches on a device, and what it does to all of them in a run. */
struct machine {
    double seconds[BATCHES];
    double factor;   /* of this run */
    double overhead; /* of a submission */
};

struct totals {
    uint32_t submissions, longest_count;
    double longest, seconds;
};

/* Batches of about equal cost, on kernels that are up to `spread` times slower than the fastest. */
static void make(struct gpu_batch *batches, struct machine *machine, double fastest, double spread,
                 uint64_t seed) {
    struct rng rng = rng_stream(seed, 0, 0);
    *machine = (struct machine){.factor = 1, .overhead = 1e-4};
    for (uint32_t i = 0; i < BATCHES; i++) {
        batches[i] = (struct gpu_batch){.cost = (uint64_t)rng_range(&rng, 1e9, 2e9)};
        /* kinds of kernels come in runs, as layers do */
        struct rng kind = rng_stream(seed, 1, i / 20);
        machine->seconds[i] =
            (double)batches[i].cost / fastest * (1 + (spread - 1) * rng_uniform(&kind));
    }
}

/* A run of the program, submission by submission. */
static struct totals run(struct pace *pace, struct gpu_batch *batches,
                         const struct machine *machine) {
    struct totals totals = {0};
    for (uint32_t first = 0; first < BATCHES;) {
        const uint32_t count = pace_fit(pace, &batches[first], BATCHES - first);
        double seconds = machine->overhead;
        assert_in_range(count, 1, BATCHES - first);
        for (uint32_t i = 0; i < count; i++)
            seconds += machine->factor * machine->seconds[first + i];
        pace_learn(pace, &batches[first], count, seconds);
        totals.submissions++;
        totals.seconds += seconds;
        if (count > 1 && seconds > totals.longest) {
            totals.longest = seconds;
            totals.longest_count = count;
        }
        first += count;
    }
    return totals;
}

static void expect_short(const struct totals *totals, const char *what) {
    if (totals->longest > TARGET)
        fail_msg("%s: %u batches took %.3f s", what, totals->longest_count, totals->longest);
}

/* From devices that need seconds for a batch to those that need nothing: batches go alone at first,
   and then the target holds and is used well. */
static void test_speeds(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    for (double speed = 1e9; speed < 1e14; speed *= 10) {
        struct pace pace = {.target_seconds = TARGET};
        make(batches, &machine, speed, 1, 7);
        assert_int_equal(run(&pace, batches, &machine).submissions, BATCHES);
        for (int i = 0; i < 40; i++) /* the overhead of single batches is forgotten */
            run(&pace, batches, &machine);
        const struct totals totals = run(&pace, batches, &machine);
        expect_short(&totals, "later");
        if (speed > 5e10 && totals.submissions > 1 + totals.seconds / (TARGET / 2))
            fail_msg("%u submissions for %.3f s", totals.submissions, totals.seconds);
    }
}

/* Kernels that differ tenfold. */
static void test_kinds(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct pace pace = {.target_seconds = TARGET};
        make(batches, &machine, 1e12, 10, seed);
        for (int i = 0; i < 5; i++) {
            const struct totals totals = run(&pace, batches, &machine);
            expect_short(&totals, "kinds");
        }
    }
}

/* A device that is slow at first (clocks, memory that is touched for the first time): nothing is
   too long, and the speed is found afterwards. */
static void test_slow_start(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    struct pace pace = {.target_seconds = TARGET};
    make(batches, &machine, 1e12, 3, 1);
    machine.factor = 20;
    run(&pace, batches, &machine);
    struct totals totals = run(&pace, batches, &machine);
    const uint32_t slow = totals.submissions;
    machine.factor = 1;
    for (int i = 0; i < 60; i++) {
        totals = run(&pace, batches, &machine);
        expect_short(&totals, "after a slow start");
    }
    assert_true(totals.submissions < slow / 8);
}

/* One that becomes three times slower: too long by that factor once, then never. */
static void test_throttled(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    struct pace pace = {.target_seconds = TARGET};
    make(batches, &machine, 1e12, 3, 2);
    for (int i = 0; i < 5; i++)
        run(&pace, batches, &machine);
    machine.factor = 3;
    struct totals totals = run(&pace, batches, &machine);
    assert_true(totals.longest < 3 * TARGET);
    run(&pace, batches, &machine);
    for (int i = 0; i < 5; i++) {
        totals = run(&pace, batches, &machine);
        expect_short(&totals, "throttled");
    }
}

/* A stall of a minute is no news about the kernels in it. */
static void test_stall(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    struct pace pace = {.target_seconds = TARGET};
    make(batches, &machine, 1e12, 3, 3);
    for (int i = 0; i < 5; i++)
        run(&pace, batches, &machine);
    const uint32_t usual = run(&pace, batches, &machine).submissions;
    const uint32_t count = pace_fit(&pace, batches, BATCHES);
    pace_learn(&pace, batches, count, 60);
    assert_true(run(&pace, batches, &machine).submissions <= usual + 2);
    assert_true(pace.longest_seconds == 60);
}

/* A batch that is too long by itself goes alone. */
static void test_long_batch(void **state) {
    (void)state;
    static struct gpu_batch batches[BATCHES];
    struct machine machine;
    struct pace pace = {.target_seconds = TARGET};
    make(batches, &machine, 1e12, 1, 4);
    machine.seconds[50] = 3 * TARGET;
    batches[50].cost = 100000000000u;
    for (int i = 0; i < 3; i++) {
        const struct totals totals = run(&pace, batches, &machine);
        expect_short(&totals, "the others");
    }
    assert_int_equal(pace_fit(&pace, &batches[50], BATCHES - 50), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speeds),     cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_slow_start), cmocka_unit_test(test_throttled),
        cmocka_unit_test(test_stall),      cmocka_unit_test(test_long_batch),
    };
    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
