/*
 * cmd_bench.c: unetrun bench: how long a program of a plan takes on a device, with random input and
 * freshly initialised weights, and the ceilings of the device itself. One run to warm up, then as
 * many as asked for.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/base.h"
#include "common/clock.h"
#include "common/rng.h"
#include "tools/bench.h"
#include "tools/cmd.h"

struct bench_values {
    struct cli_common common;
    const char *program, *trace;
    uint32_t repeat;
    bool peak, profile, json;
};

static const struct cli_option bench_options[] = {
    {"program", 0, CLI_TEXT, "NAME", offsetof(struct bench_values, program), false, "infer",
     "infer, evaluate or train_step"},
    {"repeat", 0, CLI_COUNT, "N", offsetof(struct bench_values, repeat), false, "5",
     "timed runs, after one to warm up"},
    {"peak", 0, CLI_FLAG, NULL, offsetof(struct bench_values, peak), false, NULL,
     "measure the device's own ceilings: multiply-adds and copies; needs no plan"},
    {"profile", 0, CLI_FLAG, NULL, offsetof(struct bench_values, profile), false, NULL,
     "time every dispatch, which slows the whole a little, and compare with the ceilings"},
    {"trace", 0, CLI_TEXT, "FILE", offsetof(struct bench_values, trace), false, NULL,
     "write the dispatches of the timed runs for ui.perfetto.dev or chrome://tracing"},
    {"json", 0, CLI_FLAG, NULL, offsetof(struct bench_values, json), false, NULL,
     "print one JSON object"},
};

/* A measurement under way. */
struct bench_session {
    struct bench *bench;
    struct unet_session *session;
};

/* Random grey values and labels, all pixels of weight one. */
static bool fill_port(const struct bench_session *running, uint32_t number, struct err *err) {
    const struct bench *bench = running->bench;
    const struct plan_port *port = &bench->program->ports[number];
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
    bool good = unet_session_write(running->session, bench->program->name, port->name, data,
                                   count * sizeof(*data), err);
    free(data);
    return good;
}

static bool prepare(const struct bench_session *running, struct err *err) {
    const struct plan_program *program = running->bench->program;
    if (!unet_session_init_weights(running->session, 1, err))
        return false;
    for (uint32_t i = 0; i < program->n_ports; i++)
        if (program->ports[i].direction == PLAN_IN && !fill_port(running, i, err))
            return false;
    return true;
}

static bool run_once(const struct bench_session *running, uint32_t step, struct bench_run *run_out,
                     struct err *err) {
    const struct bench *bench = running->bench;
    if (!unet_session_set_step(running->session, 1, step, bench->repeat + 1, 0, err))
        return false;
    run_out->begin_ns = clock_now_ns();
    if (!unet_session_run(running->session, bench->program->name, err))
        return false;
    run_out->end_ns = clock_now_ns();
    return true;
}

static double run_seconds(const struct bench_run *run) {
    return (double)(run->end_ns - run->begin_ns) * 1e-9;
}

static bool read_spans(const struct bench_session *running, uint32_t run, struct err *err) {
    const struct bench *bench = running->bench;
    return !bench->has_spans ||
           unet_session_profile(running->session, bench->program->name,
                                &bench->spans[(size_t)run * bench->program->n_records], err);
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, uint32_t n) {
    const uint32_t middle = n / 2;
    qsort(values, n, sizeof(double), compare_doubles);
    return n % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

/* One run in which a dispatch was held up does not move it far. */
static void find_record_medians(struct bench *bench) {
    const uint32_t n = bench->program->n_records;
    for (uint32_t i = 0; bench->has_spans && i < n; i++) {
        for (uint32_t run = 0; run < bench->repeat; run++) {
            const struct unet_span *span = &bench->spans[(size_t)run * n + i];
            bench->seconds[run] = (double)(span->end_ns - span->begin_ns) * 1e-9;
        }
        bench->record_seconds[i] = bench_median(bench->seconds, bench->repeat);
    }
}

static uint64_t peak_memory_bytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static bool measure(const struct bench_session *running, struct err *err) {
    struct bench *bench = running->bench;
    struct bench_run warm_up;
    if (!prepare(running, err) || !run_once(running, 0, &warm_up, err))
        return false;
    bench->warm_up_seconds = run_seconds(&warm_up);
    unet_session_submissions(running->session, &bench->submissions);
    for (uint32_t i = 0; i < bench->repeat; i++)
        if (!run_once(running, i + 1, &bench->runs[i], err) || !read_spans(running, i, err))
            return false;
    unet_session_submissions(running->session, &bench->submissions);
    find_record_medians(bench);
    const uint64_t start_ns = bench->runs[0].begin_ns;
    for (uint32_t i = 0; i < bench->repeat; i++) {
        bench->seconds[i] = run_seconds(&bench->runs[i]);
        bench->runs[i].begin_ns -= start_ns;
        bench->runs[i].end_ns -= start_ns;
    }
    bench->seconds_median = bench_median(bench->seconds, bench->repeat);
    for (uint32_t i = 0; i < bench->program->n_records; i++) {
        bench->runs_record[i] = unet_session_runs_record(running->session, bench->program->name, i);
        bench->n_dispatches += bench->runs_record[i];
    }
    bench->methods = unet_session_choices_text(running->session);
    if (bench->methods == NULL)
        return err_set(err, ERR_INPUT, "no memory for the names of methods");
    unet_session_memory(running->session, &bench->memory);
    bench->peak_rss_bytes = peak_memory_bytes();
    return true;
}

/* ---- ceilings ---- */

static void add_peak(json_t *object, const struct unet_peak *peak) {
    json_object_set_new(object, "multiply_add_gflops", json_real(peak->multiply_add_gflops));
    json_object_set_new(object, "multiply_add_gflops_median",
                        json_real(peak->multiply_add_gflops_median));
    json_object_set_new(object, "copy_gbytes_per_s", json_real(peak->copy_gbytes_per_s));
    json_object_set_new(object, "copy_gbytes_per_s_median",
                        json_real(peak->copy_gbytes_per_s_median));
    json_object_set_new(object, "copy_bytes", json_integer((json_int_t)peak->copy_bytes));
    json_object_set_new(object, "peak_repeat", json_integer(peak->repeat));
}

static void print_peak(const char *title, const struct unet_peak *peak) {
    char text[32];
    printf("%s multiply-add %.2f GFLOP/s (median %.2f), copy %.2f GB/s (median %.2f), %u runs, "
           "buffers of %s\n",
           title, peak->multiply_add_gflops, peak->multiply_add_gflops_median,
           peak->copy_gbytes_per_s, peak->copy_gbytes_per_s_median, peak->repeat,
           cmd_format_bytes(peak->copy_bytes, text, sizeof(text)));
}

static void print_device(const struct unet_device_info *device) {
    printf("device    %s (%s), as %s with %s\n", device->name, device->driver,
           cmd_class_name(device->limits.class_), cmd_access_name(device));
}

static json_t *device_json(const struct unet_device_info *device) {
    return json_pack("{s:s, s:s, s:s, s:s}", "device", device->name, "driver", device->driver,
                     "class", cmd_class_name(device->limits.class_), "access",
                     cmd_access_name(device));
}

static bool run_peak(const struct bench_values *values, struct err *err) {
    struct unet_device *device = NULL;
    struct unet_peak peak;
    bool good = cmd_device_open(&values->common, &device, err) &&
                unet_device_measure_peak(device, &peak, err);
    if (good && values->json) {
        json_t *object = device_json(unet_device_get_info(device));
        add_peak(object, &peak);
        good = cmd_print_json(object, err);
    } else if (good) {
        print_device(unet_device_get_info(device));
        print_peak("ceilings ", &peak);
    }
    unet_device_close(device);
    return good;
}

/* ---- a program ---- */

static void add_peaks(json_t *object, const struct bench *bench) {
    const struct unet_peak peak = bench_peak(bench);
    json_t *before = json_object(), *after = json_object();
    add_peak(object, &peak);
    add_peak(before, &bench->before);
    add_peak(after, &bench->after);
    json_object_set_new(object, "ceilings_before", before);
    json_object_set_new(object, "ceilings_after", after);
}

static bool print_json(const struct bench *bench, const struct unet_device_info *device,
                       bool with_profile, struct err *err) {
    const struct plan_model *model = &bench->plan->model;
    const double gflop = (double)cmd_count_flops(bench->program) * 1e-9;
    const double seconds = bench->seconds_median;
    const struct unet_memory_report *memory = &bench->memory;
    json_t *object = device_json(device);
    json_t *figures = json_pack(
        "{s:s, s:[i,i,i,i], s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}",
        "program", bench->program->name, "input", (int)model->batch, (int)model->channels,
        (int)model->in_h, (int)model->in_w, "repeat", (int)bench->repeat, "seconds_open",
        bench->open_seconds, "seconds_first", bench->warm_up_seconds, "seconds_median", seconds,
        "seconds_min", bench->seconds[0], "gflop", gflop, "gflops",
        seconds > 0 ? gflop / seconds : 0.0, "arena_bytes", (json_int_t)bench->program->arena_bytes,
        "weight_bytes", (json_int_t)bench->plan->block_bytes[PLAN_BLOCK_WEIGHTS], "state_bytes",
        (json_int_t)memory->block_bytes[PLAN_BLOCK_STATE], "io_bytes",
        (json_int_t)memory->block_bytes[PLAN_BLOCK_IO], "staging_bytes",
        (json_int_t)memory->staging_bytes, "device_bytes", (json_int_t)memory->total_bytes);
    json_object_update(object, figures);
    json_decref(figures);
    if (bench->has_peak)
        add_peaks(object, bench);
    else /* else it would be that of the measurement of the ceilings */
        json_object_set_new(object, "peak_rss_bytes",
                            json_integer((json_int_t)bench->peak_rss_bytes));
    if (bench->submissions.target_seconds > 0) {
        json_object_set_new(object, "submissions",
                            json_integer((json_int_t)bench->submissions.count));
        json_object_set_new(object, "submission_seconds_max",
                            json_real(bench->submissions.longest_seconds));
    }
    json_object_set_new(object, "methods", json_string(bench->methods));
    if (with_profile)
        bench_add_profile(bench, object);
    return cmd_print_json(object, err);
}

static void print_table(const struct bench *bench, const struct unet_device_info *device,
                        bool with_profile) {
    const struct plan_model *model = &bench->plan->model;
    const double gflop = (double)cmd_count_flops(bench->program) * 1e-9;
    const double seconds = bench->seconds_median;
    char a[32], b[32], c[32];
    print_device(device);
    printf("program   %s, batch %u of %u x %u pixels, %u dispatches\n", bench->program->name,
           model->batch, model->in_h, model->in_w, bench->n_dispatches);
    if (bench->methods[0] != '\0')
        printf("methods   %s\n", bench->methods);
    printf("time      %.4f s median, %.4f s least of %u runs; first %.4f s\n", seconds,
           bench->seconds[0], bench->repeat, bench->warm_up_seconds);
    printf("opened    in %.3f s: memory, pipelines\n", bench->open_seconds);
    if (bench->submissions.target_seconds > 0)
        printf("submitted in %.1f pieces a run, the longest %.4f s (%.3f s wanted at most)\n",
               (double)bench->submissions.count / bench->repeat, bench->submissions.longest_seconds,
               bench->submissions.target_seconds);
    printf("work      %.3f GFLOP, %.2f GFLOP/s\n", gflop, seconds > 0 ? gflop / seconds : 0.0);
    printf("memory    arena %s, weights %s, on the device %s",
           cmd_format_bytes(bench->program->arena_bytes, a, sizeof(a)),
           cmd_format_bytes(bench->plan->block_bytes[PLAN_BLOCK_WEIGHTS], b, sizeof(b)),
           cmd_format_bytes(bench->memory.total_bytes, c, sizeof(c)));
    if (!bench->has_peak)
        printf("; process at most %s", cmd_format_bytes(bench->peak_rss_bytes, a, sizeof(a)));
    printf("\n");
    if (bench->has_peak) {
        print_peak("ceilings  before:", &bench->before);
        print_peak("          after: ", &bench->after);
    }
    if (with_profile)
        bench_print_profile(bench);
}

static bool allocate(struct bench *bench, struct err *err) {
    const size_t spans = bench->has_spans ? (size_t)bench->repeat * bench->program->n_records : 1;
    bench->seconds = calloc(bench->repeat, sizeof(double));
    bench->runs = calloc(bench->repeat, sizeof(struct bench_run));
    bench->spans = calloc(MAX(spans, 1u), sizeof(struct unet_span));
    bench->record_seconds = calloc(MAX(bench->program->n_records, 1u), sizeof(double));
    bench->runs_record = calloc(MAX(bench->program->n_records, 1u), sizeof(bool));
    return (bench->seconds != NULL && bench->runs_record != NULL && bench->runs != NULL &&
            bench->spans != NULL && bench->record_seconds != NULL) ||
           err_set(err, ERR_INPUT, "no memory for the times of %u runs", bench->repeat);
}

/* The session ends before the ceilings are measured again: they need memory of their own. */
static bool measure_session(struct bench *bench, struct unet_device *device, struct err *err) {
    const struct unet_session_options options = {
        .programs = &bench->program->name, .n_programs = 1, .profile = bench->has_spans};
    struct bench_session running = {.bench = bench};
    const double start = clock_now_seconds();
    bool good = unet_session_open(device, bench->plan, &options, &running.session, err);
    bench->open_seconds = clock_now_seconds() - start;
    good = good && measure(&running, err);
    unet_session_close(running.session);
    return good;
}

static bool run_on_device(const struct bench_values *values, struct bench *bench,
                          struct unet_device *device, struct err *err) {
    const struct unet_device_info *info = unet_device_get_info(device);
    bool good = allocate(bench, err) &&
                (!bench->has_peak || unet_device_measure_peak(device, &bench->before, err)) &&
                measure_session(bench, device, err) &&
                (!bench->has_peak || unet_device_measure_peak(device, &bench->after, err)) &&
                (values->trace == NULL || bench_trace_write(bench, info, values->trace, err));
    struct unet_device_info used = *info; /* as it was for this plan */
    if (good)
        used.limits = unet_device_plan_limits(device, bench->plan);
    if (good && values->json)
        good = print_json(bench, &used, values->profile, err);
    else if (good)
        print_table(bench, &used, values->profile);
    free(bench->seconds);
    free(bench->runs);
    free(bench->spans);
    free(bench->record_seconds);
    free(bench->runs_record);
    free(bench->methods);
    return good;
}

static bool run_program(const struct bench_values *values, struct err *err) {
    struct bench bench = {.repeat = values->repeat,
                          .has_spans = values->profile || values->trace != NULL,
                          .has_peak = values->peak || values->profile};
    struct plan *plan = NULL;
    struct unet_device *device = NULL;
    bool good = plan_load(values->common.operands.items[0], &plan, err) &&
                (bench.program = cmd_find_program(plan, values->program, err)) != NULL &&
                (values->trace == NULL || bench_trace_check(values->trace, err)) &&
                cmd_device_open(&values->common, &device, err);
    if (good) {
        bench.plan = plan;
        good = run_on_device(values, &bench, device, err);
    }
    unet_device_close(device);
    plan_free(plan);
    return good;
}

static bool run_bench(const void *data, struct err *err) {
    const struct bench_values *values = data;
    if (values->common.operands.count > 0)
        return run_program(values, err);
    if (values->peak && !values->profile && values->trace == NULL)
        return run_peak(values, err);
    err_set(err, ERR_USAGE, "missing FILE.plan");
    return err_hint(err, "only \"unetrun bench --peak\" measures without a plan");
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .summary =
        "Measures a program of a plan: seconds, GFLOP/s, memory; or a device's own ceilings.",
    .details =
        "Input is random, weights are freshly initialised. GFLOP counts multiplications and "
        "additions of\nthe program; GFLOP/s is GFLOP divided by the median time.\n\n"
        "The ceilings are the best of several short runs of nothing but multiply-adds, and of "
        "nothing\nbut a copy (bytes read and written). --profile measures them before and after "
        "the program and\nshows for every dispatch the per cent of the nearer one: c, "
        "multiply-adds; m, memory. How to\nread it: docs/performance.md.",
    .operands = "[FILE.plan]",
    .options = bench_options,
    .n_options = ARRAY_LEN(bench_options),
    .values_bytes = sizeof(struct bench_values),
    .run = run_bench,
};
