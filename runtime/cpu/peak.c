/*
 * peak.c: the ceilings of the native device: the loops of its instruction set on all threads of its
 * pool, shared out in units as the work of kernels is.
 */
#include "runtime/cpu/peak.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/cpu/device.h"
#include "runtime/cpu/memory.h"

#define UNITS_PER_THREAD 16u /* so that a thread that is held up leaves its share to others */
#define STEPS 2000u          /* of a unit in one pass */
#define CHUNK_FLOATS (256u << 10)
/* A pass of the copy is one part of the buffers, the next pass the next part: short, and yet it
   finds nothing in the caches. */
#define COPY_PARTS 8u
#define CHUNK_BYTES (CHUNK_FLOATS * sizeof(float))
#define COPY_BYTES_LEAST ((uint64_t)128 << 20)
#define COPY_BYTES_MOST ((uint64_t)1 << 30)

extern const struct cpu_peak_loops cpu_peak_loops_plain;
#ifdef CPU_HAS_X86
extern const struct cpu_peak_loops cpu_peak_loops_avx2, cpu_peak_loops_avx512;
#endif

const struct cpu_peak_loops *cpu_peak_find(enum cpu_isa isa) {
    static const struct cpu_peak_loops *const loops[CPU_ISA_COUNT] = {
        [CPU_ISA_PLAIN] = &cpu_peak_loops_plain,
#ifdef CPU_HAS_X86
        [CPU_ISA_AVX2] = &cpu_peak_loops_avx2,
        [CPU_ISA_AVX512] = &cpu_peak_loops_avx512,
#endif
    };
    return loops[isa];
}

struct cpu_peak {
    struct exec_peak base; /* first: the runtime's view */
    const struct cpu_peak_loops *loops;
    struct cpu_pool *pool;
    float *from, *to;
    uint32_t passes;     /* of multiply-adds in a unit */
    uint32_t next_part;  /* to copy */
    volatile float sink; /* what the multiply-adds come to: computed because it is kept */
};

static void multiply_add_unit(void *context, uint32_t thread, uint32_t phase, uint32_t unit) {
    (void)thread, (void)phase;
    struct cpu_peak *peak = context;
    float result = 0;
    for (uint32_t pass = 0; pass < peak->passes; pass++)
        result += peak->loops->multiply_add(STEPS, 0.999f, 0.001f);
    if (unit == 0)
        peak->sink = result;
}

static uint32_t part_chunks(const struct cpu_peak *peak) {
    return (uint32_t)(peak->base.copy_bytes / CHUNK_BYTES / COPY_PARTS);
}

static void copy_unit(void *context, uint32_t thread, uint32_t phase, uint32_t unit) {
    (void)thread, (void)phase;
    const struct cpu_peak *peak = context;
    const size_t chunk = (size_t)peak->next_part * part_chunks(peak) + unit;
    peak->loops->copy(peak->to + chunk * CHUNK_FLOATS, peak->from + chunk * CHUNK_FLOATS,
                      CHUNK_FLOATS);
}

static void run_copies(struct cpu_peak *peak, uint32_t passes) {
    const uint32_t units = part_chunks(peak);
    const struct cpu_pool_work work = {
        .units = &units, .n_phases = 1, .run = copy_unit, .context = peak};
    for (uint32_t i = 0; i < passes; i++) {
        cpu_pool_run(peak->pool, &work);
        peak->next_part = (peak->next_part + 1) % COPY_PARTS;
    }
}

static void run_multiply_adds(struct cpu_peak *peak, uint32_t passes) {
    const uint32_t units = UNITS_PER_THREAD * cpu_pool_threads(peak->pool);
    const struct cpu_pool_work work = {
        .units = &units, .n_phases = 1, .run = multiply_add_unit, .context = peak};
    peak->passes = passes;
    cpu_pool_run(peak->pool, &work);
}

static bool run_peak(struct exec_peak *base, enum exec_peak_kind kind, uint32_t passes,
                     struct err *err) {
    (void)err;
    struct cpu_peak *peak = (struct cpu_peak *)base;
    if (kind == EXEC_PEAK_COPY)
        run_copies(peak, passes);
    else
        run_multiply_adds(peak, passes);
    return true;
}

static void close_peak(struct exec_peak *base) {
    struct cpu_peak *peak = (struct cpu_peak *)base;
    free(peak->from);
    free(peak->to);
    free(peak);
}

static const struct exec_peak_ops peak_ops = {.run = run_peak, .close = close_peak};

/* Four times the last cache, as far as the system tells its size; an eighth of the memory at most.
 */
static uint64_t choose_copy_bytes(uint64_t memory_bytes) {
    uint64_t size_bytes = COPY_BYTES_LEAST;
#ifdef _SC_LEVEL3_CACHE_SIZE
    const long cache_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (cache_bytes > 0)
        size_bytes = MAX(size_bytes, 4 * (uint64_t)cache_bytes);
#endif
    size_bytes = MIN(MIN(size_bytes, COPY_BYTES_MOST), memory_bytes / 8);
    const uint64_t step_bytes = CHUNK_BYTES * COPY_PARTS;
    return MAX(size_bytes / step_bytes, 1u) * step_bytes;
}

bool cpu_peak_open(struct unet_device *base, struct exec_peak **out, struct err *err) {
    struct cpu_device *device = (struct cpu_device *)base;
    struct cpu_peak *peak = calloc(1, sizeof(*peak));
    *out = NULL;
    if (peak == NULL)
        return err_set(err, ERR_DEVICE, "out of memory for a measurement");
    peak->loops = cpu_peak_find(device->isa);
    peak->pool = device->pool;
    peak->base.ops = &peak_ops;
    peak->base.copy_bytes = choose_copy_bytes(base->info.memory_bytes);
    peak->base.work[EXEC_PEAK_MULTIPLY_ADD] =
        (uint64_t)UNITS_PER_THREAD * cpu_pool_threads(device->pool) * STEPS * peak->loops->flops;
    peak->base.work[EXEC_PEAK_COPY] = 2 * peak->base.copy_bytes / COPY_PARTS;
    peak->from = cpu_memory_allocate(peak->base.copy_bytes);
    peak->to = cpu_memory_allocate(peak->base.copy_bytes);
    if (peak->from == NULL || peak->to == NULL) {
        close_peak(&peak->base);
        return err_set(err, ERR_DEVICE, "out of memory for two buffers of %llu bytes to copy",
                       (unsigned long long)peak->base.copy_bytes);
    }
    memset(peak->from, 0, peak->base.copy_bytes); /* a page never written is no memory yet */
    memset(peak->to, 0, peak->base.copy_bytes);
    *out = &peak->base;
    return true;
}
