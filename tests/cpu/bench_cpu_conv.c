/*
 * bench_cpu_conv.c: speed of the native convolution kernels on the layers of a U-Net (Ronneberger
 * et al. 2015, without padding), every direction of each, against the machine's multiply-add
 * ceiling. The clock wanders, so a loop of nothing but multiply-adds runs before every repetition,
 * and the medians of both are compared, in processor time of the threads, which other programs on
 * the machine disturb least; the milliseconds are elapsed time. Convolutions that can be computed
 * by Winograd's algorithm run both ways, one after the other in every repetition; "*" marks the way
 * that the device would take, and the sums are over those. Rates count the operations of the direct
 * sum, so Winograd may exceed the ceiling.
 *
 *     bench_cpu_conv [--width 64] [--tile 572] [--threads 2] [--isa avx512] [--only u3]
 *                    [--direction fwd|dgrad|wgrad] [--repeat 5]
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/base.h"
#include "runtime/cpu/kernel.h"
#include "runtime/cpu/peak.h"

#define MAX_THREADS 256
#define MAX_REPEAT 101

static struct {
    uint32_t width, tile, threads, repeat;
    enum cpu_isa isa;
    const char *only, *direction;
} options = {64, 572, 2, 5, CPU_ISA_AVX512, "", ""};

static double clock_s(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Steps of the multiply-add loop (runtime/cpu/peak.h) in one run. */
#define CEILING_STEPS 400000

/* What all threads do together: one kernel, or the ceiling when there is none. */
static struct {
    const struct cpu_kernel *kernel;
    struct cpu_call call;
    void *scratch[MAX_THREADS];
    float sums[MAX_THREADS];
    double flops[MAX_THREADS];
    atomic_uint next[2];
    pthread_barrier_t start, phase;
    bool stop;
} work;

static void take_part(uint32_t thread) {
    if (work.kernel == NULL) {
        const struct cpu_peak_loops *loops = cpu_peak_find(options.isa);
        work.sums[thread] = loops->multiply_add(CEILING_STEPS, 0.999f, 0.001f);
        work.flops[thread] = (double)CEILING_STEPS * loops->flops;
        return;
    }
    struct cpu_call call = work.call;
    call.scratch = work.scratch[thread];
    for (uint32_t phase = 0; phase < work.kernel->n_phases; phase++) {
        const uint32_t n = work.kernel->units(call.params, phase);
        for (uint32_t unit; (unit = atomic_fetch_add(&work.next[phase], 1)) < n;)
            work.kernel->run(&call, phase, unit);
        if (phase + 1 < work.kernel->n_phases)
            pthread_barrier_wait(&work.phase);
    }
}

static void *worker(void *arg) {
    const uint32_t thread = (uint32_t)(uintptr_t)arg;
    for (;;) {
        pthread_barrier_wait(&work.start);
        if (work.stop)
            return NULL;
        take_part(thread);
        pthread_barrier_wait(&work.start);
    }
}

struct spent {
    double wall_s, cpu_s; /* cpu_s: of all threads */
};

static struct spent run_together(const struct cpu_kernel *kernel) {
    work.kernel = kernel;
    work.next[0] = work.next[1] = 0;
    const double start = clock_s(CLOCK_MONOTONIC), cpu_start = clock_s(CLOCK_PROCESS_CPUTIME_ID);
    pthread_barrier_wait(&work.start);
    take_part(0);
    pthread_barrier_wait(&work.start);
    return (struct spent){clock_s(CLOCK_MONOTONIC) - start,
                          clock_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_start};
}

static int compare_doubles(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t n) {
    qsort(values, n, sizeof(*values), compare_doubles);
    return values[n / 2];
}

static void *allocate(size_t bytes) {
    const size_t huge = (size_t)2 << 20;
    void *p = NULL;
    const size_t size = (size_t)align_up(MAX(bytes, 1), huge);
    if (posix_memalign(&p, huge, size) != 0) {
        fprintf(stderr, "bench_cpu_conv: no memory for %zu bytes\n", bytes);
        exit(4);
    }
#ifdef MADV_HUGEPAGE
    if (getenv("BENCH_HUGE") != NULL)
        madvise(p, size, MADV_HUGEPAGE);
#endif
    memset(p, 0, size);
    return p;
}

struct totals {
    double flops, wall_s, cpu_s, ideal_s;
};

/* One way to run a record, and what its repetitions took. */
struct way {
    const struct cpu_kernel *kernel;
    const char *name;
    bool is_chosen;
    size_t shared_bytes, scratch_bytes;
    double wall_s[MAX_REPEAT], cpu_s[MAX_REPEAT], ceilings[MAX_REPEAT], shares[MAX_REPEAT];
};

static int list_ways(struct way ways[2], enum kernel_id id, const union kernel_params *p) {
    static const enum cpu_conv choices[] = {CPU_CONV_DIRECT, CPU_CONV_WINOGRAD};
    const struct cpu_kernel *chosen = cpu_conv_find(options.isa, CPU_CONV_BY_RECORD, id, p);
    int n = 0;
    for (int i = 0; i < 2; i++) {
        if (choices[i] == CPU_CONV_WINOGRAD && !cpu_conv_is_winograd(choices[i], id, p))
            continue;
        struct way *way = &ways[n++];
        way->kernel = cpu_conv_find(options.isa, choices[i], id, p);
        way->name = choices[i] == CPU_CONV_WINOGRAD ? "winograd" : "direct";
        way->is_chosen = way->kernel == chosen;
        way->shared_bytes = way->kernel->shared_bytes ? way->kernel->shared_bytes(p) : 0;
        way->scratch_bytes = way->kernel->scratch_bytes ? way->kernel->scratch_bytes(p) : 0;
    }
    return n;
}

static void allocate_call(enum kernel_id id, const union kernel_params *p, const uint64_t *extents,
                          const struct way *ways, int n_ways) {
    work.call = (struct cpu_call){.params = p};
    for (uint32_t b = 0; b < kernel_table[id].n_bindings; b++) {
        float *data = allocate(extents[b] * sizeof(float));
        for (uint64_t i = 0; i < extents[b]; i++)
            data[i] = (float)(i % 61) / 61 - 0.5f;
        work.call.bindings[b] = data;
    }
    size_t shared_bytes = 0, scratch_bytes = 0;
    for (int i = 0; i < n_ways; i++) {
        shared_bytes = MAX(shared_bytes, ways[i].shared_bytes);
        scratch_bytes = MAX(scratch_bytes, ways[i].scratch_bytes);
    }
    work.call.shared = allocate(shared_bytes);
    for (uint32_t t = 0; t < options.threads; t++)
        work.scratch[t] = allocate(scratch_bytes);
}

static void free_call(enum kernel_id id) {
    for (uint32_t b = 0; b < kernel_table[id].n_bindings; b++)
        free(work.call.bindings[b]);
    free(work.call.shared);
    for (uint32_t t = 0; t < options.threads; t++)
        free(work.scratch[t]);
}

static void repeat_way(struct way *way, uint32_t r, double flops) {
    const struct spent before = run_together(NULL), spent = run_together(way->kernel),
                       after = run_together(NULL);
    double done = 0;
    for (uint32_t t = 0; t < options.threads; t++)
        done += work.flops[t];
    way->ceilings[r] = 2 * done / (before.cpu_s + after.cpu_s);
    way->wall_s[r] = spent.wall_s;
    way->cpu_s[r] = spent.cpu_s;
    way->shares[r] = flops / spent.cpu_s / way->ceilings[r];
}

/* A line of results. */
static void report_way(const char *layer, enum kernel_id id, const union kernel_params *p,
                       struct way *way, double flops, struct totals *totals) {
    const double wall = median(way->wall_s, options.repeat);
    const double cpu = median(way->cpu_s, options.repeat);
    const double ceiling = median(way->ceilings, options.repeat);
    const double share = median(way->shares, options.repeat);
    const bool is_split = id == KERNEL_ID_conv_wgrad || id == KERNEL_ID_upconv_wgrad;
    printf("%-6s %-12s %-8s%c %8.3f GMAC %9.3f ms %7.1f GFLOP/s; a thread %6.1f of %6.1f, "
           "%5.1f %%, at best %5.1f %%  (%u units, %zu + %zu KiB)\n",
           layer, kernel_table[id].name, way->name, way->is_chosen ? '*' : ' ', flops * 0.5e-9,
           wall * 1e3, flops / wall * 1e-9, flops / cpu * 1e-9, ceiling * 1e-9, 100 * share,
           100 * way->shares[options.repeat - 1],
           way->kernel->units(p, is_split ? 0 : way->kernel->n_phases - 1), way->shared_bytes >> 10,
           way->scratch_bytes >> 10);
    fflush(stdout);
    if (!way->is_chosen)
        return;
    totals->flops += flops;
    totals->wall_s += wall;
    totals->cpu_s += cpu;
    totals->ideal_s += cpu * share;
}

/* One kernel with its parameters, every way there is. */
static void bench(const char *layer, enum kernel_id id, const void *params, size_t params_bytes,
                  double multiply_adds, struct totals *totals) {
    static struct way ways[2];
    union kernel_params p = {{0}};
    memcpy(&p, params, params_bytes);
    const char *direction = strrchr(kernel_table[id].name, '_') + 1;
    if (strncmp(layer, options.only, strlen(options.only)) != 0 ||
        (options.direction[0] && strcmp(direction, options.direction) != 0))
        return;
    uint64_t extents[KERNEL_MAX_BINDINGS];
    const char *why = NULL;
    if (!kernel_extents(id, p.words, extents, &why)) {
        fprintf(stderr, "bench_cpu_conv: %s %s: %s\n", layer, kernel_table[id].name, why);
        exit(1);
    }
    const int n_ways = list_ways(ways, id, &p);
    allocate_call(id, &p, extents, ways, n_ways);
    for (int i = 0; i < n_ways; i++)
        run_together(ways[i].kernel);
    for (uint32_t r = 0; r < options.repeat; r++)
        for (int i = 0; i < n_ways; i++)
            repeat_way(&ways[i], r, 2 * multiply_adds);
    for (int i = 0; i < n_ways; i++)
        report_way(layer, id, &p, &ways[i], 2 * multiply_adds, totals);
    free_call(id);
}

/* A layer's channels, the size of its input map and its kernel. */
struct layer {
    char name[16];
    uint32_t c_in, c_out, size, k;
    bool up, first;
};

static void bench_conv(const struct layer *l, struct totals totals[3]) {
    const uint32_t in = l->size, out = in - l->k + 1;
    const double work_done = (double)l->c_in * l->c_out * l->k * l->k * out * out;
    const struct conv_params fwd = {.n = 1,
                                    .c_in = l->c_in,
                                    .h_in = in,
                                    .w_in = in,
                                    .x_stride_n = l->c_in * in * in,
                                    .c_out = l->c_out,
                                    .h_out = out,
                                    .w_out = out,
                                    .y_stride_n = l->c_out * out * out,
                                    .dilation = 1,
                                    .kh = l->k,
                                    .kw = l->k,
                                    .epilogue = EPILOGUE_BIAS | EPILOGUE_ACT};
    bench(l->name, KERNEL_ID_conv_fwd, &fwd, sizeof(fwd), work_done, &totals[0]);
    const struct conv_params back = {.n = 1,
                                     .c_in = l->c_out,
                                     .h_in = out,
                                     .w_in = out,
                                     .x_stride_n = l->c_out * out * out,
                                     .c_out = l->c_in,
                                     .h_out = in,
                                     .w_out = in,
                                     .y_stride_n = l->c_in * in * in,
                                     .pad_h = l->k - 1,
                                     .pad_w = l->k - 1,
                                     .dilation = 1,
                                     .kh = l->k,
                                     .kw = l->k,
                                     .aux_stride_n = l->c_in * in * in,
                                     .epilogue = EPILOGUE_MASK};
    if (!l->first)
        bench(l->name, KERNEL_ID_conv_dgrad, &back, sizeof(back), work_done, &totals[1]);
    const struct conv_wgrad_params weights = {.n = 1,
                                              .c_in = l->c_in,
                                              .h_in = in,
                                              .w_in = in,
                                              .x_stride_n = l->c_in * in * in,
                                              .c_out = l->c_out,
                                              .h_out = out,
                                              .w_out = out,
                                              .dy_stride_n = l->c_out * out * out,
                                              .dilation = 1,
                                              .kh = l->k,
                                              .kw = l->k,
                                              .splits = 1};
    bench(l->name, KERNEL_ID_conv_wgrad, &weights, sizeof(weights), work_done, &totals[2]);
}

static void bench_upconv(const struct layer *l, struct totals totals[3]) {
    const uint32_t in = l->size * l->size * l->c_in, out = l->size * l->size * l->c_out * 4;
    const double work_done = (double)in * l->c_out * 4;
    const struct upconv_params fwd = {.n = 1,
                                      .c_in = l->c_in,
                                      .h_in = l->size,
                                      .w_in = l->size,
                                      .x_stride_n = in,
                                      .c_out = l->c_out,
                                      .y_stride_n = out,
                                      .k = 2,
                                      .epilogue = EPILOGUE_BIAS | EPILOGUE_ACT};
    bench(l->name, KERNEL_ID_upconv_fwd, &fwd, sizeof(fwd), work_done, &totals[0]);
    const struct upconv_dgrad_params back = {.n = 1,
                                             .c_in = l->c_in,
                                             .h_in = l->size,
                                             .w_in = l->size,
                                             .dx_stride_n = in,
                                             .c_out = l->c_out,
                                             .dy_stride_n = out,
                                             .k = 2,
                                             .aux_stride_n = in,
                                             .epilogue = EPILOGUE_MASK};
    bench(l->name, KERNEL_ID_upconv_dgrad, &back, sizeof(back), work_done, &totals[1]);
    const struct upconv_wgrad_params weights = {.n = 1,
                                                .c_in = l->c_in,
                                                .h_in = l->size,
                                                .w_in = l->size,
                                                .x_stride_n = in,
                                                .c_out = l->c_out,
                                                .dy_stride_n = out,
                                                .k = 2,
                                                .splits = 1};
    bench(l->name, KERNEL_ID_upconv_wgrad, &weights, sizeof(weights), work_done, &totals[2]);
}

#define DEPTH 4

/* The layers of the net, from the image to the scores. */
static int list_layers(struct layer *layers) {
    int n = 0;
    uint32_t size = options.tile, c = options.width;
    for (int level = 0; level <= DEPTH; level++, c *= 2) {
        const uint32_t c_in = level == 0 ? 1 : c / 2;
        layers[n] = (struct layer){.c_in = c_in, .c_out = c, .size = size, .k = 3};
        layers[n].first = level == 0;
        snprintf(layers[n++].name, sizeof(layers->name), "d%da", level);
        layers[n] = (struct layer){.c_in = c, .c_out = c, .size = size - 2, .k = 3};
        snprintf(layers[n++].name, sizeof(layers->name), "d%db", level);
        size = level < DEPTH ? (size - 4) / 2 : size - 4;
    }
    c = options.width << DEPTH;
    for (int level = DEPTH - 1; level >= 0; level--, c /= 2) {
        layers[n] = (struct layer){.c_in = c, .c_out = c / 2, .size = size, .up = true};
        snprintf(layers[n++].name, sizeof(layers->name), "up%d", level);
        size *= 2;
        layers[n] = (struct layer){.c_in = c, .c_out = c / 2, .size = size, .k = 3};
        snprintf(layers[n++].name, sizeof(layers->name), "u%da", level);
        layers[n] = (struct layer){.c_in = c / 2, .c_out = c / 2, .size = size - 2, .k = 3};
        snprintf(layers[n++].name, sizeof(layers->name), "u%db", level);
        size -= 4;
    }
    layers[n++] = (struct layer){.name = "score", .c_in = c, .c_out = 2, .size = size, .k = 1};
    return n;
}

static void read_options(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        const uint32_t value = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--width") == 0)
            options.width = MAX(value, 1);
        else if (strcmp(argv[i], "--tile") == 0)
            options.tile = MAX(value, 188);
        else if (strcmp(argv[i], "--threads") == 0)
            options.threads = MIN(MAX(value, 1), MAX_THREADS);
        else if (strcmp(argv[i], "--repeat") == 0)
            options.repeat = MIN(MAX(value, 1), MAX_REPEAT);
        else if (strcmp(argv[i], "--isa") == 0)
            options.isa = strcmp(argv[i + 1], "plain") == 0  ? CPU_ISA_PLAIN
                          : strcmp(argv[i + 1], "avx2") == 0 ? CPU_ISA_AVX2
                                                             : CPU_ISA_AVX512;
        else if (strcmp(argv[i], "--only") == 0)
            options.only = argv[i + 1];
        else if (strcmp(argv[i], "--direction") == 0)
            options.direction = argv[i + 1];
    }
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    struct layer layers[32];
    const int n = list_layers(layers);
    pthread_t threads[MAX_THREADS];
    pthread_barrier_init(&work.start, NULL, options.threads);
    pthread_barrier_init(&work.phase, NULL, options.threads);
    for (uint32_t t = 1; t < options.threads; t++)
        pthread_create(&threads[t], NULL, worker, (void *)(uintptr_t)t);
    struct totals totals[3] = {{0}};
    for (int i = 0; i < n; i++)
        if (layers[i].up)
            bench_upconv(&layers[i], totals);
        else
            bench_conv(&layers[i], totals);
    work.stop = true;
    pthread_barrier_wait(&work.start);
    for (uint32_t t = 1; t < options.threads; t++)
        pthread_join(threads[t], NULL);
    static const char *const names[] = {"forward", "data gradient", "weight gradient"};
    struct totals all = {0};
    for (int d = 0; d < 3; d++) {
        printf("%-16s %8.1f GFLOP %9.3f ms %5.1f %% of the ceiling\n", names[d],
               totals[d].flops * 1e-9, totals[d].wall_s * 1e3,
               100 * totals[d].ideal_s / MAX(totals[d].cpu_s, 1e-12));
        all.wall_s += totals[d].wall_s;
        all.cpu_s += totals[d].cpu_s;
        all.ideal_s += totals[d].ideal_s;
    }
    printf("%-16s %24.3f ms %5.1f %% of the ceiling\n", "all", all.wall_s * 1e3,
           100 * all.ideal_s / MAX(all.cpu_s, 1e-12));
    return 0;
}
