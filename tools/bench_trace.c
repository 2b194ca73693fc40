/*
 * bench_trace.c: the timed runs as trace events: the array format that Chrome's tracing and
 * Perfetto read ("Trace Event Format", complete events, times in microseconds). One row for the
 * host, which waits for each run, one for the device's queue with every dispatch.
 *
 * The two clocks are not the same: a run's dispatches are drawn from the moment the host began it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base.h"
#include "common/file.h"
#include "tools/bench.h"

#define PROCESS 1
enum { HOST = 1, QUEUE = 2 };

struct trace {
    FILE *stream;
    bool good, is_first;
};

/* Takes the event over. */
static void put(struct trace *trace, json_t *event) {
    trace->good = trace->good && event != NULL &&
                  fputs(trace->is_first ? "[\n" : ",\n", trace->stream) >= 0 &&
                  json_dumpf(event, trace->stream, JSON_COMPACT | JSON_REAL_PRECISION(15)) == 0;
    trace->is_first = false;
    json_decref(event);
}

static void put_name(struct trace *trace, const char *what, int thread, const char *name) {
    put(trace, json_pack("{s:s, s:s, s:i, s:i, s:{s:s}}", "name", what, "ph", "M", "pid", PROCESS,
                         "tid", thread, "args", "name", name));
}

/* The tensors by the names of their bindings: "x 1x64x570x570, w 64x64x3x3, y 1x64x568x568". */
static const char *describe_shapes(const struct plan *plan, const struct plan_record *record,
                                   char *text, size_t room) {
    const struct kernel_info *info = &kernel_table[record->kernel];
    text[0] = '\0';
    for (uint32_t i = 0; i < info->n_bindings; i++) {
        const struct shape shape = plan->tensors[record->tensors[i]].shape;
        const size_t length = strlen(text);
        snprintf(text + length, room - length, "%s%s %ux%ux%ux%u", i > 0 ? ", " : "",
                 info->bindings[i].name, (unsigned)shape.n, (unsigned)shape.c, (unsigned)shape.h,
                 (unsigned)shape.w);
    }
    return text;
}

static json_t *record_args(const struct bench *bench, uint32_t index, double seconds) {
    const struct plan_record *record = &bench->program->records[index];
    struct bench_work work = bench_record_work(bench, index);
    char shapes[KERNEL_MAX_BINDINGS * 64];
    work.seconds = seconds; /* of this run, not the median */
    json_t *args = json_pack("{s:i, s:s, s:s, s:f, s:f, s:I, s:f}", "record", (int)index, "kernel",
                             kernel_table[record->kernel].name, "shape",
                             describe_shapes(bench->plan, record, shapes, sizeof(shapes)), "gflop",
                             work.flops * 1e-9, "gflops", bench_gflops(&work), "bytes",
                             (json_int_t)work.bytes, "gbytes_per_s", bench_gbytes_per_s(&work));
    if (bench->has_peak)
        json_object_set_new(args, "ceiling_percent", json_real(bench_ceiling_percent(&work)));
    return args;
}

/* A complete event; args is taken over. */
static void put_span(struct trace *trace, const char *name, const char *category, int thread,
                     const struct unet_span *span, json_t *args) {
    put(trace,
        json_pack("{s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:o}", "name", name, "cat", category, "ph",
                  "X", "pid", PROCESS, "tid", thread, "ts", (double)span->begin_ns * 1e-3, "dur",
                  (double)(span->end_ns - span->begin_ns) * 1e-3, "args", args));
}

static void put_records(struct trace *trace, const struct bench *bench, uint32_t run,
                        uint64_t start_ns) {
    const uint32_t n = bench->program->n_records;
    for (uint32_t i = 0; i < n; i++) {
        if (!bench->runs_record[i])
            continue;
        const struct unet_span *own = &bench->spans[(size_t)run * n + i];
        const struct unet_span span = {start_ns + own->begin_ns, start_ns + own->end_ns};
        const struct bench_part part = bench_part_of(bench->program, i);
        char category[64];
        snprintf(category, sizeof(category), "%s,%s", bench_op_names[part.op],
                 bench_direction_names[part.direction]);
        put_span(trace, bench->program->records[i].label, category, QUEUE, &span,
                 record_args(bench, i, (double)(span.end_ns - span.begin_ns) * 1e-9));
    }
}

static void put_runs(struct trace *trace, const struct bench *bench) {
    const uint32_t n = bench->program->n_records;
    uint64_t end_ns = 0; /* of the queue: a clock that runs a little faster must not overtake */
    for (uint32_t run = 0; run < bench->repeat; run++) {
        const struct unet_span host = {bench->runs[run].begin_ns, bench->runs[run].end_ns};
        const uint64_t start_ns = MAX(host.begin_ns, end_ns);
        put_span(trace, bench->program->name, "run", HOST, &host,
                 json_pack("{s:i}", "run", (int)run));
        put_records(trace, bench, run, start_ns);
        if (n > 0)
            end_ns = start_ns + bench->spans[(size_t)run * n + n - 1].end_ns;
    }
}

bool bench_trace_check(const char *path, struct err *err) {
    struct file_writer writer;
    if (!file_writer_open(&writer, path, err))
        return false;
    file_writer_abandon(&writer);
    return true;
}

bool bench_trace_write(const struct bench *bench, const struct unet_device_info *device,
                       const char *path, struct err *err) {
    struct file_writer writer;
    char name[600];
    if (!file_writer_open(&writer, path, err))
        return false;
    struct trace trace = {.stream = writer.stream, .good = true, .is_first = true};
    snprintf(name, sizeof(name), "unetrun bench: %s, %s", bench->plan->model.name,
             bench->program->name);
    put_name(&trace, "process_name", HOST, name);
    put_name(&trace, "thread_name", HOST, "host");
    snprintf(name, sizeof(name), "%s (%s)", device->name, device->driver);
    put_name(&trace, "thread_name", QUEUE, name);
    put_runs(&trace, bench);
    if (!trace.good || fputs("\n]\n", trace.stream) < 0) {
        err_set(err, ERR_IO, "%s: cannot write: %s", path, strerror(errno));
        file_writer_abandon(&writer);
        return false;
    }
    return file_writer_commit(&writer, err);
}
