/*
 * inspect_plan.c: what is inside a plan. Prints its programs, the operations of each kind of
 * kernel, and the largest tensors.
 *
 *     inspect_plan FILE.plan
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/plan.h"

/* Kernels of a program: how many dispatches, how much arithmetic. */
static void print_kernels(const struct plan_program *program) {
    uint32_t dispatches[KERNEL_COUNT] = {0};
    uint64_t flops[KERNEL_COUNT] = {0};
    for (uint32_t i = 0; i < program->n_records; i++) {
        if (!plan_record_counts(&program->records[i]))
            continue; /* another way to compute what was counted already */
        dispatches[program->records[i].kernel]++;
        flops[program->records[i].kernel] += program->records[i].flops;
    }
    for (int k = 0; k < KERNEL_COUNT; k++)
        if (dispatches[k] > 0)
            printf("  %4" PRIu32 " x %-18s %10.3f GFLOP\n", dispatches[k], kernel_table[k].name,
                   (double)flops[k] * 1e-9);
}

static int by_size(const void *a, const void *b) {
    const struct plan_tensor *const *x = a, *const *y = b;
    return ((*x)->size_bytes < (*y)->size_bytes) - ((*x)->size_bytes > (*y)->size_bytes);
}

static void print_largest(const struct plan *plan, uint32_t count) {
    const struct plan_tensor **order = calloc(plan->n_tensors + 1, sizeof(*order));
    if (order == NULL)
        return;
    for (uint32_t i = 0; i < plan->n_tensors; i++)
        order[i] = &plan->tensors[i];
    qsort(order, plan->n_tensors, sizeof(*order), by_size);
    printf("largest tensors\n");
    for (uint32_t i = 0; i < count && i < plan->n_tensors; i++)
        printf("  %-28s %d x %d x %d x %d, %.2f MiB at offset %" PRIu64 "\n", order[i]->name,
               (int)order[i]->shape.n, (int)order[i]->shape.c, (int)order[i]->shape.h,
               (int)order[i]->shape.w, (double)order[i]->size_bytes / (1024 * 1024),
               order[i]->offset_bytes);
    free(order);
}

int main(int argc, char **argv) {
    struct err err = {0};
    struct plan *plan;
    if (argc != 2) {
        fprintf(stderr, "usage: inspect_plan FILE.plan\n");
        return ERR_USAGE;
    }
    /* A plan from elsewhere is loaded (is the file whole?), then verified (does it make sense?). */
    if (!plan_load(argv[1], &plan, &err) || !plan_verify(plan, NULL, &err)) {
        fprintf(stderr, "inspect_plan: %s\n", err.text);
        plan_free(plan);
        return (int)err.code;
    }
    printf("model %s: %" PRIu32 " x %" PRIu32 " pixels in, %" PRIu32 " x %" PRIu32 " out, %" PRIu32
           " classes\n",
           plan->model.name, plan->model.in_h, plan->model.in_w, plan->model.out_h,
           plan->model.out_w, plan->model.n_classes);
    for (uint32_t i = 0; i < plan->n_programs; i++) {
        const struct plan_program *program = &plan->programs[i];
        printf("program %s: %" PRIu32 " dispatches, activations in %.2f MiB\n", program->name,
               program->n_records, (double)program->arena_bytes / (1024 * 1024));
        print_kernels(program);
    }
    print_largest(plan, 8);
    plan_free(plan);
    return 0;
}
