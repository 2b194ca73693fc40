/*
 * fixture.c: see fixture.h.
 */
#include "tests/kernels/fixture.h"

#include "common/rng.h"

#define GUARD 0x7fc0dead

struct err err;

static const struct shape flat_shape = {1, 1, 1, COUNT};
static const struct shape conv_shape = {6, 3, 3, 2}; /* out, in, kh, kw */
static const struct shape up_shape = {5, 4, 2, 2};

static uint32_t add_guard(struct hand *hand, enum plan_block block) {
    const uint32_t index =
        hand_plan_tensor(hand->plan, "guard", block, PLAN_LAYOUT_FLAT, (struct shape){1, 1, 1, 64});
    hand->guards[hand->n_guards++] = index;
    return index;
}

static void add_sum(struct hand *hand) {
    struct plan *plan = hand->plan;
    struct plan_program *program = hand_plan_program(plan, "sum");
    const struct add_params params = {1, COUNT, COUNT, COUNT, COUNT};
    hand_plan_port(plan, program, "a", PLAN_IN, hand->a);
    hand_plan_port(plan, program, "b", PLAN_IN, hand->b);
    hand_plan_port(plan, program, "c", PLAN_IN, hand->c);
    hand_plan_port(plan, program, "y", PLAN_OUT, hand->y);
    hand_plan_record(plan, program, "a + b", KERNEL_ID_add, (uint32_t[]){hand->a, hand->b, hand->t},
                     &params, false);
    hand_plan_record(plan, program, "+ c", KERNEL_ID_add, (uint32_t[]){hand->t, hand->c, hand->y},
                     &params, true);
    hand_plan_finish(plan, program);
}

static void add_train(struct hand *hand, uint32_t control) {
    struct plan *plan = hand->plan;
    const struct plan_param *param = &plan->params[hand->weights];
    struct plan_program *program = hand_plan_program(plan, "train_step");
    const struct sgd_params params = {
        .count = (uint32_t)(plan->tensors[param->tensor].size_bytes / 4), .momentum = 0.5f};
    hand_plan_port(plan, program, "gradient", PLAN_IN, hand->gradient);
    hand_plan_record(plan, program, "update", KERNEL_ID_sgd,
                     (uint32_t[]){param->tensor, hand->gradient, param->states[0], control},
                     &params, false);
    hand_plan_finish(plan, program);
}

/* The weights as they lie in memory, through an activation of slope 1. */
static void add_infer(struct hand *hand, uint32_t out) {
    struct plan *plan = hand->plan;
    const uint32_t weights = plan->params[hand->weights].tensor;
    const uint32_t count = (uint32_t)(plan->tensors[weights].size_bytes / 4);
    struct plan_program *program = hand_plan_program(plan, "infer");
    const struct act_fwd_params params = {1, count, count, count, 1.0f};
    hand_plan_port(plan, program, "out", PLAN_OUT, out);
    hand_plan_record(plan, program, "copy", KERNEL_ID_act_fwd, (uint32_t[]){weights, out}, &params,
                     false);
    hand_plan_finish(plan, program);
}

struct hand make_hand(void) {
    struct hand hand = {.plan = hand_plan_new("by hand")};
    struct plan *plan = hand.plan;
    add_guard(&hand, PLAN_BLOCK_IO);
    hand.a = hand_plan_tensor(plan, "a", PLAN_BLOCK_IO, PLAN_LAYOUT_FLAT, flat_shape);
    hand.b = hand_plan_tensor(plan, "b", PLAN_BLOCK_IO, PLAN_LAYOUT_FLAT, flat_shape);
    hand.c = hand_plan_tensor(plan, "c", PLAN_BLOCK_IO, PLAN_LAYOUT_FLAT, flat_shape);
    add_guard(&hand, PLAN_BLOCK_IO);
    hand.y = hand_plan_tensor(plan, "y", PLAN_BLOCK_IO, PLAN_LAYOUT_FLAT, flat_shape);
    add_guard(&hand, PLAN_BLOCK_IO);
    hand.gradient =
        hand_plan_tensor(plan, "gradient", PLAN_BLOCK_IO, PLAN_LAYOUT_WEIGHTS, conv_shape);
    const uint32_t out = hand_plan_tensor(plan, "out", PLAN_BLOCK_IO, PLAN_LAYOUT_FLAT,
                                          (struct shape){1, 1, 1, 144});
    add_guard(&hand, PLAN_BLOCK_ARENA);
    hand.t = hand_plan_tensor(plan, "t", PLAN_BLOCK_ARENA, PLAN_LAYOUT_FLAT, flat_shape);
    hand.weights = hand_plan_param(plan, "conv.weight", conv_shape, false, PLAN_INIT_NORMAL, 0.5f);
    hand.bias =
        hand_plan_param(plan, "conv.bias", (struct shape){6, 1, 1, 1}, false, PLAN_INIT_ZERO, 0.0f);
    hand.up = hand_plan_param(plan, "up.weight", up_shape, true, PLAN_INIT_UNIFORM, 0.25f);
    const uint32_t control = hand_plan_tensor(plan, "control", PLAN_BLOCK_CONTROL, PLAN_LAYOUT_FLAT,
                                              (struct shape){1, 1, 1, CONTROL_WORDS});
    add_sum(&hand);
    add_train(&hand, control);
    add_infer(&hand, out);
    return hand;
}

void set_guards(struct unet_session *session, const struct hand *hand) {
    uint32_t words[64];
    for (uint32_t i = 0; i < 64; i++)
        words[i] = GUARD;
    for (uint32_t i = 0; i < hand->n_guards; i++)
        must(unet_session_write_tensor(session, hand->guards[i], words, &err));
}

void check_guards(struct unet_session *session, const struct hand *hand) {
    uint32_t words[64];
    for (uint32_t i = 0; i < hand->n_guards; i++) {
        must(unet_session_read_tensor(session, hand->guards[i], words, &err));
        for (uint32_t j = 0; j < 64; j++)
            assert_int_equal(words[j], GUARD);
    }
}

void fill(float *data, size_t count, uint64_t seed) {
    struct rng rng = rng_stream(seed, 1, 2);
    for (size_t i = 0; i < count; i++)
        data[i] = (float)rng_range(&rng, -1.0, 1.0);
}

void run_sum(struct unet_session *session, uint64_t seed) {
    float a[COUNT], b[COUNT], c[COUNT], y[COUNT];
    fill(a, COUNT, seed);
    fill(b, COUNT, seed + 1);
    fill(c, COUNT, seed + 2);
    must(unet_session_write(session, "sum", "a", a, sizeof(a), &err));
    must(unet_session_write(session, "sum", "b", b, sizeof(b), &err));
    must(unet_session_write(session, "sum", "c", c, sizeof(c), &err));
    must(unet_session_run(session, "sum", &err));
    must(unet_session_read(session, "sum", "y", y, sizeof(y), &err));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_true(y[i] == (a[i] + b[i]) + c[i]);
}

/* ---- the device, with the environment a test asks for ---- */

struct unet_device *open_device(void) {
    struct unet_device *device = NULL;
    must(unet_device_open(NULL, &device, &err));
    return device;
}

bool device_is_vulkan(void) {
    struct unet_device *device = open_device();
    const bool answer = strcmp(unet_device_get_info(device)->backend, "vulkan") == 0;
    close_device(device);
    return answer;
}

void close_device(struct unet_device *device) {
    const uint32_t messages = unet_device_validation_count(device);
    unet_device_close(device);
    assert_int_equal(messages, 0);
}

void set_or_unset(const char *name, const char *value) {
    if (value != NULL)
        setenv(name, value, 1);
    else
        unsetenv(name);
}

struct path {
    const char *access, *staging, *threads;
};

static const struct path vulkan_paths[] = {{NULL, NULL, NULL},
                                           {"descriptor", NULL, NULL},
                                           {"address", NULL, NULL},
                                           {"descriptor", "1", NULL},
                                           {"address", "1", NULL}};
static const struct path cpu_paths[] = {
    {NULL, NULL, NULL}, {NULL, NULL, "1"}, {NULL, NULL, "3"}, {NULL, NULL, "16"}};

void each_path(void (*body)(struct unet_device *device, const struct hand *hand)) {
    const bool vulkan = device_is_vulkan();
    const struct path *paths = vulkan ? vulkan_paths : cpu_paths;
    const size_t n_paths = vulkan ? ARRAY_LEN(vulkan_paths) : ARRAY_LEN(cpu_paths);
    for (size_t i = 0; i < n_paths; i++) {
        set_or_unset("UNET_ACCESS", paths[i].access);
        set_or_unset("UNET_STAGING", paths[i].staging);
        set_or_unset("UNET_THREADS", paths[i].threads);
        struct unet_device *device = open_device();
        struct hand hand = make_hand();
        body(device, &hand);
        close_device(device);
        plan_free(hand.plan);
    }
    unsetenv("UNET_ACCESS");
    unsetenv("UNET_STAGING");
    unsetenv("UNET_THREADS");
}

struct unet_submissions run_step(struct unet_session *session, uint32_t step) {
    struct unet_submissions done;
    must(unet_session_set_step(session, 3, step, 10, 0, &err));
    unet_session_submissions(session, &done);
    must(unet_session_run(session, "train_step", &err));
    unet_session_submissions(session, &done);
    return done;
}
