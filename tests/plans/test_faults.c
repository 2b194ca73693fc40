/*
 * test_faults.c: what a wrong planner would do, planted into the plans of N_GRAPHS random training
 * graphs, each fault alone in a plan that is right otherwise: two tensors alive together overlap by
 * one element or alignment unit; a tensor is freed before its last reader; memory is given on with
 * no barrier; a barrier is gone. Whether a change is a fault is decided by the simulation of
 * mutate.h, word of memory by word, which shares no code with the verifier: plan_verify must reject
 * every fault, and accept what is harmless. Other legal places are accepted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "tests/passes/random_plan.h"
#include "tests/plans/mutate.h"
#include "tests/plans/relocate.h"

#define N_GRAPHS 1000
#define BARRIER_TRIES 8 /* barriers tried until one is found that is needed */
#define GAPS 5

struct tally {
    uint32_t faults, harmless, absent;
    uint32_t by_element; /* of the faults: two tensors that share a single element */
};

static struct tally tallies[RELOCATE_FAULT_COUNT], dropped;

/* The verifier says what the simulation says, and not for the figures' sake. */
static bool check_verdict(const struct plan *plan, uint64_t seed, const char *what) {
    struct err err = {0};
    const char *wrong = simulate_plan(plan);
    const bool accepted = plan_verify(plan, NULL, &err);
    if (accepted != (wrong == NULL))
        fail_msg("graph %llu: %s: %s: %s", (unsigned long long)seed, what,
                 accepted ? "accepted, though" : "rejected, though no word is used wrongly",
                 accepted ? wrong : err.text);
    if (!accepted && (strstr(err.text, "arena of") || strstr(err.text, "lower bound")))
        fail_msg("graph %llu: %s: the fault is not what was found: %s", (unsigned long long)seed,
                 what, err.text);
    return wrong != NULL;
}

static void try_fault(struct plan *plan, enum relocate_fault fault, uint64_t seed) {
    struct tally *tally = &tallies[fault];
    struct relocation relocation;
    if (!relocate_plan(plan, fault, seed, seed % 3 == 0 ? GAPS : 0, &relocation)) {
        tally->absent++;
        return;
    }
    const bool is_fault = check_verdict(plan, seed, relocation.what);
    tally->faults += is_fault;
    tally->harmless += !is_fault;
    tally->by_element += is_fault && relocation.shared_bytes == 4;
    relocate_undo(plan, &relocation);
}

/* Barriers are dropped one at a time until one was needed. */
static void try_barrier(struct plan *plan, uint64_t seed) {
    struct rng rng = rng_stream(seed, 8, 0);
    const struct plan_program *program = &plan->programs[0];
    for (int i = 0; i < BARRIER_TRIES; i++) {
        struct plan_record *record = &program->records[rng_below(&rng, program->n_records)];
        if (!record->barrier)
            continue;
        record->barrier = false;
        const bool is_fault = check_verdict(plan, seed, record->label);
        record->barrier = true;
        dropped.faults += is_fault;
        dropped.harmless += !is_fault;
        if (is_fault)
            return;
    }
    dropped.absent++;
}

static void report(const char *name, const struct tally *tally) {
    print_message("%s: %u faults, all rejected; %u harmless, accepted; %u graphs without\n", name,
                  tally->faults, tally->harmless, tally->absent);
}

static void planted_faults_are_found(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < N_GRAPHS; seed++) {
        struct plan *plan = random_plan_make(seed, 0);
        if (seed % 2 == 1)
            random_plan_add_choices(plan, seed);
        for (int fault = 0; fault < RELOCATE_FAULT_COUNT; fault++)
            try_fault(plan, (enum relocate_fault)fault, 2 * seed);
        try_fault(plan, RELOCATE_OVERLAP, 2 * seed + 1);
        try_barrier(plan, seed);
        assert_false(check_verdict(plan, seed, "as compiled"));
        plan_free(plan);
    }
    report("overlap", &tallies[RELOCATE_OVERLAP]);
    report("early free", &tallies[RELOCATE_EARLY_FREE]);
    report("no barrier before reuse", &tallies[RELOCATE_NO_BARRIER]);
    report("barrier dropped", &dropped);
    print_message("overlaps of a single element: %u\n", tallies[RELOCATE_OVERLAP].by_element);
    assert_int_equal(tallies[RELOCATE_LEGAL].faults, 0);
    assert_int_equal(tallies[RELOCATE_LEGAL].harmless, N_GRAPHS);
    assert_true(tallies[RELOCATE_OVERLAP].faults >= 2 * N_GRAPHS * 9 / 10);
    assert_true(tallies[RELOCATE_OVERLAP].by_element >= N_GRAPHS / 4);
    assert_true(tallies[RELOCATE_EARLY_FREE].faults >= N_GRAPHS * 9 / 10);
    assert_true(tallies[RELOCATE_NO_BARRIER].faults >= N_GRAPHS / 2);
    assert_true(dropped.faults >= N_GRAPHS * 9 / 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(planted_faults_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
