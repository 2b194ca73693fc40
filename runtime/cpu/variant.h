/*
 * variant.h: what the files share that are compiled once for each instruction set (CPU_ISA:
 * plain, avx2, avx512): names of their symbols, and how the simple kernels divide their work.
 */
#ifndef UNET_CPU_VARIANT_H
#define UNET_CPU_VARIANT_H

#include "common/base.h"
#include "runtime/cpu/kernel.h"

/* The name of a symbol for the instruction set being compiled: name_avx512 and so on. */
#define CPU_JOIN_(a, b) a##_##b
#define CPU_JOIN(a, b) CPU_JOIN_(a, b)
#define CPU_FN(name) CPU_JOIN(name, CPU_ISA)

/* Before a loop whose iterations do not depend on one another, although its pointers may be equal:
   y may be x. */
#if defined(__clang__)
#define CPU_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define CPU_INDEPENDENT _Pragma("GCC ivdep")
#endif

/* Elements of one unit of a kernel over a long array: 64 KiB. */
#define CPU_CHUNK 16384u

static inline uint32_t cpu_chunks(uint32_t count) {
    return MAX(1u, div_up(count, CPU_CHUNK));
}

struct cpu_range {
    uint32_t begin, end;
};

static inline struct cpu_range cpu_chunk(uint32_t count, uint32_t chunk) {
    return (struct cpu_range){chunk * CPU_CHUNK, MIN((chunk + 1) * CPU_CHUNK, count)};
}

/* Bands of rows that a plane is divided into, so that there are units enough. */
#define CPU_MIN_UNITS 16u

static inline uint32_t cpu_bands(uint32_t planes, uint32_t rows) {
    return planes >= CPU_MIN_UNITS ? 1 : MAX(1u, MIN(rows, div_up(CPU_MIN_UNITS, planes)));
}

static inline struct cpu_range cpu_band(uint32_t rows, uint32_t bands, uint32_t band) {
    return (struct cpu_range){(uint32_t)((uint64_t)rows * band / bands),
                              (uint32_t)((uint64_t)rows * (band + 1) / bands)};
}

/* Where a kernel over planes finds the plane of a unit: image, channel, band. */
struct cpu_plane {
    uint32_t image, channel;
    struct cpu_range rows;
};

static inline struct cpu_plane cpu_plane_of(uint32_t n, uint32_t c, uint32_t rows, uint32_t unit) {
    const uint32_t bands = cpu_bands(n * c, rows), plane = unit / bands;
    return (struct cpu_plane){plane / c, plane % c, cpu_band(rows, bands, unit % bands)};
}

/* Elements from the start of a binding to an element of one of its images. */
static inline size_t cpu_offset(uint32_t image, uint32_t stride_n, size_t at) {
    return (size_t)image * stride_n + at;
}

/* Defines the function that looks a kernel up in the file's table `kernels`; NULL: not there. */
#define CPU_FIND(name)                                                                             \
    const struct cpu_kernel *CPU_FN(name)(enum kernel_id id);                                      \
    const struct cpu_kernel *CPU_FN(name)(enum kernel_id id) {                                     \
        for (size_t i = 0; i < ARRAY_LEN(kernels); i++) {                                          \
            if (kernels[i].id == id)                                                               \
                return &kernels[i];                                                                \
        }                                                                                          \
        return NULL;                                                                               \
    }

#endif
