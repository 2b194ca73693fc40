/*
 * test_device_recompute.c: training with layers computed again for the backward pass gives the same
 * bits as without, on the device: losses, weights and optimiser states after a few updates, with
 * both optimisers, with one batch and several for an update, with a dropout behind a convolution
 * that is computed again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "compiler/compiler.h"
#include "runtime/runtime.h"

#define UPDATES 3
#define SEED 21
#define RATE 0.01f

static const char model_text[] =
    "model: twice\nlet: {optimiser: sgd, accumulate: 1, recompute: none}\n"
    "input: {tile: 44, offset: 0.5}\n"
    "labels: [{value: 0, class: a}, {value: 1, class: b}]\n"
    "train: {optimiser: \"${optimiser}\", learning_rate: 0.01, batch: 2, weight_decay: 0.01,\n"
    "  accumulate: \"${accumulate}\", recompute: \"${recompute}\"}\n"
    "layers:\n  - conv: {name: first, channels: 5}\n  - relu\n"
    "  - conv: {name: second, channels: 6}\n  - leaky_relu: 0.1\n  - dropout: 0.5\n"
    "  - conv: {name: third, channels: 6}\n  - relu: {name: skip}\n  - maxpool\n"
    "  - conv: {name: low, channels: 7}\n  - relu\n  - upconv: {name: up, channels: 5}\n  - relu\n"
    "  - concat: [skip, relu3]\n  - conv: {name: last, channels: 6}\n  - relu\n"
    "  - conv: {name: score, channels: 2, kernel: 1}\n  - cross_entropy\n";

static struct unet_device *device;

static void must(bool ok, const struct err *err) {
    if (!ok) {
        fail_msg("%s", err->text);
    }
}

static struct plan *compile(const char *optimiser, int accumulate, const char *recompute) {
    char texts[3][128];
    const char *const set[] = {texts[0], texts[1], texts[2]};
    const struct unet_compile_options options = {.set = set, .n_set = 3, .diagnostics = stderr};
    struct err err = {0};
    struct plan *plan;
    snprintf(texts[0], sizeof(texts[0]), "optimiser=%s", optimiser);
    snprintf(texts[1], sizeof(texts[1]), "accumulate=%d", accumulate);
    snprintf(texts[2], sizeof(texts[2]), "recompute=%s", recompute);
    must(unet_compile_text("twice.yaml", model_text, &options, &plan, &err), &err);
    return plan;
}

static void write_batch(struct unet_session *session, const struct plan *plan, const char *program,
                        uint32_t number) {
    static const char *const ports[] = {"image", "labels", "weights"};
    struct err err = {0};
    for (uint64_t p = 0; p < ARRAY_LEN(ports); p++) {
        const struct plan_port *port = plan_port_find(plan_program_find(plan, program), ports[p]);
        const size_t count = (size_t)plan->tensors[port->tensor].size_bytes / 4;
        uint32_t *words = malloc(count * 4);
        struct rng rng = rng_stream(SEED, 5 + p, number);
        assert_non_null(words);
        for (size_t e = 0; e < count; e++) {
            const float v = p == 0 ? rng_normal(&rng) : rng_range(&rng, 0, 1);
            words[e] = rng_below(&rng, 2);
            if (p != 1) {
                memcpy(&words[e], &v, 4);
            }
        }
        must(unet_session_write(session, program, ports[p], words, count * 4, &err), &err);
        free(words);
    }
}

/* Everything that training leaves behind: one vector of words. */
struct outcome {
    uint32_t *words;
    size_t count;
};

static void append(struct outcome *outcome, const void *data, size_t count) {
    outcome->words = realloc(outcome->words, (outcome->count + count) * 4);
    assert_non_null(outcome->words);
    memcpy(outcome->words + outcome->count, data, count * 4);
    outcome->count += count;
}

static void read_params(struct unet_session *session, const struct plan *plan,
                        struct outcome *outcome) {
    struct err err = {0};
    for (uint32_t i = 0; i < plan->n_params; i++) {
        const struct plan_param *param = &plan->params[i];
        float data[1024];
        size_t count = 1;
        for (uint32_t d = 0; d < param->rank; d++) {
            count *= param->dims[d];
        }
        assert_true(count <= ARRAY_LEN(data));
        for (int state = -1; state < (int)param->n_states; state++) {
            must(unet_session_read_param(session, i, state, data, &err), &err);
            append(outcome, data, count);
        }
    }
}

static struct outcome train(const struct plan *plan) {
    const uint32_t batches = plan->model.accumulate;
    struct outcome outcome = {0};
    struct unet_session *session;
    struct err err = {0};
    must(unet_session_open(device, plan, NULL, &session, &err), &err);
    must(unet_session_init_weights(session, SEED, &err), &err);
    for (uint32_t i = 0; i < UPDATES * batches; i++) {
        const uint32_t batch = i % batches;
        const char *program = batch + 1 == batches ? "train_step" : "accumulate";
        const struct plan_port *port = plan_port_find(plan_program_find(plan, program), "loss");
        const size_t count = (size_t)plan->tensors[port->tensor].size_bytes / 4;
        float loss[64];
        assert_true(count <= ARRAY_LEN(loss));
        write_batch(session, plan, program, i);
        must(unet_session_set_batch(session, SEED, i / batches, batch, UPDATES, RATE, &err), &err);
        must(unet_session_run(session, program, &err), &err);
        must(unet_session_read(session, program, "loss", loss, count * 4, &err), &err);
        append(&outcome, loss, count);
    }
    read_params(session, plan, &outcome);
    unet_session_close(session);
    return outcome;
}

/* Records that run when every choice takes its first method. How many methods a choice has depends
   on the room in the arena, which recomputation changes. */
static uint32_t count_first(const struct plan_program *program) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *record = &program->records[i];
        count += record->choice == PLAN_NONE || record->method == 0;
    }
    return count;
}

static void check(const char *optimiser, int accumulate, const char *layers, uint32_t n_again) {
    struct plan *plain = compile(optimiser, accumulate, "none");
    struct plan *again = compile(optimiser, accumulate, layers);
    const struct plan_program *a = plan_program_find(plain, "train_step");
    const struct plan_program *b = plan_program_find(again, "train_step");
    assert_int_equal(count_first(b), count_first(a) + n_again);
    struct outcome expected = train(plain), got = train(again);
    assert_int_equal(expected.count, got.count);
    for (size_t i = 0; i < got.count; i++) {
        if (expected.words[i] != got.words[i]) {
            fail_msg("%s, accumulate %d, %s: word %zu of %zu differs", optimiser, accumulate,
                     layers, i, got.count);
        }
    }
    free(expected.words);
    free(got.words);
    plan_free(plain);
    plan_free(again);
}

/* One after the other, chained ones, the dropout's, all. */
#define ALL "first,second,low,last"

static void sgd_is_the_same(void **state) {
    (void)state;
    check("sgd", 1, "first", 1);
    check("sgd", 1, "second", 2); /* and its dropout */
    check("sgd", 1, ALL, 5);
}

static void adam_is_the_same(void **state) {
    (void)state;
    check("adam", 1, "low", 1);
    check("adam", 1, ALL, 5);
}

static void accumulated_updates_are_the_same(void **state) {
    (void)state;
    check("sgd", 3, ALL, 5);
    check("adam", 3, ALL, 5);
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_device_recompute: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(sgd_is_the_same),
                                       cmocka_unit_test(adam_is_the_same),
                                       cmocka_unit_test(accumulated_updates_are_the_same)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    if (messages) {
        fprintf(stderr, "test_device_recompute: %u validation messages\n", messages);
    }
    return failed || messages;
}
