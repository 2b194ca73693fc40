/*
 * bench_profile.c: what the records of a program cost, against the device's own ceilings: one by
 * one, by kernel, and by operation and direction.
 *
 * A record needs at least flops / (multiply-add ceiling) and bytes / (copy ceiling); the longer of
 * the two names the nearer ceiling, and its share of the time taken is the per cent shown (the
 * roofline model, Williams, Waterman and Patterson 2009). Totals add up both.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "common/plan_memory.h"
#include "tools/bench.h"

const char *const bench_op_names[BENCH_OP_COUNT] = {
    "convolution", "up-convolution", "max pooling",      "activation", "addition",
    "copy",        "dropout",        "softmax and loss", "optimiser"};
const char *const bench_direction_names[BENCH_DIRECTION_COUNT] = {"forward", "data gradient",
                                                                  "weight gradient", "update"};

/* ---- what a record is part of ---- */

static bool shares_tensor(const struct plan_record *a, const struct plan_record *b) {
    for (uint32_t i = 0; i < kernel_table[a->kernel].n_bindings; i++)
        for (uint32_t k = 0; k < kernel_table[b->kernel].n_bindings; k++)
            if (a->tensors[i] == b->tensors[k])
                return true;
    return false;
}

/* Sums of partial gradients, gradients of biases and transposed weights serve a convolution of
   either kind: the one that has a tensor in common with them. */
static enum bench_op served_op(const struct plan_program *program, const struct plan_record *record,
                               enum kernel_id conv, enum kernel_id upconv) {
    for (uint32_t i = 0; i < program->n_records; i++) {
        const struct plan_record *other = &program->records[i];
        if ((other->kernel == conv || other->kernel == upconv) && shares_tensor(record, other))
            return other->kernel == upconv ? BENCH_UPCONV : BENCH_CONV;
    }
    return BENCH_CONV;
}

/* Kernels that serve both directions: the gradient of the loss divides them. */
static enum bench_direction direction_at(const struct plan_program *program, uint32_t record) {
    for (uint32_t i = 0; i < record; i++)
        if (program->records[i].kernel == KERNEL_ID_softmax_loss_grad)
            return BENCH_DATA_GRADIENT;
    return BENCH_FORWARD;
}

struct bench_part bench_part_of(const struct plan_program *program, uint32_t index) {
    const struct plan_record *record = &program->records[index];
    switch (record->kernel) {
    case KERNEL_ID_conv_fwd:
        return (struct bench_part){BENCH_CONV, BENCH_FORWARD};
    case KERNEL_ID_conv_dgrad:
        return (struct bench_part){BENCH_CONV, BENCH_DATA_GRADIENT};
    case KERNEL_ID_conv_wgrad:
        return (struct bench_part){BENCH_CONV, BENCH_WEIGHT_GRADIENT};
    case KERNEL_ID_upconv_fwd:
        return (struct bench_part){BENCH_UPCONV, BENCH_FORWARD};
    case KERNEL_ID_upconv_dgrad:
        return (struct bench_part){BENCH_UPCONV, BENCH_DATA_GRADIENT};
    case KERNEL_ID_upconv_wgrad:
        return (struct bench_part){BENCH_UPCONV, BENCH_WEIGHT_GRADIENT};
    case KERNEL_ID_wgrad_reduce:
    case KERNEL_ID_bias_grad:
        return (struct bench_part){
            served_op(program, record, KERNEL_ID_conv_wgrad, KERNEL_ID_upconv_wgrad),
            BENCH_WEIGHT_GRADIENT};
    case KERNEL_ID_weights_transpose:
        return (struct bench_part){
            served_op(program, record, KERNEL_ID_conv_dgrad, KERNEL_ID_upconv_dgrad),
            BENCH_DATA_GRADIENT};
    case KERNEL_ID_winograd_weights:
    case KERNEL_ID_winograd_input:
    case KERNEL_ID_winograd_product:
        return (struct bench_part){BENCH_CONV, direction_at(program, index)};
    case KERNEL_ID_maxpool_fwd:
    case KERNEL_ID_maxpool_index:
        return (struct bench_part){BENCH_POOL, BENCH_FORWARD};
    case KERNEL_ID_maxpool_bwd:
    case KERNEL_ID_maxpool_unpool:
        return (struct bench_part){BENCH_POOL, BENCH_DATA_GRADIENT};
    case KERNEL_ID_act_fwd:
        return (struct bench_part){BENCH_ACTIVATION, BENCH_FORWARD};
    case KERNEL_ID_act_bwd:
        return (struct bench_part){BENCH_ACTIVATION, BENCH_DATA_GRADIENT};
    case KERNEL_ID_add:
    case KERNEL_ID_add_region:
        return (struct bench_part){BENCH_ADD, direction_at(program, index)};
    case KERNEL_ID_copy_region:
    case KERNEL_ID_embed_region:
    case KERNEL_ID_half_store:
    case KERNEL_ID_half_load:
        return (struct bench_part){BENCH_COPY, direction_at(program, index)};
    case KERNEL_ID_dropout:
        return (struct bench_part){BENCH_DROPOUT, direction_at(program, index)};
    case KERNEL_ID_softmax:
    case KERNEL_ID_softmax_loss:
    case KERNEL_ID_loss_reduce:
        return (struct bench_part){BENCH_LOSS, BENCH_FORWARD};
    case KERNEL_ID_softmax_loss_grad:
    case KERNEL_ID_scale_gradient:
        return (struct bench_part){BENCH_LOSS, BENCH_DATA_GRADIENT};
    case KERNEL_ID_accumulate:
        return (struct bench_part){BENCH_OPTIMISER, BENCH_WEIGHT_GRADIENT};
    case KERNEL_ID_gradient_check:
    case KERNEL_ID_loss_scale:
    case KERNEL_ID_sgd_scaled:
    case KERNEL_ID_adam_scaled:
    case KERNEL_ID_sgd:
    case KERNEL_ID_adam:
    case KERNEL_COUNT:
        break;
    }
    return (struct bench_part){BENCH_OPTIMISER, BENCH_UPDATE};
}

/* ---- figures ---- */

struct unet_peak bench_peak(const struct bench *bench) {
    const struct unet_peak *a = &bench->before, *b = &bench->after;
    struct unet_peak peak = *a;
    peak.multiply_add_gflops = MAX(a->multiply_add_gflops, b->multiply_add_gflops);
    peak.multiply_add_gflops_median =
        MAX(a->multiply_add_gflops_median, b->multiply_add_gflops_median);
    peak.copy_gbytes_per_s = MAX(a->copy_gbytes_per_s, b->copy_gbytes_per_s);
    peak.copy_gbytes_per_s_median = MAX(a->copy_gbytes_per_s_median, b->copy_gbytes_per_s_median);
    return peak;
}

struct bench_work bench_record_work(const struct bench *bench, uint32_t index) {
    const struct plan_record *record = &bench->program->records[index];
    struct bench_work work = {.dispatches = 1,
                              .seconds = bench->record_seconds[index],
                              .flops = (double)record->flops,
                              .bytes = (double)plan_record_bytes(record)};
    if (bench->has_peak) {
        const struct unet_peak peak = bench_peak(bench);
        const double compute = work.flops * 1e-9 / peak.multiply_add_gflops;
        const double copy = work.bytes * 1e-9 / peak.copy_gbytes_per_s;
        *(compute > copy ? &work.compute_seconds : &work.copy_seconds) = MAX(compute, copy);
    }
    return work;
}

static void add_work(struct bench_work *sum, const struct bench_work *work) {
    sum->dispatches += work->dispatches;
    sum->seconds += work->seconds;
    sum->flops += work->flops;
    sum->bytes += work->bytes;
    sum->compute_seconds += work->compute_seconds;
    sum->copy_seconds += work->copy_seconds;
}

static double per_second(double amount, double seconds) {
    return seconds > 0 ? amount / seconds : 0;
}

double bench_gflops(const struct bench_work *work) {
    return per_second(work->flops * 1e-9, work->seconds);
}

double bench_gbytes_per_s(const struct bench_work *work) {
    return per_second(work->bytes * 1e-9, work->seconds);
}

double bench_ceiling_percent(const struct bench_work *work) {
    return 100 * per_second(work->compute_seconds + work->copy_seconds, work->seconds);
}

static bool is_compute_bound(const struct bench_work *work) {
    return work->compute_seconds > work->copy_seconds;
}

struct totals {
    struct bench_work all, kernels[KERNEL_COUNT], parts[BENCH_OP_COUNT][BENCH_DIRECTION_COUNT],
        directions[BENCH_DIRECTION_COUNT];
};

static void sum_up(const struct bench *bench, struct totals *totals) {
    *totals = (struct totals){.all = {0}};
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        if (!bench->runs_record[i])
            continue;
        const struct bench_work work = bench_record_work(bench, i);
        const struct bench_part part = bench_part_of(bench->program, i);
        add_work(&totals->all, &work);
        add_work(&totals->kernels[bench->program->records[i].kernel], &work);
        add_work(&totals->parts[part.op][part.direction], &work);
        add_work(&totals->directions[part.direction], &work);
    }
}

/* ---- what is no dispatch ---- */

/* Of a run: before its first dispatch began and after its last ended, which is the host's part and
   the way to the device and back; and in between, while no dispatch ran. Medians of all runs. */
struct idle {
    double outside_seconds, between_seconds;
};

static struct idle idle_of_run(const struct bench *bench, uint32_t run) {
    const uint32_t n = bench->program->n_records;
    const double seconds = (double)(bench->runs[run].end_ns - bench->runs[run].begin_ns) * 1e-9;
    uint64_t first_ns = UINT64_MAX, end_ns = 0, between_ns = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct unet_span *span = &bench->spans[(size_t)run * n + i];
        if (!bench->runs_record[i])
            continue;
        if (end_ns > 0 && span->begin_ns > end_ns)
            between_ns += span->begin_ns - end_ns;
        first_ns = MIN(first_ns, span->begin_ns);
        end_ns = MAX(end_ns, span->end_ns);
    }
    const double busy_seconds = end_ns > first_ns ? (double)(end_ns - first_ns) * 1e-9 : 0;
    return (struct idle){fmax(seconds - busy_seconds, 0), (double)between_ns * 1e-9};
}

static struct idle idle_median(const struct bench *bench) {
    double *values = calloc(2 * (size_t)bench->repeat, sizeof(*values));
    struct idle median = {0, 0};
    if (values == NULL)
        return median;
    for (uint32_t run = 0; run < bench->repeat; run++) {
        const struct idle idle = idle_of_run(bench, run);
        values[run] = idle.outside_seconds;
        values[bench->repeat + run] = idle.between_seconds;
    }
    median.outside_seconds = bench_median(values, bench->repeat);
    median.between_seconds = bench_median(values + bench->repeat, bench->repeat);
    free(values);
    return median;
}

/* ---- tables ---- */

static void print_figures(const struct bench *bench, const struct bench_work *work,
                          double all_seconds) {
    printf(" %10.3f %9.2f %8.2f", work->seconds * 1e3, bench_gflops(work),
           bench_gbytes_per_s(work));
    if (bench->has_peak)
        printf(" %7.1f %% %c", bench_ceiling_percent(work), is_compute_bound(work) ? 'c' : 'm');
    printf(" %6.1f %%\n", 100 * per_second(work->seconds, all_seconds));
}

static void print_head(const struct bench *bench, const char *first, const char *second) {
    printf("\n%-44s %-18s %10s %9s %8s%s %8s\n", first, second, "ms", "GFLOP/s", "GB/s",
           bench->has_peak ? "   of ceiling" : "", "of time");
}

static void print_total(const struct bench *bench, const char *name, const char *more,
                        const struct bench_work *work, double all_seconds) {
    char text[64], count[32];
    if (work->dispatches == 0)
        return;
    snprintf(text, sizeof(text), "%s%s%s", name, more[0] != '\0' ? ", " : "", more);
    snprintf(count, sizeof(count), "%u", work->dispatches);
    printf("%-44s %-18s", text, count);
    print_figures(bench, work, all_seconds);
}

void bench_print_profile(const struct bench *bench) {
    struct totals totals;
    sum_up(bench, &totals);
    const double seconds = totals.all.seconds;
    print_head(bench, "dispatch", "kernel");
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        if (!bench->runs_record[i])
            continue;
        const struct bench_work work = bench_record_work(bench, i);
        printf("%-44s %-18s", bench->program->records[i].label,
               kernel_table[bench->program->records[i].kernel].name);
        print_figures(bench, &work, seconds);
    }
    print_head(bench, "kernel", "dispatches");
    for (int k = 0; k < KERNEL_COUNT; k++)
        print_total(bench, kernel_table[k].name, "", &totals.kernels[k], seconds);
    print_head(bench, "operation and direction", "dispatches");
    for (int op = 0; op < BENCH_OP_COUNT; op++)
        for (int d = 0; d < BENCH_DIRECTION_COUNT; d++)
            print_total(bench, bench_op_names[op], bench_direction_names[d], &totals.parts[op][d],
                        seconds);
    print_head(bench, "direction", "dispatches");
    for (int d = 0; d < BENCH_DIRECTION_COUNT; d++)
        print_total(bench, bench_direction_names[d], "", &totals.directions[d], seconds);
    print_total(bench, "all", "", &totals.all, seconds);
    const struct idle idle = idle_median(bench);
    printf(
        "\nof a run's time %.2f %% before the first dispatch and after the last, %.2f %% between "
        "dispatches\n",
        100 * per_second(idle.outside_seconds, bench->seconds_median),
        100 * per_second(idle.between_seconds, bench->seconds_median));
}

/* ---- JSON ---- */

static json_t *work_json(const struct bench *bench, const struct bench_work *work) {
    json_t *object =
        json_pack("{s:i, s:f, s:f, s:f, s:I, s:f}", "dispatches", (int)work->dispatches, "seconds",
                  work->seconds, "gflop", work->flops * 1e-9, "gflops", bench_gflops(work), "bytes",
                  (json_int_t)work->bytes, "gbytes_per_s", bench_gbytes_per_s(work));
    if (bench->has_peak) {
        json_object_set_new(object, "ceiling_percent", json_real(bench_ceiling_percent(work)));
        json_object_set_new(object, "ceiling",
                            json_string(is_compute_bound(work) ? "multiply_add" : "copy"));
    }
    return object;
}

/* A row of totals with its name or names; nothing where there is no dispatch. */
static void append_total(const struct bench *bench, json_t *rows, const struct bench_work *work,
                         const char *key, const char *name, const char *direction) {
    if (work->dispatches == 0)
        return;
    json_t *row = work_json(bench, work);
    json_object_set_new(row, key, json_string(name));
    if (direction != NULL)
        json_object_set_new(row, "direction", json_string(direction));
    json_array_append_new(rows, row);
}

static json_t *records_json(const struct bench *bench) {
    json_t *rows = json_array();
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        if (!bench->runs_record[i])
            continue;
        const struct plan_record *record = &bench->program->records[i];
        const struct bench_work work = bench_record_work(bench, i);
        const struct bench_part part = bench_part_of(bench->program, i);
        json_t *row = work_json(bench, &work);
        json_object_set_new(row, "label", json_string(record->label));
        json_object_set_new(row, "kernel", json_string(kernel_table[record->kernel].name));
        json_object_set_new(row, "operation", json_string(bench_op_names[part.op]));
        json_object_set_new(row, "direction", json_string(bench_direction_names[part.direction]));
        json_object_del(row, "dispatches");
        json_array_append_new(rows, row);
    }
    return rows;
}

void bench_add_profile(const struct bench *bench, json_t *object) {
    struct totals totals;
    json_t *kernels = json_array(), *parts = json_array(), *directions = json_array();
    sum_up(bench, &totals);
    for (int k = 0; k < KERNEL_COUNT; k++)
        append_total(bench, kernels, &totals.kernels[k], "kernel", kernel_table[k].name, NULL);
    for (int op = 0; op < BENCH_OP_COUNT; op++)
        for (int d = 0; d < BENCH_DIRECTION_COUNT; d++)
            append_total(bench, parts, &totals.parts[op][d], "operation", bench_op_names[op],
                         bench_direction_names[d]);
    for (int d = 0; d < BENCH_DIRECTION_COUNT; d++)
        append_total(bench, directions, &totals.directions[d], "direction",
                     bench_direction_names[d], NULL);
    json_object_set_new(object, "records", records_json(bench));
    json_object_set_new(object, "kernels", kernels);
    json_object_set_new(object, "operations", parts);
    json_object_set_new(object, "directions", directions);
    json_object_set_new(object, "all", work_json(bench, &totals.all));
    const struct idle idle = idle_median(bench);
    json_object_set_new(object, "outside_seconds", json_real(idle.outside_seconds));
    json_object_set_new(object, "between_seconds", json_real(idle.between_seconds));
}
