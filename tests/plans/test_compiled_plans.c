/*
 * test_compiled_plans.c: plans as the compiler makes them, of all shipped models: accepted by the
 * verifier and by the independent simulation, the same bytes each time; and every way of damaging
 * them (mutate.h) is rejected, or harmless and accepted. The models are found through the
 * environment variable UNET_TEST_ROOT.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/compiler.h"
#include "tests/plans/mutate.h"

/* Of a kind, spread over all there are. Under a sanitizer, which looks for errors of memory and not
 * for damage that goes unseen, fewer take long enough. */
#ifdef __SANITIZE_ADDRESS__
#define MUTATIONS_PER_KIND 10
#else
#define MUTATIONS_PER_KIND 40
#endif

struct model_case {
    const char *file;
    const char *set[6];
};

/* All are checked whole; the first N_DAMAGED, small enough for thousands of simulations, are
 * damaged. */
#define N_DAMAGED 4
static const struct model_case cases[] = {
    {"models/unet.yaml", {"width=3", "depth=2", "tile=44"}},
    {"models/unet.yaml", {"width=4", "depth=2", "tile=48", "batch=2", "optimiser=sgd"}},
    {"models/unet.yaml", {"width=3", "depth=1", "tile=28", "accumulate=3"}},
    {"models/unet.yaml",
     {"width=3", "depth=1", "tile=28", "accumulate=3", "precision=mixed", "dropout=0"}},
    {"models/unet.yaml", {"width=2", "depth=1", "tile=28", "precision=mixed"}},
    {"models/unet.yaml", {"width=8", "tile=188"}},
    {"models/unet.yaml", {"width=4", "depth=2", "tile=60", "precision=mixed"}},
    {"models/unet-cells.yaml", {"width=8", "tile=188", "accumulate=2", "optimiser=sgd"}},
    {"models/unet-2015-release.yaml", {"width=8", "tile=188"}},
    {"models/fcn8.yaml", {"width=4", "tile=64"}},
    {"models/sliding-window.yaml", {"tile=126"}},
    {"models/demo.yaml", {NULL}},
};

static struct plan *compile(const struct model_case *c) {
    const char *root = getenv("UNET_TEST_ROOT");
    char path[1024];
    struct plan *plan;
    struct err err = {0};
    struct unet_compile_options options = {.set = c->set, .diagnostics = stderr};
    while (options.n_set < ARRAY_LEN(c->set) && c->set[options.n_set]) {
        options.n_set++;
    }
    snprintf(path, sizeof(path), "%s/%s", root ? root : ".", c->file);
    if (!unet_compile_file(path, &options, &plan, &err)) {
        fail_msg("%s", err.text);
    }
    return plan;
}

static void plans_are_valid(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct plan *plan = compile(&cases[i]);
        struct err err = {0};
        assert_true(plan_verify(plan, NULL, &err));
        const char *wrong = simulate_plan(plan);
        if (wrong) {
            fail_msg("%s: %s", cases[i].file, wrong);
        }
        plan_free(plan);
    }
}

static void plans_are_reproducible(void **state) {
    (void)state;
    uint8_t *first, *second;
    size_t first_bytes, second_bytes;
    struct plan *a = compile(&cases[0]), *b = compile(&cases[0]);
    plan_serialise(a, &first, &first_bytes);
    plan_serialise(b, &second, &second_bytes);
    assert_int_equal(first_bytes, second_bytes);
    assert_memory_equal(first, second, first_bytes);
    free(first);
    free(second);
    plan_free(a);
    plan_free(b);
}

struct tally {
    unsigned rejected, accepted, undecided;
};

static void try_mutation(struct plan *plan, enum mutation_kind kind, uint32_t number,
                         struct tally *tally) {
    struct mutation mutation;
    struct err err = {0};
    if (!mutation_apply(plan, kind, number, &mutation)) {
        return;
    }
    bool accepted = plan_verify(plan, NULL, &err);
    mutation_undo(&mutation);
    if (mutation.verdict == MUTATION_REJECT && accepted) {
        fail_msg("%s was accepted: %s", mutation_names[kind], mutation.what);
    }
    if (mutation.verdict == MUTATION_ACCEPT && !accepted) {
        fail_msg("%s was rejected: %s: %s", mutation_names[kind], mutation.what, err.text);
    }
    tally->rejected += mutation.verdict == MUTATION_REJECT;
    tally->accepted += mutation.verdict == MUTATION_ACCEPT;
    tally->undecided += mutation.verdict == MUTATION_EITHER;
}

static void damage_is_found(void **state) {
    (void)state;
    struct tally total = {0};
    for (size_t i = 0; i < N_DAMAGED; i++) {
        struct plan *plan = compile(&cases[i]);
        for (int kind = 0; kind < MUTATE_KIND_COUNT; kind++) {
            uint32_t count = mutation_count(plan, kind);
            uint32_t step = MAX(1, count / MUTATIONS_PER_KIND);
            for (uint32_t number = 0; number < count; number += step) {
                try_mutation(plan, kind, number, &total);
            }
        }
        plan_free(plan);
    }
    print_message("%u damaged plans rejected, %u harmless ones accepted, %u open\n", total.rejected,
                  total.accepted, total.undecided);
    assert_true(total.rejected > 37 * MUTATIONS_PER_KIND && total.accepted > 50);
}

static struct plan_record *find_record(struct plan *plan, const char *program, const char *label) {
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        for (uint32_t i = 0; i < plan->programs[p].n_records; i++) {
            if (strcmp(plan->programs[p].name, program) == 0 &&
                strcmp(plan->programs[p].records[i].label, label) == 0) {
                return &plan->programs[p].records[i];
            }
        }
    }
    fail_msg("no record %s in %s", label, program);
    return NULL;
}

static void assert_rejected(const struct plan *plan, const char *part) {
    struct err err = {0};
    assert_false(plan_verify(plan, NULL, &err));
    if (!strstr(err.text, part)) {
        fail_msg("\"%s\" does not say \"%s\"", err.text, part);
    }
}

/* What is wrong with accumulated gradients alone, in ways that no other rule would find. */
static void accumulation_is_checked(void **state) {
    (void)state;
    struct plan *plan = compile(&cases[2]);
    struct plan_record *adds = find_record(plan, "accumulate", "score.bias accumulate");
    struct plan_record *mean = find_record(plan, "train_step", "score.bias mean gradient");
    struct plan_record *update = find_record(plan, "train_step", "score.bias update");
    struct plan_record saved = *adds;
    adds->params[1] = 1;
    assert_rejected(plan, "program accumulate must add to the accumulator score.bias.accumulated");
    *adds = saved;
    adds->tensors[1] = adds->tensors[3] = plan->params[plan->n_params - 1].states[0];
    assert_rejected(plan, "tensor score.bias.state0 is not an accumulator");
    *adds = saved;
    saved = *mean;
    mean->params[1] = 0;
    assert_rejected(plan, "the mean with accumulator score.bias.accumulated must replace");
    mean->params[1] = 1;
    mean->tensors[3] = mean->tensors[1];
    assert_rejected(plan, "the mean with accumulator score.bias.accumulated must replace");
    *mean = *update; /* the update twice, the mean never */
    assert_rejected(plan, "is not the mean of the batches: accumulator score.bias.accumulated");
    *mean = saved;
    plan->model.accumulate = 1;
    assert_rejected(plan, "1 batches make an update, but the plan has accumulators");
    plan->model.accumulate = 3;
    struct plan_program *program = (struct plan_program *)plan_program_find(plan, "accumulate");
    program->name = "accumulates";
    assert_rejected(plan, "must replace the gradient");
    program->name = "accumulate";
    struct err err = {0};
    assert_true(plan_verify(plan, NULL, &err));
    plan_free(plan);
}

/* Scaled gradients: each is looked at, and what the update takes comes of that. */
static void scaling_is_checked(void **state) {
    (void)state;
    struct plan *plan = compile(&cases[3]);
    struct plan_record *check = find_record(plan, "train_step", "score.bias gradient check");
    struct plan_record *other = find_record(plan, "train_step", "score.weight gradient check");
    struct plan_record *update = find_record(plan, "train_step", "score.bias update");
    struct plan_record *scale = find_record(plan, "train_step", "cross_entropy1 scaled gradient");
    struct plan_record saved = *check;
    check->tensors[0] = plan->params[plan->n_params - 1].states[0];
    assert_rejected(plan, "is scaled, but nothing looks whether it is finite");
    *check = saved;
    check->tensors[1] = other->tensors[1]; /* so that the flags of this one are never written */
    assert_rejected(plan, "gradients.gradient_flags");
    *check = saved;
    saved = *update;
    update->tensors[5] = scale->tensors[1];
    assert_rejected(plan, "verdict (tensor loss_scale) was not made by loss_scale");
    *update = saved;
    saved = *scale;
    scale->tensors[1] = update->tensors[5];
    assert_rejected(plan, "is not the state loss_scale");
    *scale = saved;
    const uint32_t state_tensor = plan_loss_scale(plan);
    const char *name = plan->tensors[state_tensor].name;
    plan->tensors[state_tensor].name = "scale";
    assert_rejected(plan, "tensor scale of the block state belongs to no parameter");
    plan->tensors[state_tensor].name = name;
    struct err err = {0};
    assert_true(plan_verify(plan, NULL, &err));
    plan_free(plan);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_are_valid),    cmocka_unit_test(plans_are_reproducible),
        cmocka_unit_test(damage_is_found),    cmocka_unit_test(accumulation_is_checked),
        cmocka_unit_test(scaling_is_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
