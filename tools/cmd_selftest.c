/*
 * cmd_selftest.c: unetrun selftest: every kernel that a device has for two small plans, by every
 * method, against the native kernels. Device and CPU run the plans side by side, one part after the
 * other: a record, or the records of a choice, which may differ. Both start each part from the
 * CPU's numbers, so that an error is seen where it arises and does not spread.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/log.h"
#include "common/plan_format.h"
#include "common/rng.h"
#include "tools/cmd.h"
#include "tools/selftest_plans.h"

#define STEPS 3 /* the last one is compared */

/* How far results may be apart, as a part of the largest number of a tensor: other orders of
   additions; Winograd's algorithm; factors rounded to half precision. */
static const double tolerances[PLAN_METHOD_KIND_COUNT] = {
    [PLAN_METHOD_DIRECT] = 1e-4, [PLAN_METHOD_WINOGRAD] = 1e-3, [PLAN_METHOD_NARROW] = 1e-4,
    [PLAN_METHOD_SPLIT] = 1e-4,  [PLAN_METHOD_MATRIX] = 1e-2,   [PLAN_METHOD_WINOGRAD2] = 1e-3,
};

/* What was found of a kernel by a method. */
struct finding {
    uint32_t n_records, n_failed;
    double worst; /* difference as a part of what is allowed */
    char where[160];
};

struct selftest {
    struct unet_device *device, *reference;
    struct finding findings[KERNEL_COUNT][PLAN_METHOD_KIND_COUNT];
    uint32_t n_records, n_failed;
    bool is_small; /* the device, for plans that were compiled for any */
};

/* A plan by one method, on both. */
struct pair {
    struct selftest *selftest;
    const struct plan *plan;
    const struct plan_program *program;
    enum plan_method_kind kind;
    struct unet_session *device, *reference;
};

static bool copy_tensor(const struct pair *pair, uint32_t number, struct err *err) {
    void *data = malloc(pair->plan->tensors[number].size_bytes);
    if (data == NULL)
        return err_set(err, ERR_DEVICE, "out of memory");
    const bool good = unet_session_read_tensor(pair->reference, number, data, err) &&
                      unet_session_write_tensor(pair->device, number, data, err);
    free(data);
    return good;
}

/* The largest difference as a part of what is allowed; whole numbers must be equal. */
static double compare_words(const struct plan_tensor *tensor, const uint32_t *got,
                            const uint32_t *wanted, double tolerance) {
    const size_t count = tensor->size_bytes / 4;
    double largest = 0, difference = 0;
    for (size_t i = 0; i < count; i++) {
        if (got[i] == wanted[i])
            continue;
        float a, b;
        memcpy(&a, &got[i], 4);
        memcpy(&b, &wanted[i], 4);
        if (tensor->type == PLAN_TYPE_U32 || !isfinite(a) || !isfinite(b))
            return INFINITY;
        difference = fmax(difference, fabs((double)a - (double)b));
    }
    if (difference == 0)
        return 0;
    for (size_t i = 0; i < count; i++) {
        float b;
        memcpy(&b, &wanted[i], 4);
        if (isfinite(b))
            largest = fmax(largest, fabs((double)b));
    }
    return difference / (tolerance * largest);
}

static bool compare_tensor(const struct pair *pair, const struct plan_record *record,
                           uint32_t number, struct err *err) {
    const struct plan_tensor *tensor = &pair->plan->tensors[number];
    struct finding *finding = &pair->selftest->findings[record->kernel][pair->kind];
    uint32_t *got = malloc(tensor->size_bytes), *wanted = malloc(tensor->size_bytes);
    bool good = got != NULL && wanted != NULL;
    if (!good)
        err_set(err, ERR_DEVICE, "out of memory");
    good = good && unet_session_read_tensor(pair->device, number, got, err) &&
           unet_session_read_tensor(pair->reference, number, wanted, err);
    if (good) {
        const double difference = compare_words(tensor, got, wanted, tolerances[pair->kind]);
        if (difference > 1)
            finding->n_failed++;
        if (difference > finding->worst || finding->where[0] == '\0') {
            finding->worst = fmax(finding->worst, difference);
            snprintf(finding->where, sizeof(finding->where), "%s, %s, %s", pair->program->name,
                     record->label, tensor->name);
        }
    }
    free(got);
    free(wanted);
    return good;
}

static enum plan_method_kind kind_of(const struct plan_program *program, uint32_t number) {
    const struct plan_record *record = &program->records[number];
    return record->choice == PLAN_NONE
               ? PLAN_METHOD_DIRECT
               : program->choices[record->choice].methods[record->method].kind;
}

/* What another method than the first one leaves as it was is not tried again. */
static bool is_wanted(const struct pair *pair, uint32_t record) {
    return unet_session_runs_record(pair->device, pair->program->name, record) &&
           kind_of(pair->program, record) == pair->kind;
}

/* The records first .. end - 1: one of no choice, or all of one. */
static bool run_part(const struct pair *pair, uint32_t first, uint32_t end, struct err *err) {
    const struct plan_program *program = pair->program;
    for (uint32_t r = first; r < end; r++) {
        const struct plan_record *record = &program->records[r];
        if (!is_wanted(pair, r))
            continue;
        for (uint32_t b = 0; b < kernel_table[record->kernel].n_bindings; b++) {
            if (!copy_tensor(pair, record->tensors[b], err))
                return false;
        }
    }
    for (uint32_t r = first; r < end; r++) {
        if ((is_wanted(pair, r) && !unet_session_run_record(pair->device, program->name, r, err)) ||
            !unet_session_run_record(pair->reference, program->name, r, err))
            return false;
    }
    /* What the last record of the part writes is what all methods have in common. */
    uint32_t last = end;
    for (uint32_t r = first; r < end; r++) {
        if (is_wanted(pair, r)) {
            pair->selftest->findings[program->records[r].kernel][pair->kind].n_records++;
            pair->selftest->n_records++;
            last = r;
        }
    }
    const struct plan_record *record = &program->records[MIN(last, end - 1)];
    for (uint32_t b = 0; last < end && b < kernel_table[record->kernel].n_bindings; b++) {
        if ((kernel_table[record->kernel].bindings[b].access & KERNEL_WRITE) != 0 &&
            !compare_tensor(pair, record, record->tensors[b], err))
            return false;
    }
    return true;
}

static bool run_parts(const struct pair *pair, struct err *err) {
    const struct plan_program *program = pair->program;
    for (uint32_t first = 0; first < program->n_records;) {
        uint32_t end = first + 1;
        while (program->records[first].choice != PLAN_NONE && end < program->n_records &&
               program->records[end].choice == program->records[first].choice)
            end++;
        if (!run_part(pair, first, end, err))
            return false;
        first = end;
    }
    return true;
}

/* Random grey values and labels, pixels of weights 0 to 2. */
static bool fill_port(const struct pair *pair, const struct plan_port *port, struct err *err) {
    const struct plan_tensor *tensor = &pair->plan->tensors[port->tensor];
    const size_t count = shape_elements(tensor->shape);
    struct rng rng = rng_stream(1, port->tensor, 0);
    union {
        uint32_t u;
        float f;
    } *data = malloc(count * sizeof(*data));
    if (data == NULL)
        return err_set(err, ERR_DEVICE, "out of memory");
    for (size_t i = 0; i < count; i++) {
        if (tensor->type == PLAN_TYPE_U32)
            data[i].u = rng_below(&rng, pair->plan->model.n_classes);
        else if (strcmp(port->name, "weights") == 0)
            data[i].f = (float)rng_below(&rng, 3);
        else
            data[i].f = (float)rng_normal(&rng);
    }
    struct unet_session *const sessions[] = {pair->device, pair->reference};
    bool good = true;
    for (size_t i = 0; good && i < ARRAY_LEN(sessions); i++)
        good = unet_session_write(sessions[i], pair->program->name, port->name, data,
                                  count * sizeof(*data), err);
    free(data);
    return good;
}

/* The CPU alone makes the steps before the last: weights and optimiser state are no longer those
   of the start. */
static bool run_program(struct pair *pair, struct err *err) {
    struct unet_session *const sessions[] = {pair->device, pair->reference};
    for (uint32_t i = 0; i < pair->program->n_ports; i++) {
        if (pair->program->ports[i].direction == PLAN_IN &&
            !fill_port(pair, &pair->program->ports[i], err))
            return false;
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < ARRAY_LEN(sessions); i++) {
            if (!unet_session_set_step(sessions[i], 1, step, STEPS, 0.01f, err))
                return false;
        }
        if (step + 1 < STEPS && !unet_session_run(pair->reference, pair->program->name, err))
            return false;
    }
    return run_parts(pair, err);
}

/* The number of the method in all choices of a plan that have it, PLAN_NONE in others. False: none
   has. */
static bool methods_of(const struct plan *plan, enum plan_method_kind kind, uint32_t *methods) {
    bool found = kind == PLAN_METHOD_DIRECT;
    uint32_t count = 0;
    for (uint32_t p = 0; p < plan->n_programs; p++) {
        for (uint32_t c = 0; c < plan->programs[p].n_choices; c++) {
            const uint32_t method = plan_choice_find(&plan->programs[p].choices[c], kind);
            found = found || method != PLAN_NONE;
            methods[count++] = method != PLAN_NONE ? method : 0;
        }
    }
    return found;
}

static bool open_pair(struct pair *pair, const uint32_t *methods, struct err *err) {
    const struct unet_session_options options = {.methods = methods, .stepped = true};
    return unet_session_open(pair->selftest->device, pair->plan, &options, &pair->device, err) &&
           unet_session_open(pair->selftest->reference, pair->plan, &options, &pair->reference,
                             err) &&
           unet_session_init_weights(pair->device, 1, err) &&
           unet_session_init_weights(pair->reference, 1, err);
}

/* Whether the device takes the method anywhere. */
static bool is_taken(const struct pair *pair) {
    const struct unet_choice *choices;
    const uint32_t count = unet_session_choices(pair->device, &choices);
    for (uint32_t i = 0; i < count; i++) {
        if (choices[i].kind == pair->kind)
            return true;
    }
    return pair->kind == PLAN_METHOD_DIRECT;
}

static bool test_method(struct selftest *selftest, const struct plan *plan,
                        enum plan_method_kind kind, struct err *err) {
    uint32_t n_choices = 1;
    for (uint32_t p = 0; p < plan->n_programs; p++)
        n_choices += plan->programs[p].n_choices;
    uint32_t *methods = calloc(n_choices, sizeof(*methods));
    if (methods == NULL)
        return err_set(err, ERR_DEVICE, "out of memory");
    struct pair pair = {.selftest = selftest, .plan = plan, .kind = kind};
    bool good = true;
    if (methods_of(plan, kind, methods)) {
        good = open_pair(&pair, methods, err);
        for (uint32_t p = 0; good && p < plan->n_programs && is_taken(&pair); p++) {
            pair.program = &plan->programs[p];
            log_print(LOG_INFO, "%s, %s", plan_method_name(kind), pair.program->name);
            good = run_program(&pair, err);
        }
    }
    unet_session_close(pair.device);
    unet_session_close(pair.reference);
    free(methods);
    return good;
}

/* ---- the plans ---- */

#define N_PLANS 2

struct embedded {
    const uint8_t *begin, *end;
};

static const struct embedded plans[N_PLANS] = {{selftest_plan_0, selftest_plan_0_end},
                                               {selftest_plan_1, selftest_plan_1_end}};
static const struct embedded small_plans[N_PLANS] = {{selftest_plan_2, selftest_plan_2_end},
                                                     {selftest_plan_3, selftest_plan_3_end}};

static uint64_t get_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

/* What the section table says of the code: its offset, and its length at + 8. */
static const uint8_t *code_entry(const struct embedded *plan) {
    return plan->begin + PLAN_HEADER_BYTES + PLAN_SECTION_CODE * PLAN_ENTRY_BYTES + 8;
}

/* A plan for target small: without code of its own, it has that of the plan for any device. */
static bool parse_small(size_t number, struct plan **out, struct err *err) {
    const struct embedded *small = &small_plans[number], *base = &plans[number];
    const size_t rest_bytes = (size_t)(small->end - small->begin);
    const size_t total_bytes = (size_t)get_u64(small->begin + PLAN_AT_LENGTH);
    const size_t at = (size_t)get_u64(code_entry(small));
    const size_t code_bytes = (size_t)get_u64(code_entry(small) + 8);
    if (total_bytes == rest_bytes)
        return plan_parse(small->begin, rest_bytes, out, err);
    uint8_t *data = malloc(total_bytes);
    if (data == NULL)
        return err_set(err, ERR_DEVICE, "out of memory");
    memcpy(data, small->begin, at);
    memcpy(data + at, base->begin + get_u64(code_entry(base)), code_bytes);
    memcpy(data + at + code_bytes, small->begin + at, rest_bytes - at);
    const bool good = plan_parse(data, total_bytes, out, err); /* with the checksum */
    free(data);
    return good;
}

static bool test_plan(struct selftest *selftest, const struct plan *plan, struct err *err) {
    for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++)
        if (!test_method(selftest, plan, (enum plan_method_kind)kind, err))
            return false;
    return true;
}

/* Whether the device has the tilings of GPUs of a plan for any device. */
static bool is_small(const struct selftest *selftest, const struct plan *plan) {
    struct plan_limits limits = unet_device_plan_limits(selftest->device, plan);
    limits.class_ = unet_device_get_info(selftest->device)->limits.class_;
    limits.max_allocation_bytes = UINT64_MAX; /* sessions compare it with what they need */
    return limits.class_ == PLAN_CLASS_GPU && !plan_fits(plan, &limits, NULL);
}

/* On a small device, the tilings that plans compiled for it have, and, unless UNET_TILING forbids
   them, those of CPUs, which others are run with. */
static bool test_plans(struct selftest *selftest, struct err *err) {
    bool good = true;
    for (size_t i = 0; good && i < N_PLANS; i++) {
        struct plan *plan = NULL, *small = NULL;
        good = plan_parse(plans[i].begin, (size_t)(plans[i].end - plans[i].begin), &plan, err) &&
               parse_small(i, &small, err);
        if (good && is_small(selftest, plan)) {
            selftest->is_small = true;
            good = test_plan(selftest, small, err);
        }
        const bool runs =
            good && (!selftest->is_small ||
                     unet_device_plan_limits(selftest->device, plan).class_ == PLAN_CLASS_CPU);
        good = good && (!runs || test_plan(selftest, plan, err));
        plan_free(plan);
        plan_free(small);
    }
    return good;
}

static bool report(struct selftest *selftest, struct err *err) {
    const struct unet_device_info *info = unet_device_get_info(selftest->device);
    printf("device    %s (%s)\n", info->name, info->driver);
    if (selftest->is_small)
        printf("plans     compiled for target small: the device allows less than plans for any ask "
               "for\n");
    printf("\n");
    printf("%-20s %-9s %8s %7s\n", "kernel", "method", "records", "worst");
    for (int kernel = 0; kernel < KERNEL_COUNT; kernel++) {
        for (int kind = 0; kind < PLAN_METHOD_KIND_COUNT; kind++) {
            const struct finding *finding = &selftest->findings[kernel][kind];
            if (finding->n_records == 0)
                continue;
            selftest->n_failed += finding->n_failed;
            printf("%-20s %-9s %8u %5.0f %%%s%s\n", kernel_table[kernel].name,
                   plan_method_name((enum plan_method_kind)kind), finding->n_records,
                   finding->worst * 100, finding->n_failed > 0 ? "  FAILED: " : "",
                   finding->n_failed > 0 ? finding->where : "");
        }
    }
    if (selftest->n_failed > 0) {
        printf("\nselftest: FAILED: %u results of %u records are wrong on %s\n", selftest->n_failed,
               selftest->n_records, info->name);
        err_set(err, ERR_DEVICE, "%s computes wrong results", info->name);
        return err_hint(err, "docs/porting.md says what can be switched off, and how to report");
    }
    printf("\nselftest: passed: %u records on %s\n", selftest->n_records, info->name);
    return true;
}

static bool run_selftest(const void *data, struct err *err) {
    const struct cli_common *common = data;
    struct selftest *selftest = calloc(1, sizeof(*selftest));
    if (selftest == NULL)
        return err_set(err, ERR_DEVICE, "out of memory");
    /* the reference rounds nothing, not even where UNET_PREFER asks the CPU for it */
    const struct unet_device_options native = {
        .select = "cpu", .threads = common->threads, .disable = "matrix"};
    const bool good = cmd_device_open(common, &selftest->device, err) &&
                      unet_device_open(&native, &selftest->reference, err) &&
                      test_plans(selftest, err) && report(selftest, err);
    unet_device_close(selftest->device);
    unet_device_close(selftest->reference);
    free(selftest);
    return good;
}

const struct cli_command cmd_selftest = {
    .name = "selftest",
    .summary = "Checks every kernel of a device against the native kernels of the CPU.",
    .details =
        "Runs two small plans by every method that the device allows, record by record, and "
        "compares\nwhat they write with what the CPU writes. \"worst\" is the largest difference "
        "in "
        "per cent of\nwhat is allowed. Ends with one line: passed, or FAILED and exit status 3. "
        "What to do then:\ndocs/porting.md. On a device that allows less than plans for any ask "
        "for, it tests those\nthat unetc --target small makes, and then the tilings of CPUs.",
    .operands = "",
    .values_bytes = sizeof(struct cli_common),
    .run = run_selftest,
};
