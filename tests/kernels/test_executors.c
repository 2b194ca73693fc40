/*
 * test_executors.c: the Vulkan executor and the native one against each other, over whole plans.
 *
 * Record by record: before each record both executors hold the same bits in every block; after it
 * the tensors that it wrote are compared, element by element, and the native one gets what the
 * Vulkan one has. So every tensor of every program is compared, those in memory that is used again
 * later too, and a difference is held against the bound of one kernel: gamma(k) * sum |a||b|, k
 * the length of the sum (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1), for
 * either side. The sum of magnitudes is the same record on the native executor with the absolute
 * values of its inputs.
 *
 * Step by step: both run training steps on their own, and stay together.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/exec.h"
#include "tests/kernels/exec_plans.h"

#define UNIT_ROUNDOFF 0x1p-24
#define STEPS 4
/* Of the largest magnitude in a tensor after STEPS training steps, as in test_programs.c. */
#define TOLERANCE 1e-4

static struct unet_device *vulkan, *native;

/* ---- bounds ---- */

enum bound { BOUND_EXACT, BOUND_SUM, BOUND_LARGEST, BOUND_WINOGRAD };

struct judge {
    enum bound bound;
    double terms;
};

/* How far one executor may be from the truth in what a kernel writes to a binding. */
static struct judge judge_of(enum kernel_id id, uint32_t binding, const union kernel_params *p) {
    switch (id) {
    case KERNEL_ID_conv_fwd:
    case KERNEL_ID_conv_dgrad:
        return (struct judge){BOUND_SUM, p->conv.c_in * p->conv.kh * p->conv.kw + 2};
    case KERNEL_ID_conv_wgrad:
        return (struct judge){BOUND_SUM,
                              (double)p->conv_wgrad.n * p->conv_wgrad.h_out * p->conv_wgrad.w_out};
    case KERNEL_ID_upconv_fwd:
        return (struct judge){BOUND_SUM, p->upconv.c_in + 2};
    case KERNEL_ID_upconv_dgrad:
        return (struct judge){BOUND_SUM,
                              p->upconv_dgrad.c_out * p->upconv_dgrad.k * p->upconv_dgrad.k + 2};
    case KERNEL_ID_upconv_wgrad:
        return (struct judge){BOUND_SUM, (double)p->upconv_wgrad.n * p->upconv_wgrad.h_in *
                                             p->upconv_wgrad.w_in};
    case KERNEL_ID_wgrad_reduce:
        return (struct judge){BOUND_SUM, p->wgrad_reduce.splits};
    case KERNEL_ID_bias_grad:
        return (struct judge){BOUND_SUM, (double)p->bias_grad.n * p->bias_grad.h * p->bias_grad.w};
    case KERNEL_ID_maxpool_bwd:
        return (struct judge){BOUND_SUM, p->maxpool_bwd.kernel * p->maxpool_bwd.kernel};
    /* roundings as in docs/runtime.md */
    case KERNEL_ID_winograd_weights:
        return (struct judge){BOUND_WINOGRAD, 10};
    case KERNEL_ID_winograd_input:
        return (struct judge){BOUND_WINOGRAD, 8};
    case KERNEL_ID_winograd_product:
        return (struct judge){BOUND_WINOGRAD, p->winograd_product.c_in + 8 + 2};
    /* exponentials and logarithms: see softmax_and_loss in test_kernels.c */
    case KERNEL_ID_softmax:
        return (struct judge){BOUND_LARGEST, 32 + p->softmax.k};
    case KERNEL_ID_softmax_loss:
        return (struct judge){BOUND_LARGEST,
                              32 + p->softmax_loss.k + (binding == 4 ? LOSS_PIXELS_PER_GROUP : 0)};
    case KERNEL_ID_loss_reduce:
        return (struct judge){BOUND_LARGEST, p->loss_reduce.count + 1};
    case KERNEL_ID_softmax_loss_grad:
        return (struct judge){BOUND_LARGEST, 4};
    /* a few products and sums, which a driver may fuse; Adam divides by a root */
    case KERNEL_ID_sgd:
        return (struct judge){BOUND_LARGEST, 8};
    case KERNEL_ID_adam:
        return (struct judge){BOUND_LARGEST, 32};
    default:
        return (struct judge){BOUND_EXACT, 0}; /* selections, copies, one rounding */
    }
}

/* ---- executors that run one record at a time ---- */

struct side {
    struct exec *exec;
    struct plan_chunks *chunks;
};

/* The records of all programs of a plan, each as a program of its own. */
static struct plan split(const struct plan *plan) {
    struct plan parts = *plan;
    parts.n_programs = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        parts.n_programs += plan->programs[i].n_records;
    parts.programs = calloc(parts.n_programs, sizeof(*parts.programs));
    uint32_t next = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        for (uint32_t j = 0; j < plan->programs[i].n_records; j++) {
            parts.programs[next] = plan->programs[i];
            parts.programs[next].records += j;
            parts.programs[next++].n_records = 1;
        }
    }
    return parts;
}

static struct side open_side(struct unet_device *device, const struct plan *parts) {
    struct side side = {0};
    struct err err = {0};
    bool *programs = malloc(parts->n_programs * sizeof(bool));
    struct exec_request request = {
        .plan = parts, .limits = device->backend->limits(device, parts), .programs = programs};
    memset(programs, true, parts->n_programs);
    side.chunks = calloc(1, sizeof(*side.chunks));
    plan_chunks_derive(parts, NULL, side.chunks);
    request.chunks = side.chunks;
    exec_must(exec_open(device, &request, &side.exec, &err), &err, "executor");
    free(programs);
    return side;
}

static void close_side(struct side *side) {
    side->exec->ops->close(side->exec);
    plan_chunks_free(side->chunks);
    free(side->chunks);
}

static void get(struct side *side, enum plan_block block, uint64_t offset_bytes, void *data,
                uint64_t size_bytes) {
    struct err err = {0};
    exec_must(side->exec->ops->download(side->exec, block, offset_bytes, data, size_bytes, &err),
              &err, plan_block_names[block]);
}

static void put(struct side *side, enum plan_block block, uint64_t offset_bytes, const void *data,
                uint64_t size_bytes) {
    struct err err = {0};
    exec_must(side->exec->ops->upload(side->exec, block, offset_bytes, data, size_bytes, &err),
              &err, plan_block_names[block]);
}

static void run_part(struct side *side, uint32_t part) {
    struct err err = {0};
    exec_must(side->exec->ops->run(side->exec, part, &err), &err, "run");
}

/* The blocks of a session that has run a few steps, after feeding a program; the arena holds no
   numbers. */
static void start(struct side *sides[], size_t n_sides, struct unet_session *session,
                  const struct plan_program *program) {
    const struct plan *plan = unet_session_plan(session);
    struct err err = {0};
    exec_plans_feed(session, program, STEPS);
    exec_plans_poison(session);
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->base != i)
            continue;
        void *data = malloc(tensor->size_bytes);
        exec_must(unet_session_read_tensor(session, i, data, &err), &err, tensor->name);
        for (size_t s = 0; s < n_sides; s++)
            put(sides[s], tensor->block, tensor->offset_bytes, data, tensor->size_bytes);
        free(data);
    }
}

/* ---- comparing ---- */

struct check {
    const struct plan *plan;
    const struct plan_record *record;
    struct side *vulkan, *native, *magnitudes;
    uint32_t n_compared;
};

/* Whether a word of a tensor belongs to one of its images, not to what lies between them. */
static bool belongs(const struct plan_tensor *tensor, uint64_t word) {
    const uint64_t image =
        (uint64_t)tensor->shape.c * (uint64_t)tensor->shape.h * (uint64_t)tensor->shape.w;
    return tensor->layout != PLAN_LAYOUT_PLANES || word % tensor->stride_n < image;
}

static float *read_words(struct side *side, const struct plan_tensor *tensor) {
    float *words = malloc(tensor->size_bytes);
    get(side, tensor->block, tensor->offset_bytes, words, tensor->size_bytes);
    return words;
}

static double largest_of(struct check *check, uint32_t binding) {
    const struct plan_tensor *tensor = &check->plan->tensors[check->record->tensors[binding]];
    float *words = read_words(check->magnitudes, tensor); /* of what the record has read */
    double largest = 0;
    for (uint64_t i = 0; i < tensor->size_bytes / 4; i++)
        largest = belongs(tensor, i) ? fmax(largest, fabs((double)words[i])) : largest;
    free(words);
    return largest;
}

/*
 * The most that a result of one of the steps of Winograd's algorithm can be, all signs taken away:
 * the largest sum of magnitudes in a row of G, B' or A', for rows and columns, times the largest
 * inputs.
 */
static double winograd_scale(struct check *check, const union kernel_params *params) {
    const double p = 0.625, q = 1.5;
    const double g = (1 + p + p * p) / (2 * p * p * (q * q - p * p)), b = (1 + p) * (1 + q * q);
    const double a = 2 * p * p * p + 2 * q * q * q + 1;
    const struct winograd_product_params *y = &params->winograd_product;
    if (check->record->kernel == KERNEL_ID_winograd_weights)
        return g * g * largest_of(check, 0);
    if (check->record->kernel == KERNEL_ID_winograd_input)
        return b * b * largest_of(check, 0);
    const double bias = y->epilogue & EPILOGUE_BIAS ? largest_of(check, 2) : 0;
    const double sum = a * a * y->c_in * largest_of(check, 0) * largest_of(check, 1);
    return (sum + bias) * fmax(1, (double)y->slope);
}

static void compare(struct check *check, uint32_t binding, const float *a, const float *b,
                    const float *magnitudes) {
    const struct plan_tensor *tensor = &check->plan->tensors[check->record->tensors[binding]];
    union kernel_params params;
    memcpy(params.words, check->record->params, sizeof(params.words));
    const struct judge judge = judge_of(check->record->kernel, binding, &params);
    const double ku = judge.terms * UNIT_ROUNDOFF;
    double largest = 0;
    if (tensor->type == PLAN_TYPE_U32) { /* where maxima were: no numbers */
        assert_memory_equal(a, b, tensor->size_bytes);
        return;
    }
    for (uint64_t i = 0; i < tensor->size_bytes / 4; i++) {
        if (belongs(tensor, i))
            largest = fmax(largest, fabs((double)a[i]));
    }
    if (judge.bound == BOUND_WINOGRAD)
        largest = winograd_scale(check, &params);
    for (uint64_t i = 0; i < tensor->size_bytes / 4; i++) {
        if (!belongs(tensor, i))
            continue;
        double allowed = 0;
        if (judge.bound == BOUND_SUM)
            allowed = 2 * ku / (1 - ku) * (double)magnitudes[i];
        else if (judge.bound == BOUND_LARGEST)
            allowed = 2 * ku * largest;
        else if (judge.bound == BOUND_WINOGRAD)
            allowed = 2 * ku / (1 - ku) * largest;
        check->n_compared++;
        if (!(fabs((double)a[i] - (double)b[i]) <= allowed))
            fail_msg("%s (%s): %s[%llu]: %.9g on Vulkan, %.9g on the CPU, allowed %.3g",
                     check->record->label, kernel_table[check->record->kernel].name, tensor->name,
                     (unsigned long long)i, (double)a[i], (double)b[i], allowed);
    }
}

/* Gives the side for magnitudes the absolute values of what the record will read; but the gradient
   of pooling compares its input, whose windows must stay what they are. */
static void put_magnitudes(struct check *check) {
    const struct plan_record *record = check->record;
    const struct kernel_info *info = &kernel_table[record->kernel];
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const struct plan_tensor *tensor = &check->plan->tensors[record->tensors[i]];
        if (!(info->bindings[i].access & KERNEL_READ))
            continue;
        const bool keep =
            tensor->type == PLAN_TYPE_U32 || (record->kernel == KERNEL_ID_maxpool_bwd && i == 0);
        float *words = read_words(check->vulkan, tensor);
        for (uint64_t e = 0; e < tensor->size_bytes / 4 && !keep; e++)
            words[e] = fabsf(words[e]);
        put(check->magnitudes, tensor->block, tensor->offset_bytes, words, tensor->size_bytes);
        free(words);
    }
}

static void check_outputs(struct check *check) {
    const struct plan_record *record = check->record;
    const struct kernel_info *info = &kernel_table[record->kernel];
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const struct plan_tensor *tensor = &check->plan->tensors[record->tensors[i]];
        if (!(info->bindings[i].access & KERNEL_WRITE))
            continue;
        float *a = read_words(check->vulkan, tensor), *b = read_words(check->native, tensor);
        float *magnitudes = read_words(check->magnitudes, tensor);
        compare(check, i, a, b, magnitudes);
        put(check->native, tensor->block, tensor->offset_bytes, a, tensor->size_bytes);
        free(a);
        free(b);
        free(magnitudes);
    }
}

static struct unet_session *trained_session(const struct plan *plan) {
    struct unet_session *session;
    struct err err = {0};
    exec_must(unet_session_open(native, plan, NULL, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    for (uint32_t step = 0; step < STEPS; step++) {
        exec_plans_feed(session, plan_program_find(plan, "train_step"), step);
        exec_must(unet_session_run(session, "train_step", &err), &err, "run");
    }
    return session;
}

static void check_plan(const struct plan *plan) {
    struct plan parts = split(plan);
    struct side v = open_side(vulkan, &parts), n = open_side(native, &parts),
                m = open_side(native, &parts);
    struct side *sides[] = {&v, &n, &m};
    struct unet_session *session = trained_session(plan);
    struct check check = {.plan = plan, .vulkan = &v, .native = &n, .magnitudes = &m};
    uint32_t part = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        start(sides, ARRAY_LEN(sides), session, &plan->programs[i]);
        for (uint32_t j = 0; j < plan->programs[i].n_records; j++, part++) {
            check.record = &plan->programs[i].records[j];
            put_magnitudes(&check);
            for (size_t s = 0; s < ARRAY_LEN(sides); s++)
                run_part(sides[s], part);
            check_outputs(&check);
        }
    }
    assert_true(check.n_compared > 1000);
    unet_session_close(session);
    for (size_t s = 0; s < ARRAY_LEN(sides); s++)
        close_side(sides[s]);
    free(parts.programs);
}

static void every_tensor_agrees(void **state) {
    (void)state;
    for (uint32_t number = 0; number < EXEC_PLANS; number++) {
        struct plan *plan = exec_plans_make(number);
        check_plan(plan);
        plan_free(plan);
    }
}

/* ---- whole steps ---- */

static struct unet_session *open_session(struct unet_device *device, const struct plan *plan) {
    struct unet_session *session;
    struct err err = {0};
    exec_must(unet_session_open(device, plan, NULL, &session, &err), &err, "session");
    exec_must(unet_session_init_weights(session, 1, &err), &err, "weights");
    return session;
}

static void run_all(struct unet_session *session, uint32_t step) {
    const struct plan *plan = unet_session_plan(session);
    struct err err = {0};
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        exec_plans_feed(session, &plan->programs[i], step);
        exec_must(unet_session_run(session, plan->programs[i].name, &err), &err, "run");
    }
}

static void compare_sessions(struct unet_session *a, struct unet_session *b, uint32_t number,
                             uint32_t step) {
    const struct plan *plan = unet_session_plan(a);
    struct err err = {0};
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        const struct plan_tensor *tensor = &plan->tensors[i];
        if (tensor->block == PLAN_BLOCK_ARENA || tensor->type == PLAN_TYPE_U32 || tensor->base != i)
            continue;
        float *x = malloc(tensor->size_bytes), *y = malloc(tensor->size_bytes);
        double largest = 1e-6;
        exec_must(unet_session_read_tensor(a, i, x, &err), &err, tensor->name);
        exec_must(unet_session_read_tensor(b, i, y, &err), &err, tensor->name);
        for (uint64_t e = 0; e < tensor->size_bytes / 4; e++)
            largest = fmax(largest, fabs((double)x[e]));
        for (uint64_t e = 0; e < tensor->size_bytes / 4; e++) {
            if (!(fabs((double)x[e] - (double)y[e]) <= TOLERANCE * largest))
                fail_msg("plan %u, step %u: %s[%llu]: %.9g on Vulkan, %.9g on the CPU", number,
                         step, tensor->name, (unsigned long long)e, (double)x[e], (double)y[e]);
        }
        free(x);
        free(y);
    }
}

static void training_stays_together(void **state) {
    (void)state;
    for (uint32_t number = 0; number < EXEC_PLANS; number++) {
        struct plan *plan = exec_plans_make(number);
        struct unet_session *a = open_session(vulkan, plan), *b = open_session(native, plan);
        for (uint32_t step = 0; step < STEPS; step++) {
            run_all(a, step);
            run_all(b, step);
            compare_sessions(a, b, number, step);
        }
        unet_session_close(a);
        unet_session_close(b);
        plan_free(plan);
    }
}

int main(void) {
    struct err err = {0};
    if (!unet_device_open(&(struct unet_device_options){.select = "vulkan"}, &vulkan, &err) ||
        !unet_device_open(&(struct unet_device_options){.select = "cpu"}, &native, &err)) {
        fprintf(stderr, "test_executors: %s\n", err.text);
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tensor_agrees),
        cmocka_unit_test(training_stays_together),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    const uint32_t messages = unet_device_validation_count(vulkan);
    unet_device_close(vulkan);
    unet_device_close(native);
    return failed || messages;
}
