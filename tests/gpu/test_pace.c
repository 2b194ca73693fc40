/*
 * test_pace.c: how batches are cut and put together to submissions (runtime/gpu/pace.h), on made-up
 * devices whose kernels differ in speed, that start slowly, or become slow: no submission may take
 * longer than wanted, wherever the device behaves as it did before.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base.h"
#include "common/rng.h"
#include "common/vec.h"
#include "runtime/gpu/pace.h"

#define BATCHES 400u
#define TARGET 0.2

/* Seconds of batches on a device, and what it does to all of them in a run. */
struct machine {
    double costs[BATCHES];
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
        batches[i] = (struct gpu_batch){.filled = 1};
        machine->costs[i] = rng_range(&rng, 1e9, 2e9);
        /* kinds of kernels come in runs, as layers do */
        struct rng kind = rng_stream(seed, 1, i / 20);
        machine->seconds[i] = machine->costs[i] / fastest * (1 + (spread - 1) * rng_uniform(&kind));
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
    for (int i = 0; i < 3; i++) {
        const struct totals totals = run(&pace, batches, &machine);
        expect_short(&totals, "the others");
    }
    assert_int_equal(pace_fit(&pace, &batches[50], BATCHES - 50), 1);
}

/* Only one that is too long twice in succession, and can be divided, is slow. */
static void test_slow_batch(void **state) {
    (void)state;
    struct pace pace = {.target_seconds = TARGET};
    struct gpu_batch batch = {.filled = 1};
    static const double seconds[] = {0.1, 5, 0.1, 0.3, 0.5};
    for (size_t i = 0; i < ARRAY_LEN(seconds); i++) {
        assert_false(pace_is_slow(&pace, &batch));
        pace_learn(&pace, &batch, 1, seconds[i]);
    }
    assert_true(pace_is_slow(&pace, &batch));
    assert_true(batch.slow_seconds == 0.3);
    batch.is_least = true;
    assert_false(pace_is_slow(&pace, &batch));
}

/* ---- cutting ---- */

#define KERNELS 12u
#define RECORDS 60u
#define MOST 50e9 /* cost of a batch on a discrete GPU */
#define NOMINAL (MOST / TARGET)

/* A program of divisible records on a device whose kernels do so much a second. */
struct work {
    struct pace pace;
    double speeds[KERNELS], costs[RECORDS];
    bool compiles; /* each kernel for a second, when it runs first */
    bool has_run[KERNELS];
    VEC(struct gpu_batch) batches;
    VEC(double) seconds; /* of each batch, while the device is as it is */
};

static void work_open(struct work *work, double speed, double spread, uint64_t seed) {
    struct rng rng = rng_stream(seed, 0, 0);
    struct err err;
    *work = (struct work){.compiles = false};
    assert_true(pace_open(&work->pace, TARGET, MOST, KERNELS, &err));
    work->pace.overhead_seconds = 1e-4;
    for (uint32_t i = 0; i < KERNELS; i++)
        work->speeds[i] = speed / (1 + (spread - 1) * rng_uniform(&rng));
    for (uint32_t i = 0; i < RECORDS; i++) /* from small to large */
        work->costs[i] = 1e6 * pow(10, 5.5 * rng_uniform(&rng));
}

static void work_close(struct work *work) {
    pace_close(&work->pace);
    vec_free(&work->batches);
    vec_free(&work->seconds);
}

static void work_end_batch(struct work *work, bool runs, double *compiling) {
    const size_t last = work->batches.count - 1;
    pace_calibrate(&work->pace, &work->batches.items[last],
                   runs ? work->seconds.items[last] + *compiling : 0);
    *compiling = 0;
}

static void work_begin_batch(struct work *work) {
    vec_push(&work->batches, ((struct gpu_batch){.filled = 0}));
    vec_push(&work->seconds, work->pace.overhead_seconds);
}

/* Cuts the program as exec.c does, into groups that may be small; runs: as in the first run. */
static void work_cut(struct work *work, bool runs) {
    double compiling = 0;
    work->batches.count = work->seconds.count = 0;
    work_begin_batch(work);
    for (uint32_t i = 0; i < RECORDS; i++) {
        const uint32_t kernel = i % KERNELS;
        for (double left = work->costs[i]; left > 0;) {
            struct gpu_batch *batch = &work->batches.items[work->batches.count - 1];
            const double piece = MIN(left, work->pace.kernels[kernel].limit);
            if (batch->filled > 0 &&
                batch->filled + pace_share(&work->pace, kernel, piece) > 1 + 1e-9) {
                work_end_batch(work, runs, &compiling);
                work_begin_batch(work);
                continue;
            }
            pace_add(&work->pace, batch, kernel, piece);
            work->seconds.items[work->seconds.count - 1] += piece / work->speeds[kernel];
            compiling += runs && work->compiles && !work->has_run[kernel] ? 1 : 0;
            work->has_run[kernel] = work->has_run[kernel] || runs;
            left -= piece;
        }
    }
    work_end_batch(work, runs, &compiling);
}

static double work_longest(const struct work *work) {
    double longest = 0;
    for (size_t i = 0; i < work->seconds.count; i++)
        longest = MAX(longest, work->seconds.items[i]);
    return longest;
}

/* Devices from a hundred times slower than the slowest of their kind to much faster: the target
   holds from the first submission on. Kernels differ, by less where it is that slow. */
static void test_first_run(void **state) {
    (void)state;
    for (double slower = 100; slower > 1e-4; slower /= 10) {
        for (uint64_t seed = 0; seed < 50; seed++) {
            struct work work;
            work_open(&work, NOMINAL / slower, slower > 50 ? 1 : 10, seed);
            work_cut(&work, true);
            const size_t n_first = work.batches.count;
            if (work_longest(&work) > TARGET)
                fail_msg("%g times slower, first run: %.3f s", slower, work_longest(&work));
            work_cut(&work, false);
            if (work_longest(&work) > TARGET)
                fail_msg("%g times slower: %.3f s", slower, work_longest(&work));
            assert_true(work.batches.count <= n_first);
            work_close(&work);
        }
    }
}

/* Slower still: the first submissions are too long, those of the second run are not. */
static void test_crawling(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct work work;
        work_open(&work, NOMINAL / 700, 1, seed);
        work_cut(&work, true);
        assert_true(work_longest(&work) > TARGET);
        work_cut(&work, false);
        if (work_longest(&work) > TARGET)
            fail_msg("seed %u: %.3f s", (unsigned)seed, work_longest(&work));
        work_close(&work);
    }
}

/* Drivers that compile at the first dispatch: that is not the kernels' speed. */
static void test_compiling(void **state) {
    (void)state;
    struct work usual, compiling;
    work_open(&usual, 1e12, 3, 5);
    work_open(&compiling, 1e12, 3, 5);
    compiling.compiles = true;
    work_cut(&usual, true);
    work_cut(&usual, false);
    work_cut(&compiling, true);
    work_cut(&compiling, false);
    assert_true(work_longest(&compiling) <= TARGET);
    if (compiling.batches.count > usual.batches.count * 3) /* later runs put them together */
        fail_msg("%zu batches, %zu without compiling", compiling.batches.count,
                 usual.batches.count);
    work_close(&usual);
    work_close(&compiling);
}

/* A device that becomes ten times slower is noticed, and the program cut again. */
static void test_slow_again(void **state) {
    (void)state;
    struct work work;
    work_open(&work, 3 * NOMINAL, 2, 8);
    work_cut(&work, true);
    work_cut(&work, false);
    for (uint32_t i = 0; i < KERNELS; i++)
        work.speeds[i] /= 10;
    uint32_t n_cuts = 0;
    for (int run = 0; run < 8; run++) {
        bool is_due = false;
        for (size_t i = 0; i < work.batches.count; i++) {
            struct gpu_batch *batch = &work.batches.items[i];
            pace_learn(&work.pace, batch, 1, work.seconds.items[i] * (run < 2 ? 10 : 1));
            for (uint32_t k = 0; pace_is_slow(&work.pace, batch) && k < KERNELS; k++)
                pace_note_slow(&work.pace, batch, k); /* which of them is not noted here */
            is_due = is_due || pace_is_slow(&work.pace, batch);
        }
        if (!is_due)
            continue;
        pace_apply(&work.pace);
        work_cut(&work, false);
        n_cuts++;
    }
    assert_int_equal(n_cuts, 1);
    assert_true(work_longest(&work) <= TARGET);
    work_close(&work);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speeds),     cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_slow_start), cmocka_unit_test(test_throttled),
        cmocka_unit_test(test_stall),      cmocka_unit_test(test_long_batch),
        cmocka_unit_test(test_slow_batch), cmocka_unit_test(test_first_run),
        cmocka_unit_test(test_crawling),   cmocka_unit_test(test_compiling),
        cmocka_unit_test(test_slow_again),
    };
    return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
