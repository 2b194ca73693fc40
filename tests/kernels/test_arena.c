/*
 * test_arena.c: the memory plan seen by what it does on a device. Whole training and inference runs
 * give the same bits
 *
 * - while every word of the arena that nobody will read before it is written again holds a
 *   signalling NaN, or a huge number, before each record: bytes of tensors that are not alive,
 * gaps, and also the parts of living tensors that have not been written yet or were read for the
 * last time. What is alive is found from the records backwards, word by word;
 * - with the tensors at other legal places (tests/plans/relocate.h), packed or spread out;
 * - without the passes that rewrite the graph, where the order of sums is unchanged.
 *
 * In builds with AddressSanitizer the native executor closes everything but the tensors of a record
 * while it runs (runtime/cpu/guard.h); that it does is tested here too.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/vec.h"
#include "compiler/compiler.h"
#include "runtime/cpu/guard.h"
#include "runtime/exec.h"
#include "tests/kernels/exec_plans.h"
#include "tests/plans/mutate.h"
#include "tests/plans/relocate.h"

#define STEPS 3
#define PLACEMENTS 4 /* packed; as many again with gaps */
#define GAPS 9       /* alignment units */
/* Of the largest magnitude in a tensor after STEPS training steps, as in test_programs.c. */
#define ROUNDING 1e-4f

static struct unet_device *device;

/* Drivers with their validation layer are slow: on them every fourth of what is tried. */
static uint32_t stride(void) {
    return strcmp(unet_device_get_info(device)->backend, "cpu") == 0 ? 1 : 4;
}

/* ---- models ---- */

struct model_case {
    const char *file;
    const char *set[5];
};

/* Besides those of exec_plans.h, which have dropout, padding, dilation, leaky activations. */
static const struct model_case models[] = {
    {"demo.yaml", {"width=3", "tile=44"}},
    {"unet.yaml", {"width=4", "depth=2", "tile=60", "optimiser=sgd"}},
    {"unet.yaml", {"width=3", "depth=1", "tile=44", "accumulate=3"}},
    {"unet-cells.yaml", {"width=2", "tile=188"}},
    {"fcn8.yaml", {"width=4", "tile=64"}},
};

#define N_PLANS (EXEC_PLANS + ARRAY_LEN(models))

static struct plan *compile(const struct model_case *model, const char *disable) {
    const char *root = getenv("UNET_TEST_ROOT");
    struct unet_compile_options options = {
        .set = model->set, .disable = disable, .diagnostics = stderr};
    struct plan *plan;
    struct err err = {0};
    char path[1024];
    while (options.n_set < ARRAY_LEN(model->set) && model->set[options.n_set] != NULL)
        options.n_set++;
    snprintf(path, sizeof(path), "%s/models/%s", root != NULL ? root : ".", model->file);
    exec_must(unet_compile_file(path, &options, &plan, &err), &err, model->file);
    return plan;
}

static struct plan *make_plan(uint32_t number) {
    return number < EXEC_PLANS ? exec_plans_make(number)
                               : compile(&models[number - EXEC_PLANS], NULL);
}

/* ---- which methods run ---- */

static uint32_t method; /* its number in all choices, or the last where there are fewer */

static bool runs(const struct plan_program *program, const struct plan_record *record) {
    return record->choice == PLAN_NONE ||
           record->method == MIN(method, program->choices[record->choice].n_methods - 1);
}

/* For struct unet_session_options; freed by the caller. */
static uint32_t *all_methods(const struct plan *plan) {
    VEC(uint32_t) methods = {0};
    for (uint32_t p = 0; p < plan->n_programs; p++)
        for (uint32_t c = 0; c < plan->programs[p].n_choices; c++)
            vec_push(&methods, MIN(method, plan->programs[p].choices[c].n_methods - 1));
    return methods.items;
}

/* ---- what is alive ---- */

/* Of a program: before each record, and after the last, whether a word of the arena will be read
   before it is written. */
struct liveness {
    size_t n_words;
    uint8_t *alive; /* [record][word], a row more than records */
};

static void set_words(const struct plan_tensor *tensor, uint8_t *words, uint8_t value) {
    const bool planes = tensor->layout == PLAN_LAYOUT_PLANES;
    const size_t image =
        (size_t)tensor->shape.c * (size_t)tensor->shape.h * (size_t)tensor->shape.w;
    const size_t images = planes ? (size_t)tensor->shape.n : 1;
    uint8_t *first = words + tensor->offset_bytes / 4;
    for (size_t n = 0; n < images; n++)
        memset(first + n * tensor->stride_n, value, planes ? image : tensor->size_bytes / 4);
}

/* What a record writes of a tensor, row by row where others write the rest. */
static void set_written(const struct plan_record *record, const struct plan_tensor *tensor,
                        uint8_t *words) {
    const uint32_t h = (uint32_t)tensor->shape.h, c = (uint32_t)tensor->shape.c;
    const size_t w = (size_t)tensor->shape.w;
    uint8_t *first = words + tensor->offset_bytes / 4;
    if (record->kernel != KERNEL_ID_winograd_product) {
        set_words(tensor, words, 0);
        return;
    }
    for (uint32_t row = 0; row < (uint32_t)tensor->shape.n * c * h; row++) {
        const uint32_t n = row / h / c, channel = row / h % c, y = row % h;
        if (simulate_writes_row(record, channel, y))
            memset(first + (size_t)n * tensor->stride_n + ((size_t)channel * h + y) * w, 0, w);
    }
}

/* Reads of a record make words alive, writes end what is before them. */
static void step_back(const struct plan *plan, const struct plan_record *record, uint8_t *alive) {
    static const unsigned access[] = {KERNEL_WRITE, KERNEL_READ};
    for (size_t i = 0; i < ARRAY_LEN(access); i++) {
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
            const struct plan_tensor *tensor = &plan->tensors[record->tensors[b]];
            if (tensor->block != PLAN_BLOCK_ARENA || (simulate_access(record, b) & access[i]) == 0)
                continue;
            if (access[i] == KERNEL_READ)
                set_words(tensor, alive, 1);
            else
                set_written(record, tensor, alive);
        }
    }
}

static struct liveness find_alive(const struct plan *plan, const struct plan_program *program) {
    const size_t n_words = (size_t)plan->block_bytes[PLAN_BLOCK_ARENA] / 4;
    struct liveness liveness = {n_words, calloc(program->n_records + (size_t)1, n_words)};
    assert_non_null(liveness.alive);
    for (uint32_t r = program->n_records; r-- > 0;) {
        uint8_t *row = liveness.alive + r * n_words;
        memcpy(row, row + n_words, n_words);
        if (runs(program, &program->records[r]))
            step_back(plan, &program->records[r], row);
    }
    assert_null(memchr(liveness.alive, 1, n_words)); /* nothing is needed from before */
    return liveness;
}

/* ---- poison ---- */

#define SIGNALLING_NAN 0x7fa5a5a5u
#define HUGE_NUMBER 0xff7fffffu /* the largest, negative */

struct poison {
    uint32_t pattern;
    uint32_t arena; /* the tensor that is all of the arena */
    uint32_t *words;
    struct liveness *programs;
    uint64_t n_written;
};

/* The plan with one more tensor: the arena. */
static struct plan with_arena(const struct plan *plan) {
    struct plan changed = *plan;
    const uint64_t size_bytes = plan->block_bytes[PLAN_BLOCK_ARENA];
    changed.tensors = calloc(plan->n_tensors + (size_t)1, sizeof(*changed.tensors));
    memcpy(changed.tensors, plan->tensors, plan->n_tensors * sizeof(*changed.tensors));
    changed.tensors[changed.n_tensors] = (struct plan_tensor){
        .name = "arena",
        .block = PLAN_BLOCK_ARENA,
        .layout = PLAN_LAYOUT_FLAT,
        .type = PLAN_TYPE_U32,
        .shape = {1, 1, 1, (int32_t)(size_bytes / 4)},
        .base = changed.n_tensors,
        .size_bytes = size_bytes,
    };
    changed.n_tensors++;
    return changed;
}

static void open_poison(struct poison *poison, const struct plan *plan, uint32_t pattern) {
    *poison = (struct poison){.pattern = pattern, .arena = plan->n_tensors - 1};
    poison->words = malloc(plan->block_bytes[PLAN_BLOCK_ARENA]);
    poison->programs = calloc(plan->n_programs, sizeof(*poison->programs));
    for (uint32_t i = 0; i < plan->n_programs; i++)
        poison->programs[i] = find_alive(plan, &plan->programs[i]);
}

static void close_poison(struct poison *poison, const struct plan *plan) {
    for (uint32_t i = 0; i < plan->n_programs; i++)
        free(poison->programs[i].alive);
    free(poison->programs);
    free(poison->words);
}

/* Before a record, or after the last one. */
static void apply_poison(struct poison *poison, struct unet_session *session, uint32_t program,
                         uint32_t record) {
    const struct liveness *liveness = &poison->programs[program];
    const uint8_t *alive = liveness->alive + record * liveness->n_words;
    struct err err = {0};
    exec_must(unet_session_read_tensor(session, poison->arena, poison->words, &err), &err, "arena");
    for (size_t i = 0; i < liveness->n_words; i++) {
        if (!alive[i]) {
            poison->words[i] = poison->pattern;
            poison->n_written++;
        }
    }
    exec_must(unet_session_write_tensor(session, poison->arena, poison->words, &err), &err,
              "arena");
}

/* ---- runs ---- */

/* All that comes out of a run, in order. */
struct trace {
    VEC(uint8_t) bytes;
};

static void append_tensor(struct trace *trace, struct unet_session *session, uint32_t index) {
    const struct plan_tensor *tensor = &unet_session_plan(session)->tensors[index];
    struct err err = {0};
    uint8_t *data = malloc(tensor->size_bytes);
    exec_must(unet_session_read_tensor(session, index, data, &err), &err, tensor->name);
    for (uint64_t i = 0; i < tensor->size_bytes; i++)
        vec_push(&trace->bytes, data[i]);
    free(data);
}

/* Parameters, states, accumulated gradients. */
static void append_lasting(struct trace *trace, struct unet_session *session) {
    const struct plan *plan = unet_session_plan(session);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const enum plan_block block = plan->tensors[i].block;
        if (plan->tensors[i].base == i &&
            (block == PLAN_BLOCK_WEIGHTS || block == PLAN_BLOCK_STATE))
            append_tensor(trace, session, i);
    }
}

static void run_program(struct unet_session *session, const char *name, uint32_t step,
                        uint32_t batch, struct poison *poison, struct trace *trace) {
    const struct plan *plan = unet_session_plan(session);
    const struct plan_program *program = plan_program_find(plan, name);
    struct err err = {0};
    if (program == NULL)
        return;
    const uint32_t index = (uint32_t)(program - plan->programs);
    exec_plans_feed(session, program, STEPS * batch + step);
    exec_must(unet_session_set_batch(session, 3, step, batch, 10, 0.02f, &err), &err, "batch");
    for (uint32_t r = 0; poison != NULL && r < program->n_records; r++) {
        apply_poison(poison, session, index, r);
        exec_must(unet_session_run_record(session, name, r, &err), &err, name);
    }
    if (poison == NULL)
        exec_must(unet_session_run(session, name, &err), &err, name);
    else
        apply_poison(poison, session, index, program->n_records);
    for (uint32_t i = 0; i < program->n_ports; i++) {
        if (program->ports[i].direction == PLAN_OUT)
            append_tensor(trace, session, program->ports[i].tensor);
    }
}

/* Training steps, each with validation and inference after it. */
static struct trace run_plan(const struct plan *plan, uint32_t n_steps, struct poison *poison) {
    uint32_t *methods = all_methods(plan);
    const struct unet_session_options options = {.stepped = poison != NULL, .methods = methods};
    const uint32_t batches = MAX(plan->model.accumulate, 1u);
    struct unet_session *session;
    struct trace trace = {0};
    struct err err = {0};
    exec_must(unet_session_open(device, plan, &options, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    for (uint32_t step = 0; step < n_steps; step++) {
        for (uint32_t batch = 0; batch + 1 < batches; batch++)
            run_program(session, "accumulate", step, batch, poison, &trace);
        run_program(session, "train_step", step, batches - 1, poison, &trace);
        run_program(session, "evaluate", step, 0, poison, &trace);
        run_program(session, "infer", step, 0, poison, &trace);
        append_lasting(&trace, session);
    }
    unet_session_close(session);
    free(methods);
    return trace;
}

/* The results are numbers, and not all the same. */
static void assert_numbers(const struct trace *trace) {
    const float *words = (const float *)(const void *)trace->bytes.items;
    size_t n_negative = 0, n_positive = 0;
    for (size_t i = 0; i < trace->bytes.count / 4; i++) {
        assert_true(isfinite(words[i]));
        n_negative += words[i] < 0.0f;
        n_positive += words[i] > 0.0f;
    }
    assert_true(n_negative > 10 && n_positive > 10);
}

static bool is_same(const struct trace *a, const struct trace *b) {
    return a->bytes.count == b->bytes.count &&
           memcmp(a->bytes.items, b->bytes.items, a->bytes.count) == 0;
}

static void assert_same(const struct trace *a, const struct trace *b, uint32_t number,
                        const char *what) {
    assert_int_equal(a->bytes.count, b->bytes.count);
    for (size_t i = 0; i < a->bytes.count; i++) {
        if (a->bytes.items[i] != b->bytes.items[i])
            fail_msg("plan %u, %s: byte %zu of the %zu that come out differs", number, what, i,
                     a->bytes.count);
    }
}

/* ---- tests ---- */

static struct trace run_poisoned(const struct plan *plan, uint32_t pattern, uint64_t *n_written) {
    struct plan changed = with_arena(plan);
    struct poison poison;
    open_poison(&poison, &changed, pattern);
    struct trace trace = run_plan(&changed, STEPS, &poison);
    *n_written = poison.n_written;
    close_poison(&poison, &changed);
    free(changed.tensors);
    return trace;
}

static void dead_memory_does_not_matter(void **state) {
    (void)state;
    static const uint32_t patterns[] = {SIGNALLING_NAN, HUGE_NUMBER};
    for (uint32_t number = 0; number < N_PLANS; number += stride()) {
        method = number % 2;
        struct plan *plan = make_plan(number);
        struct trace plain = run_plan(plan, STEPS, NULL);
        assert_numbers(&plain);
        for (size_t i = 0; i < ARRAY_LEN(patterns); i += stride()) {
            uint64_t n_written;
            struct trace poisoned = run_poisoned(plan, patterns[i], &n_written);
            assert_same(&plain, &poisoned, number, i == 0 ? "NaN" : "huge numbers");
            assert_true(n_written > plan->block_bytes[PLAN_BLOCK_ARENA] / 4);
            vec_free(&poisoned.bytes);
        }
        vec_free(&plain.bytes);
        plan_free(plan);
    }
}

/* The arena's words that a record reads, counted as dead before it: must be seen in the results, or
   the test above sees nothing. */
static void memory_alive_matters(void **state) {
    (void)state;
    struct plan *plan = make_plan(0), changed = with_arena(plan);
    const struct plan_program *program = plan_program_find(plan, "train_step");
    struct poison poison;
    open_poison(&poison, &changed, SIGNALLING_NAN);
    struct trace plain = run_plan(&changed, 1, &poison);
    struct liveness *liveness = &poison.programs[program - plan->programs];
    uint8_t *saved = malloc(liveness->n_words);
    uint32_t n_tried = 0;
    for (uint32_t r = 0; r < program->n_records; r += 3 * stride()) {
        uint8_t *row = liveness->alive + r * liveness->n_words;
        const struct plan_record *record = &program->records[r];
        memcpy(saved, row, liveness->n_words);
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
            const struct plan_tensor *tensor = &plan->tensors[record->tensors[b]];
            if (tensor->block == PLAN_BLOCK_ARENA &&
                (simulate_access(record, b) & KERNEL_READ) != 0)
                set_words(tensor, row, 0);
        }
        if (memcmp(saved, row, liveness->n_words) != 0) {
            struct trace poisoned = run_plan(&changed, 1, &poison);
            if (is_same(&plain, &poisoned))
                fail_msg("record %u (%s) reads NaN, and the results are the same", r,
                         record->label);
            vec_free(&poisoned.bytes);
            n_tried++;
        }
        memcpy(row, saved, liveness->n_words);
    }
    assert_true(n_tried > 4);
    free(saved);
    vec_free(&plain.bytes);
    close_poison(&poison, &changed);
    free(changed.tensors);
    plan_free(plan);
}

static void places_do_not_matter(void **state) {
    (void)state;
    for (uint32_t number = 0; number < N_PLANS; number += stride()) {
        struct plan *plan = make_plan(number);
        struct trace plain = run_plan(plan, STEPS, NULL);
        assert_numbers(&plain);
        for (uint32_t i = 0; i < 2 * PLACEMENTS; i += 2 * stride() - 1) {
            struct relocation relocation;
            struct err err = {0};
            assert_true(
                relocate_plan(plan, RELOCATE_LEGAL, i, i < PLACEMENTS ? 0 : GAPS, &relocation));
            exec_must(plan_verify(plan, NULL, &err), &err, "other places");
            assert_memory_not_equal(plan->tensors, relocation.tensors,
                                    plan->n_tensors * sizeof(*plan->tensors));
            struct trace moved = run_plan(plan, STEPS, NULL);
            assert_same(&plain, &moved, number, "other places");
            vec_free(&moved.bytes);
            relocate_undo(plan, &relocation);
        }
        vec_free(&plain.bytes);
        plan_free(plan);
    }
}

/* But for the room that they leave to methods, whose results differ in their last bits. */
static void passes_do_not_matter(void **state) {
    (void)state;
    static const char *const disable[] = {"methods,mask,index,fuse,order,skip,inplace",
                                          "methods,index",
                                          "methods,fuse",
                                          "methods,order",
                                          "methods,skip",
                                          "methods,inplace",
                                          "methods,mask"};
    for (uint32_t number = 0; number < ARRAY_LEN(models); number += stride()) {
        struct plan *plan = compile(&models[number], "methods");
        struct trace all = run_plan(plan, 2, NULL);
        assert_numbers(&all);
        for (size_t i = 0; i < ARRAY_LEN(disable); i += stride()) {
            struct plan *other = compile(&models[number], disable[i]);
            struct trace less = run_plan(other, 2, NULL);
            assert_same(&all, &less, EXEC_PLANS + number, disable[i]);
            vec_free(&less.bytes);
            plan_free(other);
        }
        vec_free(&all.bytes);
        plan_free(plan);
    }
}

/* ---- sums in another order ---- */

static struct unet_session *train_session(const struct plan *plan) {
    struct unet_session *session;
    struct err err = {0};
    struct trace trace = {0};
    exec_must(unet_session_open(device, plan, NULL, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    for (uint32_t step = 0; step < STEPS; step++)
        run_program(session, "train_step", step, 0, NULL, &trace);
    vec_free(&trace.bytes);
    return session;
}

/* Masks of leaky activations before a sum instead of after it. */
static void leaky_masks_stay_within_rounding(void **state) {
    (void)state;
    struct plan *with = exec_plans_make_without(1, ""),
                *without = exec_plans_make_without(1, "mask");
    struct unet_session *a = train_session(with), *b = train_session(without);
    struct err err = {0};
    uint32_t n_different = 0;
    assert_int_equal(with->n_params, without->n_params);
    for (uint32_t i = 0; i < with->n_params; i++) {
        const uint64_t size_bytes = with->tensors[with->params[i].tensor].size_bytes;
        const uint32_t *dims = with->params[i].dims;
        size_t count = 1;
        float *x = malloc(size_bytes), *y = malloc(size_bytes), largest = 0;
        for (uint32_t d = 0; d < with->params[i].rank; d++)
            count *= dims[d];
        exec_must(unet_session_read_param(a, i, -1, x, &err), &err, with->params[i].name);
        exec_must(unet_session_read_param(b, i, -1, y, &err), &err, with->params[i].name);
        for (size_t e = 0; e < count; e++)
            largest = fmaxf(largest, fabsf(x[e]));
        for (size_t e = 0; e < count; e++) {
            n_different += x[e] != y[e];
            if (!(fabsf(x[e] - y[e]) <= ROUNDING * largest))
                fail_msg("%s[%zu]: %.9g, without the pass mask %.9g", with->params[i].name, e,
                         (double)x[e], (double)y[e]);
        }
        free(x);
        free(y);
    }
    assert_true(n_different > 0); /* else this belongs to passes_do_not_matter */
    unet_session_close(a);
    unet_session_close(b);
    plan_free(with);
    plan_free(without);
}

/* ---- AddressSanitizer ---- */

/* Runs a training step whose first convolution does not own the end of what it writes. */
static void overrun(void) {
    struct unet_device *cpu;
    struct exec *exec;
    struct err err = {0};
    struct plan *plan = make_plan(0);
    struct plan_program *program = (struct plan_program *)plan_program_find(plan, "train_step");
    bool *programs = calloc(plan->n_programs, sizeof(bool));
    programs[program - plan->programs] = true;
    for (uint32_t r = 0; r < program->n_records; r++) {
        if (program->records[r].kernel == KERNEL_ID_conv_fwd) {
            plan->tensors[program->records[r].tensors[3]].size_bytes -= PLAN_ALIGNMENT;
            break;
        }
    }
    exec_must(unet_device_open(&(struct unet_device_options){.select = "cpu"}, &cpu, &err), &err,
              "device");
    struct plan_chunks chunks;
    plan_chunks_derive(plan, NULL, &chunks);
    struct exec_request request = {.plan = plan, .programs = programs, .chunks = &chunks};
    request.limits = cpu->backend->limits(cpu, plan);
    exec_must(exec_open(cpu, &request, &exec, &err), &err, "executor");
    exec->ops->run(exec, (uint32_t)(program - plan->programs), &err);
}

static void touching_other_memory_is_reported(void **state) {
    (void)state;
    char text[4096] = "";
    int ends[2], status;
    size_t length = 0;
    ssize_t got;
    if (!CPU_GUARD)
        skip();
    assert_int_equal(pipe(ends), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        overrun();
        _exit(0);
    }
    close(ends[1]);
    while ((got = read(ends[0], text + length, sizeof(text) - 1 - length)) > 0)
        length += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    if (strstr(text, "ERROR: AddressSanitizer") == NULL)
        fail_msg("no report of AddressSanitizer, but: %s", text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touching_other_memory_is_reported),
        cmocka_unit_test(dead_memory_does_not_matter),
        cmocka_unit_test(memory_alive_matters),
        cmocka_unit_test(places_do_not_matter),
        cmocka_unit_test(passes_do_not_matter),
        cmocka_unit_test(leaky_masks_stay_within_rounding),
    };
    struct err err = {0};
    if (!unet_device_open(NULL, &device, &err)) {
        fprintf(stderr, "test_arena: %s\n", err.text);
        return 1;
    }
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    return failed || messages > 0;
}
