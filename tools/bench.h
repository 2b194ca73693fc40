/*
 * bench.h: what unetrun bench measures, and the parts that show it: profile tables and JSON
 * (bench_profile.c), trace files (bench_trace.c).
 */
#ifndef UNET_BENCH_H
#define UNET_BENCH_H

#include <jansson.h>

#include "common/plan.h"
#include "runtime/runtime.h"

/* A timed run on the host's clock, from the start of the first. */
struct bench_run {
    uint64_t begin_ns, end_ns;
};

struct bench {
    const struct plan *plan;
    const struct plan_program *program;
    uint32_t repeat;
    bool has_spans;      /* every record was timed */
    bool has_peak;       /* the ceilings were measured */
    double open_seconds; /* of the session: memory, pipelines */
    double warm_up_seconds, seconds_median;
    double *seconds;         /* of each run, sorted */
    struct bench_run *runs;  /* in order */
    struct unet_span *spans; /* of each record of each run: [run * n_records + record] */
    double *record_seconds;  /* of each record: the median of all runs */
    bool *runs_record;       /* of each record: it is of no choice, or of the method chosen */
    uint32_t n_dispatches;   /* records that run */
    char *methods;           /* the choices of all programs, "": none */
    struct unet_peak before, after;
    struct unet_memory_report memory;
    struct unet_submissions submissions; /* of all runs but the first */
    uint64_t peak_rss_bytes; /* of the process, up to the last run */
};

/* Sorts the values; n > 0. */
double bench_median(double *values, uint32_t n);

/* The larger of the ceilings before and after the runs. */
struct unet_peak bench_peak(const struct bench *bench);

/* What a record is part of. */
enum bench_direction {
    BENCH_FORWARD,
    BENCH_DATA_GRADIENT,
    BENCH_WEIGHT_GRADIENT,
    BENCH_UPDATE,
    BENCH_DIRECTION_COUNT
};
enum bench_op {
    BENCH_CONV,
    BENCH_UPCONV,
    BENCH_POOL,
    BENCH_ACTIVATION,
    BENCH_ADD,
    BENCH_COPY,
    BENCH_DROPOUT,
    BENCH_LOSS,
    BENCH_OPTIMISER,
    BENCH_OP_COUNT
};
struct bench_part {
    enum bench_op op;
    enum bench_direction direction;
};
extern const char *const bench_op_names[BENCH_OP_COUNT];
extern const char *const bench_direction_names[BENCH_DIRECTION_COUNT];
struct bench_part bench_part_of(const struct plan_program *program, uint32_t record);

/* Time and work of one record or of several. */
struct bench_work {
    uint32_t dispatches;
    double seconds, flops, bytes; /* of one run; seconds: sum of the records' medians */
    /* What it would take at the ceilings: of the records that the multiply-add ceiling holds back
       longer, and of those that the copy ceiling does. 0 without ceilings. */
    double compute_seconds, copy_seconds;
};
struct bench_work bench_record_work(const struct bench *bench, uint32_t record);
double bench_gflops(const struct bench_work *work);
double bench_gbytes_per_s(const struct bench_work *work);
/* Per cent of the nearer ceiling; more than 100 where tensors come from caches. */
double bench_ceiling_percent(const struct bench_work *work);

/* Tables of the records and of totals, on stdout; the same as members of a JSON object. */
void bench_print_profile(const struct bench *bench);
void bench_add_profile(const struct bench *bench, json_t *object);

/* Whether the file could be written; leaves nothing behind. */
bool bench_trace_check(const char *path, struct err *err);
/* Writes the runs as trace events (ui.perfetto.dev, chrome://tracing), atomically. */
bool bench_trace_write(const struct bench *bench, const struct unet_device_info *device,
                       const char *path, struct err *err);

#endif
