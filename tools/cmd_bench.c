/*
 * cmd_bench.c: unetrun bench: how long a program of a plan takes on a device, with random input and
 * freshly initialised weights. One run to warm up, then as many as asked for.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/rng.h"
#include "tools/cmd.h"

struct bench_values {
    struct cli_common common;
    const char *program;
    uint32_t repeat;
    bool profile, json;
};

static const struct cli_option bench_options[] = {
    {"program", 0, CLI_TEXT, "NAME", offsetof(struct bench_values, program), false, "infer",
     "infer, evaluate or train_step"},
    {"repeat", 0, CLI_COUNT, "N", offsetof(struct bench_values, repeat), false, "5",
     "timed runs, after one to warm up"},
    {"profile", 0, CLI_FLAG, NULL, offsetof(struct bench_values, profile), false, NULL,
     "time every dispatch, which slows the whole a little"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct bench_values, json), false, NULL,
     "print one JSON object"},
};

struct bench {
    const struct plan *plan;
    const struct plan_program *program;
    struct unet_session *session;
    uint32_t repeat;
    bool profile;
    double warm_up_seconds, *seconds; /* of each timed run, sorted at the end */
    uint64_t *times_ns;               /* of each record: the sum over the timed runs */
    uint64_t *run_times_ns;           /* of one run */
};

/* Time by kernel, for the totals. */
struct kernel_total {
    uint32_t dispatches;
    uint64_t time_ns, flops;
};

/* Random grey values and labels, all pixels of weight one. */
static bool fill_port(const struct bench *bench, const struct plan_port *port, uint32_t number,
                      struct err *err) {
    const struct plan_tensor *tensor = &bench->plan->tensors[port->tensor];
    const size_t count = shape_elements(tensor->shape);
    struct rng rng = rng_stream(1, number, 0);
    union {
        uint32_t u;
        float f;
    } *data = malloc(count * sizeof(*data));
    if (data == NULL)
        return err_set(err, ERR_INPUT, "no memory for %zu input values", count);
    for (size_t i = 0; i < count; i++) {
        if (tensor->type == PLAN_TYPE_U32)
            data[i].u = rng_below(&rng, bench->plan->model.n_classes);
        else if (strcmp(port->name, "weights") == 0)
            data[i].f = 1;
        else
            data[i].f = (float)rng_normal(&rng);
    }
    bool good = unet_session_write(bench->session, bench->program->name, port->name, data,
                                   count * sizeof(*data), err);
    free(data);
    return good;
}

static bool prepare(const struct bench *bench, struct err *err) {
    if (!unet_session_init_weights(bench->session, 1, err))
        return false;
    for (uint32_t i = 0; i < bench->program->n_ports; i++)
        if (bench->program->ports[i].direction == PLAN_IN &&
            !fill_port(bench, &bench->program->ports[i], i, err))
            return false;
    return true;
}

static bool run_once(const struct bench *bench, uint32_t step, double *seconds_out,
                     struct err *err) {
    if (!unet_session_set_step(bench->session, 1, step, bench->repeat + 1, 0, err))
        return false;
    const double start = clock_now_seconds();
    if (!unet_session_run(bench->session, bench->program->name, err))
        return false;
    *seconds_out = clock_now_seconds() - start;
    return true;
}

static bool add_profile(struct bench *bench, struct err *err) {
    if (!unet_session_profile(bench->session, bench->program->name, bench->run_times_ns, err))
        return false;
    for (uint32_t i = 0; i < bench->program->n_records; i++)
        bench->times_ns[i] += bench->run_times_ns[i];
    return true;
}

static int compare_seconds(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool measure(struct bench *bench, struct err *err) {
    if (!prepare(bench, err) || !run_once(bench, 0, &bench->warm_up_seconds, err))
        return false;
    for (uint32_t i = 0; i < bench->repeat; i++)
        if (!run_once(bench, i + 1, &bench->seconds[i], err) ||
            (bench->profile && !add_profile(bench, err)))
            return false;
    qsort(bench->seconds, bench->repeat, sizeof(double), compare_seconds);
    return true;
}

static double median_seconds(const struct bench *bench) {
    const uint32_t middle = bench->repeat / 2;
    return bench->repeat % 2 == 1 ? bench->seconds[middle]
                                  : 0.5 * (bench->seconds[middle - 1] + bench->seconds[middle]);
}

/* Mean over the runs. */
static double record_seconds(const struct bench *bench, uint32_t record) {
    return (double)bench->times_ns[record] * 1e-9 / bench->repeat;
}

static double rate_gflops(double flops, double seconds) {
    return seconds > 0 ? flops * 1e-9 / seconds : 0;
}

static uint64_t peak_memory_bytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static void sum_kernels(const struct bench *bench, struct kernel_total totals[KERNEL_COUNT]) {
    memset(totals, 0, KERNEL_COUNT * sizeof(totals[0]));
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        struct kernel_total *total = &totals[bench->program->records[i].kernel];
        total->dispatches++;
        total->time_ns += bench->times_ns[i];
        total->flops += bench->program->records[i].flops;
    }
}

static uint64_t total_time_ns(const struct bench *bench) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < bench->program->n_records; i++)
        total += bench->times_ns[i];
    return total;
}

static void add_profile_json(const struct bench *bench, json_t *object) {
    json_t *records = json_array(), *kernels = json_array();
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        const struct plan_record *record = &bench->program->records[i];
        const double seconds = record_seconds(bench, i);
        json_array_append_new(records,
                              json_pack("{s:s, s:s, s:f, s:f, s:f}", "label", record->label,
                                        "kernel", kernel_table[record->kernel].name, "seconds",
                                        seconds, "gflop", (double)record->flops * 1e-9, "gflops",
                                        rate_gflops((double)record->flops, seconds)));
    }
    struct kernel_total totals[KERNEL_COUNT];
    sum_kernels(bench, totals);
    for (int k = 0; k < KERNEL_COUNT; k++) {
        const double seconds = (double)totals[k].time_ns * 1e-9 / bench->repeat;
        if (totals[k].dispatches > 0)
            json_array_append_new(
                kernels, json_pack("{s:s, s:i, s:f, s:f, s:f}", "kernel", kernel_table[k].name,
                                   "dispatches", (int)totals[k].dispatches, "seconds", seconds,
                                   "gflop", (double)totals[k].flops * 1e-9, "gflops",
                                   rate_gflops((double)totals[k].flops, seconds)));
    }
    json_object_set_new(object, "records", records);
    json_object_set_new(object, "kernels", kernels);
}

static bool print_json(const struct bench *bench, const struct unet_device_info *device,
                       struct err *err) {
    const struct plan_model *model = &bench->plan->model;
    const double gflop = (double)cmd_count_flops(bench->program) * 1e-9;
    const double seconds = median_seconds(bench);
    struct unet_memory_report memory;
    unet_session_memory(bench->session, &memory);
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:[i,i,i,i], s:i, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, "
        "s:I, s:I, s:I}",
        "device", device->name, "driver", device->driver, "class",
        cmd_class_name(device->limits.class_), "access", cmd_access_name(device), "program",
        bench->program->name, "input", (int)model->batch, (int)model->channels, (int)model->in_h,
        (int)model->in_w, "repeat", (int)bench->repeat, "seconds_first", bench->warm_up_seconds,
        "seconds_median", seconds, "seconds_min", bench->seconds[0], "gflop", gflop, "gflops",
        seconds > 0 ? gflop / seconds : 0.0, "arena_bytes", (json_int_t)bench->program->arena_bytes,
        "weight_bytes", (json_int_t)bench->plan->block_bytes[PLAN_BLOCK_WEIGHTS], "state_bytes",
        (json_int_t)memory.block_bytes[PLAN_BLOCK_STATE], "io_bytes",
        (json_int_t)memory.block_bytes[PLAN_BLOCK_IO], "staging_bytes",
        (json_int_t)memory.staging_bytes, "device_bytes", (json_int_t)memory.total_bytes,
        "peak_rss_bytes", (json_int_t)peak_memory_bytes());
    if (object != NULL && bench->profile)
        add_profile_json(bench, object);
    return cmd_print_json(object, err);
}

static void print_profile(const struct bench *bench) {
    const double total = (double)total_time_ns(bench);
    printf("\n%-44s %-18s %10s %10s %7s\n", "dispatch", "kernel", "ms", "GFLOP/s", "share");
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        const struct plan_record *record = &bench->program->records[i];
        const double seconds = record_seconds(bench, i);
        printf("%-44s %-18s %10.3f %10.2f %6.1f%%\n", record->label,
               kernel_table[record->kernel].name, seconds * 1e3,
               rate_gflops((double)record->flops, seconds),
               total > 0 ? 100 * (double)bench->times_ns[i] / total : 0.0);
    }
    struct kernel_total totals[KERNEL_COUNT];
    sum_kernels(bench, totals);
    printf("\n%-18s %10s %10s %10s %7s\n", "kernel", "dispatches", "ms", "GFLOP/s", "share");
    for (int k = 0; k < KERNEL_COUNT; k++) {
        const double seconds = (double)totals[k].time_ns * 1e-9 / bench->repeat;
        if (totals[k].dispatches > 0)
            printf("%-18s %10u %10.3f %10.2f %6.1f%%\n", kernel_table[k].name, totals[k].dispatches,
                   seconds * 1e3, rate_gflops((double)totals[k].flops, seconds),
                   total > 0 ? 100 * (double)totals[k].time_ns / total : 0.0);
    }
    printf("%-18s %10u %10.3f\n", "all", bench->program->n_records, total * 1e-6 / bench->repeat);
}

static void print_table(const struct bench *bench, const struct unet_device_info *device) {
    const struct plan_model *model = &bench->plan->model;
    const double gflop = (double)cmd_count_flops(bench->program) * 1e-9;
    const double seconds = median_seconds(bench);
    struct unet_memory_report memory;
    char a[32], b[32], c[32];
    unet_session_memory(bench->session, &memory);
    printf("device    %s (%s), as %s with %s\n", device->name, device->driver,
           cmd_class_name(device->limits.class_), cmd_access_name(device));
    printf("program   %s, batch %u of %u x %u pixels, %u dispatches\n", bench->program->name,
           model->batch, model->in_h, model->in_w, bench->program->n_records);
    printf("time      %.4f s median, %.4f s least of %u runs; first %.4f s\n", seconds,
           bench->seconds[0], bench->repeat, bench->warm_up_seconds);
    printf("work      %.3f GFLOP, %.2f GFLOP/s\n", gflop, seconds > 0 ? gflop / seconds : 0.0);
    printf("memory    arena %s, weights %s, on the device %s",
           cmd_format_bytes(bench->program->arena_bytes, a, sizeof(a)),
           cmd_format_bytes(bench->plan->block_bytes[PLAN_BLOCK_WEIGHTS], b, sizeof(b)),
           cmd_format_bytes(memory.total_bytes, c, sizeof(c)));
    printf("; process at most %s\n", cmd_format_bytes(peak_memory_bytes(), a, sizeof(a)));
    if (bench->profile)
        print_profile(bench);
}

static bool allocate(struct bench *bench, struct err *err) {
    bench->seconds = calloc(bench->repeat, sizeof(double));
    bench->times_ns = calloc(bench->program->n_records, sizeof(uint64_t));
    bench->run_times_ns = calloc(bench->program->n_records, sizeof(uint64_t));
    if (bench->seconds != NULL && bench->times_ns != NULL && bench->run_times_ns != NULL)
        return true;
    return err_set(err, ERR_INPUT, "no memory for the times of %u runs", bench->repeat);
}

static bool run_on_device(const struct bench_values *values, struct bench *bench,
                          struct unet_device *device, struct err *err) {
    const struct unet_session_options options = {
        .programs = &bench->program->name, .n_programs = 1, .profile = values->profile};
    bool good = allocate(bench, err) &&
                unet_session_open(device, bench->plan, &options, &bench->session, err) &&
                measure(bench, err);
    if (good && values->json)
        good = print_json(bench, unet_device_get_info(device), err);
    else if (good)
        print_table(bench, unet_device_get_info(device));
    unet_session_close(bench->session);
    free(bench->seconds);
    free(bench->times_ns);
    free(bench->run_times_ns);
    return good;
}

static bool run_bench(const void *data, struct err *err) {
    const struct bench_values *values = data;
    struct bench bench = {.repeat = values->repeat, .profile = values->profile};
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                (bench.program = cmd_find_program(plan, values->program, err)) != NULL &&
                cmd_device_open(&values->common, &device, err);
    if (good) {
        bench.plan = plan;
        good = run_on_device(values, &bench, device, err);
    }
    unet_device_close(device);
    plan_free(plan);
    return good;
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .summary = "Measures a program of a plan: seconds, GFLOP/s, memory.",
    .details = "Input is random, weights are freshly initialised. GFLOP counts multiplications and "
               "additions of\nthe program; GFLOP/s is GFLOP divided by the median time.",
    .operands = "FILE.plan",
    .options = bench_options,
    .n_options = ARRAY_LEN(bench_options),
    .values_bytes = sizeof(struct bench_values),
    .run = run_bench,
};
