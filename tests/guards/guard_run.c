/*
 * guard_run.c: see guard_run.h.
 */
#include "tests/guards/guard_run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/rng.h"
#include "runtime/exec.h"
#include "tests/guards/guard.h"

#define WHAT_TEXT 512

/* A plan whose records are programs of their own and whose tensors share no memory. */
struct apart {
    struct plan plan;
    struct plan_chunks chunks;            /* one for each tensor that is used */
    uint32_t *tensors;                    /* of the chunks */
    const struct plan_program **programs; /* that the records are of, in the plan as it was */
    bool *runs;                           /* whether the device can run the record */
};

static void must(bool good, const struct err *err, const char *what) {
    if (!good)
        fail_msg("%s: %s", what, err->text);
}

static enum plan_method_kind kind_of(const struct plan_program *program,
                                     const struct plan_record *record) {
    return record->choice == PLAN_NONE
               ? PLAN_METHOD_DIRECT
               : program->choices[record->choice].methods[record->method].kind;
}

static void part_records(struct apart *apart, const struct plan *plan,
                         const struct plan_limits *limits, uint32_t kinds) {
    uint32_t count = 0, next = 0;
    for (uint32_t i = 0; i < plan->n_programs; i++)
        count += plan->programs[i].n_records;
    apart->plan.n_programs = count;
    apart->plan.programs = calloc(count, sizeof(*apart->plan.programs));
    apart->programs = calloc(count, sizeof(*apart->programs));
    apart->runs = calloc(count, sizeof(*apart->runs));
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        for (uint32_t j = 0; j < program->n_records; j++, next++) {
            const struct plan_record *record = &program->records[j];
            apart->plan.programs[next] = *program;
            apart->plan.programs[next].records += j;
            apart->plan.programs[next].n_records = 1;
            apart->plan.programs[next].n_ports = 0;
            apart->programs[next] = program;
            apart->runs[next] =
                (kinds >> kind_of(program, record) & 1u) != 0 &&
                (record->choice == PLAN_NONE ||
                 plan_method_fits(plan, program, record->choice, record->method, limits, NULL));
        }
    }
}

static void mark_used(const struct apart *apart, bool *used) {
    for (uint32_t i = 0; i < apart->plan.n_programs; i++) {
        const struct plan_record *record = &apart->plan.programs[i].records[0];
        for (uint32_t b = 0; apart->runs[i] && b < kernel_table[record->kernel].n_bindings; b++)
            used[record->tensors[b]] = true;
    }
}

/* Each tensor at an offset of its own, in a chunk that is exactly as long. */
static void part_tensors(struct apart *apart, const struct plan *plan) {
    bool *used = calloc(plan->n_tensors, sizeof(*used));
    mark_used(apart, used);
    apart->plan.tensors = calloc(plan->n_tensors, sizeof(*apart->plan.tensors));
    apart->tensors = calloc(plan->n_tensors, sizeof(*apart->tensors));
    memcpy(apart->plan.tensors, plan->tensors, plan->n_tensors * sizeof(*plan->tensors));
    for (int block = 0; block < PLAN_BLOCK_COUNT; block++) {
        uint64_t end_bytes = 0;
        for (uint32_t i = 0; i < plan->n_tensors; i++) {
            struct plan_tensor *tensor = &apart->plan.tensors[i];
            if (!used[i] || (int)tensor->block != block)
                continue;
            const struct plan_chunk chunk = {
                .block = tensor->block, .begin_bytes = end_bytes, .size_bytes = tensor->size_bytes};
            apart->tensors[apart->chunks.items.count] = i;
            vec_push(&apart->chunks.items, chunk);
            tensor->base = i;
            tensor->offset_bytes = end_bytes;
            end_bytes += align_up(tensor->size_bytes, PLAN_ALIGNMENT);
        }
        apart->plan.block_bytes[block] = end_bytes;
    }
    free(used);
}

static void apart_free(struct apart *apart) {
    free(apart->plan.programs);
    free(apart->plan.tensors);
    free(apart->tensors);
    free(apart->programs);
    free(apart->runs);
    plan_chunks_free(&apart->chunks);
}

/* Classes of the loss, which are also words of other kinds; else numbers that need no care, such
 * as positive second moments. */
static void fill(struct exec *exec, const struct apart *apart) {
    const uint32_t n_classes = MAX(apart->plan.model.n_classes, 2u);
    struct err err = {0};
    for (size_t i = 0; i < apart->chunks.items.count; i++) {
        const struct plan_tensor *tensor = &apart->plan.tensors[apart->tensors[i]];
        struct rng rng = rng_stream(9, i, 0);
        union {
            uint32_t u;
            float f;
        } *words = malloc(tensor->size_bytes);
        for (uint64_t e = 0; e < tensor->size_bytes / 4; e++) {
            if (tensor->type == PLAN_TYPE_U32)
                words[e].u = rng_below(&rng, n_classes);
            else
                words[e].f = (float)rng_range(&rng, 0.25, 1);
        }
        must(exec->ops->upload(exec, tensor->block, tensor->offset_bytes, words, tensor->size_bytes,
                               &err),
             &err, tensor->name);
        free(words);
    }
}

static struct exec *open_exec(struct unet_device *device, const struct apart *apart,
                              const struct plan_limits *limits) {
    const struct exec_request request = {
        .plan = &apart->plan, .limits = *limits, .programs = apart->runs, .chunks = &apart->chunks};
    struct exec *exec;
    struct err err = {0};
    must(exec_open(device, &request, &exec, &err), &err, "executor");
    /* buffers are the chunks, and nothing else is one */
    if (guard_count() != apart->chunks.items.count)
        fail_msg("%u buffers for %zu tensors", guard_count(), apart->chunks.items.count);
    for (uint32_t i = 0; i < guard_count(); i++)
        assert_true(guard_size_bytes(i) == apart->chunks.items.items[i].size_bytes);
    return exec;
}

/* What was touched outside of a tensor; returns how many were. */
static uint32_t report_hits(const struct apart *apart, uint32_t part, const char *what) {
    const struct plan_record *record = &apart->plan.programs[part].records[0];
    const struct kernel_info *info = &kernel_table[record->kernel];
    struct guard_hit hit;
    uint32_t count = 0;
    for (; guard_take(&hit); count++) {
        const uint32_t tensor = apart->tensors[hit.buffer];
        const char *binding = "none of its own";
        for (uint32_t b = 0; b < info->n_bindings; b++)
            binding = record->tensors[b] == tensor ? info->bindings[b].name : binding;
        fprintf(stderr, "%s: %s outside of tensor %s (%s, %llu bytes): %zu bytes %s\n", what,
                hit.is_write ? "writes" : "reads", apart->plan.tensors[tensor].name, binding,
                (unsigned long long)apart->plan.tensors[tensor].size_bytes, hit.beyond_bytes,
                hit.after ? "behind its end" : "before its start");
    }
    return count;
}

static uint32_t run_side(struct unet_device *device, const struct apart *apart,
                         const struct plan_limits *limits, enum guard_side side) {
    struct err err = {0};
    uint32_t n_hits = 0;
    char what[WHAT_TEXT];
    guard_begin(side);
    struct exec *exec = open_exec(device, apart, limits);
    fill(exec, apart);
    for (uint32_t i = 0; i < apart->plan.n_programs; i++) {
        const struct plan_record *record = &apart->plan.programs[i].records[0];
        if (!apart->runs[i])
            continue;
        snprintf(what, sizeof(what), "%s, %s, method %s, shader %s", apart->programs[i]->name,
                 record->label, plan_method_name(kind_of(apart->programs[i], record)),
                 apart->plan.shaders[record->dispatch[limits->class_].shader].variant);
        guard_set_what(what);
        must(exec->ops->run(exec, i, &err), &err, what);
        n_hits += report_hits(apart, i, what);
    }
    guard_set_what("nothing");
    exec->ops->close(exec);
    return n_hits;
}

uint32_t guard_run_plan(struct unet_device *device, const struct plan *plan, uint32_t kinds,
                        uint32_t n_records[PLAN_METHOD_KIND_COUNT]) {
    const struct plan_limits limits = device->backend->limits(device, plan);
    struct apart apart = {.plan = *plan};
    uint32_t n_hits = 0;
    part_records(&apart, plan, &limits, kinds & ~device->disabled);
    part_tensors(&apart, plan);
    for (int side = 0; side < GUARD_SIDE_COUNT; side++)
        n_hits += run_side(device, &apart, &limits, (enum guard_side)side);
    for (uint32_t i = 0; i < apart.plan.n_programs; i++)
        n_records[kind_of(apart.programs[i], apart.plan.programs[i].records)] += apart.runs[i];
    apart_free(&apart);
    return n_hits;
}
