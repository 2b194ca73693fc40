/*
 * test_plan.c: plan_verify on the plan of sample.h: accepted as it is, and rejected, with the right
 * message, when it is wrong in any of the ways tried here. The last test damages it in every way of
 * mutate.h at every place.
 */
#include "tests/plans/sample.h"

#include <stdio.h>

#include "common/rng.h"
#include "tests/plans/mutate.h"

/* --- helpers of the tests --- */

static void assert_accepted(const struct plan *plan) {
    struct err err = {0};
    if (!plan_verify(plan, NULL, &err))
        fail_msg("rejected: %s", err.text);
}

static void assert_rejected(const struct plan *plan, const char *part_of_message) {
    struct err err = {0};
    if (plan_verify(plan, NULL, &err))
        fail_msg("accepted, expected: %s", part_of_message);
    assert_int_equal(err.code, ERR_INPUT);
    if (strstr(err.text, part_of_message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, part_of_message);
}

static uint32_t find_tensor(const struct plan *plan, const char *name) {
    for (uint32_t i = 0; i < plan->n_tensors; i++) {
        if (strcmp(plan->tensors[i].name, name) == 0)
            return i;
    }
    fail_msg("no tensor %s", name);
    return 0;
}

static struct plan_record *find_record(struct plan *plan, const char *program, const char *label) {
    const struct plan_program *found = plan_program_find(plan, program);
    for (uint32_t i = 0; i < found->n_records; i++) {
        if (strcmp(found->records[i].label, label) == 0)
            return &found->records[i];
    }
    fail_msg("no record %s", label);
    return NULL;
}

/* --- valid plans --- */

static void test_valid(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    assert_accepted(plan);
    assert_null(simulate_plan(plan));
    /* infer by hand: cat 4096, pooled 512 and q 1024 bytes at the second convolution */
    assert_int_equal(plan_program_find(plan, "infer")->lower_bound_bytes, 4096 + 512 + 1024);
    assert_int_equal(plan_program_find(plan, "infer")->arena_bytes, 5632);
    assert_null(plan_program_find(plan, "evaluate"));
    assert_non_null(plan_port_find(plan_program_find(plan, "infer"), "probs"));
    assert_null(plan_port_find(plan_program_find(plan, "infer"), "loss"));
    for (int cls = 0; cls < PLAN_CLASS_COUNT; cls++) {
        const struct plan_limits limits = plan_limits_minimum(cls);
        struct err err = {0};
        if (!plan_verify(plan, &limits, &err))
            fail_msg("minimum of class %d: %s", cls, err.text);
    }
    plan_free(plan);
    plan_free(NULL);
}

/* --- wrong plans, one message each --- */

#define EDIT(expression, message)                                                                  \
    do {                                                                                           \
        struct plan *plan = build_plan();                                                          \
        expression;                                                                                \
        assert_rejected(plan, message);                                                            \
        plan_free(plan);                                                                           \
    } while (0)

#define TENSOR(name) plan->tensors[find_tensor(plan, name)]
#define INFER(label) find_record(plan, "infer", label)
#define STEP(label) find_record(plan, "train_step", label)

static void test_wrong_tensors(void **state) {
    (void)state;
    EDIT(TENSOR("q").offset_bytes += 4, "tensor q: offset 4100 is not a multiple of 256");
    EDIT(TENSOR("q").size_bytes -= 4, "tensor q: 1020 bytes, its shape needs 1024");
    EDIT(TENSOR("q").shape.h = 0, "tensor q: a shape of 2 x 8 x 0 x 4");
    EDIT(TENSOR("q").shape.h = -4, "tensor q: a shape of 2 x 8 x -4 x 4");
    EDIT(TENSOR("q").stride_n = 127, "tensor q: a shape of 2 x 8 x 4 x 4 with stride 127");
    EDIT(TENSOR("dw").stride_n = 1, "tensor dw: a stride without planes");
    EDIT(TENSOR("q").offset_bytes = 1u << 20, "tensor q: bytes 1048576 and 1024 following leave");
    EDIT(TENSOR("q").offset_bytes = (uint64_t)0 - 256, "following leave the block arena");
    EDIT(TENSOR("q").base = 1000, "tensor q: its base 1000 does not exist");
    EDIT(TENSOR("q").base = find_tensor(plan, "cat"), "tensor q: is no part of its base cat");
    EDIT(TENSOR("skip").offset_bytes += 256, "tensor skip: is no part of its base cat");
    EDIT(TENSOR("skip").stride_n = TENSOR("skip").size_bytes = 0, "tensor skip: a shape of");
    EDIT((TENSOR("skip").stride_n = 511, TENSOR("skip").size_bytes -= 4),
         "tensor skip: is no part");
    EDIT(TENSOR("skip").type = PLAN_TYPE_U32, "tensor skip: block or type differs");
    EDIT(TENSOR("cat").base = find_tensor(plan, "skip"), "tensor cat: is no part");
    EDIT(TENSOR("c2.bias").offset_bytes = TENSOR("c1.bias").offset_bytes,
         "tensors c1.bias and c2.bias overlap in the block weights");
    EDIT(plan->block_bytes[PLAN_BLOCK_IO] = UINT64_MAX, "the block io has 18446744073709551615");
    struct plan *plan = build_plan();
    const uint32_t a = find_tensor(plan, "f"), b = find_tensor(plan, "df");
    plan->tensors[b].offset_bytes = plan->tensors[a].offset_bytes;
    plan->tensors[a].base = b;
    plan->tensors[b].base = a;
    assert_rejected(plan, "its bases form a circle");
    plan_free(plan);
}

static void test_wrong_params(void **state) {
    (void)state;
    EDIT(plan->params[1].tensor = 999, "parameter c1.bias: tensor 999 does not exist");
    EDIT(plan->params[1].tensor = find_tensor(plan, "q"), "is not a tensor of floats of its own");
    EDIT(plan->params[1].tensor = plan->params[0].tensor, "belongs to parameter c1.weight already");
    EDIT(plan->params[0].dims[2] = 1, "parameter c1.weight: its dimensions");
    EDIT(plan->params[4].transposed = false, "parameter up.weight: its dimensions");
    EDIT(plan->params[1].rank = 2, "parameter c1.bias: its dimensions");
    EDIT(plan->params[1].name = "c1.weight", "two parameters are called c1.weight");
    EDIT(plan->n_params--, "belongs to no parameter");
    EDIT(plan->params[0].init_scale = -1, "initial values make no sense");
    EDIT((plan->params[0].states[0] = plan->params[1].states[0],
          plan->params[1].states[0] = find_tensor(plan, "c1.m")),
         "state c1.bm has another size");
    EDIT(plan->params[0].accumulator = plan->params[0].states[0], "belongs to parameter c1.weight");
    EDIT(plan->params[1].accumulator = find_tensor(plan, "q"),
         "gradients of some parameters are accumulated");
}

static void test_wrong_model(void **state) {
    (void)state;
    EDIT(plan->model.batch = 0, "model: a size is zero");
    EDIT(plan->model.stride_h = 0, "model: core 4 x 4 of output 8 x 8 with step 0 x 2");
    EDIT(plan->model.core_w = 9, "model: core 4 x 9");
    EDIT(plan->model.n_classes = 1, "label 255: class 1 of 1");
    EDIT(plan->model.ignore_value = 0, "label 0 is both a class and ignored");
    EDIT(plan->model.in_h = 10, "program infer: port image: direction, type or shape");
    EDIT(plan->model.out_h = 10, "program infer: port probs: direction, type or shape");
    EDIT(plan->model.labels[0].last_value = 255, "label 0 is both a class and ignored");
    EDIT(plan->model.accumulate = 0, "gradients of 0 batches");
    EDIT(plan->model.accumulate = 2, "2 batches make an update, but the plan has no accumulators");
    EDIT(plan->model.sample_balance = 1.5f, "a share of 1.5 balanced samples");
    EDIT(plan->model.weights.balance = -1, "weights with balance -1");
    EDIT(plan->model.weights.border = -1, "border -1");
    EDIT(plan->model.weights.sigma = 0, "sigma 0");
    EDIT(plan->model.augment.elastic_grid = 1, "an elastic grid of 1 nodes");
    EDIT(plan->model.augment.mirror_probability = 2, "a probability is not between 0 and 1");
    EDIT(plan->model.augment.rotate_degrees = 181, "a deformation or rotation is out of range");
    EDIT(plan->model.augment.scale_min = 0, "magnification between 0 and 1");
    EDIT(plan->model.augment.grey_slope_max = 2, "a variation of grey values");
    uint32_t nan_bits = 0x7fc00000u;
    float not_a_number;
    memcpy(&not_a_number, &nan_bits, sizeof(not_a_number));
    EDIT(plan->model.learning_rate = not_a_number, "model: a number is not finite");
}

static void test_wrong_ports(void **state) {
    (void)state;
    EDIT(plan->programs[0].ports[0].tensor = 999, "port image: tensor 999 does not exist");
    EDIT(plan->programs[0].ports[0].tensor = find_tensor(plan, "q"), "is not a whole tensor of");
    EDIT(plan->programs[0].ports[1].name = "image", "program infer: port image: direction");
    EDIT((plan->programs[1].ports[3].name = "one", plan->programs[1].ports[4].name = "one"),
         "two ports are called one");
    EDIT(TENSOR("weights").offset_bytes = TENSOR("labels").offset_bytes,
         "ports labels and weights share memory");
    EDIT(plan->programs[0].n_records = 0, "program infer has no records");
    EDIT(plan->programs[1].name = "infer", "two programs are called infer");
    EDIT(plan->n_programs = 0, "no programs");
}

static void test_wrong_records(void **state) {
    (void)state;
    EDIT(INFER("pool")->kernel = (enum kernel_id)1000,
         "record 2 (pool): kernel 1000 does not exist");
    EDIT(INFER("pool")->tensors[1] = 77, "record 2 (pool): y: tensor 77 does not exist");
    EDIT(INFER("pool")->params[5] = 5, "kernel maxpool_fwd: the output is larger");
    EDIT(INFER("pool")->params[1] = 3, "record 2 (pool): x (tensor skip): the kernel's sizes");
    EDIT(INFER("pool")->params[4] = 256, "x (tensor skip): the kernel's stride");
    EDIT(INFER("pool")->params[0] = 3, "x (tensor skip): the kernel reaches beyond the end");
    EDIT(INFER("c1 act")->params[1] = 255, "x (tensor skip): the kernel's sizes");
    EDIT(INFER("c1 act")->tensors[1] = find_tensor(plan, "cat"), "y (tensor cat): the kernel's");
    EDIT(INFER("softmax")->params[2] = 32, "x (tensor logits): the kernel's sizes");
    EDIT(STEP("dropout")->tensors[1] = find_tensor(plan, "loss"), "wants the control buffer");
    EDIT(STEP("double")->tensors[1] = find_tensor(plan, "control"), "the kernel reaches beyond");
    EDIT(STEP("last.bias")->tensors[1] = find_tensor(plan, "control"), "the control buffer is no");
    EDIT(STEP("loss")->tensors[1] = find_tensor(plan, "weights"), "reads 32-bit unsigned numbers");
    EDIT(STEP("loss")->tensors[2] = find_tensor(plan, "labels"), "the kernel uses floats");
    EDIT(STEP("last.bias")->tensors[2] = find_tensor(plan, "c1.bm"), "m (tensor c1.bm): the");
    EDIT(STEP("last.weight")->tensors[2] = find_tensor(plan, "c2.m"), "with the states that the");
    EDIT(STEP("last transposed")->params[2] = 8, "the kernel's sizes are not the tensor's");
    /* The second image of up alone is hit. */
    EDIT(TENSOR("q").offset_bytes = 2048, "x (tensor q) and y (tensor up) overlap");
    /* In place is for a few kernels, and for the same tensor. */
    EDIT(INFER("c2 forward")->tensors[0] = find_tensor(plan, "q"), "x (tensor q): the kernel's");
    EDIT(STEP("last data gradient")->tensors[3] = find_tensor(plan, "f"),
         "record 12 (act backward): tensor df: reads undefined bytes"); /* f over the mask is right
                                                                         */
    EDIT(STEP("act backward")->tensors[2] = find_tensor(plan, "f"), "y (tensor f) and dx (tensor");
    EDIT(TENSOR("df").offset_bytes = 4096 - 256, "(tensor df) overlap, and one is written");
}

static void test_wrong_dispatches(void **state) {
    (void)state;
    EDIT(INFER("pool")->dispatch[0].groups[1] = 0, "GPU: 3 x 0 x 1 workgroups");
    EDIT(INFER("pool")->dispatch[1].groups[2] = 65536, "CPU: 3 x 2 x 65536 workgroups");
    EDIT(INFER("pool")->dispatch[1].shader = 2, "CPU: shader 2 does not exist");
    EDIT(INFER("pool")->dispatch[0].n_spec = 2, "GPU: 2 constants, must be 3");
    EDIT(INFER("pool")->dispatch[0].spec[2] = 0, "GPU: a workgroup of 64 x 1 x 0");
    EDIT(INFER("pool")->dispatch[0].spec[1] = 17, "GPU: a workgroup of 64 x 17 x 1");
    EDIT(INFER("pool")->dispatch[0].shared_bytes = 32772, "GPU: 32772 bytes of shared memory");
    EDIT((plan->shaders[0].code[0] = NULL, plan->shaders[0].code[1] = NULL), "any_gpu has no code");
    EDIT(plan->shaders[1].code[0] = &sample_code[1], "shader any_cpu: its code is not SPIR-V");
}

/* Takes a record out of its place and puts it before another. */
static void move_record(struct plan_record *from, struct plan_record *to) {
    const struct plan_record moved = *from;
    memmove(to + 1, to, (size_t)(from - to) * sizeof(*to));
    *to = moved;
}

static void test_wrong_memory(void **state) {
    (void)state;
    EDIT(INFER("c1 act")->barrier = false,
         "program infer: record 1 (c1 act): tensor skip: reads what was written as tensor skip in "
         "record 0, with no barrier between");
    EDIT(STEP("last transposed")->barrier = false,
         "tensor wt: writes what was read as tensor dw sums in record 8, with no barrier");
    EDIT(TENSOR("db").offset_bytes = TENSOR("dw").offset_bytes,
         "tensor db: writes what was written as tensor dw in record 8, with no barrier");
    EDIT(TENSOR("q").offset_bytes = 1024, "tensor cat: was overwritten by tensor q in record 3");
    EDIT(INFER("softmax")->tensors[0] = find_tensor(plan, "lg"),
         "tensor lg: was overwritten by tensor logits in record 6");
    EDIT(INFER("c1 forward")->tensors[3] = find_tensor(plan, "up"),
         "record 1 (c1 act): tensor skip: reads undefined bytes: nothing has written byte 1024");
    EDIT(STEP("loss")->tensors[0] = find_tensor(plan, "probs"), "tensor probs) overlap");
    EDIT(STEP("first forward")->tensors[3] = find_tensor(plan, "df"),
         "record 1 (dropout): tensor f: reads undefined bytes");
    EDIT(TENSOR("image").offset_bytes = TENSOR("weights").offset_bytes, "share memory");
    EDIT(plan->programs[0].n_records--, "program infer: output probs is never written");
    EDIT(plan->programs[1].name = "evaluate",
         "tensor c4.weight: program evaluate must not change parameters");
    EDIT(
        (plan->programs[1].ports[4].name = "given", plan->programs[1].ports[4].direction = PLAN_IN),
        "tensor probs: writes the input given, which is the host's");
    EDIT((STEP("last.weight")->barrier = true,
          move_record(STEP("last.weight"), STEP("last transposed"))),
         "tensor c4.weight: is used after its update in record 10");
    EDIT(plan->programs[0].arena_bytes += 256, "infer: arena of 5888 bytes, its tensors use 5632");
    EDIT(plan->programs[0].lower_bound_bytes -= 256,
         "lower bound of 5376 bytes, but 5632 are live");
    EDIT(plan->programs[0].naive_arena_bytes = 5000, "5000 bytes without sharing are fewer");
}

#define CHOICE plan->programs[0].choices[0]

static void test_wrong_choices(void **state) {
    (void)state;
    EDIT(CHOICE.name = "", "program infer: choice 0 has no name");
    EDIT(CHOICE.n_methods = 1, "choice c2 forward has 1 methods, must be 2 to 6");
    EDIT(CHOICE.n_methods = PLAN_METHOD_KIND_COUNT + 1, "choice c2 forward has 7 methods");
    EDIT(CHOICE.n_methods = 3, "choice c2 forward has two methods direct");
    EDIT((CHOICE.n_methods = 3, CHOICE.methods[2].kind = PLAN_METHOD_NARROW),
         "record 5 (up forward) is not where choice 4294967295, method 0 can be");
    EDIT(CHOICE.methods[1].kind = PLAN_METHOD_KIND_COUNT, "method 1 is of no known kind");
    EDIT(CHOICE.methods[1].kind = PLAN_METHOD_DIRECT, "has two methods direct");
    EDIT(plan->programs[0].n_choices = 0, "record 3 (c2 forward) is not where choice 0, method 0");
    EDIT(INFER("c2 forward")->choice = 1, "record 3 (c2 forward) is not where choice 1, method 0");
    EDIT(INFER("c2 forward")->choice = PLAN_NONE,
         "record 4 (c2 again) is not where choice 0, method 1 can be");
    EDIT(INFER("c2 again")->method = 0, "record 5 (up forward) is not where choice");
    EDIT(INFER("c2 again")->method = 2, "record 4 (c2 again) is not where choice 0, method 2");
    EDIT(INFER("c1 act")->method = 1, "record 1 (c1 act) is not where choice 4294967295, method 1");
    EDIT((INFER("up forward")->choice = 0, INFER("up forward")->method = 1,
          INFER("c2 again")->choice = PLAN_NONE, INFER("c2 again")->method = 0),
         "record 4 (c2 again) is not where choice");
    EDIT((INFER("c2 forward")->choice = INFER("c2 again")->choice = PLAN_NONE,
          INFER("c2 again")->method = 0, INFER("c2 again")->barrier = true),
         "program infer: choice c2 forward has no records");
    EDIT((plan->programs[0].n_records = 4), "program infer: its last choice lacks a method");
}

/* Another tensor of that kind, at the end of the block. */
static uint32_t twin(struct plan *plan, const char *name) {
    struct plan_tensor *tensor = &plan->tensors[plan->n_tensors];
    *tensor = TENSOR(name);
    tensor->name = "twin";
    tensor->base = plan->n_tensors;
    tensor->offset_bytes = plan->block_bytes[tensor->block];
    plan->block_bytes[tensor->block] += align_up(tensor->size_bytes, PLAN_ALIGNMENT);
    return plan->n_tensors++;
}

/* What every method must leave behind, and what needs barriers. */
static void test_choice_memory(void **state) {
    (void)state;
    EDIT(INFER("c2 again")->tensors[3] = twin(plan, "q"),
         "record 5 (up forward): tensor q: reads byte 4096 of its block, which not all methods of "
         "an earlier choice write alike");
    /* the barrier of the method that may not run is executed with the other */
    EDIT(INFER("c2 forward")->barrier = false, "record 3 (c2 forward): tensor pooled: reads what "
                                               "was written as tensor pooled in record 2");
    /* both methods before, and each of them after */
    EDIT(INFER("up forward")->barrier = false,
         "record 5 (up forward): tensor q: reads what was written as tensor q in record 3");
    struct plan *plan = build_plan();
    INFER("c2 again")->barrier = true;
    assert_accepted(plan);
    INFER("c2 forward")->barrier = false;
    assert_rejected(plan, "record 3 (c2 forward): tensor pooled: reads what was written");
    plan_free(plan);
    /* the output is written by one method of a choice at the end only */
    plan = build_plan();
    struct plan_program *infer = &plan->programs[0];
    infer->n_choices = 2;
    infer->choices = (struct plan_choice[]){CHOICE, CHOICE};
    infer->records[8] = infer->records[7];
    infer->records[7].choice = infer->records[8].choice = 1;
    infer->records[8].method = 1;
    infer->n_records = 9;
    assert_accepted(plan);
    infer->records[8].tensors[1] = twin(plan, "probs");
    assert_rejected(plan, "record 8 (softmax): byte 1536 of the block io is not written alike by "
                          "all methods of choice c2 forward");
    plan_free(plan);
}

static void test_choice_limits(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    struct plan_limits limits = plan_limits_minimum(PLAN_CLASS_CPU);
    struct err err = {0};
    limits.max_groups[0] = 3;
    INFER("c2 again")->dispatch[PLAN_CLASS_CPU].groups[0] = 4;
    assert_true(plan_verify(plan, &limits, &err));
    assert_true(plan_method_fits(plan, &plan->programs[0], 0, 0, &limits, NULL));
    assert_false(plan_method_fits(plan, &plan->programs[0], 0, 1, &limits, &err));
    assert_non_null(strstr(err.text, "4 workgroups along axis 0"));
    INFER("c2 forward")->dispatch[PLAN_CLASS_CPU].groups[0] = 5;
    assert_false(plan_verify(plan, &limits, &err));
    if (strstr(err.text, "record 3 (c2 forward): tensor q: 5 workgroups along axis 0") == NULL)
        fail_msg("%s", err.text);
    plan_free(plan);
}

static void test_choice_lookup(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    enum plan_method_kind kind = PLAN_METHOD_DIRECT;
    uint32_t first, count;
    char text[PLAN_SHAPE_TEXT];
    assert_true(plan_method_find("winograd,direct", 8, &kind));
    assert_int_equal(kind, PLAN_METHOD_WINOGRAD);
    assert_false(plan_method_find("winogra", 7, &kind));
    assert_int_equal(plan_choice_find(&CHOICE, PLAN_METHOD_WINOGRAD), 1);
    assert_int_equal(plan_choice_find(&CHOICE, PLAN_METHOD_NARROW), PLAN_NONE);
    assert_int_equal(plan_choice_prefer(&CHOICE, PLAN_DEVICE_GPU, 3), 0); /* a tie */
    assert_int_equal(plan_choice_prefer(&CHOICE, PLAN_DEVICE_CPU_ADDRESS, 3), 1);
    assert_int_equal(plan_choice_prefer(&CHOICE, PLAN_DEVICE_CPU_ADDRESS, 1), 0);
    assert_int_equal(plan_choice_prefer(&CHOICE, PLAN_DEVICE_NATIVE, 0), PLAN_NONE);
    plan_method_records(&plan->programs[0], 0, 1, &first, &count);
    assert_int_equal(first, 4);
    assert_int_equal(count, 1);
    assert_string_equal(plan_choice_shape(&plan->programs[0], 0, text),
                        "conv_fwd n=2 c_in=4 h_in=4 w_in=4 x_stride_n=64 c_out=8 h_out=4 w_out=4 "
                        "y_stride_n=128 pad_h=1 pad_w=1 dilation=1 kh=3 kw=3 aux_stride_n=0 "
                        "epilogue=3 slope=0 plain_first=0 plain_count=0");
    plan_free(plan);
}

/* Splits the arena, at most twice. */
static void split(struct plan *plan, uint64_t first, uint64_t second) {
    static uint64_t splits[2];
    splits[0] = first, splits[1] = second;
    plan->splits[PLAN_BLOCK_ARENA] = splits;
    plan->n_splits[PLAN_BLOCK_ARENA] = second > 0 ? 2 : 1;
}

static void test_chunks(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    const struct plan_tensor *q = &TENSOR("q");
    const uint64_t at = q->offset_bytes, arena = plan->block_bytes[PLAN_BLOCK_ARENA];
    char message[128];
    split(plan, at, 0); /* cat before, all others behind */
    assert_int_equal(TENSOR("cat").offset_bytes + TENSOR("cat").size_bytes, at);
    assert_accepted(plan);
    split(plan, at, at + align_up(q->size_bytes, PLAN_ALIGNMENT));
    assert_accepted(plan);
    split(plan, at + PLAN_ALIGNMENT, 0);
    snprintf(message, sizeof(message),
             "tensor q: bytes %llu and 1024 following cross the end of "
             "chunk 0 of the block arena at %llu",
             (unsigned long long)at, (unsigned long long)at + PLAN_ALIGNMENT);
    assert_rejected(plan, message);
    plan_free(plan);
    EDIT(split(plan, at + 4, 0), "the block arena is split at 4100");
    EDIT(split(plan, 0, 0), "the block arena is split at 0");
    EDIT(split(plan, at, at), "the block arena is split at 4096");
    EDIT(split(plan, arena, 0), "the block arena is split at 14336");
    /* What a program uses of each chunk counts, not where its last tensor ends. */
    plan = build_plan();
    plan->tensors[find_tensor(plan, "q")].offset_bytes += 1u << 20;
    plan->block_bytes[PLAN_BLOCK_ARENA] += 1u << 20;
    assert_rejected(plan, "arena of 5632 bytes, its tensors use 1053696");
    split(plan, TENSOR("q").offset_bytes, 0);
    assert_rejected(plan, "arena of 5632 bytes, its tensors use 6656");
    plan_free(plan);
}

/* An output that another tensor writes over at the end. */
static void test_overwritten_output(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    /* The weights of the pixels move behind the loss; the probabilities of the training step follow
       the loss by less than they need. */
    plan->block_bytes[PLAN_BLOCK_IO] += 4096;
    TENSOR("loss").offset_bytes = TENSOR("probs").offset_bytes;
    plan->programs[1].n_ports = 4; /* without the output probs */
    assert_rejected(plan, "tensor probs: was overwritten by tensor loss in record 5");
    plan_free(plan);
}

/* copy_region writes a rectangle: what is around it must have been there before. */
static void test_partial_write(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    struct builder b = {.plan = plan};
    const struct embed_region_params embed = {2, 1, 8, 8, 64, 12, 12, 2, 2, 144};
    struct copy_region_params paste = {2, 1, 8, 8, 8, 8, 0, 0, 64, 12, 12, 4, 4, 144};
    const uint32_t image = find_tensor(plan, "image");
    b.next[PLAN_BLOCK_ARENA] = plan->block_bytes[PLAN_BLOCK_ARENA];
    const uint32_t large = add_tensor(&b, "large", PLAN_BLOCK_ARENA, PLAN_LAYOUT_PLANES,
                                      (struct shape){2, 1, 12, 12}, 0);
    struct plan_program *p = add_program(&b, "paste");
    add_record(p, KERNEL_ID_embed_region, "embed", false, TENSORS(image, large), &embed);
    add_record(p, KERNEL_ID_copy_region, "paste", true, TENSORS(image, large), &paste);
    add_port(p, "image", PLAN_IN, image);
    set_figures(plan, p);
    assert_accepted(plan);
    p->records++, p->n_records--;
    assert_rejected(plan, "record 0 (paste): tensor large: reads undefined bytes");
    paste = (struct copy_region_params){2, 1, 8, 8, 8, 8, 0, 0, 64, 8, 8, 0, 0, 64};
    plan->tensors[large].shape = (struct shape){2, 1, 8, 8};
    plan->tensors[large].stride_n = 64;
    plan->tensors[large].size_bytes = 512;
    memcpy(p->records[0].params, &paste, sizeof(paste));
    p->arena_bytes = p->lower_bound_bytes = 512;
    assert_accepted(plan);
    plan_free(plan);
}

/* Two records write a half each; what reads it whole must come after both. */
static void test_parts(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    struct builder b = {.plan = plan};
    const struct winograd_weights_params weights = {1, 4, 0, 0, 4};
    struct winograd_input_params input = {2, 1, 8, 8, 64, 8, 8, 1, 1, 0, 1};
    struct winograd_product_params product = {
        .n = 2, .c_in = 1, .c_out = 4, .h_out = 8, .w_out = 8, .y_stride_n = 256};
    const struct act_fwd_params act = {2, 256, 256, 256, 0};
    const enum plan_block arena = PLAN_BLOCK_ARENA;
    const uint32_t image = find_tensor(plan, "image"), w = find_tensor(plan, "c1.weight");
    b.next[arena] = plan->block_bytes[arena];
    const uint32_t u =
        add_tensor(&b, "u", arena, PLAN_LAYOUT_FLAT, (struct shape){1, 1, 1, 576}, 0);
    const uint32_t v =
        add_tensor(&b, "v", arena, PLAN_LAYOUT_FLAT, (struct shape){1, 1, 1, 2304}, 2304);
    const struct shape shape = {2, 4, 8, 8};
    const uint32_t y = add_tensor(&b, "y", arena, PLAN_LAYOUT_PLANES, shape, 11520);
    const uint32_t z = add_tensor(&b, "z", arena, PLAN_LAYOUT_PLANES, shape, 13568);
    plan->block_bytes[arena] = MAX(plan->block_bytes[arena], 15616);
    product.n_rows = 1, product.n_channels = 4;
    struct plan_program *p = add_program(&b, "parts");
    add_record(p, KERNEL_ID_winograd_weights, "weights", false, TENSORS(w, u), &weights);
    for (uint32_t row = 0; row < 2; row++) {
        input.first_row = product.first_row = row;
        add_record(p, KERNEL_ID_winograd_input, "input", row > 0, TENSORS(image, v), &input);
        add_record(p, KERNEL_ID_winograd_product, "product", true, TENSORS(v, u, w, y), &product);
    }
    add_record(p, KERNEL_ID_act_fwd, "act", true, TENSORS(y, z), &act);
    add_port(p, "image", PLAN_IN, image);
    set_figures(plan, p);
    assert_accepted(plan);
    product.first_row = 0; /* the first half twice */
    memcpy(p->records[4].params, &product, sizeof(product));
    assert_rejected(plan, "record 5 (act): tensor y: reads undefined bytes");
    product.first_row = 1, product.n_channels = 3;
    memcpy(p->records[4].params, &product, sizeof(product));
    assert_rejected(plan, "record 5 (act): tensor y: reads undefined bytes");
    product.n_channels = 4;
    memcpy(p->records[4].params, &product, sizeof(product));
    assert_accepted(plan);
    plan_free(plan);
}

/* --- limits of a device --- */

static void assert_limited(struct plan_limits limits, const char *part_of_message, bool hint) {
    struct plan *plan = build_plan();
    struct err err = {0};
    limits.device = "Toy";
    assert_false(plan_verify(plan, &limits, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    if (strstr(err.text, part_of_message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, part_of_message);
    assert_true((err.hint[0] != '\0') == hint);
    /* What is wrong for every device is not blamed on this one. */
    plan->programs[0].records[0].barrier = true;
    plan->programs[0].records[1].barrier = false;
    assert_false(plan_verify(plan, &limits, &err));
    assert_int_equal(err.code, ERR_INPUT);
    plan_free(plan);
}

static void test_limits(void **state) {
    (void)state;
    const struct plan_limits minimum = plan_limits_minimum(PLAN_CLASS_GPU);
    struct plan_limits limits = minimum;
    limits.max_binding_bytes = 4000;
    assert_limited(
        limits,
        "program infer: record 6 (c4 forward): x: tensor cat has 4096 bytes, Toy binds at "
        "most 4000",
        true);
    limits.max_binding_bytes = 4096;
    struct plan *plan = build_plan();
    struct err err = {0};
    assert_true(plan_verify(plan, &limits, &err));
    limits.max_binding_bytes = 1;
    limits.access = PLAN_ACCESS_ADDRESS; /* addresses have no ranges */
    assert_true(plan_verify(plan, &limits, &err));
    plan->shaders[0].code[PLAN_ACCESS_ADDRESS] = NULL;
    assert_true(plan_verify(plan, NULL, &err));
    assert_false(plan_verify(plan, &limits, &err));
    assert_int_equal(err.code, ERR_DEVICE);
    assert_non_null(strstr(err.text, "shader any_gpu has no code for buffer addresses"));
    plan_free(plan);

    limits = minimum;
    limits.max_allocation_bytes = 5000;
    assert_limited(limits, "the block arena has 14336 bytes, Toy allocates at most 5000", true);
    plan = build_plan();
    split(plan, 4096, 0);
    limits.max_allocation_bytes = 10240;
    assert_true(plan_verify(plan, &limits, &err));
    limits.max_allocation_bytes = 10239;
    assert_false(plan_verify(plan, &limits, &err));
    assert_non_null(strstr(err.text, "chunk 1 of the block arena has 10240 bytes"));
    plan_free(plan);
    limits = minimum;
    limits.max_groups[0] = 2;
    assert_limited(limits,
                   "record 0 (c1 forward): tensor skip: 3 workgroups along axis 0, Toy allows 2",
                   true);
    limits = minimum;
    limits.max_group_size[0] = 32;
    assert_limited(limits, "a workgroup of 64 invocations along axis 0, Toy allows 32", true);
    limits = minimum;
    limits.max_group_invocations = 63;
    assert_limited(limits, "a workgroup of 64 invocations, Toy allows 63", true);
    limits = minimum;
    limits.max_push_bytes = 64;
    assert_limited(limits, "76 bytes of push constants, Toy allows 64", false);
    limits = minimum;
    limits.max_shared_bytes = 15;
    assert_limited(limits, "16 bytes of shared memory, Toy allows 15", true);
}

/* --- every kind of damage, everywhere --- */

static void test_mutations(void **state) {
    (void)state;
    struct plan *plan = build_plan();
    for (int kind = 0; kind < MUTATE_KIND_COUNT; kind++) {
        uint32_t rejected = 0, accepted = 0, either = 0;
        for (uint32_t i = 0; i < mutation_count(plan, (enum mutation_kind)kind); i++) {
            struct mutation mutation;
            struct err err = {0};
            if (!mutation_apply(plan, (enum mutation_kind)kind, i, &mutation))
                continue;
            const bool good = plan_verify(plan, NULL, &err);
            if (good && mutation.verdict == MUTATION_REJECT)
                fail_msg("accepted: %s", mutation.what);
            if (!good && mutation.verdict == MUTATION_ACCEPT)
                fail_msg("rejected: %s: %s", mutation.what, err.text);
            assert_true(good || (err.code == ERR_INPUT && err.text[0] != '\0'));
            rejected += mutation.verdict == MUTATION_REJECT;
            accepted += mutation.verdict == MUTATION_ACCEPT;
            either += mutation.verdict == MUTATION_EITHER;
            mutation_undo(&mutation);
        }
        printf("# %-18s %4u must be rejected, %4u accepted, %4u either\n", mutation_names[kind],
               rejected, accepted, either);
        assert_true(rejected > 0 || kind == MUTATE_BARRIER_ADD);
        assert_true(accepted > 0 || kind != MUTATE_BARRIER_ADD);
    }
    assert_accepted(plan);
    plan_free(plan);
}

/* --- random programs: the verifier and the simulation agree --- */

#define RANDOM_TENSORS 7

/* Tensors at random places of a small arena: four whole ones, one of them with two halves. */
static void add_random_tensors(struct builder *b, struct rng *rng, uint32_t tensors[]) {
    const enum plan_block arena = PLAN_BLOCK_ARENA;
    const struct shape s = {2, 2, 8, 8};
    for (uint32_t i = 0; i < 5; i++)
        tensors[i] = add_tensor(b, "whole", arena, PLAN_LAYOUT_PLANES, s, 256 * rng_below(rng, 50));
    tensors[5] = add_view(b, "half", tensors[0], 0, 1);
    tensors[6] = add_view(b, "half", tensors[0], 1, 1);
    b->plan->block_bytes[arena] = 256 * 60;
}

/* A whole tensor or a half; mostly one of those written already. */
static uint32_t pick(struct rng *rng, unsigned written, bool half) {
    uint32_t i = 0;
    for (int tries = 0; tries < 20; tries++) {
        i = half ? 5 + rng_below(rng, 2) : rng_below(rng, 5);
        if ((written >> i & 1u) != 0 || rng_below(rng, 40) == 0)
            break;
    }
    return i;
}

static void add_random_records(struct plan_program *p, struct rng *rng, const uint32_t tensors[],
                               uint32_t image) {
    const struct embed_region_params embed = {2, 1, 8, 8, 64, 8, 8, 0, 0, 128};
    unsigned written = 0;
    add_record(p, KERNEL_ID_embed_region, "start", false, TENSORS(image, tensors[5]), &embed);
    add_record(p, KERNEL_ID_embed_region, "start", false, TENSORS(image, tensors[6]), &embed);
    written |= 1u << 5 | 1u << 6 | 1u << 0;
    for (int i = 0; i < 6; i++) {
        const bool half = rng_below(rng, 3) == 0, barrier = rng_below(rng, 8) != 0;
        const uint32_t count = half ? 64 : 128;
        const uint32_t a = pick(rng, written, half), c = pick(rng, written, half);
        const uint32_t y = half ? 5 + rng_below(rng, 2) : rng_below(rng, 5);
        const struct add_params add = {2, count, 128, 128, 128};
        const struct act_fwd_params act = {2, count, 128, 128, 0.0f};
        const struct copy_region_params paste = {
            2, half ? 1u : 2u, 4, 4, 8, 8, 1, 1, 128, 8, 8, 2, 3, 128};
        switch (rng_below(rng, 4)) {
        case 0:
            add_record(p, KERNEL_ID_add, "add", barrier,
                       TENSORS(tensors[a], tensors[c], tensors[y]), &add);
            break;
        case 1:
            add_record(p, KERNEL_ID_copy_region, "paste", barrier, TENSORS(tensors[a], tensors[c]),
                       &paste);
            break;
        default:
            add_record(p, KERNEL_ID_act_fwd, "act", barrier, TENSORS(tensors[a], tensors[y]), &act);
        }
        written |= 1u << y;
        written |= y == 0 ? 1u << 5 | 1u << 6 : 0;
    }
}

static void test_random_programs(void **state) {
    (void)state;
    uint32_t accepted = 0, rejected = 0;
    for (uint32_t seed = 0; seed < 3000; seed++) {
        struct rng rng = rng_stream(seed, 7, 0);
        struct plan *plan = build_plan();
        struct builder b = {.plan = plan};
        uint32_t tensors[RANDOM_TENSORS];
        const uint32_t image = find_tensor(plan, "image");
        plan->n_programs = 0;
        add_random_tensors(&b, &rng, tensors);
        struct plan_program *p = add_program(&b, "random");
        add_random_records(p, &rng, tensors, image);
        add_port(p, "image", PLAN_IN, image);
        set_figures(plan, p);
        struct err err = {0};
        const char *wrong = simulate_plan(plan);
        const bool good = plan_verify(plan, NULL, &err);
        if (good != (wrong == NULL))
            fail_msg("seed %u: the verifier says \"%s\", the simulation \"%s\"", seed,
                     good ? "good" : err.text, wrong != NULL ? wrong : "good");
        accepted += good;
        rejected += !good;
        plan_free(plan);
    }
    printf("# random programs: %u accepted, %u rejected\n", accepted, rejected);
    assert_true(accepted > 100 && rejected > 100);
}

/* Sizes of matrices, subgroups, and what a workgroup of 8 parts of 32 x 32 becomes: as many
   invocations or more, but no more shared memory (of a matrix of sums for each part). */
static void test_matrix_constants(void **state) {
    (void)state;
    static const struct {
        uint32_t m, n, k, subgroup, size, rows, columns;
    } cases[] = {
        {16, 16, 16, 32, 256, 32, 32}, {16, 16, 16, 64, 512, 32, 32}, {16, 16, 16, 8, 64, 32, 32},
        {8, 8, 8, 8, 256, 16, 16},     {8, 16, 16, 16, 256, 16, 32},  {8, 8, 16, 16, 256, 16, 32},
        {16, 8, 16, 32, 256, 32, 32},  {4, 4, 4, 4, 256, 8, 16},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct plan_limits limits = {.matrix_m = cases[i].m,
                                           .matrix_n = cases[i].n,
                                           .matrix_k = cases[i].k,
                                           .subgroup_size = cases[i].subgroup};
        uint32_t spec[KERNEL_MAX_SPEC] = {256, 1, 1, 0, 16, 16, 16, 128, 64, 32, 32, 16};
        plan_matrix_constants("conv_matrix", &limits, spec);
        assert_int_equal(spec[0], cases[i].size);
        assert_int_equal(spec[PLAN_MATRIX_SIZES], cases[i].m);
        assert_int_equal(spec[PLAN_MATRIX_SIZES + 1], cases[i].n);
        assert_int_equal(spec[PLAN_MATRIX_SIZES + 2], cases[i].k);
        assert_int_equal(spec[PLAN_MATRIX_PART], cases[i].rows);
        assert_int_equal(spec[PLAN_MATRIX_PART + 1], cases[i].columns);
        const uint32_t parts = 128 / cases[i].rows * (64 / cases[i].columns);
        assert_int_equal(spec[0], parts * cases[i].subgroup);
        assert_true(parts * cases[i].m * cases[i].n <= 8 * 16 * 16);
    }
    const struct plan_limits limits = {.matrix_m = 8, .matrix_n = 8, .matrix_k = 8};
    uint32_t damaged[KERNEL_MAX_SPEC] = {0}, other[KERNEL_MAX_SPEC] = {7, 8, 9};
    plan_matrix_constants("conv_matrix", &limits, damaged);
    assert_int_equal(damaged[0], 0);
    plan_matrix_constants("conv_tile", &limits, other);
    assert_int_equal(other[PLAN_MATRIX_SIZES], 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_wrong_tensors),
        cmocka_unit_test(test_wrong_params),
        cmocka_unit_test(test_wrong_model),
        cmocka_unit_test(test_wrong_ports),
        cmocka_unit_test(test_wrong_records),
        cmocka_unit_test(test_wrong_dispatches),
        cmocka_unit_test(test_wrong_memory),
        cmocka_unit_test(test_wrong_choices),
        cmocka_unit_test(test_choice_memory),
        cmocka_unit_test(test_choice_limits),
        cmocka_unit_test(test_choice_lookup),
        cmocka_unit_test(test_matrix_constants),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_overwritten_output),
        cmocka_unit_test(test_partial_write),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_random_programs),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
