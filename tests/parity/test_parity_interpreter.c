/*
 * test_parity_interpreter.c: the compiler's graphs, run by its interpreter in double, against
 * PyTorch: forward, loss, every gradient, 20 SGD steps and 10 Adam steps; before and after the
 * passes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiler/model.h"
#include "compiler/passes.h"
#include "tests/parity/golden.h"

/* The golden tensors are stored as 32-bit floats of a computation in double. */
#define TOLERANCE 1e-6

static struct golden golden;

/* One training program: its graph and a double array for every input, parameter and state. */
struct trainer {
    struct model *model;
    struct graph graph;
    struct autodiff_result gradients;
    double **tensors;
};

static void load_model(const char *optimiser, struct model **model) {
    const struct model_override set[] = {{"optimiser", optimiser}};
    char path[1200];
    struct diag diag;
    snprintf(path, sizeof(path), "%s/unet-small.yaml", golden.directory);
    diag_init(&diag, path, NULL);
    if (!model_load(path, set, ARRAY_LEN(set), model, &diag) || !model_check_sizes(*model, &diag)) {
        diag_print(&diag, stderr);
        fail_msg("%s does not load", path);
    }
    diag_free(&diag);
}

/* Doubles of value's golden tensor (parameters) or zeros (states, inputs). */
static double *initial_tensor(struct trainer *trainer, const struct value *value) {
    size_t count = shape_elements(value->shape);
    double *tensor = ARENA_ARRAY(&trainer->model->arena, double, count);
    if (value->kind == VALUE_PARAM) {
        const float *source = golden_floats(&golden, "param", value->param->name, count);
        for (size_t i = 0; i < count; i++) {
            tensor[i] = source[i];
        }
    }
    return tensor;
}

static void trainer_open(struct trainer *trainer, const char *optimiser, bool with_passes) {
    struct err err = {0};
    memset(trainer, 0, sizeof(*trainer));
    load_model(optimiser, &trainer->model);
    struct graph *graph = &trainer->graph;
    graph_init(graph, &trainer->model->arena, "train_step");
    if (!build_graph(trainer->model, MODEL_TRAIN, graph, &err) ||
        !autodiff_run(graph, &trainer->gradients, &err)) {
        fail_msg("%s", err.text);
    }
    update_run(graph, trainer->model, &trainer->gradients);
    if (with_passes) {
        mask_run(graph);
        pool_index_run(graph);
        fuse_run(graph);
        order_run(graph);
        skip_run(graph);
        inplace_run(graph);
    }
    if (!graph_check(graph, &err)) {
        fail_msg("%s", err.text);
    }
    trainer->tensors = ARENA_ARRAY(&trainer->model->arena, double *, graph->values.count);
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->kind != VALUE_TEMP) {
            trainer->tensors[value->id] = initial_tensor(trainer, value);
        }
    }
}

static void trainer_close(struct trainer *trainer) {
    vec_free(&trainer->gradients.params);
    vec_free(&trainer->gradients.gradients);
    graph_free(&trainer->graph);
    model_free(trainer->model);
}

static const struct value *find_port(const struct graph *graph, const char *port) {
    for (size_t i = 0; i < graph->values.count; i++) {
        const struct value *value = graph->values.items[i];
        if (value->port && strcmp(value->port, port) == 0) {
            return value;
        }
    }
    fail_msg("program %s has no port %s", graph->name, port);
    return NULL;
}

static void feed(struct trainer *trainer, const char *port, int batch) {
    const struct value *value = find_port(&trainer->graph, port);
    size_t count = shape_elements(value->shape);
    char name[64];
    snprintf(name, sizeof(name), "%s.%d", port, batch);
    const struct safetensors_entry *entry = golden_find(&golden, name, NULL);
    assert_int_equal(entry->size_bytes, count * 4);
    const float *floats = entry->data;
    const uint32_t *words = entry->data;
    for (size_t i = 0; i < count; i++) {
        trainer->tensors[value->id][i] =
            entry->type == SAFETENSORS_U32 ? (double)words[i] : (double)floats[i];
    }
}

/* One step on a batch; temporaries stay readable until the arena given is freed. */
static void step(struct trainer *trainer, int batch, uint32_t number, double rate,
                 struct arena *arena) {
    const struct interpret_context context = {.step = number, .learning_rate = rate};
    feed(trainer, "image", batch);
    feed(trainer, "labels", batch);
    feed(trainer, "weights", batch);
    interpret_run(&trainer->graph, trainer->tensors, &context, arena);
}

static void compare(const char *what, const char *name, const double *ours, const float *theirs,
                    size_t count, double *worst) {
    float *rounded = test_malloc(count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        rounded[i] = (float)ours[i];
    }
    golden_compare(what, name, rounded, theirs, count, TOLERANCE, worst);
    test_free(rounded);
}

static const struct node *loss_node(const struct graph *graph) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        if (graph->nodes.items[i]->op == OP_SOFTMAX_LOSS) {
            return graph->nodes.items[i];
        }
    }
    fail_msg("program %s has no loss", graph->name);
    return NULL;
}

static void check_first_step(bool with_passes) {
    struct trainer trainer;
    struct arena arena = {0};
    double worst = 0;
    trainer_open(&trainer, "sgd", with_passes);
    step(&trainer, 0, 0, 0.0, &arena);

    const struct node *loss = loss_node(&trainer.graph);
    const struct value *logits = loss->inputs[0], *probs = loss->outputs[0];
    size_t count = shape_elements(logits->shape);
    compare("logits", "", trainer.tensors[logits->id],
            golden_floats(&golden, "logits.0", NULL, count), count, &worst);
    compare("probabilities", "", trainer.tensors[probs->id],
            golden_floats(&golden, "probs.0", NULL, count), count, &worst);
    compare("loss", "", trainer.tensors[find_port(&trainer.graph, "loss")->id],
            golden_floats(&golden, "sgd.losses", NULL, 20), 1, &worst);

    assert_true(trainer.gradients.params.count > 0);
    for (size_t i = 0; i < trainer.gradients.params.count; i++) {
        const struct value *param = trainer.gradients.params.items[i];
        const struct value *gradient = trainer.gradients.gradients.items[i];
        count = shape_elements(param->shape);
        compare("gradient", param->param->name, trainer.tensors[gradient->id],
                golden_floats(&golden, "grad", param->param->name, count), count, &worst);
    }
    print_message("largest relative error: %.2g\n", worst);
    arena_free(&arena);
    trainer_close(&trainer);
}

static void check_training(const char *optimiser, uint32_t steps, bool with_passes) {
    struct trainer trainer;
    char name[64];
    double worst = 0;
    snprintf(name, sizeof(name), "%s.lr", optimiser);
    const double rate = golden_number(&golden, name);
    snprintf(name, sizeof(name), "%s.losses", optimiser);
    const float *losses = golden_floats(&golden, name, NULL, steps);
    trainer_open(&trainer, optimiser, with_passes);
    size_t n_values = trainer.graph.values.count;
    double **fresh = test_malloc(n_values * sizeof(*fresh));
    memcpy(fresh, trainer.tensors, n_values * sizeof(*fresh));
    for (uint32_t i = 0; i < steps; i++) {
        struct arena arena = {0};
        memcpy(trainer.tensors, fresh, n_values * sizeof(*fresh));
        step(&trainer, (int)(i % PARITY_BATCHES), i, rate, &arena);
        snprintf(name, sizeof(name), "loss after %u %s steps", i, optimiser);
        compare(name, "", trainer.tensors[find_port(&trainer.graph, "loss")->id], &losses[i], 1,
                &worst);
        arena_free(&arena);
    }
    snprintf(name, sizeof(name), "%s.param", optimiser);
    for (size_t i = 0; i < trainer.gradients.params.count; i++) {
        const struct value *param = trainer.gradients.params.items[i];
        size_t count = shape_elements(param->shape);
        compare("trained value", param->param->name, trainer.tensors[param->id],
                golden_floats(&golden, name, param->param->name, count), count, &worst);
    }
    print_message("largest relative error: %.2g\n", worst);
    test_free(fresh);
    trainer_close(&trainer);
}

static void first_step_agrees(void **state) {
    (void)state;
    check_first_step(false);
}

static void first_step_agrees_after_passes(void **state) {
    (void)state;
    check_first_step(true);
}

static void sgd_agrees(void **state) {
    (void)state;
    check_training("sgd", 20, false);
    check_training("sgd", 20, true);
}

static void adam_agrees(void **state) {
    (void)state;
    check_training("adam", 10, false);
    check_training("adam", 10, true);
}

/* Every parameter of the golden file is one of the model: nothing is left uncompared. */
static void all_parameters_are_compared(void **state) {
    (void)state;
    struct trainer trainer;
    size_t stored = 0;
    trainer_open(&trainer, "sgd", false);
    for (size_t i = 0; i < golden.file.n_entries; i++) {
        stored += strncmp(golden.file.entries[i].name, "grad/", 5) == 0;
    }
    assert_int_equal(stored, trainer.gradients.params.count);
    trainer_close(&trainer);
}

/* The comparison itself: one wrong element, one that is not a number, a swapped pair. */
static void comparison_notices_errors(void **state) {
    (void)state;
    const float right[4] = {0.5f, -2.0f, 1.0f, 0.25f};
    float wrong[4] = {0.5f, -2.0f, 1.0f, 0.25f};
    assert_true(golden_error(wrong, right, 4) == 0);
    wrong[3] = 0.2501f;
    assert_true(golden_error(wrong, right, 4) > 4e-5);
    wrong[3] = 0.0f / 0.0f;
    assert_true(golden_error(wrong, right, 4) > 1e30);
    const float swapped[4] = {-2.0f, 0.5f, 1.0f, 0.25f};
    assert_true(golden_error(swapped, right, 4) > 1);
}

static const char *directory;

static int open_golden(void **state) {
    (void)state;
    golden_open(&golden, directory);
    return 0;
}

static int close_golden(void **state) {
    (void)state;
    golden_close(&golden);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER-OF-GOLDEN-FILES\n", argv[0]);
        return 2;
    }
    directory = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comparison_notices_errors),
        cmocka_unit_test(all_parameters_are_compared),
        cmocka_unit_test(first_step_agrees),
        cmocka_unit_test(first_step_agrees_after_passes),
        cmocka_unit_test(sgd_agrees),
        cmocka_unit_test(adam_agrees),
    };
    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
