/*
 * simd.h: vectors of CPU_LANES floats for the kernels that are compiled once for each instruction
 * set. Compiler vector extensions; intrinsics only here, where the extensions cannot say it: the
 * fused multiply-add (whose rounding must not depend on what a compiler contracts) and loads and
 * stores of a part of a vector.
 *
 * meson.build defines CPU_ISA (plain, avx2, avx512) and CPU_LANES for every file that includes
 * this.
 */
#ifndef UNET_CPU_SIMD_H
#define UNET_CPU_SIMD_H

#include <stdint.h>
#include <string.h>

#if CPU_LANES == 8 || CPU_LANES == 16
#include <immintrin.h>
#elif defined(__SSE2__)
#include <xmmintrin.h>
#endif

#define CPU_JOIN_(a, b) a##_##b
#define CPU_JOIN(a, b) CPU_JOIN_(a, b)
/* The name of a symbol for the instruction set being compiled: name_avx512 and so on. */
#define CPU_FN(name) CPU_JOIN(name, CPU_ISA)

#define CPU_INLINE static inline __attribute__((always_inline))
#define CPU_ALIGN (CPU_LANES * 4)

typedef float simd_vec __attribute__((vector_size(CPU_ALIGN)));
typedef int32_t simd_mask __attribute__((vector_size(CPU_ALIGN)));
typedef float simd_vec_loose __attribute__((vector_size(CPU_ALIGN), aligned(4), may_alias));

CPU_INLINE simd_vec simd_zero(void) {
    return (simd_vec){0};
}

CPU_INLINE simd_vec simd_load(const float *p) {
    return *(const simd_vec_loose *)p;
}

CPU_INLINE void simd_store(float *p, simd_vec v) {
    *(simd_vec_loose *)p = v;
}

/* A store past the caches, where the machine can; p is aligned to CPU_ALIGN. simd_stream_end makes
   such stores of a thread visible to whoever synchronises with it. */
CPU_INLINE void simd_stream(float *p, simd_vec v) {
#if CPU_LANES == 16
    _mm512_stream_ps(p, (__m512)v);
#elif CPU_LANES == 8
    _mm256_stream_ps(p, (__m256)v);
#elif defined(__SSE2__)
    _mm_stream_ps(p, (__m128)v);
#else
    simd_store(p, v);
#endif
}

CPU_INLINE void simd_stream_end(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

CPU_INLINE simd_vec simd_set(float a) {
    return a - (simd_vec){0};
}

/* a * b + c, rounded once where the instruction set can. */
CPU_INLINE simd_vec simd_fma(simd_vec a, simd_vec b, simd_vec c) {
#if CPU_LANES == 16
    return (simd_vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif CPU_LANES == 8
    return (simd_vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

/* The cache lines of n floats that are going to be read; any address is allowed. */
CPU_INLINE void simd_prefetch(const float *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i += 16)
        __builtin_prefetch(p + i);
}

/* Lane by lane: mask (all ones or zero) ? a : b. */
CPU_INLINE simd_vec simd_select(simd_mask mask, simd_vec a, simd_vec b) {
    return (simd_vec)(((simd_mask)a & mask) | ((simd_mask)b & ~mask));
}

/* Lanes first <= l < last of p[l]; zero in the others, whose memory is not touched. */
CPU_INLINE simd_vec simd_load_part(const float *p, int first, int last) {
#if CPU_LANES == 16
    __mmask16 mask = (__mmask16)(((1u << last) - 1) & ~((1u << first) - 1));
    return (simd_vec)_mm512_maskz_loadu_ps(mask, p);
#else
    float lanes[CPU_LANES] = {0};
    for (int l = first; l < last; l++)
        lanes[l] = p[l];
    return simd_load(lanes);
#endif
}

/* The first n lanes. */
CPU_INLINE void simd_store_part(float *p, simd_vec v, int n) {
#if CPU_LANES == 16
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    float lanes[CPU_LANES];
    simd_store(lanes, v);
    memcpy(p, lanes, (size_t)n * sizeof(float));
#endif
}

/* row[at + l] of a row of `width` elements; zero outside of it. */
CPU_INLINE simd_vec simd_load_window(const float *row, int64_t at, int64_t width) {
    if (at >= 0 && at + CPU_LANES <= width)
        return simd_load(row + at);
    if (at <= -CPU_LANES || at >= width)
        return simd_zero();
    int first = at < 0 ? (int)-at : 0;
    int last = width - at < CPU_LANES ? (int)(width - at) : CPU_LANES;
    return simd_load_part(row + at, first, last);
}

#if CPU_LANES == 16
#define SIMD_SHUFFLE_ZIP_LO 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SIMD_SHUFFLE_ZIP_HI 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#define SIMD_SHUFFLE_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define SIMD_SHUFFLE_ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define SIMD_SHUFFLE_NEXT(b) 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 + (b)
#elif CPU_LANES == 8
#define SIMD_SHUFFLE_ZIP_LO 0, 8, 1, 9, 2, 10, 3, 11
#define SIMD_SHUFFLE_ZIP_HI 4, 12, 5, 13, 6, 14, 7, 15
#define SIMD_SHUFFLE_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define SIMD_SHUFFLE_ODD 1, 3, 5, 7, 9, 11, 13, 15
#define SIMD_SHUFFLE_NEXT(b) 1, 2, 3, 4, 5, 6, 7, 8 + (b)
#elif CPU_LANES == 4
#define SIMD_SHUFFLE_ZIP_LO 0, 4, 1, 5
#define SIMD_SHUFFLE_ZIP_HI 2, 6, 3, 7
#define SIMD_SHUFFLE_EVEN 0, 2, 4, 6
#define SIMD_SHUFFLE_ODD 1, 3, 5, 7
#define SIMD_SHUFFLE_NEXT(b) 1, 2, 3, 4 + (b)
#endif

/* Lanes of a pair of vectors, taken together as 2 * CPU_LANES elements. */
#ifdef __clang__
#define SIMD_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SIMD_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (simd_mask){__VA_ARGS__})
#endif

/* a0 b0 a1 b1 ...: the first and the second half of that. */
CPU_INLINE simd_vec simd_zip_lo(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_ZIP_LO);
}

CPU_INLINE simd_vec simd_zip_hi(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_ZIP_HI);
}

/* Elements 0, 2, 4 ... and 1, 3, 5 ... of a followed by b. */
CPU_INLINE simd_vec simd_even(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_EVEN);
}

CPU_INLINE simd_vec simd_odd(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_ODD);
}

/* Elements 1, 2, ... of a, and b[0] or b[1]. */
CPU_INLINE simd_vec simd_next0(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_NEXT(0));
}

CPU_INLINE simd_vec simd_next1(simd_vec a, simd_vec b) {
    return SIMD_SHUFFLE(a, b, SIMD_SHUFFLE_NEXT(1));
}

/*
 * `count` rows of CPU_LANES elements, interleaved: afterwards rows[0], rows[1], ... hold element 0
 * of every row, then element 1 of every row, and so on. count is a power of two.
 */
CPU_INLINE void simd_interleave(simd_vec *rows, int count) {
    simd_vec next[CPU_LANES];
    for (int step = 1; step < count; step *= 2) {
        for (int i = 0; i < count / 2; i++) {
            next[2 * i] = simd_zip_lo(rows[i], rows[i + count / 2]);
            next[2 * i + 1] = simd_zip_hi(rows[i], rows[i + count / 2]);
        }
        for (int i = 0; i < count; i++)
            rows[i] = next[i];
    }
}

#endif
